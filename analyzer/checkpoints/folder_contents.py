"""List a folder: the names in it, and which of them are weights. Opens no file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from analyzer.checkpoints.weight_names import WeightFile, is_adapter, weight_file
from analyzer.errors import CheckpointError

MAX_ENTRIES = 100_000
MODEL_INDEX = "model_index.json"  # describes a diffusers pipeline


@dataclass(frozen=True, slots=True)
class Contents:
    """What lies in a folder, by name, sorted. Hidden files are not looked at."""

    folder: Path
    files: tuple[str, ...]  # links that lead nowhere among them
    folders: tuple[str, ...]
    weights: tuple[WeightFile, ...]
    adapters: tuple[str, ...]


def contents_of(folder: Path) -> Contents:
    """The names in the folder; CheckpointError if it cannot be listed."""
    files: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries, 1):
                if count > MAX_ENTRIES:
                    raise CheckpointError(
                        f"{folder}: holds more than {MAX_ENTRIES} files; name the model file in it"
                    )
                if not entry.name.startswith("."):  # .cache, and the ._ files of macOS
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: is a folder that cannot be listed ({error.strerror}); name a model file"
        ) from error
    files.sort()
    weights = [found for name in files if (found := weight_file(name))]
    adapters = [name for name in files if is_adapter(name) and not name.endswith(".json")]
    return Contents(folder, tuple(files), tuple(sorted(folders)), tuple(weights), tuple(adapters))
