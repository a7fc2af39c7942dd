"""What is said of whole pairs, measured by the real scan: tidy, in order, ten sentences at most."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from analyzer import checkpoints
from analyzer.findings import MOST_FINDINGS, findings
from analyzer.measures import Sums
from analyzer.records import KeyScan, RowCosines, Scan, Spectrum
from analyzer.scan import scan
from analyzer.selectors import select
from analyzer.statistics import STATISTICS

sys.path.append(str(Path(__file__).parent))
from measured import (
    SHARED,
    TEN_BLOCKS,
    Array,
    Arrays,
    hit,
    measure,
    moved,
    rounded,
    row,
    said,
    scan_arrays,
    scan_of,
    still,
    turned,
)

WIDTH = 32
UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP = "cond_stage_model.transformer.text_model."
IDS = f"{CLIP}embeddings.position_ids"


def small_sd1(seed: int = 0) -> dict[str, Array]:
    """A narrow Stable Diffusion 1: matrices of mean zero, gains around one."""
    rng = np.random.default_rng(seed)
    block = "1.transformer_blocks.0"
    names = [
        f"{UNET}{side}_blocks.{n}.{block}.{attention}.to_{x}.weight"
        for side, numbers in (("input", (1, 2, 4, 5, 7, 8)), ("output", range(3, 12)))
        for n in numbers
        for attention in ("attn1", "attn2")
        for x in "qkv"
    ]
    names += [f"{UNET}input_blocks.{n}.0.in_layers.2.weight" for n in (1, 2, 4, 5, 7, 8, 10, 11)]
    names += [f"{UNET}output_blocks.{n}.0.in_layers.2.weight" for n in range(12)]
    names += [f"{CLIP}encoder.layers.{n}.self_attn.{x}_proj.weight" for n in range(3) for x in "qkv"]
    names += [f"{VAE}{side}.mid.attn_1.{x}.weight" for side in ("encoder", "decoder") for x in "qkv"]
    model: dict[str, Array] = {name: rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) for name in names}
    for name in (f"{UNET}input_blocks.1.{block}.norm1.weight", f"{VAE}encoder.norm_out.weight"):
        model[name] = (1 + 0.1 * rng.standard_normal(WIDTH)).astype(np.float32)
    model[IDS] = np.arange(77)[None]
    return model


def tuned(model: Arrays, words: str, *, by: float = 0.1, seed: int = 1) -> dict[str, Array]:
    """The model with every tensor that has these words in its name moved by a share of its length."""
    rng = np.random.default_rng(seed)
    return {
        key: (w + by * rng.standard_normal(w.shape) * w.std()).astype(w.dtype)
        if words in key and w.dtype.kind == "f"
        else w
        for key, w in model.items()
    }


def swapped(model: Arrays, other: Arrays, words: str) -> dict[str, Array]:
    """The model with the other one's tensors of these names."""
    return {key: other[key] if words in key else w for key, w in model.items()}


def with_lora(model: Arrays, rank: int) -> dict[str, Array]:
    """The model with a low-rank change merged into its cross-attention."""
    rng = np.random.default_rng(5)
    return {
        key: (w + 0.02 * rng.standard_normal((WIDTH, rank)) @ rng.standard_normal((rank, WIDTH))).astype(
            w.dtype
        )
        if "attn2" in key
        else w
        for key, w in model.items()
    }


A = small_sd1()
OTHER = small_sd1(9)
PAIRS: Mapping[str, tuple[Arrays, list[str]]] = {
    "identical": (dict(A), ["identical: the two models hold the same values"]),
    "own fp16": (
        {k: w.astype(np.float16) if w.dtype.kind == "f" else w for k, w in A.items()},
        ["only rounding differs: B is A stored as fp16"],
    ),
    "attention tuned": (
        tuned(A, "transformer_blocks"),
        ["relatives: ", "as a whole", "nothing changed in text_encoder and vae", "of the categories only"],
    ),
    "lora": (
        with_lora(A, 2),
        [
            "relatives: ",
            "as a whole",
            "nothing changed in text_encoder and vae",
            "of the categories only attn2",
        ],
    ),
    "swapped vae": (
        swapped(A, OTHER, VAE),
        [
            "what changed (7 of 127 keys, in vae) was replaced or trained apart",
            "nothing changed in text_encoder",
        ],
    ),
    "swapped vae, tuned unet": (
        swapped(tuned(A, UNET), OTHER, VAE),
        ["relatives: ", "vae (6 keys, median cosine", "as a whole", "nothing changed in text_encoder"],
    ),
    "swapped text encoder": (
        swapped(tuned(A, UNET), OTHER, CLIP),
        ["relatives: ", "text_encoder (9 keys, median cosine", "as a whole", "nothing changed in vae"],
    ),
    "position ids": (
        {**A, IDS: np.arange(77)[None] + 1},
        ["identical: all weights", "outside the totals position_ids changed too (1 key)"],
    ),
    "trained apart": (OTHER, ["trained apart: "]),
}


def scanned(write, a: Arrays, b: Arrays, base: Arrays | None = None) -> Scan:  # type: ignore[no-untyped-def]
    """Both models written and measured as users do."""
    paths = [write(f"{name}.safetensors", each) for name, each in (("a", a), ("b", b), ("c", base or a))]
    with (
        checkpoints.open_checkpoint(paths[0]) as first,
        checkpoints.open_checkpoint(paths[1]) as second,
        checkpoints.open_checkpoint(paths[2]) as third,
    ):
        return scan(first, second, base=third if base else None, threads=1)


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_is_told_in_a_few_sentences(name: str, write) -> None:  # type: ignore[no-untyped-def]
    """Those, in this order, whatever stands between them; each selector hits something."""
    b, expected = PAIRS[name]
    result = scanned(write, A, b)
    texts = [finding.text for finding in findings(result)]
    places = [next((i for i, t in enumerate(texts) if t.startswith(start)), -1) for start in expected]
    assert -1 not in places, (expected, texts)
    assert sorted(places) == places
    assert 0 == places[0]
    check(result)


def test_the_real_scan_says_what_an_independent_one_says(write) -> None:  # type: ignore[no-untyped-def]
    """Sentence by sentence, selector by selector, and number by number."""
    for b in (tuned(A, UNET), PAIRS["swapped vae, tuned unet"][0], PAIRS["own fp16"][0]):
        ours, theirs = findings(scan_arrays(A, b)), findings(scanned(write, A, b))
        assert [(f.text, f.statistic, f.selector) for f in ours] == [
            (f.text, f.statistic, f.selector) for f in theirs
        ]
        assert [f.value for f in ours] == pytest.approx([f.value for f in theirs], rel=1e-9)


def test_two_fine_tunes_of_one_base(write) -> None:  # type: ignore[no-untyped-def]
    """What each learned is unrelated, and only one of them touched the text encoder."""
    a, b = tuned(A, UNET, seed=2), tuned(tuned(A, UNET, seed=3), CLIP, seed=4)
    result = scanned(write, a, b, A)
    texts = " | ".join(finding.text for finding in findings(result))
    assert "in text_encoder B did 100% of the change since the base" in texts
    assert "since the base A and B learned unrelated things" in texts
    check(result)


def test_a_lora_is_known_where_spectra_were_measured(write) -> None:  # type: ignore[no-untyped-def]
    """Its sentence stands before what moved, and its selector hits what was trained."""
    result = scanned(write, A, with_lora(A, 2))
    spectrum = Spectrum(1.5, 2, 0.6, 2)
    keys = tuple(replace(k, spectrum=spectrum) if "attn2" in k.key else k for k in result.keys)
    result = replace(result, keys=keys, with_spectrum=True)
    (found,) = said(result, "looks like a LoRA of rank 2")
    assert [key for key in A if "attn2" in key] == sorted(hit(result, found.selector), key=list(A).index)
    check(result)


def test_a_real_pair_that_was_trained_apart() -> None:
    """It is said so first, with the cosine of chance; and no size of change is said of it."""
    paths = [SHARED / "real" / f"silero_vad_v{version}.safetensors" for version in (5, 6)]
    if not all(path.exists() for path in paths):
        pytest.skip("needs the real models")
    with checkpoints.open_checkpoint(paths[0]) as a, checkpoints.open_checkpoint(paths[1]) as b:
        result = scan(a, b, threads=1)
    first, *others = findings(result)
    assert first.text.startswith("trained apart: the median cosine of the 12 keys")
    assert "0 ± 0.004" in first.text
    assert ["nothing changed in stft (2 keys, equal values)"] == [finding.text for finding in others]
    check(result)


def test_no_family_silences_another() -> None:
    """Where more than ten sentences have evidence, the longest families are cut, and each still speaks."""
    lora = Spectrum(1.5, 2, 0.6, 2)
    rows = [row("most", moved(0.5, 5000)), row("least", moved(0.01, 5000)), row("many", moved(0.1, 90_000))]
    rows += [replace(row("lora", moved(0.1), shape=(20, 50)), spectrum=lora) for _ in range(3)]
    rows += [row(f"still{n}", still(), part="vae", block="VAE") for n in range(3)]
    rows += [row("still", still()), row("rounded", rounded()), row("x", still(), kind="bias")]
    rows += [row("odd", moved(0.3 if n == 9 else 0.1), block=block) for n, block in enumerate(TEN_BLOCKS)]
    rows += [row("ids", Sums(77, 77, 0, changed=3), kind="other", counted=False)]
    rows += [row("nan", replace(turned(0.99), nonfinite_a=1, nonfinite_b=1))]
    turn = replace(row("rows", moved(0.1, 4000), shape=(100, 40)), row_cosines=RowCosines(0.1, 0.95, 0.99))
    result = scan_of(*rows, turn)
    texts = [finding.text for finding in findings(result)]
    assert MOST_FINDINGS == len(texts)
    for words in (
        "relatives",
        "NaN or Inf",
        "as a whole",
        "LoRA",
        "most",
        "nothing changed",
        "only rounding",
    ):
        assert any(words in text for text in texts), words
    check(result)


SUMS = st.one_of(
    st.floats(-1, 1).map(turned),
    st.floats(1e-6, 10).map(moved),
    st.sampled_from([still(), rounded(), still(10), Sums(), Sums(1000, 0, 0, nonfinite_b=1000)]),
    st.integers(0, 2**32 - 1).map(
        lambda seed: measure(*np.random.default_rng(seed).standard_normal((2, 1200)).astype(np.float32))
    ),
)
KEYS = st.builds(
    lambda path, sums, part, block, kind: row(path, sums, part=part, block=block, kind=kind),
    st.sampled_from(["attn/q", "attn/k", "ff", "norm", "vae", "IN01"]),
    SUMS,
    st.sampled_from(["unet", "vae", "text_encoder"]),
    st.sampled_from(TEN_BLOCKS),
    st.sampled_from(["weight", "bias"]),
)


@example(  # of two keys each, a part and a component that are called alike
    [
        row("vae", rounded(), part="vae"),
        row("norm", rounded(), part="vae"),
        row("vae", rounded(), part="text_encoder"),
        row("ff", moved(0.1), part="text_encoder"),
    ]
)
@given(st.lists(KEYS, max_size=14))
def test_whatever_a_scan_holds_its_findings_are_sound(rows: list[KeyScan]) -> None:
    """One to ten, each with a known statistic, a finite number or none, and a selector that works."""
    check(scan_of(*rows))


def check(result: Scan) -> None:
    """What holds of the findings of any scan."""
    found = findings(result)
    assert 1 <= len(found) <= MOST_FINDINGS
    assert len({finding.text for finding in found}) == len(found)
    for finding in found:
        assert finding.statistic in {*STATISTICS, "count"}
        assert finding.value is None or np.isfinite(finding.value)
        assert type(finding.value) in (int, float, type(None))  # a scan file holds no others
        if finding.selector:
            assert select(finding.selector, rows=result.keys, blocks=result.blocks)
