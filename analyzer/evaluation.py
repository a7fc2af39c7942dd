"""All statistics of a key or of a group at once, by name. Undefined is None. Knows no files and no torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from math import isfinite, nan

import numpy as np

from analyzer.column_arithmetic import COLUMNS, Floats
from analyzer.columns import SumColumns
from analyzer.errors import AnalyzerError
from analyzer.formulas import energy_share, share_of
from analyzer.measures import Sums
from analyzer.records import KeyScan, Scan
from analyzer.statistics import STATISTICS, Statistic


def evaluate(sums: Sums, *, total: Sums | None, keys: Sequence[KeyScan] = ()) -> dict[str, float | None]:
    """Every statistic of one record, by name; `total` is the record of the whole scan.

    `energy_share` is the group's Σd² over that of `total`; None if nothing changed at all, or for
    a group outside the total (EMA copies, schedules …), for which `total` is None. `keys` are those that
    the record is of: what does not add (spectra, cosines of rows) is taken from them, and is None without.
    """
    values: dict[str, float | None] = {}
    for name, statistic in STATISTICS.items():
        if statistic.formula:
            values[name] = statistic.formula(sums)
        elif statistic.of_key:
            values[name] = of_keys(statistic, keys)
    values["energy_share"] = None if total is None else energy_share(sums, total)
    # Sums of fp64 weights near 1e300 overflow: what they would give is not known, so it is undefined.
    return {name: v if v is not None and isfinite(v) else None for name, v in values.items()}


def evaluate_key(row: KeyScan, *, total: Sums) -> dict[str, float | None]:
    """Every statistic of one key of a scan whose record is `total`."""
    return evaluate(row.sums, total=total if row.labels.counted else None, keys=[row])


def evaluate_keys(
    rows: Sequence[KeyScan], *, total: Sums, columns: SumColumns | None = None
) -> dict[str, Floats]:
    """`evaluate_key` of many keys at once: of each statistic a column, shape (rows,); NaN is undefined.

    `columns` are those of the rows' records, if they are there already.
    """
    columns = columns or SumColumns.of(row.sums for row in rows)
    values: dict[str, Floats] = {}
    for name, statistic in STATISTICS.items():
        if statistic.formula:
            values[name] = columns.values(statistic.formula)
        elif statistic.of_key:
            own = (statistic.of_key(row) for row in rows)
            values[name] = np.array([nan if value is None else value for value in own], np.float64)
    with np.errstate(all="ignore"):
        share = share_of(columns.record, total.sum_dd, COLUMNS)
    values["energy_share"] = np.where([row.labels.counted for row in rows], share, nan)
    return {name: np.where(np.isfinite(column), column, nan) for name, column in values.items()}


def of_keys(statistic: Statistic, keys: Sequence[KeyScan]) -> float | None:
    """A statistic that does not add, of a group: the median or minimum of its keys' that have one."""
    assert statistic.of_key is not None
    values = [value for row in keys if (value := statistic.of_key(row)) is not None]
    return float(statistic.join(values)) if values else None


def require_measured(names: Collection[str], scan: Scan) -> None:
    """AnalyzerError if one of these statistics is unknown, or the scan was not asked for it."""
    require_asked(names, base=scan.base is not None, spectrum=scan.with_spectrum)


def require_asked(names: Collection[str], *, base: bool, spectrum: bool) -> None:
    """AnalyzerError if one of these statistics is unknown, or needs a base or spectra that a scan lacks."""
    for name in sorted(names):
        if name not in STATISTICS:
            near = get_close_matches(name.lower(), STATISTICS, n=3)
            way_out = f"nearest are {', '.join(near)}" if near else f"choose one of {', '.join(STATISTICS)}"
            raise AnalyzerError(f"unknown statistic {name!r}: {way_out}")
        needs = STATISTICS[name].needs
        if needs == "base" and not base:
            raise AnalyzerError(f"{name} compares both models with their base: scan with --base C")
        if needs == "spectrum" and not spectrum:
            raise AnalyzerError(f"{name} is not measured unless asked for: scan with --spectrum")
