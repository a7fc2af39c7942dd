"""What the keys of a model mean: canonical names, with nothing around them. Knows names, no shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from analyzer.layouts import Facet, canonical, translates
from analyzer.records import Network


@dataclass(frozen=True, slots=True)
class Place:
    """Where the rows that a canonical name means lie."""

    key: str
    facet: Facet


@dataclass(frozen=True, eq=False)
class Meaning:
    """What the keys of one network mean. Averages (EMA) are a network of their own."""

    part: str
    kind: str  # the architecture, in any layout
    average: bool
    inner: Mapping[str, str]  # raw key -> its name inside the network
    mapped: Mapping[str, tuple[Facet, ...]]  # by names of `inner`; empty where no map holds

    def facets(self, key: str) -> tuple[Facet, ...]:
        """The rows of a tensor under their canonical names, in their order."""
        return self._facets[key]

    def parts(self, key: str) -> tuple[Facet, ...]:
        """The facets of a fused tensor; none of any other."""
        own = self.mapped.get(self.inner[key], ())
        return own if len(own) > 1 else ()

    def names(self, key: str) -> list[str]:
        """The bare canonical names of a tensor's rows."""
        return [self._bare[facet.name] for facet in self._facets[key]]

    @cached_property
    def _facets(self) -> Mapping[str, tuple[Facet, ...]]:
        return {key: self.mapped.get(name) or (Facet(name),) for key, name in self.inner.items()}

    @cached_property
    def _bare(self) -> Mapping[str, str]:
        """Canonical names without the word for a base model, which `AutoModel` leaves out; none twice."""
        names = (facet.name for facets in self._facets.values() for facet in facets)
        bare = {name: bare_name(name) for name in names}
        counts = Counter(bare.values())
        return {name: short if counts[short] == 1 else name for name, short in bare.items()}

    @cached_property
    def places(self) -> Mapping[str, Place]:
        """Where each bare canonical name lies."""
        bare = self._bare
        return {bare[f.name]: Place(key, f) for key, facets in self._facets.items() for f in facets}


def meanings(networks: Iterable[Network]) -> dict[str, Meaning]:
    """What every key means, as one object for all keys of a network."""
    found: dict[str, Meaning] = {}
    for network in networks:
        kind = network.architecture.removesuffix("-diffusers")
        for average, names in ((False, network.names), (True, network.copies)):
            if names:
                found |= dict.fromkeys(names, Meaning(network.part, kind, average, *_mapped(names)))
    return found


def _mapped(names: Mapping[str, str]) -> tuple[Mapping[str, str], Mapping[str, tuple[Facet, ...]]]:
    """The names inside a network and their facets, without the words that wrap all if a map holds then."""
    for length in _wrapped(names.values()):
        inner = {key: name[length:] for key, name in names.items()} if length else names
        if translates(inner.values()):
            return inner, canonical(list(inner.values()))
    return names, {}


def _wrapped(names: Collection[str]) -> Iterable[int]:
    """How many letters all names can do without: 0, and those of the words that wrap them all."""
    yield 0
    length = 0
    for word in next(iter(names), "").split(".")[:-1][:_MAX_WRAPPERS]:
        if word not in _WRAPPERS or not all(name.startswith(f"{word}.", length) for name in names):
            return
        length += len(word) + 1
        yield length


def bare_name(name: str) -> str:
    """A name without the words for a base model, and in the spelling that came later."""
    for _ in range(_MAX_WRAPPERS):
        word, dot, rest = name.partition(".")
        if not dot or word not in _BASES:
            break
        name = rest
    for old, new in _OLD_ENDS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


# Words around a whole network that is on its own in its file.
_WRAPPERS = frozenset({"model", "net", "network", "transformer", "module"})
_MAX_WRAPPERS = 8  # of them before one name; `model.language_model.model.` is the most that is seen

# What the classes of transformers call the model below its head, and the words above.
_BASES = _WRAPPERS | {"bert", "roberta", "distilbert", "gpt_neox", "vit", "language_model", "backbone"}

# The layer norms of models that were converted from TensorFlow.
_OLD_ENDS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
