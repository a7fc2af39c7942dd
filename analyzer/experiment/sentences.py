"""What an experiment's numbers say, and what they do not, one sentence each. Knows plain values only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from analyzer.experiment.correlations import FEWEST, Best

_NAMED = 3  # of several, how many are named
# Of a category alone, without a look at B: a good guess by one of these says nothing of the change.
_SIZES = frozenset({"numel", "norm_a"})
Row = Mapping[str, Any]


def sentences(
    rows: Sequence[Row], parents: Sequence[Row], *, keys: Mapping[str, Collection[str]], best: Best | None
) -> list[str]:
    """The notes of the data document; `keys` are those that each category takes from B.

    The first says whether statistics foretell the effect; the others, what the numbers rest on.
    """
    found = [_prediction(best), _overlap(keys), _failures(rows, parents), _still(rows, parents)]
    if len(parents) == 1 and parents[0]["seed"] is not None:
        found.append("with one seed there are no intervals: another seed may look different")
    return [sentence for sentence in found if sentence]


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
    needed = (
        f"|ρ| above {best.critical:.2f} would tell"
        if best.reachable
        else f"with {best.n} categories not even |ρ| = 1 would tell"
    )
    return (
        f"no weight statistic foretells the effect: the largest ρ {of_all}, {pair}, is {best.spearman:.2f}, "
        f"and chance alone reaches that with p = {best.p:.2g}; {needed}"
    )


def _overlap(keys: Mapping[str, Collection[str]]) -> str:
    often = Counter(key for own in keys.values() for key in set(own))
    shared = [label for label, own in keys.items() if any(often[key] > 1 for key in own)]
    if not shared:
        return ""
    return (
        f"{len(shared)} of the {len(keys)} categories share weights with another ({_names(shared)}): they "
        "are no independent sample, so the intervals of ρ may be too narrow and its p too small"
    )


def _failures(rows: Sequence[Row], parents: Sequence[Row]) -> str:
    failed = [f"{row['selector']}{_at(row)}" for row in rows if row["error"]]
    failed += [f"{side.upper()}{_at(row)}" for row in parents for side in "ab" if row[f"error_{side}"]]
    if not failed:
        return ""
    return f"{len(failed)} of {len(rows) + 2 * len(parents)} cells failed: {_names(failed)}"


def _still(rows: Sequence[Row], parents: Sequence[Row]) -> str:
    """Of seeds in which A and B show the same, or something that is not finite."""
    seeds = [row["seed"] for row in parents if not (row["error_a"] or row["error_b"])]
    known = {row["seed"] for row in rows if row["moved"] is not None}
    painted = {row["seed"] for row in rows if not row["error"]}
    undefined = [seed for seed in seeds if seed in painted - known]
    if not undefined:
        return ""
    where = "" if undefined == [None] else f" with seed {_names(map(str, undefined))}"
    return (
        f"A and B show the same{where}, or something that is not finite: there is no way from A to B, and "
        "toward_b is undefined"
    )


def _at(row: Row) -> str:
    return "" if row["seed"] is None else f" with seed {row['seed']}"


def _names(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + more
