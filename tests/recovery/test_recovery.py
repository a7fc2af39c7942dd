"""What merges were made of, found in files: alphas by group in any layout and dtype, what is foreign."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import PairingError, SelectorError
from analyzer.merge import merge, plan_merge
from analyzer.merging.inputs import Inputs
from analyzer.recipes.recipe import Recipe
from analyzer.recovery import Group, Parents, Recovered, Recovery, groups, recover, recovered
from analyzer.recovery.sentences import command, is_whole, sentences

sys.path.append(str(Path(__file__).resolve().parents[1]))
import test_cross_layout as layouts

Arrays = dict[str, np.ndarray]
Write = Callable[..., Path]
Unet = Callable[[int], Arrays]

# Tensors of Flux that are fused in Black Forest Labs' layout, and what they are in that of diffusers.
FLUX = {
    "double_blocks.0.img_attn.qkv": [f"transformer_blocks.0.attn.to_{word}" for word in "qkv"],
    "double_blocks.0.txt_attn.qkv": [f"transformer_blocks.0.attn.add_{word}_proj" for word in "qkv"],
    "double_blocks.1.img_attn.qkv": [f"transformer_blocks.1.attn.to_{word}" for word in "qkv"],
}


def look(m: Path, a: Path, b: Path, c: Path | None = None, **options: object) -> tuple[Recovery, Recovered]:
    """The recovery of three files or four."""
    with open_checkpoint(m) as model_m, open_checkpoint(a) as model_a, open_checkpoint(b) as model_b:
        if c is None:
            found = recover(model_m, Parents(model_a, model_b), **options)  # type: ignore[arg-type]
        else:
            with open_checkpoint(c) as model_c:
                parents = Parents(model_a, model_b, model_c)
                found = recover(model_m, parents, **options)  # type: ignore[arg-type]
    return found, recovered(found)


def near(a: Arrays, seed: int, size: float = 0.05) -> Arrays:
    """A model trained on from `a`: every floating-point value moved."""
    rng = np.random.default_rng(seed)
    return {
        k: v if v.dtype.kind == "i" else (v + size * rng.standard_normal(v.shape)).astype(v.dtype)
        for k, v in a.items()
    }


def blend(a: Arrays, b: Arrays, alpha_of: Callable[[str], float], dtype: type = np.float16) -> Arrays:
    """A + alpha·(B − A) in fp64, rounded once; integers are A's."""
    return {
        k: v
        if v.dtype.kind == "i"
        else (v.astype(float) + alpha_of(k) * (b[k].astype(float) - v)).astype(dtype)
        for k, v in a.items()
    }


def by_name(found: tuple[Recovery, Recovered], axis: str = "block") -> Mapping[str, Group]:
    return {group.name: group for group in groups(found[0], found[1].form, axis=axis)}


def block_alpha(key: str) -> float:
    """An alpha for each block of the miniature U-Net."""
    if not key.startswith("model.diffusion_model."):
        return 0.6
    if ".input_blocks." in key:
        return 0.1 + 0.1 * int(key.split(".input_blocks.")[1].split(".")[0])
    return 0.05 if ".time_embed." in key else 0.9 if ".middle_block." in key else 0.35


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_alphas_by_block_are_found(dtype: type, unet: Unet, write: Write) -> None:
    """To 1e-3 and better, from a merge in either dtype, each with the error that it is given."""
    a = unet(1)
    b = near(a, 2)
    m = blend(a, b, block_alpha, dtype)
    found = look(*(write(f"{n}.safetensors", x) for n, x in (("m", m), ("a", a), ("b", b))))
    of_block = by_name(found)
    expected = {"IN01": 0.2, "IN02": 0.3, "IN03": 0.4, "M00": 0.9, "OUT11": 0.35, "BASE": 0.6, "VAE": 0.6}
    for block, alpha in expected.items():
        group = of_block[block]
        assert alpha == pytest.approx(group.alpha, abs=1e-3)
        assert group.fit.alpha is not None
        assert group.fit.error is not None
        assert abs(group.fit.alpha - alpha) <= group.fit.error < 1e-2
        assert (None, 0.0) == (group.spread, group.unexplained)
    assert (0.05, 0.1) == pytest.approx(of_block["IN00"].spread, abs=1e-3)  # time_embed and conv_in
    assert found[1].made is not None
    assert found[1].made.exact


def test_a_merge_in_the_arithmetic_of_fp16_is_found(write: Write) -> None:
    """Two products and their sum, each rounded to fp16: no alpha fits every element, and 1e-3 holds."""
    rng = np.random.default_rng(3)
    a = {f"model.layers.{i}.mlp.up_proj.weight": rng.standard_normal((90, 90)).astype("f2") for i in range(3)}
    b = near(a, 4)
    m = {k: (v * np.float16(0.7) + b[k] * np.float16(0.3)).astype(np.float16) for k, v in a.items()}
    found = look(*(write(f"{n}.safetensors", x) for n, x in (("m", m), ("a", a), ("b", b))))
    assert found[1].made is not None
    assert 0.3 == pytest.approx(found[1].made.alpha, abs=1e-3)
    assert 0.0 == found[1].whole.unexplained
    assert found[1].whole.fit.low is None


def test_the_same_numbers_whatever_the_threads(unet: Unet, write: Write) -> None:
    """To the last bit."""
    a = unet(1)
    b = near(a, 2)
    paths = [write(f"{n}.safetensors", x) for n, x in (("m", blend(a, b, block_alpha)), ("a", a), ("b", b))]
    assert look(*paths, threads=1)[0].rows == look(*paths, threads=3)[0].rows


@pytest.mark.parametrize("fused", ["mabc", "m", "a", "b", "c", "ma", "mb", "ab", ""])
def test_layouts_may_differ(fused: str, write: Write) -> None:
    """A merge, its parents and a third model, each fused or split: the same alphas of the same rows."""
    rng = np.random.default_rng(7)
    a = {key: rng.standard_normal((64 * len(parts), 64)) for key, parts in FLUX.items()}
    sides = {"a": a, **{n: {k: v + 0.1 * rng.standard_normal(v.shape) for k, v in a.items()} for n in "bc"}}
    sides["m"] = {k: v + 0.4 * (sides["b"][k] - v) + 0.25 * (sides["c"][k] - v) for k, v in a.items()}
    paths = {}
    for name, tensors in sides.items():
        stored = dict(tensors)
        if name not in fused:
            stored = {
                part: np.ascontiguousarray(rows)
                for key, parts in FLUX.items()
                for part, rows in zip(parts, np.split(tensors[key], len(parts)), strict=True)
            }
        paths[name] = write(f"{name}.safetensors", {f"{k}.weight": v for k, v in stored.items()})
    found = look(*(paths[name] for name in "mabc"))
    assert "sum" == found[1].form
    assert found[1].made is not None
    assert (0.4, 0.25) == (found[1].made.alpha, found[1].gamma)
    assert sum(v.size for v in a.values()) == found[1].whole.gram.n
    leaves = groups(found[0], "sum", axis="component", depth="full")
    assert all(0.4 == pytest.approx(leaf.fit.alpha, abs=1e-6) for leaf in leaves)
    if "a" in fused and len(fused) == 1:
        assert {"q", "k", "v"} == {leaf.place[0].rpartition("/")[2] for leaf in leaves}


@pytest.mark.parametrize("folders", ["m", "b", "mb", "a"])
def test_a_file_and_folders_of_diffusers(folders: str, tmp_path: Path) -> None:
    """SD 1.5, each model in either of its layouts: the same alphas of the same blocks."""
    a, b = layouts.single_file("SD 1.5"), layouts.single_file("SD 1.5", seed=2)
    m = blend(a, b, block_alpha, np.float32)
    paths = [
        layouts.write_folder(tmp_path / name, "SD 1.5", tensors)
        if name in folders
        else layouts.write_file(tmp_path / f"{name}.safetensors", tensors)
        for name, tensors in (("m", m), ("a", a), ("b", b))
    ]
    found = look(*paths)
    of_block = by_name(found)
    alphas = [of_block[block].alpha for block in ("IN01", "IN05", "M00", "BASE")]
    assert [0.2, 0.6, 0.9, 0.6] == pytest.approx(alphas, abs=1e-3)
    assert 0.0 == found[1].whole.unexplained


def test_dtypes_may_differ(unet: Unet, write: Write) -> None:
    """fp32 and fp16 parents of an fp64 merge."""
    a = {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in unet(1).items()}
    b = near(unet(1), 2)
    m = blend(a, b, lambda _: 0.125, np.float64)
    found = look(*(write(f"{n}.safetensors", x) for n, x in (("m", m), ("a", a), ("b", b))))
    assert found[1].made is not None
    assert 0.125 == found[1].made.alpha


def test_add_difference_is_recognised(unet: Unet, write: Write) -> None:
    """Where gamma is −alpha: said so in words, and the command has the method and its base."""
    a = unet(1)
    c = unet(9)
    b = near(c, 2)
    m = {
        k: v if v.dtype.kind == "i" else (v + 0.8 * (b[k].astype(float) - c[k])).astype(np.float16)
        for k, v in a.items()
    }
    paths = [write(f"{n}.safetensors", x) for n, x in (("m", m), ("a", a), ("b", b), ("c", c))]
    found = look(*paths)
    assert "difference" == found[1].form
    assert found[1].made is not None
    assert 0.8 == pytest.approx(found[1].made.alpha, abs=1e-3)
    assert "Add difference" in sentences(*found)[0]
    text = command(*found)
    assert text is not None
    assert f"--method add_difference --base {paths[3]}" in text


def test_a_third_model_that_has_no_part_is_named(unet: Unet, write: Write) -> None:
    """The merge of A and B alone."""
    a = unet(1)
    b, c = near(a, 2), near(a, 3)
    models = (("m", blend(a, b, lambda _: 0.3)), ("a", a), ("b", b), ("c", c))
    found = look(*(write(f"{n}.safetensors", x) for n, x in models))
    assert "of B" == found[1].form
    assert sentences(*found)[0].startswith("C has no part in it")


def test_a_model_that_is_no_merge_has_a_residual_near_one(unet: Unet, write: Write) -> None:
    """And is said not to be made of the two."""
    a = unet(1)
    b, m = near(a, 2), near(a, 3)
    found = look(*(write(f"{n}.safetensors", x) for n, x in (("m", m), ("a", a), ("b", b))))
    assert found[1].whole.unexplained is not None
    assert 0.97 < found[1].whole.unexplained <= 1
    assert any("A and B do not explain it" in text for text in sentences(*found))


def slerped(a: Arrays, b: Arrays, alpha: float) -> Arrays:
    """The great circle from A to B, tensor by tensor, in fp64 and rounded once."""

    def turn(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        p, q = x.astype(float), y.astype(float)
        angle = np.arccos(np.sum(p * q) / np.linalg.norm(p) / np.linalg.norm(q))
        whole = np.sin((1 - alpha) * angle) * p + np.sin(alpha * angle) * q
        return np.asarray((whole / np.sin(angle)).astype(x.dtype))

    return {k: v if v.dtype.kind == "i" else turn(v, b[k]) for k, v in a.items()}


def test_what_is_only_near_is_not_called_the_merge(unet: Unet, write: Write) -> None:
    """A great circle is a straight line but for half a percent: said so, and no command makes it again."""
    a = {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in unet(1).items()}
    b = near(a, 2, size=0.25)
    found = look(*(write(f"{n}.safetensors", x) for n, x in (("m", slerped(a, b, 0.3)), ("a", a), ("b", b))))
    assert 0.001 < (found[1].whole.unexplained or 0) < 0.02
    assert sentences(*found)[0].startswith("Nearest is A + ")
    assert not is_whole(found[1])


def test_a_lora_is_placed_and_nothing_of_b_is_found(unet: Unet, write: Write) -> None:
    """Something else in attn2 alone: its name, and no alpha of 0 that would hold throughout."""
    a = {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in unet(1).items()}
    rng = np.random.default_rng(5)
    low = {k for k, v in a.items() if "attn2" in k and v.ndim == 2}
    m = {
        k: v + 0.1 * np.outer(*(rng.standard_normal(n) for n in v.shape)).astype(v.dtype) if k in low else v
        for k, v in a.items()
    }
    found = look(*(write(f"{n}.safetensors", x) for n, x in (("m", m), ("a", a), ("b", near(a, 2)))))
    said = sentences(*found)
    assert "Nearest is A, with nothing of B" == said[0]
    assert "is no step from A towards B, most of it in attn2: A and B do not explain it" in said[1]
    assert ("attn2",) == found[1].where


def test_a_difference_leaves_no_strange_keys(unet: Unet, write: Write) -> None:
    """Keys are held against the form that was found, not against A and B alone."""
    a, c = unet(1), unet(9)
    b = near(c, 2)
    m = {
        k: v if v.dtype.kind == "i" else (v + 0.8 * (b[k].astype(float) - c[k])).astype(np.float16)
        for k, v in a.items()
    }
    found = look(*(write(f"{n}.safetensors", x) for n, x in (("m", m), ("a", a), ("b", b), ("c", c))))
    assert "difference" == found[1].form
    assert () == found[1].strange
    assert is_whole(found[1])


def test_no_form_is_claimed_where_most_is_unexplained(unet: Unet, write: Write) -> None:
    """Of noise every form explains as little: it is neither add difference nor without C."""
    a = unet(1)
    found = look(
        *(write(f"{n}.safetensors", near(a, s)) for s, n in enumerate(("m", "b", "c", "d"), start=2))
    )
    assert (found[1].whole.unexplained or 0) > 0.3
    assert not any(text.startswith(("Add difference", "C has no part")) for text in sentences(*found))


def test_a_part_of_a_merge_in_neither_parent_is_measured(unet: Unet, write: Write) -> None:
    """Noise of the same square as the step: a half."""
    a = {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in unet(1).items()}
    b, noise = near(a, 2), near(a, 3)
    m = {k: v + 0.5 * (b[k] - v) + 0.5 * (noise[k] - v) if v.dtype.kind == "f" else v for k, v in a.items()}
    found = look(*(write(f"{n}.safetensors", x) for n, x in (("m", m), ("a", a), ("b", b))))
    assert 0.5 == pytest.approx(found[1].whole.unexplained, abs=0.03)
    assert any("is no step from A towards B" in text for text in sentences(*found))


def test_elements_that_are_not_finite_are_left_out(write: Write) -> None:
    """In the merge or in a parent; the alpha is that of the others."""
    rng = np.random.default_rng(5)
    a, d = rng.standard_normal((2, 40, 50))
    b = a + d
    m = a + 0.75 * d
    m[0, 0], a[1, 1], b[2, 2] = np.nan, np.inf, -np.inf
    models = (("m", m), ("a", a), ("b", b))
    recovery, found = look(*(write(f"{n}.safetensors", {"layers.0.w": x}) for n, x in models))
    assert 1997 == recovery.rows[0].gram.n
    assert found.made is not None
    assert 0.75 == found.made.alpha


def test_whole_numbers_are_compared(unet: Unet, write: Write) -> None:
    """position_ids of neither parent are named; those of one are not."""
    a = unet(1)
    b = near(a, 2)
    ids = next(key for key in a if "position_ids" in key)
    m = blend(a, b, lambda _: 0.5)
    paths = [write(f"{n}.safetensors", x) for n, x in (("m", m), ("a", a), ("b", b))]
    assert () == look(*paths)[1].neither
    m[ids] = a[ids] + 1
    found = look(write("m2.safetensors", m), *paths[1:])
    assert (ids,) == found[1].neither
    assert any("Whole numbers of neither" in text for text in sentences(*found))


def test_scalars_and_empty_tensors_are_looked_at(write: Write) -> None:
    """A scalar tells its alpha; a tensor without elements tells nothing."""
    a = {"layers.0.scale": np.float32(1.0), "layers.0.none": np.empty((0, 4), np.float32)}
    b = {"layers.0.scale": np.float32(3.0), "layers.0.none": np.empty((0, 4), np.float32)}
    m = {"layers.0.scale": np.float32(1.5), "layers.0.none": np.empty((0, 4), np.float32)}
    models = (("m", m), ("a", a), ("b", b))
    found = look(*(write(f"{n}.safetensors", {k: np.array(v) for k, v in x.items()}) for n, x in models))
    assert found[1].made is not None
    assert 0.25 == found[1].made.alpha


def test_equal_parents_tell_nothing(unet: Unet, write: Write) -> None:
    """One sentence says so, no command is given, and a merge that differs is foreign."""
    a = unet(1)
    m = dict(a)
    paths = [write(f"{n}.safetensors", a) for n in "mab"]
    found = look(*paths)
    assert found[1].made is None
    assert "A and B hold the same values" in sentences(*found)[0]
    assert command(*found) is None
    key = "model.diffusion_model.out.2.weight"
    m[key] = a[key] + np.float16(1)
    found = look(write("other.safetensors", m), *paths[1:])
    assert (key,) == found[1].foreign_keys
    assert 1.0 == found[1].whole.foreign


def test_what_the_parents_share_and_the_merge_has_not_is_foreign(unet: Unet, write: Write) -> None:
    """Baked in from elsewhere: the keys and their share of what the merge changed."""
    a = unet(1)
    b = near(a, 2)
    key = "first_stage_model.encoder.conv_in.weight"
    b[key] = a[key]
    m = blend(a, b, lambda _: 0.5)
    m[key] = a[key] + np.float16(0.25)
    found = look(*(write(f"{n}.safetensors", x) for n, x in (("m", m), ("a", a), ("b", b))))
    e = {k: m[k].astype(float) - a[k] for k in a if a[k].dtype == np.float16}
    share = (e[key] ** 2).sum() / sum((x**2).sum() for x in e.values())
    assert share == pytest.approx(found[1].whole.foreign, rel=1e-6)
    assert any(text.startswith("Foreign: ") and key in text for text in sentences(*found))
    assert found[1].made is not None
    assert 0.5 == found[1].made.alpha


def test_keys_that_a_model_lacks_are_listed(unet: Unet, write: Write) -> None:
    """What B lacks a merge can only have from A; what the merge lacks is not looked at."""
    a = unet(1)
    b, m = near(a, 2), blend(a, near(a, 2), lambda _: 0.5)
    gone, kept = "model.diffusion_model.out.2.weight", "model.diffusion_model.time_embed.0.weight"
    del m[gone], b[kept]
    m[kept] = a[kept] + np.float16(1)
    m["model.diffusion_model.more.weight"] = a[kept]
    recovery, found = look(*(write(f"{n}.safetensors", x) for n, x in (("m", m), ("a", a), ("b", b))))
    assert ((gone,), (kept,)) == (recovery.lacking, recovery.only_in_a)
    assert ("model.diffusion_model.more.weight",) == recovery.added
    assert (kept,) == found.foreign_keys


def test_keys_that_the_third_model_lacks_are_left_out(unet: Unet, write: Write) -> None:
    """No alpha is told of them, and they are listed."""
    a = unet(1)
    b, c = near(a, 2), near(a, 3)
    gone = "model.diffusion_model.out.2.weight"
    del c[gone]
    models = (("m", blend(a, b, lambda _: 0.5)), ("a", a), ("b", b), ("c", c))
    recovery, _ = look(*(write(f"{n}.safetensors", x) for n, x in models))
    assert (gone,) == recovery.without_c
    assert gone not in {row.key for row in recovery.rows}


def test_copies_and_schedules_count_only_if_named(unet: Unet, write: Write) -> None:
    """An EMA copy that the merge did not touch is no exception to its alpha."""
    a = unet(1)
    copy = {f"model_ema.{k.removeprefix('model.').replace('.', '')}": v for k, v in a.items() if "attn" in k}
    b = near(a, 2)
    m = {**blend(a, b, lambda _: 0.5), **copy}
    parents = {**a, **copy}, {**b, **near(copy, 5)}
    paths = [write(f"{n}.safetensors", x) for n, x in (("m", m), ("a", parents[0]), ("b", parents[1]))]
    found = look(*paths)
    assert found[1].made is not None
    assert (0.5, ()) == (found[1].made.alpha, found[1].made.sets)
    found = look(*paths, only="part:ema")
    assert found[1].made is not None
    assert 0.0 == found[1].made.alpha


def test_models_that_do_not_pair_are_refused(unet: Unet, write: Write) -> None:
    """With the message of pairing, that names both."""
    a = unet(1)
    paths = [write(f"{n}.safetensors", x) for n, x in (("m", {"w": a["betas"]}), ("a", a), ("b", a))]
    with pytest.raises(PairingError, match="no key in common"):
        look(*paths)
    with pytest.raises(SelectorError):
        look(paths[1], *paths[1:], only="attn9")


def test_a_merge_in_scaled_fp8_is_found(tmp_path: Path, write: Write) -> None:
    """Codes with a scale: what their rounding leaves is known, and is in no verdict."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(1)
    key = "layers.0.mlp.weight"
    values = torch.randn(400, 500, generator=generator)
    models = []
    for share in (0, 20):
        codes = values * 60 + share * torch.randn(400, 500, generator=generator)
        codes = codes.clamp(-448, 448).to(torch.float8_e4m3fn)
        models.append({key: codes, "layers.0.mlp.weight_scale": torch.tensor(0.01)})
    paths = [tmp_path / f"{name}.safetensors" for name in "abm"]
    for model, path in zip(models, paths, strict=False):
        save_file(model, path)
    with open_checkpoint(paths[0]) as one, open_checkpoint(paths[1]) as two:
        recipe = Recipe(alpha=0.4)
        merge(Inputs(one, two), plan_merge(Inputs(one, two), recipe), recipe, out=paths[2])
    found = look(paths[2], *paths[:2])
    assert 0.4 == pytest.approx(found[1].whole.fit.alpha, abs=5e-3)
    assert 0.0 == found[1].whole.unexplained
    assert 1 == found[1].whole.keys


def test_a_quantised_merge_is_found_with_what_that_left(tmp_path: Path, write: Write) -> None:
    """GGUF's blocks: the alpha, and a sentence that what quantising left is part of the rest."""
    gguf = pytest.importorskip("gguf")
    rng = np.random.default_rng(1)
    a = rng.standard_normal((64, 256)).astype(np.float32)
    b = a + 0.3 * rng.standard_normal(a.shape).astype(np.float32)
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "flux")
    q8 = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("layers.0.w", gguf.quants.quantize(a + 0.4 * (b - a), q8), raw_dtype=q8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = look(path, write("a.safetensors", {"layers.0.w": a}), write("b.safetensors", {"layers.0.w": b}))
    assert found[1].made is not None
    assert 0.4 == pytest.approx(found[1].made.alpha, abs=1e-3)
    assert any("is quantised" in text for text in sentences(*found))
