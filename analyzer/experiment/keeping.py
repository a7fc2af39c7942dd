"""What `--keep DIR` leaves for later: the pictures as files, the merged models, and the finished cells.

Owns the names in that folder. Models are written by the ordinary merge; knows no page and no terminal.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import AnalyzerError, OutputError
from analyzer.experiment.encoding import png
from analyzer.experiment.records import A, B, Column
from analyzer.experiment.running import Grid
from analyzer.merge import check_output, merge
from analyzer.merging.inputs import Inputs
from analyzer.recipes.document import METADATA_NAME
from analyzer.streaming import Progress
from analyzer.writing.writer import check_writable, is_within

_LONGEST = 80  # characters of a name


@dataclass(frozen=True, slots=True)
class Keep:
    """The folder of one experiment. Call `prepare` before the work."""

    folder: Path
    inputs: Inputs
    columns: tuple[Column, ...]  # of which the categories are written as models

    @property
    def cells(self) -> Path:
        """Where finished cells stay, so that a later run has only new columns and seeds to look at."""
        return self.folder / "cells"

    @property
    def models(self) -> dict[Path, Column]:
        """Where the merged models go."""
        suffix = "" if self.inputs.a.folder else ".safetensors"
        return {
            self.folder / "models" / f"{file_name(x.label)}{suffix}": x for x in _categories(self.columns)
        }

    @property
    def model_bytes(self) -> int:
        """Of one merged model: about what A has."""
        return self.inputs.a.bytes

    def prepare(self) -> None:
        """Make the folders. Raises OutputError where they or the models must not or cannot be written.

        A model that an earlier run of this pair left there is replaced.
        """
        for side in self.inputs.folders:
            if is_within(self.folder, side):
                raise OutputError(
                    f"{self.folder}: is or lies in {side}, which is an input and would change with it; name "
                    "another place"
                )
        try:
            check_writable(self.folder)
            (self.folder / "models").mkdir(parents=True, exist_ok=True)
            (self.folder / "pictures").mkdir(exist_ok=True)
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be made ({error.strerror}); name another") from error
        needed = sum(self.model_bytes for path in self.models if not path.exists())
        if free < needed:
            raise OutputError(
                f"{self.folder}: {len(self.models)} merged models need {needed:,} bytes, and {free:,} are "
                "free; name a folder on another disk, or fewer categories"
            )
        for path in self.models:
            check_output(path, self.inputs, force=self._is_ours(path))

    def pictures(self, grid: Grid) -> dict[Path, bytes]:
        """The files of all pictures that there are, named by column and seed."""
        return {
            self.folder / "pictures" / f"{file_name(label)}-seed-{seed}.png": png(cell.pixels)
            for (label, seed), cell in grid.items()
            if not isinstance(cell, str) and cell.pixels is not None
        }

    @contextmanager
    def merged(self, *, device: str, threads: int | None, progress: Progress) -> Iterator[None]:
        """Write the models; those that were not there before are removed if the block goes wrong."""
        with ExitStack() as undo:
            total = len(self.models) * self.model_bytes
            for place, (path, column) in enumerate(self.models.items()):
                assert column.plan is not None
                assert column.recipe is not None
                start, new = place * self.model_bytes, not path.exists()
                merge(
                    self.inputs, column.plan, column.recipe, out=path, force=not new, device=device,
                    threads=threads, progress=_beginning_at(start, total, progress),
                )  # fmt: skip
                if new:
                    undo.callback(_remove, path)
            yield
            undo.pop_all()

    def tidy(self) -> None:
        """Remove the folders that nothing was put in."""
        for folder in (self.cells, self.folder / "models", self.folder / "pictures", self.folder):
            with suppress(OSError):
                folder.rmdir()

    def _is_ours(self, path: Path) -> bool:
        """Whether a model there is a merge of this A and B."""
        if not os.path.lexists(path):
            return False
        try:
            with open_checkpoint(path) as model:
                shards = [shard.metadata for shard in model.shards] or [model.metadata]
                recipes = [metadata.get(METADATA_NAME, "") for metadata in shards]
        except AnalyzerError:
            return False
        sides = (self.inputs.a.fingerprint(), self.inputs.b.fingerprint())
        return any(all(side in recipe for side in sides) for recipe in recipes)


def _beginning_at(start: int, total: int, progress: Progress) -> Progress:
    return lambda done, _total: progress(start + done, total)


def file_name(label: str) -> str:
    """A label as a file's name on any system: no two labels have one that differs by case alone."""
    plain = re.sub(r"[^A-Za-z0-9,=+_-]", "_", label)[:_LONGEST]
    own = label in (A, B) or (label == label.lower() and label not in (A.lower(), B.lower()))
    return plain if own and plain == label else f"{plain}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"


def _categories(columns: Sequence[Column]) -> list[Column]:
    return [column for column in columns if column.label not in (A, B)]


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
