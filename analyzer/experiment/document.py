"""All that an experiment found, as one document of plain values: what the page and `--data` are made from.

Owns the measuring of the whole grid and what is said of it in sentences. Knows no files and no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import isfinite, sqrt
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from analyzer import __version__
from analyzer.evaluation import evaluate
from analyzer.experiment.correlations import Best, best_predictor, correlate
from analyzer.experiment.measures import histogram_distance, movement, relative_distance, ssim
from analyzer.experiment.records import A, B, Column, Conditions, Shown
from analyzer.experiment.sentences import CHANGES, foresight, offered, overlapping, sentences
from analyzer.measures import Sums, add_sums
from analyzer.ranking import whole_energy
from analyzer.records import ModelId, Scan
from analyzer.statistics import STATISTICS

FORMAT, VERSION = "mergescope.experiment", 1
# What a row of the document measures, in its order.
MEASURES = (
    *("toward_b", "neither", "moved", "ssim_a", "ssim_b", "histogram_a", "histogram_b"),
    *("pixels_toward_b", "pixels_neither", "features_toward_b", "features_neither"),
)
# With which of them the statistics are correlated, by their means over the seeds.
EFFECTS = (
    *("toward_b", "neither", "moved", "pixels_toward_b", "pixels_neither"),
    *("features_toward_b", "features_neither"),
)

Features = NDArray[np.float32]  # (features,) of one picture
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an experiment showed, before anything is measured of it."""

    conditions: Conditions
    columns: Sequence[Column]  # A, B and the categories, in the order of the grid
    grid: Mapping[tuple[str, int], Shown | str]  # by column's label and seed; a failed cell is its message
    probe: str | None = None  # "module:function", where a probe took the place of pictures
    seeded: bool = True  # False: the probe knows no seed, and was asked once, under the only seed
    features: Mapping[tuple[str, int], Features] | None = None  # of the pictures, where a model was given
    notes: Sequence[str] = ()  # what else the numbers rest on, one sentence each


def describe(
    outcome: Outcome,
    *,
    scan: Scan,
    models: tuple[ModelId, ModelId] | None = None,
    created: str | None = None,
) -> dict[str, Any]:
    """The data document: plain values that JSON can hold; undefined is None, and nothing is NaN.

    `scan` is that of A and B; a column's statistics are those of the summed record of its keys. `models` are
    A and B as they were opened here, if the scan was read from a file; `created` is ISO 8601, now if None.
    """
    conditions, seeds = outcome.conditions, outcome.conditions.seeds
    categories = [column for column in outcome.columns if column.label not in (A, B)]
    whole = whole_energy(scan)
    columns = [_column(column, scan, whole) for column in categories]
    rows = [_row(outcome, column.label, seed) for column in categories for seed in seeds]
    summary = [entry for column in categories for entry in _summarize(column.label, rows)]
    statistics, effects = _statistics(columns, scan), _effects(categories, summary)
    parents = [_parents(outcome, seed) for seed in seeds]
    keys = {column.label: column.keys for column in categories}
    # Two names of the same weights are one observation.
    own = {frozenset(taken): place for place, taken in reversed([*enumerate(keys.values())])}
    statistics, effects = (_at(found, sorted(own.values())) for found in (statistics, effects))
    best = best_predictor(statistics, effects)
    change = _change(statistics, effects) if best and best.holds and not overlapping(keys) else None
    has_sizes = len(set(statistics["numel"])) > 1
    return {
        "format": FORMAT,
        "version": VERSION,
        "tool": f"mergescope {__version__}",
        "created": created or datetime.now(UTC).isoformat(timespec="seconds"),
        "models": {name: _model(model) for name, model in zip("ab", models or (scan.a, scan.b), strict=True)},
        "conditions": {
            **asdict(conditions),
            "seeds": list(seeds) if outcome.seeded else [],
            "probe": outcome.probe,
        },
        "columns": columns,
        "rows": rows,
        "parents": parents,
        "summary": summary,
        "correlations": [asdict(found) for found in correlate(statistics, effects)],
        "best": _best(best, change),
        "foresight": foresight(best),
        "notes": [
            *sentences(
                rows,
                parents,
                keys=keys,
                best=best,
                change=change if has_sizes else None,
                not_finite=_not_finite(outcome),
            ),
            *outcome.notes,
        ],
    }


def _model(model: ModelId) -> dict[str, Any]:
    return {name: getattr(model, name) for name in ("path", "bytes", "fingerprint", "architecture")}


def _change(
    statistics: Mapping[str, Sequence[float | None]], effects: Mapping[str, Sequence[float | None]]
) -> Best | None:
    """The best of the statistics of the change, beside how many weights a category has.

    More weights do more, whatever became of them; and a norm or a share grows with their number.
    """
    changes = {name: values for name, values in statistics.items() if name in CHANGES}
    return best_predictor(changes, effects, beyond=statistics["numel"])


def _best(best: Best | None, change: Best | None) -> dict[str, Any] | None:
    """What chance does not explain; `offered`: a statistic by which a ranking is worth a try, or None."""
    if best is None or not best.holds:
        return None
    found = {name: getattr(best, name) for name in ("statistic", "effect", "spearman", "p")}
    return {**found, "offered": offered(change)}


def _at(values: Mapping[str, Sequence[float | None]], places: Sequence[int]) -> dict[str, list[float | None]]:
    return {name: [own[place] for place in places] for name, own in values.items()}


def _not_finite(outcome: Outcome) -> list[tuple[str, int | None]]:
    """The cells (label, seed) whose output has NaN or Inf: the pixels made of it mean nothing."""
    return [
        (label, seed if outcome.seeded else None)
        for (label, seed), cell in outcome.grid.items()
        if not isinstance(cell, str) and not _is_finite(cell)
    ]


def _is_finite(shown: Shown) -> bool:
    return bool(np.isfinite(shown.output).all())


def _column(column: Column, scan: Scan, whole: Sums) -> dict[str, Any]:
    taken = set(column.keys)
    rows = [row for row in scan.keys if row.key in taken]
    total = whole if all(row.labels.counted for row in rows) else None  # what is outside has no share of it
    values = evaluate(add_sums(row.sums for row in rows), total=total, keys=rows)
    statistics = {name: value for name, value in values.items() if _asked(name, scan)}
    return {
        "selector": column.label,
        "merged": column.selector,
        "keys": len(column.keys),
        "statistics": {name: statistics.get(name) for name in STATISTICS if name in statistics},
    }


def _asked(statistic: str, scan: Scan) -> bool:
    """Whether the scan was asked for what this statistic needs."""
    return {"": True, "base": scan.base is not None, "spectrum": scan.with_spectrum}[
        STATISTICS[statistic].needs
    ]


def _row(outcome: Outcome, label: str, seed: int) -> Row:
    """What was measured of one category and seed; all None where its cell, A's or B's failed or is NaN."""
    cell = _cell(outcome, label, seed)
    row: Row = {"selector": label, "seed": seed if outcome.seeded else None}
    row |= dict.fromkeys(MEASURES)
    row |= (
        {"seconds": None, "error": cell}
        if isinstance(cell, str)
        else {"seconds": cell.seconds, "error": None}
    )
    a, b = _cell(outcome, A, seed), _cell(outcome, B, seed)
    if isinstance(cell, str):
        return row
    for side, parent in (("a", a), ("b", b)):
        if isinstance(parent, str) or not (_is_finite(cell) and _is_finite(parent)):
            continue
        if cell.pixels is not None and parent.pixels is not None:
            row[f"ssim_{side}"] = ssim(cell.pixels, parent.pixels)
            row[f"histogram_{side}"] = histogram_distance(cell.pixels, parent.pixels)
    if isinstance(a, str) or isinstance(b, str):
        return row
    row |= asdict(movement(a.output, b.output, cell.output))
    if not all(map(_is_finite, (a, b, cell))):
        return row
    if a.pixels is not None and b.pixels is not None and cell.pixels is not None:
        row |= _named("pixels", a.pixels, b.pixels, cell.pixels)
    seen = outcome.features or {}
    if all((name, seed) in seen for name in (A, B, label)):
        row |= _named("features", seen[A, seed], seen[B, seed], seen[label, seed])
    return row


def _named(of: str, x_a: NDArray[Any], x_b: NDArray[Any], x_m: NDArray[Any]) -> Row:
    found = movement(x_a, x_b, x_m)
    return {f"{of}_toward_b": found.toward_b, f"{of}_neither": found.neither}


def _parents(outcome: Outcome, seed: int) -> Row:
    """A's picture against B's."""
    a, b = _cell(outcome, A, seed), _cell(outcome, B, seed)
    row: Row = {"seed": seed if outcome.seeded else None, "ssim": None, "histogram": None, "distance": None}
    row |= {f"error_{side}": cell if isinstance(cell, str) else None for side, cell in (("a", a), ("b", b))}
    if isinstance(a, str) or isinstance(b, str):
        return row
    row["distance"] = relative_distance(a.output, b.output)
    if not (_is_finite(a) and _is_finite(b)):
        return row
    if a.pixels is not None and b.pixels is not None:
        row["ssim"] = ssim(a.pixels, b.pixels)
        row["histogram"] = histogram_distance(a.pixels, b.pixels)
    return row


def _cell(outcome: Outcome, label: str, seed: int) -> Shown | str:
    return outcome.grid.get((label, seed), "was not reached")


def _summarize(label: str, rows: Iterable[Row]) -> list[Row]:
    """The mean of each measure over the seeds that have it, with the 95 % interval of Student's t."""
    own = [row for row in rows if row["selector"] == label]
    found = []
    for measure in MEASURES:
        values = [row[measure] for row in own if row[measure] is not None]
        mean, low, high = _mean_interval(values)
        found.append(
            {"selector": label, "measure": measure, "mean": mean, "low": low, "high": high, "n": len(values)}
        )
    return found


def _mean_interval(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """(mean, low, high); the interval is None below two values, the mean of none at all."""
    if not values:
        return None, None, None
    mean = fmean(values)
    if len(values) < 2:
        return mean, None, None
    reach = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / sqrt(len(values))
    return mean, mean - reach, mean + reach


def _statistics(columns: Sequence[Row], scan: Scan) -> dict[str, list[float | None]]:
    """Each statistic, over the columns."""
    names = [name for name in STATISTICS if _asked(name, scan)]
    return {name: [_finite(column["statistics"].get(name)) for column in columns] for name in names}


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


def _effects(categories: Sequence[Column], summary: Sequence[Row]) -> dict[str, list[float | None]]:
    """Each effect's mean over the seeds, over the columns; without those that no column has."""
    means = {(entry["selector"], entry["measure"]): entry["mean"] for entry in summary}
    effects = {name: [means[column.label, name] for column in categories] for name in EFFECTS}
    return {name: values for name, values in effects.items() if any(value is not None for value in values)}
