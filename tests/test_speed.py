"""The benchmarks of speed: each line runs on tiny models, and the README has the table of what they found."""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

sys.path.append(str(Path(__file__).resolve().parent / "benchmarks"))
import pairs
import peers
import speed
import speed_cuda
import speed_drawing
import speed_lines
import speed_processes
import speed_results

BENCHMARKS = Path(speed.__file__).parent

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="os.wait4")

Models = tuple[Path, Path]


@pytest.fixture(scope="module", autouse=True)
def _small_pools() -> Iterator[None]:
    """Drawing four million values takes longer than all that is done with them here."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pairs, "POOL", 1 << 17)
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """A narrow SD 1.5 and its fine-tune."""
    folder = tmp_path_factory.mktemp("pair")
    a, b = folder / "a.safetensors", folder / "b.safetensors"
    pairs.write_pair(a, b, pairs.layout_of("sd15-ldm", dtype="F16", divisor=32), seed=3)
    return a, b


def test_a_pair_has_the_ranking_that_it_says(models: Models) -> None:
    """Each tensor's distance is its share, to what chance and rounding leave of so many elements."""
    a, b = map(load_file, models)
    seen = set()
    for key, x in a.items():
        x, y = x.astype(np.float64), b[key].astype(np.float64)
        share = pairs.share_of(key)
        if share == 0 or x.dtype.kind != "f" or key.endswith("position_ids"):
            assert np.array_equal(x, y), key
        elif x.size >= 1_000:
            assert share == pytest.approx(np.linalg.norm(y - x) / np.linalg.norm(x), rel=0.15), key
            seen.add(share)
    assert {0.02, 0.1, 0.15, 0.3} == seen


def test_a_pair_is_the_same_each_time_and_stays(models: Models, tmp_path: Path) -> None:
    """Same seed, same bytes; files that are there are not written again, those of another seed are."""
    layout = pairs.layout_of("sd15-ldm", dtype="F16", divisor=32)
    a, b = tmp_path / "a", tmp_path / "b"
    pairs.write_pair(a, b, layout, seed=3)
    assert [path.read_bytes() for path in models] == [path.read_bytes() for path in (a, b)]
    before = a.stat().st_ino, b.stat().st_ino
    pairs.write_pair(a, b, layout, seed=3)
    assert before == (a.stat().st_ino, b.stat().st_ino)
    pairs.write_pair(a, b, layout, seed=4)
    assert models[0].read_bytes() != a.read_bytes()


def test_layers_fill_the_size_that_is_asked_for() -> None:
    """To half a layer; keys are those of the layout, in whole layers."""
    layout = pairs.layers_of(2.0, dtype="F16")
    size = sum(2 * math.prod(shape) for _, shape in layout.values())
    assert 2e9 == pytest.approx(size, abs=0.061e9)
    layers = {re.sub(r"\D+(\d+).*", r"\1", key) for key in layout}
    assert {str(n) for n in range(len(layers))} == layers


def test_bfloat16_is_rounded_as_torch_rounds(tmp_path: Path) -> None:
    """The same noise in fp32 and in bf16."""
    found = {}
    for dtype in ("F32", "BF16"):
        a, b = (tmp_path / f"{dtype}{side}" for side in "ab")
        pairs.write_pair(a, b, {"x.weight": (dtype, (1_000,))}, seed=0)
        found[dtype] = load_torch(b)["x.weight"]
    assert torch.equal(found["F32"].to(torch.bfloat16), found["BF16"])


def test_the_loops_compute_what_their_tools_do(models: Models, tmp_path: Path) -> None:
    """Against numpy: the cosine, the six numbers of the hand-written loop, the mean of two models."""
    a, b = map(load_file, models)
    cosines, numbers = peers.supermerger(*models), peers.by_hand(*models)
    out = tmp_path / "m.safetensors"
    peers.mbw(*models, out)
    merged = load_file(out)
    assert [1, 6] == [len(next(iter(found.values()))) for found in (cosines, numbers)]
    for key in list(a)[::25]:
        x, y = a[key].astype(np.float64).ravel(), b[key].astype(np.float64).ravel()
        norms, d = (np.linalg.norm(x), np.linalg.norm(y)), y - x
        cosine = x @ y / (norms[0] * norms[1])
        expected = (*norms, np.linalg.norm(d), cosine, abs(d).mean(), abs(d).max())
        assert expected == pytest.approx(numbers[key], rel=1e-4, abs=1e-6), key
        if key in cosines:  # of integers there are none
            assert cosine == pytest.approx(cosines[key][0], rel=1e-4), key
        assert ((x + y) / 2).ravel() == pytest.approx(merged[key].ravel(), rel=2e-3, abs=1e-6), key


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]) -> None:
    """Commands of the lines run here, not in processes of their own; those of the system are imitated."""
    done_already: list[list[str]] = []

    def imitate(
        command: speed_processes.Command, environment: Mapping[str, str] | None = None
    ) -> speed_processes.Run:
        words = [str(word) for word in command]
        if words in done_already:  # a second time it would only take as long again
            return speed_processes.Run(1.0 if words[0] == "mergescope" else 2.0, 1.0, 1 << 28, "")
        done_already.append(words)
        if words[0] == "mergescope":
            done = run(*words[1:])
            assert 0 == done.code, (words, done.err)
            return speed_processes.Run(1.0, 1.0, 1 << 28, "compiling, once\n" if environment else "")
        if words[0] == "cp":
            shutil.copyfile(*words[1:])
        elif "speed_cuda.py" in words[1]:
            Path(words[4]).write_text('{"rate": [0.9, "18 against 20 GB/s"], "memory": [null, "unknown"]}')
        elif "pairs.py" in words[1]:
            done_already.clear()
            monkeypatch.setattr(sys, "argv", words[1:])
            pairs.main()
        elif "peers.py" in words[1]:
            peers.LOOPS[words[2]](*map(Path, words[3:]))
        else:
            assert "cat" == words[0]
        return speed_processes.Run(2.0, 2.0, 1 << 29, "")

    monkeypatch.setattr(speed_processes, "run", imitate)
    monkeypatch.setattr(speed_processes, "tool", lambda *words: ["mergescope", *words])
    monkeypatch.setattr(speed_lines, "tool", speed_processes.tool)
    monkeypatch.setattr(os, "sync", lambda: None)


@pytest.mark.parametrize("line", speed_lines.LINES)
@pytest.mark.usefixtures("in_this_process")
def test_every_line_fills_its_rows(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its rows has a value, or says why there is none."""
    monkeypatch.setattr(speed_lines, "REPORTED", "taesd-diffusers")
    setting = speed_lines.Setting(
        tmp_path, rounds=1, gigabytes=[2e-4, 4e-4], keys=20, threads=[2], divisor=64, may_drop_all=False
    )
    results = speed_results.Results({})
    speed_lines.LINES[line](setting, results)
    rows = {name for name in speed_results.TARGETS if name.startswith(f"{line}.")}
    assert rows == set(results.notes)
    assert all(name in results.values or results.notes[name] for name in rows)
    if line == "scan":
        assert 0.5 == results.values["scan.supermerger"]
        assert 256 == results.values["scan.peak"]
        assert 6 == results.values["scan.numbers-supermerger"] / results.values["scan.numbers-by-hand"]


@pytest.mark.usefixtures("in_this_process")
def test_a_gpu_is_asked_where_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What its script found is taken over, and what it did not find is left out."""
    setting = speed_lines.Setting(tmp_path, 1, [], 1, [], divisor=64)
    results = speed_results.Results({})
    for signs, value, why in (((), None, "no GPU"), ((str(tmp_path),), 0.9, "unknown")):
        monkeypatch.setattr(speed_lines, "GPU_SIGNS", signs)
        speed_lines.cuda(setting, results)
        assert (value, why) == (results.values.get("cuda.rate"), results.notes["cuda.memory"])


def test_two_scans_are_compared_number_by_number() -> None:
    """The largest relative difference and where it is; undefined against a number is infinite."""

    def scan(x: float | None, total: float = 4.0) -> dict[str, Any]:
        row = {"key": "k", "sums": {"n": 3, "sum_a": 2.0}, "statistics": {"cosine": x}}
        return {"keys": [row], "totals": {"statistics": {"norm_a": total}}}

    assert (0.0, "all numbers are the same") == speed_cuda.largest_difference(scan(0.5), scan(0.5))
    assert (0.25, "cosine of k") == speed_cuda.largest_difference(scan(0.5), scan(0.375))
    assert (0.5, "norm_a of all keys") == speed_cuda.largest_difference(scan(0.5, 2.0), scan(0.5))
    assert math.inf == speed_cuda.largest_difference(scan(None), scan(0.5))[0]
    assert 0.0 == speed_cuda.largest_difference(scan(None), scan(None))[0]


def test_growth_is_the_farthest_from_the_median() -> None:
    """In either direction."""
    assert 0.5 == speed_lines.farthest_from_median([1.0, 2.0, 2.1])
    assert 0.25 == speed_lines.farthest_from_median([2.0, 2.0, 2.5])


def test_growth_is_told_apart_from_the_disks_mood() -> None:
    """Beside the time a byte, beyond the start, stands the processors' own."""
    start, *rows = (
        {"gigabytes": size, "scan": wall, "scan_processor": worked, "scan_peak": 100.0}
        for size, wall, worked in ((0.0, 1.0, 0.5), (2.0, 2.0, 1.5), (4.0, 5.0, 2.5))
    )
    results = speed_results.Results({})
    speed_lines._add_growth(results, "scan", start, rows, "all cold")
    assert 100 / 3 == pytest.approx(results.values["sizes.scan-growth"])
    expected = "0.50, 1.00 s/GB beyond a start of 1.00 s, of processors 0.50, 0.50 s/GB; all cold"
    assert expected == results.notes["sizes.scan-growth"]


def test_the_driver_prints_and_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a folder they stay in it, without one they are printed only; several lines in their order."""
    monkeypatch.setattr(speed_lines, "GPU_SIGNS", ())
    for words in (["--folder", str(tmp_path / "new")], []):
        monkeypatch.setattr(sys, "argv", ["speed.py", "--only=cuda", *words])
        speed.main()
        rows = capsys.readouterr().out.splitlines()
        assert [t.text for name, t in speed_results.TARGETS.items() if name.startswith("cuda")] == [
            row.split("  ")[0] for row in rows
        ]
        assert all(row.endswith("–  no GPU") for row in rows)
    assert {"speed.json"} == {path.name for path in (tmp_path / "new").iterdir()}


def test_a_process_is_measured_by_the_kernel() -> None:
    """Its own memory, its own processor time, what it says; this process's environment and more."""
    code = "import os, sys; x = b'1' * (192 << 20); sum(range(10**6)); sys.stderr.write(os.environ['SEEN'])"
    found = speed_processes.run([sys.executable, "-c", code], {"SEEN": "yes"})
    assert "yes" == found.stderr
    assert 192 << 20 < found.peak
    assert 0 < found.processor
    with pytest.raises(SystemExit, match=r"exit code 3: .*\nso it goes"):
        speed_processes.run([sys.executable, "-c", "import sys; sys.stderr.write('so it goes'); sys.exit(3)"])


def test_commands_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them once before anything counts; with something to do before each run, not even that."""
    seen: list[str] = []

    def note(command: speed_processes.Command) -> speed_processes.Run:
        seen.append(str(command[0]))
        return speed_processes.Run(len(seen), 0.0, len(seen), "")

    monkeypatch.setattr(speed_processes, "run", note)
    monkeypatch.setattr(os, "sync", lambda: None)
    found = speed_processes.interleave({"a": ["a"], "b": ["b"]}, 3)
    assert ["a", "b"] * 4 == seen
    assert (5, 7) == (found["a"].wall, found["a"].peak)
    seen.clear()
    speed_processes.interleave({"a": ["a"]}, 2, before=lambda: seen.append("drop"))
    assert ["drop", "a", "drop", "a"] == seen


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="posix_fadvise")
def test_what_is_dropped_from_the_cache_is_still_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the kernel's copy goes. In a file system in memory nothing can be made cold."""
    path = tmp_path / "x"
    path.write_bytes(b"1" * 10_000)
    monkeypatch.setattr(os, "sync", lambda: None)  # waits for what all other programs have written
    speed_processes.drop_files(path)
    assert b"1" * 10_000 == path.read_bytes()
    setting = speed_lines.Setting(tmp_path, 1, [], 1, [], may_drop_all=False)
    for kind, ways in (("ext4", ["files"]), ("tmpfs", [])):
        monkeypatch.setattr(speed_processes, "file_system", lambda _folder, kind=kind: kind)
        assert ways == list(setting.ways_to_drop(path))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only=scan,nothing"], "nothing: lines are scan, merge"),
        (["--rounds=0"], "at least 1"),
        (["--gigabytes=1,much"], "could not convert"),
    ],
)
def test_wrong_arguments_are_refused(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is made or measured."""
    monkeypatch.setattr(sys, "argv", ["speed.py", *words])
    with pytest.raises(SystemExit) as stop:
        speed.main()
    assert 2 == stop.value.code
    assert message in capsys.readouterr().err


def test_a_missed_target_says_so() -> None:
    """On the right side of its limit nothing is said, on the wrong side it is, without a limit never."""
    results = speed_results.Results({})
    assert "≤ 0.35  0.35" in results.add("scan.supermerger", 0.35)
    assert "0.351, **missed**" in results.add("scan.supermerger", 0.351)
    assert results.add("cold.all", 0.95).endswith("≥ 0.9  0.95")
    assert "**missed**" in results.add("cold.all", 0.89)
    assert "**missed**" not in results.add("cold.warm", 0.001)
    assert results.leave_out("merge.sd-mecha", "not installed").endswith("–  not installed")


def test_results_of_another_machine_are_left(tmp_path: Path) -> None:
    """Those of the same one are gone on with, whole."""
    results = speed_results.Results({"processor": "x"})
    results.add("scan.peak", 1.5, "note")
    results.curves["threads"] = [{"threads": 1, "scan": 2.0, "cat": 3.0}]
    results.save(tmp_path / "r.json")
    assert results == speed_results.load_for(tmp_path / "r.json", {"processor": "x"})
    assert {} == speed_results.load_for(tmp_path / "r.json", {"processor": "y"}).values


def test_publishing_writes_table_plots_and_record(tmp_path: Path) -> None:
    """Between the markers and nowhere else; the pictures are well-formed."""
    for folder in ("tests/benchmarks", ".github/images"):
        (tmp_path / folder).mkdir(parents=True)
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- speed: made -->\nold\n<!-- end of speed -->\nafter\n", encoding="utf-8")
    results = speed_results.Results({"processor": "a <fast> one"})
    results.add("scan.peak", 187.4)
    results.curves["threads"] = [{"threads": n, "scan": n / 2, "cat": 5.0} for n in (1, 2)]
    results.curves["sizes"] = [{"gigabytes": n, "scan": n, "merge": 2 * n} for n in (2.0, 4.0)]
    speed.publish(results, root=tmp_path)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- speed: made -->\nMeasured on: a <fast> one.\n")
    assert text.endswith(".svg)\n<!-- end of speed -->\nafter\n")
    assert "| scan: peak memory | ≤ 450 MiB | 187 MiB |  |" in text
    assert results == speed_results.load(tmp_path / "tests/benchmarks/speed.json")
    for name in ("speed-sizes.svg", "speed-threads.svg"):
        assert f"](.github/images/{name})" in text
        picture = ET.parse(tmp_path / ".github/images" / name)
        assert picture.getroot().tag.endswith("svg")


def test_points_of_a_chart_lie_where_they_should() -> None:
    """The origin at the lower left corner, the largest tick at the upper right one."""
    picture = speed_drawing.chart("t", "x", "y & z", [speed_drawing.Curve("c", [(0.0, 0.0), (8.0, 4.0)])])
    spots = [tuple(map(float, spot)) for spot in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', picture)]
    left, bottom = speed_drawing.LEFT, speed_drawing.HEIGHT - speed_drawing.BOTTOM
    assert [(left, bottom), (speed_drawing.WIDTH - speed_drawing.RIGHT, speed_drawing.TOP)] == spots
    assert "y &amp; z" in picture


@pytest.mark.parametrize("largest", [0.013, 0.99, 1.0, 4.3, 40.0, 99.0])
def test_ticks_are_round_and_reach_the_largest(largest: float) -> None:
    """From 0 in equal steps of 1, 2 or 5 times a power of ten; the last but one is too small."""
    found = speed_drawing.ticks(largest)
    step = found[1]
    assert 0 == found[0]
    assert found[-2] < largest <= found[-1] + 1e-12
    assert found == pytest.approx([step * i for i in range(len(found))])
    assert any(math.isclose(step / 10 ** math.floor(math.log10(step) + 1e-9), n) for n in (1, 2, 5))
    assert 4 <= len(found) <= 10


def test_the_readme_has_the_table_of_the_record() -> None:
    """What stands between its markers is what `--write-readme` makes of tests/benchmarks/speed.json."""
    readme = (BENCHMARKS.parents[1] / "README.md").read_text(encoding="utf-8")
    table = speed_results.MARKERS.search(readme)
    assert table is not None
    assert speed_results.markdown(speed_results.load(BENCHMARKS / "speed.json")) == table[2]
    for name in speed_lines.LINES:
        assert f"`speed.py --only {name}`" in readme
