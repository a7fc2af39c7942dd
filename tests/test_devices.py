"""Which device a name means; and that a GPU, where there is one, gives what the CPU gives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analyzer import devices
from analyzer.batches import Rows
from analyzer.blending import open_blender
from analyzer.checkpoints import open_checkpoint
from analyzer.devices import resolve_device
from analyzer.errors import DeviceError
from analyzer.kernels.backends import GPU_CHUNK
from analyzer.kernels.formats import FLOATS
from analyzer.measures import HISTOGRAMS, SUM_FIELDS, Sums
from analyzer.records import KeyScan
from analyzer.scan import scan
from analyzer.sums import open_measurer

Write = Callable[..., Path]
Unet = Callable[[int], dict[str, np.ndarray]]

GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0
NO_GPU = pytest.mark.skipif(GPUS == 0, reason="no CUDA device here")
# torch's own CPU device runs the code of the GPU on every machine.
TORCH_DEVICES = ["cpu:0", pytest.param("cuda:0", marks=[pytest.mark.cuda, NO_GPU])]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Pretend that torch sees so many CUDA devices."""

    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(devices, "_nvidia_driver_present", lambda: count > 0)

    return pretend


@pytest.mark.skipif(GPUS > 0, reason="there is a CUDA device here")
def test_auto_is_the_cpu_where_there_is_no_gpu() -> None:
    """On a machine without CUDA, nothing is asked for and nothing is said."""
    said: list[str] = []
    assert "cpu" == resolve_device("auto", notify=said.append)
    assert [] == said


@pytest.mark.skipif(GPUS > 0, reason="there is a CUDA device here")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:99"])
def test_a_missing_gpu_is_an_error_with_a_way_out(name: str) -> None:
    """The message names the device asked for, what torch sees, and what to write instead."""
    with pytest.raises(
        DeviceError, match=f"'{name}' is not there: torch sees no CUDA device; use --device cpu"
    ):
        resolve_device(name)


@pytest.mark.parametrize(
    ("name", "count", "device"),
    [
        ("auto", 0, "cpu"), ("auto", 1, "cuda:0"), ("auto", 4, "cuda:0"), ("cpu", 4, "cpu"),
        ("cuda", 1, "cuda:0"), ("cuda:0", 1, "cuda:0"), ("cuda:3", 4, "cuda:3"),
    ],
)  # fmt: skip
def test_names_become_devices(gpus: Callable[[int], None], name: str, count: int, device: str) -> None:
    """The name "auto" takes the first CUDA device; cuda is cuda:0; cpu stays, however many GPUs there are."""
    gpus(count)
    assert device == resolve_device(name)


def test_a_driver_without_a_device_leaves_auto_on_the_cpu(
    gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An NVIDIA driver beside a torch without CUDA is no reason to fail."""
    gpus(0)
    monkeypatch.setattr(devices, "_nvidia_driver_present", lambda: True)
    assert "cpu" == resolve_device("auto")


@pytest.mark.parametrize(("count", "found"), [(1, "1 CUDA device;"), (2, "2 CUDA devices;")])
def test_an_index_beyond_the_last_gpu_is_an_error(
    gpus: Callable[[int], None], count: int, found: str
) -> None:
    """Indices count from 0: with two devices, cuda:2 is one too many."""
    gpus(count)
    with pytest.raises(DeviceError, match=found):
        resolve_device(f"cuda:{count}")


def test_mps_measures_on_the_cpu_and_says_so() -> None:
    """It has no fp64; the user hears that once, and the work goes on."""
    said: list[str] = []
    assert "cpu" == resolve_device("mps", notify=said.append)
    assert ["mps has no 64-bit floats: measuring on the CPU instead"] == said
    assert "cpu" == resolve_device("mps")


@pytest.mark.parametrize(
    "name", ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cuda:0 ", "cpu:0", "cuda:0\n"]
)
def test_nonsense_is_an_error_that_lists_the_names(name: str) -> None:
    """What is no device is quoted, with all that may be written."""
    with pytest.raises(DeviceError, match="write auto, cpu, cuda, cuda:N or mps") as caught:
        resolve_device(name)
    assert repr(name) in str(caught.value)


@given(name=st.text(max_size=12) | st.from_regex(r"cuda:\d{1,30}", fullmatch=True))
def test_any_text_is_a_device_or_a_device_error(name: str) -> None:
    """Whatever is typed: a device that torch knows, or one sentence."""
    try:
        device = resolve_device(name)
    except DeviceError as error:
        assert repr(name) in str(error)
    else:
        assert device == "cpu" or int(device.removeprefix("cuda:")) < GPUS


def test_an_index_of_thousands_of_digits_is_not_there() -> None:
    """Python refuses to read such a number; the user gets the sentence for any missing device."""
    with pytest.raises(DeviceError, match="is not there"):
        resolve_device("cuda:" + "9" * 5000)


def test_torch_is_not_imported_where_the_answer_is_the_cpu() -> None:
    """Its import takes seconds; "cpu" and "mps" are answered without."""
    code = (
        "import sys; from analyzer.devices import resolve_device; "
        "print(resolve_device('cpu'), resolve_device('mps'), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)
    assert "cpu cpu False\n" == done.stdout


def codes(dtype: str, count: int, seed: int) -> np.ndarray:
    """Random bit patterns of a dtype, NaN, Inf and subnormal numbers among them."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, count * FLOATS[dtype].bits // 8, dtype=np.uint8)


def ordinary(dtype: str, count: int, seed: int) -> np.ndarray:
    """The bytes of numbers of moderate size."""
    rng = np.random.default_rng(seed)
    raw, _ = open_blender("cpu").convert(rng.standard_normal(count).view(np.uint8), "F64", dtype=dtype)
    return raw


def check_record(expected: Sums, got: Sums) -> None:
    """Counts and the largest change exactly, sums to the last digits that their size allows."""
    size = expected.sum_aa + expected.sum_bb
    for name in SUM_FIELDS:
        value = getattr(expected, name)
        exact = isinstance(value, int) or name == "max_abs_d"
        assert getattr(got, name) == (
            value if exact else pytest.approx(value, rel=1e-11, abs=1e-13 * size)
        ), name
    for name in HISTOGRAMS:
        them, ours = getattr(expected, name), getattr(got, name)
        assert (them.first, them.counts) == (ours.first, ours.counts), name
        assert ours.energies.tolist() == pytest.approx(them.energies.tolist(), rel=1e-11), name
    assert (expected.task is None) == (got.task is None)
    if expected.task and got.task:
        assert asdict(got.task) == pytest.approx(asdict(expected.task), rel=1e-11)


@pytest.mark.parametrize("device", TORCH_DEVICES)
@pytest.mark.parametrize("dtype_b", list(FLOATS))
@pytest.mark.parametrize("dtype_a", list(FLOATS))
def test_a_torch_device_measures_what_the_cpu_measures(dtype_a: str, dtype_b: str, device: str) -> None:
    """All pairs of dtypes; and where every bit pattern occurs, all pairs of 16 bits and less."""
    cpu, other = open_measurer("cpu"), open_measurer(device)
    sources = [ordinary]
    if max(FLOATS[dtype_a].bits, FLOATS[dtype_b].bits) == 8:
        sources.append(codes)
    for make in sources:
        raw = make(dtype_a, 40_001, 1), dtype_a, make(dtype_b, 40_001, 2), dtype_b
        check_record(cpu.measure(*raw), other.measure(*raw))
        base = make(dtype_a, 40_001, 3), dtype_a
        rows = [Rows(width=100, first=70, sums=np.zeros((401, 3))) for _ in (cpu, other)]
        found = [
            each.measure(*raw, base=base, rows=row) for each, row in zip((cpu, other), rows, strict=True)
        ]
        check_record(*found)
        np.testing.assert_allclose(rows[1].sums, rows[0].sums, rtol=1e-11)


@pytest.mark.parametrize("device", TORCH_DEVICES)
@pytest.mark.parametrize("dtype_b", list(FLOATS))
@pytest.mark.parametrize("dtype_a", list(FLOATS))
def test_a_torch_device_blends_what_the_cpu_blends(dtype_a: str, dtype_b: str, device: str) -> None:
    """The same bytes and the same count of NaN and Inf, from any bit patterns, into every dtype."""
    cpu, other = open_blender("cpu"), open_blender(device)
    raw = codes(dtype_a, 5003, 3), dtype_a, codes(dtype_b, 5003, 4), dtype_b
    for dtype in FLOATS:
        for alpha in (0.3, 1.0, -0.5):
            expected, bad = cpu.blend(*raw, alpha=alpha, dtype=dtype)
            got, bad_there = other.blend(*raw, alpha=alpha, dtype=dtype)
            assert bad == bad_there
            np.testing.assert_array_equal(expected, got)
        expected, bad = cpu.convert(*raw[:2], dtype=dtype)
        got, bad_there = other.convert(*raw[:2], dtype=dtype)
        assert bad == bad_there
        np.testing.assert_array_equal(expected, got)


@pytest.mark.parametrize("device", TORCH_DEVICES)
def test_a_scan_on_a_torch_device_is_the_cpus(device: str, write: Write, unet: Unet) -> None:
    """Whole models, a tensor larger than a GPU's chunk among them where there is a GPU."""
    a, b = unet(1), unet(2)
    count = (GPU_CHUNK if device.startswith("cuda") else 1 << 17) + 5
    rng = np.random.default_rng(9)
    a["big"] = rng.standard_normal(count, np.float32)
    b["big"] = a["big"] + 0.01 * rng.standard_normal(count, np.float32)
    paths = write("a.safetensors", a), write("b.safetensors", b)

    def rows(where: str) -> tuple[KeyScan, ...]:
        with open_checkpoint(paths[0]) as model_a, open_checkpoint(paths[1]) as model_b:
            return scan(model_a, model_b, device=where).keys

    expected, got = rows("cpu"), rows(device)
    assert [row.key for row in expected] == [row.key for row in got]
    for one, other in zip(expected, got, strict=True):
        check_record(one.sums, other.sums)
