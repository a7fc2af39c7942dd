"""Pair the tensors of two models that stand for the same weights. Knows names and shapes, never values.

By raw name where both have it; else by what the names mean: without the words around a network, in the
layout that all layouts translate to (`analyzer.layouts`), rows of a fused tensor against the tensors that
they are elsewhere. Tensors of different shape are compared where that makes sense, and listed always.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from analyzer.errors import PairingError
from analyzer.layouts import Facet, canonical
from analyzer.partial import common_part
from analyzer.records import Network, Pair, Pairing, Run, ShapeMismatch, TensorInfo
from analyzer.views import rows_of, transposed

Infos = Mapping[str, TensorInfo]
_Name = tuple[str, str]  # part and canonical name; the part is "" where it does not matter


@dataclass(frozen=True, slots=True)
class Side:
    """One of two models: its tensors and, if names alone do not pair them, its networks."""

    infos: Infos
    name: str  # what messages call it
    networks: Sequence[Network] = ()


def pair(a: Side, b: Side) -> Pairing:
    """Every key of A with its counterpart in B, in A's order; what has none is listed.

    Raises PairingError if no tensor of A has a counterpart.
    """
    facets_a = _facets(a.networks)
    found: dict[str, _Match] = {}
    for key, info in a.infos.items():
        if other := b.infos.get(key):
            found[key] = _match(info, (info, other), facets_a.get(key, _Known()))
    taken = set(found)
    left_a = [key for key in a.infos if key not in found]
    notes: list[str] = []
    if left_a and len(taken) < len(b.infos):
        facets_b = {key: known for key, known in _facets(b.networks).items() if key not in taken}
        for use_part in (True, False):
            index = _index(facets_b, taken, use_part=use_part)
            for key in left_a:
                if key in found or key not in facets_a:
                    continue
                if match := _by_meaning(a.infos[key], facets_a[key], b.infos, index, use_part=use_part):
                    found[key], used = match
                    taken |= used
        notes = _tie(a, b, facets_a, _facets(b.networks), found)
    if not found:
        raise PairingError(
            f"{a.name} and {b.name} have no key in common ({_example(a.infos)} against {_example(b.infos)}): "
            "they are not two versions of one model, or stored in layouts that mergescope cannot translate"
        )
    return _pairing(a.infos, b.infos, found, taken, notes)


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a key beside its tensor."""

    part: str = ""
    name: str = ""  # canonical, of the whole tensor; "" if unknown
    facets: tuple[Facet, ...] = ()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the rows that a canonical name means lie."""

    key: str
    facet: Facet


def _facets(networks: Iterable[Network]) -> dict[str, _Known]:
    """What every key of a model means; keys of EMA copies are left out, since they copy other keys."""
    known: dict[str, _Known] = {}
    for network in networks:
        names = network.names
        facets = canonical(list(names.values()))
        bare = _bare_names({f.name for own in facets.values() for f in own})
        for key, name in names.items():
            own = tuple(replace(facet, name=bare[facet.name]) for facet in facets[name])
            known[key] = _Known(network.part, own[0].name if len(own) == 1 else "", own)
    return known


def _bare_names(names: set[str]) -> dict[str, str]:
    """Canonical names without the word for a base model, which `AutoModel` leaves out; none twice."""
    bare = {name: _without_base(name) for name in names}
    counts: dict[str, int] = {}
    for name in bare.values():
        counts[name] = counts.get(name, 0) + 1
    return {name: short if counts[short] == 1 else name for name, short in bare.items()}


def _without_base(name: str) -> str:
    word, dot, rest = name.partition(".")
    return _without_base(rest) if dot and word in _BASES else name


def _index(known: Mapping[str, _Known], taken: set[str], *, use_part: bool) -> dict[_Name, _Place]:
    """Where each canonical name lies in B; without parts only names that stand in a single one."""
    index: dict[_Name, _Place] = {}
    doubled: set[_Name] = set()
    for key, each in known.items():
        for facet in each.facets if key not in taken else ():
            name = (each.part if use_part else "", facet.name)
            if name in index:
                doubled.add(name)
            index[name] = _Place(key, facet)
    return {name: place for name, place in index.items() if name not in doubled}


def _by_meaning(
    info: TensorInfo, known: _Known, b: Infos, index: Mapping[_Name, _Place], *, use_part: bool
) -> tuple[_Match, set[str]] | None:
    """The counterpart of one tensor of A, and the keys of B that it takes; None if rows of it have none."""
    names = [(known.part if use_part else "", facet.name) for facet in known.facets]
    if not names or not all(name in index for name in names):
        return None
    places = [index[name] for name in names]
    used = {place.key for place in places}
    whole = len(places) == 1 and not _is_slice(known.facets[0]) and not _is_slice(places[0].facet)
    if whole:
        other = b[places[0].key]
        if known.facets[0].transposed != places[0].facet.transposed and len(other.shape) == 2:
            other = transposed(other)
        return _match(info, (info, other), known), used
    runs: list[Run] = []
    for facet, place in zip(known.facets, places, strict=True):
        one, two = _rows(info, facet), _rows(b[place.key], place.facet)
        if one is None or two is None or _squeezed(one.shape) != _squeezed(two.shape):
            return ShapeMismatch(info.key, info.shape, b[place.key].shape), used
        runs.append(Run(one, replace(two, shape=one.shape), _start(info, facet), facet.word))
    return Pair(info, b[places[0].key], tuple(runs)), used


def _match(info: TensorInfo, sides: tuple[TensorInfo, TensorInfo], known: _Known) -> _Match:
    """Two whole tensors: all of them, the part that they have in common, or nothing."""
    one, two = sides
    if one.shape == two.shape:
        return Pair(one, two, _virtual(one, two, known.facets))
    if _squeezed(one.shape) == _squeezed(two.shape) and one.key != two.key:
        return Pair(one, replace(two, shape=one.shape))
    mismatch = ShapeMismatch(info.key, one.shape, two.shape)
    shared = common_part(known.name or info.key, one, two)
    return _Partial(Pair(*shared, partial=True), mismatch) if shared else mismatch


@dataclass(frozen=True, slots=True)
class _Partial:
    """A pair that is compared in part, and listed as well."""

    pair: Pair
    mismatch: ShapeMismatch


_Match = Pair | ShapeMismatch | _Partial


def _virtual(one: TensorInfo, two: TensorInfo, facets: Sequence[Facet]) -> tuple[Run, ...]:
    """The rows of two tensors that are fused in the same way."""
    if len(facets) < 2 or not all(facet.word for facet in facets):
        return ()
    runs = []
    for facet in facets:
        left, right = _rows(one, facet), _rows(two, facet)
        if left is None or right is None:
            return ()
        runs.append(Run(left, right, _start(one, facet), facet.word))
    return tuple(runs)


def _rows(info: TensorInfo, facet: Facet) -> TensorInfo | None:
    """The rows that a facet means; None where the tensor does not divide so."""
    if not _is_slice(facet):
        return info
    if not info.shape or info.shape[0] % facet.of or facet.transposed or info.view is not None:
        return None
    unit = info.shape[0] // facet.of
    return rows_of(info, facet.first * unit, facet.last * unit)


def _start(info: TensorInfo, facet: Facet) -> int:
    return info.numel // facet.of * facet.first


def _is_slice(facet: Facet) -> bool:
    return facet.last - facet.first != facet.of


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the ones at its end: a 1×1 convolution is a linear layer."""
    end = len(shape)
    while end > 1 and shape[end - 1] == 1:
        end -= 1
    return shape[:end]


def _tie(
    a: Side,
    b: Side,
    known_a: Mapping[str, _Known],
    known_b: Mapping[str, _Known],
    found: dict[str, _Match],
) -> list[str]:
    """Pair A's output head with B's token embedding, where B has no head because it is tied to that."""
    by_name = {(known.part, known.name): key for key, known in known_b.items()}
    notes = []
    for key, known in known_a.items():
        if key in found or known.name not in _HEADS or (known.part, known.name) in by_name:
            continue
        embedding = next((by_name[known.part, e] for e in _EMBEDDINGS if (known.part, e) in by_name), None)
        if embedding is not None:
            info = a.infos[key]
            found[key] = _match(info, (info, b.infos[embedding]), known)
            notes.append(
                f"{b.name} has no {known.name}: it is tied to {embedding}, which {key} is compared with"
            )
    return notes


def _pairing(
    a: Infos,
    b: Infos,
    found: Mapping[str, _Match],
    taken: set[str],
    notes: Sequence[str],
) -> Pairing:
    ordered = [found[key] for key in a if key in found]
    matches = [each.pair if isinstance(each, _Partial) else each for each in ordered]
    lists = [each.mismatch if isinstance(each, _Partial) else each for each in ordered]
    return Pairing(
        pairs=tuple(each for each in matches if isinstance(each, Pair)),
        only_in_a=tuple(key for key in a if key not in found),
        only_in_b=tuple(key for key in b if key not in taken),
        shape_mismatch=tuple(each for each in lists if isinstance(each, ShapeMismatch)),
        notes=tuple(notes),
    )


def _example(infos: Infos) -> str:
    first = next(iter(infos), None)
    return "no keys" if first is None else repr(first)


# What the classes of transformers call the model below its head.
_BASES = frozenset({"model", "transformer", "bert", "roberta", "gpt_neox", "vit", "language_model"})

# The output heads that can be tied, and what they are tied to.
_HEADS = frozenset({"lm_head.weight", "embed_out.weight", "output.weight"})
_EMBEDDINGS = (
    *("embed_tokens.weight", "wte.weight", "shared.weight", "word_embeddings.weight"),
    *("embed_in.weight", "embeddings.word_embeddings.weight", "token_embd.weight"),
)
