"""The finished cells of experiments on disk: a run that was interrupted paints only what is missing.

A cell is named by a digest of everything that it depends on, so there is nothing to compare and nothing
to invalidate: under other conditions it has another name. It is written whole or not at all, and what is
not as it was written counts as not there. Knows no grid and no order.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import time
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from analyzer import __version__
from analyzer.errors import OutputError
from analyzer.experiment.records import Column, Conditions, Shown
from analyzer.kernels.stored_code import user_cache
from analyzer.merging.inputs import Inputs
from analyzer.writing.writer import write_files

_FORMAT = 1  # of a cell's file and of what its name is a digest of
_MAGIC = b"mergescope cell 1\n"
_HEAD = len(_MAGIC) + hashlib.sha256().digest_size
_SUFFIX = ".cell"
_KEPT_DAYS = 30  # a run that nobody has continued for so long is given up
_LIBRARIES = ("torch", "diffusers", "transformers")
# What of a folder decides on pictures beside the weights: schedulers, tokenizers, sizes.
_CONFIGS = (".json", ".txt", ".model", ".jinja")
_LARGEST_CONFIG = 1 << 26


def cache_folder() -> Path | None:
    """Where cells lie that nobody wants to keep; None for a user without a home."""
    with contextlib.suppress(RuntimeError):
        return user_cache() / "mergescope" / "experiments"
    return None


def painting_identity(conditions: Conditions, folders: Iterable[Path]) -> str:
    """What a picture depends on beside its weights and its seed, as a digest.

    `folders` are those whose configs decide: of a diffusers folder as A itself, and --config's.
    """
    said = {name: value for name, value in asdict(conditions).items() if name not in ("seeds", "alpha")}
    versions = {}
    for library in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            versions[library] = version(library)
    return _digest([__version__, said, versions, [_digest_of_configs(folder) for folder in folders]])


class Cells:
    """The cells of one experiment.

    `identity` is what all of them depend on beside the weights and the seed. Without a folder, or in one
    that takes nothing, nothing is kept: `trouble` says why, in a sentence.
    """

    def __init__(self, folder: Path | None, inputs: Inputs, identity: str, *, expire: bool = False) -> None:
        """`expire` removes what earlier runs left there long ago."""
        self.trouble = "" if folder else "the user has no home folder"
        self._folder = folder
        self._a, self._b = inputs.a.fingerprint(), inputs.b.fingerprint()
        self._identity = identity
        self._actions: dict[str, str] = {}  # column's label -> the digest of what it takes
        self._there: set[Path] = set()
        if folder is not None and expire:
            _remove_old(folder)

    def __len__(self) -> int:
        """How many of the cells that were asked for are there."""
        return len(self._there)

    def load(self, column: Column, seed: int) -> Shown | None:
        """What was shown, if that was kept and is sound."""
        path = self._path(column, seed)
        if path is None:
            return None
        try:
            stored = path.read_bytes()
        except OSError:
            return None
        content = stored[_HEAD:]
        if stored != _sealed(path.name, content):
            return None
        self._there.add(path)
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return Shown(arrays["output"], arrays.get("pixels"), float(arrays["seconds"]))

    def save(self, column: Column, seed: int, shown: Shown) -> None:
        """Keep it. Where that fails the experiment goes on without."""
        path = self._path(column, seed)
        if path is None or self.trouble:
            return
        arrays: dict[str, Any] = {"output": shown.output, "seconds": np.float64(shown.seconds)}
        if shown.pixels is not None:
            arrays["pixels"] = shown.pixels
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_files({path: _sealed(path.name, buffer.getvalue())}, inputs=())
        except (OSError, OutputError) as error:
            self.trouble = str(error)
        else:
            self._there.add(path)

    def remove(self) -> None:
        """Remove the cells of this experiment, and the folder if nothing else is there."""
        for path in self._there:
            with contextlib.suppress(OSError):
                path.unlink()
        self._there.clear()
        if self._folder is not None:
            with contextlib.suppress(OSError):
                self._folder.rmdir()

    def _path(self, column: Column, seed: int) -> Path | None:
        if self._folder is None:
            return None
        if column.label not in self._actions:
            actions = column.plan.actions if column.plan else ()
            taken = set(column.keys)
            mixed = [(x.key, x.verb, x.alpha, x.dtype) for x in actions if x.key in taken]
            # A's own pictures do not depend on B.
            self._actions[column.label] = _digest([self._b, mixed] if mixed else [])
        name = _digest([_FORMAT, self._identity, self._a, self._actions[column.label], seed])
        return self._folder / f"{name}{_SUFFIX}"


def _remove_old(folder: Path) -> None:
    earliest = time.time() - _KEPT_DAYS * 86_400
    with contextlib.suppress(OSError):
        for path in folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < earliest:
                    path.unlink()


def _digest_of_configs(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in _CONFIGS and path.is_file() and path.stat().st_size <= _LARGEST_CONFIG:
            content = hashlib.sha256(path.read_bytes()).digest()
            digest.update(path.relative_to(folder).as_posix().encode(errors="surrogateescape") + content)
    return digest.hexdigest()


def _sealed(name: str, content: bytes) -> bytes:
    """The content of a file: it is sound under this name alone."""
    return _MAGIC + hashlib.sha256(name.encode() + b"\n" + content).digest() + content


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
