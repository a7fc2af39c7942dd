"""The command line as a user meets it: output, exit codes, one sentence for every mistake."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from analyzer import __version__

Run = Callable[..., Any]
Write = Callable[..., Path]
Build = Callable[[int], dict[str, np.ndarray]]


@pytest.fixture
def models(unet: Build, write: Write) -> tuple[Path, Path]:
    """A mini SD 1.5 and a fine-tune of it, whose attn2 moved most and whose VAE did not move."""
    a, b = unet(0), unet(0)
    rng = np.random.default_rng(1)
    for key, tensor in b.items():
        if tensor.dtype == np.float16 and not key.startswith("first_stage_model"):
            step = 0.3 if ".attn2." in key else 0.02
            b[key] = (tensor + step * rng.standard_normal(tensor.shape)).astype(np.float16)
    return write("a.safetensors", a), write("b.safetensors", b)


def test_scan_prints_a_summary_and_the_ranking(run: Run, models: tuple[Path, Path]) -> None:
    """What was compared, what was found, and attn2 first; all within 80 columns."""
    result = run("scan", *models)
    assert (0, "") == (result.code, result.err)
    assert "Stable Diffusion 1.x" in result.out
    assert "attn2 moved most" in result.out
    assert "vae" in result.out
    heading = re.search(r"^ +keys +size.*\n", result.out, re.MULTILINE)
    assert heading is not None
    assert result.out[heading.end() :].startswith("attn2")
    assert max(len(line) for line in result.out.splitlines()) <= 80


def test_scan_writes_all_three_files(run: Run, models: tuple[Path, Path], tmp_path: Path) -> None:
    """-o, --report and --csv, and --quiet says nothing about it."""
    names = [tmp_path / n for n in ("s.json", "s.html", "s.csv")]
    result = run("scan", *models, "-o", names[0], "--report", names[1], "--csv", names[2], "--quiet")
    assert (0, "", "") == (result.code, result.out, result.err)
    document = json.loads(names[0].read_text())
    assert ("mergescope.scan", 1) == (document["format"], document["version"])
    rows = list(csv.DictReader(io.StringIO(names[2].read_text())))
    assert [row["key"] for row in document["keys"]] == [row["key"] for row in rows]
    for key, row in zip(document["keys"], rows, strict=True):
        value = key["statistics"]["relative_change"]
        assert row["relative_change"] == ("" if value is None else repr(value))
    assert "<html" in names[1].read_text()


def test_json_is_one_document_and_nothing_else(run: Run, models: tuple[Path, Path]) -> None:
    """--json prints what -o writes."""
    result = run("scan", *models, "--json")
    document = json.loads(result.out)
    assert len(load_file(models[0])) == len(document["keys"])
    assert document["kinship"] == "fine-tune"


def test_fail_on_exits_with_three(run: Run, models: tuple[Path, Path]) -> None:
    """3 if the condition holds for some key, 0 if for none, 1 if it does not parse."""
    held = run("scan", *models, "--fail-on", "relative_change > 0.03 and cosine < 0.999")
    assert 3 == held.code
    assert "--fail-on held for" in held.err
    assert 0 == run("scan", *models, "--fail-on", "relative_change > 3").code
    assert 1 == run("scan", *models, "--fail-on", "__import__('os')").code


def test_rank_of_a_scan_file(run: Run, models: tuple[Path, Path], tmp_path: Path) -> None:
    """Any axis and statistic, as a table, JSON or CSV."""
    scan = tmp_path / "s.json"
    run("scan", *models, "-o", scan)
    table = run("rank", scan, "--top", 3)
    assert table.out.splitlines()[1].startswith("attn2")
    assert 4 == len(table.out.splitlines())
    document = json.loads(run("rank", scan, "--axis", "part", "--by", "norm_b", "--format", "json").out)
    assert ("part", "norm_b") == (document["axis"], document["by"])
    norms = [row["norm_b"] for row in document["rows"]]
    assert sorted(norms, reverse=True) == norms
    rows = list(csv.DictReader(io.StringIO(run("rank", scan, "--only", "unet", "--format", "csv").out)))
    assert "attn2" == rows[0]["name"]
    assert not {"self_attn", "encoder"} & {row["name"] for row in rows}
    leaves = json.loads(run("rank", scan, "--depth", "full", "--format", "json").out)["rows"]
    assert {"to_q", "to_k"} <= {row["name"].rsplit("/", 1)[-1] for row in leaves}


def test_report_of_a_scan_file(run: Run, models: tuple[Path, Path], tmp_path: Path) -> None:
    """The page from the scan alone; cdn is small."""
    scan = tmp_path / "s.json"
    run("scan", *models, "-o", scan)
    assert 0 == run("report", scan, "-o", tmp_path / "r.html").code
    assert 0 == run("report", scan, "-o", tmp_path / "c.html", "--plotlyjs", "cdn").code
    assert (tmp_path / "c.html").stat().st_size < (tmp_path / "r.html").stat().st_size / 5


def test_merge_says_what_it_did(run: Run, models: tuple[Path, Path], tmp_path: Path) -> None:
    """Counts by action, and the file."""
    result = run("merge", *models, "-o", tmp_path / "o.safetensors", "--only", "attn2")
    assert 0 == result.code
    assert "9 taken from B" in result.out
    b, out = load_file(models[1]), load_file(tmp_path / "o.safetensors")
    for key in (k for k in out if ".attn2." in k):
        np.testing.assert_array_equal(b[key], out[key])


def test_dry_run_lists_every_key_and_writes_nothing(
    run: Run, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """Action, alpha, key and reason, a line each; -o is not needed."""
    before = sorted(tmp_path.iterdir())
    result = run("merge", *models, "--only", "attn2", "--alpha", 0.5, "--dry-run")
    assert before == sorted(tmp_path.iterdir())
    for key in load_file(models[0]):
        line = next(text for text in result.out.splitlines() if f" {key} " in text)
        assert line.split()[:2] == (["merge", "0.5"] if ".attn2." in key else ["keep", line.split()[1]])
    plan = json.loads(run("merge", *models, "--only", "attn2", "--dry-run", "--json").out)
    assert 9 == plan["counts"]["take"]
    assert len(load_file(models[0])) == len(plan["actions"])


def test_set_and_block_weights_from_the_command_line(
    run: Run, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """The article's experiment as its author would type it."""
    out = tmp_path / "o.safetensors"
    ones = ",".join(["1"] * 25)
    code = run(
        "merge", *models, "-o", out, "--block-weights", ones, "--base-alpha", 0,
        "--position-ids", "reset", "--only", "attn1,attn2,weight",
    ).code  # fmt: skip
    assert 0 == code
    a, b, merged = load_file(models[0]), load_file(models[1]), load_file(out)
    for key, tensor in merged.items():
        chosen = (".attn1." in key or ".attn2." in key) and key.endswith("weight")
        np.testing.assert_array_equal((b if chosen else a)[key], tensor)


def test_version_help_and_usage(run: Run) -> None:
    """--version, --help at every level, and exit code 2 for wrong usage."""
    assert __version__ in run("--version").out
    for command in ("scan", "rank", "report", "merge", "demo"):
        assert "Usage" in run(command, "--help").out
        assert command in run("--help").out
    assert 2 == run("scan", "only-one").code
    assert 2 == run("nonsense").code
    assert 2 == run("merge", "a", "b").code


def header(text: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file of a raw header."""
    return struct.pack("<Q", len(text) if length is None else length) + text + data


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.marker), "w")


F32 = b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[%d,%d]}%s}'
BAD_FILES = {
    "missing": (None, "no such file"),
    "empty": (b"", "is empty"),
    "truncated header": (header(b'{"a":', length=500), "header"),
    "header past the end": (header(b"{}", length=10**9), "header"),
    "header not JSON": (header(b"not json at all!"), "header cannot be read"),
    "overlap": (
        header(F32 % (2, 0, 8, b',"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}'), b"\0" * 12),
        "overlap",
    ),
    "offsets past the end": (header(F32 % (2, 0, 8, b""), b"\0" * 4), "truncated|promises"),
    "unknown dtype": (header(b'{"a":{"dtype":"F7","shape":[1],"data_offsets":[0,1]}}', b"\0"), "F7"),
    "text": (b"Hello, this is a text file and no model at all.\n" * 20, "not|no "),
    "no tensors": (header(b"{}"), "no tensor|no key|nothing"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_model_files(run: Run, models: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    """Each kind of damage: exit code 1, one sentence that names the file, nothing left behind."""
    data, words = BAD_FILES[name]
    bad = tmp_path / "bad.safetensors"
    if data is not None:
        bad.write_bytes(data)
    before = sorted(tmp_path.iterdir())
    for arguments in (
        ("scan", models[0], bad, "-o", tmp_path / "s.json"),
        ("scan", bad, models[0], "--report", tmp_path / "s.html"),
        ("merge", models[0], bad, "-o", tmp_path / "o.safetensors", "--alpha", 1),
    ):
        result = run(*arguments)
        check_refused(result.code, result.out, result.err, words)
        assert "bad.safetensors" in result.err
        assert before == sorted(tmp_path.iterdir())


def check_refused(code: int, out: str, err: str, words: str) -> None:
    """Exit code 1, nothing on stdout, one line on stderr that says `words`."""
    assert (1, "") == (code, out)
    assert 1 == len(err.splitlines()), err
    assert err.startswith("Error: ")
    assert re.search(words, err), err


def test_a_pickle_that_would_execute_code(run: Run, models: tuple[Path, Path], tmp_path: Path) -> None:
    """Refused with the way out; nothing is executed."""
    marker, bad = tmp_path / "executed", tmp_path / "bad.ckpt"
    bad.write_bytes(pickle.dumps({"state_dict": Malicious(marker)}))
    result = run("scan", models[0], bad)
    check_refused(result.code, result.out, result.err, "never|trust")
    assert not marker.exists()


def test_models_without_a_common_key(
    run: Run, write: Write, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """Nothing can be compared, and the sentence shows how the names differ."""
    other = write("other.safetensors", {"encoder.layers.0.weight": np.zeros(3, np.float32)})
    result = run("scan", models[0], other, "-o", tmp_path / "s.json")
    check_refused(result.code, result.out, result.err, "no key in common")
    assert not (tmp_path / "s.json").exists()


def test_nan_and_inf_are_a_warning(run: Run, write: Write) -> None:
    """They are counted and left out, and the scan goes on."""
    a = write("a.safetensors", {"w.weight": np.array([1, np.nan, np.inf, 2], np.float32)})
    b = write("b.safetensors", {"w.weight": np.array([1, 1, 1, 3], np.float32)})
    result = run("scan", a, b, "--json")
    assert 0 == result.code
    assert "2 values that are NaN or Inf" in result.err
    statistics = json.loads(result.out)["keys"][0]["statistics"]
    assert (2, 0, 4, 0.5) == tuple(
        statistics[n] for n in ("nonfinite_a", "nonfinite_b", "numel", "changed_fraction")
    )


def test_outputs_that_would_overwrite_an_input(run: Run, models: tuple[Path, Path], tmp_path: Path) -> None:
    """OUT equal to A or B, through links, for models and for reports; --force does not help."""
    before = [m.read_bytes() for m in models]
    soft, hard = tmp_path / "soft.safetensors", tmp_path / "hard.safetensors"
    soft.symlink_to(models[0])
    hard.hardlink_to(models[1])
    for out in (*models, soft, hard):
        result = run("merge", *models, "-o", out, "--alpha", 0.5, "--force")
        check_refused(result.code, result.out, result.err, "is the input")
        for option in ("-o", "--report", "--csv"):
            result = run("scan", *models, option, out)
            check_refused(result.code, result.out, result.err, "is the input")
    assert before == [m.read_bytes() for m in models]


def test_an_existing_output_needs_force(run: Run, models: tuple[Path, Path], tmp_path: Path) -> None:
    """Without --force the earlier file stays."""
    out = tmp_path / "o.safetensors"
    out.write_bytes(b"mine")
    result = run("merge", *models, "-o", out, "--alpha", 0.5)
    check_refused(result.code, result.out, result.err, "--force")
    assert b"mine" == out.read_bytes()
    assert 0 == run("merge", *models, "-o", out, "--alpha", 0.5, "--force").code
    assert len(load_file(out)) == len(load_file(models[0]))


BAD_REQUESTS = {
    "unknown selector": (["--only", "atn2"], "attn2"),
    "wrong number of block weights": (["--block-weights", "1,0.5"], "25"),
    "block weights that are no numbers": (["--block-weights", "NO_SUCH_PRESET"], "NO_SUCH_PRESET"),
    "set without a number": (["--set", "attn2"], "attn2=0.5"),
    "set without a selector": (["--set", "=1"], "selector"),
    "nothing to do": ([], "--alpha"),
    "unknown method": (["--alpha", "1", "--method", "magic"], "magic"),
    "unknown device": (["--alpha", "1", "--device", "tpu"], "tpu"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_bad_requests(run: Run, models: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    """Each kind of mistake in the options: exit code 1, one sentence, no file."""
    options, words = BAD_REQUESTS[name]
    result = run("merge", *models, "-o", tmp_path / "o.safetensors", *options)
    check_refused(result.code, result.out, result.err, words)
    assert not (tmp_path / "o.safetensors").exists()


def test_bad_scan_files(run: Run, tmp_path: Path) -> None:
    """What is no scan file is refused by rank and report."""
    bad = tmp_path / "s.json"
    for data, words in ((None, "no such file"), (b"{", "not JSON"), (b"[]", "not a scan file")):
        if data is not None:
            bad.write_bytes(data)
        for arguments in (("rank", bad), ("report", bad, "-o", tmp_path / "r.html")):
            result = run(*arguments)
            check_refused(result.code, result.out, result.err, words)
    assert not (tmp_path / "r.html").exists()


def test_a_full_disk(write: Write, tmp_path: Path) -> None:
    """A real file system of 64 KiB and a model of 400 KB: one sentence, exit code 1, nothing left."""
    a = write("a.safetensors", {"w.weight": np.ones(100_000, np.float32)})
    b = write("b.safetensors", {"w.weight": np.zeros(100_000, np.float32)})
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small tmpfs needs Linux and root")
    command = [
        sys.executable,
        "-I",
        "-m",
        "analyzer",
        "merge",
        a,
        b,
        "-o",
        disk / "o.safetensors",
        "--alpha",
        "0.5",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        left = list(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    check_refused(done.returncode, done.stdout, done.stderr, "disk is full")
    assert [] == left


def test_hostile_names_do_not_reach_the_terminal(run: Run, write: Write) -> None:
    """Escape sequences in key names are spelled out in tables and messages."""
    name = "evil\x1b[31m\x07.weight"
    a = write("a.safetensors", {name: np.ones(4, np.float32), "only\x1b[2J": np.ones(1, np.float32)})
    b = write("b.safetensors", {name: np.full(4, np.nan, np.float32)})
    result = run("scan", a, b)
    plan = run("merge", a, b, "--alpha", 0.5, "--dry-run")
    for text in (result.out, result.err, plan.out, plan.err):
        assert "\x1b" not in text
        assert "\x07" not in text
    assert r"evil\x1b[31m" in plan.out


def test_help_answers_without_heavy_imports() -> None:
    """--help and --version import neither torch nor numpy nor numba nor plotly nor rich."""
    code = (
        "import sys, analyzer.cli\n"
        "sys.argv = ['mergescope', '--help']\n"
        "analyzer.cli.run()\n"
        "heavy = {'torch', 'numpy', 'numba', 'plotly', 'rich', 'scipy', 'jinja2'}\n"
        "sys.exit(','.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)


def test_a_scan_of_safetensors_does_without_torch(models: tuple[Path, Path], tmp_path: Path) -> None:
    """Its import alone takes longer than a small scan."""
    code = (
        "import sys, analyzer.cli\n"
        f"sys.argv = {['mergescope', 'scan', *map(str, models), '-o', str(tmp_path / 's.json')]!r}\n"
        "code = analyzer.cli.run()\n"
        "sys.exit('torch' if 'torch' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_merge_leaves_nothing(
    models: tuple[Path, Path], tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C and a polite kill while tensors are written: exit code 130, no OUT, no temporary file."""
    folder = tmp_path / "out"
    folder.mkdir()
    code = f"""
import os, signal, sys
import analyzer.cli
from analyzer import streaming

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell runs in the background
original = streaming.wait

def wait(*arguments, **options):
    print(os.listdir({str(folder)!r}))
    os.kill(os.getpid(), {int(number)})
    return original(*arguments, **options)

streaming.wait = wait
sys.argv = {["mergescope", "merge", *map(str, models), "-o", str(folder / "o.safetensors"), "--alpha=0.5"]!r}
analyzer.cli.main()
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert "[" in done.stdout  # it was caught in the act
    words = "Interrupted; no unfinished output was left behind.\n"
    assert (130, words) == (done.returncode, done.stderr.lstrip())
    assert [] == list(folder.iterdir())


def test_an_empty_selector_or_condition_is_no_permission(
    run: Run, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """`--only "$UNSET"` must not merge everything, nor `--fail-on ""` pass everything."""
    for arguments in (
        ("merge", *models, "-o", tmp_path / "o.safetensors", "--only", "", "--alpha", 0.5),
        ("scan", *models, "--only", ""),
        ("scan", *models, "--fail-on", ""),
    ):
        result = run(*arguments)
        check_refused(result.code, result.out, result.err, "empty|found the end")


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_a_closed_pipe_is_no_error(run: Run, models: tuple[Path, Path], tmp_path: Path) -> None:
    """`… | head` ends well, and --fail-on keeps its exit code."""
    scan = tmp_path / "s.json"
    run("scan", *models, "-o", scan)
    for arguments, expected in (
        (("rank", scan), 0),
        (("rank", scan, "--format", "csv"), 0),
        (("rank", scan, "--format", "json"), 0),
        (("scan", *models), 0),
        (("scan", *models, "--json", "--fail-on", "numel > 0"), 3),
        (("merge", *models, "--alpha", "0.5", "--dry-run"), 0),
    ):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-I", "-m", "analyzer", *map(str, arguments)]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
        os.close(writer)
        assert expected == done.returncode, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
        assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_a_terminal_of_another_encoding(models: tuple[Path, Path], encoding: str) -> None:
    """Signs that it lacks are replaced; nothing fails."""
    command = [sys.executable, "-m", "analyzer"]  # not -I, which ignores the variable
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    for arguments in (("scan", *models), ("merge", *models, "--alpha", "0.5", "--dry-run")):
        done = subprocess.run(
            [*command, *map(str, arguments)],
            capture_output=True,
            env=environment,
            cwd=models[0].parent,
            check=False,
        )
        assert (0, b"") == (done.returncode, done.stderr)
        assert b"attn2" in done.stdout


def test_outputs_of_one_scan_come_all_or_none(run: Run, models: tuple[Path, Path], tmp_path: Path) -> None:
    """One file for two outputs is refused; a page that cannot be written leaves no scan behind."""
    one = tmp_path / "x"
    result = run("scan", *models, "-o", one, "--csv", one)
    check_refused(result.code, result.out, result.err, "two outputs")
    result = run("scan", *models, "-o", tmp_path / "s.json", "--report", tmp_path / ("r" * 300))
    check_refused(result.code, result.out, result.err, "cannot be written|too long")
    assert sorted(models) == sorted(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="POSIX devices")
def test_devices_are_written_to_and_not_replaced(models: tuple[Path, Path], tmp_path: Path) -> None:
    """-o /dev/stdout prints the scan; a model is not written over a pipe."""
    command = [sys.executable, "-I", "-m", "analyzer"]
    scan = [*command, "scan", *map(str, models), "-q", "-o", "/dev/stdout"]
    done = subprocess.run(scan, capture_output=True, text=True, check=False)
    assert (0, "mergescope.scan") == (done.returncode, json.loads(done.stdout)["format"])
    pipe = tmp_path / "p.safetensors"
    os.mkfifo(pipe)
    merge = [*command, "merge", *map(str, models), "-o", str(pipe), "--alpha", "0.5", "--force"]
    done = subprocess.run(merge, capture_output=True, text=True, check=False)
    check_refused(done.returncode, done.stdout, done.stderr, "ordinary file")
    assert pipe.is_fifo()


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_file_names_that_are_not_utf8(models: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    """Scanned, reported and merged like any other."""
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff.safetensors"))
    odd.write_bytes(models[1].read_bytes())
    outputs = ("-o", tmp_path / "s.json", "--report", tmp_path / "r.html")
    assert 0 == run("scan", models[0], odd, *outputs).code
    assert 0 == run("merge", models[0], odd, "-o", tmp_path / "o.safetensors", "--alpha", 0.5).code
    assert len(load_file(models[0])) == len(load_file(tmp_path / "o.safetensors"))


def test_help_shows_its_examples_line_by_line(run: Run) -> None:
    """No marker of the help's layout reaches the user."""
    for command in ((), ("scan",), ("merge",)):
        text = run(*command, "--help").out
        assert "\\b" not in text
        assert "\b" not in text
    assert "\n  mergescope rank scan.json" in run("--help").out


def test_nan_taken_from_b_is_a_warning(run: Run, write: Write, tmp_path: Path) -> None:
    """Copied bytes are looked at too, in every format."""
    for kind in (np.float16, np.float32, np.float64):
        a = write("a.safetensors", {"w.weight": np.zeros(4, kind)})
        b = write("b.safetensors", {"w.weight": np.array([1, np.nan, -np.inf, 2], kind)})
        result = run("merge", a, b, "-o", tmp_path / "o.safetensors", "--alpha", 1, "--force")
        assert 0 == result.code
        assert "2 values of 'w.weight' are NaN or Inf" in result.err


def test_what_is_named_is_measured_like_any_other_key(run: Run, models: tuple[Path, Path]) -> None:
    """A scan of the schedule alone has findings, a ranking, and a --fail-on that works."""
    tensors = load_file(models[1])
    tensors["betas"] = tensors["betas"] * 2
    save_file(tensors, models[1])
    result = run("scan", *models, "--only", "schedule", "--fail-on", "relative_change > 0.5")
    assert 3 == result.code
    assert "schedule" in result.out
    everything = json.loads(run("scan", *models, "--json").out)
    shares = {row["key"]: row["statistics"]["energy_share"] for row in everything["keys"]}
    assert shares["betas"] is None
    assert 1 == pytest.approx(sum(share for share in shares.values() if share is not None))


def test_a_closed_standard_output(models: tuple[Path, Path]) -> None:
    """`>&-` is no reason to fail, and no traceback."""
    command = f"{sys.executable} -I -m analyzer scan {models[0]} {models[1]} >&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)


def test_what_is_no_file_of_numbers_is_not_read(run: Run, models: tuple[Path, Path]) -> None:
    """A device without end or a model given as block weights or as a scan is refused at once."""
    result = run("merge", *models, "--dry-run", "--block-weights", "/dev/zero")
    check_refused(result.code, result.out, result.err, "nor a readable file of numbers")
    result = run("rank", models[0])
    check_refused(result.code, result.out, result.err, "not a scan file")


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_the_ranking_fits_the_terminal(
    run: Run, models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """A narrow terminal loses statistics from the right, and no number is cut."""
    scan = tmp_path / "s.json"
    run("scan", *models, "-o", scan)
    whole = {word for line in run("rank", scan).out.splitlines()[1:] for word in line.split()[1:]}
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = run("rank", scan).out.splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[1].startswith("attn2 ")
    seen = {word for line in lines[1:] for word in line.split()[1:]}
    assert seen <= whole


def test_fail_on_needs_something_to_look_at(run: Run, write: Write, tmp_path: Path) -> None:
    """A gate of CI must not be green because no key could be compared; nothing is left behind."""
    a = write("a.safetensors", {"x.weight": np.ones((2, 3), np.float32)})
    b = write("b.safetensors", {"x.weight": np.ones((4, 6), np.float32)})
    out = tmp_path / "scan.json"
    result = run("scan", a, b, "--fail-on", "relative_change > 0", "-o", out)
    assert (1, False) == (result.code, out.exists())
    assert "the condition has nothing to look at: no key of" in result.err
