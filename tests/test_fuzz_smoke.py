"""The fuzzer itself: every target runs, what it watches for is seen, and its attacks are real."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent / "benchmarks"))
import fuzz
import fuzz_pickles
import fuzz_watch


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_a_few_inputs_of_every_target(name: str, tmp_path: Path) -> None:
    """Nothing but refusals and accepted inputs, and nothing run, written or opened elsewhere."""
    tally = fuzz.run(name, inputs=25, number=7, folder=tmp_path)
    assert tally.inputs >= 25


def test_the_watch_sees_what_is_forbidden(tmp_path: Path) -> None:
    """Files elsewhere, files written, processes, imports and evaluated texts are all noticed."""
    inside, outside = tmp_path / "in" / "a", tmp_path / "b"
    inside.parent.mkdir()
    outside.write_text("")
    with fuzz_watch.watched(inside.parent) as watch:
        inside.write_text("")
        outside.read_text()
        inside.read_text()
        eval("1 + 1")
        subprocess.run([sys.executable, "-c", ""], check=True)
        os.putenv("MERGESCOPE_TEST", "1")
        with pytest.raises(ModuleNotFoundError):
            __import__("this_module_is_not_there")
    seen = " ".join(watch.violations)
    for sign in (f"opened {str(inside)!r} as 'w'", f"opened {str(outside)!r} as 'r'", "compile", "exec"):
        assert sign in seen
    for sign in ("subprocess.Popen", "os.putenv", "import ('this_module_is_not_there'"):
        assert sign in seen
    assert f"opened {str(inside)!r} as 'r'" not in seen


def test_the_canary_sings() -> None:
    """What the hostile pickles hold would run, were they loaded without care."""
    call = fuzz_pickles.imported("fuzz_watch", "touch") + fuzz_pickles.text("x") + b"\x85R."
    pickle.loads(b"\x80\2" + call)
    assert ["('x',)"] == fuzz_watch.TOUCHED
    fuzz_watch.TOUCHED.clear()


def test_what_breaks_a_rule_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that takes more than it may is an error, not a line of the table."""
    monkeypatch.setattr(fuzz, "PEAK_BYTES", 0)
    monkeypatch.setattr(fuzz, "PEAK_TIMES", 0)
    with pytest.raises(AssertionError, match="bytes of memory"):
        fuzz.run("gguf", inputs=5, number=1, folder=tmp_path)
