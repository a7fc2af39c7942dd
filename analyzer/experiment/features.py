"""Perceptual features of pictures, from a vision model in a local folder. Knows no grid; downloads nothing.

Code that lies in a model's folder is never run, and weights are read from safetensors only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.errors import AnalyzerError
from analyzer.experiment.measures import Picture
from analyzer.experiment.probes.networks import reading

Features = NDArray[np.float32]
_WAY_OUT = "name a folder of a vision model as transformers saves it: CLIP, SigLIP, DINOv2, ViT"


def open_features(folder: Path, *, device: str = "cpu") -> Callable[[Picture], Features]:
    """The function that a vision model is: from a picture to its features, (features,) of length 1.

    They are what the model itself compares pictures by: CLIP's and SigLIP's image embedding, else the pooled
    output, else that of the first token. Scaled to length 1, as such features are compared by their cosine:
    of two, the distance is √(2 − 2 cos).

    Raises AnalyzerError for a folder that has no vision model that transformers knows, one whose weights are
    missing or not safetensors, and where transformers is not installed.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise AnalyzerError("--features needs transformers: pip install 'mergescope[experiment]'") from error
    if not (folder / "config.json").is_file():
        raise AnalyzerError(f"{folder}: has no config.json; {_WAY_OUT}")
    automatic: Any = transformers.AutoImageProcessor  # whose methods come without types
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    with reading(str(folder)):
        processor = automatic.from_pretrained(folder, **local)
        model, report = transformers.AutoModel.from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **local
        )
    # Some checkpoints were saved without the pooler that their class has; it would be a random one.
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing or report["mismatched_keys"]:
        named = [*missing, *(key for key, *_ in report["mismatched_keys"])]
        raise AnalyzerError(f"{folder}: lacks weights of its network, such as {named[0]}; {_WAY_OUT}")
    if model.main_input_name != "pixel_values" and not hasattr(model, "get_image_features"):
        raise AnalyzerError(f"{folder}: {type(model).__name__} sees no pictures; {_WAY_OUT}")
    model = model.eval().to(device)
    pooled = not report["missing_keys"]

    def features(pixels: Picture) -> Features:
        with torch.inference_mode():
            seen = processor(images=pixels, input_data_format="channels_last", return_tensors="pt")
            found = _output(model, seen["pixel_values"].to(device), pooled=pooled)
        values: Features = found.float().cpu().numpy().ravel()
        length = np.linalg.norm(values)
        return values / length if length > 0 else values

    return features


def _output(model: Any, pixel_values: Any, *, pooled: bool) -> Any:
    """A tensor of one picture's features, in any shape."""
    if hasattr(model, "get_image_features"):
        found = model.get_image_features(pixel_values=pixel_values)
        # transformers 5 wraps the embedding, 4 does not.
        return getattr(found, "pooler_output", found)
    found = model(pixel_values=pixel_values)
    if pooled and getattr(found, "pooler_output", None) is not None:
        return found.pooler_output
    return found.last_hidden_state[:, 0]
