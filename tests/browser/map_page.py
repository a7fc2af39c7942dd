"""The map of a page as tests read it and click on it, what Python says of it, and scans of any layout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analyzer.evaluation import evaluate
from analyzer.measures import Sums, add_sums
from analyzer.records import KeyScan, Labels, Scan
from analyzer.selectors import select

Cell = tuple[str, str, str]  # part, block, component

DOWN, UP = tuple(f"IN{i:02}" for i in range(9)), tuple(f"OUT{i:02}" for i in range(9))
SDXL_BLOCKS = (*DOWN, "M00", *UP)


# What the page draws


SELECTED = "return document.querySelector('#selection-text').textContent === arguments[0]"
VEIL = "document.querySelector('[data-section=map] .figure').data[2].z.flat()"
SEEN = "document.querySelector('[data-section=map]').scrollIntoView();"


def traces(page: Any) -> list[Any]:
    """The traces of the map: cells, words, veil, and of a U-Net the rungs, the line and the dots of its U."""
    return list(page.figure("map")["data"])


def names(page: Any) -> tuple[list[str], list[str]]:
    """The names that stand at columns and rows."""
    layout = page.figure("map")["layout"]
    return layout["xaxis"]["ticktext"], layout["yaxis"]["ticktext"]


def column_count(page: Any) -> int:
    """How many columns there are, whether or not there is room for their names."""
    return int(sum(abs(np.diff(traces(page)[0]["x"]) - 1) < 1e-6))


def drawn(page: Any, *, trace: int = 0) -> dict[str, float | None]:
    """The values of a heat map by the titles of its cells."""
    heat = traces(page)
    titles = [text and text.split("<br>")[0] for line in heat[0]["hovertext"] for text in line]
    values = [z for line in heat[trace]["z"] for z in line]
    return {title: value for title, value in zip(titles, values, strict=True) if title}


def assert_same(expected: Mapping[str, float | None], found: Mapping[str, float | None]) -> None:
    """The same cells with the same values; undefined where the other is."""
    assert {title for title, value in expected.items() if value is None} == {
        title for title, value in found.items() if value is None
    }
    defined = {title: value for title, value in expected.items() if value is not None}
    assert defined == pytest.approx({title: found[title] for title in found if title in defined}, rel=1e-9)
    assert set(expected) == set(found)


def titles_at(page: Any, points: Any) -> list[str]:
    """The titles of the cells around some points."""
    heat = traces(page)[0]
    x, y = (np.searchsorted(heat[axis], points[axis]) - 1 for axis in "xy")
    return [heat["hovertext"][down][across].split("<br>")[0] for across, down in zip(x, y, strict=True)]


def cells_box(page: Any) -> dict[str, float]:
    """Where in the window the cells lie."""
    image = "document.querySelector('[data-section=map] .heatmaplayer image')"
    box: dict[str, float] = page.run(f"{SEEN} return {image}.getBoundingClientRect().toJSON()")
    return box


def cell_at(page: Any, column: str, row: str) -> tuple[float, float]:
    """The middle of a cell in the window."""
    box, layout, heat = cells_box(page), page.figure("map")["layout"], traces(page)[0]
    x, y = (
        layout[axis]["tickvals"][layout[axis]["ticktext"].index(name)]
        for axis, name in (("xaxis", column), ("yaxis", row))
    )
    return (
        box["left"] + box["width"] * x / heat["x"][-1],
        box["top"] + box["height"] * y / heat["y"][-1],
    )


def click(page: Any, x: float, y: float, *, over: str = "") -> None:
    """Press the mouse there; where a figure tells what lies under the pointer, once it says `over`."""
    label = "document.querySelector('[data-section=map] .hoverlayer').textContent"
    event = {"x": x, "y": y, "button": "none", "clickCount": 0}
    if over:  # what an earlier drawing said is gone before the pointer comes
        page.driver.execute_cdp_cmd(
            "Input.dispatchMouseEvent", {**event, "type": "mouseMoved", "x": 1, "y": 1}
        )
        page.wait(f"return {label} === ''")
    # One movement: Plotly looks at a second 50 ms later, and finds nothing under a button pressed by then.
    page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {**event, "type": "mouseMoved"})
    if over:
        page.wait(f"return {label}.includes(arguments[0])", over)
    for kind in ("mousePressed", "mouseReleased"):
        press = {**event, "type": kind, "button": "left", "clickCount": 1}
        page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", press)


def overlapping(page: Any) -> list[str]:
    """Names of columns that touch the one before."""
    script = """
        const names = [...document.querySelectorAll('[data-section=map] .xtick text')];
        const boxes = names.map((name) => [name.getBoundingClientRect(), name.textContent]);
        boxes.sort(([one], [other]) => one.left - other.left);
        const touches = ([box], place) => place && box.left < boxes[place - 1][0].right - 1;
        return boxes.filter(touches).map(([, text]) => text);"""
    found: list[str] = page.run(SEEN + script)
    return found


# What Python says


def select_python(scan: Scan, text: str) -> tuple[KeyScan, ...]:
    return select(text, rows=scan.keys, blocks=scan.blocks)


def counted(scan: Scan) -> list[KeyScan]:
    return [key for key in scan.keys if key.labels.counted]


def value_of(keys: Iterable[KeyScan], scan: Scan, statistic: str) -> float | None:
    """A statistic of the summed record of some keys."""
    keys = tuple(keys)
    total = add_sums(key.sums for key in counted(scan))
    return evaluate(add_sums(key.sums for key in keys), total=total, keys=keys)[statistic]


def expected_cells(scan: Scan, statistic: str) -> dict[str, float | None]:
    """A statistic of every part, block and component, by the title that its cell has."""
    groups: dict[str, list[KeyScan]] = {}
    for key in counted(scan):
        groups.setdefault(cell_title(scan, key.labels), []).append(key)
    total = add_sums(key.sums for key in counted(scan))
    return {
        title: evaluate(add_sums(key.sums for key in keys), total=total, keys=keys)[statistic]
        for title, keys in groups.items()
    }


def cell_title(scan: Scan, labels: Labels) -> str:
    """Part, block and component; without what all cells, or all of the part's, have in common."""
    parts = {key.labels.part for key in counted(scan)}
    blocks = {key.labels.block for key in counted(scan) if key.labels.part == labels.part}
    if len(blocks) == 1 and labels.block not in scan.blocks:
        return f"{labels.part} · {labels.group}"
    place = f"{labels.part} · {labels.block}" if len(parts) > 1 else labels.block
    return f"{place} · {labels.group}"


# Scans of any layout


def scan_of(template: Scan, blocks: tuple[str, ...], cells: Iterable[Cell]) -> Scan:
    """A scan of a key of random sums in each of these parts, blocks and components; a VAE does not change."""
    rng = np.random.default_rng(20250711)
    keys = []
    for place, (part, block, group) in enumerate(cells):
        numel = int(rng.integers(4, 40)) ** 2
        aa, change = numel * rng.uniform(0.5, 2.0), 0.0 if part == "vae" else rng.uniform(0.001, 0.4)
        sums = Sums(
            numel=numel,
            n=numel,
            numeric=numel,
            changed=numel if change else 0,
            sum_aa=aa,
            sum_bb=aa * (1 + change / 3),
            sum_dd=aa * change**2,
            sum_abs_d=numel * change,
            max_abs_d=2 * change,
        )
        labels = Labels(part, block, group, "weight", group, part != "ema")
        name = f"{part}.{block}.{group}.{place}"
        keys.append(KeyScan(name, name, (numel,), "F32", "F32", labels, sums))
    return replace(
        template, blocks=blocks, keys=tuple(keys), base=None, with_spectrum=False, shape_mismatch=()
    )


def sdxl_cells() -> Iterator[Cell]:
    for component in ("self_attn", "mlp", "layer_norm1"):
        yield "text_encoder", "BASE", component
    for component in ("attn", "mlp", "text_projection"):
        yield "text_encoder_2", "BASE", component
    for place, block in enumerate(SDXL_BLOCKS):
        for component in ("in_layers", "out_layers", *_ATTENTION) if 3 < place < 15 else ("in_layers",):
            yield "unet", block, component
        yield "ema", block, "in_layers"
    for component in ("decoder", "encoder", "quant_conv"):
        yield "vae", "VAE", component


def llm_cells(layers: Iterable[str]) -> Iterator[Cell]:
    yield "transformer", "BASE", "embed_tokens"
    yield "transformer", "BASE", "lm_head"
    for layer in layers:
        for component in ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm"):
            yield "transformer", layer, component


_ATTENTION = tuple(f"transformer_blocks/{name}" for name in ("attn1", "attn2", "ff", "norm1"))
