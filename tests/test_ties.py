"""A tensor that a model stores more than once counts once, whatever its family calls it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from analyzer.checkpoints import open_checkpoint
from analyzer.scan import scan

Write = Callable[..., Path]

# What every model of a family has, the tensor that is tied, and the keys that hold it once more.
FAMILIES = {
    "llama": (
        ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"],
        "model.embed_tokens.weight",
        ["lm_head.weight"],
    ),
    "bert": (
        ["bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.0.output.dense"],
        "bert.embeddings.word_embeddings.weight",
        ["cls.predictions.decoder.weight"],
    ),
    "roberta": (
        ["roberta.encoder.layer.0.attention.self.query", "lm_head.dense"],
        "roberta.embeddings.word_embeddings.weight",
        ["lm_head.decoder.weight"],
    ),
    "whisper": (
        ["model.encoder.layers.0.self_attn.q_proj", "model.decoder.layers.0.encoder_attn.q_proj"],
        "model.decoder.embed_tokens.weight",
        ["proj_out.weight"],
    ),
    "t5": (
        ["encoder.block.0.layer.0.SelfAttention.q", "decoder.block.0.layer.0.SelfAttention.q"],
        "shared.weight",
        ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"],
    ),
    "gpt2": (["h.0.attn.c_attn", "h.0.mlp.c_fc"], "wte.weight", ["lm_head.weight"]),
}


def model(family: str, seed: int, *, tied: bool) -> dict[str, np.ndarray]:
    """A model of the family, in which the copies hold the embedding's values or values of their own."""
    rng = np.random.default_rng(seed)
    layers, embedding, copies = FAMILIES[family]
    tensors = {f"{layer}.weight": rng.standard_normal((6, 6)) for layer in layers}
    tensors[embedding] = rng.standard_normal((20, 6))
    for copy in copies:
        tensors[copy] = tensors[embedding] if tied else rng.standard_normal((20, 6))
    return tensors


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_stored_again_counts_once(family: str, write: Write) -> None:
    """The copies are listed, and count in no total."""
    paths = [write(f"{n}.safetensors", model(family, n, tied=True)) for n in (1, 2)]
    with open_checkpoint(paths[0]) as a, open_checkpoint(paths[1]) as b:
        result = scan(a, b)
    copies = FAMILIES[family][2]
    assert set(copies) == {row.key for row in result.keys if not row.labels.counted}
    assert len(copies) == sum("tied" in note for note in result.notes)


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_of_their_own_count(family: str, write: Write) -> None:
    """The names alone do not tell: values that differ are other weights."""
    paths = [write(f"{n}.safetensors", model(family, n, tied=n == 1)) for n in (1, 2)]
    with open_checkpoint(paths[0]) as a, open_checkpoint(paths[1]) as b:
        result = scan(a, b)
    assert all(row.labels.counted for row in result.keys)
    assert not any("tied" in note for note in result.notes)
