"""What a model says of itself beside its weights: what its U-Net predicts, how its VAE scales latents.

Reads names, shapes, the metadata of a file and the small JSON files of a folder; of the tensors one bias of
an SD 2.x. Nothing of it is trusted: what is no plain value of the expected kind says nothing. Compares
nothing; `analyzer.compatibility.disagreements` does.

Where tools look for it:
- The empty keys `v_pred` and `ztsnr`, and `edm_mean` with `edm_std` or `edm_vpred.sigma_max`, mark an SDXL
  file (ComfyUI, comfy/supported_models.py and comfy_extras/nodes_model_merging.py; the WebUI's development
  branch, modules/sd_models_config.py; sd-webui-forge). A file without any of them is taken to predict noise;
  of an SD 2.x ComfyUI looks at how far the values of one bias are spread.
- `prediction_type` and `rescale_betas_zero_snr` in the scheduler_config.json of diffusers.
- `modelspec.prediction_type` (https://github.com/Stability-AI/ModelSpec), `modelspec.predict_key` of ComfyUI,
  and `ss_v_parameterization`, `ss_zero_terminal_snr` of sd-scripts.
- `scaling_factor` and `shift_factor` in a VAE's config.json of diffusers. Single files do not state them, and
  loaders go by the architecture (ComfyUI, comfy/latent_formats.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.checkpoints import Checkpoint
from analyzer.checkpoints.json_file import read_json_object
from analyzer.errors import CheckpointError
from analyzer.kernels.formats import values_of
from analyzer.records import Categorized

MAX_JSON_BYTES = 1_000_000  # a scheduler's configuration has one kilobyte, a model's up to a hundred

NOISE = "epsilon"
VELOCITY = "v_prediction"
EDM = "edm"
EDM_VELOCITY = "edm v_prediction"
FLOW = "flow"
SAMPLE = "sample"

MARKERS = ("v_pred", "ztsnr", "edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
DENOISERS = ("unet", "transformer", "prior", "decoder")  # parts that predict

_Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """A value, and where it stands."""

    value: str
    source: str  # as messages name it: "its key v_pred", "scheduler/scheduler_config.json"


@dataclass(frozen=True, slots=True)
class Latents:
    """How a VAE's latents are seen by its U-Net: (latent − shift) · scale."""

    scale: float
    shift: float
    source: str


@dataclass(frozen=True, slots=True)
class Declarations:
    """What one model says; None: nothing."""

    prediction: Said | None  # NOISE, VELOCITY …
    zero_snr: bool | None  # whether the noise schedule ends in pure noise
    latents: Latents | None
    channels: int | None  # of the VAE's latents
    settings: Mapping[str, str]  # of a language model's attention, by the name in its config.json
    unreadable: tuple[str, ...] = ()  # a sentence about each file that could not be read


def declarations(checkpoint: Checkpoint, found: Categorized) -> Declarations:
    """What an open model says of itself; `found` are its labels. Never raises for what a file holds."""
    files = _Files(checkpoint)
    pipeline = checkpoint.format == "diffusers"
    scheduler = files.read("scheduler/scheduler_config.json") if pipeline else {}
    # transformers writes Infinity into some of its own, which is no JSON: no fault of the model.
    config = {} if pipeline else files.read("config.json", silent=True)
    return Declarations(
        prediction=_prediction(checkpoint, found, scheduler),
        zero_snr=_zero_snr(checkpoint, scheduler),
        latents=_latents(checkpoint, found, *_vae_config(files, config, pipeline=pipeline)),
        channels=_channels(checkpoint, found),
        settings=dict(_settings(config)),
        unreadable=tuple(files.unreadable),
    )


class _Files:
    """The JSON files of a model's folder; {} for one that is not there or cannot be read."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.unreadable: list[str] = []
        self._folder = checkpoint.folder

    def read(self, name: str, *, silent: bool = False) -> _Json:
        if self._folder is None:
            return {}
        path = self._folder / name
        try:
            if path.is_file():
                return read_json_object(path, limit=MAX_JSON_BYTES)
        except OSError:  # a name that cannot be looked at is not there
            return {}
        except CheckpointError as error:
            if silent:
                return {}
            self.unreadable.append(f"{error}; what it says of the model is not compared")
        return {}


def _prediction(checkpoint: Checkpoint, found: Categorized, scheduler: _Json) -> Said | None:
    """What the network predicts; keys win over a scheduler, and that over metadata, as with loaders."""
    if not any(network.part in DENOISERS for network in found.networks):
        return None
    sources = (
        _by_keys(checkpoint),
        _by_scheduler(scheduler),
        _by_metadata(checkpoint.metadata),
        _by_spread(checkpoint, found),
        _by_default(checkpoint, found),
    )
    return next((said for said in sources if said), None)


def _by_keys(checkpoint: Checkpoint) -> Said | None:
    keys = checkpoint.infos
    if "edm_mean" in keys and "edm_std" in keys:
        return Said(EDM, "its keys edm_mean and edm_std")
    for key, value in (("edm_vpred.sigma_max", EDM_VELOCITY), ("v_pred", VELOCITY)):
        if key in keys:
            return Said(value, f"its key {key}")
    return None


def _by_scheduler(scheduler: _Json) -> Said | None:
    source = "scheduler/scheduler_config.json"
    kind, stated = scheduler.get("_class_name"), scheduler.get("prediction_type")
    if isinstance(kind, str) and ("FlowMatch" in kind or scheduler.get("use_flow_sigmas") is True):
        return Said(FLOW, source)
    if isinstance(kind, str) and kind.startswith("EDM"):
        return Said(EDM, source)
    if isinstance(stated, str):
        value = {"flow_prediction": FLOW}.get(stated, stated)
        return Said(value, source) if value in (NOISE, VELOCITY, SAMPLE, FLOW) else None
    # The default of every scheduler that has the option; early files of SD 1.x do not name it.
    return Said(NOISE, f"{source}, by default") if kind in _PREDICT_NOISE else None


def _by_metadata(metadata: Mapping[str, str]) -> Said | None:
    for name in ("modelspec.prediction_type", "modelspec.predict_key"):
        value = _SPELLINGS.get(metadata.get(name, "").strip().casefold())
        if value:
            return Said(value, f"its metadata, {name}")
    flag = _flag(metadata.get("ss_v_parameterization"))
    if flag is not None:
        return Said(VELOCITY if flag else NOISE, "its metadata, ss_v_parameterization")
    for name, value in _SD2_VELOCITY.items():
        if metadata.get(name) == value:
            return Said(VELOCITY, f"its metadata, {name}")
    return None


def _by_spread(checkpoint: Checkpoint, found: Categorized) -> Said | None:
    """How ComfyUI tells the two kinds of SD 2.x in single files, whose names are the same.

    The only values that are read here: one bias of 320 numbers.
    """
    if found.architecture != "sd2" or checkpoint.folder is not None or checkpoint.format == "gguf":
        return None
    names = {name: key for network in found.networks for key, name in network.names.items()}
    first, bias = (checkpoint.infos.get(names.get(name, "")) for name in (_FIRST, _TELLING_BIAS))
    if first is None or bias is None or bias.numel > _MOST_VALUES or first.shape[1:2] != (4,):
        return None  # of the variants, as for inpainting, none is known to predict velocities
    raw = np.empty(bias.nbytes, np.uint8)
    try:
        checkpoint.read_into(bias, 0, raw)
    except CheckpointError:  # who merges will say so
        return None
    values = values_of(raw, bias.dtype)
    if values is None or not np.isfinite(values).all():
        return None
    spread = float(np.std(values.astype(np.float64)))
    kind = VELOCITY if spread > _SPREAD_OF_VELOCITY else NOISE
    return Said(kind, f"the spread of {_TELLING_BIAS}, {spread:.2g}, as ComfyUI tells SD 2.x apart")


def _by_default(checkpoint: Checkpoint, found: Categorized) -> Said | None:
    """What loaders take a file to be that says nothing."""
    if checkpoint.folder is not None or checkpoint.format == "gguf":
        return None
    return Said(NOISE, "it has no mark of another kind") if found.architecture in _UNMARKED else None


def _zero_snr(checkpoint: Checkpoint, scheduler: _Json) -> bool | None:
    if "ztsnr" in checkpoint.infos:
        return True
    stated = scheduler.get("rescale_betas_zero_snr")
    if isinstance(stated, bool):
        return stated
    flag = _flag(checkpoint.metadata.get("ss_zero_terminal_snr"))
    return False if flag is None and "v_pred" in checkpoint.infos else flag


def _vae_config(files: _Files, config: _Json, *, pipeline: bool) -> tuple[str, _Json]:
    """The VAE's configuration and its name, in a pipeline's folder or in the VAE's own."""
    if pipeline:
        return "vae/config.json", files.read("vae/config.json")
    own = str(config.get("_class_name", "")).startswith("Autoencoder")
    return "config.json", config if own else {}


def _latents(checkpoint: Checkpoint, found: Categorized, source: str, config: _Json) -> Latents | None:
    if config:
        scale, shift = _number(config.get("scaling_factor")), _number(config.get("shift_factor"))
        if scale is None and "scaling_factor" not in config and config.get("_class_name") == "AutoencoderKL":
            scale, source = _DEFAULT_SCALE, f"{source}, by default"
        return None if scale is None else Latents(scale, shift or 0.0, source)
    known = _LATENTS.get(found.architecture)
    if checkpoint.folder is not None or known is None:
        return None
    if "edm_mean" in checkpoint.infos:
        known = (0.5, 0.0)  # Playground 2.5 has its own
    return Latents(*known, f"the scale of {found.title}")


def _channels(checkpoint: Checkpoint, found: Categorized) -> int | None:
    """Of the first layer of the decoder: (out, channels, height, width), of videos with one axis more."""
    for network in found.networks:
        if network.part != "vae":
            continue
        for key, name in network.names.items():
            shape = checkpoint.infos[key].shape
            if name == "decoder.conv_in.weight" and len(shape) in (4, 5):
                return shape[1]
    return None


def _settings(config: _Json) -> Iterator[tuple[str, str]]:
    """What decides how a language model's weights are used and no shape shows."""
    inner = config.get("text_config")  # of a model that sees, too
    if isinstance(inner, dict):
        config = {**config, **inner}
    rope = config.get("rope_parameters")  # transformers 5; before it, rope_theta
    rope = rope if isinstance(rope, dict) else {}
    theta = _number(config.get("rope_theta", rope.get("rope_theta")))
    if theta is not None:
        yield "rope_theta", f"{theta:g}"
    for name in ("num_attention_heads", "num_key_value_heads"):
        count = _number(config.get(name))
        if count is not None:
            yield name, f"{count:g}"
    act = config.get("hidden_act")
    if isinstance(act, str) and len(act) < _LONGEST_NAME and act.isprintable():
        yield "hidden_act", act


def _number(value: object) -> float | None:
    """A finite number of a JSON file; True is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    with suppress(OverflowError):
        return float(value) if math.isfinite(value) else None
    return None


def _flag(text: str | None) -> bool | None:
    """What Python's str makes of a truth value; None if it is neither."""
    return {"true": True, "false": False}.get(text.strip().casefold()) if text is not None else None


_SPELLINGS = {
    "epsilon": NOISE,
    "eps": NOISE,
    "v": VELOCITY,
    "v_prediction": VELOCITY,
    "v-prediction": VELOCITY,
    "vpred": VELOCITY,
}
_SD2_VELOCITY = {
    "ss_base_model_version": "sd_v2_v",
    "modelspec.architecture": "stable-diffusion-v2-768-v",
}
_UNMARKED = ("sd1", "sdxl", "sdxl-refiner")
_PREDICT_NOISE = (
    "PNDMScheduler",
    "DDIMScheduler",
    "DDPMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "LCMScheduler",
)
_FIRST = "input_blocks.0.0.weight"
_TELLING_BIAS = "output_blocks.11.1.transformer_blocks.0.norm1.bias"
_SPREAD_OF_VELOCITY = 0.09
_MOST_VALUES = 10_000
_LONGEST_NAME = 40
_DEFAULT_SCALE = 0.18215  # of diffusers' AutoencoderKL, for the first files of SD 1.x
_LATENTS = {  # scale and shift that loaders take for a single file
    "sd1": (0.18215, 0.0),
    "sd2": (0.18215, 0.0),
    "sdxl": (0.13025, 0.0),
    "sdxl-refiner": (0.13025, 0.0),
    "sd3": (1.5305, 0.0609),
    "flux": (0.3611, 0.1159),
    "chroma": (0.3611, 0.1159),
}
