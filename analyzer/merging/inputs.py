"""The open models of one merge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from analyzer.checkpoints import Checkpoint


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a merge reads."""

    a: Checkpoint
    b: Checkpoint
    base: Checkpoint | None = None
    models: tuple[Checkpoint, ...] = ()  # the further ones, in the order of their weights
    vae: Checkpoint | None = None  # whose VAE replaces A's

    def named(self) -> Iterator[tuple[str, Checkpoint]]:
        """Every model and what it is here: "a", "b", "base", "model 1" …, "vae"."""
        yield "a", self.a
        yield "b", self.b
        if self.base is not None:
            yield "base", self.base
        for place, model in enumerate(self.models, start=1):
            yield f"model {place}", model
        if self.vae is not None:
            yield "vae", self.vae

    @property
    def files(self) -> list[Path]:
        """All files that are open."""
        return [file for _, checkpoint in self.named() for file in checkpoint.files]

    @property
    def folders(self) -> list[Path]:
        """The folders of the models that have one of their own."""
        return [checkpoint.folder for _, checkpoint in self.named() if checkpoint.folder is not None]
