"""What a scan says of a merge: keys and alphas, against merges and statistics in numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from analyzer import scanfile
from analyzer.checkpoints import open_checkpoint
from analyzer.errors import AnalyzerError, RecipeError, SelectorError
from analyzer.guidance.guiding import Guidance, check, guide_by
from analyzer.guidance.scan_identity import require_same_models
from analyzer.ranking import rank
from analyzer.recipes.recipe import Guide
from analyzer.records import Scan
from analyzer.scan import scan

Arrays = dict[str, NDArray[np.float64]]
Write = Callable[..., Path]

REAL = Path(__file__).resolve().parents[2] / "shared" / "real"
V5, V6 = REAL / "silero_vad_v5.safetensors", REAL / "silero_vad_v6.safetensors"
LAYER = "model.diffusion_model.input_blocks.{}.1.transformer_blocks.0."
# The groups of the pair that `arrays` makes: its keys, and by how much they change.
GROUPS = {
    "attn1": ([LAYER.format(i) + f"attn1.{w}.weight" for i in (1, 2) for w in ("to_q", "to_out.0")], 0.5),
    "attn2": ([LAYER.format(i) + f"attn2.{w}.weight" for i in (1, 2) for w in ("to_q", "to_k")], 0.1),
    "ff": ([LAYER.format(i) + "ff.net.0.proj.weight" for i in (1, 2)], 0.01),
    "norm1": ([LAYER.format(i) + "norm1.weight" for i in (1, 2)], 0.0),  # unchanged
    "norm2": (
        [LAYER.format(i) + "norm2.bias" for i in (1, 2)],
        None,
    ),  # zero in A: nothing to measure against
}
MOVED = ("attn1", "attn2", "ff")


def arrays(seed: int = 0) -> tuple[Arrays, Arrays]:
    """A and B in fp64, with a schedule, which counts in nothing."""
    rng = np.random.default_rng(seed)
    a: Arrays = {}
    b: Arrays = {}
    for keys, change in GROUPS.values():
        for place, key in enumerate(keys):
            shape = (8,) if "norm" in key else (8, 6)
            a[key] = np.zeros(shape) if change is None else rng.standard_normal(shape) * (place + 1)
            b[key] = a[key] + (1.0 if change is None else change) * rng.standard_normal(shape)
    a["betas"] = b["betas"] = np.linspace(0.1, 0.2, 10)
    return a, b


def scanned(path_a: Path, path_b: Path, **options: object) -> Scan:
    """The scan of two files, as it comes back from a scan file."""
    with open_checkpoint(path_a) as a, open_checkpoint(path_b) as b:
        found = scan(a, b, **options)  # type: ignore[arg-type]  # options of scan
    path = path_a.with_suffix(".json")
    path.write_bytes(scanfile.dumps(found))
    return scanfile.load(path)


@pytest.fixture
def pair(write: Write) -> tuple[Arrays, Arrays, Scan]:
    """A, B and their scan."""
    a, b = arrays()
    return a, b, scanned(write("a.safetensors", a), write("b.safetensors", b))


def merged(a: Arrays, b: Arrays, guidance: Guidance) -> Arrays:
    """The weighted sum in numpy, with what the scan chose and set; what it says nothing of stays."""
    out = {}
    for key, value in a.items():
        alpha = guidance.alphas.get(key, 0.0) if guidance.alphas else 1.0
        if guidance.chosen is not None and key not in guidance.chosen:
            alpha = 0.0
        out[key] = value + alpha * (b[key] - value)
    return out


def joined(tensors: Mapping[str, NDArray[np.float64]], keys: Iterable[str]) -> NDArray[np.float64]:
    """All elements of some keys as one vector."""
    return np.concatenate([np.asarray(tensors[key], np.float64).ravel() for key in keys])


def relative_change(a: Arrays, m: Arrays, keys: Iterable[str]) -> float:
    """‖m − a‖ / ‖a‖ of a group."""
    x, y = joined(a, keys := list(keys)), joined(m, keys)
    return float(np.linalg.norm(y - x) / np.linalg.norm(x))


def cosine(a: Arrays, m: Arrays, keys: Iterable[str]) -> float:
    """The cosine of a group."""
    x, y = joined(a, keys := list(keys)), joined(m, keys)
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def keys_of(*groups: str) -> frozenset[str]:
    """The keys of some groups."""
    return frozenset(key for group in groups for key in GROUPS[group][0])


# --- Choices ---


def test_without_a_question_a_scan_says_nothing(pair: tuple[Arrays, Arrays, Scan]) -> None:
    """An empty guide chooses nothing and sets nothing."""
    assert Guidance(None, "", {}, {}, ()) == guide_by(pair[2], Guide())


def test_where_chooses_keys_by_their_own_statistics(pair: tuple[Arrays, Arrays, Scan]) -> None:
    """Every key is asked by itself; where a statistic is undefined, it is not chosen."""
    a, b, found = pair
    guidance = guide_by(found, Guide(where="relative_change > 0.05"))
    expected = {k for k in keys_of(*MOVED) if relative_change(a, b, [k]) > 0.05}
    assert expected == guidance.chosen
    assert ("--where relative_change > 0.05", {}, {}) == (guidance.choice, guidance.alphas, guidance.reasons)


def test_top_chooses_the_groups_that_differ_most(pair: tuple[Arrays, Arrays, Scan]) -> None:
    """The first groups of a ranking, with all of their keys."""
    guidance = guide_by(pair[2], Guide(top=2))
    assert keys_of("attn1", "attn2") == guidance.chosen
    assert "--top 2 --by relative_change --axis component" == guidance.choice


def test_top_takes_any_statistic_and_axis(pair: tuple[Arrays, Arrays, Scan]) -> None:
    """Also the smallest cosine, and also of crossed axes."""
    a, b, found = pair
    guidance = guide_by(found, Guide(top=1, by="cosine", axis="block*component"))
    keys, _ = GROUPS["attn1"]
    expected = min((keys[:2], keys[2:]), key=lambda cross: cosine(a, b, cross))
    assert set(expected) == guidance.chosen


def test_top_leaves_out_what_is_undefined(pair: tuple[Arrays, Arrays, Scan]) -> None:
    """A group without the statistic is in no top, however long it is; a note says how many there are."""
    guidance = guide_by(pair[2], Guide(top=99))
    assert keys_of(*MOVED, "norm1") == guidance.chosen
    assert (
        "--top 99 --by relative_change --axis component: there are only 4 groups that have a relative_change",
    ) == guidance.notes


# --- Budgets ---


def test_no_group_moves_by_more_than_its_budget(pair: tuple[Arrays, Arrays, Scan]) -> None:
    """A group that moved further than the budget is brought to it exactly; the others go all the way."""
    a, b, found = pair
    guidance = guide_by(found, Guide(budget=0.05))
    m = merged(a, b, guidance)
    for group in MOVED:
        keys, _ = GROUPS[group]
        wanted = min(0.05, relative_change(a, b, keys))
        assert wanted == pytest.approx(relative_change(a, m, keys), rel=1e-9)
    assert {1.0} == {guidance.alphas[key] for key in GROUPS["ff"][0]}


def test_a_budget_is_nothing_where_undefined_and_all_where_unchanged(
    pair: tuple[Arrays, Arrays, Scan],
) -> None:
    """Nothing can be measured against zeros: alpha 0, and a note; without a change alpha is 1."""
    guidance = guide_by(pair[2], Guide(budget=0.05))
    assert {0.0} == {guidance.alphas[key] for key in GROUPS["norm2"][0]}
    assert {1.0} == {guidance.alphas[key] for key in GROUPS["norm1"][0]}
    assert ("--budget 0.05 is undefined for norm2: alpha 0",) == guidance.notes


def test_a_reason_says_how_far_a_group_moved(pair: tuple[Arrays, Arrays, Scan]) -> None:
    """The reason of a key names the option, its group, and what it goes by."""
    a, b, found = pair
    reasons = guide_by(found, Guide(budget=0.05)).reasons
    change = relative_change(a, b, GROUPS["attn1"][0])
    assert f"--budget 0.05: attn1 moved by {change:.3g}" == reasons[GROUPS["attn1"][0][0]]
    assert "--budget 0.05: norm1 did not move" == reasons[GROUPS["norm1"][0][0]]
    assert "--budget 0.05: norm2 undefined, A is kept" == reasons[GROUPS["norm2"][0][0]]


def test_a_budget_by_block(pair: tuple[Arrays, Arrays, Scan]) -> None:
    """With an axis the groups are the blocks'."""
    a, b, found = pair
    m = merged(a, b, guide_by(found, Guide(budget=0.02, per="block")))
    for block in ("input_blocks.1.", "input_blocks.2."):
        keys = [key for key in a if block in key]
        assert 0.02 == pytest.approx(relative_change(a, m, keys), rel=1e-9)


def test_a_budget_of_nothing_moves_nothing(pair: tuple[Arrays, Arrays, Scan]) -> None:
    """A budget of 0 keeps whatever changed."""
    a, b, found = pair
    m = merged(a, b, guide_by(found, Guide(budget=0.0)))
    assert all((a[key] == m[key]).all() for key in a)


def test_what_counts_in_no_total_gets_no_alpha(pair: tuple[Arrays, Arrays, Scan]) -> None:
    """Schedules are measured, and get neither alpha nor reason."""
    guidance = guide_by(pair[2], Guide(budget=0.05))
    assert keys_of(*GROUPS) == guidance.alphas.keys() == guidance.reasons.keys()


def test_keys_that_a_scan_did_not_measure_get_no_alpha(write: Write) -> None:
    """A scan with --only speaks of its selection alone."""
    a, b = arrays()
    found = scanned(write("a.safetensors", a), write("b.safetensors", b), only="attn2")
    assert keys_of("attn2") == guide_by(found, Guide(budget=0.05)).alphas.keys()


# --- Matches ---


@pytest.mark.parametrize(
    ("statistic", "value"),
    [
        ("cosine", 0.9995),
        ("cosine_distance", 1e-6),
        ("cosine_distance", 1e-9),
        ("relative_change", 0.005),
        ("norm_delta", 0.02),
        ("rms_delta", 0.003),
        ("mean_abs_delta", 0.002),
        ("max_abs_delta", 0.01),
    ],
)
def test_a_scan_of_a_against_the_merge_prints_the_target(
    pair: tuple[Arrays, Arrays, Scan], write: Write, statistic: str, value: float
) -> None:
    """Written and scanned again, every group that can has the statistic that was asked for."""
    a, b, found = pair
    guidance = guide_by(found, Guide(match=(statistic, value)))
    path = write("m.safetensors", merged(a, b, guidance))
    ranking = rank(scanned(Path(found.a.path), path))
    reached = {row.name: row.statistics[statistic] for row in ranking}
    unreachable = {"ff"} if statistic == "cosine" else set()  # it moved by 0.01 in all
    for group in set(MOVED) - unreachable:
        assert value == pytest.approx(reached[group], rel=1e-6 if statistic == "cosine_distance" else 1e-9)
    assert unreachable == {group for group in MOVED for note in guidance.notes if f"{group} (" in note}


def test_a_match_that_cannot_be_reached_is_told(pair: tuple[Arrays, Arrays, Scan]) -> None:
    """All of B is taken, and a note says what it comes to."""
    a, b, found = pair
    guidance = guide_by(found, Guide(match=("cosine", 0.9995)))
    at_b = cosine(a, b, GROUPS["ff"][0])
    assert (
        f"--match cosine=0.9995 has no solution between 0 and 1 for ff (comes to {at_b:.6g} at alpha 1)"
        == guidance.notes[0]
    )
    assert "--match cosine=0.9995 is undefined for norm2: alpha 0" == guidance.notes[1]
    assert {1.0} == {guidance.alphas[key] for key in keys_of("ff", "norm1")}
    assert {0.0} == {guidance.alphas[key] for key in keys_of("norm2")}


def test_a_target_that_a_has_itself_is_told(pair: tuple[Arrays, Arrays, Scan]) -> None:
    """A cosine of 1 keeps all of A."""
    guidance = guide_by(pair[2], Guide(where="relative_change > 0.05", match=("cosine", 1.0)))
    assert ("--match cosine=1 comes to alpha 0 everywhere: nothing is merged",) == guidance.notes


def test_a_match_counts_what_a_choice_leaves_out(pair: tuple[Arrays, Arrays, Scan]) -> None:
    """A group of which a part stays has the statistic as a whole."""
    a, b, found = pair
    condition = "numel == 48 and relative_change > 0.08"
    guidance = guide_by(found, Guide(where=condition, match=("cosine", 0.9999)))
    m = merged(a, b, guidance)
    keys, _ = GROUPS["attn2"]
    assert guidance.chosen is not None
    assert 0 < len(guidance.chosen & set(keys)) < len(keys)
    assert 0.9999 == pytest.approx(cosine(a, m, keys), rel=1e-12)


def test_a_match_counts_what_a_merge_cannot_move(pair: tuple[Arrays, Arrays, Scan]) -> None:
    """The keys that a gate keeps as A has them are part of their group."""
    a, b, found = pair
    keys, _ = GROUPS["attn1"]
    guidance = guide_by(found, Guide(match=("relative_change", 0.05)), movable=keys[:1])
    m = a | {keys[0]: a[keys[0]] + guidance.alphas[keys[0]] * (b[keys[0]] - a[keys[0]])}
    assert 0.05 == pytest.approx(relative_change(a, m, keys), rel=1e-9)


@pytest.mark.skipif(not V5.exists(), reason="the real pair is not here")
@pytest.mark.parametrize(("statistic", "value"), [("cosine_distance", 1e-9), ("cosine_distance", 0.02)])
def test_a_real_pair_is_matched(statistic: str, value: float, tmp_path: Path) -> None:
    """Two releases of a voice detector, of which a part is unchanged, come to the distance asked for."""
    with open_checkpoint(V5) as first, open_checkpoint(V6) as second:
        found = scan(first, second)
    a, b = ({k: v.astype(np.float64) for k, v in load_file(path).items()} for path in (V5, V6))
    guidance = guide_by(found, Guide(match=(statistic, value)))
    m = merged(a, b, guidance)
    for group in rank(found):
        keys = [row.key for row in found.keys if row.labels.group.endswith(group.name)]
        if group.statistics["relative_change"] == 0:
            assert {1.0} == {guidance.alphas[key] for key in keys}
            continue
        x, y = joined(a, keys).astype(np.longdouble), joined(m, keys).astype(np.longdouble)
        distance = 1 - (x @ y) / np.sqrt((x @ x) * (y @ y))
        assert value == pytest.approx(float(distance), rel=1e-6)


# --- Formulas ---


def test_alpha_comes_from_a_formula_of_each_key(pair: tuple[Arrays, Arrays, Scan]) -> None:
    """Without an axis every key has its own alpha, clamped to 0 … 1; undefined gives 0."""
    a, b, found = pair
    guidance = guide_by(found, Guide(alpha_from="1.2 - 2 * relative_change"))
    for key in keys_of(*MOVED, "norm1"):
        expected = min(max(1.2 - 2 * relative_change(a, b, [key]), 0.0), 1.0)
        assert expected == pytest.approx(guidance.alphas[key], rel=1e-9)
    assert {0.0} == {guidance.alphas[key] for key in keys_of("norm2")}
    first, second = GROUPS["norm2"][0]
    text = "--alpha-from 1.2 - 2 * relative_change"
    assert (f"{text} is undefined for {first}, {second}: alpha 0",) == guidance.notes
    assert f"{text}: comes to 1.2" == guidance.reasons[GROUPS["norm1"][0][0]]


def test_alpha_comes_from_a_formula_of_each_group(pair: tuple[Arrays, Arrays, Scan]) -> None:
    """With an axis all keys of a group have one alpha, from the group's own statistics."""
    a, b, found = pair
    guidance = guide_by(found, Guide(alpha_from="0.03 / relative_change", per="component"))
    for group in MOVED:
        keys, _ = GROUPS[group]
        expected = min(0.03 / relative_change(a, b, keys), 1.0)
        assert [expected] * len(keys) == pytest.approx([guidance.alphas[key] for key in keys], rel=1e-9)


def test_a_long_formula_is_shown_in_short(pair: tuple[Arrays, Arrays, Scan]) -> None:
    """Reasons stay on one line."""
    formula = "+".join(["relative_change"] * 50)
    reasons = guide_by(pair[2], Guide(alpha_from=formula)).reasons
    assert max(map(len, reasons.values())) < 120


def test_a_choice_goes_with_a_setting(pair: tuple[Arrays, Arrays, Scan]) -> None:
    """The alphas are those of the setting; the choice says where they hold."""
    guidance = guide_by(pair[2], Guide(top=1, budget=0.05))
    alone = guide_by(pair[2], Guide(budget=0.05))
    assert keys_of("attn1") == guidance.chosen
    assert alone.alphas == guidance.alphas
    assert () == guidance.notes  # norm2, which is undefined, is not chosen


# --- Tensors that are stored twice, or compared in part ---


def test_a_tied_tensor_goes_with_the_one_that_it_repeats(write: Write) -> None:
    """A head that is the embedding again is chosen with it, and gets its alpha: it stays tied."""
    rng = np.random.default_rng(0)
    sides = []
    for _ in range(2):
        tensors = {
            f"model.layers.{i}.{name}.weight": rng.standard_normal((6, 6))
            for i in range(2)
            for name in ("self_attn.q_proj", "mlp.down_proj")
        }
        tensors["model.embed_tokens.weight"] = tensors["lm_head.weight"] = rng.standard_normal((20, 6))
        sides.append(tensors)
    found = scanned(write("a.safetensors", sides[0]), write("b.safetensors", sides[1]))
    (tied,) = [row.key for row in found.keys if not row.labels.counted]
    guidance = guide_by(found, Guide(where="numel == 120", budget=0.1))
    assert {"model.embed_tokens.weight", "lm_head.weight"} == guidance.chosen
    assert 1 == len({guidance.alphas[key] for key in guidance.chosen})
    assert tied in guidance.reasons


def test_a_match_takes_tensors_compared_in_part_as_they_stand(pair: tuple[Arrays, Arrays, Scan]) -> None:
    """What was compared on a common slice is never merged, so the rest of its group has to move further."""
    a, b, found = pair
    keys, _ = GROUPS["attn2"]
    rows = tuple(replace(row, slice=(8, 6)) if row.key == keys[0] else row for row in found.keys)
    guidance = guide_by(replace(found, keys=rows), Guide(match=("relative_change", 0.01)))
    m = merged(a, b, guidance) | {keys[0]: a[keys[0]]}
    assert 0.01 == pytest.approx(relative_change(a, m, keys), rel=1e-9)


# --- What is refused ---


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (Guide(where="cosine < 1", top=1), "--where and --top both choose keys"),
        (Guide(budget=0.1, match=("cosine", 0.9)), "--budget and --match both set the alphas"),
        (Guide(match=("cosine", 0.9), alpha_from="cosine"), "--match and --alpha-from both set"),
        (Guide(per="block"), "--per says what --budget, --match or --alpha-from goes by"),
        (Guide(top=1, per="block"), "--per says what"),
        (Guide(by="cosine"), "--by and --axis say what --top N orders"),
        (Guide(axis="block", budget=0.1), "--by and --axis say what --top N orders"),
        (Guide(top=0), "--top 0: choose one group or more"),
        (Guide(budget=-0.1), "--budget -0.1: .* a number of 0 or more"),
        (Guide(budget=float("nan")), "--budget nan: .* a number of 0 or more"),
        (Guide(budget=float("inf")), "--budget inf: .* a number of 0 or more"),
        (Guide(match=("cosine", 1.5)), "--match cosine=1.5: the value must be a number in -1 … 1"),
        (Guide(match=("stable_rank", 5)), "--match stable_rank: .* choose one of cosine, "),
    ],
)
def test_a_guide_that_contradicts_itself_is_refused(guide: Guide, message: str) -> None:
    """Each contradiction and each value out of range is one sentence."""
    with pytest.raises(RecipeError, match=message):
        check(guide)


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (Guide(top=1, by="cosin"), "unknown statistic 'cosin': nearest are cosine"),
        (Guide(top=1, axis="layer"), "unknown axis 'layer'"),
        (Guide(budget=0.1, per="layer"), "unknown axis 'layer'"),
        (Guide(budget=0.1, per="block*block"), "unknown axis 'block\\*block'"),
    ],
)
def test_unknown_names_are_refused(guide: Guide, message: str) -> None:
    """Statistics and axes are those of the ranking."""
    with pytest.raises(AnalyzerError, match=message):
        check(guide)


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (Guide(where="cosine"), "is a number, not a condition"),
        (Guide(where="cosin < 1"), "unknown statistic 'cosin'"),
        (Guide(alpha_from="cosine < 1"), "is a condition, not a number"),
        (Guide(alpha_from="__import__('os')"), 'unexpected "\'"'),
        (Guide(alpha_from="1 -"), "expected a statistic, a number"),
    ],
)
def test_expressions_that_do_not_parse_are_refused(guide: Guide, message: str) -> None:
    """Conditions choose, numbers set, and nothing is evaluated as Python."""
    with pytest.raises(SelectorError, match=message):
        check(guide)


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (Guide(where="relative_change > 9"), "--where relative_change > 9 holds for no key of the scan"),
        (Guide(alpha_from="log(-1)"), r"--alpha-from log\(-1\) is undefined for every key"),
        (Guide(where="numel == 8 and norm_a == 0", match=("cosine", 0.9)), "--match cosine=0.9 is undefined"),
    ],
)
def test_what_hits_nothing_is_an_error(pair: tuple[Arrays, Arrays, Scan], guide: Guide, message: str) -> None:
    """A choice of no key, and a setting that is undefined throughout, are mistakes."""
    with pytest.raises(RecipeError, match=message):
        guide_by(pair[2], guide)


def test_top_by_what_no_group_has_is_an_error(write: Write) -> None:
    """Where A is all zeros nothing has a relative change, and none differs most."""
    a, b = ({k: v for k, v in side.items() if "norm2" in k} for side in arrays())
    found = scanned(write("a.safetensors", a), write("b.safetensors", b))
    with pytest.raises(RecipeError, match="--top 1: relative_change is undefined for every component"):
        guide_by(found, Guide(top=1))


@pytest.mark.parametrize(
    "guide",
    [Guide(where="task_cosine > 0"), Guide(top=1, by="task_cosine"), Guide(alpha_from="task_cosine")],
)
def test_a_statistic_that_was_not_measured_is_refused(
    pair: tuple[Arrays, Arrays, Scan], guide: Guide
) -> None:
    """A scan without a base has no task statistics, and the message says how to get them."""
    with pytest.raises(AnalyzerError, match=r"task_cosine .*: scan with --base C"):
        guide_by(pair[2], guide)


def test_a_spectrum_that_was_not_measured_is_refused(pair: tuple[Arrays, Arrays, Scan]) -> None:
    """Nor has a scan without spectra a stable rank."""
    with pytest.raises(AnalyzerError, match=r"stable_rank .*: scan with --spectrum"):
        guide_by(pair[2], Guide(alpha_from="1 / stable_rank"))


def test_a_scan_of_nothing_that_counts_sets_nothing(write: Write) -> None:
    """Where every key is a schedule there is no group to set an alpha of."""
    betas = {"betas": np.linspace(0.1, 0.2, 10)}
    found = scanned(write("a.safetensors", betas), write("b.safetensors", betas))
    rows = tuple(replace(row, labels=replace(row.labels, counted=False)) for row in found.keys)
    with pytest.raises(RecipeError, match=r"--budget 0.1 is undefined for every key"):
        guide_by(replace(found, keys=rows), Guide(budget=0.1))


# --- A scan and its files ---


def require(found: Scan, a: Path, b: Path, base: Path | None = None) -> None:
    """Open the files and compare them with the scan."""
    with open_checkpoint(a) as first, open_checkpoint(b) as second:
        if base is None:
            require_same_models(found, a=first, b=second, base=None)
        else:
            with open_checkpoint(base) as third:
                require_same_models(found, a=first, b=second, base=third)


@pytest.fixture
def files(write: Write) -> tuple[Path, Path, Path, Scan]:
    """A, B, their base, and the scan of all three."""
    a, b = arrays()
    base = {key: (a[key] + b[key]) / 2 for key in a}
    paths = write("a.safetensors", a), write("b.safetensors", b), write("c.safetensors", base)
    with open_checkpoint(paths[2]) as third:
        return *paths, scanned(paths[0], paths[1], base=third)


def test_the_files_of_a_scan_are_known_by_their_contents(files: tuple[Path, Path, Path, Scan]) -> None:
    """Under another name a file is still the one that was scanned; a base need not be used."""
    a, b, base, found = files
    moved = a.rename(a.with_name("renamed.safetensors"))
    require(found, moved, b, base)
    require(found, moved, b)


def test_swapped_files_are_told(files: tuple[Path, Path, Path, Scan]) -> None:
    """A scan from A to B does not guide a merge from B to A."""
    a, b, _, found = files
    with pytest.raises(RecipeError, match=r"A and B the other way round: .*; swap the two models"):
        require(found, b, a)


def test_a_file_of_another_size_is_refused(files: tuple[Path, Path, Path, Scan], write: Write) -> None:
    """The message names the side, both sizes and the way out."""
    a, b, _, found = files
    size = b.stat().st_size
    write("b.safetensors", {**arrays()[1], "more": np.ones(3)})
    with pytest.raises(RecipeError) as caught:
        require(found, a, b)
    message = str(caught.value)
    assert f"B is {b} with {b.stat().st_size:,} bytes, and {b} had {size:,}" in message
    assert f"scan again: mergescope scan {a} {b} -o SCAN.json" in message
    assert f"A is {a}" not in message


def test_a_file_that_was_changed_in_place_is_refused(
    files: tuple[Path, Path, Path, Scan], write: Write
) -> None:
    """One value that differs, at the same size, is found."""
    a, b, base, found = files
    changed, _ = arrays()
    changed["betas"] = changed["betas"] + 1
    write("a.safetensors", changed)
    with pytest.raises(RecipeError, match=r"A is .* of the size of .* but with other contents"):
        require(found, a, b, base)


def test_another_base_is_refused(files: tuple[Path, Path, Path, Scan]) -> None:
    """A merge with a base needs the base of the scan."""
    a, b, _, found = files
    with pytest.raises(RecipeError, match=r"the base is .*; scan again: mergescope scan .* --base "):
        require(found, a, b, a)


def test_a_scan_without_a_base_guides_a_merge_with_one(
    files: tuple[Path, Path, Path, Scan],
) -> None:
    """What A and B have measured between them holds whatever the base."""
    a, b, base, found = files
    require(replace(found, base=None), a, b, base)
