"""Stable rank, rank for 90 % and top share of changes, against a full singular value decomposition."""

from __future__ import annotations

from pathlib import Path

import changes
import numpy as np
import pytest
import torch

import analyzer.spectrum
from analyzer.checkpoints import open_checkpoint
from analyzer.measures import Sums
from analyzer.records import Pair, Run, Spectrum, TensorInfo
from analyzer.spectrum import Cost, describe_cost, estimate, measure_spectra
from analyzer.views import rows_of, transposed

HALF, SINGLE, DOUBLE = torch.float16, torch.float32, torch.float64
RANGE_SHAPE = (840, 900)  # as small as the subspace of the range finder allows
TOLERANCE = 0.01  # of the stable rank beyond `GRAM_SIZE`, as documented


@pytest.fixture
def by_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let matrices of hundreds of rows go where those of thousands go."""
    monkeypatch.setattr(analyzer.spectrum, "GRAM_SIZE", 100)


def random_pair(
    shape: tuple[int, ...], dtype: torch.dtype, *, seed: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two tensors whose difference is noise of a tenth of their size."""
    a = changes.weights(shape, seed=seed)
    return changes.stored(a, dtype), changes.stored(
        a + changes.weights(shape, seed=seed + 1, size=0.002), dtype
    )


def assert_exact(spectrum: Spectrum, squares: np.ndarray) -> None:
    expected = Spectrum(squares.sum() / squares[0], None, squares[0] / squares.sum(), None)
    assert expected.stable_rank == pytest.approx(spectrum.stable_rank, rel=1e-6)
    assert expected.top_singular_share == pytest.approx(spectrum.top_singular_share, rel=1e-6)
    assert changes.rank_90_of(squares) == spectrum.rank_90


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE, HALF, torch.bfloat16, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("shape", [(60, 300), (300, 60), (7, 7)])
def test_small_matrices_are_exact(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    """Up to `GRAM_SIZE`, all numbers are those of a full decomposition, in any dtype."""
    a, b = random_pair(shape, dtype)
    assert_exact(changes.spectrum_of(tmp_path, a, b), changes.squares_of(a, b))


@pytest.mark.parametrize("shape", [(40, 16, 3, 3), (16, 40, 1, 1), (8, 4, 2, 3, 3), (1, 77), (77, 1)])
def test_any_shape_is_a_matrix_of_out_by_rest(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Convolutions, single rows and single columns have a spectrum too."""
    a, b = random_pair(shape, SINGLE)
    assert_exact(changes.spectrum_of(tmp_path, a, b), changes.squares_of(a, b))


def test_sides_of_different_dtypes(tmp_path: Path) -> None:
    """fp32 against fp16, and bf16 against fp8, are widened before they are subtracted."""
    a, b = random_pair((50, 70), DOUBLE)
    for one, two in ((SINGLE, HALF), (torch.bfloat16, torch.float8_e4m3fn)):
        x, y = a.to(one), b.to(two)
        assert_exact(changes.spectrum_of(tmp_path, x, y), changes.squares_of(x, y))


@pytest.mark.parametrize("size", [1e-150, 1e-30, 1e30, 1e150])
def test_any_size_of_the_numbers(tmp_path: Path, size: float) -> None:
    """Squares that would leave the range of fp32, or of fp64, do not."""
    a, b = (t * size for t in random_pair((30, 40), DOUBLE))
    unit = changes.spectrum_of(tmp_path, *random_pair((30, 40), DOUBLE))
    found = changes.spectrum_of(tmp_path, a, b)
    assert unit.stable_rank == pytest.approx(found.stable_rank, rel=1e-6)
    assert unit.rank_90 == found.rank_90


def test_differences_of_large_numbers_in_fp32(tmp_path: Path) -> None:
    """A difference beyond 2^60 is formed in fp64: fp32 would overflow where the signs differ."""
    a = torch.full((3, 4), 3e38, dtype=SINGLE)
    assert Spectrum(pytest.approx(1.0), 1, pytest.approx(1.0), 1) == changes.spectrum_of(tmp_path, a, -a)


def test_elements_that_are_not_finite_count_as_unchanged(tmp_path: Path) -> None:
    """NaN and Inf on either side leave the spectrum, as they leave the sums."""
    a, b = random_pair((30, 40), HALF)
    a[3, 4], a[5, 6], b[7, 8], b[9, 10] = torch.nan, torch.inf, torch.nan, -torch.inf
    assert_exact(changes.spectrum_of(tmp_path, a, b), changes.squares_of(a, b))


def test_what_has_no_spectrum(tmp_path: Path) -> None:
    """Vectors, scalars, integers, empty tensors and unchanged matrices have none."""
    a = {
        "vector": torch.ones(5),
        "scalar": torch.ones(()),
        "integers": torch.ones(3, 4, dtype=torch.int64),
        "empty": torch.ones(0, 4),
        "same": torch.ones(3, 4),
        "changed": torch.ones(3, 4),
    }
    b = {key: tensor.clone() if key == "same" else tensor + 1 for key, tensor in a.items()}
    found = changes.spectra_of(tmp_path, a, b)
    assert {"changed"} == {key for key, spectrum in found.items() if spectrum is not None}


def test_unchanged_matrices_are_not_read(tmp_path: Path) -> None:
    """Where the sums say that nothing changed, the file is left alone."""
    a = TensorInfo("w", "F32", (3, 4), 0, 48, source=99)
    assert [None] == measure_spectra(None, None, [Pair(a, a)], [Sums(numel=12, n=12, numeric=12)])  # type: ignore[arg-type]  # never opened


# --- Beyond GRAM_SIZE ---


SPECTRA = {
    "power": np.arange(1, 841) ** -0.7,
    "slow": np.exp(-np.arange(840) / 80),
    "steep": np.exp(-np.arange(840) / 5),
    "equal": [1.0] * 30,
    "equal and a tail": [1.0] * 200 + [0.02] * 640,
}


@pytest.mark.usefixtures("by_range")
@pytest.mark.parametrize("name", SPECTRA)
def test_large_matrices_are_close(tmp_path: Path, name: str) -> None:
    """Where singular values fall off or are few, the range finder finds them: within 1e-4 and one rank."""
    a = np.zeros(RANGE_SHAPE)
    b = changes.stored(a + changes.with_singular_values(*RANGE_SHAPE, SPECTRA[name], seed=2), SINGLE)
    a = changes.stored(a, SINGLE)
    squares, found = changes.squares_of(a, b), changes.spectrum_of(tmp_path, a, b)
    assert squares.sum() / squares[0] == pytest.approx(found.stable_rank, rel=1e-4)
    assert squares[0] / squares.sum() == pytest.approx(found.top_singular_share, rel=1e-4)
    assert found.rank_90 is not None
    assert 0 <= found.rank_90 - changes.rank_90_of(squares) <= 1


@pytest.mark.usefixtures("by_range")
@pytest.mark.parametrize("seed", range(3))
def test_noise_is_within_the_documented_tolerance(tmp_path: Path, seed: int) -> None:
    """The flattest spectrum there is: the largest value is never too large, and at most 1 % too small."""
    a, b = random_pair(RANGE_SHAPE, HALF, seed=seed)
    squares, found = changes.squares_of(a, b), changes.spectrum_of(tmp_path, a, b)
    exact = squares.sum() / squares[0]
    assert exact * (1 - 1e-6) <= found.stable_rank <= exact * (1 + TOLERANCE)
    assert 1.0 == pytest.approx(found.stable_rank * found.top_singular_share)


@pytest.mark.usefixtures("by_range")
def test_rank_90_is_none_above_the_cap(tmp_path: Path) -> None:
    """90 % of noise lie in hundreds of directions; up to the cap of 256 they are counted."""
    a, b = random_pair(RANGE_SHAPE, HALF)
    assert analyzer.spectrum.RANK_CAP < changes.rank_90_of(changes.squares_of(a, b))
    assert changes.spectrum_of(tmp_path, a, b).rank_90 is None
    zero = torch.zeros(RANGE_SHAPE)
    for count, expected in ((284, 256), (285, None)):  # of equal values, 0.9·count rounded up
        b = changes.stored(changes.with_singular_values(*RANGE_SHAPE, [1.0] * count, seed=3), SINGLE)
        found = changes.spectrum_of(tmp_path, zero, b).rank_90
        assert expected == (found if found is None else min(found, 256)), count


@pytest.mark.usefixtures("by_range")
@pytest.mark.parametrize("shape", [RANGE_SHAPE, RANGE_SHAPE[::-1]])
def test_a_matrix_that_is_not_held_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    """Whether it is held in memory, or read for each look, tells in the last bits of fp32 at most."""
    a, b = random_pair(shape, HALF)
    held = changes.spectrum_of(tmp_path, a, b)
    monkeypatch.setattr(analyzer.spectrum, "_HELD_AT_ONCE", 1000)
    monkeypatch.setattr(analyzer.spectrum, "_TILE_ELEMENTS", 100_000)
    found = changes.spectrum_of(tmp_path, a, b)
    assert held.stable_rank == pytest.approx(found.stable_rank, rel=1e-5)
    assert held.rank_90 == found.rank_90


@pytest.mark.parametrize("shape", [(20, 5000), (5000, 20)])
def test_long_matrices_are_read_by_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    """A matrix too large to be held is read by columns if it is wide, by rows if it is tall."""
    monkeypatch.setattr(analyzer.spectrum, "_HELD_AT_ONCE", 1000)
    monkeypatch.setattr(analyzer.spectrum, "_COLUMN_TILE_ELEMENTS", 9990)
    monkeypatch.setattr(analyzer.spectrum, "_TILE_ELEMENTS", 9990)
    a, b = random_pair(shape, HALF)
    assert_exact(changes.spectrum_of(tmp_path, a, b), changes.squares_of(a, b))


# --- Runs, views, order ---


@pytest.mark.parametrize("held", [0, 1 << 28])
def test_parts_of_a_fused_tensor_stand_on_top_of_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    """q, k and v of a fused tensor, each compared with a tensor of its own dtype, are one matrix."""
    monkeypatch.setattr(analyzer.spectrum, "_HELD_AT_ONCE", held)
    monkeypatch.setattr(analyzer.spectrum, "_COLUMN_TILE_ELEMENTS", 100)
    a, b = random_pair((30, 64), SINGLE)
    dtypes = dict(zip("qkv", (SINGLE, HALF, torch.bfloat16), strict=True))
    parts = {word: b[10 * i : 10 * i + 10].to(dtypes[word]) for i, word in enumerate("qkv")}
    changes.save_file({"qkv": a}, tmp_path / "a.safetensors")
    changes.save_file(parts, tmp_path / "b.safetensors")
    with (
        open_checkpoint(tmp_path / "a.safetensors") as one,
        open_checkpoint(tmp_path / "b.safetensors") as two,
    ):
        whole = one.infos["qkv"]
        runs = tuple(
            Run(rows_of(whole, 10 * i, 10 * i + 10), two.infos[word], 640 * i, word)
            for i, word in enumerate("qkv")
        )
        together = torch.cat([parts[word].to(SINGLE) for word in "qkv"])
        fused = Pair(whole, two.infos["q"], runs)
        (found,) = measure_spectra(one, two, [fused], [changes.sums_of(a, together)])
    assert found is not None
    assert_exact(found, changes.squares_of(a, together))


def test_a_tensor_that_is_stored_transposed(tmp_path: Path) -> None:
    """A view of B is read in A's order."""
    a, b = random_pair((30, 50), HALF)
    changes.save_file({"w": a}, tmp_path / "a.safetensors")
    changes.save_file({"w": b.T.contiguous()}, tmp_path / "b.safetensors")
    with (
        open_checkpoint(tmp_path / "a.safetensors") as one,
        open_checkpoint(tmp_path / "b.safetensors") as two,
    ):
        pairs = [Pair(one.infos["w"], transposed(two.infos["w"]))]
        (found,) = measure_spectra(one, two, pairs, [changes.sums_of(a, b)])
    assert found is not None
    assert_exact(found, changes.squares_of(a, b))


def test_results_depend_neither_on_threads_nor_on_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread and four, few keys and many: the same bits."""
    monkeypatch.setattr(analyzer.spectrum, "GRAM_SIZE", 400)
    shapes = {"a": (840, 820), "b": (300, 500), "c": (500, 300), "d": (820, 900), "e": (64, 64)}
    pairs = {key: random_pair(shape, HALF, seed=len(key)) for key, shape in shapes.items()}
    a, b = ({key: both[side] for key, both in pairs.items()} for side in (0, 1))
    one = changes.spectra_of(tmp_path, a, b, threads=1)
    assert one == changes.spectra_of(tmp_path, a, b, threads=4)
    alone = changes.spectra_of(tmp_path, {"d": a["d"]}, {"d": b["d"]}, threads=2)
    assert one["d"] == alone["d"]


def test_threads_of_torch_are_left_as_they_were(tmp_path: Path) -> None:
    """What a spectrum needs of torch is given back."""
    before = torch.get_num_threads()
    changes.spectrum_of(tmp_path, *random_pair((5, 6), SINGLE))
    assert before == torch.get_num_threads()


def test_progress_ends_with_all_bytes(tmp_path: Path) -> None:
    """The bytes of the changed matrices, on both sides."""
    a, b = random_pair((30, 50), HALF)
    for name, tensor in (("a", a), ("b", b)):
        changes.save_file({"w": tensor}, tmp_path / f"{name}.safetensors")
    seen = []
    with (
        open_checkpoint(tmp_path / "a.safetensors") as one,
        open_checkpoint(tmp_path / "b.safetensors") as two,
    ):
        measure_spectra(
            one, two, [Pair(one.infos["w"], two.infos["w"])], [changes.sums_of(a, b)],
            progress=lambda done, total: seen.append((done, total)),
        )  # fmt: skip
    assert (6000, 6000) == seen[-1]


# --- Cost ---


def info(key: str, shape: tuple[int, ...], dtype: str = "F16") -> TensorInfo:
    return TensorInfo(key, dtype, shape, 0, 2 * int(np.prod(shape)))


def test_cost_counts_matrices_only() -> None:
    """Vectors and integers cost nothing; a Gram matrix costs its lower half and its eigenvalues."""
    infos = [info("w", (10, 20)), info("bias", (10,)), info("ids", (1, 77), "I64")]
    cost = estimate([Pair(each, each) for each in infos])
    assert (1, 800) == (cost.matrices, cost.bytes)
    assert 10 * 10 * 20 + 4 / 3 * 1000 == pytest.approx(cost.operations)


def test_cost_in_words() -> None:
    """One sentence: how many matrices, how much work, about how long."""
    cost = Cost(matrices=686, bytes=3_400_000_000, operations=3.1e12, seconds=240.0)
    reads, takes = (
        "reads 686 matrices again (3.4 GB)",
        "takes up to 3.1 Tflop: about 4 minutes on 1 processor",
    )
    expected = f"--spectrum {reads} and {takes}"
    assert expected == describe_cost(cost, threads=1)
    one_matrix = Cost(matrices=2, bytes=1, operations=1e12, seconds=70.0, longest=60.0)
    assert "about 60 seconds on" in describe_cost(one_matrix, threads=2)
    on_gpu = "--spectrum reads 1 matrix again (0.0 MB) and takes up to 1.0 Mflop on cuda:0"
    assert on_gpu == describe_cost(Cost(1, 1000, 1e6, 0.1), device="cuda:0")


def test_the_cost_is_told_for_the_threads_that_will_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for all processors of a large machine, of which sixteen are used."""
    for module in ("analyzer.spectrum", "analyzer.streaming"):
        monkeypatch.setattr(f"{module}.usable_processors", lambda: 64)
    cost = Cost(1000, 1000, 1e6, seconds=640.0, longest=1.0)
    assert describe_cost(cost).endswith("about 40 seconds on 16 processors")
    assert describe_cost(cost, threads=32).endswith("about 20 seconds on 32 processors")
