"""Where an output lies between A's and B's, and how alike pictures are: closed forms and slow references."""

from __future__ import annotations

from math import exp, inf, nan, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from analyzer.experiment.measures import (
    Movement,
    histogram_distance,
    movement,
    relative_distance,
    ssim,
)

examples = settings(max_examples=40)
RNG = np.random.default_rng(8)
X_A, X_B, OTHER = RNG.standard_normal((3, 4, 8, 8)).astype(np.float32)
UNDEFINED = Movement(None, None, None)

values = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
outputs = arrays(np.float32, 6, elements=values)
triples = st.tuples(outputs, outputs, outputs)
# Away from x_A ≈ x_B, where the quotients are noise.
apart = triples.filter(lambda x: float(np.linalg.norm(x[1].astype(float) - x[0])) > 1e-2)
pictures = arrays(np.uint8, (12, 13, 3))


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0, 1.5, -0.5])
def test_a_mixture_lies_on_the_way_to_b(t: float) -> None:
    """x_M = x_A + t·(x_B − x_A) is t of the way there, and nothing else."""
    found = movement(X_A, X_B, X_A + t * (X_B.astype(np.float64) - X_A))
    assert found.toward_b == pytest.approx(t, abs=1e-12)
    assert found.neither == pytest.approx(0, abs=1e-12)
    assert found.moved == pytest.approx(abs(t), abs=1e-12)


def test_a_and_b_themselves_are_exact() -> None:
    assert Movement(0.0, 0.0, 0.0) == movement(X_A, X_B, X_A)
    assert Movement(1.0, 0.0, 1.0) == movement(X_A, X_B, X_B)


@pytest.mark.parametrize(("t", "s"), [(0.0, 1.0), (0.3, 0.7), (1.0, 2.0), (-1.0, 0.1)])
def test_what_is_left_beside_the_way_is_neither(t: float, s: float) -> None:
    """A remainder at right angles, of s times the length of the way."""
    across = X_B.astype(np.float64) - X_A
    aside = OTHER - across * (np.vdot(OTHER, across) / np.vdot(across, across))
    aside *= s * np.linalg.norm(across) / np.linalg.norm(aside)
    found = movement(X_A, X_B, X_A + t * across + aside)
    assert found.toward_b == pytest.approx(t, abs=1e-12)
    assert found.neither == pytest.approx(s, abs=1e-12)


def test_a_small_remainder_keeps_its_digits() -> None:
    """Where √(moved² − toward_b²) would be 0: the squares differ by 1e-18 of themselves."""
    a, b, m = np.array([0.0, 0.0]), np.array([1.0, 0.0]), np.array([0.5, 1e-9])
    assert 1e-9 == movement(a, b, m).neither


@examples
@given(apart)
def test_squares_add(x: tuple[NDArray[np.float32], ...]) -> None:
    found = movement(*x)
    assert found.toward_b is not None
    assert found.neither is not None
    assert found.moved is not None
    assert found.toward_b**2 + found.neither**2 == pytest.approx(found.moved**2, rel=1e-9)


@examples
@given(apart, st.floats(0.01, 100), st.integers(0, 99))
def test_rotating_scaling_and_shifting_everything_changes_nothing(
    x: tuple[NDArray[np.float32], ...], scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    shift = rng.standard_normal(6)
    before = movement(*x)
    after = movement(*(scale * (rotation @ v.astype(np.float64)) + shift for v in x))
    length = max(float(np.abs(x).max()), 1.0) / float(np.linalg.norm(x[1].astype(float) - x[0]))
    # What a rotation rounds, relative to the way from A to B.
    rounding = 1e-13 * length * (1 + (before.moved or 0)) * max(1 / scale, 1)
    for name in ("toward_b", "neither", "moved"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), abs=rounding, rel=1e-9)


@examples
@given(apart)
def test_seen_from_b_the_way_is_the_rest(x: tuple[NDArray[np.float32], ...]) -> None:
    """With A and B exchanged, toward_b becomes 1 − toward_b, and neither stays."""
    a, b, m = (v.astype(np.float64) for v in x)
    one, other = movement(a, b, m), movement(b, a, m)
    assert one.toward_b is not None
    assert one.moved is not None
    near = 1e-9 * (1 + one.moved)
    assert other.toward_b == pytest.approx(1 - one.toward_b, abs=near)
    assert other.neither == pytest.approx(one.neither, abs=near)


def test_integers_do_not_wrap_around() -> None:
    """Pixels are unsigned bytes: 10 − 250 is −240, not 16."""
    a, b, m = (np.full((2, 2, 3), value, np.uint8) for value in (250, 10, 130))
    assert Movement(0.5, 0.0, 0.5) == movement(a, b, m)


def test_there_is_no_way_between_equal_outputs() -> None:
    assert UNDEFINED == movement(X_A, X_A, X_B)


@pytest.mark.parametrize("bad", [nan, inf, -inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_not_finite_has_no_place(bad: float, place: int) -> None:
    outputs = [X_A.copy(), X_B.copy(), OTHER.copy()]
    outputs[place][1, 2, 3] = bad
    assert UNDEFINED == movement(*outputs)


def test_relative_distance_is_the_length_of_the_way_in_lengths_of_a() -> None:
    assert 2.0 == relative_distance(np.array([3.0, 4.0]), np.array([9.0, 12.0]))
    assert None is relative_distance(np.zeros(2), np.ones(2))
    assert None is relative_distance(np.ones(2), np.array([1.0, nan]))


def slow_ssim(this: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """The formula of Wang et al. 2004, window by window, each variance from its differences to the mean."""
    window = [[exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)] for i in range(11)]
    w = np.array(window) / np.sum(window)
    x, y = (0.299 * p[..., 0] + 0.587 * p[..., 1] + 0.114 * p[..., 2] for p in (this, other))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            u, v = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
            mu, mv = (w * u).sum(), (w * v).sum()
            uu, vv = (w * (u - mu) ** 2).sum(), (w * (v - mv) ** 2).sum()
            uv = (w * (u - mu) * (v - mv)).sum()
            found.append((2 * mu * mv + c1) * (2 * uv + c2) / ((mu**2 + mv**2 + c1) * (uu + vv + c2)))
    return float(np.mean(found))


@pytest.mark.parametrize("shape", [(11, 11, 3), (24, 17, 3)])
def test_ssim_is_that_of_the_slow_formula(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(3)
    this = rng.integers(0, 256, shape, dtype=np.uint8)
    noise = rng.integers(-40, 40, shape)
    near = np.clip(this + noise, 0, 255).astype(np.uint8)
    for other in (near, 255 - this, rng.integers(0, 256, shape, dtype=np.uint8), np.zeros_like(this)):
        assert ssim(this, other) == pytest.approx(slow_ssim(this, other), abs=1e-11)


def test_ssim_of_flat_pictures_is_that_of_their_means() -> None:
    """Without structure only luminance is left: (2xy + C1) / (x² + y² + C1)."""
    x, y, c1 = 100.0, 160.0, 6.5025
    this, other = (np.full((16, 16, 3), int(level), np.uint8) for level in (x, y))
    assert ssim(this, other) == pytest.approx((2 * x * y + c1) / (x * x + y * y + c1), abs=1e-9)


@examples
@given(pictures, pictures)
def test_ssim_and_colours_are_symmetric_and_1_and_0_of_equal_pictures(
    this: NDArray[np.uint8], other: NDArray[np.uint8]
) -> None:
    found = ssim(this, other)
    assert found is not None
    assert -1 <= found <= 1 + 1e-12
    assert ssim(other, this) == pytest.approx(found, abs=1e-12)
    assert ssim(this, this) == pytest.approx(1, abs=1e-12)
    assert histogram_distance(this, other) == histogram_distance(other, this)
    assert 0 <= histogram_distance(this, other) <= 1
    assert 0 == histogram_distance(this, this)


def test_a_picture_smaller_than_the_window_has_no_ssim() -> None:
    this = np.zeros((64, 10, 3), np.uint8)
    assert None is ssim(this, this)


def test_colours_in_common_tell_the_distance() -> None:
    """0 wherever the pixels are, 1 where no colour is shared, √(1 − √½) where half of one colour is."""
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    half = np.concatenate([black[:2], white[2:]])
    assert 1.0 == histogram_distance(black, white)
    assert histogram_distance(black, half) == pytest.approx(sqrt(1 - sqrt(0.5)))
    assert 0.0 == histogram_distance(half, half[::-1])
    assert 0.0 == histogram_distance(black, black + 31)  # of the same eighth of each channel
    assert 1.0 == histogram_distance(black, black + np.uint8([0, 0, 32]))


def test_channels_are_not_counted_apart() -> None:
    """Red and blue against black and magenta: each channel has the same values, no colour is the same."""
    red, blue, magenta = [255, 0, 0], [0, 0, 255], [255, 0, 255]
    this, other = np.uint8([[red, blue]]), np.uint8([[[0, 0, 0], magenta]])
    assert 1.0 == histogram_distance(this, other)
