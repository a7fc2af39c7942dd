"""One self-contained HTML page from a scan. Owns its assembly and its security policy, no arithmetic.

The page loads nothing and runs nothing but its own scripts, which the policy names by their hashes:
whatever a model's key names hold, the browser has no leave to execute it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import re
import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal

import jinja2

from analyzer.records import Finding, Scan
from analyzer.statistics import STATISTICS, Statistic
from reports.embedded import Intervals, Planner, deflated, embed
from reports.tables import KINSHIPS, VERDICT_MEANINGS, head, is_rounded

# In the order in which they depend on one another: each file defines one constant of the page's scope.
SCRIPTS = (
    "dom.js",
    "packed.js",
    "library.js",
    "format.js",
    "sums.js",
    "spread.js",
    "statistics.js",
    "data.js",
    "selectors.js",
    "survival.js",
    "closed_form.js",
    "guide.js",
    "weights.js",
    "toml.js",
    "recipe.js",
    "recipe_reading.js",
    "predict.js",
    "state.js",
    "theme.js",
    "view.js",
    "palette.js",
    "depth.js",
    "ranking.js",
    "map_grid.js",
    "map_colours.js",
    "map_frame.js",
    "map.js",
    "scatter.js",
    "profile.js",
    "treemap.js",
    "histogram.js",
    "tasks.js",
    "figures.js",
    "export.js",
    "labels.js",
    "crosstab.js",
    "controls.js",
    "panel.js",
    "drawing.js",
    "head.js",
    "following.js",
    "findings.js",
    "keytable.js",
    "selecting.js",
    "planner_plan.js",
    "planner_curve.js",
    "planner_blocks.js",
    "planner_switches.js",
    "planner_guide.js",
    "planner_outcome.js",
    "planner_output.js",
    "planner.js",
    "main.js",
)
STYLES = ("page.css", "figures.css", "map.css", "planner.css")

# The statistics that a reader wants first; the others follow in the order of their table.
_FIRST = ("relative_change", "energy_share", "cosine", "norm_ratio", "changed_fraction")
_UNRELATED = 0.1  # a cosine below it: trained apart, as kinship has it
_CDN = "https://cdn.plot.ly/plotly-{version}.min.js"


def render(
    scan: Scan,
    *,
    kinship: str,
    findings: Sequence[Finding],
    intervals: Intervals | None = None,
    planner: Planner | None = None,
    plotlyjs: Literal["inline", "cdn"] = "inline",
) -> str:
    """The report as one HTML document; the same scan gives the same text.

    `intervals` says how sure the ranking of the whole scan is, by axis, statistic and group; what it does
    not hold is drawn without. See `reports.embedded.Intervals`.

    With `plotlyjs="inline"` the page needs no network at all: plotly.js, 2 MB of it packed, is in it; with
    "cdn" it is small and fetches plotly.js, checked by its hash, when it is opened.
    """
    statistics = measured(scan)
    data = embed(
        scan,
        kinship="unrelated" if kinship == "opposed" else kinship,  # as scan files call it
        findings=findings,
        statistics=statistics,
        intervals=intervals or {},
        planner=planner or Planner(),
    )
    return assemble(
        "page.html",
        scripts=SCRIPTS,
        styles=STYLES,
        data=data,
        statistics=statistics,
        plotlyjs=plotlyjs,
        scan=scan,
        head=head(scan, kinship=kinship),
        kinship=KINSHIPS["rounded" if is_rounded(scan) else kinship],
        findings=findings,
        strangers=_strangers(findings),
        verdicts=VERDICT_MEANINGS,
        option=_option,
    )


def assemble(
    template: str,
    *,
    scripts: Sequence[str],
    styles: Sequence[str],
    data: str,
    statistics: Mapping[str, Statistic],
    plotlyjs: Literal["inline", "cdn"],
    **context: object,
) -> str:
    """A page of its template: with its scripts, its styles, plotly.js, and the policy that allows them alone.

    `data` is all that the page embeds of strangers' files; `context` is what the template shows beside it.
    """
    prelude, script = _source("js/prelude.js"), _page_script(scripts)
    version, plotly_digest = _plotly_facts()
    cdn = _CDN.format(version=version) if plotlyjs == "cdn" else None
    nonce = _digest(data)
    sources = (_hash(_digest(prelude)), _hash(_digest(script)), cdn or _hash(plotly_digest))
    html = (
        _environment()
        .get_template(template)
        .render(
            **context,
            statistics=statistics,
            menu=_menu(statistics),
            policy=_policy(sources, nonce=nonce),
            nonce=nonce,
            style="\n".join(_source(f"styles/{name}") for name in styles),
            data=data,
            prelude=prelude,
            plotly="" if cdn else pack_plotly(),
            plotly_cdn=cdn,
            plotly_digest=plotly_digest,
            script=script,
        )
    )
    # Names outside the script's data may still hold lone surrogates, which no UTF-8 file can.
    return html.encode(errors="replace").decode()


def measured(scan: Scan) -> dict[str, Statistic]:
    """The statistics that this scan has, the wanted ones first: what the page's menus offer."""
    has = {"": True, "base": scan.base is not None, "spectrum": scan.with_spectrum}
    has_rows = any(key.row_cosines for key in scan.keys)
    names = [*_FIRST, *(name for name in STATISTICS if name not in _FIRST)]
    return {
        name: STATISTICS[name]
        for name in names
        if has[STATISTICS[name].needs] and (has_rows or not name.startswith("row_cosine"))
    }


def _strangers(findings: Sequence[Finding]) -> list[Finding]:
    """The findings that warn of a part or a component whose weights do not point the other model's way."""
    return [f for f in findings if f.selector and f.statistic == "cosine" and (f.value or 0.0) < _UNRELATED]


def _policy(sources: Sequence[str], *, nonce: str) -> str:
    """The Content-Security-Policy: nothing from anywhere, but these scripts, this style, own images.

    Plotly writes style elements while it draws, of a text that differs between its versions; the
    page's prelude gives them the nonce. A nonce that is the digest of the page's data cannot be
    written into that data beforehand.
    """
    return (
        f"default-src 'none'; script-src {' '.join(sources)}; style-src 'nonce-{nonce}'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _hash(digest: str) -> str:
    return f"'sha256-{digest}'"


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _page_script(scripts: Sequence[str]) -> str:
    """The page's modules in one scope of their own, so that none of their names is global."""
    return "(() => {\n'use strict';\n" + "\n".join(_source(f"js/{name}") for name in scripts) + "})();"


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )


def _source(name: str) -> str:
    return files("reports").joinpath(name).read_text(encoding="utf-8")


def _plotly_source() -> str:
    """The script that ships inside the plotly package, found without importing it (0.1 s)."""
    spec = importlib.util.find_spec("plotly")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("plotly", name="plotly")
    path = Path(spec.submodule_search_locations[0], "package_data", "plotly.min.js")
    return path.read_text(encoding="utf-8")


@functools.cache
def pack_plotly() -> str:
    """plotly.js as pages hold it, made once a process: who has other work meanwhile may call it early."""
    return deflated(_plotly_source().encode())


@functools.cache
def _plotly_facts() -> tuple[str, str]:
    """The version of plotly.js, and the SHA-256 of its script."""
    source = _plotly_source()
    return _plotly_version(source), _digest(source)


def _plotly_version(source: str) -> str:
    """The version of plotly.js that its banner names: "4.1.1"."""
    match = re.search(r"plotly\.js v([\w.-]+)", source[:500])
    assert match, "plotly.js opens with a banner that names its version"
    return match[1]


def _menu(statistics: Mapping[str, Statistic]) -> list[tuple[str, list[tuple[str, Statistic]]]]:
    """The statistics under titles, as menus offer them."""
    titles = {"": "A and B", "base": "beside their base", "spectrum": "spectrum of the change"}
    groups = [(titles[need], [e for e in statistics.items() if e[1].needs == need]) for need in titles]
    return [(title, entries) for title, entries in groups if entries]


def _option(selector: str) -> str:
    """A selector as an option of the command line; quoted for a POSIX shell where it must be."""
    return f"--only {shlex.quote(selector)}"
