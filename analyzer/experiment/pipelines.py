"""Load the text-to-image pipeline of a model that is open for reading. Knows diffusers, and no grid.

A diffusers folder is loaded as it is. A single file holds no configuration: it comes from a folder of the
architecture, which the user names or diffusers keeps (or gets from the Hugging Face hub); a pocket model
brings its own. Whether the pipeline then holds A's values is checked by `analyzer.experiment.placing`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from analyzer.categories import categorize
from analyzer.checkpoints import Checkpoint
from analyzer.checkpoints.folder_contents import MODEL_INDEX
from analyzer.checkpoints.json_file import read_json_object
from analyzer.checkpoints.pipeline import MAX_MODEL_INDEX_BYTES
from analyzer.checkpoints.weight_names import weight_file
from analyzer.errors import AnalyzerError
from analyzer.kernels.backends import device_errors
from analyzer.quiet import diffusers_library, quiet

# The pipelines of single files whose configuration diffusers finds by itself, by architecture.
SINGLE_FILES: Mapping[str, str] = {
    "sd1": "StableDiffusionPipeline",
    "sd2": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
}

_NEEDED = ("prompt", "num_inference_steps", "generator", "output_type", "callback_on_step_end")
_OTHER_INPUTS = ("image", "control_image", "mask_image", "video", "num_frames")  # of what is no text to image
_LIBRARIES = ("diffusers", "transformers")
# What loading raises for files that do not fit a class; ImportError for a further library that a class needs.
_LOADING_ERRORS = (
    AttributeError, ImportError, IndexError, KeyError, NotImplementedError, OSError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip


def is_pocket(model: Checkpoint) -> bool:
    """Whether it is a pocket model: told by the size of its table of words, before anything is loaded."""
    from analyzer.pocket.folders import recognises

    return recognises(model)


def load_pipeline(model: Checkpoint, *, config: Path | None = None, dtype: str, device: str) -> Any:
    """The `diffusers` pipeline that paints with the weights of `model`, on `device` ("cpu", "cuda:0", "mps").

    `config` is a diffusers folder of the architecture, for single files; its weights are not needed. `dtype`
    is "fp32", "fp16" or "bf16". There is no safety checker. Raises AnalyzerError in one sentence for what is
    no text-to-image model, a missing extra, a missing, wrong or needless `config`, or a device that fails.
    """
    folder = model.folder if model.format == "diffusers" else None
    if folder is not None and config is not None:
        raise AnalyzerError(
            f"--config {config}: {model.path} is a diffusers folder and has its own; leave it out"
        )
    diffusers = diffusers_library()
    options = {"dtype": _torch_dtype(dtype), "local_files_only": True}
    with quiet():
        if folder is not None:
            pipeline = _from_folder(diffusers, model, folder, options)
        else:
            pipeline = _from_file(diffusers, model, config, options)
        pipeline.set_progress_bar_config(disable=True)
        _cast(pipeline, options["dtype"])
        with device_errors(device):
            pipeline.to(device)
    _require_own_channels(model, pipeline)
    return pipeline


def native_size(pipeline: Any) -> tuple[int, int]:
    """Width and height in pixels of what the pipeline paints if it is told no size."""
    size = getattr(pipeline, "default_sample_size", None) or denoiser(pipeline).config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return width * pipeline.vae_scale_factor, height * pipeline.vae_scale_factor


def denoiser(pipeline: Any) -> Any:
    """The network that takes the noise away: a U-Net or a transformer."""
    return getattr(pipeline, "unet", None) or pipeline.transformer


def _from_folder(diffusers: Any, model: Checkpoint, folder: Path, options: Mapping[str, Any]) -> Any:
    """The pipeline of a diffusers folder, in the variant that was opened."""
    kind = _pipeline_class(diffusers, folder)
    variants = [found.variant for shard in model.shards if (found := weight_file(Path(shard.name).name))]
    variant = next(filter(None, variants), None)
    with _loading_errors(f"{model.path}: diffusers cannot load it"):
        return kind.from_pretrained(str(folder), variant=variant, **_unchecked(kind), **options)


def _from_file(diffusers: Any, model: Checkpoint, config: Path | None, options: Mapping[str, Any]) -> Any:
    """The pipeline of a single file."""
    file = _single_file(model)
    with ExitStack() as stack:
        if config is None and is_pocket(model):
            from analyzer.pocket.folders import write_configs

            config = Path(stack.enter_context(TemporaryDirectory(prefix="mergescope-")))
            write_configs(config)
            kind = _pipeline_class(diffusers, config)
            way_out = (
                "as a pocket model, which its table of words makes it: give the --config of its own shape"
            )
        elif config is not None:
            kind = _pipeline_class(diffusers, config)
            way_out = f"as {config} describes it: give the --config of its own architecture"
        else:
            kind = getattr(diffusers, _known_class(model))
            way_out = (
                "without a configuration: give --config DIR, a diffusers folder of this architecture; its "
                "weights are not needed"
            )
        errors = (*_LOADING_ERRORS, _component_error())
        with _loading_errors(f"{model.path}: diffusers cannot load it {way_out}", errors):
            return kind.from_single_file(
                str(file), config=None if config is None else str(config), **_unchecked(kind), **options
            )


def _component_error() -> type[Exception]:
    """What diffusers raises for a single file that lacks one of the pipeline's networks: a bare Exception."""
    from diffusers.loaders import single_file

    return getattr(single_file, "SingleFileComponentError", RuntimeError)


def _single_file(model: Checkpoint) -> Path:
    """The one file of the model; AnalyzerError if it has several, or is of a kind that diffusers has not."""
    if len(model.files) == 1 and model.format != "gguf":
        return model.files[0]
    raise AnalyzerError(f"{model.path}: is no text-to-image model that diffusers loads; {_PROBE}")


def _known_class(model: Checkpoint) -> str:
    """The pipeline that an architecture has without a configuration; AnalyzerError for all others."""
    found = categorize(model.infos.values())
    name = SINGLE_FILES.get(found.architecture)
    if name is not None:
        return name
    raise AnalyzerError(
        f"{model.path}: nothing says how it paints pictures ({found.title}): give --config DIR, a "
        f"diffusers folder of this architecture, whose weights are not needed; {_PROBE}"
    )


def _pipeline_class(diffusers: Any, folder: Path) -> Any:
    """The class that a folder's model_index.json names; AnalyzerError if it does not paint from text alone.

    Nothing but classes of diffusers and transformers is ever asked for: the file may name any module.
    """
    path = folder / MODEL_INDEX
    if not path.is_file():
        raise AnalyzerError(f"{folder}: is no diffusers folder: it has no {MODEL_INDEX}")
    index = read_json_object(path, limit=MAX_MODEL_INDEX_BYTES)
    for name, value in index.items():
        if isinstance(value, list) and value and not _is_known_library(diffusers, value[0]):
            raise AnalyzerError(f"{path}: {name} is code of its own ({value[0]}), which is never run")
    kind = getattr(diffusers, str(index.get("_class_name")), None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline)):
        raise AnalyzerError(
            f"{path}: names no pipeline of diffusers {diffusers.__version__} ({index.get('_class_name')}); "
            "get the model again, or a newer diffusers"
        )
    accepted = inspect.signature(kind.__call__).parameters
    paints = all(name in accepted for name in _NEEDED) and hasattr(kind, "prepare_latents")
    if not paints or any(name in accepted for name in _OTHER_INPUTS):
        raise AnalyzerError(f"{folder}: {kind.__name__} does not paint a picture from a text alone; {_PROBE}")
    return kind


def _is_known_library(diffusers: Any, name: object) -> bool:
    if name is None or name in _LIBRARIES:
        return True
    return isinstance(name, str) and name.isidentifier() and hasattr(diffusers.pipelines, name)


def _unchecked(kind: Any) -> dict[str, Any]:
    """What leaves the safety checker out, of pipelines that have one: it would blacken pictures."""
    accepted = inspect.signature(kind.__init__).parameters
    found = {"safety_checker": None, "requires_safety_checker": False}
    return {name: value for name, value in found.items() if name in accepted}


def _require_own_channels(model: Checkpoint, pipeline: Any) -> None:
    """Refuse a U-Net that wants more than latents: inpainting's takes a picture and a mask besides."""
    unet, vae = getattr(pipeline, "unet", None), getattr(pipeline, "vae", None)
    if unet is None or vae is None:
        return
    wanted, there = unet.config.in_channels, vae.config.latent_channels
    if wanted != there:
        raise AnalyzerError(
            f"{model.path}: its U-Net takes {wanted} channels and the latents have {there}: a model for "
            "inpainting or editing, which paints nothing from a text alone"
        )


def _cast(pipeline: Any, dtype: Any) -> None:
    """Cast networks that diffusers loads in fp32 whatever it is asked for, as SD 3's transformer in 0.42."""
    import torch

    for network in pipeline.components.values():
        if isinstance(network, torch.nn.Module):
            dtypes = {each.dtype for each in network.parameters()}
            if dtypes and dtype not in dtypes:  # some keep a few of their parameters in fp32, as they should
                network.to(dtype)


def _torch_dtype(name: str) -> Any:
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[name]


@contextmanager
def _loading_errors(what: str, errors: tuple[type[Exception], ...] = _LOADING_ERRORS) -> Iterator[None]:
    """AnalyzerError for whatever diffusers says of files that do not go together, in one line."""
    try:
        yield
    except errors as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines)[:_REASON]
        raise AnalyzerError(f"{what} ({reason or type(error).__name__})") from error


_REASON = 300  # characters of a message that may list hundreds of keys
_PROBE = "what other models answer can be compared with --probe"
