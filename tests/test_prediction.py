"""Predictions of linear merges, against numpy on the arrays themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.batches import AbstractMeasurer
from analyzer.checkpoints import open_checkpoint
from analyzer.measures import Histogram, Sums
from analyzer.prediction.closed_form import (
    Prediction,
    gram_of,
    predict,
    predict_groups,
    survival_warning,
)
from analyzer.prediction.survival import surviving_share
from analyzer.ranking import counted
from analyzer.records import KeyScan, Labels, ModelId, Scan
from analyzer.scan import scan
from analyzer.sums import open_measurer
from tests.conftest import Write

PRECISE = 1e-9
MEASURER: AbstractMeasurer = open_measurer("cpu")
TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
VALUES = ("norm", "distance_a", "distance_b", "cosine_a", "cosine_b")
DISTANCES = ("cosine_distance_a", "cosine_distance_b")
MODEL = ModelId("a.safetensors", 1, "sha256:0", "sd1")
LABELS = Labels("unet", "IN00", "attn2/to_k", "weight", "attn2")


def store(values: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Values rounded to a dtype, as (raw bytes, the rounded values in fp64)."""
    tensor = torch.from_numpy(np.asarray(values, np.float64)).to(TORCH[dtype])
    return tensor.view(torch.uint8).numpy().reshape(-1), tensor.to(torch.float64).numpy()


def row(key: str, a: np.ndarray, b: np.ndarray, c: np.ndarray | None = None) -> KeyScan:
    """One measured key of fp64 arrays."""
    base = None if c is None else (c.view("u1"), "F64")
    sums = MEASURER.measure(a.view("u1"), "F64", b.view("u1"), "F64", base=base)
    return KeyScan(key, key, a.shape, "F64", "F64", LABELS, sums)


def scan_of(*keys: KeyScan, base: bool = False) -> Scan:
    """A scan of these keys."""
    return Scan("test", "", MODEL, MODEL, (), keys, (), (), (), base=MODEL if base else None)


def oracle(a: np.ndarray, b: np.ndarray, m: np.ndarray) -> dict[str, float]:
    """The report's definitions, in fp64; angles from the difference of unit vectors."""
    length = np.linalg.norm

    def apart(x: np.ndarray, y: np.ndarray) -> float:
        return float(length(x / length(x) - y / length(y)) ** 2 / 2)

    return {
        "norm": length(m),
        "distance_a": length(m - a) / length(a),
        "distance_b": length(m - b) / length(b),
        "cosine_a": 1 - apart(m, a),
        "cosine_b": 1 - apart(m, b),
    }


def check(expected: Mapping[str, float], got: Prediction, *, rel: float = PRECISE) -> None:
    """Every value to nine digits."""
    for name, value in expected.items():
        assert getattr(got, name) == pytest.approx(value, rel=rel, abs=1e-14), name


@pytest.mark.parametrize("step", [2.0, 0.1, 1e-4, 1e-7])
@pytest.mark.parametrize("alpha", [-0.5, 0.0, 1e-3, 0.25, 0.5, 0.999, 1.0, 1.5])
def test_a_weighted_sum_is_numpys(alpha: float, step: float) -> None:
    """Any alpha, and models that are nearly the same: norm, distances and cosines of the real arrays."""
    rng = np.random.default_rng(1)
    a = rng.standard_normal(20_000)
    d = step * rng.standard_normal(20_000)
    b = a + d
    m = a + alpha * (b - a)
    got = predict(scan_of(row("x", a, b)), {"x": (1.0, alpha, 0.0)})
    assert got.norm == pytest.approx(float(np.linalg.norm(m)), rel=PRECISE)
    exact = {
        "distance_a": abs(alpha) * np.linalg.norm(b - a) / np.linalg.norm(a),
        "distance_b": abs(1 - alpha) * np.linalg.norm(b - a) / np.linalg.norm(b),
    }
    check(exact, got, rel=1e-12)
    check({name: value for name, value in oracle(a, b, m).items() if "cosine" in name}, got)


@pytest.mark.parametrize("alpha", [0.01, 0.3, 0.9])
def test_cosine_distances_keep_their_digits(alpha: float) -> None:
    """Of models whose cosine differs from 1 by 1e-10: against 40-digit arithmetic, to a millionth."""
    rng = np.random.default_rng(2)
    a = rng.standard_normal(3000)
    b = a + 1e-5 * rng.standard_normal(3000)
    got = predict(scan_of(row("x", a, b)), {"x": (1.0, alpha, 0.0)})
    with mpmath.workdps(40):
        long_a = [mpmath.mpf(float(x)) for x in a]
        long_b = [mpmath.mpf(float(x)) for x in b]
        m = [x + mpmath.mpf(alpha) * (y - x) for x, y in zip(long_a, long_b, strict=True)]
        for name, other in (("cosine_distance_a", long_a), ("cosine_distance_b", long_b)):
            lengths = mpmath.sqrt(mpmath.fdot(m, m) * mpmath.fdot(other, other))
            expected = float(1 - mpmath.fdot(m, other) / lengths)
            assert getattr(got, name) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=5),
    scale=st.sampled_from([1e-6, 1e-2, 1.0, 30.0]),
    kind=st.sampled_from(["add_difference", "triple", "slerp", "any"]),
)
def test_any_coefficients_on_any_keys_are_numpys(
    seed: int, sizes: list[int], scale: float, kind: str
) -> None:
    """Keys of their own coefficients, with a base: the whole is that of the arrays laid end to end."""
    rng = np.random.default_rng(seed)
    keys, merged, steps = [], [], {}
    for place, size in enumerate(sizes):
        a = rng.standard_normal(size) * 2.0 ** rng.integers(-3, 4)
        b, c = (a + scale * rng.standard_normal(size) for _ in range(2))
        k = {
            "add_difference": (1.0, x := rng.uniform(-1, 2), -x),
            "triple": (1.0, rng.uniform(0, 1), rng.uniform(0, 1)),
            "slerp": (1 - 0.1 * rng.uniform(0, 1), rng.uniform(0, 1), 0.0),
            "any": tuple(rng.uniform(-1.5, 1.5, 3)),
        }[kind]
        steps[f"k{place}"] = k
        keys.append(row(f"k{place}", a, b, c))
        step = (k[0] - 1) * a + k[1] * (b - a) + k[2] * (c - a)
        back = (k[0] - 1) * a + (k[1] - 1) * (b - a) + k[2] * (c - a)
        merged.append((a, b, a + step, step, back))
    a, b, m, step, back = (np.concatenate(columns) for columns in zip(*merged, strict=True))
    got = predict(scan_of(*keys, base=True), steps)
    lengths = {
        "norm": np.linalg.norm(m),
        "distance_a": np.linalg.norm(step) / np.linalg.norm(a),
        "distance_b": np.linalg.norm(back) / np.linalg.norm(b),
    }
    # Where a length is what is left of larger ones, their last digits are noise in it.
    for name, value in lengths.items():
        noise = 1e-7 * float(np.linalg.norm(a) if name == "norm" else 1) if kind == "any" else 1e-13
        assert getattr(got, name) == pytest.approx(value, rel=PRECISE, abs=noise), name
    expected = oracle(a, b, m)
    if lengths["norm"] > 1e-3 * np.linalg.norm(a):
        assert got.cosine_a == pytest.approx(expected["cosine_a"], abs=PRECISE)
        assert got.cosine_b == pytest.approx(expected["cosine_b"], abs=PRECISE)
    assert len(sizes) == got.keys


def test_keys_that_are_not_named_stay_and_those_left_out_count_nothing() -> None:
    """A key without coefficients is A's; one without a prediction enters neither side."""
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 3, 50))
    keys = [row(f"k{i}", a[i], b[i]) for i in range(3)]
    got = predict(scan_of(*keys), {"k0": (1.0, 0.5, 0.0), "k2": (1.0, 0.5, 0.0)}, without={"k2"})
    m = np.concatenate([(a[0] + b[0]) / 2, a[1]])
    check(oracle(a[:2].reshape(-1), b[:2].reshape(-1), m), got)
    assert 2 == got.keys


def test_uncounted_keys_enter_no_prediction() -> None:
    """An EMA copy moves nothing, as it counts in no total."""
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((2, 50))
    plain = row("x", a, b)
    copy = replace(plain, key="ema", labels=replace(LABELS, counted=False))
    steps = {"x": (1.0, 0.5, 0.0), "ema": (1.0, 1.0, 0.0)}
    assert predict(scan_of(plain), steps) == predict(scan_of(plain, copy), steps)


def test_what_is_undefined_is_none() -> None:
    """No keys, integers, A all zeros, sums beyond fp64, a base or a model that was not measured."""
    nothing = Prediction(None, None, None, None, None, None, None, None, 0)
    assert nothing == predict(scan_of(), {})
    integers = KeyScan("ids", "ids", (3,), "I64", "I64", LABELS, Sums(numel=3, n=3, changed=1))
    assert nothing == predict(scan_of(integers), {})
    zeros = predict(scan_of(row("x", np.zeros(3), np.ones(3))), {"x": (1.0, 0.5, 0.0)})
    assert (None, None, 0.5) == (zeros.distance_a, zeros.cosine_a, zeros.distance_b)
    huge = row("x", np.full(3, 1e200), np.full(3, 2e200))
    assert replace(nothing, keys=1) == predict(scan_of(huge), {"x": (1.0, 0.5, 0.0)})
    x = row("x", np.ones(3), np.full(3, 2.0))
    for step in ((1.0, 0.5, -0.5), (1.0, 0.5, 0.0, 0.1)):
        assert replace(nothing, keys=1) == predict(scan_of(x), {"x": step})


def test_a_scan_file_of_an_earlier_release_predicts_what_needs_no_base() -> None:
    """Σa·(a − c) is unknown in it: the base's methods are undefined, the others are not."""
    rng = np.random.default_rng(5)
    a, b, c = rng.standard_normal((3, 50))
    x = row("x", a, b, c)
    assert x.sums.task is not None
    old = replace(x, sums=replace(x.sums, task=replace(x.sums.task, dot_a=np.inf), steps=Histogram()))
    assert predict(scan_of(old, base=True), {"x": (1.0, 0.5, -0.5)}).norm is None
    got = predict(scan_of(old, base=True), {"x": (1.0, 0.5, 0.0)})
    check(oracle(a, b, (a + b) / 2), got)
    assert got.survives is None
    assert gram_of(old) is None
    assert gram_of(old, based=False) is not None


def test_the_gram_matrix_is_numpys() -> None:
    """Of a, b − a and c − a; where a key has no base, c − a is zero."""
    rng = np.random.default_rng(6)
    a, b, c = rng.standard_normal((3, 500))
    vectors = np.stack([a, b - a, c - a])
    found = gram_of(row("x", a, b, c))
    assert found == pytest.approx(vectors @ vectors.T, rel=1e-12, abs=1e-11)
    vectors[2] = 0
    assert gram_of(row("x", a, b)) == pytest.approx(vectors @ vectors.T, rel=1e-12, abs=1e-11)
    assert gram_of(KeyScan("i", "i", (3,), "I64", "I64", LABELS, Sums(numel=3, n=3))) is None


@pytest.fixture
def models(write: Write, unet: Callable[[int], dict[str, np.ndarray]]) -> tuple[Path, Path, Path]:
    """A, B and C: miniature SD 1.5 models on disk."""
    c, noise_a, noise_b = (unet(seed) for seed in range(3))
    moved = [
        {
            key: value if value.dtype != np.float16 else (value + 0.1 * noise[key]).astype(np.float16)
            for key, value in c.items()
        }
        for noise in (noise_a, noise_b)
    ]
    return write("a.safetensors", moved[0]), write("b.safetensors", moved[1]), write("c.safetensors", c)


def test_groups_are_predicted_from_their_own_keys(models: tuple[Path, Path, Path]) -> None:
    """By component and by block, with a base: each group is what numpy finds of its arrays."""
    with (
        open_checkpoint(models[0]) as a,
        open_checkpoint(models[1]) as b,
        open_checkpoint(models[2]) as c,
    ):
        result = scan(a, b, base=c)
        arrays = {
            key: [np.frombuffer(read(model, key), np.float16).astype(np.float64) for model in (a, b, c)]
            for key in (x.key for x in counted(result.keys))
        }
    steps = {x.key: (1.0, 0.5, -0.5) for x in result.keys if "attn" in x.key}
    for axis, groups in (("component", 9), ("block", 8)):
        found = predict_groups(result, steps, axis=axis)
        assert len(found) >= groups
        for group in found:
            where = [x for x in counted(result.keys) if selected(x.labels, group.selector)]
            a_, b_, m_ = (
                np.concatenate(parts)
                for parts in zip(
                    *(
                        (x, y, x + (steps[k.key][1] if k.key in steps else 0.0) * (y - z))
                        for k in where
                        for x, y, z in [arrays[k.key]]
                    ),
                    strict=True,
                )
            )
            check(oracle(a_, b_, m_), group.prediction)
            assert len(where) == group.prediction.keys


def read(model: object, key: str) -> bytes:
    """The bytes of one tensor."""
    info = model.infos[key]  # type: ignore[attr-defined]
    buffer = np.empty(info.nbytes, np.uint8)
    model.read_into(info, 0, buffer)  # type: ignore[attr-defined]
    return buffer.tobytes()


def selected(labels: Labels, selector: str) -> bool:
    """Whether the selector of a group, with its exclusions, hits a key."""
    words = selector.replace(",", " ").split()
    inside = [w for w in words if not w.startswith("!")]
    return all(_is_hit(labels, w) for w in inside) and not any(
        _is_hit(labels, w[1:]) for w in words if w.startswith("!")
    )


def _is_hit(labels: Labels, term: str) -> bool:
    axis, name = term.split(":", 1)
    value = getattr(labels, axis)
    return value == name if axis != "component" else f"/{name}/" in f"/{value}/"


def simulate(a: np.ndarray, d: np.ndarray, factor: float, dtype: str) -> float:
    """The share of Σd² of the elements whose step is half a spacing of the dtype or more."""
    info = torch.finfo(TORCH[dtype])
    exponent = np.floor(np.log2(np.maximum(np.abs(a), info.smallest_normal)))
    reached = np.abs(factor * d) >= 2.0**exponent * info.eps / 2
    return float((d[reached] ** 2).sum() / (d**2).sum())


SPREADS: dict[str, Callable[[np.random.Generator, np.ndarray], np.ndarray]] = {
    "gaussian": lambda rng, a: rng.standard_normal(a.size),
    "laplace": lambda rng, a: rng.laplace(size=a.size),
    "heavy": lambda rng, a: rng.standard_t(3, a.size),
    "proportional": lambda rng, a: rng.standard_normal(a.size) * np.abs(a) * 30,
}


@pytest.mark.parametrize("written", ["BF16", "F16", "F8_E4M3", "F8_E5M2"])
@pytest.mark.parametrize("size", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("stored", ["F32", "F16", "BF16"])
def test_the_surviving_share_is_the_simulated_one(
    stored: str, spread: str, size: float, written: str
) -> None:
    """Weights of a network and changes of many sizes: within one percent of what counting finds, or seven."""
    rng = np.random.default_rng(7)
    raw_a, a = store(0.03 * rng.standard_normal(60_000), stored)
    raw_b, b = store(a + size * SPREADS[spread](rng, a), stored)
    sums = MEASURER.measure(raw_a, stored, raw_b, stored)
    # Between two models of one dtype a step is a few whole spacings, which the bins only know by their sum.
    tolerance = 0.01 if stored == "F32" else 0.07
    for factor in (0.05, 0.1, 0.3, 0.5, 0.7, 1.0):
        found = surviving_share(sums, factor, stored=stored, written=written)
        assert found == pytest.approx(simulate(a, b - a, factor, written), abs=tolerance), factor


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.45, 0.7])
def test_what_survives_is_what_rounding_leaves(alpha: float, dtype: str) -> None:
    """A save in the models' own dtype: of the elements that came out different from A, the energy."""
    rng = np.random.default_rng(8)
    raw_a, a = store(0.03 * rng.standard_normal(60_000), dtype)
    raw_b, b = store(a + 2.0**-13 * rng.standard_normal(60_000), dtype)
    _, m = store(a + alpha * (b - a), dtype)
    d = b - a
    moved = float((d[m != a] ** 2).sum() / (d**2).sum())
    sums = MEASURER.measure(raw_a, dtype, raw_b, dtype)
    assert surviving_share(sums, alpha, stored=dtype, written=dtype) == pytest.approx(moved, abs=0.04)


def test_steps_of_one_spacing_survive_from_a_half_on() -> None:
    """Where all steps are one spacing, none survives below alpha 0.5 and all do from there on."""
    a = np.linspace(0.5, 0.99, 900).astype(np.float16)
    sums = MEASURER.measure(a.view("u1"), "F16", np.nextafter(a, np.float16(1)).view("u1"), "F16")
    found = [surviving_share(sums, alpha, stored="F16", written="F16") for alpha in (0.2, 0.49, 0.5, 0.8)]
    assert [0.0, 0.0, 1.0, 1.0] == found
    assert 1.0 == surviving_share(sums, 0.001, stored="F16", written="F32")
    assert 0.0 == surviving_share(sums, 3.9, stored="F16", written="BF16")
    assert 1.0 == surviving_share(sums, 4.0, stored="F16", written="BF16")


def test_a_wider_output_keeps_more() -> None:
    """The share grows with alpha, and with the digits of the output."""
    rng = np.random.default_rng(9)
    raw_a, a = store(0.03 * rng.standard_normal(20_000), "F32")
    raw_b, _ = store(a + 1e-4 * rng.standard_normal(20_000), "F32")
    sums = MEASURER.measure(raw_a, "F32", raw_b, "F32")
    shares = [
        [surviving_share(sums, alpha, stored="F32", written=written) for alpha in (0.01, 0.1, 0.5, 1.0)]
        for written in ("F8_E5M2", "BF16", "F16", "F32")
    ]
    assert all(sorted(row) == row for row in shares)  # type: ignore[type-var]  # none is None here
    assert all(sorted(column) == list(column) for column in zip(*shares, strict=True))  # type: ignore[type-var]
    assert shares[-1] == pytest.approx([1.0] * 4, abs=1e-6)


def test_what_was_not_measured_has_no_share() -> None:
    """No step, no histogram, a storage without fixed spacings, sums beyond fp64."""
    sums = MEASURER.measure(np.ones(4).view("u1"), "F64", np.zeros(4).view("u1"), "F64")
    assert 1.0 == surviving_share(sums, 1.0, stored="F64", written="F16")
    assert surviving_share(sums, 0.0, stored="F64", written="F16") is None
    assert surviving_share(replace(sums, steps=Histogram()), 1.0, stored="F64", written="F16") is None
    assert surviving_share(sums, 1.0, stored="Q4_K", written="F16") is None
    assert surviving_share(sums, 1.0, stored="F64", written="Q4_K") is None
    huge = MEASURER.measure(np.full(4, 1e200).view("u1"), "F64", np.zeros(4).view("u1"), "F64")
    assert surviving_share(huge, 1.0, stored="F64", written="F32") is None


def stored_row(key: str, dtype: str, *, step: float) -> KeyScan:
    """A measured key in a dtype of its own."""
    rng = np.random.default_rng(10)
    raw_a, a = store(0.03 * rng.standard_normal(9000), dtype)
    raw_b, _ = store(a + step * rng.standard_normal(9000), dtype)
    return KeyScan(key, key, a.shape, dtype, dtype, LABELS, MEASURER.measure(raw_a, dtype, raw_b, dtype))


def test_the_share_of_all_keys_weighs_them_by_their_step() -> None:
    """Two keys, one of which survives: the share is the other's lack; a key that stays does not count."""
    keys = [
        stored_row("x", "BF16", step=1e-4),
        stored_row("y", "F32", step=1e-4),
        stored_row("z", "BF16", step=1),
    ]
    steps = {"x": (1.0, 0.1, 0.0), "y": (1.0, 0.2, 0.0)}
    got = predict(scan_of(*keys), steps)
    lost = surviving_share(keys[0].sums, 0.1, stored="BF16", written="BF16")
    x, y = (0.01 * keys[0].sums.sum_dd, 0.04 * keys[1].sums.sum_dd)
    assert lost is not None
    assert lost < 0.2
    assert got.survives == pytest.approx((lost * x + y) / (x + y), rel=1e-6)
    assert predict(scan_of(*keys), {}).survives is None
    wide = predict(scan_of(*keys), steps, dtypes={"x": "F32"})
    assert wide.survives == pytest.approx(1.0)


def test_a_nearly_straight_step_has_a_share_and_one_with_a_base_has_none() -> None:
    """Between fine-tunes slerp moves along b − a, but for little; a − c was not measured in spacings."""
    x = stored_row("x", "F16", step=1e-3)
    straight = predict(scan_of(x), {"x": (1.0, 0.3, 0.0)})
    slerp = predict(scan_of(x), {"x": (1.0 - 1e-4, 0.3, 0.0)})
    assert straight.survives is not None
    assert slerp.survives == pytest.approx(straight.survives, abs=1e-6)
    rng = np.random.default_rng(11)
    a, b, c = rng.standard_normal((3, 100))
    got = predict(scan_of(row("x", a, b, c), base=True), {"x": (1.0, 0.3, -0.3)})
    assert (None, True) == (got.survives, got.norm is not None)


def test_the_warning_names_dtype_alpha_and_share() -> None:
    """One sentence below half, none above; the dtype that loses most, and its alphas."""
    keys = [stored_row("x", "BF16", step=2e-4), stored_row("y", "BF16", step=2e-4)]
    one = survival_warning(scan_of(*keys), dict.fromkeys("xy", (1.0, 0.1, 0.0)))
    share = predict(scan_of(*keys), dict.fromkeys("xy", (1.0, 0.1, 0.0))).survives
    assert share is not None
    assert one == (
        f"a bf16 save at alpha 0.1 leaves {100 * share:.0f} % of the step above rounding: write --dtype "
        "fp32, or take a larger alpha"
    )
    two = survival_warning(scan_of(*keys), {"x": (1.0, 0.1, 0.0), "y": (1.0, 0.2, 0.0)})
    assert two is not None
    assert "at alpha 0.1 … 0.2 leaves" in two
    steps = dict.fromkeys("xy", (1.0, 0.1, 0.0))
    assert survival_warning(scan_of(*keys), steps, dtypes=dict.fromkeys("xy", "F32")) is None
    assert survival_warning(scan_of(*keys), {}) is None
    assert survival_warning(scan_of(*keys), dict.fromkeys("xy", (1.0, 1.0, 0.0))) is None
