"""What a classifier of texts or of pictures says to some of them: `--probe classifier`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analyzer.errors import AnalyzerError
from analyzer.experiment.probes.networks import import_transformers, network, read_config, reading, tokens

if TYPE_CHECKING:
    import torch

# Used where no --prompt is given, for classifiers of texts.
PROMPTS = (
    "I loved every minute of it.",
    "The food was cold and the waiter was rude.",
    "The meeting was moved to Tuesday.",
    "You have won a prize! Click here to claim it.",
    "The central bank raised interest rates by half a point.",
    "The striker scored twice in the second half.",
)


def logits(
    state_dict: Mapping[str, torch.Tensor],
    model_dir: str,
    prompts: Sequence[str] = (),
    device: str = "cpu",
    dtype: str = "fp32",
) -> NDArray[np.float32]:
    """The logits of each text or picture: (prompts × classes), fp32.

    Which of the two the network takes, its config.json says. Texts stand in `prompts` (default: PROMPTS),
    of pictures the names of their files. `model_dir` has the config.json and the tokenizer or
    preprocessor_config.json; `dtype` is what is computed in, as for causal_lm.

    Raises AnalyzerError for a folder that transformers cannot use, weights that do not fit its
    config.json, and texts or pictures that are none.
    """
    import torch

    named = getattr(read_config(model_dir), "architectures", None) or ()
    pictures = any(name.endswith("ForImageClassification") for name in named)
    auto = f"AutoModelFor{'Image' if pictures else 'Sequence'}Classification"
    given: list[dict[str, torch.Tensor]]
    if pictures:
        given = [{"pixel_values": x} for x in _pixels(model_dir, prompts)]
    else:
        found = tokens(model_dir, tuple(prompts) or PROMPTS)
        given = [{"input_ids": torch.tensor([ids])} for ids in found]
    model = network(state_dict, model_dir, auto=auto, device=device, dtype=dtype)
    rows = []
    with torch.inference_mode():
        for inputs in given:
            moved = {name: x.to(device, model.dtype if pictures else None) for name, x in inputs.items()}
            rows.append(model(**moved).logits[0].float().cpu().numpy())
    return np.stack(rows)


def _pixels(model_dir: str, files: Sequence[str]) -> list[torch.Tensor]:
    """Each picture as the network wants it: (1 × channels × height × width)."""
    from PIL import Image, UnidentifiedImageError

    if not files:
        raise AnalyzerError(f"{model_dir}: is a classifier of pictures; name some with --prompt FILE.png")
    pictures = []
    for file in files:
        try:
            with Image.open(file) as picture:
                pictures.append(picture.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise AnalyzerError(
                f"--prompt {file}: is no picture that can be read ({error}); name one, for this network "
                "classifies pictures"
            ) from error
    with reading(model_dir):
        processor = import_transformers().AutoImageProcessor.from_pretrained(
            model_dir, local_files_only=True, trust_remote_code=False
        )
        return [processor(images=picture, return_tensors="pt")["pixel_values"] for picture in pictures]
