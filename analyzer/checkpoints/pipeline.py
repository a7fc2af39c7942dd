"""Which folders of a diffusers pipeline are its sub-models. Reads their names and model_index.json.

`model_index.json` names every component with its library and class; schedulers, tokenizers and image
processors are components without weights.
https://huggingface.co/docs/diffusers/using-diffusers/loading
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from analyzer.checkpoints.checkpoint import shown
from analyzer.checkpoints.composite import listed
from analyzer.checkpoints.folder_contents import MODEL_INDEX, Contents, contents_of
from analyzer.checkpoints.json_file import read_json_object
from analyzer.errors import CheckpointError

MAX_MODEL_INDEX_BYTES = 1_000_000
MAX_SUB_MODELS = 100

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")  # of an argument in Python, as pipelines have it
# The names that pipelines of diffusers give to components with weights; and those of Wan 2.2's own layout.
_USUAL_NAME = re.compile(
    r"(unet|transformer|text_encoder|image_encoder|vision_encoder|audio_encoder|vae|audio_vae|prior|decoder"
    r"|prior_prior|prior_text_encoder|prior_image_encoder|safety_checker|vqgan|vqvae|movq|controlnet"
    r"|adapter|t2i_adapter|motion_adapter|vocoder|language_model|projection_model|connectors|renderer"
    r"|image_unet|text_unet|text_decoder|super_res_first|super_res_last|condition_encoder|image_normalizer"
    r"|upsampler|latent_upsampler|high_noise_model|low_noise_model)(_\w{1,40})?"
)
_NO_WEIGHTS = re.compile(r".*(Tokenizer(Fast)?|Scheduler|Processor(Fast)?|FeatureExtractor|Watermarker)")
_NO_WEIGHTS_NAME = re.compile(r"(tokenizer|scheduler|feature_extractor|\w*processor|watermark)(_\w+)?")


@dataclass(frozen=True, slots=True)
class SubModel:
    """A folder of a pipeline that holds weights."""

    name: str
    contents: Contents


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The sub-models, by name; none if the folder is no pipeline."""

    sub_models: tuple[SubModel, ...]
    notes: tuple[str, ...] = ()


def describe_pipeline(contents: Contents) -> Pipeline:
    """The sub-models in the folder; CheckpointError if one that should have weights has none."""
    described = MODEL_INDEX in contents.files
    named = _read_model_index(contents) if described else {}
    own_model = any(file.standard for file in contents.weights)
    if own_model and not described:  # a language model with folders beside it, whatever they are named
        return Pipeline(())
    sub_models: list[SubModel] = []
    notes: list[str] = []
    incomplete: list[str] = []
    for name in contents.folders:
        if not (name in named or (_NAME if described else _USUAL_NAME).fullmatch(name)):
            continue
        inner = contents_of(contents.folder / name)
        standard = any(file.standard for file in inner.weights)
        if standard or (name in named and inner.weights):
            sub_models.append(SubModel(name, inner))
            if described and name not in named:
                notes.append(f"{name}: is not named by {MODEL_INDEX}, and was opened as a part of its own")
        elif name in named and not _is_weightless(name, named[name]) and "config.json" in inner.files:
            incomplete.append(name)
    if incomplete:
        raise CheckpointError(
            f"{contents.folder}: the download is incomplete: no weights in {listed(incomplete)}; finish it"
        )
    missing = [
        name
        for name, kind in named.items()
        if name not in contents.folders and not _is_weightless(name, kind)
    ]
    if missing and sub_models:
        notes.append(f"{listed(missing)}: named by {MODEL_INDEX}, and not there")
    if missing and not sub_models and not contents.weights:
        raise CheckpointError(
            f"{contents.folder}: the download is incomplete: {MODEL_INDEX} names {listed(missing)}, of which "
            "there is nothing; finish it"
        )
    if len(sub_models) > MAX_SUB_MODELS:
        raise CheckpointError(
            f"{contents.folder}: holds {len(sub_models)} sub-models, and {MAX_SUB_MODELS} is the most; "
            "name one of them"
        )
    return Pipeline(tuple(sub_models), tuple(notes))


def _read_model_index(contents: Contents) -> Mapping[str, str]:
    """The class of every component that the pipeline has, by the component's name."""
    path = contents.folder / MODEL_INDEX
    named: dict[str, str] = {}
    bad: list[str] = []
    for name, value in read_json_object(path, limit=MAX_MODEL_INDEX_BYTES).items():
        if not (isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value)):
            continue  # an option of the pipeline, or [null, null]: a component that it does without
        if _NAME.fullmatch(name):
            named[name] = value[1]
        else:
            bad.append(shown(name))
    if bad:
        raise CheckpointError(
            f"{path}: names sub-models that are no plain names: {listed(bad)}; do not use this model unless "
            "you know why"
        )
    return named


def _is_weightless(name: str, kind: str) -> bool:
    return bool(_NO_WEIGHTS.fullmatch(kind) or _NO_WEIGHTS_NAME.fullmatch(name))
