"""Written merges that are as predicted pass, in every dtype; whatever else was written does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from analyzer.checkpoints import Checkpoint, open_checkpoint
from analyzer.errors import VerificationError
from analyzer.pocket import base_path, fine_tune_path
from analyzer.prediction.verification import Verification, verify
from analyzer.scan import scan

TORCH = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
PREFIX = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0"
SHAPES = {
    f"{PREFIX}.attn1.to_q.weight": (60, 50),
    f"{PREFIX}.attn2.to_q.weight": (60, 50),
    f"{PREFIX}.attn2.to_out.0.bias": (60,),
    f"{PREFIX}.ff.net.0.proj.weight": (80, 40),
    "model.diffusion_model.out.2.weight": (4, 40, 3, 3),
}
ATTN1, ATTN2, BIAS, FF, OUT = SHAPES
Tensors = dict[str, torch.Tensor]


def weights(seed: int, near: Tensors | None = None, *, step: float = 0.002) -> Tensors:
    """A model of five tensors, or one that lies `step` from another."""
    generator = torch.Generator().manual_seed(seed)
    noise = {key: torch.randn(shape, generator=generator) for key, shape in SHAPES.items()}
    if near is None:
        return {key: 0.04 * value for key, value in noise.items()}
    return {key: near[key].to(torch.float32) + step * value for key, value in noise.items()}


def cast(tensors: Tensors, dtype: str) -> Tensors:
    """All tensors rounded to a dtype."""
    return {key: value.to(TORCH[dtype]) for key, value in tensors.items()}


def blend(a: torch.Tensor, b: torch.Tensor, alpha: float) -> torch.Tensor:
    """A + alpha·(b − a) in fp64."""
    x, y = a.to(torch.float64), b.to(torch.float64)
    return x + alpha * (y - x)


@dataclass(frozen=True)
class Desk:
    """Where models are written, opened and verified."""

    folder: Path
    stack: ExitStack

    def write(self, name: str, tensors: Tensors) -> Checkpoint:
        """A model on disk, opened."""
        path = self.folder / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in tensors.items()}, path)
        return self.stack.enter_context(open_checkpoint(path))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A folder of models; they are closed afterwards."""
    with ExitStack() as stack:
        yield Desk(tmp_path, stack)


def merged(a: Tensors, b: Tensors, alpha: Mapping[str, float], dtype: str) -> Tensors:
    """The weighted sum with an alpha for each key."""
    return {key: blend(a[key], b[key], alpha.get(key, 0.0)).to(TORCH[dtype]) for key in a}


def steps(alpha: Mapping[str, float]) -> dict[str, tuple[float, float, float]]:
    """The coefficients of weighted sums."""
    return {key: (1.0, value, 0.0) for key, value in alpha.items()}


@pytest.mark.parametrize("alpha", [-0.2, 0.01, 0.1, 0.5, 0.9, 1.0, 1.4])
@pytest.mark.parametrize("written", list(TORCH))
@pytest.mark.parametrize("stored", ["F32", "F16", "BF16"])
def test_a_correct_merge_passes(stored: str, written: str, alpha: float, desk: Desk) -> None:
    """Any alpha and any output dtype, also those that swallow the step."""
    a = cast(weights(1), stored)
    b = cast(weights(2, a), stored)
    alphas = dict.fromkeys(a, alpha)
    out = merged(a, b, alphas, written)
    opened = desk.write("a", a), desk.write("b", b)
    found = verify(desk.write("out", out), *opened, scan=scan(*opened), steps=steps(alphas), copies={})
    assert (5, 0, 0) == (found.keys, found.copied, found.unpredicted)
    flat_a, flat_w = (torch.cat([x[key].to(torch.float64).reshape(-1) for key in a]) for x in (a, out))
    measured = {value.statistic: value.measured for value in found.whole.values}
    assert measured["norm"] == pytest.approx(float(flat_w.norm()), rel=1e-9)
    assert measured["distance_a"] == pytest.approx(float((flat_w - flat_a).norm() / flat_a.norm()), rel=1e-7)
    assert {"attn1", "attn2", "ff", "out"} <= {group.name for group in found.groups}


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    alphas=st.lists(st.floats(-1, 2), min_size=5, max_size=5),
    stored=st.sampled_from(["F32", "F16", "BF16"]),
    written=st.sampled_from(list(TORCH)),
    step=st.sampled_from([1e-5, 1e-3, 0.1]),
)
def test_any_alphas_pass(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    alphas: list[float],
    stored: str,
    written: str,
    step: float,
) -> None:
    """An alpha for each key, between models of any distance."""
    with ExitStack() as stack:
        desk = Desk(tmp_path_factory.mktemp("any"), stack)
        a = cast(weights(seed), stored)
        b = cast(weights(seed + 1, a, step=step), stored)
        alpha = dict(zip(SHAPES, alphas, strict=True))
        out = desk.write("out", merged(a, b, alpha, written))
        opened = desk.write("a", a), desk.write("b", b)
        assert 5 == verify(out, *opened, scan=scan(*opened), steps=steps(alpha), copies={}).keys


def test_a_difference_with_a_base_passes(desk: Desk) -> None:
    """A + 0.7·(B − C), from a scan of all three; a key that is A's, and one that has other rows, do not."""
    c = cast(weights(1), "F16")
    a, b = cast(weights(2, c), "F16"), cast(weights(3, c), "F16")
    out = {key: (a[key].double() + 0.7 * (b[key].double() - c[key].double())).half() for key in a}
    opened = desk.write("a", a), desk.write("b", b)
    measured = scan(*opened, base=desk.write("c", c))
    coefficients = dict.fromkeys(a, (1.0, 0.7, -0.7))
    right = desk.write("out", out)
    assert 5 == verify(right, *opened, scan=measured, steps=coefficients, copies={}).keys
    for name, tensor in (("A's", a[FF]), ("rolled", out[FF].roll(1, 0))):
        wrong = desk.write(name, out | {FF: tensor})
        with pytest.raises(VerificationError, match=r"ff\.net\.0\.proj\.weight \(.*\) lies"):
            verify(wrong, *opened, scan=measured, steps=coefficients, copies={})


def half_merge(desk: Desk) -> tuple[Tensors, Tensors, Tensors, Checkpoint, Checkpoint]:
    """A, B, and A with half of B's attn2, all in fp16."""
    a = cast(weights(1), "F16")
    b = cast(weights(2, a), "F16")
    out = a | {key: blend(a[key], b[key], 0.5).half() for key in (ATTN2, BIAS)}
    return a, b, out, desk.write("a", a), desk.write("b", b)


def check(desk: Desk, out: Tensors, a: Checkpoint, b: Checkpoint) -> Verification:
    """Verify a merge of attn2 at 0.5 that keeps the rest."""
    kept = {key: (a, key) for key in (ATTN1, FF, OUT)}
    return verify(
        desk.write("out", out), a, b, steps=steps({ATTN2: 0.5, BIAS: 0.5}), copies=kept, scan=scan(a, b)
    )


def test_kept_keys_are_compared_by_their_bytes(desk: Desk) -> None:
    """They pass as they are, and count in the totals; a zero that changed its sign does not pass."""
    a, _, out, opened_a, opened_b = half_merge(desk)
    found = check(desk, out, opened_a, opened_b)
    assert (2, 3, 5) == (found.keys, found.copied, found.whole.measured.keys)
    assert (0.0, 0.0) == (found.groups[-1].predicted.distance_a, found.groups[-1].measured.distance_a)
    a[FF][0, 0] = 0.0
    with_zero = desk.write("zero", a)
    turned = a | {FF: a[FF].clone()} | {key: out[key] for key in (ATTN2, BIAS)}
    turned[FF][0, 0] = -0.0
    with pytest.raises(VerificationError, match=r"ff\.net\.0\.proj\.weight should hold the bytes of .*zero"):
        check(desk, turned, with_zero, opened_b)


FAULTS: dict[str, tuple[Callable[[Tensors, Tensors, Tensors], Tensors], str]] = {
    "another alpha": (
        lambda a, b, out: {ATTN2: blend(a[ATTN2], b[ATTN2], 0.6).half()},
        r"attn2\.to_q\.weight \(.*attn2/to_q\) lies .* rounding allows .*\(norm .*, predicted",
    ),
    "A's tensor": (lambda a, b, out: {ATTN2: a[ATTN2]}, r"attn2\.to_q\.weight"),
    "B's bias": (lambda a, b, out: {BIAS: b[BIAS]}, r"attn2\.to_out\.0\.bias"),
    "another key's tensor": (lambda a, b, out: {ATTN2: out[ATTN1].clone()}, r"attn2\.to_q\.weight"),
    "rows out of place": (lambda a, b, out: {ATTN2: out[ATTN2].roll(1, 0)}, r"attn2\.to_q\.weight"),
    "the other way": (
        lambda a, b, out: {ATTN2: blend(a[ATTN2], b[ATTN2], -0.5).half()},
        r"attn2\.to_q\.weight",
    ),
    "one value": (lambda a, b, out: {ATTN2: changed(out[ATTN2], 3.0)}, r"attn2\.to_q\.weight"),
    "NaN": (
        lambda a, b, out: {ATTN2: changed(out[ATTN2], float("nan"))},
        r"to_q.*: 1 element is not finite \(where fp16 is too narrow",
    ),
    "bytes that were to be kept": (lambda a, b, out: {OUT: b[OUT]}, r"out\.2\.weight should hold the bytes"),
    "another dtype": (lambda a, b, out: {OUT: a[OUT].float()}, r"out\.2\.weight should hold the bytes"),
}


def changed(tensor: torch.Tensor, value: float) -> torch.Tensor:
    """The tensor with another first value."""
    tensor = tensor.clone()
    tensor.view(-1)[0] = value
    return tensor


@pytest.mark.parametrize("fault", FAULTS)
def test_what_was_not_predicted_is_an_error(fault: str, desk: Desk) -> None:
    """One wrong key is found, and named."""
    change, message = FAULTS[fault]
    a, b, out, opened_a, opened_b = half_merge(desk)
    with pytest.raises(VerificationError, match=message):
        check(desk, out | change(a, b, out), opened_a, opened_b)


@pytest.mark.parametrize("key", [ATTN2, OUT])
def test_a_key_that_is_missing_is_an_error(key: str, desk: Desk) -> None:
    """Merged or kept."""
    _, _, out, a, b = half_merge(desk)
    del out[key]
    with pytest.raises(VerificationError, match=r"2\.weight|to_q\.weight"):
        check(desk, out, a, b)


def test_keys_without_a_prediction_are_left_out(desk: Desk) -> None:
    """As of a method that is not linear: counted, and no part of the totals."""
    _, _, out, opened_a, opened_b = half_merge(desk)
    out[ATTN2] = out[ATTN2] * 2
    found = verify(
        desk.write("out", out),
        opened_a,
        opened_b,
        scan=scan(opened_a, opened_b),
        steps=steps({BIAS: 0.5}),
        copies={key: (opened_a, key) for key in (ATTN1, FF, OUT)},
    )
    assert (1, 3, 1) == (found.keys, found.copied, found.unpredicted)
    keys = (ATTN1, BIAS, FF, OUT)
    expected = np.sqrt(sum(float(out[key].double().square().sum()) for key in keys))
    assert found.whole.measured.norm == pytest.approx(expected)


def test_a_copy_of_another_file_is_compared_with_it(desk: Desk) -> None:
    """As a baked VAE: under another name, and no part of the prediction."""
    _, _, out, a, b = half_merge(desk)
    baked = torch.full((4, 40, 3, 3), 0.5).half()
    vae = desk.write("vae", {"other.name": baked})
    copies = {ATTN1: (a, ATTN1), FF: (a, FF), OUT: (vae, "other.name")}
    coefficients, measured = steps({ATTN2: 0.5, BIAS: 0.5}), scan(a, b)
    found = verify(
        desk.write("out", out | {OUT: baked}), a, b, scan=measured, steps=coefficients, copies=copies
    )
    assert (2, 3, 0) == (found.keys, found.copied, found.unpredicted)
    with pytest.raises(VerificationError, match=r"out\.2\.weight should hold the bytes of .*vae"):
        verify(desk.write("out2", out), a, b, scan=measured, steps=coefficients, copies=copies)


def test_a_plain_cast_passes_and_a_coarser_one_does_not(desk: Desk) -> None:
    """A in bf16 that was to be fp16 has lost three bits more than it may."""
    a = cast(weights(1), "F32")
    b = weights(2, a)
    opened = desk.write("a", a), desk.write("b", b)
    kept = dict.fromkeys(a, (1.0, 0.0, 0.0))
    assert (
        5
        == verify(desk.write("out", cast(a, "F16")), *opened, scan=scan(*opened), steps=kept, copies={}).keys
    )
    coarse = cast(cast(a, "BF16"), "F16")
    with pytest.raises(VerificationError, match=r"lies 0\.00.* rounding allows 0\.0004"):
        verify(desk.write("coarse", coarse), *opened, scan=scan(*opened), steps=kept, copies={})


@pytest.mark.parametrize("alpha", [0.1, 0.6])
def test_scaled_codes_have_the_spacing_of_their_scale(alpha: float, desk: Desk) -> None:
    """fp8 with a scale for each row, written with A's scales: half a code at most, but no other alpha."""
    a, b = weights(1), weights(2, weights(1), step=0.04)
    key, name = FF, FF.removesuffix("weight") + "weight_scale"
    scale = a[key].abs().amax(1, keepdim=True) / 300

    def coded(values: torch.Tensor) -> Tensors:
        return {key: (values / scale).to(torch.float8_e4m3fn), name: scale}

    own = coded(a[key])
    read = own[key].float() * scale
    opened = desk.write("a", own), desk.write("b", {key: b[key]})
    right = desk.write("right", coded(blend(read, b[key], alpha).float()))
    copies = {name: (opened[0], name)}
    found = verify(right, *opened, scan=scan(*opened), steps=steps({key: alpha}), copies=copies)
    assert (1, 1) == (found.keys, found.copied)
    wrong = desk.write("wrong", coded(blend(read, b[key], alpha + 0.3).float()))
    with pytest.raises(VerificationError, match=r"ff\.net\.0\.proj\.weight"):
        verify(wrong, *opened, scan=scan(*opened), steps=steps({key: alpha}), copies=copies)


def test_cut_off_values_are_an_error(desk: Desk) -> None:
    """fp16 ends at 65504: what was to be larger became infinite, and is named."""
    a = {key: 3e4 * value for key, value in weights(1).items()}
    b = {key: -value for key, value in a.items()}
    alphas = dict.fromkeys(a, -1.0)
    a[FF] *= 40
    opened = desk.write("a", a), desk.write("b", b)
    out = merged(a, b, alphas, "F16")
    assert not torch.isfinite(out[FF]).all()
    with pytest.raises(VerificationError, match=r"ff\.net.* elements are not finite .*--dtype bf16 and fp32"):
        verify(desk.write("out", out), *opened, scan=scan(*opened), steps=steps(alphas), copies={})


def test_not_finite_on_purpose_passes(desk: Desk) -> None:
    """Where A holds NaN, so does the merge; a base that holds one leaves its key without a prediction."""
    c = cast(weights(1), "F16")
    a, b = cast(weights(2, c), "F16"), cast(weights(3, c), "F16")
    a[FF] = changed(a[FF], float("nan"))
    out = merged(a, b, dict.fromkeys(a, 0.5), "F16")
    opened = desk.write("a", a), desk.write("b", b)
    written, coefficients = desk.write("out", out), steps(dict.fromkeys(a, 0.5))
    assert 5 == verify(written, *opened, scan=scan(*opened), steps=coefficients, copies={}).keys
    c[OUT] = changed(c[OUT], float("nan"))
    measured = scan(*opened, base=desk.write("c", c))
    found = verify(written, *opened, scan=measured, steps=coefficients, copies={})
    assert (4, 1) == (found.keys, found.unpredicted)


@pytest.mark.parametrize("alpha", [0.1, 0.4])
def test_any_one_wrong_key_of_a_real_merge_is_found(alpha: float, desk: Desk) -> None:
    """Of the trained pair that ships with the package: a key that stayed A's, one at a time."""
    old, new = load_file(base_path()), load_file(fine_tune_path())
    chosen = [key for key in old if ".output_blocks.8." in key and old[key].is_floating_point()]
    old, new = ({key: tensors[key] for key in chosen} for tensors in (old, new))
    a, b = desk.write("a", old), desk.write("b", new)
    measured = scan(a, b)
    right = {key: blend(old[key], new[key], alpha).half() for key in old}
    coefficients = steps({row.key: alpha for row in measured.keys})
    written = desk.write("right", right)
    assert len(old) == verify(written, a, b, scan=measured, steps=coefficients, copies={}).keys
    for place, key in enumerate([row.key for row in measured.keys if row.sums.changed][::3]):
        wrong = desk.write(f"wrong {place}", right | {key: old[key]})
        with pytest.raises(VerificationError, match=re.escape(key)):
            verify(wrong, a, b, scan=measured, steps=coefficients, copies={})
