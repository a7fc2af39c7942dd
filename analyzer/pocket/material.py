"""What the pocket models learn from: drawn pictures, their captions as tokens, and both kept in files.

Everything depends on seeds alone, and on no state of NumPy's or torch's own generators.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from analyzer.errors import CheckpointError
from analyzer.pocket import networks
from analyzer.pocket.captions import Style, caption, choose
from analyzer.pocket.folders import tokenizer
from analyzer.pocket.portraits import draw
from analyzer.pocket.training import Latents, Report, encode, stacked

SEED = 0
CAPTIONS = 4  # of each picture, with other tags left out
_A_PORTION = 64  # pictures that a process draws at a time
STYLES: tuple[Style, Style] = ("shaded", "flat")


@dataclass(frozen=True, slots=True)
class Drawn:
    """Pictures, (n × 3 × 64 × 64) uint8, and the tokens of their captions, (n × captions × 32) int16."""

    pictures: Tensor
    tokens: Tensor


def drawn(style: Style, count: int, work: Path, report: Report) -> Drawn:
    """So many pictures of a style, from the folder's file or drawn into it.

    Raises CheckpointError if the file holds another number of them.
    """
    file = work / f"{style}.npz"
    if not file.exists():
        report(f"draws {count:,} {style} pictures")
        found = _pictures(style, count)
        rows = tokens([text for _, captions in found for text in captions])
        arrays = {
            "pictures": stacked(picture for picture, _ in found).numpy(),
            "tokens": rows.reshape(count, CAPTIONS, networks.TOKENS),
        }
        _into(file, lambda unfinished: _savez(unfinished, arrays))
    with np.load(file) as data:
        kept = Drawn(torch.from_numpy(data["pictures"]), torch.from_numpy(data["tokens"]))
    if len(kept.pictures) != count:
        raise CheckpointError(
            f"{file}: holds {len(kept.pictures):,} pictures, not {count:,}; name another folder"
        )
    return kept


def latents(vae: Any, style: Style, pictures: Tensor, work: Path, key: str, report: Report) -> Latents:
    """Of all pictures of a style, kept in a file whose name has the autoencoder's `key`: it takes minutes."""
    file = work / f"{style}-latents-{key}.pt"
    if not file.exists():
        report(f"encodes {len(pictures):,} {style} pictures")
        found = encode(vae, pictures)
        _into(file, lambda unfinished: torch.save(found, unfinished))
    means, deviations = torch.load(file, weights_only=True)
    return means, deviations


def texts(count: int) -> list[str]:
    """Captions as both styles have them, of pictures that nobody draws."""
    rng = np.random.default_rng((SEED, 2))
    return [caption(choose(STYLES[number % 2], rng), rng) for number in range(count)]


def tokens(captions: list[str]) -> NDArray[np.int16]:
    """Token numbers of captions, (n × 32)."""
    words = tokenizer()
    ids = words(captions, padding="max_length", truncation=True, max_length=networks.TOKENS)["input_ids"]
    return np.array(ids, np.int16)


def _pictures(style: Style, count: int) -> list[tuple[NDArray[np.uint8], list[str]]]:
    if count <= _A_PORTION:
        return [_picture(style, number) for number in range(count)]
    # Not by forking: torch has threads by now, and a fork of a process with threads may wait for ever.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(_picture, [style] * count, range(count), chunksize=_A_PORTION))


def _picture(style: Style, number: int) -> tuple[NDArray[np.uint8], list[str]]:
    """One picture and its captions; depends on the style and the number alone."""
    rng = np.random.default_rng((SEED, style == "flat", number))
    portrait = choose(style, rng)
    return draw(portrait, style, rng), [caption(portrait, rng) for _ in range(CAPTIONS)]


def _savez(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    with path.open("wb") as file:  # by name NumPy would add an ending to it
        np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub takes them for its own options


def _into(file: Path, write: Callable[[Path], object]) -> None:
    """Whole or not at all; two processes may make the same file at once."""
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    write(unfinished)
    unfinished.replace(file)
