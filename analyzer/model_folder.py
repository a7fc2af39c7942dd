"""What the folder of a merged model consists of: A's files by name, and which keys each of them holds.

Knows names, headers and the small JSON files beside weights; reads no tensor and writes nothing. What
lies in A's folder is not trusted: links to folders are followed only where a pipeline's component is
expected, and no deeper.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyzer.checkpoints import Checkpoint
from analyzer.checkpoints.folder_contents import MAX_ENTRIES, MODEL_INDEX
from analyzer.checkpoints.json_file import read_json_object
from analyzer.checkpoints.pipeline import MAX_MODEL_INDEX_BYTES
from analyzer.checkpoints.scaled import left_as_codes
from analyzer.checkpoints.sources import FileSource
from analyzer.checkpoints.weight_names import FOREIGN_SUFFIXES, SUFFIXES, is_adapter, is_index
from analyzer.errors import CheckpointError, RecipeError

MAX_CONFIG_BYTES = 10_000_000

_Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file of weights, and what it holds."""

    name: str  # relative to the output's folder, with forward slashes
    keys: tuple[str, ...]  # as in the plan
    metadata: Mapping[str, str]  # what A's file says
    part: str = ""  # the sub-model, which the keys begin with in the plan and not in the file

    def inner(self, key: str) -> str:
        """What a key of the plan is called in the file."""
        return key.removeprefix(f"{self.part}.") if self.part else key


@dataclass(frozen=True, slots=True)
class Companions:
    """What lies in A's folder beside the weights that were opened."""

    copies: Mapping[str, Path]  # by name in the output
    left_out: tuple[str, ...]  # other forms of the weights, states of a training, links that lead astray


def distribute(a: Checkpoint, keys: Sequence[str]) -> list[OutputFile]:
    """A's files with the keys that each is to hold: its own, and the last of a sub-model the added ones.

    A file of which no key is left is not written. Raises RecipeError for a key of a sub-model that A
    has not, and if two files of A would get one name.
    """
    holders = {key: place for place, shard in enumerate(a.shards) for key in shard.keys}
    last = {shard.part: place for place, shard in enumerate(a.shards)}
    held: list[list[str]] = [[] for _ in a.shards]
    for key in keys:
        place = holders.get(key)
        if place is None:
            place = last[_part_of(key, last)]
        held[place].append(key)
    files = [
        OutputFile(output_name(shard.name), tuple(own), shard.metadata, shard.part)
        for shard, own in zip(a.shards, held, strict=True)
        if own or not shard.keys
    ]
    names = Counter(file.name.casefold() for file in files)
    if doubled := sorted({file.name for file in files if names[file.name.casefold()] > 1}):
        raise RecipeError(
            f"{a.path}: several of its files would be written as {', '.join(doubled)}; rename the files of "
            "A, or write the merge as one .safetensors file"
        )
    return files


def _part_of(key: str, parts: Collection[str]) -> str:
    found = [part for part in parts if not part or key.startswith(f"{part}.")]
    if not found:
        raise RecipeError(
            f"--only-in-b add: A has no folder for the sub-model of {key!r}; name with --only those that it "
            f"has, as in --only {min(parts)}, or leave the option out"
        )
    return max(found, key=len)


def output_name(name: str) -> str:
    """What transformers and diffusers call the same file, or the same index, of safetensors."""
    folder, slash, last = name.rpartition("/")
    if found := _OTHER_FORM.fullmatch(last):
        stem = re.sub(r"^pytorch_model(?=[-.]|$)", "model", found["stem"])
        last = f"{stem}.safetensors{found['index'] or ''}"
    elif not is_index(last) and not last.lower().endswith(".safetensors"):
        last += ".safetensors"
    return f"{folder}{slash}{last}"


def indexes(a: Checkpoint, files: Sequence[OutputFile], sizes: Mapping[str, int]) -> dict[str, bytes]:
    """An index for every one that A has, as transformers writes them; `sizes` are bytes by key."""
    assert a.folder is not None
    texts: dict[str, bytes] = {}
    for path in a.files:
        if not is_index(path.name):
            continue
        name = path.relative_to(a.folder).as_posix()
        folder = name[: name.rfind("/") + 1]
        rows = [(file, key) for file in files if file.name.startswith(folder) for key in file.keys]
        document = {
            "metadata": {"total_size": sum(sizes[key] for _, key in rows)},
            "weight_map": {file.inner(key): file.name.removeprefix(folder) for file, key in rows},
        }
        text = json.dumps(document, ensure_ascii=False, indent=2, sort_keys=True)
        texts[output_name(name)] = f"{text}\n".encode()
    return texts


def configs(
    a: Checkpoint, files: Sequence[OutputFile], *, dtype: str | None, plain: frozenset[str]
) -> dict[str, bytes]:
    """Every config.json beside weights that would be false, corrected; none if nothing changes.

    `dtype` is torch's name of what all weights are cast to: loaders go by it. `plain` are the keys of those
    that are not quantized any more, and a description of that would mislead them. Raises RecipeError where
    it would still hold for other weights.
    """
    assert a.folder is not None
    texts: dict[str, bytes] = {}
    for folder in sorted({file.name[: file.name.rfind("/") + 1] for file in files}):
        name = f"{folder}config.json"
        path = a.folder / name
        keys = [key for file in files if file.name.rpartition("/")[0] == folder[:-1] for key in file.keys]
        changed = not plain.isdisjoint(keys)
        if (dtype is None and not changed) or not path.is_file():
            continue
        config = _read_config(path)
        corrected = _corrected(config, dtype=dtype, plain=changed)
        if changed and corrected != _corrected(config, dtype=dtype, plain=False):
            _require_all(a, keys, plain)
        if corrected != config:
            texts[name] = (json.dumps(corrected, ensure_ascii=False, indent=2) + "\n").encode()
    return texts


def _require_all(a: Checkpoint, keys: Sequence[str], plain: Collection[str]) -> None:
    """A configuration says of all weights that they are quantized, or of none."""
    codes = left_as_codes(a.infos) | {key for key, info in a.infos.items() if info.encoded}
    if left := [key for key in keys if key in codes and key not in plain]:
        raise RecipeError(
            f"--dtype: {len(left)} weights would stay quantized, such as {left[0]}, and others not, which "
            f"{a.path.name}'s config.json has no words for; give one --dtype for all, or none"
        )


def _read_config(path: Path) -> _Json:
    """Like json_file, but for Infinity, which transformers writes into some."""
    with closing(FileSource(path)) as source:
        if source.size > MAX_CONFIG_BYTES:
            raise CheckpointError(f"{path}: is larger than any configuration; get it again")
        text = source.read(0, source.size)
    try:
        config = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not JSON ({error}); mend it, or merge without --dtype") from error
    return config if isinstance(config, dict) else {}


def _corrected(config: _Json, *, dtype: str | None, plain: bool) -> _Json:
    """The configuration, and those of the networks in it (`text_config` …), with what is true now."""
    result: _Json = {}
    for name, value in config.items():
        if plain and name in ("quantization_config", "compression_config"):
            continue
        if dtype is not None and name in ("dtype", "torch_dtype") and isinstance(value, str):
            result[name] = dtype
        elif name.endswith("_config") and isinstance(value, dict):
            result[name] = _corrected(value, dtype=dtype, plain=plain)
        else:
            result[name] = value
    return result


def companions(a: Checkpoint, *, plain: bool = False) -> Companions:
    """Every other file of A: configurations, tokenizers, schedulers, texts.

    `plain`: the weights are not quantized any more, and what says how they were is left out.

    Links to files are followed, as the cache of Hugging Face consists of them. Hidden files and folders
    are not looked at. CheckpointError if a folder cannot be listed or holds too many files.
    """
    assert a.folder is not None
    own = {shard.name for shard in a.shards}
    own |= {path.relative_to(a.folder).as_posix() for path in a.files if is_index(path.name)}
    own.add("mergekit_config.yml")  # of the merge that made A: it stands in the history instead
    own |= {_QUANTIZATION} if plain else set()
    copies: dict[str, Path] = {}
    left_out: list[str] = []
    for found in _walk(a.folder, _components(a)):
        if found.name in own:
            continue
        if found.file and not _is_other_form(found.name):
            copies[found.name] = a.folder / found.name
        else:
            left_out.append(found.name)
    return Companions(dict(sorted(copies.items())), tuple(sorted(left_out)))


@dataclass(frozen=True, slots=True)
class _Found:
    """A name in A's folder."""

    name: str  # relative to it
    last: str  # the last segment
    folder: bool
    link: bool
    file: bool  # an ordinary one, also by way of a link


def _walk(root: Path, components: Collection[str]) -> Iterator[_Found]:
    """All files, and in place of the folders that are not entered these themselves."""
    pending = [("", False)]  # folders to be listed, and whether a link led there
    count = 0
    while pending:
        folder, linked = pending.pop()
        for found in _entries(root, folder):
            count += 1
            if count > MAX_ENTRIES:
                raise CheckpointError(
                    f"{root}: holds more than {MAX_ENTRIES} files; name one .safetensors file as the output"
                )
            allowed = found.name in components if found.link else not linked
            if found.folder and allowed and not _NOT_ENTERED.fullmatch(found.last):
                pending.append((f"{found.name}/", found.link))
            else:
                yield found


def _entries(root: Path, folder: str) -> list[_Found]:
    """What is in a folder, hidden names left out."""
    try:
        with os.scandir(root / folder) as entries:
            found = [
                _Found(folder + entry.name, entry.name, entry.is_dir(), entry.is_symlink(), entry.is_file())
                for entry in entries
                if not entry.name.startswith((".", "__pycache__"))
            ]
    except OSError as error:
        raise CheckpointError(
            f"{root / folder}: cannot be listed ({error.strerror}); allow reading it, or name one "
            ".safetensors file as the output"
        ) from error
    return sorted(found, key=lambda each: each.name)


def _components(a: Checkpoint) -> set[str]:
    """The folders that a pipeline is known to have; links are followed into these."""
    parts = {shard.part for shard in a.shards if shard.part}
    if a.format != "diffusers" or a.folder is None or not (a.folder / MODEL_INDEX).is_file():
        return parts
    return parts | set(read_json_object(a.folder / MODEL_INDEX, limit=MAX_MODEL_INDEX_BYTES))


def _is_other_form(name: str) -> bool:
    """Whether a file holds weights: those of the model in another format or variant, or of a training."""
    first, _, rest = name.partition("/")
    if is_adapter(name.rpartition("/")[2]) or (rest and _MODULE.fullmatch(first)):
        return False
    return name.lower().endswith(_WEIGHTS) or is_index(name) or _FOREIGN_INDEX.search(name) is not None


_OTHER_FORM = re.compile(
    r"(?P<stem>.+)\.(?:bin|pt|pth|ckpt)(?P<index>(\.[^.]+)?\.index(\.[^.]+)?\.json)?", re.IGNORECASE
)
_WEIGHTS = (*SUFFIXES, *FOREIGN_SUFFIXES, ".onnx_data", ".pb", ".npz")
_QUANTIZATION = "hf_quant_config.json"  # ModelOpt's copy of what config.json says
_FOREIGN_INDEX = re.compile(r"\.(msgpack|h5)\.index\.json\Z", re.IGNORECASE)
# What trainers leave in a folder, and models for Apple's runtime.
_NOT_ENTERED = re.compile(r"(checkpoint|global_step)-?\d+|.*\.(mlpackage|mlmodelc)")
_MODULE = re.compile(r"\d+_[A-Z]\w*")  # a layer of sentence-transformers, with weights of its own
