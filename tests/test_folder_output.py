"""A merge is written in A's layout: shards, index, sub-models, and everything beside the weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import OutputError, RecipeError
from analyzer.merge import MergeResult, merge, plan_merge
from analyzer.merging.inputs import Inputs
from analyzer.model_folder import output_name
from analyzer.recipes.recipe import Recipe

Array = NDArray[np.generic]
Run = Callable[..., Any]

LAYERS = [f"model.layers.{i}.self_attn.q_proj.weight" for i in range(3)]
SHARDS = {
    "model-00001-of-00002.safetensors": LAYERS[:2],
    "model-00002-of-00002.safetensors": [LAYERS[2], "lm_head.weight"],
}
UNET = ["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight", "conv_in.weight"]
PIPELINE = {
    "unet/diffusion_pytorch_model.safetensors": UNET,
    "vae/diffusion_pytorch_model.safetensors": ["decoder.conv_out.bias"],
    "text_encoder/model.safetensors": ["text_model.encoder.layers.0.mlp.fc1.weight"],
}
MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def value(key: str, seed: int) -> NDArray[np.float16]:
    """What a key holds, told from its name and a seed."""
    return np.random.default_rng([seed, *key.encode()]).standard_normal((4, 4)).astype(np.float16)


def weights(
    root: Path, files: Mapping[str, list[str]], seed: int, metadata: dict[str, str] | None = None
) -> Path:
    """Files of weights below a folder, as safetensors or pickles."""
    for name, keys in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {key: value(key, seed) for key in keys}
        if path.suffix == ".safetensors":
            save_file(tensors, path, metadata)
        else:
            torch.save({key: torch.from_numpy(tensor) for key, tensor in tensors.items()}, path)
    return root


def index(root: Path, name: str, files: Mapping[str, list[str]]) -> None:
    rows = {key: file for file, keys in files.items() for key in keys}
    (root / name).write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": rows}))


def texts(root: Path, *names: str, text: str = "{}") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def llm(tmp_path: Path) -> Callable[[str, int], Path]:
    """A language model in two shards with an index."""

    def build(name: str, seed: int) -> Path:
        root = weights(tmp_path / name, SHARDS, seed, {"format": "pt"})
        index(root, "model.safetensors.index.json", SHARDS)
        return root

    return build


@pytest.fixture
def pipeline(tmp_path: Path) -> Callable[[str, int], Path]:
    """A diffusers folder."""

    def build(name: str, seed: int) -> Path:
        root = weights(tmp_path / name, PIPELINE, seed)
        texts(root, "model_index.json", text=json.dumps(MODEL_INDEX))
        texts(root, "unet/config.json", "vae/config.json", "text_encoder/config.json")
        texts(root, "scheduler/scheduler_config.json", "tokenizer/vocab.json")
        return root

    return build


def run_merge(a: Path, b: Path, out: Path, recipe: Recipe, **options: Any) -> MergeResult:
    """Open, plan and merge."""
    with open_checkpoint(a) as model_a, open_checkpoint(b) as model_b:
        plan = plan_merge(Inputs(model_a, model_b), recipe)
        return merge(Inputs(model_a, model_b), plan, recipe, out=out, **options)


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder, with its content."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def blend(key: str, alpha: float) -> NDArray[np.float16]:
    """What a merge of seeds 0 and 1 holds."""
    a, b = (value(key, seed).astype(np.float64) for seed in (0, 1))
    return (a + alpha * (b - a)).astype(np.float16)


def check_weights(root: Path, files: Mapping[str, list[str]], alpha: float = 0.5) -> None:
    """Exactly these keys in these files, each the blend."""
    for name, keys in files.items():
        held = load_file(root / name)
        assert set(keys) == held.keys(), name
        for key in keys:
            np.testing.assert_array_equal(blend(key, alpha), held[key], err_msg=key)


def test_shards_come_out_as_shards(llm: Callable[[str, int], Path], tmp_path: Path) -> None:
    """The same names, the same keys in each, a right index, and every other file as it was."""
    a, b = llm("a", 0), llm("b", 1)
    texts(a, "config.json", "tokenizer.json", "LICENSE", "assets/deep/x.txt", text="content")
    out = tmp_path / "out"
    result = run_merge(a, b, out, Recipe(alpha=0.5))
    check_weights(out, SHARDS)
    assert tree(a).keys() == tree(out).keys()
    for name in ("config.json", "tokenizer.json", "LICENSE", "assets/deep/x.txt"):
        assert b"content" == tree(out)[name]
    written = json.loads((out / "model.safetensors.index.json").read_text())
    assert {key: name for name, keys in SHARDS.items() for key in keys} == written["weight_map"]
    assert {"total_size": 4 * 32} == written["metadata"]
    assert sum((out / name).stat().st_size for name in SHARDS) == result.bytes
    with open_checkpoint(out) as model:
        assert set(LAYERS) | {"lm_head.weight"} == model.infos.keys()


def test_header_order_is_as(tmp_path: Path) -> None:
    """Within each file, as in a merge that writes one."""
    a = tmp_path / "a"
    a.mkdir()
    data = np.zeros(4, np.float32).tobytes()
    keys = ["z.weight", "m.weight", "a.weight"]
    header = json.dumps(
        {k: {"dtype": "F32", "shape": [4], "data_offsets": [i * 16, i * 16 + 16]} for i, k in enumerate(keys)}
    ).encode()
    (a / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data * 3)
    run_merge(a, a, tmp_path / "out", Recipe(alpha=0.5))
    written = (tmp_path / "out" / "model.safetensors").read_bytes()
    names = json.loads(written[8 : 8 + int.from_bytes(written[:8], "little")])
    assert ["__metadata__", *keys] == list(names)


@pytest.mark.parametrize("named", ["folder", "index", "file"])
def test_how_a_was_named(llm: Callable[[str, int], Path], tmp_path: Path, named: str) -> None:
    """A folder or its index gives a folder; one of its files by itself needs a file's name."""
    a, b = llm("a", 0), llm("b", 1)
    texts(a, "config.json")
    name = {"folder": "", "index": "model.safetensors.index.json", "file": "model-00001-of-00002.safetensors"}
    if named == "file":
        with pytest.raises(OutputError, match=r"name the output out\.safetensors"):
            run_merge(a / name[named], b, tmp_path / "out", Recipe(alpha=0.5))
        return
    run_merge(a / name[named], b, tmp_path / "out", Recipe(alpha=0.5))
    check_weights(tmp_path / "out", SHARDS)
    assert tree(a).keys() == tree(tmp_path / "out").keys()


def test_a_folder_of_one_file(tmp_path: Path) -> None:
    """A folder comes out of a folder, and a file if one is named."""
    a = weights(tmp_path / "a", {"model.safetensors": LAYERS}, 0)
    b = weights(tmp_path / "b", {"odd name.safetensors": LAYERS}, 1)
    texts(a, "config.json")
    run_merge(a, b, tmp_path / "out", Recipe(alpha=0.5))
    check_weights(tmp_path / "out", {"model.safetensors": LAYERS})
    assert {"config.json", "model.safetensors"} == tree(tmp_path / "out").keys()
    run_merge(a, b, tmp_path / "out.safetensors", Recipe(alpha=0.5))
    check_weights(tmp_path, {"out.safetensors": LAYERS})


def test_shards_as_one_file(llm: Callable[[str, int], Path], tmp_path: Path) -> None:
    """If the output's name is that of a file, all keys of A are in it."""
    run_merge(llm("a", 0), llm("b", 1), tmp_path / "out.safetensors", Recipe(alpha=0.5))
    check_weights(tmp_path, {"out.safetensors": [*LAYERS, "lm_head.weight"]})


def test_pickles_come_out_as_safetensors(tmp_path: Path) -> None:
    """Shards and index of `.bin` files get the names under which loaders look for safetensors."""
    shards = {
        name.replace("model", "pytorch_model").replace("safetensors", "bin"): keys
        for name, keys in SHARDS.items()
    }
    a, b = weights(tmp_path / "a", shards, 0), weights(tmp_path / "b", shards, 1)
    for side in (a, b):
        index(side, "pytorch_model.bin.index.json", shards)
    run_merge(a, b, tmp_path / "out", Recipe(alpha=0.5))
    out = tree(tmp_path / "out")
    assert {*SHARDS, "model.safetensors.index.json"} == out.keys()
    assert set(SHARDS) == set(json.loads(out["model.safetensors.index.json"])["weight_map"].values())
    check_weights(tmp_path / "out", SHARDS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pytorch_model.bin", "model.safetensors"),
        ("unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors"),
        ("pytorch_model-00001-of-00002.bin", "model-00001-of-00002.safetensors"),
        ("pytorch_model.fp16.bin", "model.fp16.safetensors"),
        ("pytorch_model.bin.index.json", "model.safetensors.index.json"),
        (
            "diffusion_pytorch_model.bin.index.fp16.json",
            "diffusion_pytorch_model.safetensors.index.fp16.json",
        ),
        ("model.safetensors.index.json", "model.safetensors.index.json"),
        ("model.fp16-00001-of-00002.safetensors", "model.fp16-00001-of-00002.safetensors"),
        ("pytorch_model_v2.pth", "pytorch_model_v2.safetensors"),
        ("v1.5-pruned.ckpt", "v1.5-pruned.safetensors"),
        ("part.1", "part.1.safetensors"),
    ],
)
def test_conventional_names(name: str, expected: str) -> None:
    """As transformers and diffusers name the same files of safetensors."""
    assert expected == output_name(name)


def test_a_pipeline_comes_out_as_one(pipeline: Callable[[str, int], Path], tmp_path: Path) -> None:
    """Keys are named as inside each sub-model, and what is not merged is A's."""
    a, b = pipeline("a", 0), pipeline("b", 1)
    run_merge(a, b, tmp_path / "out", Recipe(only="unet", alpha=0.5))
    name = "unet/diffusion_pytorch_model.safetensors"
    check_weights(tmp_path / "out", {name: UNET})
    check_weights(tmp_path / "out", {n: keys for n, keys in PIPELINE.items() if n != name}, alpha=0.0)
    assert tree(a).keys() == tree(tmp_path / "out").keys()
    assert json.dumps(MODEL_INDEX).encode() == tree(tmp_path / "out")["model_index.json"]


def test_a_shard_in_a_sub_model(pipeline: Callable[[str, int], Path], tmp_path: Path) -> None:
    """The index of a sub-model names files relative to its own folder, and only its own keys."""
    a, b = pipeline("a", 0), pipeline("b", 1)
    (a / "unet/diffusion_pytorch_model.safetensors").unlink()
    stem = "diffusion_pytorch_model"
    shards = {f"{stem}-0000{i + 1}-of-00002.safetensors": [key] for i, key in enumerate(UNET)}
    weights(a / "unet", shards, 0)
    index(a / "unet", f"{stem}.safetensors.index.json", shards)
    run_merge(a, b, tmp_path / "out", Recipe(alpha=0.5))
    written = json.loads((tmp_path / "out/unet" / f"{stem}.safetensors.index.json").read_text())
    assert {key: name for name, keys in shards.items() for key in keys} == written["weight_map"]
    assert 64 == written["metadata"]["total_size"]
    check_weights(tmp_path / "out/unet", shards)


def test_a_pipeline_is_no_single_file(pipeline: Callable[[str, int], Path], run: Run, tmp_path: Path) -> None:
    """Its sub-models have no names in one file that others know."""
    a, b = pipeline("a", 0), pipeline("b", 1)
    result = run("merge", a, b, "-o", tmp_path / "out.safetensors", "--alpha", "0.5")
    assert 1 == result.code
    assert "cannot hold the sub-models of" in result.err
    assert result.err.rstrip().endswith("name a folder, such as out")


def test_the_chosen_variant_is_written(pipeline: Callable[[str, int], Path], tmp_path: Path) -> None:
    """Under its own names, where there is one; the other variant and other formats are left out."""
    a, b = pipeline("a", 0), pipeline("b", 1)
    weights(
        a,
        {"unet/diffusion_pytorch_model.fp16.safetensors": UNET, "unet/diffusion_pytorch_model.bin": UNET},
        0,
    )
    result = run_merge(Path(f"{a}@fp16"), b, tmp_path / "out", Recipe(alpha=0.5))
    left = ["unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors"]
    assert left == list(result.left_out)
    assert tree(a).keys() - set(left) == tree(tmp_path / "out").keys()
    check_weights(tmp_path / "out", {"unet/diffusion_pytorch_model.fp16.safetensors": UNET})
    with open_checkpoint(tmp_path / "out") as model:
        assert {
            f"{n.partition('/')[0]}.{key}" for n, keys in PIPELINE.items() for key in keys
        } == model.infos.keys()


LEFT_OUT = [
    "checkpoint-500",
    "consolidated.safetensors",
    "flax_model.msgpack",
    "flax_model.msgpack.index.json",
    "gguf/model-Q4_K_M.gguf",
    "onnx/model.onnx",
    "onnx/model.onnx_data",
    "optimizer.pt",
    "original/consolidated.00.pth",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
    "training_args.bin",
]
COPIED = [
    "2_Dense/model.safetensors",
    "README.md",
    "chat_template.jinja",
    "config.json",
    "modeling_custom.py",
    "original/params.json",
    "speech-lora/adapter_model.safetensors",
    "tokenizer.model",
]


def test_what_lies_beside_the_weights(llm: Callable[[str, int], Path], tmp_path: Path) -> None:
    """Other forms of the weights and states of a training are named and not copied, hidden files not seen."""
    a, b = llm("a", 0), llm("b", 1)
    texts(a, *COPIED, *(name for name in LEFT_OUT if name != "checkpoint-500"))
    texts(a, "checkpoint-500/config.json", "checkpoint-500/model.safetensors")
    texts(
        a, ".cache/huggingface/x.metadata", ".git/HEAD", "original/.hidden", "__pycache__/m.pyc", ".DS_Store"
    )
    result = run_merge(a, b, tmp_path / "out", Recipe(alpha=0.5))
    assert LEFT_OUT == list(result.left_out)
    assert {*COPIED, *SHARDS, "model.safetensors.index.json"} == tree(tmp_path / "out").keys()


def test_links(llm: Callable[[str, int], Path], tmp_path: Path) -> None:
    """Links to files become files, as in a cache of Hugging Face; links to folders are not followed."""
    blobs, snapshot = llm("blobs", 0), tmp_path / "models--x" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    texts(blobs, "config.json", text="from a blob")
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    (snapshot / "everything").symlink_to(tmp_path)
    (snapshot / "loop").symlink_to(snapshot)
    (snapshot / "gone.txt").symlink_to("nowhere")
    result = run_merge(snapshot, llm("b", 1), tmp_path / "out", Recipe(alpha=0.5))
    assert ["everything", "gone.txt", "loop"] == list(result.left_out)
    out = tmp_path / "out"
    assert tree(blobs).keys() == tree(out).keys()
    assert b"from a blob" == (out / "config.json").read_bytes()
    assert not any(path.is_symlink() for path in out.rglob("*"))


def test_linked_components_are_copied(pipeline: Callable[[str, int], Path], tmp_path: Path) -> None:
    """A sub-model or a tokenizer may be a link to a folder; of what lies deeper in it nothing is taken."""
    a, b, elsewhere = pipeline("a", 0), pipeline("b", 1), tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("vae", "tokenizer"):
        (a / name).rename(elsewhere / name)
        (a / name).symlink_to(elsewhere / name)
    texts(elsewhere, "vae/deeper/secret.txt")
    result = run_merge(a, b, tmp_path / "out", Recipe(alpha=0.5))
    assert ["vae/deeper"] == list(result.left_out)
    assert tree(b).keys() == tree(tmp_path / "out").keys()


def test_added_keys_go_to_the_last_shard(llm: Callable[[str, int], Path], tmp_path: Path) -> None:
    """Of their sub-model, and into the index."""
    a, b = llm("a", 0), llm("b", 1)
    extra = "model.layers.3.self_attn.q_proj.weight"
    weights(b, {"model-00001-of-00002.safetensors": [*LAYERS[:2], extra]}, 1)
    index(
        b, "model.safetensors.index.json", SHARDS | {"model-00001-of-00002.safetensors": [*LAYERS[:2], extra]}
    )
    run_merge(a, b, tmp_path / "out", Recipe(alpha=1.0, only_in_b="add"))
    last = "model-00002-of-00002.safetensors"
    check_weights(tmp_path / "out", SHARDS | {last: [*SHARDS[last], extra]}, alpha=1.0)
    written = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    assert (last, 5 * 32) == (written["weight_map"][extra], written["metadata"]["total_size"])


def test_added_keys_of_a_pipeline(pipeline: Callable[[str, int], Path], tmp_path: Path) -> None:
    """They stay in their sub-model; a sub-model that A has not is refused before anything is written."""
    a, b = pipeline("a", 0), pipeline("b", 1)
    weights(b, {"vae/diffusion_pytorch_model.safetensors": ["decoder.conv_out.bias", "quant_conv.bias"]}, 1)
    run_merge(a, b, tmp_path / "out", Recipe(alpha=1.0, only_in_b="add"))
    vae = {"vae/diffusion_pytorch_model.safetensors": ["decoder.conv_out.bias", "quant_conv.bias"]}
    check_weights(tmp_path / "out", PIPELINE | vae, alpha=1.0)
    weights(b, {"image_encoder/model.safetensors": ["vision_model.post_layernorm.weight"]}, 1)
    with open_checkpoint(a) as model_a, open_checkpoint(b) as model_b:
        with pytest.raises(RecipeError, match=r"no folder for the sub-model of 'image_encoder\."):
            plan_merge(Inputs(model_a, model_b), Recipe(alpha=1.0, only_in_b="add"))
        selected = plan_merge(Inputs(model_a, model_b), Recipe(alpha=1.0, only_in_b="add", only="vae"))
    assert ["vae.quant_conv.bias"] == [x.key for x in selected.actions if x.verb == "add"]
    assert ("image_encoder.vision_model.post_layernorm.weight",) == selected.dropped


CONFIG = {
    "torch_dtype": "bfloat16",
    "text_config": {"dtype": "bfloat16", "hidden_size": 4},
    "time_step_limit": [0.0, float("inf")],
    "name": "Größe",
}


def test_the_dtype_in_the_configuration(llm: Callable[[str, int], Path], tmp_path: Path) -> None:
    """Loaders trust it, so it follows --dtype, in the networks' own configurations too; else it stays."""
    a, b = llm("a", 0), llm("b", 1)
    texts(a, "config.json", text=json.dumps(CONFIG))
    run_merge(a, b, tmp_path / "kept", Recipe(alpha=0.5))
    assert (a / "config.json").read_bytes() == (tmp_path / "kept/config.json").read_bytes()
    run_merge(a, b, tmp_path / "cast", Recipe(alpha=0.5, dtype="fp32"))
    expected = CONFIG | {"torch_dtype": "float32", "text_config": {"dtype": "float32", "hidden_size": 4}}
    assert expected == json.loads((tmp_path / "cast/config.json").read_text(encoding="utf-8"))
    assert {"float32"} == {
        str(t.dtype) for name in SHARDS for t in load_file(tmp_path / "cast" / name).values()
    }


def test_a_dequantised_model_does_not_say_that_it_is_quantised(tmp_path: Path) -> None:
    """Scales gone, configuration gone; a shard that held nothing but scales is not written."""
    codes = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).to(torch.float8_e4m3fn)
    shards = {
        "model-00001-of-00002.safetensors": {LAYERS[0]: codes},
        "model-00002-of-00002.safetensors": {f"{LAYERS[0]}_scale_inv": torch.full((1, 1), 0.5)},
    }
    a = tmp_path / "a"
    a.mkdir()
    for name, tensors in shards.items():
        save_torch(tensors, a / name)
    index(a, "model.safetensors.index.json", {name: list(tensors) for name, tensors in shards.items()})
    config = {"dtype": "bfloat16", "quantization_config": {"quant_method": "fp8"}}
    texts(a, "config.json", text=json.dumps(config))
    run_merge(a, a, tmp_path / "fp8", Recipe(alpha=0.5))
    assert config == json.loads((tmp_path / "fp8/config.json").read_text())
    assert tree(a).keys() == tree(tmp_path / "fp8").keys()
    run_merge(a, a, tmp_path / "plain", Recipe(alpha=0.5, dtype="fp16"))
    assert {"dtype": "float16"} == json.loads((tmp_path / "plain/config.json").read_text())
    held = load_file(tmp_path / "plain/model-00001-of-00002.safetensors")
    np.testing.assert_array_equal(codes.to(torch.float16).numpy() * np.float16(0.5), held[LAYERS[0]])
    assert not (tmp_path / "plain/model-00002-of-00002.safetensors").exists()
    with open_checkpoint(tmp_path / "plain") as model:
        assert {LAYERS[0]} == model.infos.keys()


def test_each_file_says_what_as_file_says(llm: Callable[[str, int], Path], tmp_path: Path) -> None:
    """The metadata of A's own shard, without hashes, and the recipe in each."""
    a, b = llm("a", 0), llm("b", 1)
    first, second = SHARDS
    weights(a, {first: SHARDS[first]}, 0, {"title": "first", "modelspec.hash_sha256": "0x1"})
    run_merge(a, b, tmp_path / "out", Recipe(alpha=0.5))
    recipes = []
    for name, expected in ((first, {"format": "pt", "title": "first"}), (second, {"format": "pt"})):
        with safe_open(tmp_path / "out" / name, "np") as file:
            metadata = file.metadata()
        recipes.append(metadata.pop("mergescope.recipe"))
        assert expected == metadata
    assert recipes[0] == recipes[1]
    assert "a" == json.loads(recipes[0])["inputs"]["a"]["name"]


def test_the_same_merge_gives_the_same_bytes(pipeline: Callable[[str, int], Path], tmp_path: Path) -> None:
    """Whatever the number of threads."""
    a, b = pipeline("a", 0), pipeline("b", 1)
    for threads in (1, 3):
        run_merge(a, b, tmp_path / f"out{threads}", Recipe(alpha=0.3), threads=threads)
    assert tree(tmp_path / "out1") == tree(tmp_path / "out3")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """An index can name files that would be one and the same as safetensors."""
    shards = {"part.bin": LAYERS[:1], "part.pt": LAYERS[1:]}
    a = weights(tmp_path / "a", shards, 0)
    index(a, "model.bin.index.json", shards)
    with pytest.raises(RecipeError, match=r"several of its files would be written as part\.safetensors"):
        run_merge(a / "model.bin.index.json", a, tmp_path / "out", Recipe(alpha=0.5))


def test_the_command_line(llm: Callable[[str, int], Path], run: Run, tmp_path: Path) -> None:
    """A slash behind the name, --force, and what was left out; inputs are refused before any work."""
    a, b, out = llm("a", 0), llm("b", 1), tmp_path / "out"
    texts(a, "pytorch_model.bin")
    result = run("merge", a, b, "-o", f"{out}/", "--alpha", "0.5")
    assert (0, "wrote") == (result.code, result.out.splitlines()[-1].split()[0])
    assert "not copied from A's folder: pytorch_model.bin" in result.err
    check_weights(out, SHARDS)
    again = run("merge", a, b, "-o", out, "--alpha", "0.25")
    assert (1, True) == (again.code, "--force" in again.err)
    assert 0 == run("merge", a, b, "-o", out, "--alpha", "0.25", "--force", "--quiet").code
    check_weights(out, SHARDS, alpha=0.25)
    for target in (a, b, a / "new", tmp_path):
        refused = run("merge", a, b, "-o", target, "--alpha", "0.5", "--force")
        assert (1, "") == (refused.code, refused.out), target
    assert {"a", "b", "out"} == {path.name for path in tmp_path.iterdir()}
    check_weights(a, SHARDS, alpha=0.0)


def test_an_interrupted_merge_leaves_nothing(llm: Callable[[str, int], Path], tmp_path: Path) -> None:
    """Ctrl-C while tensors are written."""

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_merge(llm("a", 0), llm("b", 1), tmp_path / "out", Recipe(alpha=0.5), progress=interrupt)
    assert {"a", "b"} == {path.name for path in tmp_path.iterdir()}
