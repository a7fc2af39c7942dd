"""From what was summed of a merge to the options that make it again. Knows labels and numbers, no files.

Every key says which alphas it allows. A place (a block, or a part outside all blocks) gets the number that
most of its elements allow, the simplest there is, and what disagrees is said by selectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from analyzer.blocks import presets
from analyzer.errors import SelectorError
from analyzer.records import Labels
from analyzer.recovery.fits import Fit, fit, left_by
from analyzer.recovery.grams import Gram, add_grams
from analyzer.recovery.shared_values import Interval, most_shared, simplest
from analyzer.recovery.summing import KeyGram
from analyzer.selectors import compile_selector

MOST_SETS = 12  # selections that a command may need before it is no description any more
_WORTH = 3  # selections that block weights must spare to be worth their length
_FEW = 3  # blocks that must differ from the others before a preset is more than chance
_SIGMAS = 2.0  # times the error of a fit without bounds, so that few keys disagree by chance
_LEAST = 2e-4  # and at least so much: what other tools' arithmetic does is not known


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Options of `mergescope merge` that make a merge again."""

    alpha: float | None  # of everything; None: block weights say
    block_weights: tuple[float, ...] | None  # one number a block, in network order
    preset: str | None  # whose numbers the block weights are
    base_alpha: float | None  # of what lies in no block
    sets: tuple[tuple[str, float], ...]  # (selector, alpha), the later wins
    exact: bool  # False: too many keys disagree, and these are the alphas of the blocks on the whole
    alphas: Mapping[str, float]  # by key, what the options come to
    left: float  # Σ(m − what they make)²


@dataclass(frozen=True, slots=True)
class _Key:
    """One tensor and the alphas that it allows."""

    key: str
    labels: Labels
    allowed: Interval | None  # None: it cannot tell
    gram: Gram

    def allows(self, value: float) -> bool:
        """Whether the tensor may have been merged with this alpha."""
        return self.allowed is None or self.allowed.holds(value)


def allowed(found: Fit, numel: int) -> Interval | None:
    """The alphas with which a group may have been merged, weighing its elements.

    None where it cannot tell, or where much of it is in neither parent.
    """
    if found.alpha is None or found.error is None or found.is_strange:
        return None
    if found.low is not None and found.high is not None:
        return Interval(found.low, found.high, numel)
    width = max(_SIGMAS * found.error, _LEAST)
    return Interval(found.alpha - width, found.alpha + width, numel)


def reconstruct(rows: Sequence[KeyGram], blocks: Sequence[str]) -> Reconstruction | None:
    """The shortest description that was found of one alpha for every key; None where no key can tell."""
    keys = [_Key(r.key, r.labels, allowed(fit(r.gram), r.gram.numel), r.gram) for r in whole_keys(rows)]
    tell = sum(key.gram.numel for key in keys if key.allowed)
    strange = sum(row.gram.numel for row in keys if fit(row.gram).is_strange)
    if not tell and not strange:
        return None
    describer = _Describer(keys, blocks)
    if tell < strange:
        return describer.fitted()
    one = describer.with_one_alpha()
    by_block = describer.with_block_weights() if blocks else None
    if by_block is None or (one.exact and len(one.sets) <= len(by_block.sets) + _WORTH):
        return one
    return by_block


def whole_keys(rows: Sequence[KeyGram]) -> list[KeyGram]:
    """The tensors that a merge may touch and that were measured; the rows of a fused one together."""
    by_key: dict[str, list[KeyGram]] = {}
    for row in rows:
        if row.labels.counted and row.gram.n:
            by_key.setdefault(row.key, []).append(row)
    return [
        replace(parts[0], gram=add_grams(part.gram for part in parts), word="") for parts in by_key.values()
    ]


class _Describer:
    """Finds descriptions of the alphas of one model's keys."""

    def __init__(self, keys: Sequence[_Key], blocks: Sequence[str]) -> None:
        self._keys, self._blocks = keys, tuple(blocks)
        self._known = frozenset(blocks)
        self._by_place: dict[str, list[_Key]] = {}
        for key in keys:
            self._by_place.setdefault(self._place(key), []).append(key)

    def with_one_alpha(self) -> Reconstruction:
        """One number for all, and selections."""
        value = _common(self._keys)
        if value is None:
            value = 0.0
        return self._complete(Reconstruction(value, None, None, None, (), True, {}, 0.0), lambda _: value)

    def with_block_weights(self) -> Reconstruction:
        """A number for each block, one for all else, and selections."""
        shared = {b: _shared(self._by_place.get(b, [])) for b in self._blocks}
        preset = _preset(list(shared.values()))
        if preset:
            by_block = dict(zip(self._blocks, presets.weights(preset, len(self._blocks)), strict=True))
        else:
            by_block = {b: simplest(x.low, x.high) if x else 0.0 for b, x in shared.items()}
        outside = [key for key in self._keys if self._place(key) not in self._known]
        base = _common(outside) or 0.0
        plain = Reconstruction(None, tuple(by_block.values()), preset, base, (), True, {}, 0.0)
        found = self._complete(plain, lambda key: by_block.get(key.labels.block, base))
        return found if found.exact else self.fitted()

    def fitted(self) -> Reconstruction:
        """The alphas of the blocks on the whole, or one of all where there are no blocks."""
        if not self._blocks:
            alpha = _fitted(self._keys)
            plain = Reconstruction(alpha, None, None, None, (), False, {}, 0.0)
            return self._evaluated(plain, {key.key: alpha for key in self._keys})
        by_block = {b: _fitted(self._by_place.get(b, [])) for b in self._blocks}
        base = _fitted([key for key in self._keys if self._place(key) not in self._known])
        plain = Reconstruction(None, tuple(by_block.values()), None, base, (), False, {}, 0.0)
        return self._evaluated(plain, {k.key: by_block.get(k.labels.block, base) for k in self._keys})

    def _complete(self, plain: Reconstruction, value_of: Callable[[_Key], float]) -> Reconstruction:
        """The description with a selection for whatever disagrees with it."""
        alphas = {key.key: value_of(key) for key in self._keys}
        sets: list[tuple[str, float]] = []
        exact = True
        while wrong := [key for key in self._keys if not key.allows(alphas[key.key])]:
            value = _common(wrong)
            assert value is not None
            found = self._selections([key for key in wrong if key.allows(value)], value)
            if not found or len(sets) + len(found) > MOST_SETS:
                exact = False
                break
            for text, hit in found:
                sets.append((text, value))
                alphas |= dict.fromkeys(hit, value)
        return self._evaluated(replace(plain, sets=tuple(sets), exact=exact), alphas)

    def _evaluated(self, found: Reconstruction, alphas: Mapping[str, float]) -> Reconstruction:
        left = sum(left_by(key.gram, alphas[key.key]) for key in self._keys)
        return replace(found, alphas=alphas, left=left)

    def _selections(self, wanted: Sequence[_Key], value: float) -> list[tuple[str, frozenset[str]]]:
        """Selectors that hit all of these keys, and otherwise only keys that allow the value."""
        whole = {
            place
            for place in dict.fromkeys(self._place(key) for key in wanted)
            if all(key.allows(value) for key in self._by_place[place])
        }
        texts = self._of_places(whole, value)
        rest = [key for key in wanted if self._place(key) not in whole]
        # Components that stand in the same places with the same kinds are said together.
        alike: dict[tuple[frozenset[str], frozenset[str]], list[str]] = {}
        by_component: dict[str, list[_Key]] = {}
        for key in rest:
            by_component.setdefault(key.labels.component, []).append(key)
        for component, keys in by_component.items():
            where = frozenset(self._place(key) for key in keys)
            kinds = frozenset(key.labels.kind for key in keys)
            alike.setdefault((where, kinds), []).append(component)
        for (where, kinds), components in alike.items():
            texts += self._of_components(where, kinds, components, value)
        return [(text, hit) for text in dict.fromkeys(texts) if (hit := self._hits(text, value))]

    def _of_places(self, places: set[str], value: float) -> list[str]:
        blocks = [block for block in self._blocks if block in places]
        parts = sorted(places - self._known)
        found = [_ranges(blocks, self._blocks)] if blocks else []
        if parts:
            plain = ",".join(parts)
            found.append(plain if self._hits(plain, value) else ",".join(f"part:{part}" for part in parts))
        return found

    def _of_components(
        self, where: frozenset[str], kinds: frozenset[str], components: Sequence[str], value: float
    ) -> list[str]:
        """One selector, or one on either side where blocks and parts outside them are concerned."""
        inside = [key for key in self._keys if self._place(key) in where]
        names = self._coarse(inside, kinds, components, value)
        of_these = [key for key in self._keys if _is_in(key.labels.component, names)]
        everywhere = all(key.allows(value) for key in of_these if key.labels.kind in kinds)
        any_kind = all(key.allows(value) for key in of_these if everywhere or self._place(key) in where)
        blocks = [block for block in self._blocks if block in where]
        parts = sorted(where - self._known)
        places = [""] if everywhere else [
            text for text in (_ranges(blocks, self._blocks), ",".join(f"part:{p}" for p in parts)) if text
        ]  # fmt: skip
        kind_terms = (
            ""
            if any_kind
            else ",".join(f"kind:{kind}" if kind == "other" else kind for kind in sorted(kinds))
        )
        found = []
        for place in places:
            candidates = [
                ",".join(filter(None, (place, terms, kind_terms)))
                for terms in (
                    ",".join(name.rpartition("/")[2] for name in names),
                    ",".join(f"component:{name}" for name in names),
                )
            ]
            wanted = {
                key.key
                for key in of_these
                if key.labels.component in components
                and self._place(key) in where
                and key.labels.kind in kinds
            }
            fitting = [text for text in candidates if self._hits(text, value) & wanted]
            found += fitting[:1]
        return found

    def _coarse(
        self, inside: Sequence[_Key], kinds: frozenset[str], components: Sequence[str], value: float
    ) -> list[str]:
        """The components, or the groups they are in where all of a group allows the value."""
        names = []
        for component in components:
            group = next(key.labels.group for key in inside if key.labels.component == component)
            members = [key for key in inside if key.labels.group == group and key.labels.kind in kinds]
            names.append(group if all(key.allows(value) for key in members) else component)
        return list(dict.fromkeys(names))

    def _hits(self, text: str, value: float) -> frozenset[str]:
        """The keys that a selector hits; none if some of them does not allow the value, or it is wrong."""
        try:
            selector = compile_selector(text, rows=self._keys, blocks=self._blocks)
        except SelectorError:
            return frozenset()
        hit = [key for key in self._keys if selector.hits(key)]
        return frozenset(key.key for key in hit) if all(key.allows(value) for key in hit) else frozenset()

    def _place(self, key: _Key) -> str:
        return key.labels.block if key.labels.block in self._known else key.labels.part


def _common(keys: Sequence[_Key]) -> float | None:
    """The simplest number that most elements allow; None where no key can tell."""
    best = _shared(keys)
    return None if best is None else simplest(best.low, best.high)


def _shared(keys: Sequence[_Key]) -> Interval | None:
    """The numbers that most elements allow; None where no key can tell."""
    return most_shared(key.allowed for key in keys if key.allowed)


def _preset(blocks: Sequence[Interval | None]) -> str | None:
    """The preset whose numbers all blocks allow, if these are not one number; the first of several."""
    known = [each for each in blocks if each]
    one = most_shared(replace(each, weight=1.0) for each in known)
    if one is None or len(known) - one.weight < _FEW:
        return None
    for name in presets.PRESETS:
        numbers = presets.weights(name, len(blocks))
        if all(x is None or x.holds(value) for x, value in zip(blocks, numbers, strict=True)):
            return name
    return None


def _fitted(keys: Sequence[_Key]) -> float:
    """The alpha of all keys together; 0 where they cannot tell."""
    found = fit(add_grams(key.gram for key in keys)).alpha
    return 0.0 if found is None else round(found, 4) + 0.0


def _is_in(component: str, names: Sequence[str]) -> bool:
    return any(component == name or component.startswith(f"{name}/") for name in names)


def _ranges(blocks: Sequence[str], network: Sequence[str]) -> str:
    """The blocks in few terms: OUT03..OUT08 for three and more that follow one another."""
    places = [network.index(block) for block in blocks]
    terms: list[str] = []
    while places:
        run = 1
        while run < len(places) and places[run] == places[0] + run:
            run += 1
        names = [network[place] for place in places[:run]]
        terms += names if run <= 2 else [f"{names[0]}..{names[-1]}"]
        places = places[run:]
    return ",".join(terms)
