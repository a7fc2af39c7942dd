"""What a tensor's name tells in any architecture: its kind, its place in words, tables and markers.

Knows names, dtypes and numbers of axes; refuses to look at sizes, except that an empty tensor is a
marker, and at values.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from analyzer.scale_names import ALSO_LEARNED, SCALES, is_scale_word

BASE = "BASE"  # the block of all that lies in no block
VAE = "VAE"  # the block of every key of the part "vae"

SCHEDULE = "schedule"
MARKER = "marker"
TRAINING = "training"

# How the names of what only training needs begin: the discriminator of a VAE, states of optimizers.
_TRAINING_ONLY = (
    "loss.",
    "optimizer.",
    "optimizers.",
    "optimizer_state.",
    "optimizer_states.",
    "lr_schedulers.",
)

# The layers of a model repeat the same few names: remembering them makes 100,000 keys cheap.
_REMEMBERED = 1 << 12


class Position(NamedTuple):
    """Where a name stands: the axes that do not depend on dtype or shape."""

    part: str
    block: str
    component: str
    group: str


def special(name: str, *, empty: bool) -> str | None:
    """The component of what is no weight of the network; None for all others.

    `schedule` is a table of the noise schedule, `marker` a flag, `training` what only training needs:
    losses, discriminators, optimizers.
    """
    last = name.rpartition(".")[2]
    at_top = name.count(".") <= 1  # deeper down, a tensor called `betas` belongs to the network
    if (at_top and last in _SCHEDULE) or name.startswith("model_sampling."):
        return SCHEDULE
    if empty or last in _MARKERS or (at_top and name.startswith("edm_") and last not in _PLAIN):
        return MARKER
    return TRAINING if name.startswith(_TRAINING_ONLY) else None


@lru_cache(maxsize=_REMEMBERED)
def judge(last: str, dtype: str, axes: int, /) -> tuple[str, bool]:
    """The kind of a tensor by the last words of its name, and whether it counts in totals.

    The kind is `weight`, `bias` or `other`: buffers, tables, integers. Integers do not count, nor do
    tables of integers and masks, even where a cast made them floats, nor the scales of quantized
    weights. What models also learn under such a name, `q_scale`, is a scale only without axes.
    """
    word = _naming_word(last)
    is_scale = is_scale_word(word) and not (axes and word in ALSO_LEARNED)
    if is_integer(dtype) or _is_table(last, word, axes) or is_scale:
        return "other", False
    if word in _BUFFERS or word.endswith(("_buffer", "_cached")):
        return "other", True
    if word in ("bias", "beta") or word.startswith("bias_") or word.endswith("_bias"):
        return "bias", True
    return "weight", True


def last_words(name: str) -> str:
    """As much of a name as `judge` needs."""
    return ".".join(name.rsplit(".", 3)[-3:])


def is_integer(dtype: str) -> bool:
    """True for the integer and boolean dtypes of safetensors: I8 … I64, U8 … U64, BOOL."""
    return dtype.startswith(("I", "U", "BOOL"))


@lru_cache(maxsize=_REMEMBERED)
def path(name: str, nameless: str = "tensor", /) -> tuple[str, str]:
    """The component path that a dotted name spells, and its group.

    Numbers and the last word's `weight` or `bias` are dropped, and what could break a selector
    becomes `_`. The group ends at the first word without a number behind it: `mlp` of
    `mlp.experts.3.w1.weight`, `blocks/attn` of `blocks.0.attn.q.weight`. A name of which nothing
    is left, such as `weight` or `0.bias`, is called `nameless`.
    """
    words: list[str] = []
    depth = 0  # words up to the end of the group, 0 as long as that is not known
    numbered = False
    length = 0
    *front, last = [s for s in name.split(".") if s] or [""]
    for segment in (*front, _stem(name, last)):
        if segment.isascii() and segment.isdigit():
            numbered = True
            continue
        if segment in ("", "weight", "bias", "parametrizations"):
            continue
        if words and not numbered and not depth:
            depth = len(words)
        length += 1 + min(len(segment), _MAX_WORD)
        if length > _MAX_PATH:
            break
        words.append(clean(segment))
        numbered = False
    words = words or [clean(nameless)]
    return "/".join(words), "/".join(words[: depth or len(words)])


def clean(word: str) -> str:
    """One segment of a component: letters, digits, `_` and `-`, never longer than 64, no name of a kind."""
    if not (word.isascii() and word.isidentifier()):  # nearly all are, and need no search
        word = _UNFIT.sub("_", word) or "_"
    word = word[:_MAX_WORD]
    return f"{word}_" if word.lower() in _RESERVED else word


def _naming_word(name: str) -> str:
    """The last segment; for torch's parametrizations the name of the tensor that they stand for."""
    segments = name.rsplit(".", 3)
    return segments[-2] if len(segments) > 2 and segments[-3] == "parametrizations" else segments[-1]


def _stem(name: str, last: str) -> str:
    """What the last segment says besides the kind: `in_proj` of `in_proj_bias`, nothing of `weight`."""
    if last in _PLAIN or _naming_word(name) != last:
        return ""
    if last in _BUFFERS or last in _TABLES or last in SCALES:
        return last
    for kind in ("weight", "bias"):
        if last.startswith(f"{kind}_"):
            return last[len(kind) + 1 :]
        if last.endswith(f"_{kind}"):
            return last[: -len(kind) - 1]
    return last


def _is_table(last: str, word: str, axes: int) -> bool:
    """True for indices and masks: no training moves them, whatever dtype they were saved in."""
    if word in _TABLES or word.endswith(("_mask", "_ids", "_index")):
        return True
    # GPT-2 and GPT-NeoX keep the causal mask, four axes, under the name of a bias.
    return axes == 4 and last.endswith(("attn.bias", "attention.bias"))


_MAX_WORD = 64
_MAX_PATH = 200
_UNFIT = re.compile(r"[^A-Za-z0-9_-]")

# As segments of a component these would stand on two axes, or mean what they are not.
_RESERVED = frozenset({"weight", "bias", "other", "uncategorized", SCHEDULE, MARKER, TRAINING})

# Last words that say nothing but the kind. `weight_g` and `weight_v` are the two halves of weight norm.
_PLAIN = frozenset({"weight", "bias", "scale", "gamma", "beta", "weight_g", "weight_v"})

_BUFFERS = frozenset({"running_mean", "running_var", "inv_freq", "freqs_cis"})

_TABLES = frozenset({"position_ids", "num_batches_tracked", "mask", "masked_bias"})

_MARKERS = frozenset({"v_pred", "ztsnr", "scaled_fp8"})

_SCHEDULE = frozenset(
    {
        *("betas", "sigmas", "log_sigmas", "lvlb_weights"),
        *("alphas_cumprod", "alphas_cumprod_prev", "alphas_cumprod_next", "log_one_minus_alphas_cumprod"),
        *("sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
        *("sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
        *("posterior_variance", "posterior_log_variance_clipped"),
        *("posterior_mean_coef1", "posterior_mean_coef2"),
    }
)
