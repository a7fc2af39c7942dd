"""Open a model file, whatever its format. Knows how models are stored, never what their keys mean.

A container format is one file here and one entry in FORMATS. Which one a file has is told by its
first bytes, not by its name: renamed files are common.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from analyzer.checkpoints.checkpoint import Checkpoint
from analyzer.checkpoints.foreign import describe_foreign
from analyzer.checkpoints.safetensors_file import looks_like_safetensors, open_safetensors
from analyzer.checkpoints.sources import FileSource
from analyzer.checkpoints.torch_pickle import looks_like_torch, open_torch
from analyzer.errors import CheckpointError

__all__ = ["FORMATS", "Checkpoint", "Format", "open_checkpoint"]


@dataclass(frozen=True, slots=True)
class Format:
    """A container format."""

    name: str
    suffixes: tuple[str, ...]
    recognises: Callable[[bytes], bool]  # the first bytes of a file
    open: Callable[[FileSource], Checkpoint]


# In the order in which they are asked: a safetensors header of 640 bytes starts like a pickle.
FORMATS = (
    Format("safetensors", (".safetensors",), looks_like_safetensors, open_safetensors),
    Format("torch", (".ckpt", ".pt", ".pth", ".bin"), looks_like_torch, open_torch),
)

_HEAD_BYTES = 4096
_LISTED_FILES = 10


def open_checkpoint(path: str | Path) -> Checkpoint:
    """The model in a file. Reads its header only; raises CheckpointError if it is not a sound model."""
    path = Path(path)
    if _is_folder(path):
        raise CheckpointError(_describe_folder(path))
    with ExitStack() as stack:
        source = FileSource(path)
        stack.callback(source.close)
        checkpoint = _format_of(source).open(source)
        stack.pop_all()
        return checkpoint


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # why it cannot be looked at is said by whoever tries to open it
        return False


def _format_of(source: FileSource) -> Format:
    if source.size == 0:
        raise CheckpointError(f"{source.path}: is empty; download it again")
    head = source.read(0, min(source.size, _HEAD_BYTES))
    for candidate in FORMATS:
        if candidate.recognises(head):
            return candidate
    foreign = describe_foreign(head)
    if foreign is not None:
        raise CheckpointError(f"{source.path}: {foreign}")
    for candidate in FORMATS:  # by its name, to say what is wrong with it
        if source.path.suffix.lower() in candidate.suffixes:
            return candidate
    raise CheckpointError(
        f"{source.path}: is of no known format; name a .safetensors file or a torch checkpoint "
        "(.ckpt, .pt, .pth, .bin)"
    )


def _describe_folder(path: Path) -> str:
    """What to name instead of the folder: the models in it and in the folders directly below."""
    suffixes = {suffix for candidate in FORMATS for suffix in candidate.suffixes}
    try:
        found = sorted(
            str(file.relative_to(path))
            for pattern in ("*", "*/*")
            for file in path.glob(pattern)
            if file.suffix.lower() in suffixes and file.is_file()
        )
    except OSError as error:
        return f"{path}: is a folder that cannot be listed ({error.strerror}); name a model file"
    if not found:
        return f"{path}: is a folder without a model file; name a .safetensors file or a torch checkpoint"
    more = f" and {len(found) - _LISTED_FILES} more" if len(found) > _LISTED_FILES else ""
    return (
        f"{path}: is a folder, and this version opens one file at a time; name one of those in it: "
        f"{', '.join(found[:_LISTED_FILES])}{more}"
    )
