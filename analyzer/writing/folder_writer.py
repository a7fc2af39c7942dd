"""Write the folder of a model: beside its target under another name, then renamed, whole or not at all.

Knows no models: what goes into the folder comes from the caller. What may be replaced is decided here:
never an input or what surrounds one, and nothing that is not plainly one model.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from analyzer.checkpoints.folder_contents import MODEL_INDEX, Contents, contents_of
from analyzer.checkpoints.sources import FileSource
from analyzer.checkpoints.weight_names import SUFFIXES
from analyzer.errors import OutputError
from analyzer.writing.system_calls import exchange, rename_new
from analyzer.writing.unfinished import (
    new_folder,
    output_errors,
    remove_abandoned,
    sync_folder,
    temporary_beside,
)
from analyzer.writing.writer import (
    Entry,
    SafetensorsWriter,
    check_space,
    check_writable,
    is_within,
    layout_of,
    open_writer,
)

_COPY_BYTES = 1 << 20  # read and written at a time


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A safetensors file of the folder."""

    name: str  # relative to the folder, with forward slashes, as all names here
    entries: Sequence[Entry]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Folder:
    """All that the folder is to hold."""

    weights: Sequence[WeightFile]
    texts: Mapping[str, bytes]  # small files by name
    copies: Mapping[str, Path]  # files to copy by their new names: the content, not permissions or links


@contextmanager
def create_folder(path: Path, folder: Folder, *, force: bool) -> Iterator[list[SafetensorsWriter]]:
    """A writer for each file of weights, in a folder that will appear at `path` when the block ends well.

    All is built beside the target, synced and renamed; if anything goes wrong, an interrupt
    included, it is removed. An earlier folder is replaced if `force` says so. Raises OutputError if
    the disk is full or the place cannot be written to, CheckpointError if what is to be copied cannot
    be read. Call `check_folder` first.
    """
    layouts = [layout_of(file.entries, file.metadata) for file in folder.weights]
    size = sum(layout.size for layout in layouts) + sum(map(len, folder.texts.values()))
    size += sum(_size(source) for source in folder.copies.values())
    temporary = temporary_beside(path)
    with ExitStack() as stack:
        with output_errors(path):
            remove_abandoned(path.parent)
            check_space(path.parent, size)
            stack.enter_context(new_folder(temporary))
            for name in (*folder.texts, *folder.copies, *(file.name for file in folder.weights)):
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        for name, text in folder.texts.items():
            _write(temporary / name, [text], shown=path / name)
        for name, source in folder.copies.items():
            with closing(FileSource(source)) as opened:
                _write(temporary / name, _pieces(opened), shown=path / name)
        with ExitStack() as files:
            yield [
                files.enter_context(
                    open_writer(temporary / file.name, layout, shown=path / file.name, force=False)
                )
                for file, layout in zip(folder.weights, layouts, strict=True)
            ]
        for inner, _, _ in os.walk(temporary):
            sync_folder(Path(inner))
        with output_errors(path):
            _put_in_place(temporary, path, force=force)


def check_folder(path: Path, *, files: Iterable[Path], folders: Iterable[Path], force: bool) -> None:
    """Refuse what must not be written as a folder. `files` and `folders` are the inputs and their homes.

    Refused are: an input's folder, what lies in it or around it, all of these through links too; a
    place without a folder to put it in; a file; an existing folder without `force`, and with it one
    that is not plainly a model. Raises OutputError.
    """
    if path.suffix.lower() in SUFFIXES or not path.name or path.name == "..":
        raise OutputError(
            f"{path}: is no name for a folder of a model; name one, or a file that ends in .safetensors"
        )
    with output_errors(path):
        if not path.parent.is_dir():
            raise OutputError(f"{path}: the folder {path.parent} does not exist; create it first")
        check_writable(path)
        for folder in folders:
            if is_within(path, folder):
                raise OutputError(
                    f"{path}: is the input {folder}, or lies in it; inputs are never written to, name "
                    "another place"
                )
        for file in files:
            if is_within(file, path):
                raise OutputError(
                    f"{path}: holds the input {file}; inputs are never written over, name another folder"
                )
        if os.path.lexists(path):
            _check_earlier(path, force=force)


def _check_earlier(path: Path, *, force: bool) -> None:
    if path.is_symlink() or not path.is_dir():
        raise OutputError(f"{path}: is not a folder but a file or a link; name a new folder")
    if not force:
        raise OutputError(f"{path}: exists already; name another folder, or replace it with --force")
    with os.scandir(path) as entries:
        names = {entry.name for entry in entries}
    if ".git" in names or (names and not _is_model(contents_of(path))):
        raise OutputError(
            f"{path}: is not plainly the folder of one model, and is not replaced; name another folder, or "
            "remove it yourself"
        )


def _is_model(contents: Contents) -> bool:
    """Whether a folder can be taken for one model; one that models are collected in must not be lost."""
    if MODEL_INDEX in contents.files:
        return True
    if "config.json" in contents.files and any(file.standard for file in contents.weights):
        return True
    return not contents.folders and len({file.family for file in contents.weights}) == 1


def _size(path: Path) -> int:
    with closing(FileSource(path)) as source:
        return source.size


def _pieces(source: FileSource) -> Iterator[bytes]:
    for offset in range(0, source.size, _COPY_BYTES):
        yield source.read(offset, min(_COPY_BYTES, source.size - offset))


def _write(place: Path, pieces: Iterable[bytes], *, shown: Path) -> None:
    """A new file of these bytes, synced. Who reads them says what goes wrong with that."""
    with output_errors(shown), place.open("xb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def _put_in_place(new: Path, path: Path, *, force: bool) -> None:
    """Rename the finished folder. An earlier one is there until the new one is, where the system can."""
    if not (force and path.is_dir()):
        rename_new(new, path)
        sync_folder(path.parent)
        return
    earlier = new if exchange(new, path) else _replace(new, path)
    sync_folder(path.parent)
    try:
        shutil.rmtree(earlier)
    except OSError as error:
        if not earlier.exists():  # another process took it for abandoned, as it is
            return
        raise OutputError(
            f"{path}: is written, but the folder that was there cannot be removed ({error.strerror}); "
            f"what is left of it lies in {earlier}, remove that yourself"
        ) from error


def _replace(new: Path, path: Path) -> Path:
    """Rename twice: the earlier folder, which is returned, moves aside, and comes back if that fails.

    Its name is not that of a part: a process that is killed in between leaves it, and nobody removes it.
    """
    earlier = temporary_beside(path).with_suffix(".earlier")
    try:
        path.rename(earlier)
        new.rename(path)
    finally:
        if not os.path.lexists(path) and earlier.is_dir():
            earlier.rename(path)
    return earlier
