"""The map and the ranking in a real browser: what stands where, its numbers, and what a click selects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from map_page import (
    DOWN,
    SDXL_BLOCKS,
    SEEN,
    SELECTED,
    UP,
    VEIL,
    assert_same,
    cell_at,
    cells_box,
    click,
    column_count,
    counted,
    drawn,
    expected_cells,
    llm_cells,
    names,
    overlapping,
    scan_of,
    sdxl_cells,
    select_python,
    titles_at,
    traces,
    value_of,
)

from analyzer.records import Scan
from analyzer.verdicts import verdict

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]


@pytest.fixture(scope="module")
def sdxl(synthetic: Any) -> Scan:
    """A scan of SDXL's parts: two text encoders, a U-Net of 19 blocks, a VAE, an EMA copy."""
    return scan_of(synthetic.scan, SDXL_BLOCKS, sdxl_cells())


@pytest.fixture(scope="module")
def xl_page(open_page: OpenPage, sdxl: Scan) -> Callable[[], Any]:
    """The page of that scan, opened when a test first asks and put back for each."""
    opened: list[Any] = []

    def page() -> Any:
        if not opened or not opened[0].run("return Boolean(window.mergescope?.isMapsOwn)"):
            opened[:] = [open_page(sdxl)]
            opened[0].run("window.mergescope.isMapsOwn = true")
        opened[0].restore()
        opened[0].wait(
            f"return !{VEIL}.includes(1)"
        )  # until that is drawn, a click would meet the old figure
        return opened[0]

    return page


# What stands where


def test_columns_are_blocks_in_network_order_part_by_part(xl_page: Any) -> None:
    """Encoders, then the U-Net down and up again, then the VAE; a part without blocks has its own name."""
    columns, _ = names(xl_page())
    assert ["text_encoder", "text_encoder_2", *SDXL_BLOCKS, "vae"] == columns


def test_components_stand_with_their_part(xl_page: Any, sdxl: Scan) -> None:
    """Rows of a part are together, the one that moved most first; a gap parts them from the next."""
    page = xl_page()
    _, rows = names(page)
    energies: dict[str, dict[str, float]] = {}
    for key in counted(sdxl):
        parts = energies.setdefault(key.labels.group.split("/")[-1], {})
        parts[key.labels.part] = parts.get(key.labels.part, 0.0) + key.sums.sum_dd
    home = {group: max(parts, key=lambda part: parts[part]) for group, parts in energies.items()}
    strongest = sorted(energies, key=lambda group: -sum(energies[group].values()))
    order = list(dict.fromkeys(home[group] for group in strongest))
    assert [group for part in order for group in strongest if home[group] == part][:-3] == rows[:-3]
    assert {"decoder", "encoder", "quant_conv"} == set(rows[-3:])  # nothing moved there
    gaps = sum(abs(step - 1) > 1e-6 for step in np.diff(traces(page)[0]["y"]))
    assert len(order) - 1 == gaps


def test_a_u_runs_over_the_blocks_of_a_u_net(xl_page: Any) -> None:
    """Both of its legs lead down to M00; blocks that a skip connection joins lie at one depth."""
    *_, rungs, _, dots = traces(xl_page())
    depth = dict(zip(SDXL_BLOCKS, dots["y"], strict=True))
    assert sorted(depth[name] for name in DOWN) == [depth[name] for name in DOWN]
    assert [depth[name] for name in DOWN] == pytest.approx([depth[name] for name in reversed(UP)])
    assert max(depth.values()) == depth["M00"] == 1
    assert [depth[name] for name in DOWN] == pytest.approx(rungs["y"][::3])
    assert [depth[name] for name in DOWN] == pytest.approx(rungs["y"][1::3])
    text = dots["hovertext"][SDXL_BLOCKS.index("IN04")]
    assert text.startswith("unet · IN04<br>its skip connection leads to OUT04<br>")


def test_a_dot_of_the_u_is_its_block_as_a_whole(xl_page: Any, sdxl: Scan) -> None:
    """All of its components together, on the scale of the cells; no colour where that would lie beyond."""
    page = xl_page()
    expected = [
        value_of((key for key in counted(sdxl) if key.labels.block == block), sdxl, "relative_change")
        for block in SDXL_BLOCKS
    ]
    assert expected == pytest.approx(traces(page)[-1]["marker"]["color"], rel=1e-9)
    page.switch("map", "statistic", "energy_share")
    assert isinstance(traces(page)[-1]["marker"]["color"], str)


# Its numbers


@pytest.mark.parametrize("statistic", ["relative_change", "cosine", "energy_share", "norm_ratio", "numel"])
def test_a_cell_is_the_statistic_of_its_summed_record(xl_page: Any, sdxl: Scan, statistic: str) -> None:
    """Of every part, block and component; where no key is, no colour."""
    page = xl_page()
    page.switch("map", "statistic", statistic)
    assert_same(expected_cells(sdxl, statistic), drawn(page))


@pytest.mark.parametrize("statistic", ["relative_change", "cosine", "task_cosine", "stable_rank"])
def test_a_cell_is_its_summed_record_in_a_measured_scan(page: Any, synthetic: Any, statistic: str) -> None:
    """The same of arrays that were really measured, with a base and spectra."""
    page.switch("map", "statistic", statistic)
    assert_same(expected_cells(synthetic.scan, statistic), drawn(page))


def test_undefined_cells_and_exact_zeros_are_marked(page: Any, synthetic: Any) -> None:
    """A base without a VAE: its cells say — ; on a logarithmic scale, what did not change says 0."""
    page.switch("map", "statistic", "task_cosine")
    vae = {key.labels.group for key in counted(synthetic.scan) if key.labels.part == "vae"}
    assert len(vae) == traces(page)[1]["text"].count("—")
    assert f"{len(vae)} cells marked — undefined." in page.text("[data-section=map] .note")
    page.switch("map", "statistic", "relative_change")
    page.switch("map", "logarithmic", True)
    assert len(vae) == traces(page)[1]["text"].count("0")
    values = expected_cells(synthetic.scan, "relative_change")
    logarithms = {place: np.log10(value) if value else None for place, value in values.items()}
    assert_same(logarithms, drawn(page))


def test_cells_take_the_area_of_their_elements(xl_page: Any, sdxl: Scan) -> None:
    """On request; the largest fills its place, and the colours stay those of the statistic."""
    page = xl_page()
    page.switch("map", "sized", True)
    squares = page.figure("map")["data"][3]
    elements = {title: count or 0 for title, count in expected_cells(sdxl, "numel").items()}
    titles = titles_at(page, squares)
    colours = dict(zip(titles, squares["marker"]["color"], strict=True))
    assert_same(expected_cells(sdxl, "relative_change"), colours)
    sizes = dict(zip(titles, squares["marker"]["size"], strict=True))
    largest = max(sizes.values())
    assert largest > 15
    shares = {title: count / max(elements.values()) for title, count in elements.items()}
    expected = {title: max(2, largest * share**0.5) for title, share in shares.items()}
    assert expected == pytest.approx(sizes)
    assert 0 == page.figure("map")["data"][0]["opacity"]


def test_the_table_says_what_the_map_shows(xl_page: Any, sdxl: Scan) -> None:
    """Whoever sees no colours reads the values, and chooses by the headings."""
    page = xl_page()
    assert 0 == page.run("return document.querySelectorAll('.crosstab td').length")
    page.run("document.querySelector('.crosstab').open = true")
    page.wait("return document.querySelector('.crosstab tbody')")
    line = "return [...document.querySelector('.crosstab tbody tr').cells].map((cell) => cell.textContent)"
    name, *texts = page.run(line)
    value = expected_cells(sdxl, "relative_change")[f"unet · IN04 · {name}"]
    assert value == pytest.approx(float(texts[2 + SDXL_BLOCKS.index("IN04")]), rel=5e-3)
    assert "" == texts[0]
    page.run("document.querySelector('.crosstab tbody button').click()")
    page.wait(SELECTED, f"component:{name}")
    pressed = "return document.querySelector('.crosstab tbody button').getAttribute('aria-pressed')"
    assert "true" == page.run(pressed)
    page.run("document.querySelector('.crosstab').open = false")


# Clicks


def test_a_selection_fades_the_other_cells(xl_page: Any) -> None:
    """Colours stay comparable; what is not selected lies under a veil, in the U as well."""
    page = xl_page()
    before = drawn(page)
    page.select("attn2,IN04..IN08")
    page.wait(f"return {VEIL}.includes(1)")
    assert_same(before, drawn(page))
    chosen = {f"unet · {block} · transformer_blocks/attn2" for block in DOWN[4:]}
    assert chosen == {title for title, veil in drawn(page, trace=2).items() if veil is None}
    opacity = dict(zip(SDXL_BLOCKS, traces(page)[-1]["marker"]["opacity"], strict=True))
    assert set(DOWN[4:]) == {name for name, value in opacity.items() if value == 1}


def test_a_click_on_a_cell_selects_block_and_component(xl_page: Any, sdxl: Scan) -> None:
    """And a second one on the same cell lets go."""
    page = xl_page()
    for is_chosen in (True, False):
        click(page, *cell_at(page, "IN04", "attn2"), over="IN04 · transformer_blocks/attn2")
        page.wait(f"return {VEIL}.includes(1) === arguments[0]", is_chosen)
        text = page.text("#selection-text")
        hit = {("IN04", "transformer_blocks/attn2")} if is_chosen else set()
        keys = select_python(sdxl, text) if text else ()
        assert hit == {(key.labels.block, key.labels.group) for key in keys}


def test_a_click_on_a_name_selects_what_it_names(xl_page: Any, sdxl: Scan) -> None:
    """Blocks, parts and components by the names beside the map; together they are a cell."""
    page = xl_page()
    top, left = -8, -8
    x, y = cell_at(page, "OUT03", "attn2")
    box = cells_box(page)
    click(page, x, box["top"] + top)
    page.wait(SELECTED, "block:OUT03")
    click(page, box["left"] + left, y)
    page.wait(SELECTED, "block:OUT03,component:transformer_blocks/attn2")
    x, _ = cell_at(page, "vae", "attn2")
    click(page, x, box["top"] + top)
    page.wait(SELECTED, "component:transformer_blocks/attn2,part:vae")
    click(page, x, box["top"] + top)
    page.wait(SELECTED, "component:transformer_blocks/attn2")
    unet = [cell_at(page, name, "attn2")[0] for name in ("IN00", "OUT08")]
    names_of_parts = page.run(
        "return document.querySelector('[data-section=map] .annotation').getBoundingClientRect().bottom"
    )
    click(page, sum(unet) / 2, names_of_parts - 4)
    page.wait(SELECTED, "component:transformer_blocks/attn2,part:unet")


def test_a_click_on_a_dot_of_the_u_selects_its_block(xl_page: Any) -> None:
    """The U is as much of a control as the names below it."""
    page = xl_page()
    dot = page.run(
        SEEN
        + """const dots = document.querySelectorAll('[data-section=map] .scatterlayer .point');
           const { x, y, width, height } = dots[dots.length - 10].getBoundingClientRect();
           return [x + width / 2, y + height / 2];"""
    )
    click(page, *dot, over="unet · M00")
    page.wait(SELECTED, "block:M00")


def test_a_click_on_a_name_of_the_ranking_selects_its_group(xl_page: Any) -> None:
    """A group that did not change has no bar to click on; its name and its number do the same."""
    page = xl_page()
    place = page.run(
        SEEN
        + """const names = [...document.querySelectorAll('[data-section=ranking] .ytick text')];
           const name = names.find((its) => its.textContent === 'decoder');
           const { x, y, width, height } = name.getBoundingClientRect();
           return [x + width / 2, y + height / 2];"""
    )
    click(page, *place)
    page.wait(SELECTED, "component:decoder")


def test_bars_of_the_ranking_wear_the_colour_of_their_verdict(open_page: OpenPage, synthetic: Any) -> None:
    """What only rounded or was only cast is paler than what changed, and a legend says which is which."""
    names = ("changed", "rounding", "cast")
    scan = scan_of(synthetic.scan, (), [("unet", "BASE", name) for name in names])
    altered = {
        "changed": {},
        "rounding": {"sum_dd": 1e-9, "sum_ulp_sq": 1e-6},
        "cast": {"sum_dd": 1e-12, "cast_only": scan.keys[2].sums.changed},
    }
    keys = tuple(
        replace(key, sums=replace(key.sums, **altered[key.labels.group]))  # type: ignore[arg-type]  # of floats and ints
        for key in scan.keys
    )
    page = open_page(replace(scan, keys=keys))
    assert list(names) == [verdict(key.sums) for key in keys]
    bars = page.figure("ranking")["data"][0]["marker"]["color"]
    colour = "return getComputedStyle(document.documentElement).getPropertyValue(arguments[0]).trim()"
    assert [page.run(colour, name) for name in ("--accent", "--partly", "--slightly")] == bars
    legend = "[...document.querySelectorAll('[data-section=ranking] .legend li')]"
    words = page.run(f"return {legend}.map((its) => its.textContent)")
    assert ["changed", "rounding alone", "equal after a cast"] == words
    page.select("component:cast")
    page.wait("return document.querySelector('[data-section=ranking] .legend').children.length === 3")
    assert [page.run(colour, "--slightly")] == page.figure("ranking")["data"][0]["marker"]["color"][2:]


# Models of other shapes


def test_a_hundred_layers_are_drawn_one_by_one(open_page: OpenPage, synthetic: Any) -> None:
    """126 of them: a column each, names for some of them, none of which touches its neighbour."""
    layers = tuple(f"L{n:03}" for n in range(126))
    scan = scan_of(synthetic.scan, layers, llm_cells(layers))
    page = open_page(scan)
    assert 127 == column_count(page)
    assert_same(expected_cells(scan, "relative_change"), drawn(page))
    assert [] == overlapping(page)
    assert 10 <= len(page.figure("map")["layout"]["xaxis"]["ticktext"])
    assert 3 == len(traces(page))  # no U


def test_layers_share_columns_where_they_are_thousands(open_page: OpenPage, synthetic: Any) -> None:
    """A column is then the summed record of its layers, and a click selects them together."""
    layers = tuple(f"L{n:04}" for n in range(1200))
    scan = scan_of(synthetic.scan, layers, [("transformer", layer, "mlp") for layer in layers])
    page = open_page(scan)
    assert "10 neighbouring blocks share a column." in page.text("[data-section=map] .note")
    [line] = page.figure("map")["data"][0]["z"]
    expected = [
        value_of(scan.keys[start : start + 10], scan, "relative_change") for start in range(0, 1200, 10)
    ]
    assert expected == pytest.approx(line, rel=1e-9)
    box = cells_box(page)
    click(page, box["left"] + 2, box["top"] + 5, over="L0000..L0009 · mlp")
    page.wait("return document.querySelector('#selection-text').textContent.includes('..')")
    chosen = select_python(scan, page.text("#selection-text"))
    assert layers[:10] == tuple(key.labels.block for key in chosen)


def test_a_model_of_many_experts_shows_the_ones_that_moved(open_page: OpenPage, synthetic: Any) -> None:
    """The components that changed most; a button asks for the others, and the note counts them."""
    layers = tuple(f"L{n:02}" for n in range(60))
    labels = [("transformer", layer, f"experts_{n:02}") for layer in layers for n in range(40)]
    scan = scan_of(synthetic.scan, layers, labels)
    page = open_page(scan)
    _, rows = names(page)
    energy = {
        name: sum(key.sums.sum_dd for key in scan.keys if key.labels.group == name)
        for name in {key.labels.group for key in scan.keys}
    }
    assert sorted(energy, key=lambda name: -energy[name])[:30] == rows
    assert "10 components that changed least are not drawn." in page.text("[data-section=map] .note")
    page.run("document.querySelector('[data-section=map] [name=whole]').click()")
    page.wait("return document.querySelector('[data-section=map] .figure').data[0].z.length === 40")
    assert "not drawn" not in page.text("[data-section=map] .note")


def test_two_kinds_of_layers_and_an_encoder(open_page: OpenPage, synthetic: Any) -> None:
    """As in Flux: double blocks, then single ones, with a gap between, beside a part of one column."""
    blocks = tuple(f"{family}{n:02}" for family, size in (("D", 19), ("S", 38)) for n in range(size))
    labels = [
        *(("transformer", block, name) for block in blocks for name in ("img_attn", "img_mlp")),
        ("transformer", "BASE", "final_layer"),
        ("text_encoder", "BASE", "self_attn"),
    ]
    scan = scan_of(synthetic.scan, blocks, labels)
    page = open_page(scan)
    assert 59 == column_count(page)
    assert 3 == sum(abs(step - 1) > 1e-6 for step in np.diff(traces(page)[0]["x"]))
    assert ["transformer"] == [its["text"] for its in page.figure("map")["layout"]["annotations"]]
    assert [] == overlapping(page)


def test_a_model_without_blocks_has_its_parts_as_columns(open_page: OpenPage, synthetic: Any) -> None:
    """There is no depth to show; the U-Net beside its VAE is."""
    cells = [(part, "BASE", name) for part in ("unet", "vae") for name in ("one", "two")]
    page = open_page(scan_of(synthetic.scan, (), cells))
    columns, rows = names(page)
    assert ["unet", "vae"] == columns
    assert {"one", "two"} == set(rows)
    click(page, *cell_at(page, "unet", "one"), over="unet · one")
    page.wait(SELECTED, "part:unet,component:one")


def test_one_key_is_one_cell_with_its_value(open_page: OpenPage, synthetic: Any) -> None:
    """By kind, for want of parts; in black or white, whichever can be read on the cell's colour."""
    [key] = scan_of(synthetic.scan, (), [("unet", "BASE", "conv")]).keys
    page = open_page(replace(synthetic.scan, keys=(key,), blocks=()))
    assert (["weight"], ["conv"]) == names(page)
    words = traces(page)[1]
    expected = (key.sums.sum_dd / key.sums.sum_aa) ** 0.5
    assert [expected] == pytest.approx([float(text) for text in words["text"]], rel=5e-3)
    assert ["#ffffff"] == words["textfont"]["color"]
    click(page, *cell_at(page, "weight", "conv"), over="weight · conv")
    page.wait(SELECTED, "kind:weight,component:conv")


def test_a_phone_turns_the_map_and_scrolls_only_its_own_box(open_page: OpenPage, sdxl: Scan) -> None:
    """Blocks run down; what does not fit is asked for by a button, and then scrolls under its own names."""
    page = open_page(sdxl, size=(390, 844), scheme="dark")
    figure = page.figure("map")
    assert [*SDXL_BLOCKS] == [its for its in figure["layout"]["yaxis"]["ticktext"] if its in SDXL_BLOCKS]
    depth = dict(zip(SDXL_BLOCKS, traces(page)[-1]["x"], strict=True))
    assert max(depth.values()) == depth["M00"]
    width = "return document.querySelector('[data-section=map] .figure').scrollWidth - arguments[0]"
    box = page.run("return document.querySelector('[data-section=map] .figure').clientWidth")
    assert 0 == page.run(width, box)
    page.run("document.querySelector('[data-section=map] [name=whole]').click()")
    page.wait(f"{width} > 0", box)
    section = "document.querySelector('[data-section=map]')"
    assert page.run(f"return {section}.scrollWidth === {section}.clientWidth")
    assert [] == page.complaints()
