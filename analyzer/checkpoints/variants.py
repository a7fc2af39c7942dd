"""Choose among the forms in which a folder holds one model. Reads names, opens nothing, guesses nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from analyzer.checkpoints.composite import listed
from analyzer.checkpoints.weight_names import SUFFIXES, WeightFile, are_slices
from analyzer.errors import CheckpointError

DEFAULT = "default"  # how a user names the files without a variant
_LISTED = 10


def choose_family(folder: Path, weights: Sequence[WeightFile]) -> list[WeightFile]:
    """The files of the one model that the folder is about; CheckpointError if there are several.

    A standard name comes before an index, and an index before any other name: `model.safetensors` is the
    model of a folder in which `consolidated.safetensors` or a VAE lies as well.
    """
    names = [file.name for file in weights]
    if are_slices(names):
        raise CheckpointError(
            f"{folder}: holds an original of Meta's in {len(names)} slices, with a part of every tensor in "
            "each; use the Hugging Face form of the same model"
        )
    for worth in ("standard", "index", "name"):
        families = sorted({file.family for file in weights if getattr(file, worth)})
        if len(families) == 1:
            return [file for file in weights if file.family == families[0]]
        if families:
            break
    raise CheckpointError(
        f"{folder}: holds several models, and nothing says which is meant; name one of them: "
        f"{listed(names, _LISTED)}"
    )


def choose_variants(
    folder: Path, families: Mapping[str, Sequence[WeightFile]], variant: str | None
) -> tuple[dict[str, str], list[str]]:
    """The variant to open of each sub-model (of the folder itself, under ""), and notes on fallbacks.

    CheckpointError if there is a choice and None was made, or if what was chosen is nowhere. Where only
    some sub-models have the chosen variant the others are opened without, as diffusers does.
    """
    there = {name: sorted({file.variant for file in files}) for name, files in families.items()}
    union = sorted({variant for variants in there.values() for variant in variants})
    if variant is None:
        if any(len(variants) > 1 for variants in there.values()):
            example = "fp16" if "fp16" in union else union[-1]
            raise CheckpointError(
                f"{folder}: holds several variants ({_describe(there)}); choose one, as in {folder}@{example}"
                + (f", or {folder}@{DEFAULT} for the files without a variant" if "" in union else "")
            )
        return {name: variants[0] for name, variants in there.items()}, []
    if variant not in union:
        raise CheckpointError(f"{folder}: has no variant {_shown(variant)!r}; it has {_describe(there)}")
    chosen: dict[str, str] = {}
    notes: list[str] = []
    for name, variants in there.items():
        if variant in variants:
            chosen[name] = variant
            continue
        chosen[name] = "" if "" in variants else variants[0]
        if "" not in variants and len(variants) > 1:
            raise CheckpointError(
                f"{folder}: {name} has no variant {_shown(variant)!r}, and several others "
                f"({', '.join(map(_shown, variants))}); open it by itself"
            )
        notes.append(f"{name}: has no {_shown(variant)} files, {_shown(chosen[name])} ones were opened")
    return chosen, notes


def prefer(folder: Path, files: Sequence[WeightFile]) -> tuple[str | None, list[str], str | None]:
    """Of one variant of one model: its index, all of its shards, its only file; at least one of them.

    The same weights under several suffixes are there for old programs: safetensors is taken first.
    """
    suffix = min((file.suffix for file in files), key=SUFFIXES.index)
    files = [file for file in files if file.suffix == suffix]
    # The newer spelling, with the variant before `.json`, sorts last.
    indexes = sorted(file.name for file in files if file.index)
    shards = [file for file in files if file.shard and not file.index]
    singles = [file.name for file in files if not file.shard and not file.index]
    if len(singles) > 1 or (singles and shards and not indexes):
        names = [file.name for file in files]
        raise CheckpointError(
            f"{folder}: holds the model more than once, and nothing says which is meant; name one file: "
            f"{listed(names, _LISTED)}"
        )
    single = singles[0] if singles else None
    if indexes:
        return indexes[-1], [], single
    if shards:
        return None, _complete(folder, shards), None
    return None, [], single


def _complete(folder: Path, shards: Sequence[WeightFile]) -> list[str]:
    """The names of shards that have no index; CheckpointError unless they are one whole set."""
    numbers = sorted(file.shard for file in shards if file.shard)
    totals = {total for _, total in numbers}
    if len(totals) > 1 or len(set(numbers)) < len(numbers):
        raise CheckpointError(
            f"{folder}: holds the shards of more than one model and no index; keep those of one: "
            f"{listed([file.name for file in shards], _LISTED)}"
        )
    have, total = {number for number, _ in numbers}, totals.pop()
    first = min(have) if min(have) in (0, 1) else 1  # a few tools count from 0
    if len(have) < total or max(have) >= first + total:
        missing = (str(number) for number in range(first, min(first + total, 10_000)) if number not in have)
        raise CheckpointError(
            f"{folder}: of {total} shards (such as {shards[0].name}) there are {len(have)}, and no "
            f"index; the download is incomplete: get number {listed(list(missing))} and the index"
        )
    return sorted(file.name for file in shards)


def _describe(there: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(
        (f"{name}: " if name else "") + ", ".join(map(_shown, variants)) for name, variants in there.items()
    )


def _shown(variant: str) -> str:
    return variant or DEFAULT
