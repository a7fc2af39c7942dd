"""What two tensors of different shape have in common: rows of a vocabulary, channels of an input.

Knows names and shapes. Anything else that differs in shape is another layer, and is not compared.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from analyzer.records import ShapeMismatch, TensorInfo
from analyzer.views import leading


def common_part(name: str, a: TensorInfo, b: TensorInfo) -> tuple[TensorInfo, TensorInfo] | None:
    """The leading parts of both that can be compared; None if these tensors have none.

    Rows of what has one for each token: the tokens that a fine-tune adds stand behind those of its base.
    Input channels of a denoiser's first layer: the four of the latent come first, behind them what an
    inpainting or pix2pix model is shown besides. `name` is canonical (diffusers), or the raw key.
    """
    if len(a.shape) != len(b.shape) or a.view or b.view or 0 in (*a.shape, *b.shape):
        return None
    differing = [axis for axis, (x, y) in enumerate(zip(a.shape, b.shape, strict=True)) if x != y]
    fits = (differing == [0] and _VOCABULARY.search(name)) or (differing == [1] and _INPUT.fullmatch(name))
    if not fits:
        return None
    shape = tuple(map(min, a.shape, b.shape))
    return leading(a, shape), leading(b, shape)


def describe_parts(partial: Sequence[ShapeMismatch]) -> list[str]:
    """What is compared in part and what is left out of it, in one sentence for all that differ alike."""
    alike: dict[str, list[str]] = {}
    for each in partial:
        axis = 0 if each.shape_a[0] != each.shape_b[0] else 1
        a, b = each.shape_a[axis], each.shape_b[axis]
        what, longer, more = ("rows", "input channels")[axis], "A" if a > b else "B", abs(a - b)
        left = f"{longer}'s other {more:,} {'is' if more == 1 else 'are'} left out"
        alike.setdefault(f"the first {min(a, b):,} {what} are compared, {left}", []).append(each.key)
    return [f"{_listed(keys)}: {text}" for text, keys in alike.items()]


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return ", ".join(keys[:_LISTED]) + more


_LISTED = 3

# One row for each token, in the words of transformers, OpenCLIP, GGUF and the older GPTs.
_VOCABULARY = re.compile(
    r"(?:^output|(?:^|\.)(?:embed_tokens|lm_head|wte|word_embeddings|token_embedding|tok_embeddings|shared|"
    r"embed_in|embed_out|token_embd|predictions|predictions\.decoder|lm_head\.decoder|vocab_projector|"
    r"embed_tokens_per_layer))"
    r"\.(?:weight|bias)\Z"
)

# The layer that sees the latent, in the layouts of LDM, diffusers, Flux, SD 3, Wan and Hunyuan Video; not
# that of a VAE, which sees a picture, and not the one through which a ControlNet sees its hint.
_INPUT = re.compile(
    r"(?:.*\.)?(?:input_blocks\.0\.0|(?<!encoder\.)(?<!decoder\.)(?<!embedding\.)conv_in|x_embedder(?:\.proj)?|"
    r"img_in(?:\.proj)?|patch_embedding|pos_embed\.proj)\.weight"
)
