"""What a difference means: casts against torch's own, rounding, the verdicts of keys and of whole pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from analyzer.batches import AbstractMeasurer
from analyzer.checkpoints import Checkpoint, open_checkpoint
from analyzer.checkpoints.scale_grid import ScaleGrid
from analyzer.checkpoints.scaled import ScaledSource
from analyzer.coded_rounding import coded_rounding, coded_steps
from analyzer.evaluation import evaluate
from analyzer.kernels.formats import FLOATS, casts
from analyzer.measures import Sums
from analyzer.records import KeyScan, TensorInfo
from analyzer.scan import scan
from analyzer.sums import CompiledMeasurer
from analyzer.torch_measurer import TorchMeasurer
from analyzer.verdicts import VERDICTS, verdict, worst

MEASURERS: list[AbstractMeasurer] = [CompiledMeasurer(), TorchMeasurer("cpu")]
TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
NARROWER = [(a, b) for a in FLOATS for b in FLOATS if casts(a, b)[0]]
Save = Callable[[str, Mapping[str, torch.Tensor]], Path]


def raw(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's bytes."""
    data: np.ndarray = tensor.contiguous().view(torch.uint8).numpy().reshape(-1)
    return data


def measure(measurer: AbstractMeasurer, a: torch.Tensor, b: torch.Tensor) -> Sums:
    """The sums of two tensors of any dtypes."""
    names = {dtype: name for name, dtype in TORCH.items()}
    return measurer.measure(raw(a), names[a.dtype], raw(b), names[b.dtype])


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write tensors as a safetensors file in the test's folder."""

    def write(name: str, tensors: Mapping[str, torch.Tensor]) -> Path:
        save_file(dict(tensors), tmp_path / name)
        return tmp_path / name

    return write


def scan_files(a: Path, b: Path) -> list[KeyScan]:
    """The keys that count in the scan of two files."""
    with open_checkpoint(a) as model_a, open_checkpoint(b) as model_b:
        return [row for row in scan(model_a, model_b).keys if row.labels.counted]


def spread_out(count: int, seed: int) -> torch.Tensor:
    """fp32 values over many octaves, small enough for every format's range, zeros among them."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, generator=generator) * torch.exp2(
        torch.randint(-30, 3, (count,), generator=generator).float()
    )
    values[::50] = 0.0
    return values


@pytest.mark.parametrize("measurer", MEASURERS, ids=type)
@pytest.mark.parametrize(("wide", "narrow"), NARROWER)
def test_a_cast_is_recognised_from_both_sides(wide: str, narrow: str, measurer: AbstractMeasurer) -> None:
    """What torch's own cast makes of values over 33 octaves, subnormal ones too, is equal after a cast."""
    a = (spread_out(5000, 1).double() * 1.1).to(TORCH[wide])
    b = a.to(TORCH[narrow])
    for sums in (measure(measurer, a, b), measure(measurer, b, a)):
        assert sums.changed == sums.cast_only > 0
        assert "cast" == verdict(sums)


@pytest.mark.parametrize("measurer", MEASURERS, ids=type)
@pytest.mark.parametrize(("wide", "narrow"), [(a, b) for a, b in NARROWER if FLOATS[a].bits > FLOATS[b].bits])
def test_one_value_that_no_cast_gives_is_found(wide: str, narrow: str, measurer: AbstractMeasurer) -> None:
    """The next number of the narrower format, in one place of thousands: counted as no cast."""
    a = (spread_out(5000, 2).double() * 1.1).to(TORCH[wide])
    b = a.to(TORCH[narrow])
    place = int(b.to(torch.float64).abs().argsort()[-500])
    codes = b.view(torch.uint8 if FLOATS[narrow].bits == 8 else torch.int16)
    codes[place] += 1
    sums = measure(measurer, a, b)
    assert 1 == sums.changed - sums.cast_only
    assert "cast" != verdict(sums)


@pytest.mark.parametrize("dtype", list(FLOATS))
def test_of_one_dtype_nothing_is_a_cast(dtype: str) -> None:
    """Values that differ in one dtype were changed by something else."""
    a = spread_out(500, 3).to(TORCH[dtype])
    b = (a.to(torch.float64) * 1.5).to(TORCH[dtype])
    assert 0 == measure(MEASURERS[0], a, b).cast_only


def test_the_rounding_error_of_a_cast_lies_within_its_floor() -> None:
    """About 1 for values that were rounded once, below the 2 up to which it is called rounding."""
    a = spread_out(100_000, 4)
    for dtype in ("F16", "BF16", "F8_E4M3", "F8_E5M2"):
        ratio = evaluate(measure(MEASURERS[0], a, a.to(TORCH[dtype])), total=None)["change_to_rounding"]
        assert ratio == pytest.approx(1.0, abs=0.05), dtype


def test_noise_of_two_roundings_is_rounding() -> None:
    """A merge of a model with itself by way of bf16: a tenth of the values one step off."""
    generator = torch.Generator().manual_seed(5)
    a = torch.randn(50_000, generator=generator).to(torch.float16)
    codes = a.clone().view(torch.int16)
    codes[::10] += 1
    sums = measure(MEASURERS[0], a, codes.view(torch.float16))
    assert 0 == sums.cast_only
    assert "rounding" == verdict(sums)


@pytest.mark.parametrize(("ratio", "expected"), [(2.0, "rounding"), (2.0001, "changed")])
def test_rounding_ends_at_twice_the_floor(ratio: float, expected: str) -> None:
    """The threshold from both sides."""
    sums = Sums(numel=4, n=4, numeric=4, changed=4, sum_aa=4.0, sum_bb=4.0, sum_dd=ratio**2, sum_ulp_sq=12.0)
    assert expected == verdict(sums)


@pytest.mark.parametrize("measurer", MEASURERS, ids=type)
def test_nan_is_the_same_as_nan_and_as_nothing_else(measurer: AbstractMeasurer) -> None:
    """A NaN in both is no difference; on one side, or Inf of another sign, it is a change."""
    nan, inf = float("nan"), float("inf")
    a = torch.tensor([1.0, nan, inf, 2.0])
    assert "identical" == verdict(measure(measurer, a, a.clone()))
    for other in ([1.0, nan, -inf, 2.0], [1.0, nan, inf, nan], [1.0, 0.0, inf, 2.0]):
        assert "changed" == verdict(measure(measurer, a, torch.tensor(other)))


@pytest.mark.parametrize("measurer", MEASURERS, ids=type)
def test_signed_zeros_are_one_value(measurer: AbstractMeasurer) -> None:
    """Not the same bits, and the same values."""
    assert "identical" == verdict(measure(measurer, torch.tensor([0.0, -0.0]), torch.tensor([-0.0, 0.0])))


@given(verdicts=st.lists(st.sampled_from(VERDICTS)))
def test_a_group_gets_the_worst_of_its_keys(verdicts: list[str]) -> None:
    """Of none, it is identical."""
    expected = max([VERDICTS.index(v) for v in verdicts], default=0)  # type: ignore[arg-type]
    assert VERDICTS[expected] == worst(verdicts)  # type: ignore[arg-type]  # literals, by their construction


def codes_and_scale(weight: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
    """A weight as scaled fp8, in ComfyUI's names."""
    codes = (weight.double() / scale.double()).clamp(-448, 448).float().to(torch.float8_e4m3fn)
    return {"layers.0.mlp.weight": codes, "layers.0.mlp.weight_scale": scale.float()}


@pytest.mark.parametrize("shape", [(), (64, 1)], ids=["one scale", "a scale a row"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_model_and_its_scaled_fp8_save(dtype: torch.dtype, shape: tuple[int, ...], save: Save) -> None:
    """Equal after a cast to codes times scales, from both sides; the floor is that of the codes."""
    generator = torch.Generator().manual_seed(6)
    weight = (torch.randn(64, 100, generator=generator) * 0.02).to(dtype)
    scale = (weight.abs().max() if not shape else weight.abs().amax(1, keepdim=True)).float() / 448
    plain = save("a.safetensors", {"layers.0.mlp.weight": weight})
    scaled = save("b.safetensors", codes_and_scale(weight, scale))
    for a, b in ((plain, scaled), (scaled, plain)):
        (row,) = scan_files(a, b)
        assert "cast" == verdict(row.sums)
        ratio = evaluate(row.sums, total=row.sums)["change_to_rounding"]
        assert ratio == pytest.approx(1.0, abs=0.1)


def test_scaled_fp8_with_two_scales_is_rounding(save: Save) -> None:
    """Quantised twice, by another rule each time: no cast of one another, and no further than rounding."""
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(64, 100, generator=generator) * 0.02
    one, other = weight.abs().max() / 448, weight.abs().max() / 300
    a = save("a.safetensors", codes_and_scale(weight, one))
    b = save("b.safetensors", codes_and_scale(weight, other))
    (row,) = scan_files(a, b)
    assert "rounding" == verdict(row.sums)


def test_values_that_quantising_cut_off_are_changes(save: Save) -> None:
    """A scale far too small: every code is the largest, which no cast explains."""
    generator = torch.Generator().manual_seed(10)
    weight = torch.randn(64, 100, generator=generator) * 0.02
    a = save("a.safetensors", {"layers.0.mlp.weight": weight})
    b = save("b.safetensors", codes_and_scale(weight, torch.tensor(1e-6)))
    (row,) = scan_files(a, b)
    assert "changed" == verdict(row.sums)


def test_scales_of_zero_leave_the_rest_its_floor(save: Save, recwarn: pytest.WarningsRecorder) -> None:
    """A row of zeros has a scale of zero: it has no spacing, and nothing is printed."""
    generator = torch.Generator().manual_seed(11)
    weight = torch.randn(64, 100, generator=generator) * 0.02
    weight[5] = 0.0
    scale = weight.abs().amax(1, keepdim=True) / 448
    codes = codes_and_scale(weight, scale.clamp(min=1e-9))
    codes["layers.0.mlp.weight_scale"] = scale
    a, b = save("a.safetensors", {"layers.0.mlp.weight": weight}), save("b.safetensors", codes)
    (row,) = scan_files(a, b)
    assert "cast" == verdict(row.sums)
    assert evaluate(row.sums, total=row.sums)["change_to_rounding"] == pytest.approx(1.0, abs=0.1)
    assert [] == recwarn.list


@pytest.mark.parametrize("a_coded", [True, False])
@pytest.mark.parametrize("b_coded", [True, False])
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-60, 20), rows=st.booleans())
def test_the_compiled_loop_and_numpy_agree(
    a_coded: bool, b_coded: bool, seed: int, exponent: int, rows: bool
) -> None:
    """Of any codes, scales and values: the same casts and steps, and the same spacings to the last digits."""
    rng = np.random.default_rng(seed)
    shape = (6, 40)

    def side(coded: bool) -> tuple[Checkpoint, TensorInfo, int, np.ndarray]:
        factors = (2.0**exponent * rng.uniform(0.5, 2.0, (6, 1) if rows else (1, 1))).astype(np.float32)
        factors[0] *= rng.integers(0, 2)
        values = (rng.standard_normal(shape) * 100 * factors).astype(np.float32)
        values[3, 7] = np.nan
        stored = TensorInfo("w", "F8_E4M3", shape, 0, 240)
        info = TensorInfo("w", "F32", shape, 0, 960, encoded=stored if coded else None)
        grid = ScaleGrid(shape, factors, (1, 40) if rows else shape)
        source = ScaledSource(None, stored, grid)  # type: ignore[arg-type]  # its values are not read
        checkpoint = SimpleNamespace(sources=[source])
        return checkpoint, info, 0, values.view(np.uint8).reshape(-1)  # type: ignore[return-value]

    a, b = side(a_coded), side(b_coded)
    squares, casts_found = coded_rounding(a, b, None, compiled=True)
    expected, casts_expected = coded_rounding(a, b, None, compiled=False)
    assert squares == pytest.approx(expected, rel=1e-12)
    assert casts_expected == casts_found
    steps, expected_steps = coded_steps(a, b, None, compiled=True), coded_steps(a, b, None, compiled=False)
    assert (expected_steps.first, expected_steps.counts) == (steps.first, steps.counts)
    assert steps.energies.tolist() == pytest.approx(expected_steps.energies.tolist(), rel=1e-12)


def test_a_change_of_scaled_fp8_is_a_change(save: Save) -> None:
    """The verdict looks at the values, whatever they are stored as."""
    generator = torch.Generator().manual_seed(8)
    weight = torch.randn(64, 100, generator=generator) * 0.02
    scale = weight.abs().max() / 448
    tuned = weight + 0.01 * torch.randn(64, 100, generator=generator)
    a = save("a.safetensors", codes_and_scale(weight, scale))
    b = save("b.safetensors", codes_and_scale(tuned, scale))
    (row,) = scan_files(a, b)
    assert "changed" == verdict(row.sums)


def test_a_model_in_fp32_and_its_fp16_save(save: Save) -> None:
    """Every key is equal after a cast; what fp16 can hold as it is, is identical."""
    generator = torch.Generator().manual_seed(9)
    tensors = {f"layers.{i}.mlp.weight": torch.randn(30, 40, generator=generator) for i in range(4)}
    tensors["norm.weight"] = torch.ones(40)
    a = save("a.safetensors", tensors)
    b = save("b.safetensors", {key: value.half() for key, value in tensors.items()})
    verdicts = {row.key: verdict(row.sums) for row in scan_files(a, b)}
    assert {**dict.fromkeys(tensors, "cast"), "norm.weight": "identical"} == verdicts


def test_an_unknown_spacing_is_no_floor() -> None:
    """GGUF's blocks: a change, since nothing says how much of it is rounding."""
    sums = Sums(numel=4, n=4, numeric=4, changed=4, sum_aa=4.0, sum_bb=4.0, sum_dd=1e-9, sum_ulp_sq=np.inf)
    assert "changed" == verdict(sums)
    assert evaluate(sums, total=sums)["rounding_floor"] is None
    assert "changed" == verdict(replace(sums, sum_dd=1.0))
