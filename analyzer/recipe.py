"""A merge as its author wrote it, and the plan that it comes to. Knows names and labels, no values.

Alphas resolve in one order: `alpha`, then `base_alpha` and `block_weights`, then `sets`, each
replacing what came before; `only` is the gate over all of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from analyzer.checkpoints.scaled import scales_in_use
from analyzer.errors import RecipeError
from analyzer.kernels.formats import FLOATS
from analyzer.methods import METHODS
from analyzer.records import Action, Categorized, Labels, Pair, Pairing, Plan, ShapeMismatch, TensorInfo
from analyzer.selectors import Selector, compile_selector

DTYPES: Mapping[str, str | None] = {"keep": None, "fp16": "F16", "bf16": "BF16", "fp32": "F32"}
CLIP_POSITIONS = 77  # the length of CLIP's context, and so of its table of positions

_REASONS = 3  # how many a message gives

_WEIGHTS_BYTES = 1 << 16  # more than any list of block weights takes

# Metadata that says what the file's bytes hash to, which a merge makes false:
# modelspec.hash_sha256, sshs_model_hash, sshs_legacy_hash, new_sd_model_hash …
_HASHES = re.compile(r"(^|[._])(hash|sha256)([._]|$)")


@dataclass(frozen=True, slots=True)
class Recipe:
    """The options of a merge. None means: not said."""

    method: str = "weighted_sum"
    only: str | None = None
    alpha: float | None = None
    block_weights: tuple[float, ...] | None = None
    base_alpha: float | None = None
    sets: tuple[tuple[str, float], ...] = ()  # (selector, alpha), the later wins
    position_ids: str | None = None  # "keep", "reset"
    only_in_b: str = "drop"  # "drop", "add"
    dtype: str = "keep"  # a name of DTYPES


@dataclass(frozen=True, slots=True)
class _Row:
    """A key of A as selectors see it."""

    key: str
    labels: Labels


def parse_block_weights(text: str) -> tuple[float, ...]:
    """Numbers separated by commas, or the path of a file that holds them (commas or white space).

    Raises RecipeError for what is neither, and for a number that is not finite.
    """
    source, numbers = "block weights", text
    if re.fullmatch(r"[\s,0-9.eE+-]+", text) is None:
        try:
            numbers, source = _read_small(Path(text)), text
        except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a path with a null byte
            raise RecipeError(
                f"block weights {text!r} are neither numbers nor a readable file of numbers: "
                "write for example 0,0.5,1 with one number for each block"
            ) from error
    weights = []
    for position, word in enumerate(re.split(r"\s*,\s*|\s+", numbers.strip()), start=1):
        if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", word) is None:
            raise RecipeError(f"{source}: number {position} is {word!r}; write numbers such as 0,0.5,1")
        weights.append(float(word))
    return tuple(weights)


def _read_small(path: Path) -> str:
    """The text of an ordinary file; whatever is no list of numbers is not read to its end."""
    if not path.is_file() or path.stat().st_size > _WEIGHTS_BYTES:
        raise OSError(f"{path} is no file of numbers")
    return path.read_text(encoding="utf-8")


def resolve(
    recipe: Recipe,
    *,
    a: Mapping[str, TensorInfo],
    b: Mapping[str, TensorInfo],
    pairing: Pairing,
    categorized: Categorized,
    labels_b: Mapping[str, Labels],
    metadata: Mapping[str, str],
) -> Plan:
    """One action and one reason for every key of the output.

    `categorized` is A's, `labels_b` are B's labels where keys of B are added; `metadata` is A's, and
    comes back without what the merge makes false. Raises RecipeError for options that contradict
    each other or change nothing, SelectorError for a selector that is wrong or hits nothing.
    """
    _check(recipe)
    alphas = _Alphas(recipe, [_Row(key, categorized.labels[key]) for key in a], categorized.blocks)
    pairs = {p.a.key: p for p in pairing.pairs if not p.partial}
    scales = obsolete_scales(recipe, a)
    actions = _actions(recipe, a, pairs, pairing, alphas)
    added: dict[str, Action] = {}
    if recipe.only_in_b == "add":
        _check_addable(pairing, a)
        applied = scales_in_use(b)
        rows = (_Row(key, labels_b[key]) for key in pairing.only_in_b if key not in applied)
        added = {row.key: _added(b[row.key], recipe) for row in rows if alphas.lets_in(row)}
        actions += added.values()
    plan = Plan(
        actions=tuple(actions),
        only_in_a=tuple(key for key in pairing.only_in_a if key not in scales),
        shape_mismatch=tuple(mismatch.key for mismatch in pairing.shape_mismatch),
        dropped=tuple(key for key in pairing.only_in_b if key not in added),
        warnings=(
            *pairing.notes,
            *_partner_warnings(pairing, categorized),
            *_warnings(recipe, alphas, actions),
            *_encoding_warnings(recipe, a, actions, scales),
        ),
        metadata=still_true(metadata, plain=bool(scales)),
        recipe=asdict(
            replace(
                recipe,
                alpha=alphas.alpha,
                base_alpha=alphas.alpha if alphas.base is None else alphas.base,
                position_ids=recipe.position_ids or "keep",
            )
        ),
        pairs=pairs,
    )
    _refuse_nothing(actions)
    if recipe.only is not None and not any(x.alpha is not None and x.alpha != 0 for x in actions):
        _refuse_idle(recipe, alphas, actions)
    return plan


def _actions(
    recipe: Recipe, a: Mapping[str, TensorInfo], pairs: Mapping[str, Pair], pairing: Pairing, alphas: _Alphas
) -> list[Action]:
    """What happens to A's keys, in their order, without the scales that nobody needs any more."""
    mismatches = {m.key: m for m in pairing.shape_mismatch}
    scales, in_use = obsolete_scales(recipe, a), scales_in_use(a)
    actions = []
    for row in alphas.rows:
        key, info = row.key, a[row.key]
        if key in scales:
            continue
        obstacle = _obstacle(pairs.get(key), mismatches.get(key), row.labels, in_use.get(key))
        if recipe.position_ids == "reset" and _is_clip_positions(key, info):
            actions.append(_reset(key))
        elif obstacle is not None:
            actions.append(_untouched(info, recipe, None, obstacle))
        else:
            actions.append(_touched(info, recipe, *alphas.of(row)))
    return actions


def obsolete_scales(recipe: Recipe, a: Mapping[str, TensorInfo]) -> set[str]:
    """The keys of A that scale quantized weights which the recipe has written as plain values."""
    return set() if DTYPES[recipe.dtype] is None else set(scales_in_use(a))


def still_true(metadata: Mapping[str, str], *, plain: bool) -> dict[str, str]:
    """What a file of A says of itself, without hashes; `plain`: its weights are not quantized any more."""
    return {
        name: text
        for name, text in metadata.items()
        if not _HASHES.search(name) and not (plain and name == "_quantization_metadata")
    }


def _check(recipe: Recipe) -> None:
    if recipe.method not in METHODS:
        raise RecipeError(f"unknown method {recipe.method!r}: choose one of {', '.join(METHODS)}")
    said = (recipe.only, recipe.alpha, recipe.block_weights, recipe.sets or None)
    if all(option is None for option in said):
        raise RecipeError(
            "nothing says what to take from B: give --alpha, --only, --block-weights or --set "
            "(--alpha 1 takes all of B, --only attn2 that category, --alpha 0 nothing)"
        )
    numbers = [recipe.alpha, recipe.base_alpha, *(recipe.block_weights or ()), *(f for _, f in recipe.sets)]
    for number in numbers:
        if number is not None and not abs(number) < float("inf"):
            raise RecipeError(f"an alpha of {number} is not a finite number: write for example 0.5")


class _Alphas:
    """Which alpha a key has, and which option said so."""

    def __init__(self, recipe: Recipe, rows: Sequence[_Row], blocks: Sequence[str]) -> None:
        only = recipe.only
        self.gate = None if only is None else self._compile(only, rows, blocks, option="--only")
        self.sets = [
            (self._compile(text, rows, blocks, option="--set"), alpha) for text, alpha in recipe.sets
        ]
        self.alpha = 1.0 if recipe.alpha is None else recipe.alpha
        self.base, self.by_block = _block_alphas(recipe, blocks)
        self.blocks = frozenset(blocks)
        self.rows = rows

    def of(self, row: _Row) -> tuple[float, str]:
        """The alpha of one key and the option that decided it."""
        decisive = self.decisive(row)
        if self.gate is not None and not self.lets_in(row):
            return 0.0, f"not in --only {self.gate.text}"
        if self.gate is None and decisive is None and not row.labels.counted:
            return 0.0, f"{row.labels.part} copies are merged only if named, as in --only part:ema"
        if decisive is not None:
            selector, alpha = self.sets[decisive]
            return alpha, f"--set {selector.text}={alpha:g}"
        if row.labels.block in self.by_block:
            alpha = self.by_block[row.labels.block]
            return alpha, f"--block-weights {row.labels.block}={alpha:g}"
        if self.base is not None and row.labels.block not in self.blocks:
            return self.base, f"base alpha {self.base:g}, outside all blocks"
        return self.alpha, f"--alpha {self.alpha:g}"

    def lets_in(self, row: _Row) -> bool:
        """Whether the gate is open for a key."""
        return self.gate is None or _names(self.gate, row)

    def decisive(self, row: _Row) -> int | None:
        """Which of `sets` has the last word on a key; None if none speaks of it."""
        named = [place for place, (selector, _) in enumerate(self.sets) if _names(selector, row)]
        return named[-1] if named else None

    def idle_sets(self, keys: Collection[str]) -> list[str]:
        """The selectors of `sets` that decide no key of those that can be merged."""
        rows = [row for row in self.rows if row.key in keys and self.lets_in(row)]
        decisive = {self.decisive(row) for row in rows}
        return [selector.text for place, (selector, _) in enumerate(self.sets) if place not in decisive]

    @staticmethod
    def _compile(text: str, rows: Sequence[_Row], blocks: Sequence[str], *, option: str) -> Selector:
        selector = compile_selector(text, rows=rows, blocks=blocks)
        if not any(_names(selector, row) for row in rows):
            raise RecipeError(
                f"{option} {text} selects no key of A that may be merged (EMA copies only by name, as in "
                "part:ema): look at its categories with mergescope scan"
            )
        return selector


def _block_alphas(recipe: Recipe, blocks: Sequence[str]) -> tuple[float | None, dict[str, float]]:
    """The alpha of keys outside all blocks (None: --alpha's), and of each block that has its own."""
    weights = recipe.block_weights
    if weights is None:
        return recipe.base_alpha, {}
    if not blocks:
        raise RecipeError("--block-weights: A has no numbered blocks; use --only and --set instead")
    if len(weights) not in (len(blocks), len(blocks) + 1):
        raise RecipeError(
            f"--block-weights has {len(weights)} numbers: A needs {len(blocks)} "
            f"({blocks[0]} … {blocks[-1]}), or {len(blocks) + 1} with BASE first"
        )
    first = weights[0] if len(weights) > len(blocks) else 0.0
    base = first if recipe.base_alpha is None else recipe.base_alpha
    return base, dict(zip(blocks, weights[-len(blocks) :], strict=True))


def _obstacle(
    pair: Pair | None, mismatch: ShapeMismatch | None, labels: Labels, scaled: str | None
) -> str | None:
    """Why no arithmetic may touch a key; None where it may. `scaled`: the weight whose scale it is."""
    if mismatch is not None:
        return f"shapes differ: {_shape(mismatch.shape_a)} in A, {_shape(mismatch.shape_b)} in B"
    if pair is None:
        return "only in A"
    if scaled is not None:
        return f"scale of {scaled}: kept, since its codes are written for it"
    for side in (pair.a, *(run.b for run in pair.parts)):
        if side.dtype not in FLOATS:
            return f"{side.storage} is never merged by arithmetic"
    if not labels.counted and labels.part != "ema":
        return f"{labels.component}: never merged by arithmetic"
    if labels.component == "marker":
        return "marker: never merged by arithmetic"
    return None


def _touched(info: TensorInfo, recipe: Recipe, alpha: float, reason: str) -> Action:
    if alpha == 0:
        return _untouched(info, recipe, 0.0, reason)
    dtype = DTYPES[recipe.dtype] or info.storage
    return Action(info.key, "take" if alpha == 1 else "merge", alpha, reason, dtype, info.shape)


def _untouched(info: TensorInfo, recipe: Recipe, alpha: float | None, reason: str) -> Action:
    dtype = _output_dtype(info, recipe)
    verb = "keep" if dtype == info.storage else "cast"
    return Action(info.key, verb, alpha, reason, dtype, info.shape)


def _check_addable(pairing: Pairing, a: Mapping[str, TensorInfo]) -> None:
    """Keys of B can stand beside A's only where both models write their names in the same way.

    A tied head has its embedding's name in B, which says nothing of the others.
    """
    if renamed := next((p for p in pairing.pairs if p.a.key != p.key_b and p.key_b not in a), None):
        raise RecipeError(
            f"--only-in-b add: B has other names than A ({renamed.key_b!r} for {renamed.a.key!r}), and its "
            "keys would stand under names that nobody looks for; leave it out"
        )


def _encoding_warnings(
    recipe: Recipe, a: Mapping[str, TensorInfo], actions: Sequence[Action], scales: Collection[str]
) -> list[str]:
    """What happens to values that A stores as codes and scales."""
    if scales:
        return [f"--dtype {recipe.dtype} writes plain values, so {len(scales)} scale keys of A are left out"]
    encoded = sum(x.verb in ("take", "merge") and a[x.key].encoded is not None for x in actions if x.key in a)
    if not encoded:
        return []
    return [
        f"{encoded} keys are written in scaled fp8 with A's scales; larger values are clipped and counted"
    ]


def _reset(key: str) -> Action:
    reason = f"--position-ids reset: 0..{CLIP_POSITIONS - 1}"
    return Action(key, "reset", None, reason, "I64", (1, CLIP_POSITIONS))


def _added(info: TensorInfo, recipe: Recipe) -> Action:
    if recipe.position_ids == "reset" and _is_clip_positions(info.key, info):
        return _reset(info.key)
    # B's codes are of no use without its scales, and no other file holds GGUF's: their values are added.
    dtype = DTYPES[recipe.dtype] or info.dtype if info.encoded else _output_dtype(info, recipe)
    return Action(info.key, "add", None, "--only-in-b add", dtype, info.shape)


def _output_dtype(info: TensorInfo, recipe: Recipe) -> str:
    wanted = DTYPES[recipe.dtype]
    return wanted if wanted is not None and info.dtype in FLOATS else info.storage


def _is_clip_positions(key: str, info: TensorInfo) -> bool:
    return key.rsplit(".", 1)[-1] == "position_ids" and info.numel == CLIP_POSITIONS


def _warnings(recipe: Recipe, alphas: _Alphas, actions: Sequence[Action]) -> list[str]:
    found = []
    used = sorted({x.alpha for x in actions if x.alpha is not None and not 0 <= x.alpha <= 1})
    if used:
        found.append(f"alpha {', '.join(f'{u:g}' for u in used)} lies outside 0 … 1: extrapolating")
    if recipe.position_ids == "reset" and not any(x.verb == "reset" for x in actions):
        found.append("--position-ids reset: A has no CLIP position_ids")
    idle = alphas.idle_sets({x.key for x in actions if x.alpha is not None})
    if idle:
        found.append(f"--set {', '.join(idle)}: later options or --only leave nothing of it")
    return found


def _partner_warnings(pairing: Pairing, categorized: Categorized) -> list[str]:
    """Say so where most of A stays as it is because B has nothing like it."""
    alone = [*pairing.only_in_a, *(mismatch.key for mismatch in pairing.shape_mismatch)]
    counted = sum(labels.counted for labels in categorized.labels.values())
    count = sum(categorized.labels[key].counted for key in alone)
    if 2 * count <= counted:
        return []
    return [f"{count:,} of A's {counted:,} keys have no counterpart in B and stay: are these two one model?"]


def _names(selector: Selector, row: _Row) -> bool:
    """Whether a selector means a key; EMA copies only where it names their part, not by a glob."""
    return selector.hits(row) and (row.labels.part != "ema" or "part" in selector.axes)


def _refuse_nothing(actions: Sequence[Action]) -> None:
    """Say why, if all of A stays because nothing of it has a counterpart that it can be merged with."""
    if all(x.alpha is None and x.verb in ("keep", "cast") for x in actions):
        reasons = sorted({x.reason for x in actions})
        raise RecipeError(
            f"nothing of A can be merged with B: {'; '.join(reasons[:_REASONS])}; compare the two with "
            "mergescope scan"
        )


def _refuse_idle(recipe: Recipe, alphas: _Alphas, actions: Sequence[Action]) -> None:
    """Say why a selection comes to nothing, unless alphas of zero were asked for."""
    assert alphas.gate is not None
    hit = {row.key for row in alphas.rows if _names(alphas.gate, row)}
    reasons = sorted({x.reason for x in actions if x.key in hit and x.alpha is None and x.verb != "reset"})
    if reasons and all(x.alpha is None for x in actions if x.key in hit):
        raise RecipeError(
            f"--only {recipe.only} selects {len(hit)} keys, none can be merged: {'; '.join(reasons[:3])}"
        )


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
