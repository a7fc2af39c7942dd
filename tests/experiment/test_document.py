"""The data document holds what was measured, says what failed, and claims no more than its numbers do."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy import stats

from analyzer.checkpoints import open_checkpoint
from analyzer.experiment import sentences
from analyzer.experiment.correlations import Best
from analyzer.experiment.document import MEASURES, Outcome, describe
from analyzer.experiment.records import A, B, Column, Conditions, Shown
from analyzer.records import Scan
from analyzer.scan import scan
from analyzer.statistics import STATISTICS

sys.path.append(str(Path(__file__).resolve().parent))  # also for the tests that run from elsewhere

from example_document import example, without_pictures

SEEDS = (1, 2, 3)
LAYERS = 7
CONDITIONS = Conditions(
    prompt="a woman",
    negative_prompt="blurry",
    seeds=SEEDS,
    steps=40,
    sampler="euler_a",
    cfg=7.0,
    width=16,
    height=16,
    device="cpu",
    dtype="fp32",
    alpha=1.0,
)
RNG = np.random.default_rng(11)
LATENTS = {(name, seed): RNG.standard_normal((4, 2, 2)) for name in (A, B) for seed in SEEDS}
PIXELS = {
    (name, seed): RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8) for name in (A, B) for seed in SEEDS
}
# How far each category goes toward B: the farther, the more its weights changed
TOWARD = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
TENSORS = {f"layer{i}.weight": RNG.standard_normal((6, 5)).astype(np.float32) for i in range(LAYERS)}
NOISE = {key: RNG.standard_normal((6, 5)).astype(np.float32) for key in TENSORS}

Grid = dict[tuple[str, int], Shown | str]


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Scan:
    """A scan of two models of seven layers, the later of which changed more."""
    folder = tmp_path_factory.mktemp("models")
    save_file(TENSORS, folder / "a.safetensors")
    save_file(changed(), folder / "b.safetensors")
    with open_checkpoint(folder / "a.safetensors") as a, open_checkpoint(folder / "b.safetensors") as b:
        return scan(a, b, threads=1)


def changed() -> dict[str, np.ndarray]:
    """B: each layer has moved by a tenth more than the one before."""
    return {key: TENSORS[key] + (i + 1) / 10 * NOISE[key] for i, key in enumerate(TENSORS)}


def columns(*groups: tuple[int, ...]) -> tuple[Column, ...]:
    """A, B and a category for each group of layers; for each layer, if none are named."""
    groups = groups or tuple((i,) for i in range(LAYERS))
    labels = ["+".join(f"layer{i}" for i in group) for group in groups]
    keys = [tuple(f"layer{i}.weight" for i in group) for group in groups]
    categories = (
        Column(label, f"unet,{label}", None, None, own) for label, own in zip(labels, keys, strict=True)
    )
    return Column(A, None, None, None), Column(B, None, None, None, tuple(TENSORS)), *categories


def mixed(start: np.ndarray, end: np.ndarray, t: float) -> np.ndarray:
    return start + t * (end.astype(np.float64) - start)


def painted(of: tuple[Column, ...]) -> Grid:
    """Every category's latents lie on the way from A's to B's; its pixels are B's in as many rows."""
    grid: Grid = {place: Shown(x.astype(np.float32), PIXELS[place], 1.5) for place, x in LATENTS.items()}
    for column, t in zip(of[2:], TOWARD, strict=False):
        for seed in SEEDS:
            latents = mixed(LATENTS[A, seed], LATENTS[B, seed], t + 0.01 * (seed - 2))
            pixels = PIXELS[A, seed].copy()
            pixels[: round(t * 10)] = PIXELS[B, seed][: round(t * 10)]
            grid[column.label, seed] = Shown(latents.astype(np.float32), pixels, 2.5)
    return grid


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    own = columns()
    return Outcome(CONDITIONS, own, painted(own))


@pytest.fixture(scope="module")
def whole(outcome: Outcome, scanned: Scan) -> dict[str, Any]:
    """The document of the grid in which nothing failed."""
    return describe(outcome, scan=scanned)


def row(document: Mapping[str, Any], selector: str, seed: int | None) -> dict[str, Any]:
    (found,) = [row for row in document["rows"] if (selector, seed) == (row["selector"], row["seed"])]
    return dict(found)


def mean(document: Mapping[str, Any], selector: str, measure: str) -> dict[str, Any]:
    (found,) = [
        row for row in document["summary"] if (selector, measure) == (row["selector"], row["measure"])
    ]
    return dict(found)


def shape(value: Any) -> Any:
    """Which names stand where; of lists, those of all entries."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items() if name != "statistics"}
    if isinstance(value, list):
        return [dict(sorted(entry.items())) for entry in map(shape, value[:1]) if entry is not None]
    return None


def test_the_document_is_plain_json(whole: dict[str, Any]) -> None:
    assert whole == json.loads(json.dumps(whole, allow_nan=False))


@pytest.mark.parametrize("made", [example, without_pictures])
def test_the_examples_of_the_pages_tests_are_built_alike(
    made: Callable[[], dict[str, Any]], whole: dict[str, Any]
) -> None:
    """What is made by hand has the names of what is measured, in the same places."""
    by_hand = made()
    assert shape(whole) | {"best": None, "notes": []} == shape(by_hand) | {"best": None, "notes": []}
    json.dumps(by_hand, allow_nan=False)


def test_a_mixture_of_outputs_is_measured_as_what_it_is(whole: dict[str, Any]) -> None:
    found = row(whole, "layer4", 3)
    assert found["toward_b"] == pytest.approx(0.51, abs=1e-6)
    assert found["neither"] == pytest.approx(0, abs=1e-6)
    assert found["moved"] == pytest.approx(0.51, abs=1e-6)
    assert (2.5, None) == (found["seconds"], found["error"])


def test_pictures_are_measured_too(whole: dict[str, Any]) -> None:
    """Rows of B's picture in A's: their share of the squared difference is how far it went."""
    found = row(whole, "layer4", 3)
    difference = (PIXELS[B, 3].astype(float) - PIXELS[A, 3]) ** 2
    share = difference[:5].sum() / difference.sum()
    assert found["pixels_toward_b"] == pytest.approx(share)
    assert found["pixels_neither"] == pytest.approx(np.sqrt(share - share**2))
    for measure in ("ssim_a", "ssim_b", "histogram_a", "histogram_b"):
        assert 0 < found[measure] < 1


def test_a_category_that_takes_nothing_equals_a(outcome: Outcome, scanned: Scan) -> None:
    grid = {**outcome.grid, ("layer0", 1): outcome.grid[A, 1]}
    found = row(describe(replace(outcome, grid=grid), scan=scanned), "layer0", 1)
    assert [0.0, 0.0, 0.0, 1.0, 0.0] == [
        found[name] for name in ("toward_b", "neither", "moved", "ssim_a", "histogram_a")
    ]


def test_the_statistics_of_a_column_are_those_of_all_its_keys_together(scanned: Scan) -> None:
    """By numpy, of the layers laid end to end."""
    own = columns((1, 5))
    document = describe(Outcome(CONDITIONS, own, painted(own)), scan=scanned)
    (found,) = document["columns"]
    keys = ("layer1.weight", "layer5.weight")
    a = np.concatenate([TENSORS[key].ravel() for key in keys]).astype(np.float64)
    change = np.concatenate([changed()[key].ravel() for key in keys]).astype(np.float64) - a
    every = np.concatenate([(changed()[key].astype(np.float64) - x).ravel() for key, x in TENSORS.items()])
    assert ("layer1+layer5", "unet,layer1+layer5", 2) == (found["selector"], found["merged"], found["keys"])
    assert 60 == found["statistics"]["numel"]
    assert found["statistics"]["relative_change"] == pytest.approx(
        np.linalg.norm(change) / np.linalg.norm(a), rel=1e-12
    )
    assert found["statistics"]["energy_share"] == pytest.approx((change @ change) / (every @ every))


def test_what_the_scan_was_not_asked_for_is_no_statistic(whole: dict[str, Any]) -> None:
    names = whole["columns"][0]["statistics"]
    assert {"task_cosine", "stable_rank"}.isdisjoint(names)
    assert {"cosine", "row_cosine_min", "sign_flip_fraction"} <= set(names)


def test_the_summary_is_the_mean_with_students_interval(whole: dict[str, Any]) -> None:
    assert LAYERS * len(MEASURES) == len(whole["summary"])
    values = [row(whole, "layer2", seed)["pixels_neither"] for seed in SEEDS]
    found = mean(whole, "layer2", "pixels_neither")
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert [np.mean(values), low, high, 3] == pytest.approx(
        [found[name] for name in ("mean", "low", "high", "n")]
    )


def test_one_seed_has_a_mean_and_no_interval(outcome: Outcome, scanned: Scan) -> None:
    document = describe(replace(outcome, conditions=replace(CONDITIONS, seeds=(2,))), scan=scanned)
    found = mean(document, "layer2", "toward_b")
    assert found["mean"] == pytest.approx(0.3, abs=1e-6)
    assert (None, None, 1) == (found["low"], found["high"], found["n"])
    assert any(note.startswith("with one seed there are no intervals") for note in document["notes"])


def test_a_failed_cell_is_told_and_counts_nowhere(outcome: Outcome, scanned: Scan) -> None:
    grid = {**outcome.grid, ("layer2", 2): "out of memory"}
    document = describe(replace(outcome, grid=grid), scan=scanned)
    found = row(document, "layer2", 2)
    assert "out of memory" == found["error"]
    assert {None} == {found[name] for name in (*MEASURES, "seconds")}
    assert 2 == mean(document, "layer2", "toward_b")["n"]
    assert "1 of 27 cells failed: layer2 with seed 2" in document["notes"]


def test_without_b_only_what_is_against_a_is_measured(outcome: Outcome, scanned: Scan) -> None:
    grid = {place: cell for place, cell in outcome.grid.items() if place != (B, 1)}
    document = describe(replace(outcome, grid=grid), scan=scanned)
    found = row(document, "layer2", 1)
    assert (None, None, None) == (found["toward_b"], found["ssim_b"], found["pixels_toward_b"])
    assert found["ssim_a"] is not None
    assert (None, "was not reached") == (document["parents"][0]["error_a"], document["parents"][0]["error_b"])
    assert None is document["parents"][0]["distance"]


def test_parents_are_compared_with_each_other(whole: dict[str, Any]) -> None:
    found = whole["parents"][1]
    a, b = (LATENTS[name, 2].astype(np.float32).astype(np.float64) for name in (A, B))
    assert found["distance"] == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a))
    assert found["ssim"] is not None
    assert 2 == found["seed"]


def test_equal_parents_leave_the_way_undefined_and_are_told(outcome: Outcome, scanned: Scan) -> None:
    grid = {**outcome.grid, (B, 3): outcome.grid[A, 3]}
    document = describe(replace(outcome, grid=grid), scan=scanned)
    assert None is row(document, "layer2", 3)["toward_b"]
    assert any(note.startswith("A and B show the same with seed 3") for note in document["notes"])


def test_outputs_that_are_not_finite_are_undefined_and_no_nan(outcome: Outcome, scanned: Scan) -> None:
    bad = np.full((4, 2, 2), np.nan, np.float32)
    grid = {
        place: replace(cell, output=bad) for place, cell in outcome.grid.items() if isinstance(cell, Shown)
    }
    document = describe(replace(outcome, grid=grid), scan=scanned)
    json.dumps(document, allow_nan=False)
    assert {None} == {row["toward_b"] for row in document["rows"]}
    assert {None} == {row[name] for row in document["rows"] for name in ("ssim_a", "pixels_neither")}
    assert {None} == {parent["ssim"] for parent in document["parents"]}
    (note,) = [note for note in document["notes"] if "NaN" in note]
    assert note.startswith("27 of the cells hold NaN or Inf (A with seed 1, ")
    assert not any("show the same" in note for note in document["notes"])


def test_one_picture_of_nan_is_told_and_measured_nowhere(outcome: Outcome, scanned: Scan) -> None:
    """Its pixels are black by accident, and would count as a picture that is unlike A's."""
    cell = outcome.grid["layer2", 2]
    assert isinstance(cell, Shown)
    grid = {**outcome.grid, ("layer2", 2): replace(cell, output=np.full((4, 2, 2), np.inf, np.float32))}
    document = describe(replace(outcome, grid=grid), scan=scanned)
    assert {None} == {row(document, "layer2", 2)[name] for name in MEASURES}
    assert 2 == mean(document, "layer2", "ssim_a")["n"]
    (note,) = [note for note in document["notes"] if "NaN" in note]
    assert note.startswith(
        "1 of the cells hold NaN or Inf (layer2 with seed 2): nothing is measured of them;"
    )


def test_what_changes_the_decoder_alone_is_told(outcome: Outcome, scanned: Scan) -> None:
    """Its latents are A's, its pictures are not: 0 toward B is only half of it."""
    grid = dict(outcome.grid)
    for seed in SEEDS:
        a, cell = grid[A, seed], grid["layer3", seed]
        assert isinstance(a, Shown)
        assert isinstance(cell, Shown)
        grid["layer3", seed], grid["layer4", seed] = replace(cell, output=a.output), a
    document = describe(replace(outcome, grid=grid), scan=scanned)
    assert 0 == mean(document, "layer3", "toward_b")["mean"]
    (note,) = [note for note in document["notes"] if "latents" in note]
    assert note.startswith("layer3 changes how latents become pixels")


def test_two_names_of_the_same_weights_are_one_observation(scanned: Scan, whole: dict[str, Any]) -> None:
    """Else whoever writes a category twice finds what is not there."""
    own = columns((0,), (1,), (2,), (3,), (3,), (4,))
    twice = replace(own[6], label="again")
    own = (*own[:6], twice, *own[7:])
    document = describe(Outcome(CONDITIONS, own, painted(own)), scan=scanned)
    assert 6 == len(document["columns"])
    assert {5} == {c["n"] for c in document["correlations"] if c["statistic"] == "relative_change"}
    assert {7} == {c["n"] for c in whole["correlations"] if c["statistic"] == "relative_change"}
    assert "over 5 categories" in document["notes"][0] or "with 5 categories" in document["notes"][0]


def test_a_probe_without_seeds_has_rows_without_seeds(outcome: Outcome, scanned: Scan) -> None:
    grid = {
        (label, seed): replace(cell, pixels=None)
        for (label, seed), cell in outcome.grid.items()
        if seed == 2 and isinstance(cell, Shown)
    }
    conditions = replace(CONDITIONS, seeds=(2,))
    probed = Outcome(conditions, outcome.columns, grid, probe="module:function", seeded=False)
    document = describe(probed, scan=scanned)
    assert [] == document["conditions"]["seeds"]
    assert "module:function" == document["conditions"]["probe"]
    assert row(document, "layer4", None)["toward_b"] == pytest.approx(0.5, abs=1e-6)
    assert None is row(document, "layer4", None)["ssim_a"]
    assert {"toward_b", "neither", "moved"} == {c["effect"] for c in document["correlations"]}
    assert not any("seed" in note for note in document["notes"])


def test_features_are_measured_where_there_are_some(
    outcome: Outcome, scanned: Scan, whole: dict[str, Any]
) -> None:
    seen = {
        (column.label, seed): np.float32([i, 0, seed])
        for i, column in enumerate(outcome.columns)
        for seed in SEEDS
    }
    document = describe(replace(outcome, features=seen), scan=scanned)
    assert 5.0 == row(document, "layer3", 2)["features_toward_b"]  # A is 0, B is 1, layer3 is 5
    assert "features_toward_b" in {c["effect"] for c in document["correlations"]}
    assert None is row(whole, "layer3", 2)["features_toward_b"]


def test_correlations_are_of_the_means_over_the_columns(whole: dict[str, Any]) -> None:
    (found,) = [
        c for c in whole["correlations"] if ("norm_ratio", "toward_b") == (c["statistic"], c["effect"])
    ]
    x = [column["statistics"]["norm_ratio"] for column in whole["columns"]]
    y = [mean(whole, column["selector"], "toward_b")["mean"] for column in whole["columns"]]
    assert found["spearman"] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert 7 == found["n"]
    assert found["low"] < found["spearman"] < found["high"]


def test_the_best_predictor_is_named_if_the_data_say_so(whole: dict[str, Any]) -> None:
    """Here they do: what changed more went farther."""
    assert whole["best"] is not None
    assert whole["best"]["p"] < 0.05
    assert "norm_delta" == whole["best"]["offered"]
    assert "found" == whole["foresight"]
    assert not [note for note in whole["notes"] if "beside the number" in note]  # all are of one size
    assert whole["notes"][0].startswith(
        f"a weight statistic foretells the effect: {whole['best']['statistic']} with "
    )


def test_no_predictor_is_named_if_chance_does_as_well(outcome: Outcome, scanned: Scan) -> None:
    """The same pictures, but dealt to other columns."""
    order = [3, 6, 1, 4, 0, 5, 2]
    grid = dict(outcome.grid)
    for to, of in enumerate(order):
        for seed in SEEDS:
            grid[f"layer{to}", seed] = outcome.grid[f"layer{of}", seed]
    document = describe(replace(outcome, grid=grid), scan=scanned)
    assert None is document["best"]
    assert "none" == document["foresight"]
    assert document["notes"][0].startswith("no weight statistic foretells the effect: the largest ρ of ")
    assert "would tell" in document["notes"][0]


@pytest.mark.parametrize(
    ("found", "critical", "told"),
    [
        (-0.9523, 0.9527, ("-0.9523", "0.9527")),
        (0.71, 0.952, ("0.71", "0.95")),
        (0.952, 0.952, ("0.95", "0.95")),  # no more than chance reaches
    ],
)
def test_a_correlation_that_just_fails_is_told_from_the_limit(
    found: float, critical: float, told: tuple[str, str]
) -> None:
    """In two digits where they differ, or are one number; else in four."""
    best = Best("cosine", "neither", found, n=8, p=0.06, pairs=9, critical=critical)
    note = sentences._prediction(best)
    assert f"is {told[0]}, and chance" in note
    assert note.endswith(f"|ρ| above {told[1]} would tell")


def test_categories_that_all_overlap_are_called_all() -> None:
    note = sentences._overlap({"a": {"x"}, "b": {"x", "y"}})
    assert note.startswith("all 2 categories share weights with another (a, b): ")


def test_four_columns_are_said_to_tell_nothing(scanned: Scan) -> None:
    own = columns((0,), (1,), (2,), (3,))
    document = describe(Outcome(CONDITIONS, own, painted(own)), scan=scanned)
    assert None is document["best"]
    assert "unknown" == document["foresight"]
    assert document["notes"][0].startswith("whether a weight statistic foretells the effect cannot be told")
    assert document["notes"][0].endswith("with 4 categories not even |ρ| = 1 would tell")


def test_fewer_columns_are_not_correlated(scanned: Scan) -> None:
    own = columns((0,), (1,))
    document = describe(Outcome(CONDITIONS, own, painted(own)), scan=scanned)
    assert {None} == {c["spearman"] for c in document["correlations"]}
    assert document["notes"][0].startswith("whether a weight statistic foretells the effect cannot be told")


def test_a_ranking_is_not_offered_on_categories_that_overlap(scanned: Scan) -> None:
    """Of nested ones the larger does more whatever the statistics are."""
    own = columns((0,), (1,), (2,), (3,), (4,), (5,), (5, 6))
    document = describe(Outcome(CONDITIONS, own, painted(own)), scan=scanned)
    assert document["best"] is not None
    assert None is document["best"]["offered"]
    assert not [note for note in document["notes"] if "beside the number" in note]


@pytest.mark.parametrize(
    ("statistic", "rho", "p", "expected"),
    [
        ("relative_change", 0.9, 0.01, "relative_change"),
        ("relative_change", 0.9, 0.06, None),
        ("relative_change", -0.9, 0.01, None),  # what changed least did most
        ("cosine", -0.9, 0.01, "cosine"),  # its ranking begins with the least
        ("cosine", 0.9, 0.01, None),
    ],
)
def test_a_ranking_that_is_offered_begins_with_what_does_most(
    statistic: str, rho: float, p: float, expected: str | None
) -> None:
    change = Best(statistic, "moved", rho, n=18, p=p, pairs=9, critical=0.7)
    assert expected == sentences.offered(change)
    start = "beside the number of weights, "
    pair, end = f"{statistic} with moved", f"p = {p:.2g}"
    told = (
        f"{start}the change foretells the effect too: {pair}, partial ρ = {rho:.2f}, {end} as the largest of "
        "9 pairs"
    )
    not_told = (
        f"{start}no statistic of the change foretells the effect: the largest partial ρ of 9 pairs, {pair}, "
        f"is {rho:.2f}, {end}"
    )
    assert (told if p < 0.05 else not_told) == sentences._beside_size(change)


def test_statistics_of_the_change_are_those_that_know_a_difference() -> None:
    """No size, mean or spread of A or B alone, nor what one of the two learned beyond a base."""
    of_one = {
        *("numel", "norm_a", "norm_b", "mean_a", "mean_b", "std_a", "std_b", "nonfinite_a", "nonfinite_b"),
        *("rounding_floor", "norm_task_a", "norm_task_b", "dominance", "support_overlap", "norm_ratio"),
    }
    assert set(STATISTICS) == sentences.CHANGES | of_one
    assert not sentences.CHANGES & of_one


def test_what_sizes_foretell_is_not_offered_as_a_change(outcome: Outcome, tmp_path: Path) -> None:
    """Later layers do more and are larger, and all changed by as much of their own norm."""
    rng = np.random.default_rng(5)
    a = {key: rng.standard_normal((2**i, 9)).astype(np.float32) for i, key in enumerate(TENSORS)}
    save_file(a, tmp_path / "a.safetensors")
    b = {key: x + 0.1 * rng.standard_normal(x.shape).astype(np.float32) for key, x in a.items()}
    save_file(b, tmp_path / "b.safetensors")
    with (
        open_checkpoint(tmp_path / "a.safetensors") as one,
        open_checkpoint(tmp_path / "b.safetensors") as two,
    ):
        document = describe(outcome, scan=scan(one, two, threads=1))
    assert ("numel", None) == (document["best"]["statistic"], document["best"]["offered"])
    assert "numel is the size of a category, not its change" in document["notes"][0]
    assert document["notes"][1].startswith(
        "beside the number of weights, no statistic of the change foretells"
    )


def test_columns_that_share_weights_are_said_to_be_no_sample(
    outcome: Outcome, scanned: Scan, whole: dict[str, Any]
) -> None:
    own = columns((0,), (1,), (0, 1), (2,), (3,))
    document = describe(Outcome(CONDITIONS, own, painted(own)), scan=scanned)
    (note,) = [note for note in document["notes"] if "share weights" in note]
    assert note.startswith("3 of the 5 categories share weights with another (layer0, layer1, layer0+layer1)")
    assert not any("share weights" in note for note in whole["notes"])


def test_the_models_are_those_that_were_opened(outcome: Outcome, scanned: Scan) -> None:
    """Though the scan was read from a file that names other paths."""
    here = replace(scanned.a, path="here.safetensors"), scanned.b
    document = describe(outcome, scan=scanned, models=here, created="2026-01-01T00:00:00+00:00")
    assert "here.safetensors" == document["models"]["a"]["path"]
    assert scanned.b.fingerprint == document["models"]["b"]["fingerprint"]
    assert "2026-01-01T00:00:00+00:00" == document["created"]
