"""What a causal language model would say next: `--probe causal_lm`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analyzer.experiment.probes.networks import network, tokens

if TYPE_CHECKING:
    import torch

# Used where no --prompt is given: facts, figures, code, a dialogue, a story, another language.
PROMPTS = (
    "The capital of France is",
    "Water boils at a temperature of",
    "12 + 30 =",
    "def is_even(number):\n    return",
    "Question: Why is the sky blue?\nAnswer:",
    "Once upon a time, in a village by the sea, there lived",
    "Dear Sir or Madam, I am writing to you because",
    "El perro come y el gato",
)


def logits(
    state_dict: Mapping[str, torch.Tensor],
    model_dir: str,
    prompts: Sequence[str] = (),
    device: str = "cpu",
    dtype: str = "fp32",
) -> NDArray[np.float32]:
    """The logits of the token that would follow each prompt: (prompts × vocabulary), fp32.

    `model_dir` has the network's config.json and its tokenizer; each prompt (default: PROMPTS) is read by
    itself, without padding. `dtype` is what is computed in ("fp32", "fp16", "bf16"): fp32 takes a copy of
    weights that are stored otherwise, and shows differences that a shorter one rounds away.

    Raises AnalyzerError for a folder that transformers cannot use, weights that do not fit its
    config.json, and a prompt without a token.
    """
    import torch

    model = network(state_dict, model_dir, auto="AutoModelForCausalLM", device=device, dtype=dtype)
    rows = []
    with torch.inference_mode():
        for ids in tokens(model_dir, tuple(prompts) or PROMPTS):
            found = model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits
            rows.append(found[0, -1].float().cpu().numpy())
    return np.stack(rows)
