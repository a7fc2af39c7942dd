"""Machine code on disk that users share, or whose source cannot be read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from analyzer.kernels import machine_code, stored_code
from analyzer.kernels.entry_points import NativeLoop
from analyzer.sums import CompiledMeasurer, open_measurer

needs_owners = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no such owners here")


def test_what_is_stored_is_sound_under_its_own_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was moved holds other loops than its name says, or those of another processor."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    stored_code.write_code("x.code", b"machine code")
    (tmp_path / "x.code").rename(tmp_path / "y.code")
    assert stored_code.read_code("y.code") is None


@needs_owners
def test_what_the_system_compiled_serves_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All may read it and its owner alone may write: else each user of a container compiles again."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    stored_code.write_code("x.code", b"machine code")
    assert 0o644 == (tmp_path / "x.code").stat().st_mode & 0o777


@needs_owners
def test_users_of_one_folder_do_not_replace_each_others_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither trusts the other's, so both would compile at every run in turn."""
    shared, own = tmp_path / "shared", tmp_path / "own"
    monkeypatch.setattr(stored_code, "_folders", lambda: iter([shared, own]))
    stored_code.write_code("x.code", b"of one")
    monkeypatch.setattr(stored_code, "os", _another_user())
    assert not list(own.glob("*"))
    stored_code.write_code("x.code", b"of another")
    assert ["x.code"] == [path.name for path in own.iterdir()]
    monkeypatch.undo()
    monkeypatch.setattr(stored_code, "_folders", lambda: iter([shared, own]))
    assert stored_code.read_code("x.code") == b"of one"


def _another_user() -> SimpleNamespace:
    """The system as it is, for somebody else."""
    return SimpleNamespace(geteuid=lambda: os.geteuid() + 1, fdopen=os.fdopen, fstat=os.fstat)


def test_code_whose_source_cannot_be_read_is_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside of an archive: a new release would go on with machine code of the one before."""
    assert "" == stored_code.source_stamp(tmp_path / "release.zip" / "analyzer" / "kernels")
    monkeypatch.setattr(machine_code, "source_stamp", lambda: "")
    loops = machine_code.open_loops.__wrapped__("compiled_sums")
    assert not any(isinstance(loop, NativeLoop) for loop in loops.values())


_MODULES = """
import sys
import analyzer.kernels.compiled_blend, analyzer.kernels.compiled_sums
print(*(name for name in sys.modules if name.startswith("analyzer.")))
"""


def test_machine_code_is_bound_to_all_that_is_compiled_in(tmp_path: Path) -> None:
    """A constant that stands elsewhere would be that of an older release."""
    done = subprocess.run([sys.executable, "-I", "-c", _MODULES], capture_output=True, check=True, text=True)
    package = Path(stored_code.__file__).parents[1]
    files = {
        Path(*name.split(".")[1:]).with_suffix(".py")
        for name in done.stdout.split()
        if name not in ("analyzer.kernels", "analyzer.errors")  # no numbers
    }
    assert Path("kernels/compiled_sums.py") in files
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes((package / file).read_bytes())
    before = stored_code.source_stamp(tmp_path / "kernels")
    for file in sorted(files):
        content = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(content + b"\n")
        assert before != stored_code.source_stamp(tmp_path / "kernels"), file
        (tmp_path / file).write_bytes(content)
    assert before == stored_code.source_stamp(tmp_path / "kernels")


@pytest.mark.parametrize(("setting", "compiled"), [("1", False), ("0", True), ("", True)])
def test_who_wants_no_compiler_gets_torch(
    monkeypatch: pytest.MonkeyPatch, setting: str, *, compiled: bool
) -> None:
    """As who measures the coverage of tests; the loops themselves are no Python that could run."""
    monkeypatch.setenv("NUMBA_DISABLE_JIT", setting)
    assert isinstance(open_measurer("cpu"), CompiledMeasurer) is compiled
