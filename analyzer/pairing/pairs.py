"""The pairs of two models, from whole tensors down to rows, and what is said about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from analyzer.errors import PairingError
from analyzer.layouts import Facet
from analyzer.pairing.meanings import Meaning, Place, meanings
from analyzer.pairing.partners import partners
from analyzer.pairing.rows import Shape, is_slice, rows, squeezed, stacked, start
from analyzer.pairing.ties import ALWAYS_TIED, EMBEDDINGS, HEADS, SHARED
from analyzer.partial import common_part, describe_parts
from analyzer.records import Network, Pair, Pairing, Run, ShapeMismatch, TensorInfo
from analyzer.views import transposed

Infos = Mapping[str, TensorInfo]


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
    known = meanings(a.networks)
    draft = _Draft()
    for key, info in a.infos.items():
        if other := b.infos.get(key):
            draft.found[key] = _match(info, other, known.get(key))
    draft.taken.update(draft.found)
    if any(key not in draft.found for key in known):
        ones, twos = (list(dict.fromkeys(each.values())) for each in (known, meanings(b.networks)))
        for one, two in partners(a.infos, ones, b.infos, twos):
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
    tied: dict[str, str] = field(default_factory=dict)  # A's key -> what stands for it in B
    idle: list[str] = field(default_factory=list)  # rows of B's fused tensors without a counterpart


def _pair_networks(of_a: tuple[Side, Meaning], of_b: tuple[Side, Meaning], draft: _Draft) -> None:
    """Pair what is left of a network of A with what is left of its partner in B."""
    (a, one), (b, two) = of_a, of_b
    places = {name: place for name, place in two.places.items() if place.key not in draft.taken}
    used: set[str] = set()
    for key in one.inner:
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


def _tied(name: str, meaning: Meaning) -> str | None:
    """The key of a model that stands for a tensor which it need not store, because the two are one.

    None for an output head if it may be missing because only the base model was saved: a base model has no
    word before its names. GPT-2 was saved so, and is tied all the same; a GGUF file holds whole models.
    """
    for other in EMBEDDINGS if name in HEADS else SHARED if name in SHARED else ():
        if place := meaning.places.get(other):
            sure = place.facet.name != other or other in ALWAYS_TIED or name in SHARED
            return place.key if sure else None
    return None


def _by_meaning(info: TensorInfo, meaning: Meaning, b: Infos, places: Sequence[Place]) -> _Match:
    """A tensor of A against the rows of B that mean the same."""
    facets = meaning.facets(info.key)
    if len(places) == 1 and not is_slice(facets[0]) and not is_slice(places[0].facet):
        other = b[places[0].key]
        if facets[0].transposed == places[0].facet.transposed or len(other.shape) != 2:
            return _match(info, other, meaning)
        turned = transposed(other)
        return Pair(info, turned) if turned.shape == info.shape else _mismatch(info, other.shape)
    runs: list[Run] = []
    twos = [rows(b[place.key], place.facet) for place in places]
    for facet, two in zip(facets, twos, strict=True):
        one = rows(info, facet)
        if one is None or two is None or squeezed(one.shape) != squeezed(two.shape):
            return _mismatch(info, stacked([t for t in twos if t]) or b[places[0].key].shape)
        runs.append(Run(one, replace(two, shape=one.shape), start(info, facet), facet.word))
    return Pair(info, b[places[0].key], tuple(runs))


def _match(info: TensorInfo, other: TensorInfo, meaning: Meaning | None) -> _Match:
    """Two whole tensors: all of them, the part that they have in common, or nothing."""
    if info.shape == other.shape:
        return Pair(info, other, _virtual(info, other, meaning.parts(info.key)) if meaning else ())
    if squeezed(info.shape) == squeezed(other.shape):
        return Pair(info, replace(other, shape=info.shape))
    mismatch = _mismatch(info, other.shape)
    name = meaning.names(info.key)[0] if meaning else info.key
    shared = common_part(name, info, other)
    return _Partial(Pair(*shared, partial=True), mismatch) if shared else mismatch


def _mismatch(info: TensorInfo, shape_b: Shape) -> ShapeMismatch:
    return ShapeMismatch(info.key, info.shape, shape_b)


def _virtual(one: TensorInfo, two: TensorInfo, facets: Sequence[Facet]) -> tuple[Run, ...]:
    """The rows of two tensors that are fused in the same way; none of a tensor that does not divide so."""
    runs = []
    for facet in facets:
        left, right = rows(one, facet), rows(two, facet)
        if left is None or right is None:
            return ()
        runs.append(Run(left, right, start(one, facet), facet.word))
    return tuple(runs)


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
            *(f"{key}: is compared with {tied} of B, which ties the two" for key, tied in draft.tied.items()),
            *_idle(draft.idle),
        ),
    )


def _renamed(pairs: Sequence[Pair]) -> list[str]:
    """That names differ, in one sentence for all of them."""
    others = [p for p in pairs if p.a.key != p.key_b]
    if not others:
        return []
    first = next((p for p in others if len(p.parts) == 1 and p.a.key.endswith(".weight")), others[0])
    count = f"{len(others):,} of {len(pairs):,}"
    return [f"{count} pairs have other names in B, as {first.a.key} is {first.key_b} there"]


def _idle(names: Sequence[str]) -> list[str]:
    """What is left of fused tensors of B that A has the rest of."""
    if not names:
        return []
    more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    return [f"fused tensors of B hold rows that A has no tensor for: {names[0]}{more}"]


def _example(infos: Infos) -> str:
    first = next(iter(infos), None)
    return "no keys" if first is None else repr(first)
