"""The page's arithmetic of a merge against Python's: plans, command lines, recipes, and what they make."""

from __future__ import annotations

import json
import random
import shlex
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from analyzer import scanfile
from analyzer.blocks import presets
from analyzer.checkpoints import open_checkpoint
from analyzer.cli.report import render_report
from analyzer.measures import Histogram
from analyzer.merge import plan_merge
from analyzer.merging.inputs import Inputs
from analyzer.prediction.closed_form import Outlook, Prediction
from analyzer.prediction.forecast import Forecast, forecast
from analyzer.recipes.recipe import DTYPES
from analyzer.recipes.recipe_file import parse_toml, read_recipe
from analyzer.records import KeyScan, Scan
from analyzer.scan import scan as measure
from reports import embedded
from reports.page import SCRIPTS

sys.path.append(str(Path(__file__).parent))

import merge_pair

pytestmark = pytest.mark.browser

Plan = dict[str, Any]
SEED, PLANS = 7, 60

# The page's modules beside the page: what its planner is made of, without what draws it.
MODULES = "\n".join(
    files("reports").joinpath("js", name).read_text(encoding="utf-8")
    for name in SCRIPTS[: SCRIPTS.index("predict.js")]
)
OPEN = f"""
const done = arguments[arguments.length - 1];
(async () => {{
  {MODULES}
  const data = Data.decode(await Data.unpack(document.querySelector('#scan').textContent));
  const attempt = (work) => {{
    try {{ return work(); }} catch (error) {{ return {{ error: error.message }}; }}
  }};
  window.lab = {{
    data, Toml,
    forecast(plan) {{
      const {{ alphas, problem }} = Weights.alphas(data, plan);
      if (problem) return {{ problem }};
      const outlook = ClosedForm.outlook(data, alphas, plan);
      const axes = ['group', 'block', 'part'];
      const groups = Object.fromEntries(axes.map((axis) => [axis, outlook.groups(axis)]));
      return {{ whole: outlook.whole, groups, warning: outlook.warning(), note: outlook.note,
        alphas: Object.fromEntries(Array.from(data.all, (row) => [data.key(row), alphas[row]])) }};
    }},
    command: (plan) => Recipe.command(data, plan),
    toml: (plan) => Recipe.toml(data, plan),
    read: (text) => attempt(() => Recipe.read(data, text)),
    dtypes: () => Survival.DTYPES,
  }};
}})().then(() => done(null), (error) => done(String(error.stack)));
"""


@dataclass(frozen=True)
class Lab:
    """Two models, their scan, and its page, of which the planner's modules can be asked."""

    driver: Any
    scan: Scan
    a: Path
    b: Path
    folder: Path

    def ask(self, name: str, *arguments: object) -> Any:
        """What a function of the page's modules gives."""
        return self.driver.execute_script(f"return window.lab.{name}(...arguments)", *arguments)

    def all(self, name: str, plans: list[Plan]) -> list[Any]:
        """The same of many plans."""
        return self.driver.execute_script(f"return arguments[0].map((its) => window.lab.{name}(its))", plans)


def open_page(driver: Any, scan: Scan, folder: Path, *, scan_file: Path | None = None) -> None:
    """Open the page of a scan, and load its modules a second time, where tests can reach them.

    Nothing of it is looked at: without plotly.js, which the browser does not get, it opens at once.
    """
    path = folder / "page.html"
    path.write_bytes(render_report(scan, path=scan_file, plotlyjs="cdn"))
    driver.get(path.as_uri())
    assert driver.execute_async_script(OPEN) is None


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path, Scan]:
    """A, B, the file that holds their scan, and the scan."""
    folder = tmp_path_factory.mktemp("planner numbers")
    a, b = merge_pair.write(folder, seed=SEED)
    with open_checkpoint(a) as one, open_checkpoint(b) as other:
        scan = measure(one, other, device="cpu")
    path = folder / "the scan.json"
    path.write_bytes(scanfile.dumps(scan))
    return a, b, path, scanfile.load(path)


@pytest.fixture(scope="module")
def lab(driver: Any, models: tuple[Path, Path, Path, Scan]) -> Lab:
    a, b, path, scan = models
    open_page(driver, scan, path.parent, scan_file=path)
    return Lab(driver, scan, a, b, path.parent)


@pytest.fixture(scope="module")
def plans(models: tuple[Path, Path, Path, Scan]) -> list[Plan]:
    return [plan for plan, _ in zip(random_plans(models[3], random.Random(SEED)), range(PLANS), strict=False)]


def random_plans(scan: Scan, rng: random.Random) -> Iterator[Plan]:
    """Plans in the form in which a recipe reads back: no empty tables, weights of all blocks or of none."""
    counted = [key for key in scan.keys if key.labels.counted]
    groups = list(dict.fromkeys(key.labels.group for key in counted))
    selectors = [
        "attn2",
        "attn1,attn2,weight",
        "OUT03..OUT11",
        "key:*norm1*",
        "unet",
        "component:conv",
        "!IN01",
    ]

    def alpha() -> float:
        return rng.choice([0, 0.25, 0.5, 1, rng.random(), rng.random() * 1e-3, 1.25, -0.1])

    def switched(names: list[str], most: int) -> dict[str, bool]:
        return dict.fromkeys(rng.sample(names, rng.randint(1, most)), False)

    while True:
        plan: Plan = {}
        if rng.random() < 0.5:
            plan["alpha"] = alpha()
        if rng.random() < 0.25:
            plan["weights"] = {block: alpha() for block in scan.blocks}
        elif rng.random() < 0.3:
            plan["preset"] = rng.choice(list(presets.PRESETS))
        if rng.random() < 0.3:
            plan["base_alpha"] = alpha()
        if rng.random() < 0.3:
            plan["budget"] = rng.choice([0.01, 0.05, rng.random() * 0.2])
            if rng.random() < 0.3:
                plan["per"] = rng.choice(["block", "part", "block*component"])
        if rng.random() < 0.3:
            axis = rng.choice(["component", "block", "block*component"])
            by = rng.choice(["relative_change", "cosine", "energy_share", "top_energy_share", "norm_delta"])
            plan["top"] = {"n": rng.randint(1, 6), "by": by, "axis": axis}
        if rng.random() < 0.4:
            plan["sets"] = [[rng.choice(selectors), alpha()] for _ in range(rng.randint(1, 3))]
        if rng.random() < 0.3:
            plan["only"] = rng.choice(["attn2,attn1", "unet,weight", "OUT03..OUT11,IN01..IN04", "!vae,!IN01"])
        if rng.random() < 0.4:
            plan["components"] = switched(groups, len(groups) - 1)
        if rng.random() < 0.3:
            plan["kinds"] = {rng.choice(["weight", "bias"]): False}
        if rng.random() < 0.3:
            plan["parts"] = switched(["unet", "vae", "text_encoder"], 2)
        if rng.random() < 0.6:
            plan["dtype"] = rng.choice(["fp16", "bf16", "fp32", "fp8_e4m3", "fp8_e5m2"])
        if {*plan} - {"dtype", "base_alpha"}:
            yield plan


def test_the_page_predicts_what_python_predicts_of_its_recipe(lab: Lab, plans: list[Plan]) -> None:
    """As a whole and by component, with what survives rounding; and both refuse the same plans."""
    refused = 0
    recipes, pages = lab.all("toml", plans), lab.all("forecast", plans)
    with open_checkpoint(lab.a) as a, open_checkpoint(lab.b) as b:
        for plan, recipe, page in zip(plans, recipes, pages, strict=True):
            if "problem" in page:
                refused += 1
                assert recipe == f"# {page['problem']}\n"
                continue
            wish = parse_toml(recipe, source=lab.folder / "recipe.toml")
            assert (wish.scan is None) == ("budget" not in plan and "top" not in plan)
            planned = plan_merge(Inputs(a, b), wish.recipe, scan=lab.scan)
            alphas = {x.key: x.alpha or 0 for x in planned.actions if x.key in page["alphas"]}
            assert alphas == pytest.approx(page["alphas"], rel=1e-12, abs=1e-15), plan
            assert_same(forecast(planned, wish.recipe, lab.scan), page, plan)
    assert refused < PLANS / 6


def test_other_axes_are_python_s(lab: Lab, plans: list[Plan]) -> None:
    """By block and by part: the same sums, in other groups; and how far the alphas of each go."""
    plan = next(plan for plan in plans if "weights" in plan and "sets" in plan)
    page = lab.ask("forecast", plan)
    rows = {row.key: row for row in lab.scan.keys}
    steps = {key: (1.0, alpha, 0.0) for key, alpha in page["alphas"].items()}
    dtype = DTYPES[plan.get("dtype", "keep")]
    outlook = Outlook(lab.scan, steps, dtypes=dict.fromkeys(rows, dtype) if dtype else None)
    for axis in ("block", "part"):
        drawn = {group["name"]: group for group in page["groups"][axis]}
        for group in outlook.groups(axis):
            name = group.selector.removeprefix(f"{axis}:")
            assert_prediction(group.prediction, drawn[name]["prediction"], name)
            its = [
                alpha
                for key, alpha in page["alphas"].items()
                if getattr(rows[key].labels, axis) == name and rows[key].labels.counted
            ]
            assert [min(its), max(its)] == drawn[name]["alphas"]


def test_the_command_line_is_the_recipe(
    lab: Lab, plans: list[Plan], run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a shell reads of the page's command line predicts what the page does, quotes and all."""
    monkeypatch.chdir(lab.folder)
    chosen = [plan for plan in plans if "problem" not in lab.ask("forecast", plan)][:14]
    for plan in chosen:
        words = shlex.split(lab.ask("command", plan))
        assert ["mergescope", "merge", str(lab.a), str(lab.b), "-o", "merged.safetensors"] == words[:6]
        result = run(*words[1:], "--scan", lab.folder / "the scan.json", "--dry-run", "--json", "--quiet")
        assert 0 == result.code, result.err
        found = json.loads(result.out)["prediction"]
        page = lab.ask("forecast", plan)
        assert_prediction(Prediction(**{name: found[name] for name in page["whole"]}), page["whole"], plan)


def test_a_plan_comes_back_from_its_recipe(lab: Lab, plans: list[Plan]) -> None:
    """Switches as switches, numbers to the last digit; and the recipe of what was read is the same recipe."""
    sound = [plan for plan in plans if "problem" not in lab.ask("forecast", plan)]
    for plan in sound:
        text = lab.ask("toml", plan)
        read = lab.ask("read", text)
        assert text == lab.ask("toml", read)
        assert plain(plan) == plain(read), text


def plain(plan: Plan) -> Plan:
    """A plan with numbers as floats: a script has no others."""
    return json.loads(json.dumps(plan), parse_int=float)


def test_a_merge_by_the_page_s_recipe_is_what_it_predicted(
    lab: Lab, tmp_path: Path, run: Callable[..., Any]
) -> None:
    """Written by `mergescope merge`, verified by it, and measured again: distances as they were foretold."""
    plan = {
        "weights": dict.fromkeys(lab.scan.blocks, 0.6) | {"IN01": 0.1, "OUT11": 1},
        "base_alpha": 0.3,
        "components": {"proj_in": False, "conv": False},
        "kinds": {"bias": False},
        "sets": [["attn2", 0.85]],
        "dtype": "fp32",
    }
    page = lab.ask("forecast", plan)
    recipe, out = tmp_path / "page.toml", tmp_path / "out.safetensors"
    recipe.write_text(lab.ask("toml", plan), encoding="utf-8")
    result = run("merge", lab.a, lab.b, "-o", out, "--recipe", recipe, "--verify", "--json", "--quiet")
    assert 0 == result.code, result.err
    found = json.loads(result.out)["prediction"]
    assert_prediction(Prediction(**{name: found[name] for name in page["whole"]}), page["whole"], plan)
    with open_checkpoint(lab.a) as a, open_checkpoint(lab.b) as b, open_checkpoint(out) as merged:
        for side, model in (("a", a), ("b", b)):
            rows = [row.sums for row in measure(model, merged, device="cpu").keys if row.labels.counted]
            distance = (sum(s.sum_dd for s in rows) / sum(s.sum_aa for s in rows)) ** 0.5
            assert page["whole"][f"distance_{side}"] == pytest.approx(distance, rel=1e-6)


def test_recipes_that_a_merge_saved_are_read(lab: Lab, tmp_path: Path, run: Callable[..., Any]) -> None:
    """Those of `--save-recipe`, for all that a plan can say; and they come to the same merge."""
    saved = tmp_path / "saved.toml"
    scan = lab.folder / "the scan.json"
    for options, expected in (
        (("--alpha", "0.3", "--dtype", "bf16"), {"alpha": 0.3, "dtype": "bf16"}),
        (("--block-weights", "grad-v", "--base-alpha", "0"), {"preset": "GRAD_V", "base_alpha": 0}),
        (("--only", "attn2", "--set", "bias=0.5"), {"only": "attn2", "sets": [["bias", 0.5]]}),
        (("--scan", scan, "--budget", "0.02"), {"budget": 0.02}),
        (("--only", "!kind:bias,!part:vae"), {"kinds": {"bias": False}, "parts": {"vae": False}}),
        (
            ("--scan", scan, "--top", "2", "--axis", "block", "--alpha", "0.7"),
            {"alpha": 0.7, "top": {"n": 2, "by": "relative_change", "axis": "block"}},
        ),
    ):
        out = tmp_path / "out.safetensors"
        result = run(
            "merge", lab.a, lab.b, "-o", out, *options, "--save-recipe", saved, "--dry-run", "--quiet"
        )
        assert 0 == result.code, result.err
        plan = lab.ask("read", saved.read_text(encoding="utf-8"))
        assert expected == plan
        assert_same(predicted(lab, read_recipe(saved)), lab.ask("forecast", plan), plan)


def predicted(lab: Lab, wish: Any) -> Forecast | None:
    with open_checkpoint(lab.a) as a, open_checkpoint(lab.b) as b:
        return forecast(plan_merge(Inputs(a, b), wish.recipe, scan=lab.scan), wish.recipe, lab.scan)


def test_block_weights_as_people_write_them(lab: Lab) -> None:
    """25 numbers, 26 with what lies in no block first, as a list or as one text."""
    blocks = lab.scan.blocks
    numbers = [place / 100 for place in range(26)]
    weights = dict(zip(blocks, numbers[1:], strict=True))
    for text in (json.dumps(numbers), f'"{",".join(map(str, numbers))}"'):
        read = lab.ask("read", f"block_weights = {text}")
        assert {"weights": weights, "base_alpha": 0} == read
    read = lab.ask("read", f"base-alpha = 0.5\nblock-weights = {numbers}")
    assert {"weights": weights, "base_alpha": 0.5} == read
    assert {"weights": weights} == lab.ask("read", f"block-weights = {numbers[1:]}")


REFUSED = {
    "alpha = ": "Line 1",
    "alpha = 0.5\nalpha = 0.6": "twice",
    "alpha = 0.5\nalpha_ = 1": "“alpha_”",
    "alpha = inf": "finite",
    "alpha = '0.5'": "finite",
    "alpha = 2024-01-01": "dates",
    'only = ""': "not empty",
    'only = "nowhere"': "nowhere",
    'method = "slerp"': "slerp",
    'method = "add_difference"\nbase = "c.safetensors"': "weighted sums",
    'base = "c"': "base",
    'where = "cosine < 0.9"': "where",
    'match = "cosine=0.9"': "match",
    'vae = "vae.safetensors"': "vae",
    'block-weights = "weights.txt"': "weights.txt",
    "block-weights = [1, 2]": "2 numbers",
    "block-weights = []": "block-weights",
    'position-ids = "reset"': "reset",
    "prune-ema = true": "true",
    'dtype = ["fp16", "vae=fp32"]': "dtype",
    'dtype = "int8"': "int8",
    "version = 2": "version",
    'format = "other"': "other",
    'by = "cosine"': "top",
    'set = ["attn2"]': "attn2",
    'set = ["attn2=much"]': "much",
    "top = 1.5": "whole number",
    "budget = -1": "budget",
    '[alphas]\n"0.3" = ["x"]': "alphas",
    "__proto__ = 1": "__proto__",
    "constructor = 1": "constructor",
    "[[set]]\nx = 1": "lists of tables",
    '<img src=x onerror="alert(1)">': "Line 1",
    "a" * 1_100_000: "more text",
    "[" * 100 + "]" * 100: "Line 1",
    'only = """\n': "no end",
    "only = 'a\tb\x07'": "control",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_plan_is_refused_with_a_sentence(lab: Lab, text: str) -> None:
    """Broken TOML, and recipes that a planner has no switches for: one sentence that names what it is."""
    message = lab.ask("read", text)["error"]
    assert REFUSED[text] in message
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 300


def test_an_empty_plan_says_so(lab: Lab) -> None:
    """Nothing chosen is A itself; neither output can be mistaken for a merge."""
    assert "# nothing chosen yet" == lab.ask("command", {})
    assert "# nothing chosen yet\n" == lab.ask("toml", {"weights": {}, "sets": [], "components": {"x": True}})
    assert {} == lab.ask("read", "# nothing chosen yet\n")
    whole = lab.ask("forecast", {})["whole"]
    assert (0, 0, None) == (whole["distance_a"], whole["cosine_distance_a"], whole["survives"])


def test_a_scan_that_was_not_saved_is_made_first(lab: Lab, models: Any, driver: Any) -> None:
    """What a scan guides needs its file: without one, the command line makes it."""
    a, b, path, scan = models
    try:
        open_page(driver, scan, path.parent)
        command = lab.ask("command", {"budget": 0.05})
    finally:
        open_page(driver, scan, path.parent, scan_file=path)
    first, then = command.split(" && ")
    assert ["mergescope", "scan", str(a), str(b), "-o", "scan.json"] == shlex.split(first)
    assert "--scan scan.json --budget 0.05" in then


def test_what_survives_is_python_s_whatever_the_steps(lab: Lab, models: Any) -> None:
    """Of every storage and output dtype, from the first bin to the last, multiples and smooth steps alike."""
    *_, path, scan = models
    rng = random.Random(SEED)
    keys = tuple(hard_to_round(scan.keys[5], place, rng) for place in range(80))
    hard = replace(scan, keys=keys, shape_mismatch=())
    try:
        open_page(lab.driver, hard, path.parent)
        for alpha, dtype in product((1e-9, 1e-3, 0.5, 1.0, -1.5), (None, *lab.ask("dtypes"))):
            plan = {"alpha": alpha} | ({"dtype": dtype} if dtype else {})
            page = lab.ask("forecast", plan)
            written = DTYPES[dtype] if dtype else None
            steps = {row.key: (1.0, alpha, 0.0) for row in keys}
            outlook = Outlook(hard, steps, dtypes=dict.fromkeys(steps, written) if written else None)
            drawn = {group["name"]: group["prediction"] for group in page["groups"]["group"]}
            for group in outlook.groups():
                assert_prediction(group.prediction, drawn[group.name], (group.name, plan))
            assert_prediction(outlook.whole(), page["whole"], plan)
    finally:
        open_page(lab.driver, scan, path.parent, scan_file=path)


def hard_to_round(row: KeyScan, place: int, rng: random.Random) -> KeyScan:
    """A key whose change is spread at random over bins, alone in its group; of some the sums overflow."""

    def spread(bins: int) -> Histogram:
        first = rng.choice([0, bins // 3, bins // 2, bins - 8, rng.randrange(bins - 8)])
        sizes = [rng.choice([0.0, 1.0, 10.0 ** rng.uniform(-9, 3)]) for _ in range(rng.randint(0, 8))]
        return Histogram(first, array("q", [1] * len(sizes)), array("d", sizes))

    dd = rng.choice([0.0, 1.0, rng.random()])
    sums = replace(
        row.sums, sum_aa=1.0 + rng.random(), sum_bb=1.5, sum_dd=dd, histogram=spread(256),
        steps=spread(192), e4m3_steps=spread(192),
    )  # fmt: skip
    if place % 20 == 19:
        sums = replace(sums, sum_bb=float("inf"))
    dtype = rng.choice(["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "Q4_K"])
    group = f"group{place}"
    labels = replace(row.labels, component=group, group=group)
    return replace(row, key=f"key{place}", key_b=f"key{place}", dtype_a=dtype, labels=labels, sums=sums)


def test_of_too_many_keys_the_page_says_that_it_does_not_know_what_survives(
    lab: Lab, models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All else is predicted as ever."""
    *_, path, scan = models
    before = lab.ask("forecast", {"alpha": 0.5})
    monkeypatch.setattr(embedded, "MOST_KEYS_WITH_STEPS", 10)
    try:
        open_page(lab.driver, scan, path.parent, scan_file=path)
        page = lab.ask("forecast", {"alpha": 0.5})
    finally:
        monkeypatch.undo()
        open_page(lab.driver, scan, path.parent, scan_file=path)
    assert "" == before["note"]
    assert "too many keys" in page["note"]
    assert before["whole"] | {"survives": None} == page["whole"]


def test_rounding_is_warned_of_as_python_does(lab: Lab) -> None:
    """The sentence names the dtype, the alphas and the way out."""
    for plan in ({"alpha": 1e-4}, {"alpha": 0.01, "dtype": "fp8_e5m2"}, {"only": "norm1", "alpha": 0.002}):
        wish = parse_toml(lab.ask("toml", plan), source=lab.folder / "recipe.toml")
        found = predicted(lab, wish)
        assert found is not None
        assert found.warning is not None
        assert found.warning == lab.ask("forecast", plan)["warning"]
    assert lab.ask("forecast", {"alpha": 1})["warning"] is None


def test_the_page_knows_the_dtypes_of_the_command_line(lab: Lab) -> None:
    """Its table is that of recipes."""
    assert {name: its for name, its in DTYPES.items() if its} == lab.ask("dtypes")


TOML = (
    "a = 1\nb = -0.5e3 # comment\nc = 'it''s'",
    'a.b.c = 1\na.b.d = "x"\n[a.e]\nf = true',
    "[a]\nb = 1\n[a.b]\nc = 2",
    "[a]\n[a]\n",
    'a = {b = 1, c.d = 2, "e f" = [1, [2, "3"],\n ]}\n',
    "a = {b = 1}\na.c = 2",
    "a = {}\n[a.b]",
    "[a.b]\n[a]\nb.c = 1",
    "a.b = 1\n[a]\nc = 1",
    "a = \"\"\"\nline \\\n   two\"\"\"\nb = '''x'''''",
    'a = "\\u00e9\\U0001F600\\n\\"\\\\"',
    'a = "\\ud800"',
    'a = "\\x41"',
    "a = 0x1F\nb = 0o17\nc = 0b101\nd = 1_000",
    "a = 01",
    "a = 1__0",
    "a = .5",
    "a = 5.",
    "a = +1.5E-2\r\nb = [\r\n1, # one\r\n2,\r\n]\r\n",
    "a = 1 b = 2",
    "a = 1\rb = 2",
    "\"\" = 1\n'x.y' = 2",
    "= 1",
    "a",
    "a = [1,,2]",
    "a = {b = 1,}",
    "a = {b = 1\n}",
    'a = "x\ny"',
    "\ufeffa = 1",
    "[a\n]",
    "[ a . b ]\nc=1",
    "a = true1",
    "# \x07",
    "a = 'é😀'",
    'a."b.c".d = 1\n[a."b.c".e]',
)


def test_toml_reads_as_python_reads_it(lab: Lab) -> None:
    """What the page takes, tomllib takes and reads alike; what tomllib refuses, so does the page."""
    import tomllib

    script = """
        const plain = (value) => value instanceof Map
          ? { table: Object.fromEntries([...value].map(([name, its]) => ['=' + name, plain(its)])) }
          : Array.isArray(value) ? value.map(plain) : value;
        return arguments[0].map((text) => {
          try { return { found: plain(window.lab.Toml.parse(text)) }; } catch (error) {
            if (!(error instanceof window.lab.Toml.TomlError)) throw error;
            return { error: error.message };
          }
        });"""
    taken = 0
    for text, read in zip(TOML, lab.driver.execute_script(script, TOML), strict=True):
        try:
            expected = tomllib.loads(text.removeprefix("\ufeff"))
        except tomllib.TOMLDecodeError:
            assert "error" in read, text
            continue
        taken += 1
        assert {"found": marked(expected)} == read, text
    assert taken >= 10


def marked(value: Any) -> Any:
    """A value with its tables marked, as the script marks them: no name of theirs may be magic to it."""
    if isinstance(value, dict):
        return {"table": {f"={name}": marked(its) for name, its in value.items()}}
    return [marked(item) for item in value] if isinstance(value, list) else value


def assert_same(found: Forecast | None, page: Mapping[str, Any], plan: object) -> None:
    """The whole and every component of a forecast, as the page has them."""
    assert found is not None
    assert_prediction(found.whole, page["whole"], plan)
    drawn = {group["name"]: group["prediction"] for group in page["groups"]["group"]}
    assert len(drawn) == len(found.groups)
    for group in found.groups:
        name = group.selector.rpartition("component:")[2].partition(",")[0]
        assert_prediction(group.prediction, drawn[name], (name, plan))


def assert_prediction(expected: Prediction, drawn: Mapping[str, Any], what: object) -> None:
    """To nine digits; of cosine distances, which are differences, to 1e-15 beside."""
    values = asdict(expected)
    assert {name for name in values if values[name] is None} == {n for n in drawn if drawn[n] is None}, what
    for name, value in values.items():
        if value is not None:
            assert value == pytest.approx(drawn[name], rel=1e-9, abs=1e-14), (name, what)
