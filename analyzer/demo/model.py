"""The demo network: a small causal transformer over characters, named like LLaMA, biased like Qwen2.

Owns the network, how it samples and how its loss is measured; the weights come from the caller as a
state dict of any floating-point dtype and are computed with in fp32. Knows no files.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from analyzer.demo.captions import Style, captions
from analyzer.errors import AnalyzerError

# A line break begins and ends every caption. The alphabet is fixed, not collected from the grammar:
# a character's row in the embedding is its place here.
ALPHABET = "\n !',-.?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
BREAK = ALPHABET.index("\n")

WIDTH = 64
LAYERS = 6
HEADS = 4
KEY_VALUE_HEADS = 2  # two query heads share one key and value head
HEAD_WIDTH = WIDTH // HEADS
HIDDEN = 72  # of the gated MLP
ROTARY_BASE = 10_000.0

HELD_OUT_CAPTIONS = 64
LONGEST = 256  # characters that `sample` writes at most
_NO_TARGET = -100  # behind the end of a caption; cross_entropy's own default


def build_model(*, seed: int = 0) -> CaptionModel:
    """The network with torch's default random weights, in fp32; torch's own random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CaptionModel()


def sample(state_dict: Mapping[str, Tensor], prompt: str, seed: int, *, temperature: float = 0.5) -> str:
    """`prompt` and its continuation, up to the end of the caption; the same seed writes the same text.

    A temperature of 1 draws as the model predicts, a lower one prefers what it finds likely. Raises
    AnalyzerError for a character that the models do not know.
    """
    model = _loaded(state_dict)
    rng = random.Random(seed)  # noqa: S311 - draws a caption, no secrets
    text = "\n" + prompt
    with one_thread(), torch.inference_mode():
        while len(text) <= LONGEST:
            scores = model(encode(text)[None])[0, -1].double()
            character = ALPHABET[_drawn(torch.softmax(scores / temperature, dim=0), rng.random())]
            if character == "\n":
                break
            text += character
    return text[1:]


def held_out_loss(state_dict: Mapping[str, Tensor], style: Style) -> float:
    """Bits per character on captions of portraits that neither model was trained on; 0 is perfect.

    The mean of −log2 p(character | all before it in its caption), the closing line break included.
    """
    model = _loaded(state_dict)
    inputs, targets = batch(islice(captions(style, "held_out", seed=0), HELD_OUT_CAPTIONS))
    with one_thread(), torch.inference_mode():
        return float(loss(model(inputs), targets)) / math.log(2)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread inside, then on as many as before.

    The order of additions, and with it every last bit, depends on the number of threads; and on
    matrices this small threads wait for each other far longer than they compute.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def encode(text: str) -> Tensor:
    """The characters as indices into the alphabet, int64; raises AnalyzerError for an unknown one."""
    unknown = sorted(set(text) - set(ALPHABET))
    if unknown:
        raise AnalyzerError(
            f"The demo models do not know the characters {unknown}; "
            "use plain letters, spaces and the signs ! ' , - . ?"
        )
    return torch.tensor([ALPHABET.index(character) for character in text])


def batch(lines: Iterable[str]) -> tuple[Tensor, Tensor]:
    """Inputs and targets, (captions × characters); a target is the input one place further on."""
    rows = [encode(f"\n{line}\n") for line in lines]
    inputs = nn.utils.rnn.pad_sequence([row[:-1] for row in rows], batch_first=True, padding_value=BREAK)
    targets = nn.utils.rnn.pad_sequence([row[1:] for row in rows], batch_first=True, padding_value=_NO_TARGET)
    return inputs, targets


def loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy in nats over all characters, padding left out."""
    return F.cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=_NO_TARGET)


class CaptionModel(nn.Module):
    """Characters in, a score for every next character out."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Decoder()
        self.lm_head = nn.Linear(WIDTH, len(ALPHABET), bias=False)

    def forward(self, characters: Tensor) -> Tensor:
        """(captions × characters) int64 -> (captions × characters × alphabet) unnormalised scores."""
        scores: Tensor = self.lm_head(self.model(characters))
        return scores


class Decoder(nn.Module):
    """Embedding, layers, and the last norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(len(ALPHABET), WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(WIDTH, eps=1e-6)

    def forward(self, characters: Tensor) -> Tensor:
        """(captions × characters) -> (captions × characters × width)."""
        stream: Tensor = self.embed_tokens(characters)
        rotation = _rotation(characters.shape[1])
        for layer in self.layers:
            stream = layer(stream, rotation)
        normed: Tensor = self.norm(stream)
        return normed


class Layer(nn.Module):
    """Attention and a gated MLP, each behind a norm and added to the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(WIDTH, eps=1e-6)
        self.self_attn = Attention()
        self.post_attention_layernorm = nn.RMSNorm(WIDTH, eps=1e-6)
        self.mlp = GatedMlp()

    def forward(self, stream: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """(captions × characters × width), shape kept."""
        stream = stream + self.self_attn(self.input_layernorm(stream), rotation)
        added: Tensor = stream + self.mlp(self.post_attention_layernorm(stream))
        return added


class Attention(nn.Module):
    """Causal attention with rotary positions; several query heads share a key and value head."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, HEADS * HEAD_WIDTH)
        self.k_proj = nn.Linear(WIDTH, KEY_VALUE_HEADS * HEAD_WIDTH)
        self.v_proj = nn.Linear(WIDTH, KEY_VALUE_HEADS * HEAD_WIDTH)
        self.o_proj = nn.Linear(HEADS * HEAD_WIDTH, WIDTH, bias=False)

    def forward(self, stream: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """(captions × characters × width), shape kept."""
        query = _rotated(_heads(self.q_proj(stream)), rotation)
        key = _rotated(_heads(self.k_proj(stream)), rotation)
        value = _heads(self.v_proj(stream))
        shared = HEADS // KEY_VALUE_HEADS
        mixed = F.scaled_dot_product_attention(
            query, key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1), is_causal=True
        )
        out: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return out


class GatedMlp(nn.Module):
    """down(silu(gate(x)) · up(x)). Shazeer, GLU Variants Improve Transformer (2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.up_proj = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.down_proj = nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, stream: Tensor) -> Tensor:
        """(captions × characters × width), shape kept."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(stream)) * self.up_proj(stream))
        return out


def _heads(projected: Tensor) -> Tensor:
    """(captions × characters × heads·16) -> (captions × heads × characters × 16)."""
    return projected.view(*projected.shape[:2], -1, HEAD_WIDTH).transpose(1, 2)


def _rotation(length: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, (characters × 16). Su et al., RoFormer (2021)."""
    speeds = ROTARY_BASE ** -(torch.arange(0, HEAD_WIDTH, 2) / HEAD_WIDTH)
    angles = torch.outer(torch.arange(length), speeds).repeat(1, 2)
    return angles.cos(), angles.sin()


def _rotated(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Element i and element i + 8 of a head turned together by the angle of their position."""
    cosine, sine = rotation
    first, second = heads.chunk(2, dim=-1)
    return heads * cosine + torch.cat((-second, first), dim=-1) * sine


def _loaded(state_dict: Mapping[str, Tensor]) -> CaptionModel:
    model = build_model()
    model.load_state_dict(dict(state_dict))
    return model.eval()


def _drawn(probabilities: Tensor, draw: float) -> int:
    """The first index whose cumulative probability exceeds a uniform draw.

    The draw is Python's, because torch does not promise the same numbers in its next release.
    """
    ladder = torch.cumsum(probabilities, dim=0).tolist()
    return next((index for index, top in enumerate(ladder) if draw < top), len(ladder) - 1)
