"""What figures of the page should hold, by Python's own arithmetic, and what they do hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from math import log2, sqrt
from typing import Any

import pytest

from analyzer.evaluation import evaluate
from analyzer.measures import Histogram, Sums, add_sums, bin_edges
from analyzer.ranking import total
from analyzer.records import KeyScan, Scan
from analyzer.selectors import select


def label(key: KeyScan, *axes: str) -> tuple[Hashable, ...]:
    return tuple(key.key if axis == "key" else getattr(key.labels, axis) for axis in axes)


def counted(scan: Scan) -> list[KeyScan]:
    return [key for key in scan.keys if key.labels.counted]


def whole(scan: Scan) -> Sums:
    return add_sums(key.sums for key in counted(scan))


def members(keys: Iterable[KeyScan], *axes: str) -> dict[Any, list[KeyScan]]:
    """The keys by their labels on these axes."""
    found = defaultdict(list)
    for key in keys:
        found[label(key, *axes)].append(key)
    return dict(found)


def records(keys: Iterable[KeyScan], *axes: str) -> dict[Any, Sums]:
    groups = members(keys, *axes)
    return {
        place if len(axes) > 1 else place[:1]: add_sums(k.sums for k in its) for place, its in groups.items()
    }


def values(keys: Iterable[KeyScan], statistic: str, scan: Scan, *axes: str) -> dict[Any, float | None]:
    """A statistic of every group, as Python evaluates it."""
    everything = total(scan.keys)
    return {
        place: evaluate(add_sums(key.sums for key in its), total=everything, keys=its)[statistic]
        for place, its in members(keys, *axes).items()
    }


def select_python(scan: Scan, text: str) -> tuple[KeyScan, ...]:
    return select(text, rows=scan.keys, blocks=scan.blocks)


def profile(page: Any) -> dict[tuple[str, str], float]:
    """What is drawn, by component and place, each over its own label; the gaps of a line are no points."""
    figure = page.figure("profile")
    axis = figure["layout"]["xaxis"]
    labels = dict(zip(axis["tickvals"], axis["ticktext"], strict=True))
    found = {}
    for trace in figure["data"]:
        for x, y, names in zip(trace["x"], trace["y"], trace["customdata"], strict=True):
            if names is not None:
                first = names[1].split(" … ")[0]
                assert first == labels.get(x, first)
                found[tuple(names)] = y
    return found


def areas(page: Any) -> tuple[dict[tuple[str, ...], float], dict[tuple[str, ...], float]]:
    """The values and the colours of all areas by the labels that lead to them from the root."""
    [trace] = page.figure("treemap")["data"]

    def path(place: int) -> tuple[str, ...]:
        parent = trace["parents"][place]
        return () if parent == "" else (*path(int(parent)), trace["labels"][place])

    paths = [path(place) for place in range(len(trace["ids"]))]
    assert len(set(paths)) == len(paths)
    return (
        dict(zip(paths, trace["values"], strict=True)),
        dict(zip(paths, trace["marker"]["colors"], strict=True)),
    )


def titled(path: Sequence[str], levels: Sequence[str]) -> tuple[str, ...]:
    """A path of whole names as the treemap labels it: of a component its last segment."""
    return tuple(name.rpartition("/")[2] for name in path)


def heights(histogram: Histogram, measure: str) -> list[tuple[float, float, float]]:
    """The edges of every bin that holds something, and its share per doubling."""
    column = getattr(histogram, measure)
    everything = sum(column)
    held = [place for place, count in enumerate(histogram.counts) if count]
    edges = {place: bin_edges(histogram.first + place) for place in held}
    return [(*edges[p], column[p] / everything / log2(edges[p][1] / edges[p][0])) for p in held]


def check_histogram(page: Any, keys: Sequence[KeyScan], measure: str) -> None:
    """The drawn bars are the joined bins of these keys."""
    record = add_sums(key.sums for key in keys)
    bars, _, *marks = page.figure("histogram")["data"]
    expected = heights(record.histogram, measure)
    assert pytest.approx(bars["y"], rel=1e-9) == [height for _, _, height in expected]
    assert pytest.approx(bars["x"], rel=1e-9) == [(low + high) / 2 for low, high, _ in expected]
    assert pytest.approx(bars["width"], rel=1e-9) == [high - low for low, high, _ in expected]
    assert [count for count in record.histogram.counts if count] == [count for count, _ in bars["customdata"]]
    energies = [e for e, c in zip(record.histogram.energies, record.histogram.counts, strict=True) if c]
    assert pytest.approx([energy for _, energy in bars["customdata"]], rel=1e-9) == energies
    means = [sqrt(record.sum_ulp_sq / 12 / record.numeric), sqrt(record.sum_dd / record.numeric)]
    assert pytest.approx([mark["x"][0] for mark in marks], rel=1e-9) == means
