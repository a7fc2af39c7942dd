"""Finished cells: found again under the same conditions, whole or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analyzer.checkpoints import open_checkpoint
from analyzer.experiment.cells import Cells, cache_folder, painting_identity
from analyzer.experiment.choosing import Choice, named_columns, parents
from analyzer.experiment.records import Column, Conditions, Shown
from analyzer.merging.inputs import Inputs

CONDITIONS = Conditions("a", "b", (1, 2), 4, "euler", 7.0, 64, 64, "cpu", "fp32", 1.0)
SHOWN = Shown(
    np.random.default_rng(0).standard_normal((4, 8, 8)).astype(np.float32),
    np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3),
    1.5,
)


@pytest.fixture
def inputs(write: Callable[..., Path], unet: Callable[[int], dict[str, np.ndarray]]) -> Iterator[Inputs]:
    """Two miniatures."""
    a, b = write("a.safetensors", unet(0)), write("b.safetensors", unet(1))
    with open_checkpoint(a) as of_a, open_checkpoint(b) as of_b:
        yield Inputs(of_a, of_b)


def columns(inputs: Inputs, *selectors: str, alpha: float = 1.0) -> list[Column]:
    """A, B and these."""
    a, b = parents(inputs)
    assert b.plan is not None
    return [a, b, *named_columns(inputs, Choice(each=selectors, alpha=alpha), b.plan)]


def kept(folder: Path) -> list[str]:
    """The names of the cells in a folder."""
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_cell_comes_back_as_it_was(inputs: Inputs, tmp_path: Path) -> None:
    """Numbers, pixels and seconds; a probe's cell has no pixels."""
    _, _, column = columns(inputs, "attn1")
    folder = tmp_path / "new" / "cells"
    cells = Cells(folder, inputs, "x")
    assert cells.load(column, 1) is None
    cells.save(column, 1, SHOWN)
    cells.save(column, 2, Shown(np.float32([[1, 2]]), None, 0.25))
    again = Cells(folder, inputs, "x")
    first, second = again.load(column, 1), again.load(column, 2)
    assert first is not None
    assert second is not None
    assert np.array_equal(SHOWN.output, first.output)
    assert first.pixels is not None
    assert np.array_equal(SHOWN.pixels, first.pixels)
    assert (np.float32, np.uint8, 1.5) == (first.output.dtype, first.pixels.dtype, first.seconds)
    assert (None, [[1.0, 2.0]], 0.25) == (second.pixels, second.output.tolist(), second.seconds)
    assert 2 == len(again)


def test_what_a_cell_depends_on_is_in_its_name(inputs: Inputs, tmp_path: Path) -> None:
    """Column, alpha, seed, conditions: another of any is another cell."""
    folder = tmp_path / "cells"
    a, b, attn1, attn2 = columns(inputs, "attn1", "attn2")
    (_, _, half) = columns(inputs, "attn1", alpha=0.5)
    cells = Cells(folder, inputs, "x")
    for place, column in enumerate((a, b, attn1, attn2), start=1):
        cells.save(column, 1, SHOWN)
        assert place == len(kept(folder))
    cells.save(attn1, 2, SHOWN)
    Cells(folder, inputs, "x").save(half, 1, SHOWN)
    Cells(folder, inputs, "y").save(attn1, 1, SHOWN)
    assert 7 == len(kept(folder))


def test_a_category_by_another_name_is_the_same_cell(inputs: Inputs, tmp_path: Path) -> None:
    """What counts is what is taken."""
    _, _, one, other = columns(inputs, "attn1", "component:attn1")
    cells = Cells(tmp_path, inputs, "x")
    cells.save(one, 1, SHOWN)
    assert cells.load(other, 1) is not None


def test_as_cells_are_of_a_and_no_b(
    inputs: Inputs, tmp_path: Path, write: Callable[..., Path], unet: Callable[[int], dict[str, np.ndarray]]
) -> None:
    """Against another B they need not be painted again; all others do."""
    a, b, attn1 = columns(inputs, "attn1")
    cells = Cells(tmp_path / "cells", inputs, "x")
    for column in (a, b, attn1):
        cells.save(column, 1, SHOWN)
    with open_checkpoint(write("c.safetensors", unet(2))) as c:
        other = Cells(tmp_path / "cells", Inputs(inputs.a, c), "x")
        assert [True, False, False] == [other.load(column, 1) is not None for column in (a, b, attn1)]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "another's"])
def test_a_damaged_cell_is_not_there(inputs: Inputs, tmp_path: Path, damage: str) -> None:
    """It is painted again, and then it is."""
    _, _, column = columns(inputs, "attn1")
    cells = Cells(tmp_path / "cells", inputs, "x")
    cells.save(column, 1, SHOWN)
    (path,) = (tmp_path / "cells").iterdir()
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:-7]
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
    elif damage == "empty":
        content = bytearray()
    else:  # a copy under another name
        cells.save(column, 2, SHOWN)
        content = bytearray(next(x for x in path.parent.iterdir() if x != path).read_bytes())
    path.write_bytes(content)
    again = Cells(tmp_path / "cells", inputs, "x")
    assert again.load(column, 1) is None
    again.save(column, 1, SHOWN)
    assert again.load(column, 1) is not None


def test_removing_takes_its_own_cells_only(inputs: Inputs, tmp_path: Path) -> None:
    """Those of other conditions stay for who goes on with them; an empty folder goes."""
    _, _, column = columns(inputs, "attn1")
    folder = tmp_path / "cells"
    ours, other = Cells(folder, inputs, "x"), Cells(folder, inputs, "y")
    ours.save(column, 1, SHOWN)
    other.save(column, 1, SHOWN)
    ours.remove()
    assert 1 == len(kept(folder))
    assert 0 == len(ours)
    other.remove()
    assert not folder.exists()


def test_old_cells_of_given_up_runs_go(inputs: Inputs, tmp_path: Path) -> None:
    """After a month, where nobody asked to keep them."""
    _, _, column = columns(inputs, "attn1")
    cells = Cells(tmp_path / "cells", inputs, "x")
    cells.save(column, 1, SHOWN)
    cells.save(column, 2, SHOWN)
    old, _ = sorted((tmp_path / "cells").iterdir())
    month_ago = time.time() - 31 * 86_400
    os.utime(old, (month_ago, month_ago))
    Cells(tmp_path / "cells", inputs, "x")
    assert 2 == len(kept(tmp_path / "cells"))
    Cells(tmp_path / "cells", inputs, "x", expire=True)
    assert old.name not in kept(tmp_path / "cells")
    assert 1 == len(kept(tmp_path / "cells"))


def test_without_a_place_the_experiment_goes_on(inputs: Inputs, tmp_path: Path) -> None:
    """Nothing is kept, and the trouble has a sentence."""
    _, _, column = columns(inputs, "attn1")
    homeless = Cells(None, inputs, "x")
    homeless.save(column, 1, SHOWN)
    assert homeless.load(column, 1) is None
    assert homeless.trouble
    homeless.remove()
    (tmp_path / "file").write_text("")
    blocked = Cells(tmp_path / "file" / "cells", inputs, "x", expire=True)
    assert "" == blocked.trouble
    blocked.save(column, 1, SHOWN)
    blocked.save(column, 2, SHOWN)
    assert 0 == len(blocked)
    assert "file" in blocked.trouble


def test_the_identity_of_a_picture(tmp_path: Path) -> None:
    """All conditions but the list of seeds and the alpha, and the configs of the pipeline's folders."""
    folder = tmp_path / "pipeline"
    (folder / "scheduler").mkdir(parents=True)
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text("{}")
    (folder / "weights.safetensors").write_bytes(b"w")
    first = painting_identity(CONDITIONS, [folder])
    assert first == painting_identity(replace(CONDITIONS, seeds=(7,), alpha=0.5), [folder])
    (folder / "weights.safetensors").write_bytes(b"v")  # of which the fingerprint speaks
    assert first == painting_identity(CONDITIONS, [folder])
    others = [
        replace(CONDITIONS, **change)
        for change in (
            {"prompt": "c"}, {"negative_prompt": "c"}, {"steps": 5}, {"sampler": "ddim"}, {"cfg": 6.0},
            {"width": 72}, {"height": 72}, {"device": "cuda:0"}, {"dtype": "fp16"},
        )
    ]  # fmt: skip
    found = {painting_identity(other, [folder]) for other in others}
    config.write_text('{"steps_offset": 1}')
    found |= {painting_identity(CONDITIONS, [folder]), painting_identity(CONDITIONS, []), first}
    assert len(others) + 3 == len(found)


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the programs of this user keep what they can make again."""
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tmp_path / "mergescope" / "experiments" == cache_folder()
