"""How the options of a merge resolve to one alpha and one reason for every key."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.blocks.weights import parse as parse_block_weights
from analyzer.categories import categorize
from analyzer.errors import AnalyzerError, RecipeError, SelectorError
from analyzer.pairing import Side, pair
from analyzer.planning.resolving import resolve
from analyzer.recipes.recipe import Guide, Recipe
from analyzer.records import Plan, TensorInfo

UNET = "model.diffusion_model."
IN01 = f"{UNET}input_blocks.1.1.transformer_blocks.0."
CLIP = "cond_stage_model.transformer.text_model."
VAE = "first_stage_model.encoder.conv_in.weight"
NAMES = {"float16": "F16", "float32": "F32", "int64": "I64"}

Build = Callable[[int], dict[str, np.ndarray]]


def infos(tensors: dict[str, np.ndarray]) -> dict[str, TensorInfo]:
    """What a header would say of these arrays."""
    return {key: TensorInfo(key, NAMES[str(a.dtype)], a.shape, 0, a.nbytes) for key, a in tensors.items()}


def plan(recipe: Recipe, a: dict[str, np.ndarray], b: dict[str, np.ndarray] | None = None) -> Plan:
    """The plan for two models, B by default like A."""
    ia, ib = infos(a), infos(a if b is None else b)
    metadata = {
        "format": "pt",
        "modelspec.title": "t",
        "modelspec.hash_sha256": "0x1",
        "sshs_model_hash": "2",
        "sshs_legacy_hash": "3",
        "Model_Hash": "4",
        "modelspec.hashed_by": "kept",
    }
    return resolve(
        recipe,
        a=ia,
        b=ib,
        pairing=pair(Side(ia, "a"), Side(ib, "b")),
        categorized=categorize(ia.values()),
        labels_b=categorize(ib.values()).labels,
        metadata=metadata,
    )


def alphas(p: Plan) -> dict[str, float | None]:
    """Alpha by key."""
    return {action.key: action.alpha for action in p.actions}


def test_only_is_the_gate(unet: Build) -> None:
    """--only attn2 takes B's attn2 and leaves all else, and says why."""
    p = plan(Recipe(only="attn2"), unet(0))
    for action in p.actions:
        if ".attn2." in action.key:
            assert ("take", 1.0) == (action.verb, action.alpha)
        else:
            assert action.verb == "keep"
    reasons = {a.key: a.reason for a in p.actions}
    assert "not in --only attn2" == reasons[f"{IN01}attn1.to_q.weight"]


def test_options_resolve_in_the_contracts_order(unet: Build) -> None:
    """alpha, then base alpha and block weights in its place, then --set, the later winning, then --only."""
    weights = tuple(0.01 * (i + 1) for i in range(25))
    recipe = Recipe(
        only="!skip_connection",
        alpha=0.9,
        block_weights=weights,
        base_alpha=0.5,
        sets=(("attn2", 0.7), ("attn2/to_k", 0.8)),
    )
    got = alphas(plan(recipe, unet(0)))
    assert 0.02 == got[f"{IN01}attn1.to_q.weight"]  # IN01
    assert 0.01 == got[f"{UNET}time_embed.0.weight"]  # counts as IN00
    assert 0.25 == got[f"{UNET}out.2.weight"]  # counts as OUT11
    assert 0.13 == pytest.approx(got[f"{UNET}middle_block.0.in_layers.2.weight"])
    assert 0.7 == got[f"{IN01}attn2.to_q.weight"]
    assert 0.8 == got[f"{IN01}attn2.to_k.weight"]
    assert 0.5 == got[VAE] == got[f"{CLIP}encoder.layers.0.mlp.fc1.bias"]
    assert 0.0 == got[f"{UNET}input_blocks.1.0.skip_connection.weight"]


@pytest.mark.parametrize(
    ("recipe", "base"),
    [
        (Recipe(block_weights=(0.5,) * 25), 0.0),
        (Recipe(block_weights=(0.3,) + (0.5,) * 25), 0.3),
        (Recipe(block_weights=(0.3,) + (0.5,) * 25, base_alpha=0.2), 0.2),
        (Recipe(alpha=0.4), 0.4),
        (Recipe(alpha=0.4, base_alpha=0.1), 0.1),
        (Recipe(only="!ff"), 1.0),
    ],
)
def test_base_alpha_defaults(unet: Build, recipe: Recipe, base: float) -> None:
    """0 with block weights, their BASE number, an explicit one over both, else the same as --alpha."""
    got = alphas(plan(recipe, unet(0)))
    assert base == got[VAE] == got[f"{CLIP}encoder.layers.0.self_attn.q_proj.weight"]


def test_base_alpha_leaves_the_blocks_to_alpha(unet: Build) -> None:
    """Without block weights, --alpha still rules inside the U-Net."""
    p = plan(Recipe(alpha=0.4, base_alpha=0.1), unet(0))
    inside = next(a for a in p.actions if a.key == f"{IN01}attn1.to_q.weight")
    assert (0.4, "--alpha 0.4") == (inside.alpha, inside.reason)


def test_the_articles_experiment(unet: Build) -> None:
    """ALL_B, base alpha 0, position_ids reset: the weights of attn1 and attn2, in the U-Net alone."""
    recipe = Recipe(
        only="attn1,attn2,weight", block_weights=(1.0,) * 25, base_alpha=0.0, position_ids="reset"
    )
    p = plan(recipe, unet(0))
    taken = {a.key for a in p.actions if a.verb == "take"}
    expected = {
        k
        for k in unet(0)
        if (".attn1." in k or ".attn2." in k) and k.endswith("weight") and k.startswith(UNET)
    }
    assert expected == taken
    reset = [a for a in p.actions if a.verb == "reset"]
    assert [("I64", (1, 77))] == [(a.dtype, a.shape) for a in reset]


def test_integers_tables_and_markers_are_never_merged(unet: Build) -> None:
    """Whatever reaches them: alpha, a name, a glob."""
    a = unet(0) | {"v_pred": np.empty(0, np.float32)}
    for recipe in (
        Recipe(alpha=0.5),
        Recipe(alpha=0.5, only="key:*"),
        Recipe(sets=(("key:*", 0.5),)),
        Recipe(alpha=1.0, sets=(("schedule", 0.5), ("marker", 1.0))),
    ):
        p = plan(recipe, a)
        by_key = {x.key: x for x in p.actions}
        for key in (f"{CLIP}embeddings.position_ids", "betas", "v_pred"):
            assert ("keep", None) == (by_key[key].verb, by_key[key].alpha), (recipe, key)


def test_ema_copies_only_if_named(unet: Build) -> None:
    """--alpha leaves model_ema alone; part:ema names it."""
    ema = "model_ema.diffusion_modelmiddle_block0in_layers2weight"
    a = unet(0) | {ema: np.zeros((4, 4, 3, 3), np.float16)}
    assert 0.0 == alphas(plan(Recipe(alpha=0.5), a))[ema]
    assert 0.0 == alphas(plan(Recipe(alpha=0.5, only="in_layers"), a))[ema]
    assert 0.5 == alphas(plan(Recipe(alpha=0.5, only="part:ema"), a))[ema]
    assert 0.3 == alphas(plan(Recipe(alpha=0.5, sets=(("part:ema", 0.3),)), a))[ema]
    assert 0.0 == alphas(plan(Recipe(alpha=0.5, only="key:*"), a))[ema]
    assert 0.0 == alphas(plan(Recipe(alpha=0.5, sets=(("key:model*", 0.3),)), a))[ema]


def test_shapes_that_differ_keep_a_and_are_listed(unet: Build) -> None:
    """An inpainting model's first convolution, and keys that only one side has."""
    a, b = unet(0), unet(1)
    first = f"{UNET}input_blocks.0.0.weight"
    b[first] = np.zeros((4, 9, 3, 3), np.float16)
    b["extra"] = np.zeros(3, np.float16)
    del b[VAE]
    p = plan(Recipe(alpha=0.5), a, b)
    by_key = {x.key: x for x in p.actions}
    assert "shapes differ: 4×4×3×3 in A, 4×9×3×3 in B" == by_key[first].reason
    assert ("keep", "only in A") == (by_key[VAE].verb, by_key[VAE].reason)
    assert ("extra",) == p.dropped
    added = plan(Recipe(alpha=0.5, only_in_b="add"), a, b)
    assert ("add", "extra") == (added.actions[-1].verb, added.actions[-1].key)
    assert () == added.dropped


def test_dtype_casts_every_float_and_no_integer(unet: Build) -> None:
    """--dtype bf16 reaches kept, taken and blended keys and the tables; integers stay."""
    p = plan(Recipe(only="attn2", dtype="bf16"), unet(0))
    for action in p.actions:
        assert ("I64" if action.key.endswith("position_ids") else "BF16") == action.dtype


def test_metadata_loses_what_became_false(unet: Build) -> None:
    """Hashes of A's bytes go, all else stays."""
    p = plan(Recipe(alpha=0.5), unet(0))
    assert {"format": "pt", "modelspec.title": "t", "modelspec.hashed_by": "kept"} == dict(p.metadata)


def test_alphas_outside_the_unit_interval_warn(unet: Build) -> None:
    """Extrapolation is allowed, and said."""
    p = plan(Recipe(alpha=1.5, sets=(("attn2", -0.5),)), unet(0))
    assert any("-0.5, 1.5" in w and "outside" in w for w in p.warnings)
    assert () == plan(Recipe(alpha=1.0), unet(0)).warnings


def test_a_set_that_decides_nothing_warns(unet: Build) -> None:
    """A later --set or --only that leaves nothing of an earlier one is worth a word."""
    p = plan(Recipe(sets=(("attn2", 0.5), ("attn2", 0.6)), only="attn2"), unet(0))
    assert () == tuple(w for w in p.warnings if "=0.6" in w)
    gated = plan(Recipe(sets=(("ff", 0.5),), only="attn2"), unet(0))
    assert any("--set ff" in w for w in gated.warnings)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (Recipe(), "nothing says what to take"),
        (Recipe(base_alpha=0.5), "nothing says what to take"),
        (Recipe(alpha=float("nan")), "not a finite number"),
        (Recipe(block_weights=(1.0,) * 24), r"24 numbers: A needs 25 \(IN00 … OUT11\), or 26"),
        (Recipe(block_weights=(1.0,) * 27), "27 numbers"),
        (Recipe(method="magic", alpha=1.0), "unknown method"),
        (Recipe(guide=Guide(budget=0.1)), "asks a scan of the two models"),
        (Recipe(only="betas"), "none can be merged|unknown"),
        (Recipe(only="position_ids"), "none can be merged"),
        (Recipe(only="key:nothing*"), "selects no key|hits|no key"),
    ],
)
def test_requests_that_cannot_be_meant_are_refused(unet: Build, recipe: Recipe, words: str) -> None:
    """One sentence that says what and the way out."""
    with pytest.raises(AnalyzerError, match=words) as caught:
        plan(recipe, unet(0))
    assert isinstance(caught.value, RecipeError | SelectorError)


def test_block_weights_need_blocks() -> None:
    """A model without numbered layers has nothing for block weights to address."""
    a = {"first.weight": np.zeros((2, 2), np.float32), "second.weight": np.zeros((2, 2), np.float32)}
    with pytest.raises(RecipeError, match="no numbered blocks"):
        plan(Recipe(block_weights=(1.0,)), a)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30))
def test_block_weights_parse(weights: list[float]) -> None:
    """Any floats as Python prints them, between commas with or without spaces."""
    assert tuple(weights) == parse_block_weights(",".join(map(repr, weights)))
    assert tuple(weights) == parse_block_weights(" , ".join(map(repr, weights)))


def test_block_weights_from_a_file(tmp_path: object) -> None:
    """Commas or white space; a wrong number is named with its position."""
    from pathlib import Path

    file = Path(str(tmp_path)) / "weights.txt"
    file.write_text("0, 0.5\n1\n")
    assert (0.0, 0.5, 1.0) == parse_block_weights(str(file))
    file.write_text("0, half")
    with pytest.raises(RecipeError, match="number 2 is 'half'"):
        parse_block_weights(str(file))


@given(st.text(max_size=30))
def test_block_weights_raise_nothing_but_their_own_error(text: str) -> None:
    """Any text is numbers, a file, or one RecipeError."""
    try:
        weights = parse_block_weights(text)
    except RecipeError as error:
        assert str(error)
    else:
        assert all(isinstance(w, float) for w in weights)


def test_the_gate_holds_for_keys_that_only_b_has(unet: Build) -> None:
    """--only-in-b add adds what --only lets in, and resets position_ids that come from B."""
    a, b = unet(0), unet(0)
    ids = f"{CLIP}embeddings.position_ids"
    del a[ids], a[f"{IN01}attn2.to_k.weight"], a[f"{IN01}attn1.to_q.weight"]
    b[ids] = b[ids].astype(np.float32)
    p = plan(Recipe(only="attn2", only_in_b="add", position_ids="reset"), a, b)
    assert [f"{IN01}attn2.to_k.weight"] == [x.key for x in p.actions if x.verb == "add"]
    assert {ids, f"{IN01}attn1.to_q.weight"} == set(p.dropped)
    everything = plan(Recipe(alpha=1.0, only_in_b="add", position_ids="reset"), a, b)
    assert [("I64", (1, 77))] == [(x.dtype, x.shape) for x in everything.actions if x.verb == "reset"]


def test_the_recipe_is_resolved(unet: Build) -> None:
    """What is written down leaves nothing to a default of some version."""
    only = plan(Recipe(only="attn2"), unet(0)).recipe
    assert (1.0, 1.0, "keep") == (only["alpha"], only["base_alpha"], only["position_ids"])
    weights = plan(Recipe(block_weights=(0.5,) * 25), unet(0)).recipe
    assert 0.0 == weights["base_alpha"]


def test_the_reason_names_the_dtype_that_stands_in_the_way() -> None:
    """A float in A and an integer in B: it is the integer that is never merged."""
    a = {"layers.0.scale": np.ones(4, np.float32), "layers.0.weight": np.ones(4, np.float32)}
    b = a | {"layers.0.scale": np.ones(4, np.int64)}
    reasons = {x.key: x.reason for x in plan(Recipe(alpha=0.5), a, b).actions}
    assert "I64 is never merged by arithmetic" == reasons["layers.0.scale"]


def test_models_without_a_common_shape_are_not_merged() -> None:
    """Nothing would come of it but A, with a recipe that says otherwise."""
    a = {"x.weight": np.ones((2, 2), np.float32), "y.weight": np.ones(3, np.float32)}
    b = {"x.weight": np.ones((4, 4), np.float32), "z.weight": np.ones(3, np.float32)}
    with pytest.raises(RecipeError, match=r"nothing of A can be merged with B: .*shapes differ"):
        plan(Recipe(alpha=0.5), a, b)


def test_a_model_that_is_mostly_alone_is_told() -> None:
    """Two models that share a key by accident are not one model."""
    a = {f"{name}.weight": np.ones(3, np.float32) for name in "abcde"}
    warnings = plan(Recipe(alpha=0.5), a, {"a.weight": a["a.weight"]}).warnings
    assert ["4 of A's 5 keys have no counterpart in B and stay: are these two one model?"] == list(warnings)
    assert () == plan(Recipe(alpha=0.5), a, a).warnings
