"""Which `--set` options a merge names as idle, against a search of every key for what decides it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest

from analyzer.categories import categorize
from analyzer.pairing import Side, pair
from analyzer.planning.resolving import resolve
from analyzer.recipes.recipe import Recipe
from analyzer.records import Categorized, Plan, TensorInfo

Build = Callable[[int], dict[str, np.ndarray]]
Hits = Callable[[str], bool]

UNET = "model.diffusion_model."
EMA = "model_ema.diffusion_modelmiddle_block0in_layers2weight"
ONLY_IN_A = "first_stage_model.decoder.conv_out.bias"
RESHAPED = f"{UNET}time_embed.0.weight"
NAMES = {"float16": "F16", "float32": "F32", "int64": "I64"}

# What each selector means, told from the raw keys alone.
SELECTORS: Mapping[str, Hits] = {
    "attn1": lambda key: ".attn1." in key,
    "attn2": lambda key: ".attn2." in key,
    "attn2/to_k": lambda key: ".attn2.to_k." in key,
    "IN02": lambda key: key.startswith(f"{UNET}input_blocks.2."),
    "unet": lambda key: key.startswith(UNET),
    "bias": lambda key: key.endswith(".bias"),
    "ema": lambda key: key == EMA,
    "schedule": lambda key: key == "betas",
    "position_ids": lambda key: key.endswith("position_ids"),
    "conv_out": lambda key: ".conv_out." in key,
    "time_embed": lambda key: ".time_embed." in key,
}
GATES: Mapping[str | None, Hits] = {
    None: lambda key: True,
    "attn2": SELECTORS["attn2"],
    "unet": SELECTORS["unet"],
    "!attn2": lambda key: ".attn2." not in key and key not in (EMA, "betas"),
    "IN02,attn1": lambda key: SELECTORS["IN02"](key) and SELECTORS["attn1"](key),
}
NEVER_MERGED = ("betas", ONLY_IN_A, RESHAPED)


@dataclass(frozen=True)
class Models:
    """The headers of A and B, and A's labels."""

    a: Mapping[str, TensorInfo]
    b: Mapping[str, TensorInfo]
    categorized: Categorized

    def plan(self, sets: tuple[tuple[str, float], ...], only: str | None) -> Plan:
        return resolve(
            Recipe(sets=sets, only=only, position_ids="keep"),
            a=self.a,
            b=self.b,
            pairing=pair(Side(self.a, "a"), Side(self.b, "b")),
            categorized=self.categorized,
            labels_b=categorize(self.b.values()).labels,
            metadata={},
        )

    def idle(self, sets: tuple[tuple[str, float], ...], only: str | None) -> list[str]:
        """The sets that decide no key: not merged, shut out by the gate, or overruled by a later one."""
        deciding = set()
        for key in self.a:
            if key in NEVER_MERGED or key.endswith("position_ids") or not GATES[only](key):
                continue
            deciding.add(max((i for i, (text, _) in enumerate(sets) if SELECTORS[text](key)), default=None))
        return [text for i, (text, _) in enumerate(sets) if i not in deciding]


@pytest.fixture
def models(unet: Build) -> Models:
    """A mini SD 1.5 with an EMA copy; B lacks one key and has another in a different shape."""
    a = unet(0) | {EMA: np.zeros((4, 4, 3, 3), np.float16)}
    b = a | {RESHAPED: np.zeros((16, 5), np.float16)}
    del b[ONLY_IN_A]
    headers = [
        {key: TensorInfo(key, NAMES[str(x.dtype)], x.shape, 0, x.nbytes) for key, x in side.items()}
        for side in (a, b)
    ]
    return Models(headers[0], headers[1], categorize(headers[0].values()))


def named(plan: Plan) -> list[str]:
    """The selectors that the warnings call idle."""
    texts = [w.removeprefix("--set ").split(": ")[0] for w in plan.warnings if w.startswith("--set ")]
    return [name for text in texts for name in text.split(", ")]


@pytest.mark.parametrize("only", list(GATES))
def test_every_pair_of_sets(models: Models, only: str | None) -> None:
    """One set, and every set before every other one and itself, at the same alpha: exactly the idle."""
    cases = [((s, 0.5),) for s in SELECTORS] + [((s, 0.5), (t, 0.5)) for s, t in product(SELECTORS, repeat=2)]
    expected = {case: models.idle(case, only) for case in cases}
    assert expected == {case: named(models.plan(case, only)) for case in cases}
    assert [] in expected.values()
    assert any(expected.values())


@pytest.mark.parametrize("only", list(GATES))
def test_longer_lists_of_sets(models: Models, only: str | None) -> None:
    """Up to five sets with alphas of their own, zero among them, drawn with a fixed seed."""
    rng = random.Random(0)
    cases = [
        tuple((rng.choice(list(SELECTORS)), rng.choice([0.0, 0.25, 0.5, 1.0])) for _ in range(count))
        for count in (3, 4, 5)
        for _ in range(25)
    ]
    expected = {case: models.idle(case, only) for case in cases}
    assert expected == {case: named(models.plan(case, only)) for case in cases}


def test_the_order_of_two_sets_matters(models: Models) -> None:
    """A part after its whole leaves the whole something; the whole after its part leaves nothing."""
    assert [] == named(models.plan((("attn2", 0.5), ("attn2/to_k", 0.6)), None))
    assert ["attn2/to_k"] == named(models.plan((("attn2/to_k", 0.6), ("attn2", 0.5)), None))


def test_a_set_overruled_by_itself_is_idle(models: Models) -> None:
    """Said twice with alphas that print alike, the first still decides nothing."""
    assert ["attn2"] == named(models.plan((("attn2", 0.5), ("attn2", 0.5 + 1e-12)), None))
