"""The fallback for models that no rule file knows: blocks, parts and components from names alone.

What it looks for are stacks: words with a number behind them (`model.layers.0` … `model.layers.31`)
where at least half of the names below a number stand below another one too. The stack with the most
keys is the main one and gives the blocks:

- `IN00` …, `M00`, `OUT00` … if it is one side of a U-Net (`input_blocks`, `down_blocks`);
- `ENC00` …, `DEC00` … if it lies in an encoder beside a decoder, or the other way round; a side that is
  no stack has no blocks;
- `L00` … otherwise.

Every other stack is BASE, a vision tower beside a language model for instance: two stacks never share
the name of a block. The exception are twins, two copies of one network in one file: same numbers, same
names below them, and paths that differ in one word, of which one extends the other (`_model.encoder`
and `_model_8k.encoder`). Their layers of one number are one block.

Components begin inside the layer, in blocks and in the layers of every transformer; elsewhere behind
the words that only lead to a stack (`embed_tokens` of `model.embed_tokens`). Parts follow the first
words of a name; where these say nothing, a transformer's keys are `transformer` and a U-Net's `unet`.

Refuses nothing: every name, however odd, gets a clean position.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from analyzer.categories.names import BASE, VAE, Position, path

TITLE = "generic (by key names)"


@dataclass(frozen=True, slots=True)
class Layout:
    """What a survey of a model's names found; the empty one puts every name into BASE."""

    blocks: tuple[str, ...] = ()  # in network order
    part: str = "other"  # of names whose first words do not tell
    seats: Mapping[str, _Seat] = field(default_factory=dict)  # by the beginning of a stack's names
    middle: str | None = None  # how the names of M00 begin
    homes: frozenset[str] = frozenset()  # beginnings of names that lead to a stack and say no more


def survey(names: Iterable[str]) -> Layout:
    """The layout of the model whose tensors have these names."""
    names = dict.fromkeys(names)
    stacks = {s.prefix: s for s in _find_stacks(names) if part_of(s.prefix)[0] != "vae"}
    # The text encoders of an image model have no blocks, but a text encoder alone has.
    towers = [s for s in stacks.values() if not _is_text_encoder(s.prefix)] or list(stacks.values())
    if not towers:
        return Layout()
    main = _largest(towers)
    middle, chosen = _u_net(main, stacks)
    chosen = chosen or _encoder_decoder(main, towers, names) or {"L": main}
    seats = {s.prefix: _Seat(_last_word(s.prefix), {}) for s in stacks.values() if s.attention}
    blocks: list[str] = []
    for stem, stack in chosen.items():
        seat = _Seat(_last_word(stack.prefix), _block_names(stem, stack.numbers))
        seats |= {twin.prefix: seat for twin in towers if _are_twins(stack, twin)}
        blocks += seat.blocks.values()
        blocks += ["M00"] if stem == "IN" and any(name.startswith(middle) for name in names) else []
    part = "unet" if middle else "transformer" if main.attention else "other"
    return Layout(
        tuple(blocks),
        part if part_of(main.prefix)[0] is None else "other",
        seats,
        middle or None,
        frozenset(home for prefix in islice(seats, _MAX_LED_TO) for home in _homes(prefix)),
    )


def position(name: str, layout: Layout) -> Position:
    """Where a name stands in a model of this layout."""
    part, start = part_of(name)
    block = VAE if part == "vae" else BASE
    part = part or layout.part
    if layout.middle and name.startswith(layout.middle):
        return Position(part, "M00", *path(name[len(layout.middle) :], "middle"))
    match = _number(name) if layout.seats else None
    for _ in range(_MAX_NUMBERS):
        if not match:
            break
        if seat := layout.seats.get(name[: match.start(1)]):
            return Position(part, seat.blocks.get(match[1], block), *path(name[match.end() + 1 :], seat.name))
        match = _number(name, match.end())
    start = max(start, _home_length(name, layout.homes))
    return Position(part, block, *path(name[start:], _last_word(name[:start])))


def part_of(name: str) -> tuple[str | None, int]:
    """The part that the first words of a name tell, None if they do not, and their length."""
    if name.startswith(_DENOISER):
        return "unet", len(_DENOISER)
    word, dot, _ = name.partition(".")
    part = _PARTS.get(word) if dot else None
    return part, len(word) + 1 if part else 0


@dataclass(frozen=True, slots=True)
class _Seat:
    """What the layers of a stack are called."""

    name: str  # a tensor of a layer that is only a `weight`
    blocks: Mapping[str, str]  # by the number in the key: "7" -> "L07"; empty if they are no blocks


@dataclass(frozen=True, slots=True)
class _Stack:
    """All names that begin with one prefix and a number behind it."""

    prefix: str  # "model.layers."
    numbers: set[int] = field(default_factory=set)
    inner: dict[str, set[int]] = field(default_factory=dict)  # what follows a number -> the numbers

    @property
    def keys(self) -> int:
        return sum(map(len, self.inner.values()))

    @property
    def repeats(self) -> bool:
        """True if at least half of the names stand below two numbers or more."""
        return 2 * sum(len(numbers) for numbers in self.inner.values() if len(numbers) > 1) >= self.keys

    @property
    def attention(self) -> bool:
        """True for the layers of a transformer."""
        return any(_ATTENTION.search(rest) for rest in self.inner)


def _find_stacks(names: Iterable[str]) -> Iterator[_Stack]:
    """The outermost stacks: where the first number of a name counts no stack, its next one may."""
    pending = [(name, match) for name in names if (match := _number(name))]
    for _ in range(_MAX_NUMBERS):
        families: dict[str, _Stack] = {}
        for name, match in pending:
            prefix = name[: match.start(1)]
            if not (family := families.get(prefix)):
                family = families[prefix] = _Stack(prefix)
            rest = name[match.end() + 1 :]
            if (numbers := family.inner.get(rest)) is None:
                numbers = family.inner[rest] = set()
            number = int(match[1])
            numbers.add(number)
            family.numbers.add(number)
        found = {prefix: family for prefix, family in families.items() if family.repeats}
        yield from found.values()
        left = [(name, match) for name, match in pending if name[: match.start(1)] not in found]
        deeper = ((name, _number(name, match.end())) for name, match in left)
        pending = [(name, match) for name, match in deeper if match]


def _number(name: str, start: int = 0) -> re.Match[str] | None:
    """The first number of a name from `start` on, as far in as stacks are looked for."""
    match = _NUMBER.search(name, start)
    return match if match and match.start(1) <= _MAX_PREFIX else None


def _u_net(main: _Stack, stacks: Mapping[str, _Stack]) -> tuple[str, dict[str, _Stack]]:
    """How the middle's names begin and both sides, if `main` is one of the sides of a U-Net."""
    for first, middle, last in _U_NETS:
        for side in (first, last):
            parent = main.prefix.removesuffix(f"{side}.")
            if parent != main.prefix and (not parent or parent.endswith(".")):
                down, up = stacks.get(f"{parent}{first}."), stacks.get(f"{parent}{last}.")
                if down and up:
                    return f"{parent}{middle}.", {"IN": down, "OUT": up}
    return "", {}


def _encoder_decoder(
    main: _Stack, towers: Iterable[_Stack], names: Iterable[str]
) -> dict[str, _Stack] | None:
    """The stacks of an encoder–decoder model by stem; None if `main` has no counterpart."""
    role, counterpart = _role(main.prefix)
    if role is None:
        return None
    sides = {role: main}
    if others := [tower for tower in towers if _role(tower.prefix)[0] not in (role, None)]:
        sides[_OPPOSITE[role]] = _largest(others)
    elif not any(name.startswith(counterpart) for name in names):
        return None  # an encoder alone is layers like any others
    return {_STEMS[role]: sides[role] for role in _STEMS if role in sides}


def _role(prefix: str) -> tuple[str | None, str]:
    """On which side of an encoder–decoder model a stack lies, and how the other side's names begin."""
    words = prefix.split(".")
    for index, word in enumerate(words):
        if word in _OPPOSITE:
            return word, ".".join((*words[:index], _OPPOSITE[word], ""))
    return None, ""


def _block_names(stem: str, numbers: Collection[int]) -> dict[str, str]:
    """The blocks of a stack in order, by the numbers as they stand in the keys."""
    width = max(2, len(str(max(numbers))))
    return {str(number): f"{stem}{number:0{width}}" for number in sorted(numbers)}


def _are_twins(a: _Stack, b: _Stack) -> bool:
    """True for one stack, and for two copies of one network in one file."""
    if a is b:
        return True
    left, right = a.prefix.split("."), b.prefix.split(".")
    differing = [(x, y) for x, y in zip(left, right, strict=False) if x != y]
    if len(left) != len(right) or len(differing) != 1 or part_of(a.prefix)[0] != part_of(b.prefix)[0]:
        return False
    short, long = sorted(differing[0], key=len)
    return bool(short) and long.startswith(short) and a.inner == b.inner


def _largest(stacks: Iterable[_Stack]) -> _Stack:
    """The stack with the most keys; among equals the deepest, then the first by name."""
    return min(stacks, key=lambda s: (-s.keys, -len(s.numbers), s.prefix))


def _is_text_encoder(prefix: str) -> bool:
    return (part_of(prefix)[0] or "").startswith("text_encoder")


def _homes(prefix: str) -> Iterator[str]:
    """The beginnings of a stack's path, up to the word that names the stack or its side."""
    words = prefix.split(".")[:-2]
    for length, word in enumerate(words[:_MAX_HOMES], 1):
        if word in _OPPOSITE:
            return
        yield ".".join((*words[:length], ""))


def _home_length(name: str, homes: Collection[str]) -> int:
    """The length of the longest beginning of a name that is a home."""
    end = 0
    while (dot := name.find(".", end)) >= 0 and name[: dot + 1] in homes:
        end = dot + 1
    return end


def _last_word(prefix: str) -> str:
    """The last word of a path that is no number: what to call a tensor that is only a `weight`."""
    words = (word.rstrip("_") for word in reversed(prefix.split(".")))
    return next((word for word in words if word and not word.isdecimal()), "tensor")


# Four numbers deep lies no stack: experts of a layer of a tower of an ensemble.
_MAX_NUMBERS = 4

# What keeps the work on odd names in proportion to their length; models have 60, 6 and 10 at most.
_MAX_PREFIX = 400  # characters before the number of a stack
_MAX_HOMES = 40  # words that lead to one
_MAX_LED_TO = 1000  # stacks whose leading words are dropped elsewhere

# A number that is a segment, or stands behind a word for layers as in ResNet's layer1 or JAX's layers_0.
_NUMBER = re.compile(r"(?:^|\.)(?:(?:layers?|blocks?|stages?|levels?|h)_?)?(0|[1-9][0-9]{0,5})(?=\.|\Z)")

_ATTENTION = re.compile(r"attn|attention|(?:^|[._])(?:mlp|ffn?|feed_forward)(?:[._]|$)", re.IGNORECASE)

_U_NETS = (("input_blocks", "middle_block", "output_blocks"), ("down_blocks", "mid_block", "up_blocks"))

_STEMS = {"encoder": "ENC", "decoder": "DEC"}  # in network order
_OPPOSITE = {"encoder": "decoder", "decoder": "encoder"}

_DENOISER = "model.diffusion_model."
_PARTS = {
    "diffusion_model": "unet",
    "unet": "unet",
    "cond_stage_model": "text_encoder",
    "conditioner": "text_encoder",
    "text_encoders": "text_encoder",
    "te": "text_encoder",
    **{f"text_encoder{n}": f"text_encoder{n}" for n in ("", "_1", "_2", "_3", "_4")},
    "first_stage_model": "vae",
    "vae": "vae",
}
