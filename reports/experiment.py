"""The page of an experiment: its grid of pictures, what was measured, and whether the weights foretold it.

Owns what stands on it; its assembly is the report's. It is made of plain values: the data document and the
pictures as encoded files. Every number on it is the document's own.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Literal

from analyzer.statistics import STATISTICS, Statistic
from reports import effects, page
from reports.embedded import packed
from reports.experiment_words import Document, conditions, findings, model_cards, sentence

Pictures = Mapping[tuple[str, int], tuple[str, bytes]]  # (column's label, seed) -> (MIME type, bytes)

# Of the report's modules, those that know nothing of scans; then its own.
SCRIPTS = (
    *("dom.js", "packed.js", "library.js", "format.js", "state.js", "theme.js", "export.js", "labels.js"),
    *("crosstab.js", "controls.js", "panel.js", "drawing.js", "following.js"),
    *("experiment/document.js", "experiment/bars.js", "experiment/grid.js", "experiment/numbers.js"),
    *("experiment/tags.js", "experiment/landing.js", "experiment/foresight.js", "experiment/forest.js"),
    *("experiment/cells.js", "experiment/wipe.js", "experiment/viewer.js", "experiment/main.js"),
)
STYLES = ("page.css", "figures.css", "experiment.css", "viewer.css")

A, B = "A", "B"  # the labels of the first two columns
_MIME = frozenset({"image/png", "image/webp", "image/jpeg"})
_TINY = 192  # pixels: pictures up to this are shown by whole factors, their pixels as squares
_FIRST = ("relative_change", "energy_share", "cosine", "norm_ratio", "changed_fraction")


@dataclass(frozen=True, slots=True)
class Cell:
    """One picture of the grid, or why there is none."""

    source: str | None  # a data: URI
    error: str | None
    name: str  # for those who do not see it: "attn1, seed 3"


@dataclass(frozen=True, slots=True)
class Line:
    """The pictures of one seed."""

    seed: int
    cells: tuple[Cell, ...]  # A, B, and the categories


def render(data: Document, pictures: Pictures, *, plotlyjs: Literal["inline", "cdn"] = "inline") -> str:
    """The page as one HTML document; the same experiment gives the same text.

    `data` is the data document of an experiment; `pictures` are PNG, WebP or JPEG, without those that
    failed, and none at all of a probe.
    """
    statistics = _statistics(data)
    a, b = model_cards(data)
    its = data["conditions"]
    best = data["best"]
    views = _views(data)
    embedded = {
        "experiment": data,
        "effects": {name: asdict(effect) for name, effect in effects.EFFECTS.items()},
        "views": [asdict(view) for view in views],
        "statistics": {name: _entry(statistic) for name, statistic in statistics.items()},
    }
    return page.assemble(
        "experiment.html",
        scripts=SCRIPTS,
        styles=STYLES,
        data=packed(embedded),
        statistics=statistics,
        plotlyjs=plotlyjs,
        experiment=data,
        a=a,
        b=b,
        conditions=conditions(data),
        findings=findings(data),
        foresight=sentence(data["notes"][0]) if data["notes"] else "",
        lines=_lines(data, pictures),
        is_tiny=0 < max(its.get("width") or 0, its.get("height") or 0) <= _TINY,
        is_few=len(data["columns"]) < 4,
        views=views,
        effects=effects.EFFECTS,
        offered=_offered(data),
        chosen=best or {"statistic": "relative_change", "effect": "toward_b"},
        ranking=_ranking(data, statistics),
        pieces=_pieces,
    )


def _ranking(data: Document, statistics: Mapping[str, Statistic]) -> str | None:
    """The statistic that orders the columns at first: one that foretells what they do, if there is one."""
    offered = (data["best"] or {}).get("offered")
    return offered if offered in statistics else None


def _lines(data: Document, pictures: Pictures) -> list[Line]:
    """A line a seed; none of a probe."""
    if not pictures:
        return []
    labels = [A, B, *(column["selector"] for column in data["columns"])]
    errors: dict[tuple[str, Any], str | None] = {
        (row["selector"], row["seed"]): row["error"] for row in data["rows"]
    }
    for row in data["parents"]:
        errors |= {(A, row["seed"]): row.get("error_a"), (B, row["seed"]): row.get("error_b")}
    return [
        Line(seed, tuple(_cell(label, seed, pictures, errors.get((label, seed))) for label in labels))
        for seed in data["conditions"]["seeds"]
    ]


def _cell(label: str, seed: int, pictures: Pictures, error: str | None) -> Cell:
    source = None
    if (label, seed) in pictures:
        mime, content = pictures[label, seed]
        assert mime in _MIME, f"{mime} is no picture that every browser shows"
        source = f"data:{mime};base64,{b64encode(content).decode()}"
    return Cell(source, error, f"{label}, seed {seed}")


def _views(data: Document) -> list[effects.View]:
    """Of what the way from A to B was measured: those of which some category has a mean."""
    found = {entry["measure"] for entry in data["summary"] if entry["mean"] is not None}
    own = effects.OUTPUT if data["conditions"].get("probe") else effects.VIEWS[0]
    return [own, *(view for view in effects.VIEWS[1:] if f"{view.prefix}toward_b" in found)]


def _offered(data: Document) -> list[tuple[str, str]]:
    """The effects that statistics were correlated with, as (name, title)."""
    names = dict.fromkeys(entry["effect"] for entry in data["correlations"])
    return [(name, effects.title(name)) for name in names]


def _statistics(data: Document) -> dict[str, Statistic]:
    """The statistics that some category has, the wanted ones first: what the page's menus offer."""
    found = {
        name
        for column in data["columns"]
        for name, value in column["statistics"].items()
        if value is not None
    }
    names = dict.fromkeys((*_FIRST, *STATISTICS))
    return {name: STATISTICS[name] for name in names if name in found}


def _entry(statistic: Statistic) -> dict[str, object]:
    neutral = statistic.neutral
    return {
        "title": statistic.title,
        "symbol": statistic.symbol,
        "unit": statistic.unit,
        "range": statistic.range,
        "meaning": statistic.meaning,
        "neutral": neutral if neutral is not None and isfinite(neutral) else None,  # else bars grow from 0
        "ascending": statistic.ascending,
    }


def _pieces(name: str) -> list[str]:
    """A name in pieces, between which a line may break."""
    return re.findall(r"[^_,/. ]+[_,/. ]*|[_,/. ]+", name)
