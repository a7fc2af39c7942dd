"""Open the model in a folder: which of its files are the model is decided here, and never guessed.

A folder holds one model (as one file, or as shards with an index, perhaps in several variants), or it
is a diffusers pipeline with a sub-model in each of its folders. What else lies there is left out with
a note; what cannot be told apart is refused with the names to choose from.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from analyzer.checkpoints.checkpoint import Checkpoint
from analyzer.checkpoints.composite import Member, join, listed, shard_of
from analyzer.checkpoints.differences import refuse_adapter
from analyzer.checkpoints.folder_contents import MODEL_INDEX, Contents, contents_of
from analyzer.checkpoints.pipeline import SubModel, describe_pipeline
from analyzer.checkpoints.sharded import OpenFile, open_members, open_shards, read_index
from analyzer.checkpoints.variants import choose_family, choose_variants, prefer
from analyzer.checkpoints.weight_names import FOREIGN_SUFFIXES, WeightFile
from analyzer.errors import CheckpointError

_LISTED = 10
_LOOKED_FOR = (
    "looked for model.safetensors, pytorch_model.bin, diffusion_pytorch_model.safetensors, an index of "
    "shards (*.index.json), any single .safetensors, .gguf, .bin, .pt, .pth or .ckpt file, and sub-folders "
    "such as unet, transformer or vae"
)


def open_folder(path: Path, folder: Path, *, variant: str | None, open_file: OpenFile) -> Checkpoint:
    """The model in the folder, under the path that the user named; `variant` "" is that of no suffix."""
    contents = contents_of(folder)
    pipeline = describe_pipeline(contents)
    if pipeline.sub_models:
        return _open_pipeline(path, contents, pipeline.sub_models, pipeline.notes, variant, open_file)
    if contents.weights:
        return _open_single(path, contents, variant, open_file)
    if contents.adapters:
        refuse_adapter(folder)
    raise CheckpointError(_nothing_here(contents))


def open_index(path: Path, *, open_file: OpenFile) -> Checkpoint:
    """The model whose shards the index lists."""
    members = open_shards(path, read_index(path), open_file)
    return _joined(path, "sharded", members, files=[path], notes=[])


def _open_single(path: Path, contents: Contents, variant: str | None, open_file: OpenFile) -> Checkpoint:
    family = choose_family(contents.folder, contents.weights)
    variants, _ = choose_variants(contents.folder, {"": family}, variant)
    members, index = _open_one(contents, family, variants[""], open_file)
    notes = _left_out(contents, family, variants[""], members, index)
    if index is None and len(members) == 1:
        only, shards = members[0].checkpoint, (shard_of(members[0]),)
        return replace(only, path=path, notes=(*notes, *only.notes), folder=contents.folder, shards=shards)
    files = [contents.folder / index] if index else []
    return _joined(path, "sharded", members, files=files, notes=notes)


def _open_pipeline(
    path: Path,
    contents: Contents,
    sub_models: Sequence[SubModel],
    notes: Sequence[str],
    variant: str | None,
    open_file: OpenFile,
) -> Checkpoint:
    families = {sub.name: choose_family(sub.contents.folder, sub.contents.weights) for sub in sub_models}
    variants, fallbacks = choose_variants(contents.folder, families, variant)
    said = [*notes, *fallbacks]
    if contents.weights:
        left = [file.name for file in contents.weights]
        said.append(f"{listed(left)}: left out, the model is in the sub-folders")
    files = [contents.folder / MODEL_INDEX] if MODEL_INDEX in contents.files else []
    members: list[Member] = []
    with ExitStack() as stack:
        for sub in sub_models:
            family, chosen = families[sub.name], variants[sub.name]
            own, index = _open_one(sub.contents, family, chosen, open_file)
            for member in own:
                stack.callback(member.checkpoint.close)
            said += [f"{sub.name}: {note}" for note in _left_out(sub.contents, family, chosen, own, index)]
            files += [sub.contents.folder / index] if index else []
            members += [replace(m, name=f"{sub.name}/{m.name}", part=sub.name) for m in own]
        stack.pop_all()
    return _joined(path, "diffusers", members, files=files, notes=said)


def _open_one(
    contents: Contents, family: Sequence[WeightFile], variant: str, open_file: OpenFile
) -> tuple[list[Member], str | None]:
    """The files of one model, and the name of their index if it has one."""
    folder = contents.folder
    index, shards, single = prefer(folder, [file for file in family if file.variant == variant])
    if index is not None:
        weight_map = read_index(folder / index)
        if single is not None and single not in weight_map.values():
            raise CheckpointError(
                f"{folder}: holds both {single} and {index}, which names other files; name the one that "
                "is meant"
            )
        return open_shards(folder / index, weight_map, open_file), index
    return open_members(folder, folder, shards or [name for name in (single,) if name], open_file), None


def _joined(
    path: Path, container: str, members: Sequence[Member], *, files: Sequence[Path], notes: Sequence[str]
) -> Checkpoint:
    """The members as one checkpoint; closed again if they do not fit each other."""
    with ExitStack() as stack:
        for member in members:
            stack.callback(member.checkpoint.close)
        joined = join(path, container, members, files=files, notes=notes)
        stack.pop_all()
        return joined


def _left_out(
    contents: Contents,
    family: Sequence[WeightFile],
    variant: str,
    members: Sequence[Member],
    index: str | None,
) -> list[str]:
    """What to say of weights beside those that were opened; other variants were left out on purpose."""
    known = {index, *(member.name for member in members)}
    known.update(file.name for file in family if file.variant != variant)
    left = [file.name for file in contents.weights if file.name not in known] + list(contents.adapters)
    opened = index or members[0].name
    return [f"{listed(left)}: left out, {opened} is the model of this folder"] if left else []


def _nothing_here(contents: Contents) -> str:
    folder = contents.folder
    foreign = [name for name in contents.files if Path(name).suffix.lower() in FOREIGN_SUFFIXES]
    if foreign:
        return (
            f"{folder}: holds the model only in forms that this version does not read ({listed(foreign)}); "
            "get its safetensors"
        )
    below = _models_below(contents)
    if below:
        return (
            f"{folder}: is a folder without a model of its own; name one of those in it: "
            f"{listed(below, _LISTED)}"
        )
    return f"{folder}: is a folder without a model; {_LOOKED_FOR}"


def _models_below(contents: Contents) -> list[str]:
    """What can be named instead: models in the folders below, the snapshots of a Hugging Face cache."""
    if "snapshots" in contents.folders:
        inner = contents_of(contents.folder / "snapshots")
        return [f"snapshots/{name}" for name in inner.folders]
    found: list[str] = []
    for name in contents.folders[:100]:
        inner = contents_of(contents.folder / name)
        whole = MODEL_INDEX in inner.files or any(file.standard or file.index for file in inner.weights)
        found += [name] if whole else [f"{name}/{file.name}" for file in inner.weights]
    return found
