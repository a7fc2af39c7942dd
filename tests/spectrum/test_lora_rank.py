"""Which changes look like a LoRA, and of which rank: merged LoRAs, noise, and what lies between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import changes
import numpy as np
import pytest
import torch

import analyzer.spectrum
from analyzer.kernels.range_finder import Noise
from analyzer.low_rank import limits_of
from analyzer.measures import Sums

SHAPES = {"gram": (320, 400), "range": (840, 900)}


def merged(
    shape: tuple[int, ...], rank: int, *, seed: int, change: float = 0.05, columns: np.ndarray | float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Weights, and the same with a LoRA of that rank merged in, `change` times their norm; both unrounded."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(shape) * 0.02
    up, down = rng.standard_normal((shape[0], rank)), rng.standard_normal((rank, int(np.prod(shape[1:]))))
    a = a * columns
    delta = (up @ down).reshape(shape)
    return a, a + delta * (change * np.linalg.norm(a) / np.linalg.norm(delta))


@pytest.fixture(params=list(SHAPES))
def shape(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """A matrix that goes either way: by its Gram matrix, or by the range finder."""
    monkeypatch.setattr(analyzer.spectrum, "GRAM_SIZE", 400)
    return SHAPES[request.param]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rank", [4, 32, 100])
def test_the_rank_of_a_merged_lora_is_found(
    tmp_path: Path, shape: tuple[int, int], dtype: torch.dtype, rank: int
) -> None:
    """A LoRA that was merged into stored weights, and rounded with them, has its own rank."""
    a, b = merged(shape, rank, seed=rank, change=0.3 if dtype == torch.bfloat16 else 0.05)
    base = changes.stored(a, dtype)
    found = changes.spectrum_of(
        tmp_path, base, changes.stored(base.to(torch.float64).numpy() + (b - a), dtype)
    )
    assert rank == found.lora_rank


def test_both_sides_rounded_from_the_same_weights(tmp_path: Path, shape: tuple[int, int]) -> None:
    """Base and merge were both rounded from fp32: two roundings of noise, the same rank."""
    a, b = (changes.stored(side, torch.float16) for side in merged(shape, 8, seed=1))
    assert 8 == changes.spectrum_of(tmp_path, a, b).lora_rank


def test_a_base_in_full_precision(tmp_path: Path, shape: tuple[int, int]) -> None:
    """The noise is that of the coarser side."""
    a, b = merged(shape, 8, seed=2)
    found = changes.spectrum_of(tmp_path, changes.stored(a, torch.float32), changes.stored(b, torch.float16))
    assert 8 == found.lora_rank


def test_outlier_columns(tmp_path: Path, shape: tuple[int, int]) -> None:
    """A few columns of thirtyfold weights have thirtyfold noise: it is not taken for directions."""
    columns = np.where(np.arange(shape[1]) % 150 == 7, 30.0, 1.0)
    a, b = merged(shape, 4, seed=3, columns=columns)
    found = changes.spectrum_of(tmp_path, changes.stored(a, torch.float16), changes.stored(b, torch.float16))
    assert 4 == found.lora_rank


def test_a_lora_in_a_layer_of_zeros(tmp_path: Path, shape: tuple[int, int]) -> None:
    """Where the base is zero, the noise is that of the merge."""
    b = changes.with_singular_values(*shape, [4.0, 3.0, 2.0, 1.0], seed=4)
    found = changes.spectrum_of(tmp_path, torch.zeros(shape).half(), changes.stored(b, torch.float16))
    assert 4 == found.lora_rank


def test_a_convolution(tmp_path: Path) -> None:
    """A LoRA of a convolution is one of out × rest."""
    a, b = (changes.stored(side, torch.float16) for side in merged((128, 64, 3, 3), 16, seed=5))
    assert 16 == changes.spectrum_of(tmp_path, a, b).lora_rank


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("change", [0.003, 0.1])
def test_noise_is_no_lora(tmp_path: Path, shape: tuple[int, int], dtype: torch.dtype, change: float) -> None:
    """A change in all directions is no LoRA, however close to rounding it is."""
    a = changes.weights(shape, seed=6)
    b = a + changes.weights(shape, seed=7, size=0.02 * change)
    found = changes.spectrum_of(tmp_path, changes.stored(a, dtype), changes.stored(b, dtype))
    assert found.lora_rank is None


def test_a_lora_and_a_little_training_is_no_lora(tmp_path: Path, shape: tuple[int, int]) -> None:
    """What is left beside the large directions is more than rounding."""
    a, b = merged(shape, 8, seed=8, change=0.1)
    b = b + changes.weights(shape, seed=9, size=0.02 * 0.01)
    found = changes.spectrum_of(tmp_path, changes.stored(a, torch.float16), changes.stored(b, torch.float16))
    assert found.lora_rank is None
    assert found.rank_90 is not None
    assert found.rank_90 <= 8


def test_rounding_alone_has_no_rank(tmp_path: Path) -> None:
    """A cast changes every element, and says nothing about directions."""
    a = changes.stored(changes.weights((50, 60), seed=10), torch.float32)
    assert changes.spectrum_of(tmp_path, a, a.half()).lora_rank is None


def test_ranks_above_the_caps_are_no_lora(tmp_path: Path, shape: tuple[int, int]) -> None:
    """Above 256, and above half of the smaller side, a change is not called low rank."""
    too_many = min(257, min(shape) // 2 + 1)
    for rank, expected in ((too_many - 1, too_many - 1), (too_many, None)):
        a, b = (changes.stored(side, torch.float32) for side in merged(shape, rank, seed=11))
        assert expected == changes.spectrum_of(tmp_path, a, b).lora_rank


def test_one_row_is_no_lora(tmp_path: Path) -> None:
    """A matrix of one row has rank 1 whatever was done to it."""
    a = changes.stored(changes.weights((1, 500), seed=12), torch.float32)
    assert changes.spectrum_of(tmp_path, a, a + 1).lora_rank is None


def test_a_storage_without_known_spacing_has_no_limits() -> None:
    """GGUF's blocks: no one can tell what rounding leaves."""
    known = Sums(numel=4, n=4, numeric=4, changed=4, sum_dd=1.0, sum_ulp_sq=1e-9)
    noise = Noise(total=1e-9, largest_row=5e-10, largest_column=5e-10)
    arguments = {"exponent": 0, "floor": 0.0, "slack": 0.0}
    assert limits_of(known, noise, **arguments) is not None
    unknown = replace(known, sum_ulp_sq=np.inf)
    assert limits_of(unknown, noise, **arguments) is None


def test_spacings_of_a_code_with_scales_are_those_of_the_sums() -> None:
    """Scaled fp8 is read as fp32; its sums know how far apart its values lie, and the limits follow."""
    noise = Noise(total=1e-9, largest_row=5e-10, largest_column=5e-10)
    sums = Sums(numel=4, n=4, numeric=4, changed=4, sum_dd=1.0, sum_ulp_sq=1e-9)
    fine = limits_of(sums, noise, exponent=0, floor=0.0, slack=0.0)
    coarse = limits_of(replace(sums, sum_ulp_sq=4e-9), noise, exponent=0, floor=0.0, slack=0.0)
    assert fine is not None
    assert coarse is not None
    assert (4 * fine.edge, 4 * fine.energy) == pytest.approx((coarse.edge, coarse.energy))
