"""Files that hold a difference between two models are told from models by their keys."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from analyzer.checkpoints import open_checkpoint
from analyzer.checkpoints.differences import refuse_difference
from analyzer.errors import CheckpointError

KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
PEFT = "base_model.model.model.layers.0.self_attn.q_proj"
FLUX = "transformer.single_transformer_blocks.0.attn.to_q"
# From files that people share: kohya's sd-scripts, LyCORIS, PEFT, diffusers, ComfyUI, llama.cpp.
DIFFERENCES: dict[str, tuple[list[str], str]] = {
    "kohya": ([f"{KOHYA}.lora_down.weight", f"{KOHYA}.lora_up.weight", f"{KOHYA}.alpha"], "a LoRA"),
    "kohya, text encoder": (
        [f"lora_te1_text_model_encoder_layers_0_mlp_fc1.{k}" for k in ("lora_down.weight", "alpha")],
        "a LoRA",
    ),
    "LoCon": ([f"{KOHYA}.lora_{k}.weight" for k in ("down", "mid", "up")] + [f"{KOHYA}.alpha"], "a LoRA"),
    "DoRA": ([f"{KOHYA}.lora_down.weight", f"{KOHYA}.lora_up.weight", f"{KOHYA}.dora_scale"], "a LoRA"),
    "GLoRA": ([f"{KOHYA}.{k}.weight" for k in ("a1", "a2", "b1", "b2")] + [f"{KOHYA}.alpha"], "a LoRA"),
    "PEFT": ([f"{PEFT}.lora_A.weight", f"{PEFT}.lora_B.weight"], "a LoRA"),
    "PEFT, named": ([f"{PEFT}.lora_A.default.weight", f"{PEFT}.lora_B.default.weight"], "a LoRA"),
    "PEFT, DoRA": (
        [f"{PEFT}.lora_A.weight", f"{PEFT}.lora_B.weight", f"{PEFT}.lora_magnitude_vector"],
        "a LoRA",
    ),
    "PEFT, whole modules beside": (
        [f"{PEFT}.lora_A.weight", f"{PEFT}.lora_B.weight", "base_model.model.lm_head.weight"],
        "a LoRA",
    ),
    "diffusers": ([f"{FLUX}.lora_A.weight", f"{FLUX}.lora_B.weight"], "a LoRA"),
    "diffusers, 2023": (
        ["unet.down_blocks.0.attn1.processor.to_q_lora.up.weight", "unet.mid.to_k.lora.down.weight"],
        "a LoRA",
    ),
    "XLabs": (
        [f"double_blocks.0.processor.proj_lora{n}.{k}.weight" for n in (1, 2) for k in ("down", "up")],
        "a LoRA",
    ),
    "diffusers, linear layer": (["text_encoder.q_proj.lora_linear_layer.up.weight"], "a LoRA"),
    "ComfyUI, with prefix": (
        [f"diffusion_model.blocks.0.self_attn.q.{k}.weight" for k in ("lora_down", "lora_up")]
        + ["diffusion_model.blocks.0.self_attn.q.alpha", "diffusion_model.blocks.0.norm3.diff_b"],
        "a LoRA",
    ),
    "llama.cpp": (["blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b"], "a LoRA"),
    "LoHa": ([f"{KOHYA}.hada_{k}" for k in ("w1_a", "w1_b", "w2_a", "w2_b")], "a LoHa (LyCORIS)"),
    "LoHa, Tucker": ([f"{KOHYA}.hada_{k}" for k in ("t1", "t2", "w1_a", "w2_b")], "a LoHa (LyCORIS)"),
    "LoKr": ([f"{KOHYA}.lokr_w1", f"{KOHYA}.lokr_w2", f"{KOHYA}.alpha"], "a LoKr (LyCORIS)"),
    "LoKr, no kohya prefix": (
        ["diffusion_model.layers.0.qkv.lokr_w1", "diffusion_model.layers.0.qkv.lokr_w2_a"],
        "a LoKr (LyCORIS)",
    ),
    "OFT": ([f"{KOHYA}.oft_blocks", f"{KOHYA}.alpha"], "an OFT adapter"),
    "OFT, no kohya prefix": (["d.0.proj.oft_blocks", "d.0.proj.alpha"], "an OFT adapter"),
    "BOFT": ([f"{PEFT}.boft_R", f"{PEFT}.boft_s"], "an OFT adapter"),
    "IA3, LyCORIS": ([f"{KOHYA}.weight", f"{KOHYA}.on_input"], "an IA3 adapter"),
    "IA3, PEFT": ([f"{PEFT}.ia3_l"], "an IA3 adapter"),
    "full differences": ([f"{KOHYA}.diff", f"{KOHYA}.diff_b"], "a set of weight differences"),
    "Control-LoRA": (
        ["lora_controlnet", "input_blocks.0.0.weight", "input_blocks.1.0.in_layers.2.up"],
        "a Control-LoRA",
    ),
}
WORDS = [["emb_params"], ["clip_g", "clip_l"], ["<cat-toy>"], ["string_to_param.*", "string_to_token.*"]]
MODELS: dict[str, list[str]] = {
    "none": [],
    "RWKV 7, whose own layers are called so": [
        "model.layers.0.attn.w_lora.lora.0.weight",
        "model.layers.0.attn.w_lora.lora.2.weight",
    ],
    "DeepSeek's low-rank attention": [
        "model.layers.0.self_attn.q_a_proj.weight",
        "model.layers.0.self_attn.kv_b_proj.weight",
    ],
    "a vocoder with scales named alpha": ["resblocks.0.activations.0.alpha", "resblocks.0.conv.weight"],
    "diffusion": ["model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.diff.weight.x"],
    "merged by PEFT, still wrapped": [f"{PEFT}.base_layer.weight", f"{PEFT}.base_layer.bias"],
    "one factor left behind in a model": ["a.weight", "b.weight", "c.weight", "b.lora_A.weight"],
    "Phi 4 multimodal, published with both of its adapters": [
        f"model.layers.0.self_attn.qkv_proj.{k}.weight"
        for k in ("base_layer", "lora_A.speech", "lora_A.vision", "lora_B.speech", "lora_B.vision")
    ],
}


def refusal(keys: Collection[str]) -> str:
    with pytest.raises(CheckpointError) as caught:
        refuse_difference(Path("m"), keys)
    return str(caught.value)


@pytest.mark.parametrize(("keys", "what"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_differences_are_refused_with_the_way_out(keys: list[str], what: str) -> None:
    """Every convention that tools write is recognised and named."""
    expected = f"m: is {what}: a difference and not a model; apply it to its base model first, for instance"
    assert refusal(keys).startswith(expected)


@pytest.mark.parametrize("keys", WORDS)
def test_textual_inversions_are_refused(keys: list[str]) -> None:
    """Word vectors change no weights at all."""
    assert refusal(keys).startswith("m: is a textual inversion")


@pytest.mark.parametrize("keys", MODELS.values(), ids=MODELS)
def test_models_are_let_through(keys: list[str]) -> None:
    """Neither a word in a name nor a leftover makes a model a difference."""
    refuse_difference(Path("m"), keys)


@pytest.mark.parametrize("name", ["default", "default_0"])
def test_an_attached_adapter_has_to_be_merged_first(name: str) -> None:
    """The base weights are there, but they are not what the model works with."""
    keys = [
        f"{PEFT}.base_layer.weight",
        f"{PEFT}.lora_A.{name}.weight",
        "model.norm.weight",
        "lm_head.weight",
    ]
    assert "has attached and not merged" in refusal(keys)
    assert "merge_and_unload()" in refusal(keys)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_lora_file_is_refused_whatever_its_container(tmp_path: Path, suffix: str) -> None:
    """The keys decide, after the file was opened; nothing stays open."""
    path = tmp_path / f"style{suffix}"
    keys = [f"{KOHYA}.lora_down.weight", f"{KOHYA}.lora_up.weight"]
    if suffix == ".pt":
        torch.save({key: torch.zeros(2, 2) for key in keys}, path)
    else:
        save_file({key: np.zeros((2, 2), np.float32) for key in keys}, path)
    with pytest.raises(CheckpointError, match=r"is a LoRA: a difference and not a model"):
        open_checkpoint(path)


def test_an_embedding_of_the_first_web_interfaces_is_refused(tmp_path: Path) -> None:
    """Its pickle holds the vectors one level down."""
    path = tmp_path / "word.pt"
    torch.save(
        {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": {"*": torch.ones(2, 8)}}, path
    )
    with pytest.raises(CheckpointError, match="is a textual inversion"):
        open_checkpoint(path)


def test_a_folder_of_peft_is_refused_like_its_file(tmp_path: Path) -> None:
    """The file need not even be opened: its name says it."""
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(CheckpointError, match="is a LoRA or another adapter: a difference and not a model"):
        open_checkpoint(tmp_path)


def test_an_adapter_beside_a_model_is_left_out_with_a_note(tmp_path: Path) -> None:
    """What training left beside the weights is not part of them."""
    save_file({"a.weight": np.zeros(2, np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "adapter_model.safetensors").touch()
    with open_checkpoint(tmp_path) as checkpoint:
        assert ["a.weight"] == list(checkpoint.infos)
        assert ("adapter_model.safetensors: left out, model.safetensors is the model of this folder",) == (
            checkpoint.notes
        )
