"""One page for several models beside the same A. Owns what stands on it; its assembly is the report's.

Each scan goes in as it is, with its own sums: the page aligns their keys and compares what each of them
says of its own model and A. How two of the models lie to each other no scan holds, and no word says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from analyzer.records import Scan
from analyzer.statistics import Statistic
from reports import page
from reports.embedded import embed
from reports.tables import (
    KINSHIPS,
    VERDICT_MEANINGS,
    Head,
    Kinship,
    ModelCard,
    file_name,
    head,
    is_rounded,
)

# Of the report's modules, those that its own page alone needs; its planner's are called by that name.
_OF_THE_REPORT = {
    "main.js",
    "head.js",
    "figures.js",
    "ranking.js",
    "map_frame.js",
    "scatter.js",
    "profile.js",
}
_OF_THE_REPORT |= {"histogram.js", "tasks.js", "weights.js", "recipe.js", "recipe_reading.js", "toml.js"}
_OWN = (
    "scans.js",
    "columns.js",
    "ranking.js",
    "map.js",
    "profile.js",
    "scatter.js",
    "treemap.js",
    "histogram.js",
    "touched.js",
    "sentences.js",
    "keys.js",
    "main.js",
)
SCRIPTS = (
    *(name for name in page.SCRIPTS if name not in _OF_THE_REPORT and not name.startswith("planner")),
    *(f"compare/{name}" for name in _OWN),
)
STYLES = (*(name for name in page.STYLES if name != "planner.css"), "compare.css")

_TOTALS = ("relative_change", "cosine", "changed_fraction")  # what the head says of every model


@dataclass(frozen=True, slots=True)
class Column:
    """One scan as a column of the page."""

    scan: Scan
    card: ModelCard  # of its B, under the letter "B1", "B2" …
    name: str  # tells it from the others: the last segments of its path, as many as that takes
    head: Head
    kinship: Kinship
    data: str  # the scan, embedded


def render(
    scans: Sequence[Scan],
    *,
    kinships: Sequence[str],
    plotlyjs: Literal["inline", "cdn"] = "inline",
) -> str:
    """The page as one HTML document; the same scans give the same text.

    `scans` are of one A, which the caller has made sure of; `kinships` are theirs, one a scan.
    """
    statistics = common(scans)
    columns = _columns(scans, kinships, statistics)
    return page.assemble(
        "compare.html",
        scripts=SCRIPTS,
        styles=STYLES,
        data="".join(column.data for column in columns),
        statistics=statistics,
        plotlyjs=plotlyjs,
        a=columns[0].head.a,
        columns=columns,
        totals=[(name, statistics[name]) for name in _TOTALS],
        verdicts=VERDICT_MEANINGS,
    )


def common(scans: Sequence[Scan]) -> dict[str, Statistic]:
    """The statistics that every scan has: with a base, spectra or cosines of rows only where all were."""
    first, *others = map(page.measured, scans)
    return {name: entry for name, entry in first.items() if all(name in other for other in others)}


def _columns(
    scans: Sequence[Scan], kinships: Sequence[str], statistics: dict[str, Statistic]
) -> list[Column]:
    names = distinct_names([scan.b.path for scan in scans])
    columns = []
    for place, (scan, kinship, name) in enumerate(zip(scans, kinships, names, strict=True)):
        its = head(scan, kinship=kinship)
        columns.append(
            Column(
                scan=scan,
                card=replace(its.b, letter=f"B{place + 1}"),
                name=name,
                head=its,
                kinship=KINSHIPS["rounded" if is_rounded(scan) else kinship],
                data=embed(
                    scan,
                    kinship="unrelated" if kinship == "opposed" else kinship,  # as scan files call it
                    findings=[],
                    statistics=statistics,
                    intervals={},
                ),
            )
        )
    return columns


def distinct_names(paths: Sequence[str]) -> list[str]:
    """The last segments of every path, as many as tell it from the others; equal paths keep equal names."""
    segments = [path.replace("\\", "/").rstrip("/").split("/") for path in paths]
    names = [file_name(path) for path in paths]
    for place, own in enumerate(segments):
        others = [other for other in segments if other != own]
        for length in range(1, len(own) + 1):
            if all(other[-length:] != own[-length:] for other in others):
                names[place] = "/".join(own[-length:]) or paths[place]
                break
    return names
