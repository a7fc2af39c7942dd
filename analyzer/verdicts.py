"""What a difference means: nothing, a cast, rounding, or a change. Knows sums, no files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias, get_args

from analyzer.arithmetic import FLOATS, AbstractArithmetic, Record, Value
from analyzer.formulas import change_to_rounding
from analyzer.measures import Sums

Verdict: TypeAlias = Literal["identical", "cast", "rounding", "changed"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)  # from the smallest difference to the largest
_IDENTICAL, _CAST, _ROUNDING, _CHANGED = range(len(VERDICTS))

ROUNDING_RATIO = 2.0  # up to this `change_to_rounding` nothing but rounding differs


def verdict(sums: Sums) -> Verdict:
    """The verdict on one key.

    `identical`: the same values, NaN being the same as NaN. `cast`: equal after a cast to the coarser of
    the two storage dtypes. `rounding`: ‖d‖ is at most twice what rounding alone would leave. `changed`:
    anything else, also where a value is finite on one side only.
    """
    return VERDICTS[verdict_code(sums, FLOATS)]


def verdict_code(s: Record, m: AbstractArithmetic) -> Value:
    """The verdict's index in `VERDICTS`, of one record or of many."""
    noise = m.where(change_to_rounding.body(s, m) <= ROUNDING_RATIO, _ROUNDING, _CHANGED)
    code = m.where(s.changed == 0, _IDENTICAL, m.where(s.cast_only == s.changed, _CAST, noise))
    return m.where(s.nonfinite_differs > 0, _CHANGED, code)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a group: that of its key with the largest difference. `identical` without keys.

    Not that of the summed record, in which the noise of a large key may hide what changed in a small one.
    """
    return max(verdicts, key=VERDICTS.index, default="identical")
