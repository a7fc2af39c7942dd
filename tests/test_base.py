"""A third model, the base: sums over both tasks against numpy, through files of any layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import PairingError
from analyzer.evaluation import evaluate
from analyzer.measures import TaskSums, add_sums
from analyzer.records import Pair, Run, Scan, TensorInfo
from analyzer.scan import scan
from analyzer.scanfile import load
from analyzer.statistics import STATISTICS
from analyzer.triples import pieces_of
from analyzer.verdicts import verdict
from analyzer.views import rows_of

Arrays = dict[str, np.ndarray]
Write = Callable[..., Path]
Unet = Callable[[int], Arrays]

# Tensors of Flux that are fused in Black Forest Labs' layout, and what they are in that of diffusers.
FLUX = {
    "double_blocks.0.img_attn.qkv": [f"transformer_blocks.0.attn.to_{word}" for word in "qkv"],
    "double_blocks.0.txt_attn.qkv": [f"transformer_blocks.0.attn.add_{word}_proj" for word in "qkv"],
    "double_blocks.1.img_attn.qkv": [f"transformer_blocks.1.attn.to_{word}" for word in "qkv"],
}
NEEDS_BASE = [name for name, statistic in STATISTICS.items() if statistic.needs == "base"]


def scan_files(a: Path, b: Path, base: Path, **options: object) -> Scan:
    """The scan of three files."""
    with open_checkpoint(a) as model_a, open_checkpoint(b) as model_b, open_checkpoint(base) as model_c:
        return scan(model_a, model_b, base=model_c, **options)  # type: ignore[arg-type]  # options of `scan`


def oracle(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> dict[str, float]:
    """The statistics that need a base, by numpy in fp64 over the positions that are finite everywhere."""
    kept = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    a, b, c = (x[kept].astype(np.float64) for x in (a, b, c))
    p, q = a - c, b - c
    size = np.abs(p) + np.abs(q)
    both, either = (p != 0) & (q != 0), (p != 0) | (q != 0)
    lengths = np.linalg.norm(p) * np.linalg.norm(q)
    assert lengths > 0
    cosine = p @ q / lengths
    return {
        "norm_task_a": float(np.linalg.norm(p)),
        "norm_task_b": float(np.linalg.norm(q)),
        "task_cosine": float(cosine),
        "sign_conflict_fraction": float((p * q < 0).sum() / both.sum()),
        "sign_conflict_expected": float(np.arccos(cosine) / np.pi),
        "conflict_mass": float(size[p * q < 0].sum() / size.sum()),
        "cancellation": float(1 - np.abs(p + q).sum() / size.sum()),
        "dominance": float(q @ q / (p @ p + q @ q)),
        "support_overlap": float(both.sum() / either.sum()),
    }


def trained(c: Arrays, seed: int, share: float) -> Arrays:
    """A model trained on from a base: a share of the values of every floating-point key moved."""
    rng = np.random.default_rng(seed)
    return {
        key: value
        if value.dtype.kind == "i"
        else (value + 0.1 * rng.standard_normal(value.shape) * (rng.random(value.shape) < share)).astype(
            value.dtype
        )
        for key, value in c.items()
    }


@pytest.fixture
def three(write: Write, unet: Unet) -> tuple[Arrays, Arrays, Arrays, tuple[Path, Path, Path]]:
    """A base, and two models that were trained on from it."""
    c = unet(1)
    a, b = trained(c, 2, 0.7), trained(c, 3, 0.5)
    paths = write("a.safetensors", a), write("b.safetensors", b), write("c.safetensors", c)
    return a, b, c, paths


def test_every_statistic_with_a_base_equals_numpy(
    three: tuple[Arrays, Arrays, Arrays, tuple[Path, Path, Path]],
) -> None:
    """All nine, of every key that counts and of all of them together."""
    a, b, c, paths = three
    result = scan_files(*paths)
    rows = [row for row in result.keys if row.labels.counted]
    assert len(rows) > 30
    for row in rows:
        sides = [arrays[row.key].reshape(-1) for arrays in (a, b, c)]
        got = evaluate(row.sums, total=row.sums)
        if row.sums.numel < 10:  # too few for both to have moved some
            continue
        for name, value in oracle(*sides).items():
            assert got[name] == pytest.approx(value, rel=1e-9, abs=1e-12), (row.key, name)
    everything = [np.concatenate([side[row.key].reshape(-1) for row in rows]) for side in (a, b, c)]
    whole = add_sums(row.sums for row in rows)
    expected = oracle(*everything)
    assert set(NEEDS_BASE) == set(expected)
    got = evaluate(whole, total=whole)
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-9), name


def test_a_base_changes_no_statistic_of_the_two(
    three: tuple[Arrays, Arrays, Arrays, tuple[Path, Path, Path]],
) -> None:
    """What is said of A and B is the same with a base, as long as that is finite."""
    *_, (a, b, c) = three
    with open_checkpoint(a) as model_a, open_checkpoint(b) as model_b:
        alone = scan(model_a, model_b)
    for one, other in zip(alone.keys, scan_files(a, b, c).keys, strict=True):
        expected, got = (evaluate(row.sums, total=row.sums) for row in (one, other))
        assert [got[n] for n in STATISTICS if n not in NEEDS_BASE] == [
            expected[n] for n in STATISTICS if n not in NEEDS_BASE
        ]
        assert one.row_cosines == other.row_cosines


def test_what_is_not_finite_in_the_base_leaves_every_sum(write: Write) -> None:
    """As in A or B; the counts of what is not finite are those of A and B alone."""
    rng = np.random.default_rng(4)
    a, b, c = rng.standard_normal((3, 1000)).astype(np.float32)
    a[1], b[2], c[3], c[4] = np.nan, np.inf, np.nan, -np.inf
    paths = (write(f"{name}.safetensors", {"w": x}) for name, x in (("a", a), ("b", b), ("c", c)))
    (row,) = scan_files(*paths).keys
    kept = np.setdiff1d(np.arange(1000), [1, 2, 3, 4])
    s = row.sums
    assert (1000, 996, 996, 1, 1) == (s.numel, s.n, s.numeric, s.nonfinite_a, s.nonfinite_b)
    assert s.sum_dd == pytest.approx(float(((b[kept].astype(float) - a[kept]) ** 2).sum()), rel=1e-12)
    assert s.task is not None
    assert 996 == s.task.n
    expected = oracle(a, b, c)
    assert evaluate(s, total=s)["task_cosine"] == pytest.approx(expected["task_cosine"], rel=1e-12)


def test_a_key_that_the_base_lacks_has_no_task_and_is_named(write: Write) -> None:
    """It is compared all the same; a group takes its task from the keys that have one."""
    rng = np.random.default_rng(5)
    a, b, c = ({f"layers.{i}.w": rng.standard_normal((8, 9)) for i in range(3)} for _ in range(3))
    del c["layers.1.w"]
    c["layers.2.w"] = rng.standard_normal((8, 7))
    result = scan_files(*(write(f"{n}.safetensors", x) for n, x in (("a", a), ("b", b), ("c", c))))
    tasks = {row.key: row.sums.task for row in result.keys}
    assert [True, False, False] == [task is not None for task in tasks.values()]
    assert all(row.sums.sum_dd > 0 for row in result.keys)
    (note,) = [note for note in result.notes if "the base" in note]
    assert "no tensor of their shape for layers.1.w, layers.2.w: " in note
    assert add_sums(row.sums for row in result.keys).task == tasks["layers.0.w"]


@pytest.mark.parametrize("rows", [(110, 110, 100), (110, 100, 105), (100, 100, 90), (100, 110, 110)], ids=str)
def test_rows_that_the_base_lacks_have_no_task(rows: tuple[int, int, int], write: Write) -> None:
    """Vocabularies that were made longer: tasks over the rows of all three, sums over those of two."""
    rng = np.random.default_rng(12)
    whole = rng.standard_normal((3, 110, 24)).astype(np.float32)
    paths, sides = [], []
    for name, count, values in zip("abc", rows, whole, strict=True):
        embedding = values[:count]
        sides.append(embedding)
        layer = {"model.layers.0.mlp.down_proj.weight": values[:24], "model.norm.weight": values[0]}
        paths.append(
            write(
                f"{name}.safetensors", {"model.embed_tokens.weight": np.ascontiguousarray(embedding), **layer}
            )
        )
    result = scan_files(*paths)
    row = next(row for row in result.keys if "embed_tokens" in row.key)
    both, common = min(rows[:2]), min(rows)
    assert both * 24 == row.sums.n
    assert row.sums.task is not None
    assert common * 24 == row.sums.task.n
    got = evaluate(row.sums, total=row.sums)
    for name, value in oracle(*(side[:common].reshape(-1) for side in sides)).items():
        assert got[name] == pytest.approx(value, rel=1e-9), name
    noted = [note for note in result.notes if "only some rows" in note]
    assert (both > common) == bool(noted)


def test_a_base_that_is_not_finite_makes_no_change_of_a_cast(write: Write) -> None:
    """fp32 against its own fp16 save: a NaN in the base changes no verdict; another value there does."""
    rng = np.random.default_rng(13)
    a, c = rng.standard_normal((2, 50, 20)).astype(np.float32)
    b = a.astype(np.float16)
    c[3, 4] = np.nan
    paths = [write(f"{n}.safetensors", {"w": x}) for n, x in (("a", a), ("b", b), ("c", c))]
    (row,) = scan_files(*paths).keys
    assert "cast" == verdict(row.sums)
    b[3, 4] = 7.0
    (row,) = scan_files(paths[0], write("b2.safetensors", {"w": b}), paths[2]).keys
    assert "changed" == verdict(row.sums)


def test_dtypes_of_the_three_may_differ(write: Write) -> None:
    """Each is widened exactly from what it is stored as."""
    rng = np.random.default_rng(6)
    c = rng.standard_normal((40, 50))
    a, b = (c + 0.1 * rng.standard_normal(c.shape) for _ in range(2))
    stored = a.astype(np.float16), b.astype(np.float32), c
    paths = [write(f"{n}.safetensors", {"w": x}) for n, x in zip("abc", stored, strict=True)]
    (row,) = scan_files(*paths).keys
    got = evaluate(row.sums, total=row.sums)
    for name, value in oracle(*(x.reshape(-1) for x in stored)).items():
        assert got[name] == pytest.approx(value, rel=1e-9), name


@pytest.mark.parametrize("fused", ["abc", "a", "b", "c", "ab", "ac", "bc", ""])
def test_fused_and_split_tensors_in_any_of_the_three(fused: str, write: Write) -> None:
    """A base may be split where the models are fused: the same sums over the same elements."""
    rng = np.random.default_rng(7)
    c = {key: rng.standard_normal((64 * len(parts), 64)) for key, parts in FLUX.items()}
    sides = {"c": c, **{n: {k: v + 0.1 * rng.standard_normal(v.shape) for k, v in c.items()} for n in "ab"}}
    paths = []
    for name, tensors in sides.items():
        stored = dict(tensors)
        if name not in fused:
            stored = {
                part: rows
                for key, parts in FLUX.items()
                for part, rows in zip(parts, np.split(tensors[key], len(parts)), strict=True)
            }
        paths.append(write(f"{name}.safetensors", {f"{k}.weight": v for k, v in stored.items()}))
    path_c, path_a, path_b = paths
    result = scan_files(path_a, path_b, path_c)
    assert (len(FLUX) if "a" in fused else 9) == len(result.keys)
    assert all(row.sums.task is not None for row in (*result.keys, *result.virtual))
    whole = add_sums(row.sums for row in result.keys)
    got = evaluate(whole, total=whole)
    flat = [np.concatenate([x.reshape(-1) for x in sides[n].values()]) for n in "abc"]
    for name, value in oracle(*flat).items():
        assert got[name] == pytest.approx(value, rel=1e-9), name


def test_a_model_that_is_its_base_has_no_direction(write: Write) -> None:
    """Its task is zero: cosine, conflicts and overlap are undefined or nothing, the other's task is all."""
    rng = np.random.default_rng(8)
    c, b = rng.standard_normal((2, 30, 30))
    paths = [write(f"{n}.safetensors", {"w": x}) for n, x in (("a", c), ("b", b), ("c", c))]
    (row,) = scan_files(*paths).keys
    got = {name: evaluate(row.sums, total=row.sums)[name] for name in NEEDS_BASE}
    assert (0.0, None, None, 1.0, 0.0) == (
        got["norm_task_a"],
        got["task_cosine"],
        got["sign_conflict_fraction"],
        got["dominance"],
        got["support_overlap"],
    )


def test_integers_have_no_task(write: Write) -> None:
    """They are compared for equality, base or not."""
    ids = {"position_ids": np.arange(77)[None], "w": np.ones((2, 2), np.float32)}
    paths = [write(f"{n}.safetensors", ids) for n in "abc"]
    by_key = {row.key: row.sums.task for row in scan_files(*paths).keys}
    assert by_key["position_ids"] is None
    assert by_key["w"] == TaskSums(n=4)


def test_a_base_with_nothing_in_common_is_an_error(write: Write) -> None:
    """It is no base of these models: the message names it."""
    w = np.ones((4, 4), np.float32)
    a, b = write("a.safetensors", {"w": w}), write("b.safetensors", {"w": w})
    c = write("other.safetensors", {"v": w})
    with pytest.raises(PairingError, match=r"other\.safetensors"):
        scan_files(a, b, c)


@pytest.mark.parametrize("threads", [1, 3])
def test_three_files_give_the_same_on_any_number_of_threads(threads: int, write: Write) -> None:
    """Chunks of all three come in any order and add to the same sums."""
    rng = np.random.default_rng(9)
    sides = rng.standard_normal((3, 3, 150_000)).astype(np.float32)
    paths = [write(f"{n}.safetensors", {"w": x}) for n, x in zip("abc", sides, strict=True)]
    (one,), (other,) = scan_files(*paths, threads=1).keys, scan_files(*paths, threads=threads).keys
    assert one == other


def test_the_command_takes_a_base_and_says_which(
    three: tuple[Arrays, Arrays, Arrays, tuple[Path, Path, Path]], tmp_path: Path, run: Callable[..., Any]
) -> None:
    """`scan --base C -o`, then a ranking by what needs it."""
    *_, (a, b, c) = three
    out = tmp_path / "scan.json"
    assert 0 == run("scan", a, b, "--base", c, "-o", out).code
    assert load(out).base == scan_files(a, b, c).base
    assert 0 == run("rank", out, "--by", "task_cosine").code


def test_a_statistic_that_needs_a_base_is_refused_before_the_scan(
    three: tuple[Arrays, Arrays, Arrays, tuple[Path, Path, Path]], run: Callable[..., Any]
) -> None:
    """The message says which option to add."""
    *_, (a, b, _) = three
    result = run("scan", a, b, "--fail-on", "task_cosine < 0")
    assert 1 == result.code
    assert "--base C" in result.err


def test_the_base_is_an_input_that_no_output_may_replace(
    three: tuple[Arrays, Arrays, Arrays, tuple[Path, Path, Path]], run: Callable[..., Any]
) -> None:
    """Written over it would be gone."""
    *_, (a, b, c) = three
    before = c.read_bytes()
    assert 1 == run("scan", a, b, "--base", c, "-o", c).code
    assert before == c.read_bytes()


def test_pieces_lie_at_the_same_elements_on_all_sides() -> None:
    """Rows 2 … 5 of a tensor whose base is one, and one cut after row 3: every piece names its place."""
    a, b, c = (TensorInfo(name, "F32", (6, 4), 0, 96) for name in "abc")
    run = Run(rows_of(a, 2, 6), rows_of(b, 2, 6), start=8)
    (whole,) = pieces_of(run, Pair(a, c))
    assert (16, 0, 0, 8) == (whole.count, whole.at_a, whole.at_b, whole.at_c)
    parts = tuple(Run(rows_of(a, *cut), rows_of(c, *cut), start=4 * cut[0]) for cut in ((0, 3), (3, 6)))
    first, second = pieces_of(run, Pair(a, c, runs=parts))
    assert (4, 0, 0, 8) == (first.count, first.at_a, first.at_b, first.at_c)
    assert (12, 4, 4, 0) == (second.count, second.at_a, second.at_b, second.at_c)
