"""Profile, treemap, histogram and tasks in a real browser, and what the page saves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import acos, pi, sqrt
from typing import Any

import pytest
from figure_numbers import (
    areas,
    check_histogram,
    counted,
    heights,
    label,
    profile,
    records,
    select_python,
    titled,
    values,
    whole,
)

from analyzer.measures import add_sums
from analyzer.records import KeyScan, Labels, Scan

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]

NEW = ("profile", "treemap", "histogram", "tasks")
SETTLED = "return document.querySelector('#selection-text').textContent"


def test_every_figure_is_in_the_page_as_it_opens(page: Any, synthetic: Any) -> None:
    """Lines, areas, bars and points are drawn by the time the page's functions exist, without a canvas."""
    count = (
        "return document.querySelectorAll(`[data-section=${arguments[0]}] .figure ${arguments[1]}`).length"
    )
    moved = {label(key, "part", "block", "group") for key in counted(synthetic.scan) if key.sums.sum_dd > 0}
    bins = whole(synthetic.scan).histogram.counts
    groups = {key.labels.group for key in counted(synthetic.scan) if key.sums.task is not None}
    assert 6 == page.run(count, "profile", ".scatterlayer .trace")
    assert len(moved) < page.run(count, "treemap", ".treemaplayer .slice")
    assert sum(held > 0 for held in bins) == page.run(count, "histogram", ".bars .point")
    assert len(groups) == page.run(count, "tasks", ".scatterlayer .point")
    assert 0 == page.run("return document.querySelectorAll('canvas').length")
    for section in NEW:
        assert page.run(
            f"return document.querySelector('[data-section={section}] .figure').ariaLabel.length > 20"
        )


# The profile


@pytest.mark.parametrize("statistic", ["relative_change", "top_energy_share"])
def test_a_profile_holds_python_s_values(page: Any, synthetic: Any, statistic: str) -> None:
    """Every point is the statistic of one component in a block; those that moved most are drawn."""
    page.switch("profile", "statistic", statistic)
    page.wait(
        "return document.querySelector('[data-section=profile] .figure').layout.yaxis.title.text !== ''"
    )
    keys = counted(synthetic.scan)
    energies = {group: record.sum_dd for (group,), record in records(keys, "group").items()}
    wanted = sorted(energies, key=lambda group: -energies[group])[:6]
    expected = {
        place: value
        for place, value in values(keys, statistic, synthetic.scan, "group", "block").items()
        if place[0] in wanted and value is not None
    }
    assert pytest.approx(profile(page), rel=1e-9) == expected


def test_a_profile_is_of_the_selected_components(page: Any, synthetic: Any) -> None:
    """It stays whole along the depth: points of blocks that are not selected are hollow."""
    page.select("attn2,OUT03..OUT08,weight")
    page.wait("return document.querySelector('[data-section=profile] .figure').data.length === 1")
    chosen = select_python(synthetic.scan, "attn2,weight")
    expected = values(chosen, "relative_change", synthetic.scan, "group", "block")
    assert pytest.approx(profile(page), rel=1e-9) == expected
    [trace] = page.figure("profile")["data"]
    filled = {
        point[1]
        for point, colour in zip(trace["customdata"], trace["marker"]["color"], strict=True)
        if colour == trace["line"]["color"]
    }
    assert {"OUT03", "OUT05", "OUT08"} == filled
    assert "Filled points are selected." in page.text("[data-section=profile] .note")


def test_a_logarithmic_profile_leaves_zeros_out(page: Any, synthetic: Any) -> None:
    """What did not change has no place on it, and the note says so."""
    page.select("component:attn2,component:encoder,component:decoder,component:quant_conv")
    page.wait("return document.querySelector('[data-section=profile] .figure').data.length === 4")
    page.switch("profile", "logarithmic", True)
    page.wait("return document.querySelector('[data-section=profile] .figure').layout.yaxis.type === 'log'")
    assert {"transformer_blocks/attn2"} == {group for group, _ in profile(page)}
    assert "3 points at zero have no place" in page.text("[data-section=profile] .note")


# The treemap


@pytest.mark.parametrize(
    ("by", "levels"), [("block", ("part", "block", "group")), ("group", ("part", "group", "block"))]
)
def test_areas_are_change_energy_and_add_up(
    page: Any, synthetic: Any, by: str, levels: tuple[str, ...]
) -> None:
    """Of every division Σd² as Python adds it, and the colour its relative change."""
    page.switch("treemap", "by", by)
    labels = "document.querySelector('[data-section=treemap] .figure').data[0].labels"
    page.wait(f"return {labels}.includes('{DEEPEST[by]}')")
    keys = [key for key in counted(synthetic.scan) if key.sums.sum_dd > 0]
    energies, changes = areas(page)
    for depth in range(1, 4):
        expected = {place: its.sum_dd for place, its in records(keys, *levels[:depth]).items()}
        drawn = {path: value for path, value in energies.items() if len(path) == depth}
        assert pytest.approx(drawn, rel=1e-9) == {
            titled(path, levels): value for path, value in expected.items()
        }
    shown = values(keys, "relative_change", synthetic.scan, *levels)
    drawn = {path: value for path, value in changes.items() if len(path) == 3}
    assert pytest.approx(drawn, rel=1e-9) == {titled(path, levels): value for path, value in shown.items()}


def test_a_selection_fades_the_other_areas(page: Any, synthetic: Any) -> None:
    """Areas keep their places and sizes; what is not selected has no colour of the scale."""
    before, _ = areas(page)
    page.select("attn2")
    page.wait("return document.querySelector('[data-section=treemap] .figure').data[0].marker.colors[0] < 0")
    after, changes = areas(page)
    assert before == after
    assert {path[-1] for path, change in changes.items() if change >= 0 and len(path) == 3} == {"attn2"}
    assert "Grey areas are not selected." in page.text("[data-section=treemap] .note")


def test_many_small_areas_are_drawn_together(open_page: OpenPage, synthetic: Any) -> None:
    """Beyond 200 areas the smallest are joined, each inside its own division: nothing is lost."""
    key = next(key for key in counted(synthetic.scan) if key.sums.changed)
    keys = tuple(
        replace(
            key, key=f"{n}", labels=Labels("unet", f"L{n % 50:02}", f"c{n // 50}", "weight", f"c{n // 50}")
        )
        for n in range(500)
    )
    scan = replace(synthetic.scan, keys=keys, blocks=tuple(f"L{n:02}" for n in range(50)))
    page = open_page(scan)
    energies, _ = areas(page)
    leaves = {path for path in energies if len(path) == 2}
    joined = [path for path in leaves if path[-1].endswith(" smaller")]
    assert 200 == len(leaves) - len(joined)
    assert 300 == sum(int(path[-1].split()[0]) for path in joined)
    assert 500 * key.sums.sum_dd == pytest.approx(sum(energies[path] for path in leaves), rel=1e-9)
    assert 6 == len(page.figure("profile")["data"])
    assert 50 == len([x for x in page.figure("profile")["data"][0]["x"] if x is not None])
    assert [] == page.complaints()


# The histogram


def test_bars_are_the_joined_histogram(page: Any, synthetic: Any) -> None:
    """Counts and energies of every bin, its share per doubling of |Δ|, and the root mean squares."""
    check_histogram(page, counted(synthetic.scan), "counts")
    page.select("attn2,weight")
    chosen = select_python(synthetic.scan, "attn2,weight")
    page.wait("return document.querySelector('[data-section=histogram] .figure').data[1].x.length > 0")
    check_histogram(page, chosen, "counts")
    page.switch("histogram", "measure", "energies")
    title = "document.querySelector('[data-section=histogram] .figure').layout.yaxis.title.text"
    page.wait(f"return {title}.includes('energy')")
    check_histogram(page, chosen, "energies")


def test_the_whole_scan_stands_behind_a_selection(page: Any, synthetic: Any) -> None:
    """As a line around its bars, on the same scale."""
    assert [] == page.figure("histogram")["data"][1]["x"]
    page.select("attn2")
    page.wait("return document.querySelector('[data-section=histogram] .figure').data[1].x.length > 0")
    held = heights(whole(synthetic.scan).histogram, "counts")
    line = page.figure("histogram")["data"][1]
    assert pytest.approx(line["y"][::2], rel=1e-9) == [height for _, _, height in held]
    assert pytest.approx(line["x"][::2], rel=1e-9) == [low for low, _, _ in held]


def test_half_of_the_change_is_told_in_words(page: Any, synthetic: Any) -> None:
    """The middle of the elements lies where the arrays have it, to the width of a bin."""
    changes = [abs(b.astype(float) - a.astype(float)).ravel() for key, (a, b) in arrays(synthetic)]
    middle = sorted(change for its in changes for change in its if change)[
        sum(map(count_moved, changes)) // 2
    ]
    words = page.text("[data-section=histogram] .note")
    told = float(words.split("less than about ")[1].split(",")[0])
    assert middle == pytest.approx(told, rel=0.15)


# The tasks


def test_tasks_stand_at_their_cosine_and_their_conflicts(page: Any, synthetic: Any) -> None:
    """A point a component, a block or a key, on either side of what chance would give."""
    keys = counted(synthetic.scan)
    for points, axis in (("group", "group"), ("block", "block"), ("key", "key")):
        page.switch("tasks", "points", points)
        expected = sorted(
            (x, y)
            for x, y in zip(
                *(
                    values(keys, name, synthetic.scan, axis).values()
                    for name in ("task_cosine", "sign_conflict_fraction")
                ),
                strict=True,
            )
            if x is not None and y is not None
        )
        page.wait(
            "return document.querySelector('[data-section=tasks] .figure').data[2].x.length === arguments[0]",
            len(expected),
        )
        trace = page.figure("tasks")["data"][2]
        drawn = sorted(zip(trace["x"], trace["y"], strict=True))
        assert pytest.approx([x for x, _ in drawn], rel=1e-9) == [x for x, _ in expected]
        assert pytest.approx([y for _, y in drawn], rel=1e-9) == [y for _, y in expected]
    curve = page.figure("tasks")["data"][0]
    assert pytest.approx(curve["y"]) == [acos(min(max(x, -1), 1)) / pi for x in curve["x"]]


# Clicks


def test_a_click_selects_what_was_drawn_there(page: Any, synthetic: Any) -> None:
    """A point of the profile, an area of the treemap and a task each say what they are, exactly."""
    trace = page.figure("profile")["data"][0]
    group, block = trace["customdata"][0]
    page.point_at("[data-section=profile] .scatterlayer .trace .points path", click=True)
    assert group_in(synthetic.scan, group=group, block=block) == rows_of(page, synthetic.scan)
    page.restore()
    for script in AREAS:
        path = page.run(script)
        page.point_at("#aimed", click=True)
        levels = ("part", "block", "group")[: len(path)]
        assert group_in(synthetic.scan, **dict(zip(levels, path, strict=True))) == rows_of(
            page, synthetic.scan
        )
        page.restore()
    page.point_at("[data-section=tasks] .scatterlayer .trace:last-child .points path", click=True)
    assert len(rows_of(page, synthetic.scan)) > 0


def test_the_text_under_a_figure_selects_too(page: Any, synthetic: Any) -> None:
    """Whoever uses no pointer has the same choices as buttons."""
    for section, names in (("profile", 6), ("treemap", 2), ("tasks", 1)):
        buttons = f"[data-section={section}] .groups button"
        assert names <= page.run(f"return document.querySelectorAll('{buttons}').length")
        page.run(f"document.querySelector('{buttons}').click()")
        assert 0 < len(rows_of(page, synthetic.scan)) < len(counted(synthetic.scan))
        page.restore()


# Unusual scans


def test_a_scan_of_one_key_says_that_it_has_no_depth(open_page: OpenPage, synthetic: Any) -> None:
    """One area, the bars of one tensor, one task, and a sentence in place of a profile."""
    key = next(key for key in synthetic.scan.keys if key.labels.component.endswith("attn2/to_k"))
    page = open_page(replace(synthetic.scan, keys=(key,)))
    assert f"this model has one block, {key.labels.block}" in page.text("[data-section=profile] .figure")
    assert [(), ("attn2",)] == sorted(areas(page)[0])
    assert 1 == len(page.figure("tasks")["data"][2]["x"])
    check_histogram(page, [key], "counts")
    assert [] == page.complaints()


def test_layers_of_a_language_model_have_a_profile(open_page: OpenPage, synthetic: Any) -> None:
    """Without a base the page has no tasks; what lies beside the layers is no part of their line."""
    template = [key for key in counted(synthetic.scan) if key.sums.changed]
    keys = tuple(layers(template))
    page = open_page(
        replace(synthetic.scan, keys=keys, blocks=tuple(f"L{n:02}" for n in range(12)), base=None)
    )
    expected = values(keys, "relative_change", synthetic.scan, "group", "block")
    assert pytest.approx(profile(page), rel=1e-9) == expected
    head = next(t for t in page.figure("profile")["data"] if t["customdata"][0][0] == "lm_head")
    assert ["BASE"] == [block for _, block in head["customdata"]]
    assert 0 == page.run("return document.querySelectorAll('[data-section=tasks]').length")
    assert {1, 2} == {len(path) for path in areas(page)[0] if path}
    assert [] == page.complaints()


def test_neighbours_share_a_place_where_blocks_are_very_many(open_page: OpenPage, synthetic: Any) -> None:
    """Of 450 blocks three make a point and an area, with their sums; a click selects all three."""
    template = [key for key in counted(synthetic.scan) if key.sums.changed]
    blocks = tuple(f"L{n:03}" for n in range(450))
    keys = tuple(
        replace(template[n % len(template)], key=block, labels=Labels("unet", block, "mlp", "weight", "mlp"))
        for n, block in enumerate(blocks)
    )
    page = open_page(replace(synthetic.scan, keys=keys, blocks=blocks))
    threes = {f"{keys[n].key} … {keys[n + 2].key}": keys[n : n + 3] for n in range(0, 450, 3)}
    records = {place: add_sums(key.sums for key in its) for place, its in threes.items()}
    expected = {("mlp", place): sqrt(its.sum_dd / its.sum_aa) for place, its in records.items()}
    assert pytest.approx(profile(page), rel=1e-9) == expected
    drawn = {path[0]: energy for path, energy in areas(page)[0].items() if path}
    assert pytest.approx(drawn, rel=1e-9) == {place: its.sum_dd for place, its in records.items()}
    page.point_at("[data-section=profile] .scatterlayer .trace .points path", click=True)
    page.wait(
        "return document.querySelector('#selection-text').textContent === 'block:L000..L002,component:mlp'"
    )
    assert [] == page.complaints()


# What the tests are made of

DEEPEST = {"block": "OUT11", "group": "attn2"}

# Mark an area to aim at, and give its path: a leaf, and the header of a division.
AREAS = tuple(
    f"""
    const figure = document.querySelector('[data-section=treemap] .figure');
    const {{ ids, parents, labels, hovertext }} = figure.data[0];
    document.querySelector('#aimed')?.removeAttribute('id');
    const depth = (place) => (parents[place] === '' ? 0 : 1 + depth(Number(parents[place])));
    const idOf = ({{ __data__: its }}) => Number(its.data.data.id);
    const slices = [...figure.querySelectorAll('.slice')].filter((slice) => depth(idOf(slice)) === {depth});
    const area = (slice) => slice.getBBox().width * slice.getBBox().height;
    const slice = slices.sort((one, other) => area(other) - area(one))[0];
    slice.querySelector('{target}').id = 'aimed';
    return hovertext[idOf(slice)].split('<br>')[0].split(' · ');"""
    for depth, target in ((3, "path"), (2, "text"))
)


def arrays(synthetic: Any) -> list[tuple[KeyScan, Any]]:
    keys = {key.key: key for key in counted(synthetic.scan) if key.dtype_a != "I64"}
    return [(keys[name], pair) for name, pair in synthetic.arrays.items() if name in keys]


def count_moved(changes: Any) -> int:
    return int((changes != 0).sum())


def group_in(scan: Scan, **labels: str) -> set[str]:
    return {
        key.key
        for key in counted(scan)
        if all(getattr(key.labels, axis) == name for axis, name in labels.items())
    }


def rows_of(page: Any, scan: Scan) -> set[str]:
    """The keys that the page has selected, once it has."""
    page.wait("return document.querySelector('#selection-text').textContent !== ''")
    return {key.key for key in select_python(scan, page.run(SETTLED))}


def layers(template: Sequence[KeyScan]) -> Iterable[KeyScan]:
    """Twelve layers of three components, and a head beside them."""
    for n in range(12):
        for place, name in enumerate(("self_attn", "mlp", "norm")):
            labels = Labels("transformer", f"L{n:02}", name, "weight", name)
            yield replace(
                without_task(template[3 * n + place]), key=f"layers.{n}.{name}.weight", labels=labels
            )
    head = Labels("transformer", "BASE", "lm_head", "weight", "lm_head")
    yield replace(without_task(template[36]), key="lm_head.weight", labels=head)


def without_task(key: KeyScan) -> KeyScan:
    return replace(key, sums=replace(key.sums, task=None))
