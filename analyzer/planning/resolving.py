"""From the options of a merge to one action and one reason for every key. Knows names, no values."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from analyzer.checkpoints.scaled import scales_in_use
from analyzer.errors import RecipeError
from analyzer.guidance.guiding import Guidance, guide_by
from analyzer.kernels.formats import FLOATS
from analyzer.planning.alphas import Alphas, Dtypes, Row, names
from analyzer.recipes.document import document
from analyzer.recipes.history import FOREIGN
from analyzer.recipes.recipe import Guide, Recipe, check, method_of, parameters_of
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

# Metadata that says what the file's bytes hash to, which a merge makes false:
# modelspec.hash_sha256, sshs_model_hash, sshs_legacy_hash, new_sd_model_hash …
_HASHES = re.compile(r"(^|[._])(hash|sha256)([._]|$)")


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
    alphas = Alphas(recipe, rows, categorized.blocks)
    dtypes = Dtypes(recipe, rows, categorized.blocks)
    scales = _obsolete_scales(a, rows, dtypes)
    pairs = {p.a.key: p for p in pairing.pairs if not p.partial}
    guidance = None
    if scan is not None and recipe.guide != Guide():
        movable = {row.key for row in rows if row.key in pairs and alphas.lets_in(row)}
        guidance = guide_by(scan, recipe.guide, movable=movable)
        alphas.follow(guidance)
    draft = _Draft(recipe, a, pairs, partners, alphas, dtypes, scales)
    pruned = [row.key for row in rows if recipe.prune_ema and row.labels.part == "ema"]
    actions = draft.actions(pairing, without={*pruned, *scales})
    added: dict[str, Action] = {}
    if recipe.only_in_b == "add":
        _check_addable(pairing, a)
        applied = scales_in_use(b)
        others = (Row(key, labels_b[key]) for key in pairing.only_in_b if key not in applied)
        added = {row.key: draft.added(b[row.key], row) for row in others if alphas.lets_in(row)}
        actions += added.values()
    plan = Plan(
        actions=tuple(actions),
        only_in_a=tuple(key for key in pairing.only_in_a if key not in scales),
        shape_mismatch=tuple(mismatch.key for mismatch in pairing.shape_mismatch),
        dropped=tuple(key for key in pairing.only_in_b if key not in added),
        warnings=(
            *pairing.notes,
            *(guidance.notes if guidance else ()),
            *_partner_warnings(pairing, categorized),
            *_warnings(recipe, alphas, actions),
            *_part_warnings(recipe, partners, actions, categorized, pruned),
            *_encoding_warnings(recipe, a, actions, scales),
        ),
        metadata=still_true(metadata, plain=bool(scales)),
        recipe=_resolved(recipe, alphas, actions, guidance),
        pairs=pairs,
        partners=partners,
        pruned=tuple(pruned),
        plain=bool(scales),
    )
    _refuse_nothing(actions)
    if recipe.only is not None and not any(x.alpha is not None and x.alpha != 0 for x in actions):
        _refuse_idle(recipe, alphas, actions)
    return plan


def still_true(metadata: Mapping[str, str], *, plain: bool) -> dict[str, str]:
    """What a file of A says of itself and a merge leaves true: no hashes, no recipe of another merge.

    `plain`: its weights are not quantized any more. Recipes go into the history instead.
    """
    return {
        name: text
        for name, text in metadata.items()
        if not _HASHES.search(name)
        and name not in FOREIGN
        and not (plain and name == "_quantization_metadata")
    }


@dataclass(frozen=True, slots=True)
class _Draft:
    """What decides what happens to a key."""

    recipe: Recipe
    a: Mapping[str, TensorInfo]
    pairs: Mapping[str, Pair]
    partners: Partners
    alphas: Alphas
    dtypes: Dtypes
    scales: Collection[str]  # keys that nobody needs any more

    def actions(self, pairing: Pairing, *, without: Collection[str]) -> list[Action]:
        """What happens to A's keys, in their order."""
        mismatches = {m.key: m for m in pairing.shape_mismatch}
        in_use = scales_in_use(self.a)
        return [
            self._action(row, mismatches.get(row.key), in_use.get(row.key))
            for row in self.alphas.rows
            if row.key not in without
        ]

    def added(self, info: TensorInfo, row: Row) -> Action:
        """What is written of a key that only B has."""
        if self.recipe.position_ids == "reset" and _is_clip_positions(info.key, info):
            return _reset(info.key)
        # B's codes are of no use without its scales, and no other file holds GGUF's: their values are added.
        wanted = self.dtypes.wanted(row)
        dtype = wanted or info.dtype if info.encoded else self._dtype(info, row)
        return Action(info.key, "add", None, "--only-in-b add", dtype, info.shape)

    def _action(self, row: Row, mismatch: ShapeMismatch | None, scaled: str | None) -> Action:
        key, info = row.key, self.a[row.key]
        if self.recipe.position_ids == "reset" and _is_clip_positions(key, info):
            return _reset(key)
        vae = self.partners.vae
        if vae is not None and key in vae:
            return Action(key, "bake", None, "--vae", self.dtypes.wanted(row) or info.storage, info.shape)
        obstacle = _obstacle(self.pairs.get(key), mismatch, row.labels, scaled)
        if obstacle is None:
            obstacle = self._obstacle_of_others(key)
        if obstacle is not None:
            return self._untouched(info, row, None, obstacle)
        alpha, reason = self.alphas.of(row)
        if alpha == 0:
            return self._untouched(info, row, 0.0, reason)
        dtype = self.dtypes.wanted(row) or info.storage
        taken = alpha == 1 and self.recipe.method in _TAKES_B
        return Action(key, "take" if taken else "merge", alpha, reason, dtype, info.shape)

    def _obstacle_of_others(self, key: str) -> str | None:
        """Why the base or the further models leave nothing to combine; None where they do."""
        base, method = self.partners.base, method_of(self.recipe)
        if base is not None and (lacking := _obstacle_of_base(base.get(key))):
            return lacking
        having = sum(key in model for model in self.partners.models)
        if 1 + (base is not None) + having < method.tasks:
            return f"too few models have such a tensor for {self.recipe.method}"
        return None

    def _untouched(self, info: TensorInfo, row: Row, alpha: float | None, reason: str) -> Action:
        dtype = self._dtype(info, row)
        return Action(info.key, "keep" if dtype == info.storage else "cast", alpha, reason, dtype, info.shape)

    def _dtype(self, info: TensorInfo, row: Row) -> str:
        wanted = self.dtypes.wanted(row)
        return wanted if wanted is not None and info.dtype in FLOATS else info.storage


# The methods that give B's values at alpha 1, whatever else there is: these are copied, not computed.
_TAKES_B = frozenset({"weighted_sum", "slerp"})


def _obsolete_scales(a: Mapping[str, TensorInfo], rows: Sequence[Row], dtypes: Dtypes) -> set[str]:
    """The keys of A that scale quantized weights which are written as plain values."""
    in_use = scales_in_use(a)
    if not in_use:
        return set()
    plain = {row.key for row in rows if dtypes.wanted(row) is not None}
    return {scale for scale, weight in in_use.items() if weight in plain}


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
    for side in (pair.a, *(run.b for run in pair.parts)):
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
    encoded = sum(x.verb in ("take", "merge", "bake") and _is_encoded(a, x) for x in actions)
    if not encoded:
        return []
    return [
        f"{encoded} keys are written in scaled fp8 with A's scales; larger values are clipped and counted"
    ]


def _is_encoded(a: Mapping[str, TensorInfo], action: Action) -> bool:
    return action.key in a and a[action.key].encoded is not None


def _reset(key: str) -> Action:
    reason = f"--position-ids reset: 0..{CLIP_POSITIONS - 1}"
    return Action(key, "reset", None, reason, "I64", (1, CLIP_POSITIONS))


def _is_clip_positions(key: str, info: TensorInfo) -> bool:
    return key.rsplit(".", 1)[-1] == "position_ids" and info.numel == CLIP_POSITIONS


def _warnings(recipe: Recipe, alphas: Alphas, actions: Sequence[Action]) -> list[str]:
    found = [alphas.note] if alphas.note else []
    used = sorted({x.alpha for x in actions if x.alpha is not None and not 0 <= x.alpha <= 1})
    if used:
        shown = ", ".join(f"{alpha:g}" for alpha in used[:_REASONS]) + (" …" if used[_REASONS:] else "")
        found.append(f"alpha {shown} lies outside 0 … 1: extrapolating")
    parameters = parameters_of(recipe)
    if parameters.get("density") == 1 and "gamma" not in parameters:
        found.append(
            f"--method {recipe.method} leaves nothing out at its default density of 1: say how much of each "
            "task is to be kept, as in --param density=0.2"
        )
    if recipe.position_ids == "reset" and not any(x.verb == "reset" for x in actions):
        found.append("--position-ids reset: A has no CLIP position_ids")
    idle = alphas.idle_options({x.key for x in actions if x.alpha is not None})
    if idle:
        found.append(f"{', '.join(idle)}: later options or --only leave nothing of it")
    return found


def _part_warnings(
    recipe: Recipe,
    partners: Partners,
    actions: Sequence[Action],
    categorized: Categorized,
    pruned: Sequence[str],
) -> list[str]:
    """What the options on parts left out or did not find."""
    found = []
    if recipe.prune_ema and not pruned:
        found.append("--prune-ema: A has no EMA copies")
    if partners.vae is not None:
        vae = [x for x in actions if categorized.labels.get(x.key, _NOWHERE).part == "vae"]
        left = [x.key for x in vae if x.verb in ("keep", "cast", "merge", "take")]
        if left:
            found.append(f"--vae: the file has nothing for {len(left)} keys of A's VAE, such as {left[0]}")
    merged = [x.key for x in actions if x.verb == "merge"]
    for place, model in enumerate(partners.models, start=1):
        if lacking := [key for key in merged if key not in model]:
            found.append(
                f"--model {place} has no such tensor for {len(lacking):,} of the merged keys, such as "
                f"{lacking[0]}: there it takes no part"
            )
    return found


_NOWHERE = Labels("", "", "", "", "")


def _partner_warnings(pairing: Pairing, categorized: Categorized) -> list[str]:
    """Say so where most of A stays as it is because B has nothing like it."""
    alone = [*pairing.only_in_a, *(mismatch.key for mismatch in pairing.shape_mismatch)]
    counted = sum(labels.counted for labels in categorized.labels.values())
    count = sum(categorized.labels[key].counted for key in alone)
    if 2 * count <= counted:
        return []
    return [f"{count:,} of A's {counted:,} keys have no counterpart in B and stay: are these two one model?"]


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
