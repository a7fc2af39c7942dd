"""Block weights: what a user writes, and the alpha that each block of a model has from it.

A U-Net (blocks IN00 …, M00, OUT00 …) needs a number for each block, since numbers for one U-Net mean other
blocks of another. Everything that is a row of layers takes a curve too. Presets fit every model.

Knows the names of blocks, no keys and no tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from math import isfinite
from pathlib import Path

from analyzer.blocks import presets
from analyzer.blocks.preset_files import read_numbers, read_small
from analyzer.errors import RecipeError
from analyzer.fields import FieldError, brief

_MAX_BYTES = 1 << 16  # more than any list of block weights takes
_SAME = 1e-9  # two tables of one preset differ by the rounding of their decimals
_U_NETS = {25: "SD 1 and 2", 19: "SDXL"}  # the usual lists of numbers, and whose blocks they mean

_WAY_OUT = "write numbers such as 0,0.5,1"

_LISTED = re.compile(r"[\s,0-9.eE+-]+")
_UNET_BLOCK = re.compile(r"(IN|M|OUT)\d+")


@dataclass(frozen=True, slots=True)
class BlockAlphas:
    """What block weights come to on one model."""

    by_block: Mapping[str, float]  # every block of the model, in network order
    base: float | None  # of what lies in no block, if a number was given for it
    note: str | None  # how the weights were read, where that is not plain


def parse(text: str, *, user: Mapping[str, tuple[float, ...]] | None = None) -> tuple[float, ...] | str:
    """The name of a preset that ships, or numbers: at least one, all finite.

    In this order the text is a preset's name (one of `user` before one that ships), numbers separated by
    commas, or the path of a file that holds such numbers. RecipeError for what is none of these.
    A preset of `user` that says of 25 blocks what the one that ships under its name says, is that one,
    and fits every model as that one does.
    """
    named = _named(text, user or {})
    if named is not None:
        return named
    if _LISTED.fullmatch(text):
        return _numbers(text, source="block weights")
    try:
        content = read_small(Path(text), limit=_MAX_BYTES)
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null byte in the path
        if "," in text:
            return _numbers(text, source="block weights")
        near = presets.nearest(text, among=user or {})
        raise RecipeError(
            f"block weights {brief(text)!r} are neither a preset ({near}), "
            "nor numbers such as 0,0.5,1 with one for each block, nor a readable file of numbers"
        ) from error
    return _numbers(content, source=text, way_out=f"{_WAY_OUT}; a file of presets is for --presets")


def alphas_by_block(weights: tuple[float, ...] | str, blocks: Sequence[str]) -> BlockAlphas:
    """The alpha of each block, from a preset's name or from numbers.

    `blocks` are those of the model in network order. All of them are one depth: of Flux the double blocks
    and then the single ones, of an encoder and a decoder the encoder first, so that a preset's first half
    is the encoder's as it is the input side's of a U-Net. As many numbers as blocks are theirs, one more
    is BASE's and comes first. Any other number of them is a curve, straight between its points, from the
    first block to the last; but not for a U-Net. RecipeError for numbers that do not fit, or none.
    """
    if not blocks:
        raise RecipeError("--block-weights: A has no numbered blocks; use --only and --set instead")
    count = len(blocks)
    if isinstance(weights, str):
        name = presets.preset(weights).name
        return BlockAlphas(_by_block(blocks, presets.weights(name, count)), None, _scaled(name, blocks))
    _check(weights)
    if len(weights) == count:
        return BlockAlphas(_by_block(blocks, weights), None, None)
    if _is_unet(blocks):
        if len(weights) != count + 1:
            raise RecipeError(_misfit(weights, blocks))
        return BlockAlphas(_by_block(blocks, weights[1:]), weights[0], None)
    if len(weights) == count + 1:
        note = f"block weights: {count + 1} numbers, BASE first, then one for each of {_depth(blocks)}"
        return BlockAlphas(_by_block(blocks, weights[1:]), weights[0], note)
    return BlockAlphas(_by_block(blocks, interpolate(weights, count)), None, _drawn(weights, blocks))


def interpolate(curve: Sequence[float], count: int) -> tuple[float, ...]:
    """The values of a curve at `count` ≥ 1 blocks: its first at the first block, its last at the last.

    Straight between its points, which lie at even distances; one point is the same everywhere, and one
    block stands in the middle.
    """
    return tuple(_value(curve, presets.position(block, count).t * (len(curve) - 1)) for block in range(count))


def _value(curve: Sequence[float], place: Fraction) -> float:
    """Exact, and rounded once: never beyond its neighbours, and a level curve stays level."""
    before = int(place)
    share = place - before
    after = before + 1 if share else before
    return float((1 - share) * Fraction(curve[before]) + share * Fraction(curve[after]))


def _named(text: str, user: Mapping[str, tuple[float, ...]]) -> tuple[float, ...] | str | None:
    shipped = presets.find(text)
    wanted = presets.fold(text)
    for name, numbers in user.items():
        if presets.fold(name) == wanted:
            return shipped.name if shipped and _says(numbers, shipped.name) else numbers
    return shipped.name if shipped else None


def _says(numbers: tuple[float, ...], name: str) -> bool:
    """Whether numbers for 25 blocks, behind a BASE of 0 or none, are those of a preset that ships."""
    if len(numbers) == presets.USUAL + 1 and numbers[0] == 0:
        numbers = numbers[1:]
    if len(numbers) != presets.USUAL:
        return False
    own = presets.weights(name, presets.USUAL)
    return all(abs(x - y) <= _SAME for x, y in zip(numbers, own, strict=True))


def _numbers(text: str, *, source: str, way_out: str = _WAY_OUT) -> tuple[float, ...]:
    try:
        return read_numbers(text)
    except FieldError as error:
        raise RecipeError(f"{source}: {error}; {way_out}") from error


def _check(weights: tuple[float, ...]) -> None:
    if not weights:
        raise RecipeError("--block-weights has no numbers: give one for each block, or a preset's name")
    for place, weight in enumerate(weights, start=1):
        if not isfinite(weight):
            raise RecipeError(
                f"--block-weights: number {place} is {weight}, which is not finite; write 0 … 1"
            )


def _by_block(blocks: Sequence[str], alphas: Sequence[float]) -> Mapping[str, float]:
    return dict(zip(blocks, alphas, strict=True))


def _is_unet(blocks: Sequence[str]) -> bool:
    return all(_UNET_BLOCK.fullmatch(block) for block in blocks)


def _misfit(weights: tuple[float, ...], blocks: Sequence[str]) -> str:
    """Why numbers do not fit a U-Net, and what to give instead."""
    given, count = len(weights), len(blocks)
    text = (
        f"--block-weights has {given} number{'s' * (given != 1)}: A needs {count} "
        f"({blocks[0]} … {blocks[-1]}), or {count + 1} with BASE first"
    )
    if owner := _U_NETS.get(given, _U_NETS.get(given - 1)):
        return (
            f"{text}; {given} are for {owner}, whose blocks are other ones: give a preset by name, "
            "which fits every depth (mergescope presets lists them)"
        )
    if given == 1:
        return f"{text}; for one alpha everywhere give --alpha"
    return f"{text}; or give a preset by name (mergescope presets lists them)"


def _scaled(name: str, blocks: Sequence[str]) -> str | None:
    if len(blocks) == presets.USUAL:
        return None
    return f"block weights: {name}, scaled to {_depth(blocks)}"


def _drawn(weights: tuple[float, ...], blocks: Sequence[str]) -> str:
    if len(weights) == 1:
        return f"block weights: 1 number, the same for {_depth(blocks)}"
    return (
        f"block weights: {len(weights)} numbers, a curve over {_depth(blocks)}, "
        f"the first for {blocks[0]} and none for BASE"
    )


def _depth(blocks: Sequence[str]) -> str:
    """The blocks in network order, as people see them: "57 blocks (D00 … D18, S00 … S37)"."""
    runs = [list(run) for _, run in groupby(blocks, key=lambda block: block.rstrip("0123456789"))]
    shown = ", ".join(run[0] if len(run) == 1 else f"{run[0]} … {run[-1]}" for run in runs[:4])
    more = ", …" if len(runs) > 4 else ""
    return f"{len(blocks)} block{'s' * (len(blocks) != 1)} ({shown}{more})"
