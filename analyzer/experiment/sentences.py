"""What an experiment's numbers say, and what they do not, one sentence each. Knows plain values only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import isclose
from typing import Any

from analyzer.experiment.correlations import FEWEST, Best
from analyzer.statistics import STATISTICS

_NAMED = 3  # of several, how many are named
_SIZES = frozenset({"numel", "norm_a", "norm_b"})  # of a category: they say nothing of its change
# What tells how B differs from A; not the ratio of their norms, whose ranking begins with what grew.
CHANGES = frozenset(name for name, its in STATISTICS.items() if its.neutral is not None) - {"norm_ratio"}
Row = Mapping[str, Any]


def sentences(
    rows: Sequence[Row],
    parents: Sequence[Row],
    *,
    keys: Mapping[str, Collection[str]],
    best: Best | None,
    change: Best | None = None,
    not_finite: Sequence[tuple[str, int | None]] = (),
) -> list[str]:
    """The notes of the data document; `keys` are those that each category takes from B.

    The first says whether statistics foretell the effect; the others, what the numbers rest on. `change` is
    the best of those of the change beside the number of weights, where that was asked; `not_finite` are the
    cells (label, seed) whose output has NaN or Inf.
    """
    found = [
        _prediction(best),
        _beside_size(change) if change is not None else "",
        _overlap(keys) if best is not None else "",
        _failures(rows, parents),
        _not_finite(not_finite),
        _still(parents),
        _decoded(rows),
    ]
    if len(parents) == 1 and parents[0]["seed"] is not None:
        found.append("with one seed there are no intervals: another seed may look different")
    return [sentence for sentence in found if sentence]


def foresight(best: Best | None) -> str:
    """Whether statistics foretell the effect: "found", "none", or "unknown" where it cannot be told."""
    if best is None or not (best.holds or best.reachable):
        return "unknown"
    return "found" if best.holds else "none"


def offered(change: Best | None) -> str | None:
    """The statistic by which a ranking is worth a try: one of the change that tells more than sizes do.

    None if it goes the other way than its ranking, which begins with what differs most.
    """
    if change is None or not change.holds:
        return None
    is_first = (change.spearman < 0) == STATISTICS[change.statistic].ascending
    return change.statistic if is_first else None


def overlapping(keys: Mapping[str, Collection[str]]) -> list[str]:
    """The categories that share keys with another."""
    often = Counter(key for own in keys.values() for key in set(own))
    return [label for label, own in keys.items() if any(often[key] > 1 for key in own)]


def _beside_size(change: Best) -> str:
    pair = f"{change.statistic} with {change.effect}"
    of_all = f"of {change.pairs:,} pairs"
    if change.holds:
        return (
            f"beside the number of weights, the change foretells the effect too: {pair}, partial "
            f"ρ = {change.spearman:.2f}, p = {change.p:.2g} as the largest {of_all}"
        )
    return (
        "beside the number of weights, no statistic of the change foretells the effect: the largest partial "
        f"ρ {of_all}, {pair}, is {change.spearman:.2f}, p = {change.p:.2g}"
    )


def _prediction(best: Best | None) -> str:
    if best is None:
        return (
            "whether a weight statistic foretells the effect cannot be told: that needs "
            f"{FEWEST} categories that were measured and that differ"
        )
    pair = f"{best.statistic} with {best.effect}"
    of_all = f"of {best.pairs:,} pairs of a statistic and an effect"
    if best.holds:
        size = f"; {best.statistic} is the size of a category, not its change" * (best.statistic in _SIZES)
        return (
            f"a weight statistic foretells the effect: {pair}, ρ = {best.spearman:.2f} over {best.n} "
            f"categories, p = {best.p:.2g} as the largest {of_all}{size}"
        )
    # As many digits as tell it from the one that would be enough.
    near = round(abs(best.spearman), 2) == round(best.critical, 2)
    digits = 4 if near and not isclose(abs(best.spearman), best.critical) else 2
    seen = (
        f"the largest ρ {of_all}, {pair}, is {best.spearman:.{digits}f}, and chance alone reaches that with "
        f"p = {best.p:.2g}"
    )
    if not best.reachable:
        return (
            f"whether a weight statistic foretells the effect cannot be told: {seen}; with {best.n} "
            "categories not even |ρ| = 1 would tell"
        )
    return (
        f"no weight statistic foretells the effect: {seen}; |ρ| above {best.critical:.{digits}f} would tell"
    )


def _overlap(keys: Mapping[str, Collection[str]]) -> str:
    shared = overlapping(keys)
    if not shared:
        return ""
    many = f"{len(shared)} of the" if len(shared) < len(keys) else "all"
    return (
        f"{many} {len(keys)} categories share weights with another ({_names(shared)}): they "
        "are no independent sample, so the intervals of ρ may be too narrow and its p too small; those of "
        "--axis component share none"
    )


def _failures(rows: Sequence[Row], parents: Sequence[Row]) -> str:
    failed = [f"{row['selector']}{_at(row)}" for row in rows if row["error"]]
    failed += [f"{side.upper()}{_at(row)}" for row in parents for side in "ab" if row[f"error_{side}"]]
    if not failed:
        return ""
    return f"{len(failed)} of {len(rows) + 2 * len(parents)} cells failed: {_names(failed)}"


def _not_finite(cells: Sequence[tuple[str, int | None]]) -> str:
    if not cells:
        return ""
    names = _names(label if seed is None else f"{label} with seed {seed}" for label, seed in cells)
    of_parents = not {"A", "B"}.isdisjoint(label for label, _ in cells)
    others = ", and toward_b is undefined with that seed" if of_parents else ""
    return (
        f"{len(cells)} of the cells hold NaN or Inf ({names}): nothing is measured of them{others}; "
        "mergescope scan counts what is not finite in the weights"
    )


def _still(parents: Sequence[Row]) -> str:
    """Of seeds with which A and B show the same."""
    same = [row["seed"] for row in parents if row["distance"] == 0]
    if not same:
        return ""
    where = "" if same == [None] else f" with seed{'s' * (len(same) > 1)} {_names(map(str, same))}"
    return f"A and B show the same{where}: there is no way from A to B, and toward_b is undefined"


def _decoded(rows: Sequence[Row]) -> str:
    """Of categories that work after the latents are done: those of the autoencoder."""
    still: dict[str, bool] = {}
    for row in rows:
        if row["moved"] is not None and row["pixels_neither"] is not None:
            decoded = row["moved"] == 0 and (row["pixels_toward_b"], row["pixels_neither"]) != (0, 0)
            still[row["selector"]] = still.get(row["selector"], True) and decoded
    labels = [label for label, decoded in still.items() if decoded]
    if not labels:
        return ""
    verb = "changes" if len(labels) == 1 else "change"
    return (
        f"{_names(labels)} {verb} how latents become pixels, and not the latents: what that does is in "
        "pixels_toward_b and pixels_neither"
    )


def _at(row: Row) -> str:
    return "" if row["seed"] is None else f" with seed {row['seed']}"


def _names(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + more
