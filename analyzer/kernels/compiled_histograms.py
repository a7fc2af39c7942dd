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
from analyzer.measures import BINS, LOWEST_EXPONENT, LOWEST_STEP, STEP_BINS, STEP_OCTAVES

# Zero between two tensors, and only the rows that are in use are touched. Behind them lie places for d = 0,
# which nobody reads.
_ROW = 2 * STEP_OCTAVES
CHANGED_PLACES = BINS * _ROW
_STILL = np.int64(63)
TABLE = CHANGED_PLACES + _ROW
WORK = 4 * STEP_BINS  # two histograms of steps

_BIN_SHIFT = np.int64(51)  # leaves the exponent and one bit of the significand: two bins to an octave
_FIRST_BIN = np.int64((1023 + LOWEST_EXPONENT) << 1)  # the code of the lowest edge, so shifted
_EXPONENT_SHIFT = np.int64(52)
_E4M3_SCALE = FLOATS["F8_E4M3"].scale
_E4M3_FLOOR = int(math.log2(FLOATS["F8_E4M3"].smallest_spacing))


@compile_loop(_nrt=False, error_model="numpy")
def add_to_table(a: Any, b: Any, n: Any, spacing: Any, squares: Any, slots: Any, table: Any) -> Any:
    """Add the block to the table: first all places, in vector registers, then all sums."""
    # ulp(a) as an exponent, like those of fp64: that of a, less the digits of A's format, with a floor
    digits = (bits_of_f64(spacing[6]) >> _EXPONENT_SHIFT) - np.int64(1023)
    floor = bits_of_f64(spacing[7]) >> _EXPONENT_SHIFT
    _find_slots(a, b, n, digits, floor, squares, slots)
    for i in range(n):
        add_pair(table, slots[i], 1.0, squares[i])


@compile_loop(_nrt=False, error_model="numpy")
def _row_of(size: Any) -> Any:
    """The bin of |d|, from its bits."""
    return min(max((size >> _BIN_SHIFT) - _FIRST_BIN, np.int64(0)), np.int64(BINS - 1))


@compile_loop(_nrt=False, error_model="numpy")
def _find_slots(a: Any, b: Any, n: Any, digits: Any, floor: Any, squares: Any, slots: Any) -> Any:
    """The place of every element in the table."""
    for i in range(n):
        x = a[i]
        d = b[i] - x
        squares[i] = d * d
        size = bits_of_f64(abs(d))
        row = _row_of(size)
        ulp = max((bits_of_f64(abs(x)) >> _EXPONENT_SHIFT) + digits, floor)
        step = (size >> _EXPONENT_SHIFT) - ulp - np.int64(LOWEST_STEP)
        step = min(max(step, np.int64(0)), np.int64(STEP_OCTAVES - 1))
        changed = row * np.int64(_ROW) + (step << np.int64(1))
        still = np.int64(CHANGED_PLACES) + ((np.int64(i) & _STILL) << np.int64(1))
        slots[i] = changed if d != 0.0 else still


@compile_loop(_nrt=False, error_model="numpy")
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
    top = _row_of(bits_of_f64(largest))
    low = _add_rows(table, work, changed, top, bins, written)
    edges[0], edges[1] = low, top + 1 - low
    written += top + 1 - low
    first, last = _trim(work, np.int64(0))
    edges[2], edges[3] = first, last + 1 - first
    written = _move(work, np.int64(0), first, last, bins, written)
    first, last = first >> 1, last >> 1
    coarser = (bits_of_f64(_E4M3_SCALE) >> _EXPONENT_SHIFT) - (bits_of_f64(spacing[6]) >> _EXPONENT_SHIFT)
    for row in range(low, top + 1):
        # A spacing is a power of two, so |d| in units of it lies in the same half of its octave as |d|.
        # From the octaves of |d| and of |d| / ulp(a) follows that of ulp(a), and from A's spacing that of
        # e4m3: the digits that it lacks more, with a floor, on which |d| alone decides.
        highest = (row >> 1) + LOWEST_EXPONENT - _E4M3_FLOOR - LOWEST_STEP
        for octave in range(first, last + 1):
            slot = row * _ROW + 2 * octave
            narrow = min(max(min(octave - coarser, highest), 0), STEP_OCTAVES - 1)
            add_pair(work, _ROW * 2 + 2 * (2 * narrow + (row & 1)), table[slot], table[slot + 1])
            table[slot] = table[slot + 1] = 0.0
    first, last = _trim(work, np.int64(_ROW * 2))
    edges[4], edges[5] = first, last + 1 - first
    return _move(work, np.int64(_ROW * 2), first, last, bins, written)


@compile_loop(_nrt=False, error_model="numpy", fastmath={"reassoc"})
def _add_rows(table: Any, work: Any, changed: Any, top: Any, bins: Any, written: Any) -> Any:
    """Sum the table's rows, from `top` down to the last that is in use, which it returns, and its columns.

    The rows' sums go to `bins`. The columns' go to `work`, those of even and of odd rows for themselves, in
    the order of `measures.step_edges`.
    """
    row = top
    while True:
        count = energy = 0.0
        for octave in range(STEP_OCTAVES):
            more, square = table[row * _ROW + 2 * octave], table[row * _ROW + 2 * octave + 1]
            count += more
            energy += square
            work[4 * octave + 2 * (row & 1)] += more
            work[4 * octave + 2 * (row & 1) + 1] += square
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


@compile_loop(_nrt=False, error_model="numpy")
def _trim(work: Any, start: Any) -> Any:
    """The first and the last bin of steps that holds something; one of them does."""
    first, last = np.int64(0), np.int64(STEP_BINS - 1)
    while first < last and work[start + 2 * first] == 0.0:
        first += 1
    while last > first and work[start + 2 * last] == 0.0:
        last -= 1
    return first, last


@compile_loop(_nrt=False, error_model="numpy")
def _move(work: Any, start: Any, first: Any, last: Any, bins: Any, written: Any) -> Any:
    for place in range(2 * first, 2 * last + 2):
        bins[2 * (written - first) + place] = work[start + place]
        work[start + place] = 0.0
    return written + last + 1 - first
