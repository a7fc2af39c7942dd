"""What a user should know of a plan: options that do nothing, or something else than they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analyzer.planning.alphas import Alphas
from analyzer.planning.quantized import Quantized
from analyzer.recipes.recipe import Recipe, method_of, parameters_of
from analyzer.records import Action, Categorized, Labels, Pairing, Partners, TensorInfo

_SHOWN = 3  # alphas that a warning gives


def of_options(recipe: Recipe, alphas: Alphas, actions: Sequence[Action]) -> list[str]:
    """What the options on alphas come to."""
    found = [alphas.note] if alphas.note else []
    used = sorted({x.alpha for x in actions if x.alpha is not None and not 0 <= x.alpha <= 1})
    if used:
        shown = ", ".join(f"{alpha:g}" for alpha in used[:_SHOWN]) + (" …" if used[_SHOWN:] else "")
        found.append(f"alpha {shown}: outside 0 … 1, which extrapolates")
    if recipe.position_ids == "reset" and not any(x.verb == "reset" for x in actions):
        found.append("--position-ids reset: A has no CLIP position_ids")
    idle = alphas.idle_options({x.key for x in actions if x.alpha is not None})
    if idle:
        found.append(f"{', '.join(idle)}: later options or --only leave nothing of it")
    return found


def of_method(recipe: Recipe, actions: Sequence[Action]) -> list[str]:
    """Where a method is not what the other options speak of."""
    name, method = recipe.method, method_of(recipe)
    found = []
    if parameters_of(recipe).get("density") == 1:
        found.append(
            f"--method {name} leaves nothing out at a density of 1: say how much of each task is to be kept, "
            "as in --param density=0.2"
        )
    if recipe.guide.budget is not None and not method.fused:
        found.append(
            f"--budget bounds what weighted_sum would move: --method {name} moves groups by more or less; "
            "compare A with the output by mergescope scan"
        )
    if name == "model_stock" and any(weight != 1 for weight in recipe.weights):
        found.append("--model: model_stock counts all models alike, whatever weights they are given")
    if recipe.weights and not any(x.verb == "merge" for x in actions):
        found.append("--model: no key is merged, so further models take no part; an alpha of 0 keeps A whole")
    return found


def of_parts(
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
    if recipe.text_encoder == "keep-b":
        stuck = [x.key for x in actions if x.alpha is None and _is_text_weight(x, categorized)]
        if stuck:
            found.append(
                f"--text-encoder keep-b: {len(stuck)} keys of A's text encoders stay, such as {stuck[0]}, "
                "since B has nothing that fits them"
            )
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


def _is_text_weight(action: Action, categorized: Categorized) -> bool:
    labels = categorized.labels.get(action.key, _NOWHERE)
    return labels.part.startswith("text_encoder") and labels.counted


def of_pairing(pairing: Pairing, categorized: Categorized) -> list[str]:
    """Say so where most of A stays as it is because B has nothing like it."""
    alone = [*pairing.only_in_a, *(mismatch.key for mismatch in pairing.shape_mismatch)]
    counted = sum(labels.counted for labels in categorized.labels.values())
    count = sum(categorized.labels[key].counted for key in alone)
    if 2 * count <= counted:
        return []
    return [f"{count:,} of A's {counted:,} keys have no counterpart in B and stay: are these two one model?"]


def of_encodings(a: Mapping[str, TensorInfo], actions: Sequence[Action], found: Quantized) -> list[str]:
    """What happens to values that A stores as codes and scales."""
    texts = []
    if found.obsolete:
        texts.append(f"--dtype writes plain values, so {len(found.obsolete)} scale keys of A are left out")
    changed = (x.key for x in actions if x.verb in ("take", "merge", "bake"))
    encoded = sum(key in a and a[key].encoded is not None and key not in found.plain for key in changed)
    if encoded:
        texts.append(
            f"{encoded} keys are written in scaled fp8 with A's scales; larger values are clipped and counted"
        )
    return texts
