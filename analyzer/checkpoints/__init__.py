"""Open a model, whatever its format. Knows how models are stored, never what their keys mean.

A container format is one file here and one entry in FORMATS. Which one a file has is told by its
first bytes, not by its name: renamed files are common. Models of several files are put together from
files of these formats.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from analyzer.checkpoints.checkpoint import Checkpoint
from analyzer.checkpoints.differences import refuse_difference
from analyzer.checkpoints.folder import open_folder, open_index
from analyzer.checkpoints.folder_contents import MODEL_INDEX
from analyzer.checkpoints.foreign import describe_foreign
from analyzer.checkpoints.gguf_file import looks_like_gguf, open_gguf
from analyzer.checkpoints.safetensors_file import looks_like_safetensors, open_safetensors
from analyzer.checkpoints.scaled import with_scales
from analyzer.checkpoints.sources import FileSource
from analyzer.checkpoints.torch_pickle import looks_like_torch, open_torch
from analyzer.checkpoints.variants import DEFAULT
from analyzer.checkpoints.weight_names import is_index, weight_file
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
    Format("gguf", (".gguf",), looks_like_gguf, open_gguf),
    Format("torch", (".ckpt", ".pt", ".pth", ".bin"), looks_like_torch, open_torch),
)

_HEAD_BYTES = 4096


def open_checkpoint(path: str | Path, *, variant: str | None = None) -> Checkpoint:
    """The model in a file, in shards with an index, or in a folder. Reads headers only.

    `variant` chooses among the forms of one model in a folder: "fp16", or "default" for the files
    without a variant; PATH@fp16 does the same. Raises CheckpointError if there is no sound model, if it
    is not clear which one is meant, or if it is only a difference between two models, as a LoRA is.
    """
    path = Path(path)
    folder, variant = _folder_and_variant(path, variant)
    if folder is not None:
        chosen = "" if variant == DEFAULT else variant
        checkpoint = open_folder(path, folder, variant=chosen, open_file=_open_file)
    elif variant is not None:
        raise CheckpointError(
            f"{path}: is no folder, and only in a folder there are variants to choose from; leave "
            f"{variant!r} away"
        )
    elif is_index(path.name):
        checkpoint = open_index(path, open_file=_open_file)
    else:
        checkpoint = _with_note(_open_file(path))
    with ExitStack() as stack:
        stack.callback(checkpoint.close)
        refuse_difference(path, checkpoint.infos.keys())
        checkpoint = with_scales(checkpoint)
        stack.pop_all()
        return checkpoint


def _open_file(path: Path) -> Checkpoint:
    """What a single file holds."""
    with ExitStack() as stack:
        source = FileSource(path)
        stack.callback(source.close)
        checkpoint = _format_of(source).open(source)
        stack.pop_all()
        return checkpoint


def _with_note(checkpoint: Checkpoint) -> Checkpoint:
    """A shard that was named by itself is opened, but hardly meant."""
    named = weight_file(checkpoint.path.name)
    if named is None or named.shard is None:
        return checkpoint
    number, total = named.shard
    note = f"{checkpoint.path.name}: is shard {number} of {total}; name its folder to open the whole model"
    return replace(checkpoint, notes=(*checkpoint.notes, note))


def _folder_and_variant(path: Path, variant: str | None) -> tuple[Path | None, str | None]:
    """The folder that is meant, if any, and the variant: the part of the name after the last @ is one."""
    if _is_folder(path):
        return path, variant
    if path.name == MODEL_INDEX and os.path.lexists(path):
        return path.parent, variant
    before, sign, after = str(path).rpartition("@")
    if sign and variant is None and not os.path.lexists(path) and before and _is_folder(Path(before)):
        return Path(before), after
    return None, variant


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
        f"{source.path}: is of no known format; name a .safetensors or .gguf file, or a torch "
        "checkpoint (.ckpt, .pt, .pth, .bin)"
    )
