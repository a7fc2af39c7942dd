"""How sure a ranking is: intervals, the probability of every rank, tests, tiers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analyzer.column_arithmetic import Floats
from analyzer.evaluation import require_measured
from analyzer.ranking import CROSS, RankedKeys, counted, crossed_axes, place
from analyzer.records import Scan
from analyzer.statistics import STATISTICS
from analyzer.uncertainty.bands import CONFIDENCE, FEWEST_KEYS, KINDS, Band, band
from analyzer.uncertainty.comparing import AxisTest, Border, Comparison, Told, compare_all, tell_apart
from analyzer.uncertainty.sampling import RESAMPLES, Measured, Sample, Table

# Of what was counted there is nothing to be unsure.
EXACT = frozenset({"numel", "nonfinite_a", "nonfinite_b"})


# Where the changes of a group's keys spread by more than e^0.5, a 95 % interval of what they changed holds
# the truth in about 87 % of cases; see the table of the package.
WIDE = 0.5


@dataclass(frozen=True, slots=True)
class GroupUncertainty:
    """How sure one row of a ranking is. None: not to be had from so few keys, or not of this statistic."""

    keys: int  # that have a value of their own
    low: float | None = None  # the 95 % interval
    high: float | None = None
    # Why there is no interval: "nothing changed", "1 key", "too few keys", "rests on few keys"
    note: str = ""
    # Share of the joint resamples in which the group has its rank, among the groups that have an interval
    rank_probability: float | None = None
    tier: int | None = None  # from 1; groups of one tier cannot be told apart
    next: Comparison | None = None  # against the next group that has a tier
    border: Border | None = None  # what tells it from the tier above; only of the first group of a tier
    spread: float | None = (
        None  # with an interval: of the logarithms of its keys' relative change; see `WIDE`
    )


@dataclass(frozen=True, slots=True)
class Assessment:
    """How sure a ranking is, row by row, and whether its groups differ at all."""

    by: str
    rows: tuple[GroupUncertainty, ...]  # in the order of the ranking
    axis_test: AxisTest | None  # None: fewer than two groups can be tested
    tests: int = 0  # how many pairs of groups were tested, over which every p is adjusted
    confidence: float = CONFIDENCE
    resamples: int = RESAMPLES


@dataclass(frozen=True, slots=True)
class AxisIntervals:
    """The intervals and tiers of one axis and statistic, by group: its label, two with "*" between them."""

    intervals: Mapping[str, tuple[float, float] | None]
    tiers: Mapping[str, int | None]
    notes: Mapping[str, str]  # why there is no interval; only of the groups that have none
    sizes: Mapping[str, int]  # how many keys have a value of their own: the sample


def assess(ranking: Sequence[RankedKeys], scan: Scan, *, by: str) -> Assessment:
    """How sure a ranking by this statistic is: as long as the ranking, and in its order."""
    whole = Table(counted(scan.keys))
    table = Table([row for group in ranking for row in group.keys])
    where = {id(row): place for place, row in enumerate(table.keys)}
    samples = []
    for group in ranking:
        inside = all(row.labels.counted for row in group.keys)
        places = [where[id(row)] for row in group.keys]
        samples.append(Sample(table, places, total=whole.changed if inside else None))
    return _assess([group.row.name for group in ranking], samples, by)


def intervals(
    scan: Scan, axes: Iterable[str], statistics: Iterable[str]
) -> dict[tuple[str, str], AxisIntervals]:
    """The intervals and tiers of the counted keys' groups, for every axis and statistic.

    Components group at the level of rankings. Raises AnalyzerError for an unknown axis or statistic, and
    for one that was not measured.
    """
    names = list(statistics)
    require_measured(names, scan)
    table = Table(counted(scan.keys))
    found = {}
    for axis in axes:
        groups: dict[str, list[int]] = {}
        crossed = crossed_axes(axis)
        for at, row in enumerate(table.keys):
            groups.setdefault(CROSS.join(place(row, crossed)), []).append(at)
        samples = {path: Sample(table, places, total=table.changed) for path, places in groups.items()}
        for name in names:
            found[axis, name] = _axis(samples, name)
    return found


def _axis(samples: Mapping[str, Sample], by: str) -> AxisIntervals:
    if by in EXACT:
        nothing = dict.fromkeys(samples)
        return AxisIntervals(nothing, nothing, {}, dict.fromkeys(samples, 0))
    measured = {path: sample.measure(by) for path, sample in samples.items()}
    sign = 1 if STATISTICS[by].ascending else -1
    order = sorted(samples, key=lambda path: (np.isnan(v := measured[path].value), sign * v, path))
    bands = {path: _band(samples[path], measured[path], by) for path in order}
    tested, told = _told(order, [measured[path] for path in order], list(bands.values()), by)
    tiers = {order[at]: tier for at, tier in zip(tested, told.tiers, strict=True)}
    return AxisIntervals(
        {path: b.interval for path, b in bands.items()},
        {path: tiers.get(path) for path in order},
        {path: b.note for path, b in bands.items() if b.note},
        {path: b.keys for path, b in bands.items()},
    )


def _assess(names: Sequence[str], samples: Sequence[Sample], by: str) -> Assessment:
    if by in EXACT:
        return Assessment(by, tuple(GroupUncertainty(len(sample)) for sample in samples), None)
    measured = [sample.measure(by) for sample in samples]
    bands = [_band(sample, m, by) for sample, m in zip(samples, measured, strict=True)]
    probabilities = _rank_probabilities(bands, by)
    tested, told = _told(names, measured, bands, by)
    rows = []
    for sample, found, probability in zip(samples, bands, probabilities, strict=True):
        low, high = found.interval or (None, None)
        spread = _spread(sample.measure("relative_change").own) if found.interval else None
        rows.append(GroupUncertainty(found.keys, low, high, found.note, probability, spread=spread))
    after: list[Comparison | None] = [*told.neighbours, None]
    for row, at in enumerate(tested):
        rows[at] = replace(rows[at], tier=told.tiers[row], next=after[row], border=told.borders.get(row))
    own = [_own(measured[at]) for at in tested]
    return Assessment(by, tuple(rows), compare_all(own), told.tests)


def _spread(changes: Floats) -> float | None:
    """The standard deviation of the logarithms; None of fewer than two keys that changed."""
    logs = np.log(changes[np.isfinite(changes) & (changes > 0)])
    return float(logs.std(ddof=1)) if len(logs) > 1 else None


def _band(sample: Sample, measured: Measured, by: str) -> Band:
    if by not in KINDS:
        return Band(int(np.isfinite(measured.own).sum()), None)
    return band(sample, measured, KINDS[by], neutral=STATISTICS[by].neutral)


def _rank_probabilities(bands: Sequence[Band], by: str) -> list[float | None]:
    """In which share of the joint resamples each group stands where it stands.

    Groups are resampled independently, so the i-th resamples of all groups together are a joint one. Groups
    of one value have any of their ranks alike: k of them that tie for a rank hold it in 1/k of that resample.
    """
    sure = [at for at, found in enumerate(bands) if found.levels is not None]
    probabilities: list[float | None] = [None] * len(bands)
    if sure:
        levels: Floats = np.stack([found.levels for at in sure if (found := bands[at]).levels is not None])
        first_is_low = STATISTICS[by].ascending != KINDS[by].scale.falling
        placed = np.sort(levels if first_is_low else -levels, axis=0)
        for row, at in enumerate(sure):
            mine = levels[row] if first_is_low else -levels[row]
            held = (placed[row] == mine) / (placed == mine).sum(axis=0)
            probabilities[at] = float(held.mean())
    return probabilities


def _told(
    names: Sequence[str], measured: Sequence[Measured], bands: Sequence[Band], by: str
) -> tuple[list[int], Told]:
    """Which groups have keys enough to be told apart, and which of them can be."""
    tested = [at for at, m in enumerate(measured) if len(_own(m)) >= FEWEST_KEYS]
    told = tell_apart(
        [names[at] for at in tested],
        [_own(measured[at]) for at in tested],
        [bands[at].interval for at in tested],
        rising=STATISTICS[by].ascending,
    )
    return tested, told


def _own(measured: Measured) -> Floats:
    return measured.own[np.isfinite(measured.own)]
