"""Pair the tensors of two models that stand for the same weights. Knows names and shapes, never values.

By raw name where both have it; else by what the names mean: without the words around a network, in the
layout that all layouts translate to (`analyzer.layouts`), rows of a fused tensor against the tensors that
they are elsewhere. Tensors of different shape are compared where that makes sense, and listed always.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from analyzer.errors import PairingError
from analyzer.layouts import Facet, canonical
from analyzer.partial import common_part, describe_parts
from analyzer.records import Network, Pair, Pairing, Run, ShapeMismatch, TensorInfo
from analyzer.views import rows_of, transposed

Infos = Mapping[str, TensorInfo]
_Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Side:
    """One of two models: its tensors and, if raw names alone do not pair them, its networks."""

    infos: Infos
    name: str  # what messages call it
    networks: Sequence[Network] = ()


def pair(a: Side, b: Side) -> Pairing:
    """Every key of A with its counterpart in B, in A's order; what has none is listed.

    Raises PairingError if no tensor of A has a counterpart.
    """
    meanings = _meanings(a.networks)
    draft = _Draft()
    for key, info in a.infos.items():
        if other := b.infos.get(key):
            draft.found[key] = _match(info, other, meanings.get(key))
    draft.taken.update(draft.found)
    if any(key not in draft.found for key in meanings):
        for one, two in _partners(a, b, meanings):
            _pair_networks((a, one), (b, two), draft)
    if not draft.found:
        raise PairingError(
            f"{a.name} and {b.name} have no key in common ({_example(a.infos)} against {_example(b.infos)}): "
            "they are not two versions of one model, or stored in layouts that mergescope cannot translate"
        )
    return _pairing(a.infos, b.infos, draft)


@dataclass(frozen=True, slots=True)
class _Partial:
    """A pair that is compared in part, and listed as well."""

    pair: Pair
    mismatch: ShapeMismatch


_Match = Pair | ShapeMismatch | _Partial


@dataclass(slots=True)
class _Draft:
    """What has been found so far."""

    found: dict[str, _Match] = field(default_factory=dict)  # by A's key
    taken: set[str] = field(default_factory=set)  # keys of B
    tied: dict[str, str] = field(default_factory=dict)  # A's output head -> the embedding that B's is tied to
    idle: list[str] = field(default_factory=list)  # rows of B's fused tensors without a counterpart


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the rows that a canonical name means lie."""

    key: str
    facet: Facet


@dataclass(frozen=True, eq=False)
class _Meaning:
    """What the keys of one network mean. Averages (EMA) are a network of their own."""

    part: str
    kind: str  # the architecture, in any layout
    average: bool
    facets: Mapping[str, tuple[Facet, ...]]  # by raw key

    def name(self, key: str) -> str:
        """The bare canonical name of a whole tensor; "" for one that is several tensors elsewhere."""
        own = self.facets[key]
        return self._bare[own[0].name] if len(own) == 1 else ""

    def names(self, key: str) -> list[str]:
        """The bare canonical names of a tensor's rows, in their order."""
        return [self._bare[facet.name] for facet in self.facets[key]]

    @cached_property
    def _bare(self) -> Mapping[str, str]:
        """Canonical names without the word for a base model, which `AutoModel` leaves out; none twice."""
        bare = {f.name: _bare_name(f.name) for own in self.facets.values() for f in own}
        counts = Counter(bare.values())
        return {name: short if counts[short] == 1 else name for name, short in bare.items()}

    @cached_property
    def places(self) -> Mapping[str, _Place]:
        """Where each bare canonical name lies."""
        return {self._bare[f.name]: _Place(key, f) for key, own in self.facets.items() for f in own}


def _meanings(networks: Iterable[Network]) -> dict[str, _Meaning]:
    """The network of every key."""
    meanings: dict[str, _Meaning] = {}
    for network in networks:
        kind = network.architecture.removesuffix("-diffusers")
        for average, names in ((False, network.names), (True, network.copies)):
            if names:
                meanings |= dict.fromkeys(names, _Meaning(network.part, kind, average, _facets(names)))
    return meanings


def _facets(names: Mapping[str, str]) -> dict[str, tuple[Facet, ...]]:
    """What the names of one network mean; without the words that wrap them all, if a map wants that."""
    found: dict[str, tuple[Facet, ...]] = {}
    for length in _wrapped(names.values()):
        inner = {key: name[length:] for key, name in names.items()}
        facets = canonical(list(inner.values()))
        reached = any(len(own) > 1 or own[0].name != name for name, own in facets.items())
        if reached or not found:
            found = {key: facets[name] for key, name in inner.items()}
        if reached:
            break
    return found


def _wrapped(names: Collection[str]) -> Iterable[int]:
    """How many letters all names can do without: 0, and those of the words that wrap them all."""
    yield 0
    length = 0
    for word in next(iter(names), "").split(".")[:-1]:
        if word not in _WRAPPERS or not all(name.startswith(f"{word}.", length) for name in names):
            return
        length += len(word) + 1
        yield length


def _bare_name(name: str) -> str:
    word, dot, rest = name.partition(".")
    while dot and word in _BASES:
        name = rest
        word, dot, rest = name.partition(".")
    for old, new in _OLD_ENDS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _partners(a: Side, b: Side, meanings: Mapping[str, _Meaning]) -> list[tuple[_Meaning, _Meaning]]:
    """Which network of B each network of A is: the one that shares most tensors, in name and shape."""
    ones, twos = (list(dict.fromkeys(m.values())) for m in (meanings, _meanings(b.networks)))
    merits = []
    for one in ones:
        for two in twos:
            shared = [name for name in one.places if name in two.places]
            if shared and one.average == two.average:
                alike = _alike(a.infos, one, b.infos, two, shared)
                same_part = one.part == two.part
                # Networks of two kinds may have some names in common without being the same one.
                most = 2 * len(shared) > min(len(one.places), len(two.places))
                if (same_part and one.kind == two.kind) or (alike > 0.5 and most):
                    merits.append((alike * len(shared), same_part, len(shared), one, two))
    partners: dict[_Meaning, _Meaning] = {}
    for *_, one, two in sorted(merits, key=lambda merit: merit[:3], reverse=True):
        if one not in partners and two not in partners.values():
            partners[one] = two
    return [(one, partners[one]) for one in ones if one in partners]


def _alike(a: Infos, one: _Meaning, b: Infos, two: _Meaning, shared: Sequence[str]) -> float:
    """The share of their common tensors that are of the same shape, told by some of them."""
    sample = shared[:: len(shared) // _SAMPLE + 1]
    return sum(_extent(a, one.places[n]) == _extent(b, two.places[n]) for n in sample) / len(sample)


def _extent(infos: Infos, place: _Place) -> _Shape:
    """The shape of the canonical tensor that lies in a place."""
    info, facet = infos[place.key], place.facet
    shape = _squeezed(info.shape)
    if _is_slice(facet) and shape:
        shape = (shape[0] * (facet.last - facet.first) // facet.of, *shape[1:])
    return shape[::-1] if facet.transposed else shape


def _pair_networks(of_a: tuple[Side, _Meaning], of_b: tuple[Side, _Meaning], draft: _Draft) -> None:
    """Pair what is left of a network of A with what is left of its partner in B."""
    (a, one), (b, two) = of_a, of_b
    places = {name: place for name, place in two.places.items() if place.key not in draft.taken}
    used: set[str] = set()
    for key in one.facets:
        if key in draft.found:
            continue
        names = one.names(key)
        if all(name in places for name in names):
            matched = [places[name] for name in names]
            draft.found[key] = _by_meaning(a.infos[key], one, b.infos, matched)
            draft.taken.update(place.key for place in matched)
            used.update(names)
        elif names[0] not in two.places and (tied := _tied(names[0], two)):
            draft.found[key] = _match(a.infos[key], b.infos[tied], one)
            draft.taken.add(tied)
            draft.tied[key] = tied
    draft.idle += [name for name, place in places.items() if place.key in draft.taken and name not in used]


def _tied(name: str, meaning: _Meaning) -> str | None:
    """The key that stands for a tensor that a model need not store, because another one is the same.

    None for an output head that may be missing because only the base model was saved, which has no word
    before its names. GPT-2's was, and is tied all the same; so is that of a GGUF file, which holds whole
    models.
    """
    for other in _EMBEDDINGS if name in _HEADS else _SHARED if name in _SHARED else ():
        if place := meaning.places.get(other):
            sure = place.facet.name != other or other in _ALWAYS_TIED or name in _SHARED
            return place.key if sure else None
    return None


def _by_meaning(info: TensorInfo, meaning: _Meaning, b: Infos, places: Sequence[_Place]) -> _Match:
    """A tensor of A against the rows of B that mean the same."""
    facets = meaning.facets[info.key]
    if len(places) == 1 and not _is_slice(facets[0]) and not _is_slice(places[0].facet):
        other = b[places[0].key]
        if facets[0].transposed == places[0].facet.transposed or len(other.shape) != 2:
            return _match(info, other, meaning)
        turned = transposed(other)
        return Pair(info, turned) if turned.shape == info.shape else _mismatch(info, other.shape)
    runs: list[Run] = []
    twos = [_rows(b[place.key], place.facet) for place in places]
    for facet, two in zip(facets, twos, strict=True):
        one = _rows(info, facet)
        if one is None or two is None or _squeezed(one.shape) != _squeezed(two.shape):
            return _mismatch(info, _stacked([t for t in twos if t]) or b[places[0].key].shape)
        runs.append(Run(one, replace(two, shape=one.shape), _start(info, facet), facet.word))
    return Pair(info, b[places[0].key], tuple(runs))


def _match(info: TensorInfo, other: TensorInfo, meaning: _Meaning | None) -> _Match:
    """Two whole tensors: all of them, the part that they have in common, or nothing."""
    if info.shape == other.shape:
        return Pair(info, other, _virtual(info, other, meaning.facets[info.key]) if meaning else ())
    if _squeezed(info.shape) == _squeezed(other.shape):
        return Pair(info, replace(other, shape=info.shape))
    mismatch = _mismatch(info, other.shape)
    shared = common_part((meaning and meaning.name(info.key)) or info.key, info, other)
    return _Partial(Pair(*shared, partial=True), mismatch) if shared else mismatch


def _mismatch(info: TensorInfo, shape_b: _Shape) -> ShapeMismatch:
    return ShapeMismatch(info.key, info.shape, shape_b)


def _virtual(one: TensorInfo, two: TensorInfo, facets: Sequence[Facet]) -> tuple[Run, ...]:
    """The rows of two tensors that are fused in the same way; none of a tensor that does not divide so."""
    runs = []
    for facet in facets if len(facets) > 1 else ():
        left, right = _rows(one, facet), _rows(two, facet)
        if left is None or right is None:
            return ()
        runs.append(Run(left, right, _start(one, facet), facet.word))
    return tuple(runs)


def _rows(info: TensorInfo, facet: Facet) -> TensorInfo | None:
    """The rows that a facet means; None where the tensor does not divide so."""
    if not _is_slice(facet):
        return info
    if 0 in (info.shape or (0,)) or info.shape[0] % facet.of or facet.transposed:
        return None
    unit = info.shape[0] // facet.of
    return rows_of(info, facet.first * unit, facet.last * unit)


def _start(info: TensorInfo, facet: Facet) -> int:
    return info.numel // facet.of * facet.first


def _is_slice(facet: Facet) -> bool:
    return facet.last - facet.first != facet.of


def _stacked(pieces: Sequence[TensorInfo]) -> _Shape:
    """The shape of all pieces on top of each other; () where they do not fit."""
    if len({piece.shape[1:] for piece in pieces}) != 1 or not all(piece.shape for piece in pieces):
        return ()
    return (sum(piece.shape[0] for piece in pieces), *pieces[0].shape[1:])


def _squeezed(shape: _Shape) -> _Shape:
    """A shape without the ones behind its second axis: a 1×1 convolution is a linear layer."""
    end = len(shape)
    while end > 2 and shape[end - 1] == 1:
        end -= 1
    return shape[:end]


def _pairing(a: Infos, b: Infos, draft: _Draft) -> Pairing:
    ordered = [draft.found[key] for key in a if key in draft.found]
    matches = [each.pair if isinstance(each, _Partial) else each for each in ordered]
    lists = [each.mismatch if isinstance(each, _Partial) else each for each in ordered]
    pairs = [each for each in matches if isinstance(each, Pair)]
    return Pairing(
        pairs=tuple(pairs),
        only_in_a=tuple(key for key in a if key not in draft.found),
        only_in_b=tuple(key for key in b if key not in draft.taken),
        shape_mismatch=tuple(each for each in lists if isinstance(each, ShapeMismatch)),
        notes=(
            *_renamed([p for p in pairs if p.a.key not in draft.tied]),
            *describe_parts([each.mismatch for each in ordered if isinstance(each, _Partial)]),
            *(
                f"{key}: B's output is tied to {tied}, which it is compared with"
                for key, tied in draft.tied.items()
            ),
            *_idle(draft.idle),
        ),
    )


def _renamed(pairs: Sequence[Pair]) -> list[str]:
    """That names differ, in one sentence for all of them."""
    others = [p for p in pairs if p.a.key != p.key_b]
    if not others:
        return []
    first = next((p for p in others if len(p.parts) == 1), others[0])
    count = f"{len(others):,} of {len(pairs):,}"
    return [f"{count} pairs have other names in B, as {first.a.key} is {first.key_b} there"]


def _idle(names: Sequence[str]) -> list[str]:
    """What is left of fused tensors of B that A has the rest of."""
    if not names:
        return []
    return [f"{len(names):,} pieces of B's fused tensors have no counterpart in A, as {names[0]}"]


def _example(infos: Infos) -> str:
    first = next(iter(infos), None)
    return "no keys" if first is None else repr(first)


_SAMPLE = 200  # tensors whose shapes tell whether two networks are the same one

# Words around a whole network that is on its own in its file.
_WRAPPERS = frozenset({"model", "net", "network", "transformer", "module"})

# What the classes of transformers call the model below its head, and the words above.
_BASES = _WRAPPERS | {"bert", "roberta", "distilbert", "gpt_neox", "vit", "language_model", "backbone"}

# The layer norms of models that were converted from TensorFlow.
_OLD_ENDS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

# The output heads that can be tied, and what they are tied to.
_HEADS = frozenset(
    {
        *("lm_head.weight", "embed_out.weight", "output.weight", "proj_out.weight"),
        *("cls.predictions.decoder.weight", "lm_head.decoder.weight"),
    }
)

# The embeddings of T5 and BART, which are one tensor under several names.
_SHARED = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")

_ALWAYS_TIED = ("wte.weight", "token_embd.weight")
_EMBEDDINGS = (
    *("embed_tokens.weight", "decoder.embed_tokens.weight", "word_embeddings.weight", "embed_in.weight"),
    *("embeddings.word_embeddings.weight", *_ALWAYS_TIED),
)
