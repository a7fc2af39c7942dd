"""The contact sheet shows every picture as it is, and a picture's bytes are those pixels again."""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from analyzer.errors import AnalyzerError
from analyzer.experiment.contact_sheet import contact_sheet
from analyzer.experiment.encoding import encode, encode_all, png
from analyzer.experiment.records import Shown

sys.path.append(str(Path(__file__).resolve().parent))  # also for the tests that run from elsewhere

from example_document import FAILED, example

Image = pytest.importorskip("PIL.Image")
Pixels = NDArray[np.uint8]

SEEDS = (3, 4)
LABELS = ("A", "B", "attn1,attn2", "ff", "skip_connection")
# As one colour a cell, none of which the paper, the letters or the empty cells have
COLOURS = {
    (label, seed): (10 + 20 * i, 40 * seed, 200 - 10 * i)
    for i, label in enumerate(LABELS)
    for seed in SEEDS
    if (label, seed) != FAILED
}


def document() -> dict[str, Any]:
    """Of the example three categories and two seeds."""
    data = example()
    data["columns"] = [column for column in data["columns"] if column["selector"] in LABELS]
    data["parents"] = [row for row in data["parents"] if row["seed"] in SEEDS]
    return data


def flat(size: tuple[int, int]) -> dict[tuple[str, int], Pixels]:
    """A picture of one colour for every cell but the one that failed; `size` is (height, width)."""
    return {place: np.full((*size, 3), colour, np.uint8) for place, colour in COLOURS.items()}


def opened(sheet: bytes) -> Pixels:
    image = Image.open(BytesIO(sheet))
    assert ("PNG", "RGB") == (image.format, image.mode)
    return np.asarray(image)


def boxes(sheet: Pixels) -> dict[tuple[str, int], tuple[int, int, int, int]]:
    """Where each cell's colour is on the sheet: top, left, bottom, right."""
    found = {}
    codes = sheet @ np.array([65536, 256, 1])
    for place, colour in COLOURS.items():
        rows, columns = np.nonzero(codes == np.dot(colour, [65536, 256, 1]))
        found[place] = (int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
    return found


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((64, 64), (192, 192)),
        ((8, 8), (192, 192)),
        ((64, 96), (128, 192)),
        ((100, 60), (100, 60)),
        ((512, 512), (256, 256)),
        ((600, 400), (300, 200)),
        ((321, 321), (161, 161)),
    ],
)
def test_every_picture_is_there_once_by_whole_factors(size: tuple[int, int], shown: tuple[int, int]) -> None:
    """Enlarged until another time would be more than 192 pixels, reduced until at most 320."""
    for top, left, bottom, right in boxes(opened(contact_sheet(document(), flat(size)))).values():
        assert shown == (bottom - top, right - left)


def test_columns_are_models_and_rows_are_seeds() -> None:
    found = boxes(opened(contact_sheet(document(), flat((64, 64)))))
    for seed in SEEDS:
        lefts = [found[label, seed][1] for label in LABELS if (label, seed) in found]
        assert sorted(set(lefts)) == lefts
        assert 1 == len({found[label, seed][0] for label in LABELS if (label, seed) in found})
    for label in LABELS:
        tops = [found[label, seed][0] for seed in SEEDS if (label, seed) in found]
        assert sorted(set(tops)) == tops
        assert 1 == len({found[label, seed][1] for seed in SEEDS if (label, seed) in found})


def test_enlarged_pixels_are_squares_of_the_same_pixels() -> None:
    rng = np.random.default_rng(6)
    pictures = flat((64, 64)) | {("ff", 4): rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)}
    sheet = opened(contact_sheet(document(), pictures))
    top, left, bottom, right = boxes(opened(contact_sheet(document(), flat((64, 64)))))["ff", 4]
    assert np.array_equal(
        np.kron(pictures["ff", 4], np.ones((3, 3, 1), np.uint8)), sheet[top:bottom, left:right]
    )


def test_reduced_pixels_are_means_of_blocks() -> None:
    rng = np.random.default_rng(7)
    pictures = flat((512, 512)) | {("ff", 4): rng.integers(0, 256, (512, 512, 3), dtype=np.uint8)}
    sheet = opened(contact_sheet(document(), pictures))
    top, left, bottom, right = boxes(opened(contact_sheet(document(), flat((512, 512)))))["ff", 4]
    means = pictures["ff", 4].reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
    assert np.abs(sheet[top:bottom, left:right] - means).max() <= 1


def test_what_failed_is_an_empty_cell_with_its_message() -> None:
    """In the place of the picture: letters on grey."""
    sheet = opened(contact_sheet(document(), flat((64, 64))))
    found = boxes(sheet)
    top, _, bottom, _ = found["ff", FAILED[1]]
    _, left, _, right = found[FAILED[0], 4]
    cell = sheet[top:bottom, left:right]
    assert (cell == (0xEC, 0xEF, 0xF1)).all(axis=-1).mean() > 0.8
    assert (cell < 100).any()


def test_many_columns_stand_in_bands_of_ten() -> None:
    data, pictures = document(), flat((64, 64))
    low = opened(contact_sheet(data, pictures)).shape[0]
    for i in range(12):
        data["columns"].append(data["columns"][0] | {"selector": f"further{i}"})
        pictures |= {(f"further{i}", seed): pictures["A", seed] for seed in SEEDS}
    height, width, _ = opened(contact_sheet(data, pictures)).shape
    assert 10 * 192 < width < 11 * 192
    assert low + 2 * 192 < height < 2 * low


def test_long_and_hostile_names_change_nothing_but_the_heads_height() -> None:
    """Names come from the command line, paths and messages from wherever."""
    plain, odd = document(), document()
    name = "component:" + "x" * 5000 + "\n\x1b[31m\u202e日本"
    odd["columns"][-1]["selector"] = name
    odd["models"]["a"]["path"] = "a\nb.safetensors"
    for row in odd["rows"]:
        row["error"] = row["error"] and "\n" + "no " * 5000
    pictures = flat((64, 64))
    shapes = [opened(contact_sheet(data, pictures)).shape for data in (plain, odd)]
    assert shapes[0][1] == shapes[1][1]
    assert shapes[0][0] < shapes[1][0] < shapes[0][0] + 100


def test_prompts_stand_above_the_grid() -> None:
    """A line each, further ones where they are long, none for an empty one; the grid moves down unchanged."""
    sheets, line = {}, 18
    for name, prompt, negative in (
        ("none", "", ""),
        ("short", "a cat", "rain"),
        ("long", "a, cat " * 99, ""),
    ):
        data = document()
        data["conditions"] |= {"prompt": prompt, "negative_prompt": negative}
        sheets[name] = opened(contact_sheet(data, flat((64, 64))))
    short, none = sheets["short"], sheets["none"]
    assert short.shape == (none.shape[0] + 2 * line, *none.shape[1:])
    top = 16 + line  # below the margin and the line of models
    written = [(short[top + at : top + at + line] < 200).any() for at in (0, line)]
    assert [True, True] == written
    assert np.array_equal(none[top + line :], short[top + 3 * line :])
    added = sheets["long"].shape[0] - none.shape[0]
    assert 2 * line < added < 12 * line
    assert added % line == 0


@pytest.mark.parametrize(
    ("prompt", "like"),
    [(" a\ncat,\t black ", "a cat, black"), ("x " * 3000, "x " * 2000), (" \n", "")],
    ids=["folded", "cut", "empty"],
)
def test_prompts_of_any_form_are_written_in_lines(prompt: str, like: str) -> None:
    """White space of any kind is one space, and beyond a thousand characters they are cut."""
    sheets = []
    for text in (prompt, like):
        data = document()
        data["conditions"] |= {"prompt": text, "negative_prompt": text}
        sheets.append(contact_sheet(data, flat((64, 64))))
    assert sheets[0] == sheets[1]


def test_the_same_grid_gives_the_same_bytes() -> None:
    assert contact_sheet(document(), flat((16, 16))) == contact_sheet(document(), flat((16, 16)))


def test_without_a_picture_there_is_no_sheet() -> None:
    with pytest.raises(AnalyzerError, match="needs pictures, and there are none: leave out --sheet"):
        contact_sheet(document(), {})


def noise(size: int) -> Pixels:
    return np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [1, 64, 128])
def test_small_pictures_lose_nothing(size: int) -> None:
    kind, content = encode(noise(size))
    assert "image/png" == kind
    assert np.array_equal(noise(size), np.asarray(Image.open(BytesIO(content))))
    assert png(noise(size)) == content


def test_large_pictures_are_webp_that_looks_the_same() -> None:
    y, x = np.mgrid[:160, :200]
    rng = np.random.default_rng(9)
    picture = (np.stack([x, y, (x + y) // 2], axis=-1) + rng.integers(0, 8, (160, 200, 1))).astype(np.uint8)
    kind, content = encode(picture)
    image = Image.open(BytesIO(content))
    assert ("image/webp", "WEBP") == (kind, image.format)
    assert np.abs(np.asarray(image.convert("RGB")).astype(int) - picture).mean() < 4
    assert len(content) < len(png(picture))


def test_a_grid_is_encoded_without_what_failed_or_is_no_picture() -> None:
    latents = np.zeros(4, np.float32)
    grid: dict[tuple[str, int], Any] = {
        ("A", 1): Shown(latents, noise(16), 1.0),
        ("B", 1): "out of memory",
        ("ff", 1): Shown(latents, None, 1.0),
    }
    assert {("A", 1): encode(noise(16))} == encode_all(grid)
