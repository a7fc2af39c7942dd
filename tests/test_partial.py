"""Vocabularies, input channels and output heads that two models do not have alike, from names to files."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from analyzer.partial import common_part, describe_parts
from analyzer.records import ShapeMismatch, TensorInfo

sys.path.append(str(Path(__file__).resolve().parent / "layouts"))
import layouts

Arrays = dict[str, np.ndarray]
Run = Callable[..., object]
Shape = tuple[int, ...]

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
CONV = "model.diffusion_model.input_blocks.0.0.weight"


def info(shape: Shape) -> TensorInfo:
    return TensorInfo("w", "F32", shape, 0, 4 * math.prod(shape))


# --- Which tensors have a common part ---


@pytest.mark.parametrize(
    "name",
    [
        *("embed_tokens.weight", "model.embed_tokens.weight", "lm_head.weight", "lm_head.bias", "wte.weight"),
        *(
            "shared.weight",
            "encoder.embed_tokens.weight",
            "embeddings.word_embeddings.weight",
            "embed_in.weight",
        ),
        *("embed_out.weight", "token_embd.weight", "output.weight", "cls.predictions.decoder.weight"),
        *("cls.predictions.bias", "text_model.embeddings.token_embedding.weight", "vocab_projector.weight"),
    ],
)
def test_rows_of_a_vocabulary_are_common(name: str) -> None:
    """The leading rows of the longer one, whichever it is; of a bias the leading numbers."""
    tail: Shape = () if name.endswith("bias") else (3,)
    for a, b in ((7, 5), (5, 7)):
        found = common_part(name, info((a, *tail)), info((b, *tail)))
        assert found is not None
        assert [(5, *tail)] * 2 == [side.shape for side in found]


@pytest.mark.parametrize(
    ("name", "tail"),
    [
        ("input_blocks.0.0.weight", (3, 3)),
        ("model.diffusion_model.input_blocks.0.0.weight", (3, 3)),
        ("conv_in.weight", (3, 3)),
        ("img_in.weight", ()),
        ("x_embedder.weight", ()),
        ("x_embedder.proj.weight", (2, 2)),
        ("pos_embed.proj.weight", (2, 2)),
        ("patch_embedding.weight", (1, 2, 2)),
    ],
)
def test_input_channels_of_a_denoiser_are_common(name: str, tail: Shape) -> None:
    """Inpainting and control models see more channels behind those of the latent."""
    for a, b in ((9, 4), (4, 9), (8, 9)):
        found = common_part(name, info((6, a, *tail)), info((6, b, *tail)))
        assert found is not None
        assert [(6, min(a, b), *tail)] * 2 == [side.shape for side in found]


@pytest.mark.parametrize(
    ("name", "a", "b"),
    [
        ("layers.0.mlp.up_proj.weight", (4, 9), (4, 4)),  # a linear layer of another width
        ("layers.0.self_attn.q_proj.weight", (9, 4), (4, 4)),
        ("embed_tokens.weight", (9, 4), (7, 5)),  # another width besides
        ("embed_tokens.weight", (9, 4), (9, 5)),
        ("input_blocks.0.0.weight", (8, 4, 3, 3), (4, 4, 3, 3)),
        ("input_blocks.0.0.weight", (4, 9, 3, 3), (4, 4, 1, 1)),
        ("input_blocks.0.0.weight", (4, 9, 3, 3), (4, 9)),
        ("input_blocks.0.0.weight", (4, 0, 3, 3), (4, 4, 3, 3)),  # nothing in common
        ("input_blocks.0.0.bias", (9,), (4,)),
        ("encoder.conv_in.weight", (4, 9, 3, 3), (4, 3, 3, 3)),  # a VAE's pictures
        ("decoder.conv_in.weight", (4, 16, 3, 3), (4, 4, 3, 3)),
        ("controlnet_cond_embedding.conv_in.weight", (4, 6, 3, 3), (4, 3, 3, 3)),
        ("embeddings.position_embeddings.weight", (9, 4), (7, 4)),
        ("attn_output.weight", (9, 4), (7, 4)),
        ("not_embed_tokens.weight", (9, 4), (7, 4)),
    ],
)
def test_anything_else_of_another_shape_is_another_layer(name: str, a: Shape, b: Shape) -> None:
    """Nothing is compared."""
    assert common_part(name, info(a), info(b)) is None
    assert common_part(name, info(b), info(a)) is None


def test_what_is_left_out_is_told_once() -> None:
    """Tensors that differ in the same way share a sentence, and long lists are cut."""
    rows = [ShapeMismatch(f"e{n}", (32_000, 8), (32_016, 8)) for n in range(5)]
    assert [
        "e0, e1, e2 and 2 more: the first 32,000 rows are compared, B's other 16 are left out",
        "x: the first 8 input channels are compared, A's other 1 is left out",
    ] == describe_parts([*rows, ShapeMismatch("x", (4, 9, 3, 3), (4, 8, 3, 3))])


# --- From files to files ---


def llama(rows: int, seed: int, *, head: bool = True) -> Arrays:
    """A model of one layer with so many tokens."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, Shape] = {
        EMBEDDING: (rows, 8),
        "model.layers.0.input_layernorm.weight": (8,),
        "model.layers.0.self_attn.q_proj.weight": (8, 8),
        "model.layers.0.mlp.down_proj.weight": (8, 16),
        "model.norm.weight": (8,),
    }
    shapes |= {HEAD: (rows, 8)} if head else {}
    return {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}


def write(path: Path, tensors: Arrays) -> Path:
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, path)
    return path


def scanned(run: Run, a: Path, b: Path, *options: str) -> dict[str, object]:
    result = run("scan", a, b, "--json", "--quiet", *options)
    assert (0, "") == (result.code, result.err)
    document: dict[str, object] = json.loads(result.out)
    return document


def rows(document: dict[str, object]) -> dict[str, dict[str, object]]:
    return {row["key"]: row for row in document["keys"]}


def norm_of_change(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(b.astype(np.float64) - a.astype(np.float64)))


@pytest.mark.parametrize(("rows_a", "rows_b"), [(40, 48), (48, 40)])
def test_vocabularies_are_compared_in_their_common_rows(
    run: Run, tmp_path: Path, rows_a: int, rows_b: int
) -> None:
    """`slice`, `shape_mismatch` and a note say so; the statistics are those of the rows; a merge keeps A."""
    a, b = llama(rows_a, 1), llama(rows_b, 2)
    file_a, file_b = write(tmp_path / "a.safetensors", a), write(tmp_path / "b.safetensors", b)
    document = scanned(run, file_a, file_b)
    assert [
        {"key": key, "shape_a": [rows_a, 8], "shape_b": [rows_b, 8]} for key in (HEAD, EMBEDDING)
    ] == document["shape_mismatch"]
    longer = "A" if rows_a > rows_b else "B"
    text = f"{HEAD}, {EMBEDDING}: the first 40 rows are compared, {longer}'s other 8 are left out"
    assert [text] == document["notes"]
    found = rows(document)
    assert set(a) == set(found)
    for key in (HEAD, EMBEDDING):
        row = found[key]
        assert ([rows_a, 8], [40, 8], 320) == (row["shape"], row["slice"], row["sums"]["numel"])
        expected = norm_of_change(a[key][:40], b[key][:40])
        assert expected == pytest.approx(row["statistics"]["norm_delta"], rel=1e-12)
    assert "slice" not in found["model.norm.weight"]
    result = run("merge", file_a, file_b, "-o", tmp_path / "out.safetensors", "--alpha", "1")
    assert 0 == result.code
    merged = load_file(tmp_path / "out.safetensors")
    for key, values in merged.items():
        np.testing.assert_array_equal(a[key] if key in (HEAD, EMBEDDING) else b[key], values)
    plan = run("merge", file_a, file_b, "-o", tmp_path / "o.safetensors", "--alpha", "1", "--dry-run")
    assert f"{rows_a}×8 in A, {rows_b}×8 in B" in plan.out


def inpainting(channels: int, seed: int) -> Arrays:
    """SD 1.5, small, with so many input channels."""
    tensors = layouts.tiny("sd15-ldm", seed=seed, divisor=512)
    rng = np.random.default_rng(seed + 100)
    keys = [key for key in tensors if key.startswith("model.diffusion_model.")]
    shape = (tensors[CONV].shape[0], channels, 3, 3)
    return {key: tensors[key] for key in keys} | {CONV: rng.standard_normal(shape).astype(np.float32)}


@pytest.mark.parametrize(("channels_a", "channels_b"), [(9, 4), (4, 9), (8, 4), (9, 8)])
def test_input_channels_are_compared_in_their_common_part(
    run: Run, tmp_path: Path, channels_a: int, channels_b: int
) -> None:
    """Inpainting and pix2pix models against others, either way."""
    a, b = inpainting(channels_a, 1), inpainting(channels_b, 2)
    file_a, file_b = write(tmp_path / "a.safetensors", a), write(tmp_path / "b.safetensors", b)
    document = scanned(run, file_a, file_b)
    common = min(channels_a, channels_b)
    row = rows(document)[CONV]
    assert [a[CONV].shape[0], common, 3, 3] == row["slice"]
    expected = norm_of_change(a[CONV][:, :common], b[CONV][:, :common])
    assert expected == pytest.approx(row["statistics"]["norm_delta"], rel=1e-12)
    assert [CONV] == [each["key"] for each in document["shape_mismatch"]]
    assert 0 == run("merge", file_a, file_b, "-o", tmp_path / "out.safetensors", "--alpha", "1").code
    np.testing.assert_array_equal(a[CONV], load_file(tmp_path / "out.safetensors")[CONV])


@pytest.mark.parametrize("swapped", [False, True])
def test_input_channels_are_compared_across_layouts(run: Run, tmp_path: Path, swapped: bool) -> None:
    """An inpainting model in LDM against the first layer of diffusers' U-Net, and the other way round."""
    a, b = inpainting(9, 1), inpainting(4, 2)
    there = {"conv_in.weight": b[CONV], "conv_in.bias": b[CONV.replace("weight", "bias")]}
    there["down_blocks.0.resnets.0.time_emb_proj.bias"] = np.ones(
        a["model.diffusion_model.input_blocks.1.0.emb_layers.1.bias"].shape, np.float32
    )
    file_a, file_b = write(tmp_path / "a.safetensors", a), write(tmp_path / "b.safetensors", there)
    document = scanned(run, *((file_b, file_a) if swapped else (file_a, file_b)))
    row = rows(document)["conv_in.weight" if swapped else CONV]
    assert [a[CONV].shape[0], 4, 3, 3] == row["slice"]
    expected = norm_of_change(a[CONV][:, :4], b[CONV])
    assert expected == pytest.approx(row["statistics"]["norm_delta"], rel=1e-12)


# --- Heads ---


def test_a_head_that_is_the_embedding_counts_once(run: Run, tmp_path: Path) -> None:
    """Stored in both models as a copy: listed, but in no total and no ranking; the note says which."""
    a, b = llama(40, 1), llama(40, 2)
    a[HEAD], b[HEAD] = a[EMBEDDING].copy(), b[EMBEDDING].copy()
    file_a, file_b = write(tmp_path / "a.safetensors", a), write(tmp_path / "b.safetensors", b)
    document = scanned(run, file_a, file_b, "-o", str(tmp_path / "scan.json"))
    assert [f"{HEAD} is tied to {EMBEDDING} in both models, so it counts in no total"] == document["notes"]
    assert set(a) == set(rows(document))
    numel = sum(values.size for key, values in a.items() if key != HEAD)
    assert numel == document["totals"]["statistics"]["numel"]
    ranking = run("rank", tmp_path / "scan.json", "--format", "csv")
    assert (0, True) == (ranking.code, "embed_tokens" in ranking.out)
    assert "lm_head" not in ranking.out


def test_a_head_of_its_own_counts(run: Run, tmp_path: Path) -> None:
    """Tied in one model only, or in none: two tensors."""
    a, b = llama(40, 1), llama(40, 2)
    b[HEAD] = b[EMBEDDING].copy()
    document = scanned(run, write(tmp_path / "a.safetensors", a), write(tmp_path / "b.safetensors", b))
    assert [] == document["notes"]
    assert sum(values.size for values in a.values()) == document["totals"]["statistics"]["numel"]


def test_a_head_that_b_lacks_is_compared_and_merged_with_its_embedding(run: Run, tmp_path: Path) -> None:
    """B's output is its embedding."""
    a, b = llama(40, 1), llama(40, 2, head=False)
    file_a, file_b = write(tmp_path / "a.safetensors", a), write(tmp_path / "b.safetensors", b)
    document = scanned(run, file_a, file_b)
    row = rows(document)[HEAD]
    assert EMBEDDING == row["key_b"]
    expected = norm_of_change(a[HEAD], b[EMBEDDING])
    assert expected == pytest.approx(row["statistics"]["norm_delta"], rel=1e-12)
    assert [f"{HEAD}: is compared with {EMBEDDING} of B, which ties the two"] == document["notes"]
    assert ([], []) == (document["only_in_a"], document["only_in_b"])
    assert 0 == run("merge", file_a, file_b, "-o", tmp_path / "out.safetensors", "--alpha", "1").code
    np.testing.assert_array_equal(b[EMBEDDING], load_file(tmp_path / "out.safetensors")[HEAD])


def test_a_head_that_a_lacks_is_listed(run: Run, tmp_path: Path) -> None:
    """A is written as it is, without one."""
    a, b = llama(40, 1, head=False), llama(40, 2)
    document = scanned(run, write(tmp_path / "a.safetensors", a), write(tmp_path / "b.safetensors", b))
    assert [HEAD] == document["only_in_b"]
    assert set(a) == set(rows(document))


def test_shards_under_other_names_are_one_model(run: Run, tmp_path: Path) -> None:
    """A base model in two shards against a single file with a head: identical where both have weights."""
    a = llama(40, 1)
    base = {key.removeprefix("model."): values for key, values in a.items() if key != HEAD}
    first = {key: values for key, values in base.items() if "layers" in key}
    second = {key: values for key, values in base.items() if "layers" not in key}
    shards = {"model-00001-of-00002.safetensors": first, "model-00002-of-00002.safetensors": second}
    for name, own in shards.items():
        write(tmp_path / "b" / name, own)
    index = {"weight_map": {key: name for name, own in shards.items() for key in own}}
    (tmp_path / "b" / "model.safetensors.index.json").write_text(json.dumps(index))
    document = scanned(run, write(tmp_path / "a.safetensors", a), tmp_path / "b")
    assert {f"model.{key}": key for key in base} == {r["key"]: r["key_b"] for r in document["keys"]}
    assert ("same", [HEAD]) == (document["kinship"], document["only_in_a"])


# --- Averages ---


def test_averages_count_where_they_are_asked_for(run: Run, tmp_path: Path) -> None:
    """EMA copies, a schedule and a marker are listed and in no total; `part:ema` has them measured."""
    key = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
    ema = "model_ema.diffusion_modelinput_blocks10in_layers2weight"
    models = []
    for seed, name in enumerate("ab"):
        tensors = inpainting(4, seed)
        tensors = {k: v for k, v in tensors.items() if "emb_layers" in k or k in (key, CONV)}
        rng = np.random.default_rng(seed)
        tensors |= {ema: rng.standard_normal(tensors[key].shape).astype(np.float32)}
        tensors |= {"betas": rng.standard_normal(5).astype(np.float32), "v_pred": np.empty(0, np.float32)}
        tensors |= {"model_ema.decay": np.float32(0.5 + seed)[None]}
        models.append(tensors)
        write(tmp_path / f"{name}.safetensors", tensors)
    files = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    document = scanned(run, *files)
    found = rows(document)
    assert set(models[0]) == set(found)
    assert ["ema", "ema", "other"] == [found[k]["part"] for k in (ema, "model_ema.decay", "betas")]
    assert ["schedule", "marker"] == [found[k]["component"] for k in ("betas", "v_pred")]
    beside = (ema, "betas", "v_pred", "model_ema.decay")
    assert all(found[k]["statistics"]["energy_share"] is None for k in beside)
    numel = sum(values.size for k, values in models[0].items() if k not in beside)
    assert numel == document["totals"]["statistics"]["numel"]
    document = scanned(run, *files, "--only", "part:ema")
    assert {ema, "model_ema.decay"} == set(rows(document))
    expected = norm_of_change(models[0][ema], models[1][ema])
    assert expected == pytest.approx(rows(document)[ema]["statistics"]["norm_delta"], rel=1e-12)


def test_strangers_end_in_one_sentence(run: Run, tmp_path: Path) -> None:
    """Exit code 1, what was compared, and no traceback."""
    a = write(tmp_path / "a.safetensors", llama(40, 1))
    b = write(tmp_path / "b.safetensors", inpainting(4, 1))
    result = run("scan", a, b)
    assert (1, "") == (result.code, result.out)
    for word in ("a.safetensors", "b.safetensors", f"'{HEAD}'", "have no key in common", "not two versions"):
        assert word in " ".join(result.err.split())
