"""The output is none of the inputs, under whatever name, and appears with the user's permissions."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crashing import tree
from safetensors.numpy import save_file

from analyzer.errors import OutputError
from analyzer.writing import unfinished
from analyzer.writing.writer import check_files, check_target

Name = Callable[[Path, Path], Path]


def same(model: Path, _spare: Path) -> Path:
    """The model's own name."""
    return model


def roundabout(model: Path, _spare: Path) -> Path:
    """Up and down again."""
    return model.parent / ".." / model.parent.name / "." / model.name


def soft(model: Path, spare: Path) -> Path:
    """A symbolic link."""
    spare.symlink_to(model)
    return spare


def relative_chain(model: Path, spare: Path) -> Path:
    """A link to a link, relative."""
    middle = spare.with_stem("middle")
    middle.symlink_to(os.path.relpath(model, spare.parent))
    spare.symlink_to(middle.name)
    return spare


def hard(model: Path, spare: Path) -> Path:
    """A hard link."""
    spare.hardlink_to(model)
    return spare


def linked_folder(model: Path, spare: Path) -> Path:
    """A link to the folder."""
    spare.symlink_to(model.parent)
    return spare / model.name


def other_case(model: Path, _spare: Path) -> Path:
    """In capitals, where that is the same file."""
    found = model.with_name(model.name.upper())
    if not found.exists():
        pytest.skip("names differ by case here")
    return found


NAMES = [same, roundabout, soft, relative_chain, hard, linked_folder, other_case]


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    """Five small models, one of each role."""
    home = tmp_path / "in"
    home.mkdir()
    paths = {}
    for seed, name in enumerate(("a", "b", "base", "more", "vae")):
        weights = np.random.default_rng(seed).standard_normal(8).astype(np.float32)
        paths[name] = home / f"{name}.safetensors"
        save_file({"first_stage_model.decoder.conv_in.bias": weights}, paths[name])
    return paths


def arguments(models: dict[str, Path]) -> list[str]:
    """A merge that reads all five."""
    a, b, base, more, vae = map(str, models.values())
    return ["merge", a, b, "--base", base, "--model", f"{more}=0.5", "--vae", vae, "--method=task_arithmetic"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("role", ["a", "b", "base", "more", "vae"])
def test_no_input_is_written(
    run: Callable[..., Any], models: dict[str, Path], tmp_path: Path, role: str, name: Name
) -> None:
    """Whichever model it is and whatever it is called; --force changes nothing about that."""
    out = name(models[role], tmp_path / "spare.safetensors")
    before = tree(tmp_path)
    found = run(*arguments(models), "-o", out, "--alpha=0.5", "--force")
    assert (1, "", before) == (found.code, found.out, tree(tmp_path)), found.err
    assert "is the input" in found.err
    assert "inputs are never written to, name another file" in " ".join(found.err.split())


def test_any_number_of_inputs(models: dict[str, Path]) -> None:
    """The checks take them all."""
    for path in models.values():
        with pytest.raises(OutputError, match="is the input"):
            check_target(path, inputs=models.values(), force=True)
        with pytest.raises(OutputError, match="is the input"):
            check_files([path.with_name("x.json"), path], inputs=models.values())


def test_no_file_is_added_to_the_folder_of_an_input(tmp_path: Path) -> None:
    """In a sub-folder or through a link neither: it would be taken for a part of the model."""
    home, link = tmp_path / "model", tmp_path / "link"
    (home / "deep").mkdir(parents=True)
    link.symlink_to(home)
    for place in (home, home / "deep", link, home / "deep" / ".."):
        with pytest.raises(OutputError, match="which is an input and would change with it"):
            check_target(place / "o.safetensors", inputs=[], folders=[home], force=True)
    check_target(tmp_path / "o.safetensors", inputs=[], folders=[home], force=True)


@pytest.mark.parametrize("option", ["--scan", "--presets", "--rules", "--recipe"])
@pytest.mark.parametrize("place", ["model/guide.txt", "guide.safetensors"])
def test_what_the_merge_goes_by_is_not_replaced(
    run: Callable[..., Any], models: dict[str, Path], tmp_path: Path, option: str, place: str
) -> None:
    """In the folder of the output or as the output itself; --force changes nothing about that."""
    scan, guide = tmp_path / "s.json", tmp_path / place
    assert 0 == run("scan", models["a"], models["b"], "-o", scan).code
    for name in ("in/model", "model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(models["a"].read_bytes())
        (tmp_path / name / "config.json").write_text("{}")
    if option == "--recipe" and place == "guide.safetensors":
        pytest.skip("a model may be repeated in its own place")
    texts = {"--presets": "MINE\t0.5,1\n", "--rules": "", "--recipe": "alpha = 0.5\n"}
    guide.write_text(texts.get(option) or scan.read_text())
    before, out = tree(tmp_path), guide if place == "guide.safetensors" else guide.parent
    merge = ("merge", tmp_path / "in" / "model", models["b"], "-o", out, "--force")
    found = run(*merge, "--block-weights=0.5", option, guide)
    expected = f"Error: {out}: is or holds {guide}, which the merge goes by; name another place\n"
    assert (1, expected, before) == (found.code, found.err, tree(tmp_path))


def test_a_model_is_repeated_in_its_own_place(
    run: Callable[..., Any], models: dict[str, Path], tmp_path: Path
) -> None:
    """Its recipe is read before it is replaced, by the same bytes."""
    out = tmp_path / "o.safetensors"
    merge = ("merge", models["a"], models["b"], "-o", out)
    assert 0 == run(*merge, "--alpha=0.5").code
    before = out.read_bytes()
    assert 0 == run(*merge, "--recipe", out, "--force").code
    assert before == out.read_bytes()


def test_a_link_to_another_file_is_replaced_and_not_followed(
    run: Callable[..., Any], models: dict[str, Path], tmp_path: Path
) -> None:
    """What the link led to keeps its bytes."""
    other, out = tmp_path / "other.safetensors", tmp_path / "out.safetensors"
    other.write_bytes(b"other")
    out.symlink_to(other)
    assert 1 == run("merge", models["a"], models["b"], "-o", out, "--alpha=0.5").code
    assert 0 == run("merge", models["a"], models["b"], "-o", out, "--alpha=0.5", "--force").code
    assert (b"other", False) == (other.read_bytes(), out.is_symlink())


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
@pytest.mark.parametrize("unnamed", [True, False])
@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_permissions_are_the_users(
    run: Callable[..., Any],
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    umask: int,
    *,
    unnamed: bool,
) -> None:
    """Of a file, of a folder and of what it holds: what any program's new files have, not the inputs'."""
    if not unnamed:
        monkeypatch.setattr(unfinished, "_open_unnamed", lambda _folder: None)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(models["a"].read_bytes())
    (folder / "config.json").write_text("{}")
    for path in (*folder.iterdir(), *models.values()):
        path.chmod(0o400)
    old = os.umask(umask)
    try:
        for a, out in ((models["a"], "o.safetensors"), (folder, "o")):
            assert 0 == run("merge", a, models["b"], "-o", tmp_path / out, "--alpha=0.5").code
    finally:
        os.umask(old)
    written = [tmp_path / "o.safetensors", *(tmp_path / "o").iterdir()]
    assert 3 == len(written)
    assert {0o666 & ~umask} == {stat.S_IMODE(path.stat().st_mode) for path in written}
    assert 0o777 & ~umask == stat.S_IMODE((tmp_path / "o").stat().st_mode)


@pytest.mark.parametrize("name", ["o.safetensors", "deep/o.safetensors"])
def test_a_single_file_is_not_written_into_the_folder_of_a(
    run: Callable[..., Any], models: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """Where A was named as a folder; where A is a file, its folder is nobody's model."""
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(models["a"].read_bytes())
    found = run("merge", folder, models["b"], "-o", folder / name, "--alpha=0.5", "--force")
    assert (1, True) == (found.code, "which is an input and would change with it" in found.err)
    file = folder / "model.safetensors"
    assert 0 == run("merge", file, models["b"], "-o", folder / name, "--alpha=0.5").code
