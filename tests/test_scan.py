"""The scan of whole models, against numpy in fp64 on the tensors as the reference library reads them."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import struct
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import CheckpointError
from analyzer.evaluation import evaluate
from analyzer.kernels.backends import SCAN_CHUNK
from analyzer.kinship import kinship
from analyzer.measures import SUM_FIELDS, Sums, add_sums
from analyzer.measuring import Models, Piece, measure_pieces
from analyzer.ranking import rank, total
from analyzer.records import KeyScan, Labels, Scan, ShapeMismatch
from analyzer.scan import scan
from analyzer.statistics import STATISTICS

REAL = Path(__file__).resolve().parents[2] / "shared" / "real"
V5, V6 = REAL / "silero_vad_v5.safetensors", REAL / "silero_vad_v6.safetensors"

Arrays = dict[str, np.ndarray]
Write = Callable[..., Path]
Unet = Callable[[int], Arrays]

CLIP = "cond_stage_model.transformer.text_model"
POSITIONS = f"{CLIP}.embeddings.position_ids"
DENOISER = "model.diffusion_model"
CONV_IN = f"{DENOISER}.input_blocks.0.0.weight"
EMA_TWIN = "model_ema.diffusion_modelinput_blocks00weight"
# What tells SD 1.x from SDXL: attention to the text in the tenth output block and beyond.
TELLING = f"{DENOISER}.output_blocks.9.1.transformer_blocks.0.attn2.to_k.weight"


def scan_files(path_a: str | Path, path_b: str | Path, **options: object) -> Scan:
    """The scan of two files, without the moment at which it was made."""
    with open_checkpoint(path_a) as a, open_checkpoint(path_b) as b:
        return replace(scan(a, b, **options), created="")  # type: ignore[arg-type]  # options of `scan`


def header_order(path: Path) -> list[str]:
    """The keys of a safetensors file in the order in which its header has them."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return [key for key in json.loads(raw[8 : 8 + length]) if key != "__metadata__"]


def oracle(pairs: Iterable[tuple[np.ndarray, np.ndarray]], *, whole_dd: float) -> dict[str, float | None]:
    """The contract's statistics of floating-point tensors taken together, by numpy in fp64."""
    stored = [(a.reshape(-1), b.reshape(-1)) for a, b in pairs]
    a = np.concatenate([x for x, _ in stored]).astype(np.float64)
    b = np.concatenate([y for _, y in stored]).astype(np.float64)
    spacing = np.concatenate([np.spacing(np.abs(x)).astype(np.float64) for x, _ in stored])
    ulp = np.where(a == 0, 0.0, spacing)  # the distance to the next number in A's own dtype
    d = b - a
    norm_a, norm_b, norm_delta = np.linalg.norm(a), np.linalg.norm(b), np.linalg.norm(d)
    wide_a, wide_b = a.astype(np.longdouble), b.astype(np.longdouble)
    cosine = (wide_a @ wide_b) / (np.sqrt(wide_a @ wide_a) * np.sqrt(wide_b @ wide_b))
    floor = np.sqrt(np.sum(ulp**2) / 12)
    values = {
        "numel": a.size,
        "norm_a": norm_a,
        "norm_b": norm_b,
        "norm_ratio": norm_b / norm_a,
        "cosine_distance": 1 - cosine,
        "cosine": cosine,
        "norm_delta": norm_delta,
        "relative_change": norm_delta / norm_a,
        "rms_delta": np.sqrt(np.mean(d**2)),
        "mean_abs_delta": np.mean(np.abs(d)),
        "max_abs_delta": np.max(np.abs(d)),
        "mean_a": a.mean(),
        "mean_b": b.mean(),
        "std_a": a.std(),
        "std_b": b.std(),
        "changed_fraction": np.mean(a != b),
        "sign_flip_fraction": np.mean(a * b < 0),
        "nonfinite_a": 0,
        "nonfinite_b": 0,
        "rounding_floor": floor,
        "change_to_rounding": norm_delta / floor,
        "energy_share": np.sum(d**2) / whole_dd,
        "radial_share": (norm_b - norm_a) ** 2 / norm_delta**2 if norm_delta else None,
        "directional_share": 1 - (norm_b - norm_a) ** 2 / norm_delta**2 if norm_delta else None,
    }
    return {name: None if value is None else float(value) for name, value in values.items()}


# What a scan of two files measures of every key and group, but for what is estimated from a histogram.
MEASURED = {name for name, s in STATISTICS.items() if not s.needs and not s.of_key} - {"top_energy_share"}


def check(expected: dict[str, float | None], got: dict[str, float | None]) -> None:
    """Every statistic within a relative 1e-6; the floors lie far below what fp64 resolves here."""
    assert set(expected) == MEASURED
    assert set(STATISTICS) == set(got)
    for name, value in expected.items():
        floor = 1e-12 if name in ("cosine", "cosine_distance") else 1e-15
        want = value if value is None else pytest.approx(value, rel=1e-6, abs=floor)
        assert got[name] == want, name


def change(a: Arrays, b: Arrays, keys: Iterable[str]) -> float:
    """Σd² over some keys."""
    return float(sum(np.sum((b[k].astype(np.float64) - a[k].astype(np.float64)) ** 2) for k in keys))


@pytest.fixture(scope="module")
def silero() -> tuple[Scan, Arrays, Arrays]:
    """Two generations of a voice detector: their scan and their tensors."""
    if not (V5.exists() and V6.exists()):
        pytest.skip("the real pair lies beside the repository, and is not here")
    return scan_files(V5, V6), load_file(V5), load_file(V6)


def check_keys(result: Scan, a: Arrays, b: Arrays) -> None:
    """Every statistic of every counted key, each against numpy on that key's tensors."""
    rows = [row for row in result.keys if row.labels.counted]
    assert rows
    everything = change(a, b, [row.key for row in rows])
    whole = total(result.keys)
    for row in rows:
        expected = oracle([(a[row.key], b[row.key])], whole_dd=everything)
        check(expected, evaluate(row.sums, total=whole))


def test_every_statistic_of_a_real_pair_equals_numpy(silero: tuple[Scan, Arrays, Arrays]) -> None:
    """All statistics of all 30 keys of two voice detectors."""
    result, a, b = silero
    assert sorted(a) == sorted(row.key for row in result.keys if row.labels.counted)
    check_keys(result, a, b)


def test_groups_of_a_real_pair_equal_numpy_over_their_keys(silero: tuple[Scan, Arrays, Arrays]) -> None:
    """A component's statistics are those of its tensors laid end to end, not the mean of its keys'."""
    result, a, b = silero
    keys = defaultdict(list)
    for row in result.keys:
        keys[f"component:{row.labels.group}"].append(row.key)
    groups = {row.selector: row for row in rank(result)}
    assert sorted(keys) == sorted(groups)
    for selector, members in keys.items():
        expected = oracle([(a[k], b[k]) for k in members], whole_dd=change(a, b, a))
        check(expected, dict(groups[selector].statistics))
        assert len(members) == groups[selector].keys


def test_the_real_pairs_buffers_are_exactly_unchanged(silero: tuple[Scan, Arrays, Arrays]) -> None:
    """The two STFT buffers are the only keys with nothing changed, and that is exactly zero."""
    result, _, _ = silero
    unchanged = {row.key: row.sums for row in result.keys if row.sums.changed == 0}
    expected = {"_model.stft.forward_basis_buffer", "_model_8k.stft.forward_basis_buffer"}
    assert expected == set(unchanged)
    for sums in unchanged.values():
        assert (0.0, 0.0, 0) == (sums.sum_dd, sums.max_abs_d, sums.sign_flips)
        assert 0.0 == evaluate(sums, total=sums)["cosine_distance"]


def test_the_real_pair_was_trained_apart(silero: tuple[Scan, Arrays, Arrays]) -> None:
    """No training connects the two detectors, although they share every key."""
    name, cosine = kinship(silero[0])
    assert "unrelated" == name
    assert cosine == pytest.approx(0.0, abs=0.05)


@pytest.fixture
def pair(write: Write, unet: Unet) -> tuple[Path, Path]:
    """A small Stable Diffusion and another with everything that can differ beside the values."""
    a, b = unet(1), unet(2)
    a[TELLING], b[TELLING] = (np.full((4, 6), x, np.float16) for x in (0.5, 0.25))
    a["only.in.a"], b["only.in.b"] = np.ones(2, np.float32), np.ones(3, np.float32)
    a["reshaped"], b["reshaped"] = np.ones((2, 3), np.float32), np.ones((3, 2), np.float32)
    a["v_pred"], b["v_pred"] = np.empty(0, np.float32), np.empty(0, np.float32)
    a[EMA_TWIN], b[EMA_TWIN] = (np.full((4, 4, 3, 3), x, np.float16) for x in (1.0, 100.0))
    b[POSITIONS] = b[POSITIONS].copy()
    b[POSITIONS][0, 7] = 500
    return write("a.safetensors", a), write("b.safetensors", b)


def by_key(result: Scan) -> dict[str, KeyScan]:
    """The rows of a scan by A's raw names."""
    return {row.key: row for row in result.keys}


def test_one_row_for_every_pair_in_the_order_of_a(pair: tuple[Path, Path]) -> None:
    """`keys` are the paired tensors in A's header order; what has no counterpart is listed beside."""
    result = scan_files(*pair)
    common = [key for key in header_order(pair[0]) if key not in ("only.in.a", "reshaped")]
    assert common == [row.key for row in result.keys]
    assert common == [row.key_b for row in result.keys]
    assert (("only.in.a",), ("only.in.b",)) == (result.only_in_a, result.only_in_b)
    assert (ShapeMismatch("reshaped", (2, 3), (3, 2)),) == result.shape_mismatch


def test_rows_carry_shapes_dtypes_and_labels(pair: tuple[Path, Path]) -> None:
    """What the headers say stands in every row, and where the key lies in the architecture."""
    result = scan_files(*pair)
    arrays = load_file(pair[0])
    for row in result.keys:
        assert (arrays[row.key].shape, arrays[row.key].size) == (row.shape, row.sums.numel)
    attention = by_key(result)[f"{DENOISER}.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"]
    group = "transformer_blocks/attn2"
    assert Labels("unet", "IN02", f"{group}/to_k", "weight", group) == attention.labels
    assert ("F16", "F16") == (attention.dtype_a, attention.dtype_b)
    assert "I64" == by_key(result)[POSITIONS].dtype_a


def test_integer_keys_are_compared_and_never_averaged(pair: tuple[Path, Path]) -> None:
    """One of 77 positions differs: a fraction and no norm, no mean, no cosine."""
    sums = by_key(scan_files(*pair))[POSITIONS].sums
    got = {name: value for name, value in evaluate(sums, total=sums).items() if value is not None}
    expected = {"numel": 77, "changed_fraction": 1 / 77, "nonfinite_a": 0, "nonfinite_b": 0}
    assert expected == got


def test_integers_against_floats_are_compared_by_value(write: Write) -> None:
    """A tool that saved position_ids as fp32 changed no value; on either side, and without any sum."""
    ids = np.arange(77)
    whole = write("whole.safetensors", {"ids": ids})
    real = write("real.safetensors", {"ids": np.where(ids == 3, 4, ids).astype(np.float32)})
    for paths in ((whole, real), (real, whole)):
        (row,) = scan_files(*paths).keys
        assert Sums(numel=77, n=77, changed=1) == row.sums


def test_an_empty_marker_has_a_row_and_nothing_defined(pair: tuple[Path, Path]) -> None:
    """`v_pred` has no elements: counts of zero, all else undefined."""
    row = by_key(scan_files(*pair))["v_pred"]
    got = {name: value for name, value in evaluate(row.sums, total=row.sums).items() if value is not None}
    assert {"numel": 0, "nonfinite_a": 0, "nonfinite_b": 0} == got
    assert ("marker", False) == (row.labels.component, row.labels.counted)


def test_totals_leave_out_what_does_not_count(pair: tuple[Path, Path]) -> None:
    """EMA copies, schedules, markers and integers have rows and enter no total."""
    result = scan_files(*pair)
    uncounted = {POSITIONS, "betas", "v_pred", EMA_TWIN}
    assert uncounted == {row.key for row in result.keys if not row.labels.counted}
    a, b = load_file(pair[0]), load_file(pair[1])
    keys = [row.key for row in result.keys if row.key not in uncounted]
    whole = total(result.keys)
    expected = oracle([(a[k], b[k]) for k in keys], whole_dd=change(a, b, keys))
    check(expected, evaluate(whole, total=whole))


def test_every_statistic_of_a_half_precision_pair_equals_numpy(pair: tuple[Path, Path]) -> None:
    """The same as for the real pair, in fp16 and under the names of SD 1.5."""
    check_keys(scan_files(*pair), load_file(pair[0]), load_file(pair[1]))


@pytest.fixture
def large(write: Write) -> tuple[Path, Path]:
    """Tensors of more than one chunk, of exactly one chunk, and of a few elements, in two dtypes."""
    rng = np.random.default_rng(21)
    shapes = {"w.0": 2 * SCAN_CHUNK + 3, "w.1": SCAN_CHUNK, "w.2": SCAN_CHUNK + 1, "w.3": 7}
    a = {key: rng.standard_normal(size, np.float32) for key, size in shapes.items()}
    b = {key: x + np.float32(0.01) * rng.standard_normal(x.size, np.float32) for key, x in a.items()}
    halved = {key: x.astype(np.float16) for key, x in a.items()}
    return write("a.safetensors", halved), write("b.safetensors", b)


def test_a_tensor_of_several_chunks_equals_numpy(large: tuple[Path, Path]) -> None:
    """The sums of two million elements, cut into chunks, are those of the whole tensor."""
    a, b = (load_file(path) for path in large)
    assert a["w.0"].size > 2 * SCAN_CHUNK
    check_keys(scan_files(*large), a, b)


def test_the_result_does_not_depend_on_threads(large: tuple[Path, Path], pair: tuple[Path, Path]) -> None:
    """One, two and five threads give the same scan, bit for bit."""
    for paths in (large, pair):
        results = [scan_files(*paths, threads=threads) for threads in (1, 2, 5)]
        assert results[0] == results[1]
        assert results[0] == results[2]


def test_only_measures_what_is_selected(pair: tuple[Path, Path]) -> None:
    """`only` keeps A's order and the very sums of a full scan; nothing else is read."""
    seen: list[tuple[int, int]] = []
    result = scan_files(*pair, only="attn2,weight", progress=lambda *step: seen.append(step))
    full = scan_files(*pair)
    expected = tuple(row for row in full.keys if ".attn2." in row.key and row.key.endswith("weight"))
    assert 7 == len(expected)
    assert expected == result.keys
    assert 2 * 2 * sum(row.sums.numel for row in expected) == seen[-1][1]  # two files, two bytes each


def test_progress_rises_to_the_bytes_of_both_files(pair: tuple[Path, Path]) -> None:
    """Bytes done never fall, never exceed the total, and end at the size of all paired tensors."""
    seen: list[tuple[int, int]] = []
    result = scan_files(*pair, progress=lambda *step: seen.append(step))
    a, b = load_file(pair[0]), load_file(pair[1])
    expected = sum(a[row.key].nbytes + b[row.key].nbytes for row in result.keys)
    assert {expected} == {size for _, size in seen}
    assert sorted(done for done, _ in seen) == [done for done, _ in seen]
    assert expected == seen[-1][0]


def test_memory_does_not_grow_with_the_models(write: Write) -> None:
    """Eight times the tensor takes no more memory than its list of chunks: two buffers a thread."""

    def peak(chunks: int) -> int:
        path = write(f"{chunks}.safetensors", {"w": np.ones(chunks * SCAN_CHUNK, np.float16)})
        scan_files(path, path, threads=1)  # imports and compilation are not what is measured
        tracemalloc.start()
        try:
            scan_files(path, path, threads=1)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small, big = peak(3), peak(24)
    assert big < small + (1 << 18)
    assert big < 24 * SCAN_CHUNK  # half of one of the two tensors


def test_a_torch_pickle_against_safetensors(tmp_path: Path, write: Write, unet: Unet) -> None:
    """Containers mix: the rows come in the pickle's own order, with the numbers of the tensors."""
    a, b = unet(1), unet(2)
    backwards = {key: torch.from_numpy(array) for key, array in reversed(a.items())}
    torch.save({"state_dict": backwards, "epoch": 3}, tmp_path / "a.ckpt")
    result = scan_files(tmp_path / "a.ckpt", write("b.safetensors", b))
    plain = scan_files(write("a.safetensors", a), write("b.safetensors", b))
    assert list(backwards) == [row.key for row in result.keys]
    assert by_key(plain) == by_key(result)


def test_non_finite_values_are_counted_and_left_out(write: Write) -> None:
    """A NaN and an Inf leave every sum, on both sides; the other positions are measured as ever."""
    a, b = np.arange(1, 9, dtype=np.float32), np.arange(2, 10, dtype=np.float32)
    a[2], b[5] = np.nan, np.inf
    path_a, path_b = write("a.safetensors", {"w": a}), write("b.safetensors", {"w": b})
    (row,) = scan_files(path_a, path_b).keys
    kept = [0, 1, 3, 4, 6, 7]
    s = row.sums
    assert (8, 6, 6, 1, 1) == (s.numel, s.n, s.numeric, s.nonfinite_a, s.nonfinite_b)
    assert (a[kept].sum(), b[kept].sum(), 6.0) == (s.sum_a, s.sum_b, s.sum_dd)


def test_a_file_that_shrinks_while_it_is_read_is_an_error(large: tuple[Path, Path]) -> None:
    """A read error in a worker reaches the caller, naming the file."""
    with open_checkpoint(large[0]) as a, open_checkpoint(large[1]) as b:
        os.truncate(large[1], large[1].stat().st_size // 2)
        with pytest.raises(CheckpointError, match=r"b\.safetensors: ended early"):
            scan(a, b, threads=2)


def test_the_scan_says_what_was_compared(pair: tuple[Path, Path], write: Write, tmp_path: Path) -> None:
    """Path, size, keys, dtypes and architecture of each model; when and by which tool."""
    stranger = write("b2.safetensors", {CONV_IN: np.ones((4, 4, 3, 3), np.float16)})
    with open_checkpoint(pair[0]) as a, open_checkpoint(stranger) as b:
        result = scan(a, b)
    arrays = load_file(pair[0])
    assert (str(pair[0]), pair[0].stat().st_size) == (result.a.path, result.a.bytes)
    assert len(arrays) == result.a.keys
    sizes: dict[str, int] = defaultdict(int)
    for array in arrays.values():
        sizes[{"float16": "F16", "float32": "F32", "int64": "I64"}[array.dtype.name]] += array.size
    assert sizes == result.a.dtypes
    assert ("sd1", "generic") == (result.a.architecture, result.b.architecture)
    assert ["IN00", "IN01"] == list(result.blocks[:2])
    assert result.tool.startswith("mergescope ")
    assert datetime.timedelta(0) == datetime.datetime.fromisoformat(result.created).utcoffset()
    copy = shutil.copy(pair[0], tmp_path / "elsewhere.safetensors")
    assert result.a.fingerprint == scan_files(copy, pair[1]).a.fingerprint
    assert result.a.fingerprint != result.b.fingerprint


def test_pairs_are_measured_in_the_order_asked_for(pair: tuple[Path, Path]) -> None:
    """Reading forward on the disk does not change whose sums are whose."""
    with open_checkpoint(pair[0]) as a, open_checkpoint(pair[1]) as b:
        pieces = [
            Piece(info, b.infos[key], None, info.numel) for key, info in a.infos.items() if ".attn" in key
        ]
        models = Models(a, b)
        forward = [found.sums for found in measure_pieces(models, pieces)]
        backward = [found.sums for found in measure_pieces(models, pieces[::-1])]
    assert len({sums.sum_dd for sums in forward}) > 5
    assert forward[::-1] == backward


def test_scans_of_shards_add_to_the_scan_of_the_whole(write: Write) -> None:
    """However keys are dealt to files, and a key to keys: one record, to 1e-12 of itself."""
    rng = np.random.default_rng(21)
    a = {f"layers.{i}.mlp.weight": rng.standard_normal((60, 50 + i)).astype(np.float16) for i in range(8)}
    b = {key: (value + 0.1 * rng.standard_normal(value.shape)).astype(np.float16) for key, value in a.items()}
    a["layers.3.mlp.weight"][5, 5] = np.nan
    whole = total(scan_files(write("a.safetensors", a), write("b.safetensors", b)).keys)
    shards = []
    for i in range(3):
        names = sorted(a)[i::3]
        paths = (write(f"{n}{i}.safetensors", {k: x[k] for k in names}) for n, x in (("a", a), ("b", b)))
        shards.append(total(scan_files(*paths).keys))
    halves = [
        {f"{key}.{part}": rows for key, value in x.items() for part, rows in enumerate(np.split(value, 2))}
        for x in (a, b)
    ]
    split = total(scan_files(*(write(f"h{i}.safetensors", half) for i, half in enumerate(halves))).keys)
    for other in (add_sums(shards), add_sums(shards[::-1]), split):
        for name in SUM_FIELDS:
            value = getattr(whole, name)
            got = getattr(other, name)
            assert got == (value if isinstance(value, int) else pytest.approx(value, rel=1e-12, abs=1e-10)), (
                name
            )
        assert whole.histogram.counts == other.histogram.counts
