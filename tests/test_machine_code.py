"""Machine code that is kept on disk: loaded without numba, the same numbers, and nothing unsound is run."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core import registry

from analyzer.blending import _CompiledBlender
from analyzer.kernels import machine_code, object_code, stored_code
from analyzer.kernels.entry_points import ENTRY_POINTS, NativeLoop
from analyzer.sums import CompiledMeasurer

Write = Callable[..., Path]

_IMPORTED = """
import sys
from analyzer.cli import main
sys.argv = ["mergescope", *sys.argv[1:]]
try:
    main()
finally:
    print("numba" in sys.modules, "torch" in sys.modules)
"""


@pytest.fixture
def pair(tmp_path: Path, write: Write) -> list[str]:
    """Two small models of the same keys."""
    random = np.random.default_rng(0)
    one = {f"blocks.{i}.weight": random.normal(size=(8, 16)).astype(np.float16) for i in range(3)}
    two = {
        key: (value + random.normal(size=value.shape) / 10).astype(np.float16) for key, value in one.items()
    }
    return [str(write(f"{name}.safetensors", model)) for name, model in (("a", one), ("b", two))]


@pytest.mark.parametrize("command", ["scan", "merge"])
def test_a_second_run_imports_neither_numba_nor_torch(pair: list[str], tmp_path: Path, command: str) -> None:
    """Both take longer to import than a small scan takes."""
    out = tmp_path / ("scan.json" if command == "scan" else "merged.safetensors")
    extra = [] if command == "scan" else ["--alpha", "0.5"]
    arguments = [command, *pair, "-o", str(out), "--quiet", "--device", "cpu", *extra]
    for opened in (CompiledMeasurer, _CompiledBlender):
        opened()  # what a first run does
    done = subprocess.run(
        [sys.executable, "-I", "-c", _IMPORTED, *arguments],
        capture_output=True,
        timeout=120,
        check=True,
        text=True,
    )
    assert "False False" == done.stdout.split("\n")[-2]


def test_every_loop_here_is_machine_code_of_our_own() -> None:
    """Where this fails, numba's functions serve, and every run of the command takes longer."""
    for module, layouts in ENTRY_POINTS.items():
        loops = machine_code.open_loops(module)
        assert layouts.keys() == loops.keys()
        assert all(isinstance(loop, NativeLoop) for loop in loops.values())


_COMPILES_BOTH = """
import sys
import numpy as np
from numba.core import codegen
from analyzer.kernels.entry_points import ENTRY_POINTS
from analyzer.kernels.machine_code import plain_loops
from analyzer.kernels.object_code import compile_object
from analyzer.kernels.processor import Processor

if sys.argv[1] == "other":
    codegen.JITCPUCodegen._library_class = type("Renamed", (codegen.JITCodeLibrary,), {})
layouts = ENTRY_POINTS["compiled_blend"]
processor = Processor.here()
ours = processor.load(compile_object("compiled_blend", layouts, processor), layouts)
raw, rounding = np.arange(8, dtype=np.float32).view(np.uint8), np.zeros(6, np.int64)
tables, scratch = np.zeros((6, 256)), np.zeros(2048)
for loops in (ours, plain_loops("compiled_blend")):
    out = np.zeros(32, np.uint8)
    assert 0 == loops["blend"](raw, 1, raw[::-1].copy(), 1, tables, 8, 0.5, out, 1, rounding, scratch)
    print(out.tobytes().hex())
"""


@pytest.mark.parametrize("release", ["known", "other"])
def test_numba_compiles_as_ever_after_it_was_our_front_end(tmp_path: Path, release: str) -> None:
    """What it left without machine code it still knows how to call; another release compiles all of it."""
    done = subprocess.run(
        [sys.executable, "-c", _COMPILES_BOTH, release],
        capture_output=True,
        timeout=300,
        check=True,
        text=True,
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
    )
    ours, plain = done.stdout.split()
    assert ours == plain


@pytest.mark.parametrize("module", ["codegen", "registry"])
def test_a_numba_that_is_another_one_inside_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """Its names are its own affair: a release that renames them costs seconds, once, and nothing else."""
    held = {"codegen": "JITCodeLibrary", "registry": "cpu_target"}[module]
    assert not isinstance(object_code._front_end(), contextlib.nullcontext)
    monkeypatch.delitem(sys.modules, "analyzer.kernels.front_end")
    with monkeypatch.context() as renamed:
        renamed.delattr(f"numba.core.{module}.{held}")
        assert isinstance(object_code._front_end(), contextlib.nullcontext)
    monkeypatch.delitem(sys.modules, "analyzer.kernels.front_end")
    monkeypatch.setitem(sys.modules, f"numba.core.{module}", None)
    monkeypatch.delattr(f"numba.core.{module}")
    assert isinstance(object_code._front_end(), contextlib.nullcontext)


def test_a_failure_leaves_numba_as_it_was() -> None:
    """Numba is another program's as well."""
    maker = registry.cpu_target.target_context.codegen()
    before = dict(vars(maker))
    with pytest.raises(ZeroDivisionError), object_code._front_end():
        assert vars(maker) != before
        raise ZeroDivisionError
    assert vars(maker) == before


def test_numbas_own_functions_give_the_same_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts exactly, sums to the last bits of fp64: compiled apart, they may add up in another order."""
    random = np.random.default_rng(1)
    a = random.normal(size=3000).astype(np.float16)
    b = (a + random.normal(size=3000) / 10).astype(np.float16)
    sides = (a.view(np.uint8), "F16", b.view(np.uint8), "F16")
    native = CompiledMeasurer().measure(*sides)
    monkeypatch.setattr("analyzer.sums.open_loops", machine_code.plain_loops)
    plain = CompiledMeasurer().measure(*sides)
    assert native.n == plain.n == 3000
    assert (native.changed, native.sign_flips) == (plain.changed, plain.sign_flips)
    np.testing.assert_allclose(
        [native.sum_aa, native.sum_dd, native.sum_ab, native.m2_a],
        [plain.sum_aa, plain.sum_dd, plain.sum_ab, plain.m2_a],
        rtol=1e-14,
    )


@pytest.mark.parametrize(("dtype_in", "dtype"), [("F16", "F16"), ("BF16", "F8_E4M3"), ("F8_E5M2", "F32")])
def test_numbas_own_functions_give_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, dtype_in: str, dtype: str
) -> None:
    """Every code, blended with the same codes in another order."""
    width = 1 if "8" in dtype_in else 2
    codes = np.arange(1 << 8 * width, dtype=f"u{width}")
    raw, other = codes.view(np.uint8), codes[::-1].copy().view(np.uint8)

    def both() -> list[bytes | int]:
        blender = _CompiledBlender()
        blended, bad = blender.blend(raw, dtype_in, other, dtype_in, alpha=0.3, dtype=dtype)
        converted, bad_too = blender.convert(raw, dtype_in, dtype=dtype)
        return [blended.tobytes(), bad, converted.tobytes(), bad_too]

    native = both()
    monkeypatch.setattr("analyzer.blending.open_loops", machine_code.plain_loops)
    assert native == both()


def test_without_our_own_machine_code_numbas_functions_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong with llvmlite, a scan goes on."""

    def fails(_module: str) -> None:
        raise RuntimeError("no such engine")

    monkeypatch.setattr(machine_code, "_native", fails)
    loops = machine_code.open_loops.__wrapped__("compiled_sums")
    assert not any(isinstance(loop, NativeLoop) for loop in loops.values())


def test_what_is_stored_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder that the user names, and in no other."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "new" / "folder"))
    assert stored_code.read_code("x.code") is None
    stored_code.write_code("x.code", b"machine code")
    assert stored_code.read_code("x.code") == b"machine code"
    assert ["x.code"] == [path.name for path in (tmp_path / "new" / "folder").iterdir()]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_what_is_damaged_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    """It counts as not there, so the loops are compiled anew."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    stored_code.write_code("x.code", b"machine code" * 100)
    path = tmp_path / "x.code"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-5] ^= 1
    changed = {"cut": content[:-1], "flipped": content, "empty": b"", "foreign": b"\x7fELF" * 100}[damage]
    path.write_bytes(changed)
    assert stored_code.read_code("x.code") is None


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no such permissions")
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_what_others_can_write_to_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """Else anybody on the machine could have us run what they like."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    stored_code.write_code("x.code", b"machine code")
    (tmp_path / "x.code").chmod(mode)
    assert stored_code.read_code("x.code") is None


def test_a_folder_that_cannot_be_written_to_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loops are compiled at every run then."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    stored_code.write_code("x.code", b"machine code")
    assert stored_code.read_code("x.code") is None


def test_a_loop_refuses_arrays_that_it_would_misread() -> None:
    """Machine code takes addresses: another dtype, shape or order would be read as nonsense."""
    convert = machine_code.open_loops("compiled_blend")["convert"]
    bytes_in, tables, out = np.zeros(8, np.uint8), np.zeros((6, 256)), np.zeros(8, np.uint8)
    rounding, scratch = np.zeros(6, np.int64), np.zeros(2048)
    assert 0 == convert(bytes_in, 1, tables, 2, out, 1, rounding, scratch)
    with pytest.raises(TypeError, match="1 axes of uint8"):
        convert(bytes_in.astype(np.int8), 1, tables, 2, out, 1, rounding, scratch)
    with pytest.raises(TypeError, match="2 axes of float64"):
        convert(bytes_in, 1, tables[0], 2, out, 1, rounding, scratch)
    with pytest.raises(TypeError):
        convert(bytes_in, 1, tables.T, 2, out, 1, rounding, scratch)


def test_that_it_compiles_is_said_once_and_not_to_the_quiet(
    pair: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
) -> None:
    """A first run takes some seconds longer, a second one does not. Here what was compiled before serves."""
    compile_anew, found = object_code.compile_object, list[bytes | None]()
    machine_code.open_loops("compiled_sums")  # from now on it is on disk, where that can be written to

    def read_code(name: str) -> bytes | None:
        found.append(stored_code.read_code(name))
        return found[0]

    with monkeypatch.context() as patched:
        patched.setattr(machine_code, "read_code", read_code)
        machine_code.open_loops.__wrapped__("compiled_sums")
    compiled: list[str] = []

    def compile_object(module: str, *rest: Any) -> bytes:
        compiled.append(module)
        return found[0] or compile_anew(module, *rest)

    monkeypatch.setattr(object_code, "compile_object", compile_object)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))

    def said(*extra: str) -> str:
        monkeypatch.setattr("analyzer.sums.open_loops", functools.cache(machine_code.open_loops.__wrapped__))
        done = run("scan", *pair, "--device", "cpu", *extra)
        assert 0 == done.code
        return str(done.err)

    assert machine_code.NOTICE in said()
    assert machine_code.NOTICE not in said()
    assert ["compiled_sums"] == compiled
    (next((tmp_path / "cache").glob("*.code"))).unlink()
    assert "" == said("--quiet")
    assert ["compiled_sums"] * 2 == compiled
