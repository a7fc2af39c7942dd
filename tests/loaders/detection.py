"""By which keys, shapes and dtypes ComfyUI and the WebUI tell what a checkpoint is, in our own words.

Written from their published loaders; nothing here is their code. A model is given as dtype and shape by key.

ComfyUI (Comfy-Org/ComfyUI at a125cd8):
- comfy/utils.py, load_torch_file: safetensors are opened by the reference library, the metadata as a dict.
- comfy/model_detection.py: the network lies under the prefix `model.diffusion_model.` if more than five keys
  do, else under `model.`, and in files of the network alone under none. Its kind follows from a few keys and
  from the shapes of a few more; a key `scaled_fp8` beside it turns on fp8 with one `scale_weight` a layer.
- comfy/supported_models.py: what each kind demands of these; which marks change what an SDXL predicts;
  under which prefixes text encoders and VAE are looked for.
- comfy/sd.py: the VAE by `decoder.conv_in.weight`, `taesd_decoder.1.weight` and their like.

WebUI (AUTOMATIC1111/stable-diffusion-webui, modules/, release 1.10 and its development branch):
- sd_models_config.py: which configuration a file gets, by four keys and the input channels; the development
  branch takes `v_pred` for the mark of velocities in SD 2.x and SDXL.
- sd_models.py: the header's JSON must begin with `{"` in bytes 8 and 9, or its metadata are not read.
  Keys of SD 1.x text encoders may lack `text_model.`. Weights are loaded by name; what is missing keeps the
  values of an untrained model without an error, so no name may be lost.
"""

from __future__ import annotations

from collections.abc import Mapping

Tensor = tuple[str, tuple[int, ...]]
Model = Mapping[str, Tensor]

UNET = "model.diffusion_model."

# comfy/supported_models.py, `unet_config` of each class: what is compared with what the keys tell.
COMFYUI_UNETS = {
    "SD15_instructpix2pix": {
        "context": 768,
        "channels": 320,
        "linear": False,
        "vector": None,
        "inputs": 8,
    },
    "SD15": {"context": 768, "channels": 320, "linear": False, "vector": None},
    "SD20": {"context": 1024, "channels": 320, "linear": True, "vector": None},
    "SDXL": {
        "context": 2048,
        "channels": 320,
        "linear": True,
        "vector": 2816,
        "depths": (0, 0, 2, 2, 10, 10),
    },
    "SDXLRefiner": {
        "context": 1280,
        "channels": 384,
        "linear": True,
        "vector": 2560,
        "depths": (0, 0, 4, 4, 4, 4, 0, 0),
    },
}

# Where ComfyUI looks for the rest of a checkpoint, and the key by which it knows it.
COMFYUI_PARTS = {
    "SD15": {
        "text": "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
        "vae": "first_stage_model.decoder.conv_in.weight",
    },
    "SD20": {
        "text": "cond_stage_model.model.transformer.resblocks.0.mlp.c_fc.weight",
        "vae": "first_stage_model.decoder.conv_in.weight",
    },
    "SDXL": {
        "text": "conditioner.embedders.0.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
        "text_2": "conditioner.embedders.1.model.transformer.resblocks.0.mlp.c_fc.weight",
        "vae": "first_stage_model.decoder.conv_in.weight",
    },
    "SDXLRefiner": {
        "text": "conditioner.embedders.0.model.transformer.resblocks.0.mlp.c_fc.weight",
        "vae": "first_stage_model.decoder.conv_in.weight",
    },
    "SD3": {
        "text": "text_encoders.clip_l.transformer.text_model.final_layer_norm.weight",
        "text_2": "text_encoders.clip_g.transformer.text_model.final_layer_norm.weight",
        "text_3": "text_encoders.t5xxl.transformer.encoder.final_layer_norm.weight",
        "vae": "first_stage_model.decoder.conv_in.weight",
    },
    "Flux": {
        "text": "text_encoders.clip_l.transformer.text_model.final_layer_norm.weight",
        "text_2": "text_encoders.t5xxl.transformer.encoder.final_layer_norm.weight",
        "vae": "vae.decoder.conv_in.weight",
    },
}


def comfyui(model: Model) -> dict[str, object]:
    """What ComfyUI takes the model to be: kind, input channels, prediction, fp8, and the parts it finds."""
    prefix = UNET if sum(key.startswith(UNET) for key in model) > 5 else ""
    kind, channels = _kind(model, prefix)
    found: dict[str, object] = {"kind": kind, "channels": channels, "predicts": _prediction(kind, model)}
    if f"{prefix}scaled_fp8" in model:
        dtype, shape = model[f"{prefix}scaled_fp8"]
        found["fp8"] = ("F8_E4M3" if dtype == "F32" else dtype, shape == (2,))
    parts = COMFYUI_PARTS.get(kind.removesuffix("Schnell").removesuffix("_instructpix2pix"), {})
    found["parts"] = sorted(part for part, key in parts.items() if key in model)
    vae = parts.get("vae", "")
    found["latents"] = model[vae][1][1] if vae in model else None
    return found


def _kind(model: Model, prefix: str) -> tuple[str, int]:
    if f"{prefix}joint_blocks.0.context_block.attn.qkv.weight" in model:
        channels = model[f"{prefix}x_embedder.proj.weight"][1][1]
        return ("SD3" if channels == 16 else "unknown"), channels
    if f"{prefix}double_blocks.0.img_attn.norm.key_norm.scale" in model and f"{prefix}img_in.weight" in model:
        guided = f"{prefix}guidance_in.in_layer.weight" in model
        return ("Flux" if guided else "FluxSchnell"), model[f"{prefix}img_in.weight"][1][1] // 4
    first = f"{prefix}input_blocks.0.0.weight"
    if first not in model:
        return "unknown", 0
    channels, inputs = model[first][1][:2]
    facts = {
        "channels": channels,
        "inputs": inputs,
        "vector": None,
        "context": None,
        "linear": False,
        "depths": (),
    }
    if f"{prefix}label_emb.0.0.weight" in model:
        facts["vector"] = model[f"{prefix}label_emb.0.0.weight"][1][1]
    depths = []
    for n in range(1, _count(model, f"{prefix}input_blocks")):
        block = f"{prefix}input_blocks.{n}"
        if f"{block}.0.op.weight" in model or f"{block}.0.in_layers.0.weight" not in model:
            continue
        depths.append(_count(model, f"{block}.1.transformer_blocks"))
        if depths[-1] and facts["context"] is None:
            facts["context"] = model[f"{block}.1.transformer_blocks.0.attn2.to_k.weight"][1][1]
            facts["linear"] = len(model[f"{block}.1.proj_in.weight"][1]) == 2
    facts["depths"] = tuple(depths)
    for kind, wanted in COMFYUI_UNETS.items():
        if all(facts[name] == value for name, value in wanted.items()):
            return kind, inputs
    return f"unknown: {facts}", inputs


def _count(model: Model, path: str) -> int:
    """How many numbers follow after one another below a path, from 0 on."""
    numbers = {key[len(path) + 1 :].partition(".")[0] for key in model if key.startswith(f"{path}.")}
    count = 0
    while str(count) in numbers:
        count += 1
    return count


def _prediction(kind: str, model: Model) -> str:
    """An SDXL goes by marks; that of an SD 2.x is read off the spread of a bias, and SD 1.x has no choice."""
    if kind == "SD20":
        return "by a bias"
    if kind != "SDXL":
        return {"SD3": "flow", "Flux": "flow", "FluxSchnell": "flow"}.get(kind, "noise")
    if "edm_mean" in model and "edm_std" in model:
        return "edm"
    if "edm_vpred.sigma_max" in model:
        return "edm velocity"
    if "v_pred" in model:
        return "velocity, zero snr" if "ztsnr" in model else "velocity"
    return "noise"


def webui(model: Model) -> str:
    """Which of its configurations the WebUI gives the model."""
    first = model.get(f"{UNET}input_blocks.0.0.weight")
    inputs = first[1][1] if first else None
    velocity = "v_pred" in model
    if f"{UNET}x_embedder.proj.weight" in model:
        return "sd3"
    if "conditioner.embedders.1.model.ln_final.weight" in model:
        return "sd_xl_inpaint" if inputs == 9 else "sd_xl_v" if velocity else "sd_xl_base"
    if "conditioner.embedders.0.model.ln_final.weight" in model:
        return "sd_xl_refiner"
    sd2 = model.get("cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight")
    if sd2 and sd2[1][1] == 1024:
        return "v2-inpainting" if inputs == 9 else "v2-v" if velocity else "v2"
    return {9: "v1-inpainting", 8: "instruct-pix2pix"}.get(inputs or 0, "v1")
