"""What a difference means: nothing, a cast, rounding, or a change. Knows sums, no files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias, get_args

from analyzer.formulas import change_to_rounding
from analyzer.measures import Sums

Verdict: TypeAlias = Literal["identical", "cast", "rounding", "changed"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)  # from the smallest difference to the largest

ROUNDING_RATIO = 2.0  # up to this `change_to_rounding` nothing but rounding differs


def verdict(sums: Sums) -> Verdict:
    """The verdict on one key.

    `identical`: the same values, NaN being the same as NaN. `cast`: equal after a cast to the coarser of
    the two storage dtypes. `rounding`: ‖d‖ is at most twice what rounding alone would leave. `changed`:
    anything else, also where a value is finite on one side only.
    """
    if sums.nonfinite_differs:
        return "changed"
    if not sums.changed:
        return "identical"
    if sums.cast_only == sums.changed:
        return "cast"
    ratio = change_to_rounding(sums)
    return "rounding" if ratio is not None and ratio <= ROUNDING_RATIO else "changed"


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a group: that of its key with the largest difference. `identical` without keys.

    Not that of the summed record, in which the noise of a large key may hide what changed in a small one.
    """
    return max(verdicts, key=VERDICTS.index, default="identical")
