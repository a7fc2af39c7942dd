"""From the options of a merge to one action and one reason for every key. Knows names, no values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from analyzer.checkpoints.scaled import scales_in_use
from analyzer.errors import RecipeError
from analyzer.guidance.guiding import Guidance, guide_by
from analyzer.kernels.formats import FLOATS
from analyzer.planning import notices
from analyzer.planning.alphas import Alphas, Dtypes, Row, names
from analyzer.planning.metadata import still_true
from analyzer.planning.quantized import Quantized, quantized
from analyzer.recipes.document import document
from analyzer.recipes.recipe import Guide, Recipe, check, method_of
from analyzer.records import (
    Action,
    Categorized,
    Labels,
    Pair,
    Pairing,
    Partners,
    Plan,
    Scan,
    ShapeMismatch,
    TensorInfo,
)

CLIP_POSITIONS = 77  # the length of CLIP's context, and so of its table of positions

_REASONS = 3  # how many a message gives


def resolve(
    recipe: Recipe,
    *,
    a: Mapping[str, TensorInfo],
    b: Mapping[str, TensorInfo],
    pairing: Pairing,
    categorized: Categorized,
    labels_b: Mapping[str, Labels],
    metadata: Mapping[str, str],
    partners: Partners | None = None,
    scan: Scan | None = None,
) -> Plan:
    """One action and one reason for every key of the output.

    `categorized` is A's, `labels_b` are B's labels where keys of B are added; `metadata` is A's, and
    comes back without what the merge makes false; `scan` is one of A and B, for the recipe's guide.
    Raises RecipeError for options that contradict each other or change nothing, SelectorError for a
    selector that is wrong or hits nothing.
    """
    partners = partners or Partners()
    check(recipe, base=partners.base is not None, models=len(partners.models))
    rows = [Row(key, categorized.labels[key]) for key in a]
    more = _addable(recipe, pairing, a, b, labels_b)
    alphas = Alphas(recipe, rows, categorized.blocks, more=more)
    dtypes = Dtypes(recipe, [*rows, *more], categorized.blocks)
    of_a = quantized(a, rows, dtypes)
    pairs = {p.a.key: p for p in pairing.pairs if not p.partial}
    guidance = None
    if scan is None and recipe.guide.asked and not recipe.alphas:
        raise RecipeError("the recipe asks a scan of the two models: make one with mergescope scan")
    if scan is not None and recipe.guide != Guide():
        movable = {row.key for row in rows if row.key in pairs and alphas.lets_in(row)}
        guidance = guide_by(scan, recipe.guide, movable=movable)
        alphas.follow(guidance)
    draft = _Draft(recipe, a, pairs, partners, alphas, dtypes, of_a, quantized(b, more, dtypes))
    pruned = [row.key for row in rows if recipe.prune_ema and row.labels.part == "ema"]
    actions = draft.actions(pairing, without={*pruned, *of_a.obsolete})
    added = {row.key: draft.added(b[row.key], row) for row in more if alphas.lets_in(row)}
    actions += added.values()
    plan = Plan(
        actions=tuple(actions),
        only_in_a=tuple(key for key in pairing.only_in_a if key not in of_a.obsolete),
        shape_mismatch=tuple(mismatch.key for mismatch in pairing.shape_mismatch),
        dropped=tuple(key for key in pairing.only_in_b if key not in added),
        warnings=(
            *pairing.notes,
            *(guidance.notes if guidance else ()),
            *notices.of_pairing(pairing, categorized),
            *notices.of_options(recipe, alphas, actions),
            *notices.of_method(recipe, actions),
            *notices.of_parts(recipe, partners, actions, categorized, pruned),
            *notices.of_encodings(a, actions, of_a),
        ),
        metadata=still_true(metadata, plain=of_a.plain),
        recipe=_resolved(recipe, alphas, actions, guidance),
        pairs=pairs,
        partners=partners,
        pruned=tuple(pruned),
        plain=of_a.plain,
        labels={**categorized.labels, **{key: labels_b[key] for key in added}},
        blocks=categorized.blocks,
    )
    _refuse_nothing(actions)
    if recipe.only is not None and not any(x.alpha is not None and x.alpha != 0 for x in actions):
        _refuse_idle(recipe, alphas, actions)
    return plan


@dataclass(frozen=True, slots=True)
class _Draft:
    """What decides what happens to a key."""

    recipe: Recipe
    a: Mapping[str, TensorInfo]
    pairs: Mapping[str, Pair]
    partners: Partners
    alphas: Alphas
    dtypes: Dtypes
    of_a: Quantized
    of_b: Quantized

    def actions(self, pairing: Pairing, *, without: Collection[str]) -> list[Action]:
        """What happens to A's keys, in their order."""
        mismatches = {m.key: m for m in pairing.shape_mismatch}
        return [
            self._action(row, mismatches.get(row.key)) for row in self.alphas.rows if row.key not in without
        ]

    def added(self, info: TensorInfo, row: Row) -> Action:
        """What is written of a key that only B has."""
        if self.recipe.position_ids == "reset" and _is_clip_positions(info.key, info):
            return _reset(info.key)
        # B's codes are of no use without its scales, and no other file holds GGUF's: their values are added.
        dtype = self._dtype(info, row, self.of_b)
        if info.encoded and dtype == info.storage:
            dtype = info.dtype
        return Action(info.key, "add", None, "--only-in-b add", dtype, info.shape)

    def _action(self, row: Row, mismatch: ShapeMismatch | None) -> Action:
        key, info = row.key, self.a[row.key]
        if self.recipe.position_ids == "reset" and _is_clip_positions(key, info):
            return _reset(key)
        vae = self.partners.vae
        if vae is not None and key in vae:
            return Action(key, "bake", None, "--vae", self.dtypes.wanted(row) or info.storage, info.shape)
        obstacle = self._obstacle(row, mismatch)
        if obstacle is not None:
            return self._untouched(info, row, None, obstacle)
        alpha, reason = self.alphas.of(row)
        if alpha == 0:
            return self._untouched(info, row, 0.0, reason)
        dtype = self.dtypes.wanted(row) or info.storage
        if alpha == 1 and (self.recipe.method in _TAKES_B or self.alphas.keeps_b(row)):
            return Action(key, "take", alpha, reason, dtype, info.shape)
        obstacle = self._obstacle_of_others(key)
        if obstacle is not None:
            return self._untouched(info, row, None, obstacle)
        return Action(key, "merge", alpha, reason, dtype, info.shape)

    def _obstacle(self, row: Row, mismatch: ShapeMismatch | None) -> str | None:
        """Why nothing of B may reach a key; None where it may."""
        key, pair = row.key, self.pairs.get(row.key)
        if (found := _obstacle(pair, mismatch, row.labels, self.of_a.scales.get(key))) is not None:
            return found
        opaque = self.of_b.opaque
        if key in self.of_a.opaque or (opaque and pair and any(x.b.key in opaque for x in pair.parts)):
            return "quantized with scales that are not understood: kept as it is"
        return None

    def _obstacle_of_others(self, key: str) -> str | None:
        """Why the base or the further models leave nothing to combine; None where they do."""
        base, method = self.partners.base, method_of(self.recipe)
        if base is None and not self.partners.models and method.tasks <= 1:
            return None
        if base is not None and (lacking := _obstacle_of_base(base.get(key))):
            return lacking
        having = sum(key in model for model in self.partners.models)
        if 1 + (base is not None) + having < method.tasks:
            return f"too few models have such a tensor for {self.recipe.method}"
        return None

    def _untouched(self, info: TensorInfo, row: Row, alpha: float | None, reason: str) -> Action:
        dtype = self._dtype(info, row, self.of_a)
        return Action(info.key, "keep" if dtype == info.storage else "cast", alpha, reason, dtype, info.shape)

    def _dtype(self, info: TensorInfo, row: Row, model: Quantized) -> str:
        wanted = self.dtypes.wanted(row)
        if wanted is None or info.dtype not in FLOATS or model.is_fixed(row):
            return info.storage
        return wanted


# The methods that give B's values at alpha 1, whatever else there is: these are copied, not computed.
_TAKES_B = frozenset({"weighted_sum", "slerp", "cosine_adaptive_a", "cosine_adaptive_b"})


def _resolved(
    recipe: Recipe, alphas: Alphas, actions: Sequence[Action], guidance: Guidance | None
) -> dict[str, object]:
    """The options with nothing left to a default; with the alphas that a scan chose, to repeat it without."""
    chosen = recipe.alphas
    if guidance is not None:
        mergeable = {action.key for action in actions if action.alpha is not None}
        chosen = tuple((row.key, alphas.guided(row)[0]) for row in alphas.rows if row.key in mergeable)
    return document(
        replace(
            recipe,
            alpha=alphas.alpha,
            base_alpha=alphas.alpha if alphas.base is None else alphas.base,
            position_ids=recipe.position_ids or "keep",
            alphas=chosen,
        )
    )


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
    for side in (pair.a, *(run.b for run in pair.runs)) if pair.runs else (pair.a, pair.b):
        if side.dtype not in FLOATS:
            return f"{side.storage} is never merged by arithmetic"
    if not labels.counted and labels.part != "ema":
        return f"{labels.component}: never merged by arithmetic"
    if labels.component == "marker":
        return "marker: never merged by arithmetic"
    return None


def _obstacle_of_base(pair: Pair | None) -> str | None:
    """Why a key has no task; None where the base has such a tensor."""
    if pair is None:
        return "the base has no such tensor of this shape"
    for run in pair.parts:
        if run.b.dtype not in FLOATS:
            return f"{run.b.storage} in the base is never merged by arithmetic"
    return None


def _addable(
    recipe: Recipe,
    pairing: Pairing,
    a: Mapping[str, TensorInfo],
    b: Mapping[str, TensorInfo],
    labels_b: Mapping[str, Labels],
) -> list[Row]:
    """The keys of B that --only-in-b adds, as far as --only lets them in.

    Keys of B can stand beside A's only where both models write their names in the same way. A tied head
    has its embedding's name in B, which says nothing of the others.
    """
    if recipe.only_in_b != "add":
        return []
    if renamed := next((p for p in pairing.pairs if p.a.key != p.key_b and p.key_b not in a), None):
        raise RecipeError(
            f"--only-in-b add: B has other names than A ({renamed.key_b!r} for {renamed.a.key!r}), and its "
            "keys would stand under names that nobody looks for; leave it out"
        )
    applied = scales_in_use(b)
    rows = [Row(key, labels_b[key]) for key in pairing.only_in_b if key not in applied]
    return [row for row in rows if not (recipe.prune_ema and row.labels.part == "ema")]


def _reset(key: str) -> Action:
    reason = f"--position-ids reset: 0..{CLIP_POSITIONS - 1}"
    return Action(key, "reset", None, reason, "I64", (1, CLIP_POSITIONS))


def _is_clip_positions(key: str, info: TensorInfo) -> bool:
    return key.rsplit(".", 1)[-1] == "position_ids" and info.numel == CLIP_POSITIONS


def _refuse_nothing(actions: Sequence[Action]) -> None:
    """Say why, if all of A stays because nothing of it has a counterpart that it can be merged with."""
    if all(x.alpha is None and x.verb in ("keep", "cast") for x in actions):
        reasons = sorted({x.reason for x in actions})
        raise RecipeError(
            f"nothing of A can be merged with B: {'; '.join(reasons[:_REASONS])}; compare the two with "
            "mergescope scan"
        )


def _refuse_idle(recipe: Recipe, alphas: Alphas, actions: Sequence[Action]) -> None:
    """Say why a selection comes to nothing, unless alphas of zero were asked for."""
    assert alphas.gate is not None
    hit = {row.key for row in alphas.rows if names(alphas.gate, row)}
    stuck = ("keep", "cast")
    reasons = sorted({x.reason for x in actions if x.key in hit and x.alpha is None and x.verb in stuck})
    if reasons and all(x.alpha is None for x in actions if x.key in hit):
        raise RecipeError(
            f"--only {recipe.only} selects {len(hit)} keys, none can be merged: {'; '.join(reasons[:3])}"
        )


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
