"""The compiled loops of a scan's histograms: how the change of a block spreads.

All histograms are counted at once, in a table that has (count, Σd²) for every bin of |d| and octave of
|d| / ulp(a): one write per element and not three, and neighbours of one magnitude seldom wait for each
other.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from analyzer.kernels.compiled import add_pair, bits_of_f64, compile_loop
from analyzer.kernels.formats import FLOATS
from analyzer.measures import BINS, LOWEST_EXPONENT, LOWEST_STEP, STEP_OCTAVES

# Only the rows that are in use are ever touched. Behind them lie places for d = 0, which nobody reads.
_ROW = 2 * STEP_OCTAVES
_UNCHANGED = BINS * _ROW
_STILL = np.int64(63)
TABLE = _UNCHANGED + _ROW

_BIN_SHIFT = np.int64(51)  # leaves the exponent and one bit of the significand: two bins to an octave
_FIRST_BIN = np.int64((1023 + LOWEST_EXPONENT) << 1)  # the code of the lowest edge, so shifted
_EXPONENT_SHIFT = np.int64(52)
_E4M3_SCALE = FLOATS["F8_E4M3"].scale
_E4M3_FLOOR = int(math.log2(FLOATS["F8_E4M3"].smallest_spacing))


@compile_loop()
def add_to_table(
    a: Any, b: Any, n: Any, spacing: Any, squares: Any, slots: Any, table: Any, low: Any, high: Any
) -> Any:
    """Add the block to the table: first all places, in vector registers, then all sums.

    Returns the first and the last row that are in use from now on.
    """
    # ulp(a) as an exponent, like those of fp64: that of a, less the digits of A's format, with a floor
    digits = (bits_of_f64(spacing[6]) >> _EXPONENT_SHIFT) - np.int64(1023)
    floor = bits_of_f64(spacing[7]) >> _EXPONENT_SHIFT
    first, last = _find_slots(a, b, n, digits, floor, squares, slots)
    if first < low or last > high:
        if low > high:
            table[first * _ROW : (last + 1) * _ROW] = 0.0
        else:
            table[first * _ROW : max(low, first) * _ROW] = 0.0
            table[(high + 1) * _ROW : (last + 1) * _ROW] = 0.0
        low, high = min(low, first), max(high, last)
    for i in range(n):
        add_pair(table, slots[i], 1.0, squares[i])
    return low, high


@compile_loop()
def _find_slots(a: Any, b: Any, n: Any, digits: Any, floor: Any, squares: Any, slots: Any) -> Any:
    """The place of every element in the table; returns the first and the last row of those with d ≠ 0."""
    first, last = np.int64(BINS - 1), np.int64(0)
    for i in range(n):
        x = a[i]
        d = b[i] - x
        squares[i] = d * d
        size = bits_of_f64(abs(d))
        row = min(max((size >> _BIN_SHIFT) - _FIRST_BIN, np.int64(0)), np.int64(BINS - 1))
        ulp = max((bits_of_f64(abs(x)) >> _EXPONENT_SHIFT) + digits, floor)
        step = (size >> _EXPONENT_SHIFT) - ulp - np.int64(LOWEST_STEP)
        step = min(max(step, np.int64(0)), np.int64(STEP_OCTAVES - 1))
        first = min(first, row if d != 0.0 else np.int64(BINS - 1))
        last = max(last, row if d != 0.0 else np.int64(0))
        changed = row * np.int64(_ROW) + (step << np.int64(1))
        still = np.int64(_UNCHANGED) + ((np.int64(i) & _STILL) << np.int64(1))
        slots[i] = changed if d != 0.0 else still
    return first, last


@compile_loop()
def add_marginals(
    table: Any, low: Any, high: Any, spacing: Any, bins: Any, steps: Any, e4m3_steps: Any
) -> Any:
    """Add the table's rows to the histogram of |d|, and its columns to those of |d| / ulp(a).

    A spacing is a power of two, so |d| in units of it lies in the same half of its octave as |d|. From the
    octaves of |d| and of |d| / ulp(a) follows that of ulp(a), and from A's spacing that of e4m3: the digits
    that it lacks more, with a floor.
    """
    halves = np.zeros((2, _ROW))
    for row in range(low, high + 1):
        for place in range(_ROW):
            halves[row & 1, place] += table[row * _ROW + place]
    first, last = STEP_OCTAVES, -1
    for octave in range(STEP_OCTAVES):
        for half in range(2):
            steps[2 * octave + half, 0] += halves[half, 2 * octave]
            steps[2 * octave + half, 1] += halves[half, 2 * octave + 1]
            if halves[half, 2 * octave] > 0.0:
                first, last = min(first, octave), octave
    coarser = (bits_of_f64(_E4M3_SCALE) >> _EXPONENT_SHIFT) - (bits_of_f64(spacing[6]) >> _EXPONENT_SHIFT)
    for row in range(low, high + 1):
        # above the floor a spacing of e4m3 is A's times a power of two; on it, |d| alone decides
        highest = (row >> 1) + LOWEST_EXPONENT - _E4M3_FLOOR - LOWEST_STEP
        for octave in range(first, last + 1):
            slot = row * _ROW + 2 * octave
            narrow = min(max(min(octave - coarser, highest), 0), STEP_OCTAVES - 1)
            step = 2 * narrow + (row & 1)
            bins[row, 0] += table[slot]
            bins[row, 1] += table[slot + 1]
            e4m3_steps[step, 0] += table[slot]
            e4m3_steps[step, 1] += table[slot + 1]
