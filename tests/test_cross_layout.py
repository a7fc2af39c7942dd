"""One model in two layouts: a scan calls it identical, and a merge writes it as A is.

Which key is which comes from `translation/layout_pairs.py`, which knows how the networks are built and not
how the package translates; the names and the numbers of axes are those of the published files.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from analyzer.categories import categorize
from analyzer.checkpoints import open_checkpoint
from analyzer.findings import findings
from analyzer.kinship import kinship
from analyzer.measures import Sums, add_sums
from analyzer.merge import merge, plan_merge
from analyzer.merging.inputs import Inputs
from analyzer.recipes.recipe import Recipe
from analyzer.records import Scan
from analyzer.scan import scan

sys.path.append(str(Path(__file__).resolve().parent / "layouts"))
sys.path.append(str(Path(__file__).resolve().parent / "translation"))
import layouts
from layout_pairs import Pairs, clip, flux, openclip, sd3, unet, vae

Arrays = dict[str, np.ndarray]


def bare(name: str) -> str:
    """The name without the part of a fused tensor that it is about."""
    return name.partition("[")[0]


@dataclass(frozen=True)
class Network:
    """A network in a single file and in a diffusers folder."""

    prefix: str  # before its names in the single file
    folder: str  # of the pipeline; "" for a model of its own
    layout: str  # of the diffusers side: which of the pairs it has, and with how many axes
    pairs: Pairs

    @cached_property
    def parts(self) -> Mapping[str, tuple[int, int, int]]:
        """Of every part of a fused tensor, as the pairs name it: it is the rows first/of … last/of."""
        fused: dict[str, list[str]] = {}
        for old, _ in self.pairs:
            if "[" in old:
                fused.setdefault(bare(old), []).append(old)
        found = {}
        for own in fused.values():
            shares = [4 if part.endswith("[mlp]") else 1 for part in own]
            for at, part in enumerate(own):
                found[part] = (sum(shares[:at]), sum(shares[: at + 1]), sum(shares))
        return found

    def rows(self, part: str, count: int) -> slice:
        """Which of a fused tensor's rows one of its parts are."""
        first, last, of = self.parts[part]
        return slice(first * count // of, last * count // of)


@dataclass(frozen=True)
class Model:
    """A published model in both layouts."""

    layout: str  # of the single file
    networks: tuple[Network, ...]
    divisor: int = 256  # by which axes are shortened; what is fused must still divide into its parts


UNET, VAE, CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
SGM = "conditioner.embedders.{}.{}."
STEMS = [(f"text_model.{inner}", f"text_model.{inner}") for inner, _ in clip(12)]  # CLIP, in both as it is

MODELS = {
    "SD 1.5": Model(
        "sd15-ldm",
        (
            Network(UNET, "unet", "sd15-unet-diffusers", unet([1, 1, 1, 0])),
            Network(VAE, "vae", "vae-diffusers", vae()),
            Network(CLIP, "text_encoder", "clip-l-transformers", STEMS),
        ),
    ),
    "SD 2.1": Model(
        "sd21-ldm",
        (
            Network(UNET, "unet", "sd21-unet-diffusers", unet([1, 1, 1, 0])),
            Network(VAE, "vae", "vae-diffusers", vae()),
            Network("cond_stage_model.model.", "text_encoder", "openclip-h-transformers", openclip(24)),
        ),
    ),
    "SDXL": Model(
        "sdxl-base-sgm",
        (
            Network(UNET, "unet", "sdxl-unet-diffusers", unet([0, 2, 10], embedding="add_embedding")),
            Network(VAE, "vae", "vae-diffusers", vae()),
            Network(SGM.format(0, "transformer"), "text_encoder", "clip-l-transformers", STEMS),
            Network(SGM.format(1, "model"), "text_encoder_2", "clip-g-transformers", openclip(32)),
        ),
    ),
    "SDXL refiner": Model(
        "sdxl-refiner-sgm",
        (
            Network(
                UNET, "unet", "sdxl-refiner-unet-diffusers", unet([0, 4, 4, 0], embedding="add_embedding")
            ),
            Network(VAE, "vae", "vae-diffusers", vae()),
            Network(SGM.format(0, "model"), "text_encoder_2", "clip-g-transformers", openclip(32)),
        ),
    ),
    "Flux dev": Model(
        "flux-dev-bfl",
        (Network("", "", "flux-dev-transformer-diffusers", flux(19, 38, guidance=True)),),
    ),
    "SD 3": Model(
        "sd3-medium-comfy",
        (Network(UNET, "transformer", "sd3-transformer-diffusers", sd3(24, norms=False)),),
    ),
    "SD 3.5 large": Model(
        "sd35-large-comfy",
        (Network(UNET, "transformer", "sd35-large-transformer-diffusers", sd3(38)),),
        divisor=128,
    ),
}
every_model = pytest.mark.parametrize("name", MODELS)


@cache
def single_file(name: str, seed: int = 1) -> Arrays:
    """The model in one file, in fp16."""
    tensors = layouts.tiny(MODELS[name].layout, seed=seed, divisor=MODELS[name].divisor)
    return {key: halved(value) for key, value in tensors.items()}


def halved(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16) if values.dtype.kind == "f" else values


@cache
def diffusers_layout(name: str) -> layouts.Layout:
    return layouts.load(name)


def diffusers(network: Network, tensors: Arrays) -> dict[str, tuple[list[str], np.ndarray]]:
    """The network's tensors under their diffusers names, each with the keys that its rows come from."""
    shapes = diffusers_layout(network.layout)
    pieces: dict[str, list[tuple[str, np.ndarray]]] = {}
    for old, new in network.pairs:
        key, target = network.prefix + bare(old), bare(new)
        if target in shapes and key in tensors:
            rows = tensors[key][network.rows(old, len(tensors[key]))] if "[" in old else tensors[key]
            pieces.setdefault(target, []).append((key, rows.T if old == "text_projection" else rows))
            if new.endswith("[scale]"):  # diffusers has it before the shift
                pieces[target].reverse()
    found = {}
    for target, own in pieces.items():
        whole = np.concatenate([rows for _, rows in own]) if len(own) > 1 else own[0][1]
        axes = len(shapes[target][1])
        shape = (*whole.shape[:axes], *[1] * (axes - whole.ndim))  # a 1×1 convolution or a linear layer
        found[target] = ([key for key, _ in own], np.ascontiguousarray(whole.reshape(shape)))
    return found


def write_folder(path: Path, name: str, tensors: Arrays, dtype: type = np.float32) -> Path:
    """The model as diffusers saves it."""
    for network in MODELS[name].networks:
        inner = path / network.folder
        inner.mkdir(parents=True)
        own = {target: rows.astype(dtype) for target, (_, rows) in diffusers(network, tensors).items()}
        encoder = network.folder.startswith("text")
        save_file(own, inner / f"{'' if encoder else 'diffusion_pytorch_'}model.safetensors")
    if network.folder:
        index = {n.folder: ["diffusers", "Model"] for n in MODELS[name].networks}
        (path / "model_index.json").write_text(json.dumps(index))
    return path


def write_file(path: Path, tensors: Arrays) -> Path:
    save_file(tensors, path)
    return path


def header_order(path: Path) -> list[str]:
    """The keys of a safetensors file as they stand in its header."""
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return [key for key in header if key != "__metadata__"]


@cache
def counterparts(name: str) -> set[tuple[str, str]]:
    """Which key of the single file and which of the folder have rows in common."""
    tensors = single_file(name)
    return {
        (key, f"{network.folder}.{target}".lstrip("."))
        for network in MODELS[name].networks
        for target, (keys, _) in diffusers(network, tensors).items()
        for key in keys
    }


def fused(name: str) -> dict[str, dict[str, slice]]:
    """The rows of every fused tensor that the folder has in parts, by the words for them."""
    tensors = single_file(name)
    there = {key for key, _ in counterparts(name)}
    found: dict[str, dict[str, slice]] = {}
    for network in MODELS[name].networks:
        for old, _ in network.pairs:
            key = network.prefix + bare(old)
            if "[" in old and key in there:
                word = old.partition("[")[2].removesuffix("]")
                found.setdefault(key, {})[word] = network.rows(old, len(tensors[key]))
    return found


def scan_models(a: Path, b: Path, **options: object) -> Scan:
    with open_checkpoint(a) as one, open_checkpoint(b) as two:
        return scan(one, two, **options)  # type: ignore[arg-type]  # options of `scan`


def paired(result: Scan) -> set[tuple[str, str]]:
    return {(row.key, each) for row in result.keys for each in row.key_b.split(" + ")}


def check_sums(a: np.ndarray, b: np.ndarray, sums: Sums) -> None:
    """Counts exactly and sums to 1e-12, against numpy in fp64."""
    one, two = (side.astype(np.float64).reshape(-1) for side in (a, b))
    d = two - one
    assert (one.size, one.size, int((d != 0).sum())) == (sums.numel, sums.n, sums.changed)
    expected = (one.sum(), two.sum(), one @ one, two @ two, d @ d, one @ two, abs(d).max())
    measured = (sums.sum_a, sums.sum_b, sums.sum_aa, sums.sum_bb, sums.sum_dd, sums.sum_ab, sums.max_abs_d)
    assert measured == pytest.approx(expected, rel=1e-12, abs=1e-12)


# --- The same weights ---


@every_model
@pytest.mark.parametrize("swapped", [False, True], ids=["file-folder", "folder-file"])
def test_a_model_in_two_layouts_is_identical(name: str, swapped: bool, tmp_path: Path) -> None:
    """An fp16 single file against the fp32 folder of the same model, either of them as A."""
    tensors = single_file(name)
    file = write_file(tmp_path / "file.safetensors", tensors)
    folder = write_folder(tmp_path / "folder", name, tensors)
    result = scan_models(folder, file) if swapped else scan_models(file, folder)
    expected = {pair[::-1] if swapped else pair for pair in counterparts(name)}
    assert expected == paired(result)
    assert () == result.shape_mismatch
    assert all(row.sums.n == row.sums.numel and not row.sums.changed for row in result.keys)
    lone = result.only_in_b if swapped else result.only_in_a
    assert set(tensors) - {key for key, _ in counterparts(name)} == set(lone)
    assert () == (result.only_in_a if swapped else result.only_in_b)
    assert "same" == kinship(result)[0]
    sentence = "all weights that could be compared are equal" if lone else "hold the same values"
    assert sentence in findings(result)[0].text


@every_model
def test_both_layouts_have_the_same_labels(name: str, tmp_path: Path) -> None:
    """Part, block and kind of every pair; the component too, where both layouts have words for one thing."""
    tensors = single_file(name)
    files = (
        write_file(tmp_path / "file.safetensors", tensors),
        write_folder(tmp_path / "folder", name, tensors),
    )
    sides = []
    for path in files:
        with open_checkpoint(path) as checkpoint:
            sides.append(categorize(checkpoint.infos.values()))
    one, two = sides
    assert one.blocks == two.blocks
    for key, key_b in counterparts(name):
        a, b = one.labels[key], two.labels[key_b]
        assert (a.block, a.kind, a.counted) == (b.block, b.kind, b.counted)
        if not (name == "SDXL refiner" and b.part == "text_encoder_2"):  # diffusers counts from the base
            assert a.part == b.part
        if a.part in ("unet", "vae") or ".text_model." in key:
            assert (a.component, a.group) == (b.component, b.group)


def test_the_vae_of_2022_pairs_as_well(tmp_path: Path) -> None:
    """Its attention was written with other words."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    vae_network = MODELS["SD 1.5"].networks[1]
    tensors = single_file("SD 1.5")
    old = {}
    for target, (_, rows) in diffusers(vae_network, tensors).items():
        for new, word in names.items():
            target = target.replace(f"attentions.0.{new}.", f"attentions.0.{word}.")
        old[target] = rows
    assert set(layouts.load("vae-diffusers-2022")) == set(old)
    result = scan_models(
        write_file(tmp_path / "a.safetensors", tensors), write_file(tmp_path / "b.safetensors", old)
    )
    assert set(old) == {row.key_b for row in result.keys}
    assert "same" == kinship(result)[0]


# --- Fused tensors ---


FUSED = ["SD 2.1", "Flux dev", "SD 3"]


@pytest.mark.parametrize("name", FUSED)
def test_rows_of_fused_tensors_are_measured_by_themselves(name: str, tmp_path: Path) -> None:
    """The fused layout as A: one row for each part, whose sums add up to the key's."""
    a, b = single_file(name), single_file(name, seed=2)
    result = scan_models(
        write_file(tmp_path / "a.safetensors", a), write_folder(tmp_path / "b", name, b, np.float16)
    )
    check_virtual_rows(result, name, a, b)


@pytest.mark.parametrize("name", FUSED)
def test_rows_are_measured_where_both_sides_are_fused(name: str, tmp_path: Path) -> None:
    """Two files of one layout have the same rows beside their keys, which pair by their own names."""
    a, b = single_file(name), single_file(name, seed=2)
    file = write_file(tmp_path / "a.safetensors", a)
    result = scan_models(file, write_file(tmp_path / "b.safetensors", b))
    assert header_order(file) == [row.key for row in result.keys]
    assert all(row.key == row.key_b for row in (*result.keys, *result.virtual))
    assert () == result.notes
    known = fused(name)
    whole = {row.key for row in result.virtual} - known.keys()  # the layer of OpenCLIP that diffusers lacks
    assert all(".resblocks.23." in key for key in whole)
    check_virtual_rows(result, name, a, b, others=whole)


def check_virtual_rows(
    result: Scan, name: str, a: Arrays, b: Arrays, others: set[str] | frozenset[str] = frozenset()
) -> None:
    rows = {(row.key, row.labels.component.rpartition("/")[2]): row for row in result.virtual}
    expected = {(key, word): place for key, parts in fused(name).items() for word, place in parts.items()}
    assert len(rows) == len(result.virtual)
    assert set(expected) == {place for place in rows if place[0] not in others}
    for (key, word), place in expected.items():
        row = rows[key, word]
        assert (place.start, place.stop) == row.rows
        assert a[key][place].shape == row.shape
        check_sums(a[key][place], b[key][place], row.sums)
    for row in result.keys:
        parts = [part.sums for part in result.virtual if part.key == row.key]
        if row.sums.numeric:
            check_sums(a[row.key], b[row.key], row.sums)
        if parts:
            assert row.sums == add_sums(parts)


@pytest.mark.parametrize("name", FUSED)
def test_split_tensors_are_compared_with_the_rows_of_fused_ones(name: str, tmp_path: Path) -> None:
    """The split layout as A has a key for each part, and only the swapped halves are rows besides."""
    a, b = single_file(name), single_file(name, seed=2)
    result = scan_models(
        write_folder(tmp_path / "a", name, a, np.float16), write_file(tmp_path / "b.safetensors", b)
    )
    rows = {row.key: row for row in result.keys}
    for network in MODELS[name].networks:
        theirs = diffusers(network, b)
        for target, (_, values) in diffusers(network, a).items():
            row = rows[f"{network.folder}.{target}".lstrip(".")]
            assert values.shape == row.shape
            if row.sums.numeric:
                check_sums(values, theirs[target][1], row.sums)
    swapped = {row.key for row in result.virtual}
    assert swapped == {key for key in rows if "norm_out.linear" in key or ".23.norm1_context.linear" in key}


def test_rows_of_scaled_fp8_are_rows_of_its_values(tmp_path: Path) -> None:
    """Flux as ComfyUI quantises it against the folder of its values, codes times scales: identical."""
    layout = "flux-dev-scaled-fp8-comfy"
    tensors = layouts.tiny(layout, seed=3, divisor=256)
    file = layouts.write(layout, tmp_path / "file.safetensors", tensors)
    values: Arrays = {}
    for key, codes in tensors.items():
        if key.startswith(UNET) and not key.endswith(("scale_weight", "scale_input")):
            scale = (
                tensors.get(f"{key.removesuffix('weight')}scale_weight") if key.endswith("weight") else None
            )
            values[key.removeprefix(UNET)] = codes if scale is None else codes * scale
    folder = write_folder(tmp_path / "folder", "Flux dev", values)
    for a, b, count in ((file, folder, 780), (folder, file, 1160)):
        result = scan_models(a, b)
        assert (count, "same") == (len(result.keys), kinship(result)[0])
        assert all(row.sums.n == row.sums.numel and not row.sums.changed for row in result.keys)


def test_rows_of_gguf_are_rows_of_its_values(tmp_path: Path) -> None:
    """Flux in GGUF has the names of Black Forest Labs; its blocks run along the rows, which stay whole."""
    gguf = pytest.importorskip("gguf")
    rng = np.random.default_rng(4)
    rows = {
        "double_blocks.0.img_attn.qkv": 3,
        "double_blocks.0.txt_attn.qkv": 3,
        "single_blocks.0.linear1": 7,
    }
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(str(path), "flux")
    q8, values = gguf.GGMLQuantizationType.Q8_0, {}
    for name, count in (rows | {"final_layer.adaLN_modulation.1": 2}).items():
        codes = gguf.quantize(rng.standard_normal((64 * count, 64)).astype(np.float32), q8)
        writer.add_tensor(f"{name}.weight", codes, raw_dtype=q8)
        values[f"{name}.weight"] = gguf.dequantize(codes, q8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    split = {key: own for key, (_, own) in diffusers(MODELS["Flux dev"].networks[0], values).items()}
    b = write_file(tmp_path / "b.safetensors", split)
    for one, two, count in ((path, b, 4), (b, path, 11)):
        result = scan_models(one, two)
        assert (count, "same") == (len(result.keys), kinship(result)[0])
        assert all(row.sums.n == row.sums.numel for row in result.keys)


def test_virtual_rows_of_a_selection(tmp_path: Path) -> None:
    """`--only` decides which keys have their rows listed."""
    a, b = single_file("Flux dev"), single_file("Flux dev", seed=2)
    result = scan_models(
        write_file(tmp_path / "a.safetensors", a),
        write_folder(tmp_path / "b", "Flux dev", b),
        only="key:single_blocks.7.linear1.weight",
    )
    assert ["single_blocks.7.linear1.weight"] == [row.key for row in result.keys]
    assert ["q", "k", "v", "mlp"] == [row.labels.component.rpartition("/")[2] for row in result.virtual]


# --- Merging ---


@pytest.mark.parametrize("name", ["SD 2.1", "SDXL", "Flux dev", "SD 3"])
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_a_merge_is_written_as_a_is(name: str, alpha: float, tmp_path: Path) -> None:
    """A single file and the folder of another model: A's keys, order, shapes, dtypes, and numpy's values."""
    a, b = single_file(name), single_file(name, seed=2)
    file = write_file(tmp_path / "a.safetensors", a)
    merged = merge_models(file, write_folder(tmp_path / "b", name, b), alpha)
    assert header_order(file) == list(merged)
    paired_keys = {key for key, _ in counterparts(name)}
    for key, values in merged.items():
        assert (a[key].dtype, a[key].shape) == (values.dtype, values.shape)
        if key in paired_keys and values.dtype.kind == "f":
            np.testing.assert_array_equal(blended(a[key], b[key], alpha), values, err_msg=key)
        else:
            np.testing.assert_array_equal(a[key], values, err_msg=key)


@pytest.mark.parametrize("name", ["SDXL", "Flux dev", "SD 3"])
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_a_merge_into_one_file_of_diffusers(name: str, alpha: float, tmp_path: Path) -> None:
    """The denoiser alone, as diffusers names it, takes its values from a whole single file."""
    a, b = single_file(name), single_file(name, seed=2)
    network = MODELS[name].networks[0]
    mine, theirs = diffusers(network, a), diffusers(network, b)
    file = write_file(tmp_path / "a.safetensors", {key: rows for key, (_, rows) in mine.items()})
    merged = merge_models(file, write_file(tmp_path / "b.safetensors", b), alpha)
    assert header_order(file) == list(merged)
    for key, values in merged.items():
        np.testing.assert_array_equal(blended(mine[key][1], theirs[key][1], alpha), values, err_msg=key)


def merge_models(a: Path, b: Path, alpha: float) -> Arrays:
    """What a merge writes, in the order in which it stands there."""
    out = a.parent / "out.safetensors"
    recipe = Recipe(alpha=alpha)
    with open_checkpoint(a) as one, open_checkpoint(b) as two:
        merge(Inputs(one, two), plan_merge(Inputs(one, two), recipe), recipe, out=out)
    tensors = load_file(out)
    return {key: tensors[key] for key in header_order(out)}


def blended(a: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
    one, two = a.astype(np.float64), b.astype(np.float64)
    return (one + alpha * (two - one)).astype(a.dtype) if alpha != 1 else b.astype(a.dtype)
