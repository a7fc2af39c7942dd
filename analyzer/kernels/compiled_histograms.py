"""The compiled loops of a scan's histograms: how the change of a block spreads.

All histograms are counted at once, in a table that has (count, Σd²) for every bin of |d| and octave of
|d| / ulp(a): one write per element and not three, and neighbours of one magnitude seldom wait for each
other.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from analyzer.kernels.compiled import add_pair, bits_of_f64, compile_inner
from analyzer.kernels.compiled_views import f64_at
from analyzer.kernels.formats import FLOATS
from analyzer.measures import BINS, LOWEST_EXPONENT, LOWEST_STEP, STEP_BINS, STEP_OCTAVES

# Zero between two tensors, and only the rows that are in use are touched. Behind them lie places for d = 0,
# which nobody reads.
_ROW = 2 * STEP_OCTAVES
CHANGED_PLACES = BINS * _ROW
TABLE = CHANGED_PLACES + _ROW
WORK = 4 * _ROW  # two histograms of steps, of even and of odd rows each

_BIN_SHIFT = np.int64(51)  # leaves the exponent and one bit of the significand: two bins to an octave
_FIRST_BIN = np.int64((1023 + LOWEST_EXPONENT) << 1)  # the code of the lowest edge, so shifted
_EXPONENT_SHIFT = np.int64(52)
_E4M3_SCALE = FLOATS["F8_E4M3"].scale
_E4M3_FLOOR = int(math.log2(FLOATS["F8_E4M3"].smallest_spacing))


@compile_inner()
def add_to_table(a: Any, b: Any, n: Any, spacing: Any, squares: Any, slots: Any, table: Any) -> Any:
    """Add the block to the table: first all places, in vector registers, then all sums."""
    # ulp(a) as an exponent, like those of fp64: that of a, less the digits of A's format, with a floor
    digits = np.int32((bits_of_f64(spacing[6]) >> _EXPONENT_SHIFT) - np.int64(1023))
    floor = np.int32(bits_of_f64(spacing[7]) >> _EXPONENT_SHIFT)
    _find_slots(a, b, n, digits, floor, squares, slots)
    for i in range(n):
        add_pair(table, slots[i], 1.0, squares[i])


@compile_inner()
def _row_of(size: Any) -> Any:
    """The bin of |d|, from its bits."""
    return min(max((size >> _BIN_SHIFT) - _FIRST_BIN, np.int64(0)), np.int64(BINS - 1))


@compile_inner()
def _find_slots(a: Any, b: Any, n: Any, digits: Any, floor: Any, squares: Any, slots: Any) -> Any:
    """The place of every element in the table."""
    # An exponent lies in the upper half of a number: twice as many of those to a register.
    for i in range(n):
        x = a[i]
        d = b[i] - x
        squares[i] = d * d
        upper = np.int32(bits_of_f64(abs(d)) >> np.int64(32))
        row = np.int32(upper >> np.int32(19)) - np.int32(_FIRST_BIN)
        row = min(max(np.int32(row), np.int32(0)), np.int32(BINS - 1))
        ulp = np.int32(np.int32(bits_of_f64(abs(x)) >> np.int64(32)) >> np.int32(20)) + digits
        ulp = max(np.int32(ulp), floor)
        step = np.int32(np.int32(upper >> np.int32(20)) - ulp) - np.int32(LOWEST_STEP)
        step = min(max(np.int32(step), np.int32(0)), np.int32(STEP_OCTAVES - 1))
        changed = np.int32(np.int32(row * np.int32(_ROW)) + np.int32(step << np.int32(1)))
        still = np.int32(np.int32(CHANGED_PLACES) + ((np.int32(i) & np.int32(63)) << np.int32(1)))
        slots[i] = changed if d != 0.0 else still


@compile_inner()
def write_histograms(
    table: Any, work: Any, changed: Any, largest: Any, spacing: Any, edges: Any, bins: Any, written: Any
) -> Any:
    """Write the histograms of a tensor and clean the table; returns how much of `bins` is written then.

    Of |d|, |d| / ulp(a) and |d| / ulp(a) in e4m3, each from its first to its last bin that holds something:
    which these are, to `edges` (index of the first, number), and (count, Σd²) of each to `bins`, from row
    `written` on. `changed` elements with d ≠ 0 are in the table, of which `largest` is the largest |d|.
    `work` has WORK places, all zero between two tensors as well.
    """
    if changed <= 0.0:
        for i in range(6):
            edges[i] = 0
        return written
    steps, narrow_steps = f64_at(work, 0, 2 * _ROW), f64_at(work, 16 * _ROW, 2 * _ROW)
    top = _row_of(bits_of_f64(largest))
    low = _add_rows(table, steps, changed, top, bins, written)
    edges[0], edges[1] = low, top + 1 - low
    written += top + 1 - low
    first, last = _ends(steps)
    for row in range(low, top + 1):
        _add_row_to_e4m3(table, row, first >> 1, last >> 1, spacing[6], narrow_steps)
    edges[2], edges[3] = first, last + 1 - first
    written = _move(steps, first, last, bins, written)
    first, last = _ends(narrow_steps)
    edges[4], edges[5] = first, last + 1 - first
    return _move(narrow_steps, first, last, bins, written)


@compile_inner(fastmath={"reassoc"})
def _add_rows(table: Any, steps: Any, changed: Any, top: Any, bins: Any, written: Any) -> Any:
    """Sum the table's rows, from `top` down to the last that is in use, which it returns, and its columns.

    The rows' sums go to `bins`. The columns' go to `steps`, those of even rows to its first half: a spacing
    is a power of two, so |d| in units of it lies in the same half of its octave as |d|.
    """
    row = top
    while True:
        line, column = f64_at(table, 8 * _ROW * row, _ROW), f64_at(steps, 8 * _ROW * (row & 1), _ROW)
        count = energy = 0.0
        for octave in range(STEP_OCTAVES):
            count += line[2 * octave]
            energy += line[2 * octave + 1]
        for place in range(_ROW):
            column[place] += line[place]
        # from the highest down, for now
        bins[2 * (written + top - row)], bins[2 * (written + top - row) + 1] = count, energy
        changed -= count
        if changed <= 0.0 or row == 0:
            break
        row -= 1
    for i in range((top + 1 - row) // 2):
        for k in range(2):
            low, high = 2 * (written + i) + k, 2 * (written + top - row - i) + k
            bins[low], bins[high] = bins[high], bins[low]
    return row


@compile_inner()
def _add_row_to_e4m3(table: Any, row: Any, first: Any, last: Any, scale: Any, steps: Any) -> Any:
    """Add one row of the table to the steps of e4m3, and clean it.

    From the octaves of |d| and of |d| / ulp(a) follows that of ulp(a), and from A's spacing that of e4m3: the
    digits that it lacks more, with a floor, on which |d| alone decides.
    """
    line = f64_at(table, 8 * _ROW * row, _ROW)
    half = _ROW * (row & 1)
    coarser = (bits_of_f64(_E4M3_SCALE) >> _EXPONENT_SHIFT) - (bits_of_f64(scale) >> _EXPONENT_SHIFT)
    highest = (row >> 1) + LOWEST_EXPONENT - _E4M3_FLOOR - LOWEST_STEP
    floor = min(max(highest + coarser + 1, first), last + 1)  # the first octave that lies on the floor
    for octave in range(first, floor):
        narrow = min(max(octave - coarser, 0), STEP_OCTAVES - 1)
        add_pair(steps, half + 2 * narrow, line[2 * octave], line[2 * octave + 1])
    count = energy = 0.0
    for octave in range(floor, last + 1):
        count += line[2 * octave]
        energy += line[2 * octave + 1]
    add_pair(steps, half + 2 * min(max(highest, 0), STEP_OCTAVES - 1), count, energy)
    for place in range(2 * first, 2 * last + 2):
        line[place] = 0.0


@compile_inner()
def _place_of(index: Any) -> Any:
    """Where bin `index` of `measures.step_edges` is: even and odd ones lie apart."""
    return _ROW * (index & 1) + 2 * (index >> 1)


@compile_inner()
def _ends(steps: Any) -> Any:
    """The first and the last bin that holds something; one of them does."""
    first, last = np.int64(0), np.int64(STEP_BINS - 1)
    while first < last and steps[_place_of(first)] == 0.0:
        first += 1
    while last > first and steps[_place_of(last)] == 0.0:
        last -= 1
    return first, last


@compile_inner()
def _move(steps: Any, first: Any, last: Any, bins: Any, written: Any) -> Any:
    """Write bins first … last to `bins` and clean them; returns how much is written then."""
    for index in range(first, last + 1):
        place, target = _place_of(index), 2 * (written + index - first)
        bins[target], bins[target + 1] = steps[place], steps[place + 1]
        steps[place] = steps[place + 1] = 0.0
    return written + last + 1 - first
