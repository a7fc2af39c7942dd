"""A probe of the user's own: found, given what it names, its answer checked, the weights those of a merge."""

from __future__ import annotations

import json
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import AnalyzerError
from analyzer.experiment.probe_functions import find_probe
from analyzer.experiment.probing import Prober, open_prober
from analyzer.experiment.records import A, B, Column, Shown
from analyzer.merge import merge, plan_merge
from analyzer.merging.inputs import Inputs
from analyzer.recipes.recipe import Recipe

Probe = Callable[..., str]
EMBEDDING, UP, Q0, Q1, NORM = KEYS = (
    "model.embed_tokens.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.1.self_attn.q_proj.weight",
    "model.norm.weight",
)
SUMS = """
import torch

def f(state_dict):
    return torch.stack([tensor.double().sum() for tensor in state_dict.values()])
"""


def tensors(seed: int) -> dict[str, torch.Tensor]:
    """Five tensors of a language model in four dtypes, one of integers, one of a single number."""
    numbers = torch.Generator().manual_seed(seed)
    found = {key: torch.randn((4, 6), generator=numbers) for key in KEYS}
    found[UP] = found[UP].half()
    found[Q0] = found[Q0].bfloat16()
    found[NORM] = found[NORM].double().sum().reshape(())
    return {**found, "steps": torch.tensor([seed])}


NORM_OF_A = tensors(1)[NORM].item()


@pytest.fixture
def inputs(tmp_path: Path) -> Iterator[Inputs]:
    """Two models as folders, with a tokenizer beside A."""
    for seed, name in ((1, "a"), (2, "b")):
        (tmp_path / name).mkdir()
        save_file(tensors(seed), tmp_path / name / "model.safetensors")
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(name))
    with open_checkpoint(tmp_path / "a") as a, open_checkpoint(tmp_path / "b") as b:
        yield Inputs(a, b)


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    """Write a probe's module, and say how it is named."""

    def write(source: str, name: str = "own.py", function: str = "f") -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
        return f"{path}:{function}"

    return write


def column(inputs: Inputs, selector: str | None = None, alpha: float = 1.0) -> Column:
    """The column of a selector; B without one."""
    recipe = Recipe(only=selector, alpha=alpha)
    return Column(selector or B, selector, recipe, plan_merge(inputs, recipe))


COLUMN_A = Column(A, None, None, None)


@contextmanager
def opened(text: str, inputs: Inputs, **options: object) -> Iterator[Prober]:
    prober = open_prober(text, inputs, **options)  # type: ignore[arg-type]
    try:
        yield prober
    finally:
        prober.close()


def shown(text: str, inputs: Inputs, *columns: Column, seed: int = 0, **options: object) -> list[Shown]:
    """What each column shows."""
    found = []
    with opened(text, inputs, **options) as prober:
        for each in columns:
            prober.take(each)
            found.append(prober.show(seed))
    return found


def refused(text: str, inputs: Inputs, *columns: Column) -> str:
    """The sentence with which it is refused."""
    with pytest.raises(AnalyzerError) as caught:
        shown(text, inputs, *(columns or (COLUMN_A,)))
    message = str(caught.value)
    assert message.startswith(f"--probe {text}")
    assert "\n" not in message
    return message


def equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Whether both hold the same under the same keys, in one order and of the same dtypes."""
    assert list(one) == list(other)
    return all(one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one)


class Held:
    """A function of state_dict that keeps copies of what it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, probe: Probe) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []
        self.text = probe("def f(state_dict):\n    return keep(state_dict)")
        self._monkeypatch = monkeypatch

    def look(self, inputs: Inputs, *columns: Column) -> list[dict[str, torch.Tensor]]:
        with opened(self.text, inputs) as prober:
            self._monkeypatch.setattr(sys.modules["_probe_own"], "keep", self._keep, raising=False)
            for each in columns:
                prober.take(each)
                prober.show(0)
        return self.seen

    def _keep(self, state: dict[str, torch.Tensor]) -> int:
        self.seen.append({key: tensor.clone() for key, tensor in state.items()})
        return 1


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, probe: Probe) -> Held:
    return Held(monkeypatch, probe)


def in_file(path: Path) -> dict[str, torch.Tensor]:
    """A file's tensors, by the reference library; in the order of A's header."""
    found = load_file(path)
    with open_checkpoint(path.parent) as model:
        return {key: found[key] for key in model.infos}


def test_a_columns_weights_are_those_that_a_merge_writes(inputs: Inputs, held: Held, tmp_path: Path) -> None:
    """Under A's keys, in A's dtypes, bit for bit; A itself is what its file holds."""
    columns = [column(inputs), column(inputs, "self_attn", 0.3), column(inputs, "mlp")]
    seen = held.look(inputs, COLUMN_A, *columns)
    assert equal(in_file(tmp_path / "a" / "model.safetensors"), seen[0])
    for place, each in enumerate(columns, start=1):
        assert each.plan is not None
        assert each.recipe is not None
        out = tmp_path / f"merged{place}"
        merge(inputs, each.plan, each.recipe, out=out)
        assert equal(in_file(out / "model.safetensors"), seen[place])


SELECTORS = (None, "self_attn", "mlp", "L00", "norm", "")


@settings(max_examples=15)
@given(order=st.lists(st.sampled_from(SELECTORS), min_size=2, max_size=6))
def test_the_order_of_the_columns_does_not_matter(
    order: list[str | None], pair_of_folders: Inputs, sums: str
) -> None:
    """Whatever was held before, a column shows what it shows alone; "" stands for A."""
    columns = [COLUMN_A if x == "" else column(pair_of_folders, x) for x in order]
    together = shown(sums, pair_of_folders, *columns)
    for each, found in zip(columns, together, strict=True):
        assert np.array_equal(shown(sums, pair_of_folders, each)[0].output, found.output)


@pytest.fixture(scope="module")
def pair_of_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inputs]:
    root = tmp_path_factory.mktemp("pair")
    for seed, name in ((1, "a.safetensors"), (2, "b.safetensors")):
        save_file(tensors(seed), root / name)
    with open_checkpoint(root / "a.safetensors") as a, open_checkpoint(root / "b.safetensors") as b:
        yield Inputs(a, b)


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("sums") / "sums.py"
    path.write_text(SUMS)
    return f"{path}:f"


def test_a_quantized_model_is_held_as_codes(tmp_path: Path, held: Held) -> None:
    """What a loader gets of a merged file: fp8 codes, and their scales."""
    key = Q0
    for seed, name in ((1, "a"), (2, "b")):
        (tmp_path / name).mkdir()
        codes = tensors(seed)[key].to(torch.float8_e4m3fn)
        save_file({key: codes, f"{key}_scale": torch.tensor(0.5)}, tmp_path / name / "model.safetensors")
    with open_checkpoint(tmp_path / "a") as a, open_checkpoint(tmp_path / "b") as b:
        inputs = Inputs(a, b)
        seen = held.look(inputs, COLUMN_A, column(inputs, alpha=0.5))
        whole = column(inputs, alpha=0.5)
        assert whole.plan is not None
        assert whole.recipe is not None
        merge(inputs, whole.plan, whole.recipe, out=tmp_path / "merged")
    for place, name in enumerate(("a", "merged")):
        wanted = load_file(tmp_path / name / "model.safetensors")
        assert wanted.keys() == seen[place].keys()
        assert torch.equal(wanted[key].view(torch.uint8), seen[place][key].view(torch.uint8))


def test_one_model_is_held_whatever_is_taken(tmp_path: Path, probe: Probe) -> None:
    """Beside A's 16 tensors of 1 MiB there are a few more at a time, not B's as well."""
    one = 1 << 20
    for seed, name in ((1, "a.safetensors"), (2, "b.safetensors")):
        numbers = torch.Generator().manual_seed(seed)
        layers = {f"layers.{i}.weight": torch.randn((one // 4,), generator=numbers) for i in range(16)}
        save_file(layers, tmp_path / name)
    with open_checkpoint(tmp_path / "a.safetensors") as a, open_checkpoint(tmp_path / "b.safetensors") as b:
        inputs = Inputs(a, b)
        whole = column(inputs)
        with opened(probe(SUMS), inputs) as prober:
            prober.take(COLUMN_A)
            tracemalloc.start()
            for each in (whole, COLUMN_A, whole):
                prober.take(each)
            # A's tensors of before the count are gone by now, so all that is held was counted.
            held, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert 16 * one <= held < 17 * one
    assert peak < 22 * one


WHERE = """
from pathlib import Path
from safetensors.torch import load_file

def f(model_dir):
    place = Path(model_dir)
    file = place / "model.safetensors" if place.is_dir() else place
    global seen
    seen = (place, sorted(x.name for x in place.iterdir()) if place.is_dir() else None)
    return [float(x.double().sum()) for _, x in sorted(load_file(file).items())]
"""


def test_a_probe_of_files_gets_a_folder_with_what_lies_beside_as_weights(
    inputs: Inputs, probe: Probe, tmp_path: Path
) -> None:
    """A's own folder for A; for a column a folder like it, with the merged weights, and gone afterwards."""
    text = probe(WHERE)
    mixed = column(inputs, "self_attn")
    with opened(text, inputs) as prober:
        prober.take(COLUMN_A)
        assert np.isfinite(prober.show(0).output).all()
        module = sys.modules["_probe_own"]
        assert (tmp_path / "a", ["model.safetensors", "tokenizer.json"]) == module.seen
        prober.take(mixed)
        found = prober.show(0).output
        folder, names = module.seen
        assert folder.is_relative_to(tempfile.gettempdir())
        assert ["model.safetensors", "tokenizer.json"] == names
        assert '"a"' == (folder / "tokenizer.json").read_text()
        prober.take(column(inputs, "mlp"))
        assert not folder.parent.exists()
        prober.show(0)
        folder, _ = module.seen
    assert not folder.parent.exists()
    assert (tmp_path / "a" / "model.safetensors").is_file()
    merge(inputs, mixed.plan, mixed.recipe, out=tmp_path / "merged")  # type: ignore[arg-type]
    wanted = [
        float(x.double().sum()) for _, x in sorted(in_file(tmp_path / "merged" / "model.safetensors").items())
    ]
    np.testing.assert_array_equal(np.float32(wanted), found)


def test_a_single_file_stays_a_file(pair_of_folders: Inputs, probe: Probe) -> None:
    """Where A is a file, so is what a probe of files is given, under the same name."""
    with opened(probe(WHERE), pair_of_folders) as prober:
        for each in (COLUMN_A, column(pair_of_folders)):
            prober.take(each)
            prober.show(0)
            place, _ = sys.modules["_probe_own"].seen
            assert "a.safetensors" == place.name
            assert (each is COLUMN_A) == (place == pair_of_folders.a.path)


def test_a_torch_file_reaches_a_probe_as_safetensors(tmp_path: Path, probe: Probe) -> None:
    """A itself too: a probe reads one format, and unpickles nothing."""
    for seed, name in ((1, "a.ckpt"), (2, "b.ckpt")):
        torch.save(tensors(seed), tmp_path / name)
    with open_checkpoint(tmp_path / "a.ckpt") as a, open_checkpoint(tmp_path / "b.ckpt") as b:
        found = shown(probe(WHERE), Inputs(a, b), COLUMN_A)[0].output
    wanted = [float(x.double().sum()) for _, x in sorted(tensors(1).items())]
    np.testing.assert_array_equal(np.float32(wanted), found)


def test_state_and_folder_together_give_as_own_folder(
    inputs: Inputs, pair_of_folders: Inputs, probe: Probe
) -> None:
    """Nothing is written: the folder is for a configuration. Of a single file it is the one it lies in."""
    text = probe("def f(state_dict, model_dir):\n    global seen\n    seen = model_dir\n    return 1")
    for pair, wanted in ((inputs, inputs.a.folder), (pair_of_folders, pair_of_folders.a.path.parent)):
        shown(text, pair, COLUMN_A, column(pair))
        assert str(wanted) == sys.modules["_probe_own"].seen


def test_a_function_is_given_what_it_names(inputs: Inputs, probe: Probe) -> None:
    """Prompts, device, dtype and seed, by name; the seed is what is asked for."""
    text = probe(
        "def f(seed, *, prompts, state_dict, dtype, device='x', other=3, **more):\n"
        "    assert not more\n"
        "    return [seed, len(prompts), dtype == 'fp16', device == 'cuda:1', other]"
    )
    found = shown(text, inputs, COLUMN_A, seed=7, prompts=["one", "two"], device="cuda:1", dtype="fp16")[0]
    assert [7, 2, 1, 1, 3] == found.output.tolist()
    assert np.float32 == found.output.dtype
    assert found.pixels is None
    assert found.seconds >= 0
    with opened(text, inputs) as prober:
        assert prober.seeded


def test_a_function_without_seed_is_told_from_one_with(inputs: Inputs, probe: Probe) -> None:
    """Whoever asks has one row then, not one for each seed."""
    with opened(probe(SUMS), inputs) as prober:
        assert not prober.seeded


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("[[1, 2], [3, 4]]", [[1, 2], [3, 4]]),
        ("2.5", 2.5),
        ("np.arange(3, dtype=np.int8)", [0, 1, 2]),
        ("np.array([True, False])", [1, 0]),
        ("torch.ones(2, dtype=torch.bfloat16, requires_grad=True)", [1, 1]),
        ("torch.tensor([1, 2])", [1, 2]),
        ("torch.tensor([0.1], dtype=torch.float64)", [np.float32(0.1)]),
    ],
)
def test_any_array_of_numbers_will_do(inputs: Inputs, probe: Probe, expression: str, wanted: object) -> None:
    """Of NumPy or torch, of any real dtype, or nested lists: it becomes fp32 in its own shape."""
    text = probe(f"import numpy as np, torch\ndef f(state_dict):\n    return {expression}")
    found = shown(text, inputs, COLUMN_A)[0].output
    assert np.float32 == found.dtype
    assert wanted == found.tolist()


def test_what_is_returned_is_copied(inputs: Inputs, probe: Probe) -> None:
    """A function may fill the same array each time."""
    text = probe(
        "import numpy as np\nout = np.zeros(1, np.float32)\n"
        "def f(state_dict):\n    out[0] = state_dict['steps'].item()\n    return out"
    )
    first, second = shown(text, inputs, COLUMN_A, COLUMN_A)
    assert not np.shares_memory(first.output, second.output)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("None", "no array of real numbers (NoneType)"),
        ("'text'", "no array of real numbers (str)"),
        ("{'logits': 1}", "no array of real numbers (dict)"),
        ("[[1], [2, 3]]", "no array"),
        ("np.array([1j])", "no array of real numbers (ndarray)"),
        ("torch.tensor([1j])", "no array of real numbers (Tensor)"),
        ("torch.empty(1, device='meta')", "no array"),
        ("[]", "without a number"),
        ("[1.0, float('nan'), float('inf')]", "2 of 3 values that are NaN, Inf"),
        ("[1e300]", "1 of 1 values that are NaN, Inf or too large for fp32"),
    ],
)
def test_what_is_no_array_of_finite_numbers_is_refused(
    inputs: Inputs, probe: Probe, expression: str, said: str
) -> None:
    """In a sentence that says what came, and what should."""
    assert said in refused(
        probe(f"import numpy as np, torch\ndef f(state_dict):\n    return {expression}"), inputs
    )


def test_another_shape_for_another_model_is_refused(inputs: Inputs, probe: Probe) -> None:
    """Two outputs of different shapes have no difference; another seed may have another shape."""
    text = probe(f"def f(state_dict):\n    return [0.0] * (1 + int(state_dict['{NORM}'] == {NORM_OF_A!r}))")
    message = refused(text, inputs, COLUMN_A, column(inputs))
    assert "returned an array of shape (1,), and (2,) for another model" in message
    text = probe("def f(state_dict, seed):\n    return [0.0] * seed")
    with opened(text, inputs) as prober:
        for seed in (1, 2):
            prober.take(COLUMN_A)
            assert (seed,) == prober.show(seed).output.shape


def test_a_function_that_fails_says_where(inputs: Inputs, probe: Probe) -> None:
    """Its error and the line of its own module; the next model can be shown."""
    text = probe(
        "import json\n"
        "def f(state_dict):\n"
        "    if state_dict['model.norm.weight'] < 1e9 and broken:\n"
        "        json.loads('{')\n"
        "    return 1\n"
        "broken = True"
    )
    assert "JSONDecodeError: " in (message := refused(text, inputs))
    assert message.endswith("(own.py, line 4)")
    assert "SystemExit: 3 (own.py, line 2)" in refused(
        probe("def f(state_dict):\n    raise SystemExit(3)"), inputs
    )


@pytest.mark.parametrize("more", ["", "; 1 / 0"])
def test_weights_that_a_function_changes_in_place_are_read_again(
    inputs: Inputs, probe: Probe, more: str
) -> None:
    """It is refused, also where it fails on its own, and what is shown next is right."""
    lines = (
        "bad = True",
        "def f(state_dict):",
        f"    if bad: state_dict['{EMBEDDING}'].add_(1){more}",
        f"    return state_dict['{EMBEDDING}']",
    )
    with opened(probe("\n".join(lines)), inputs) as prober:
        prober.take(column(inputs, "embed_tokens"))
        with pytest.raises(AnalyzerError, match="division by zero" if more else f"{EMBEDDING}.*in place"):
            prober.show(0)
        sys.modules["_probe_own"].bad = False
        assert np.array_equal(tensors(2)[EMBEDDING].numpy(), prober.show(1).output)


def test_a_function_may_take_things_out_of_its_mapping(inputs: Inputs, probe: Probe) -> None:
    """The mapping is its own, the tensors are not."""
    text = probe("def f(state_dict):\n    n = len(state_dict)\n    state_dict.clear()\n    return n")
    assert [6, 6] == [int(x.output) for x in shown(text, inputs, COLUMN_A, COLUMN_A)]


def test_what_a_probe_prints_does_not_reach_stdout(
    inputs: Inputs, probe: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    """There stands what the program itself prints, which may be JSON."""
    text = probe("print('imported')\ndef f(state_dict):\n    print('asked')\n    return 1")
    shown(text, inputs, COLUMN_A)
    captured = capsys.readouterr()
    assert ("", "imported\nasked\n") == (captured.out, captured.err)


def test_a_module_of_the_working_directory(
    inputs: Inputs, probe: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name, in a package too, with its neighbours; sys.path is as before."""
    probe("VALUE = 5", "neighbour_of_probe.py")
    probe("", "package_of_probe/__init__.py")
    probe(
        "def f(state_dict):\n    from neighbour_of_probe import VALUE\n    return VALUE",
        "package_of_probe/inner.py",
    )
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    try:
        assert 5 == int(shown("package_of_probe.inner:f", inputs, COLUMN_A)[0].output)
    finally:
        for name in [x for x in sys.modules if x.endswith("_of_probe") or "_of_probe." in x]:
            del sys.modules[name]
    assert before == sys.path


def test_a_file_named_like_a_module_of_python_replaces_none(inputs: Inputs, probe: Probe) -> None:
    """json.py as a probe is no other module's json."""
    text = probe("def f(state_dict):\n    return 1", "json.py")
    shown(text, inputs, COLUMN_A)
    assert json is sys.modules["json"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("causal_lmm", "did you mean causal_lm?"),
        ("nothing", "write MODULE:FUNCTION or FILE.py:FUNCTION, or name one that ships: causal_lm"),
        ("module:", "write MODULE:FUNCTION"),
        (":function", "write MODULE:FUNCTION"),
        ("no such.module:f", "'no such.module' is no module's name"),
        (".relative:f", "is no module's name"),
        (
            "no_such_module_anywhere:f",
            "no module 'no_such_module_anywhere', neither in the working directory",
        ),
        ("json.no_such_part:f", "no module 'json.no_such_part'"),
        ("missing.py:f", "there is no file missing.py"),
        ("json:dumpz", "has no function 'dumpz' (did you mean dump"),
        ("string:digits", "is no function"),
        ("json:loads", "takes s, which no probe is given; by name it may take state_dict, model_dir"),
        ("time:slep", "time has no function 'slep' (did you mean sleep?)"),
    ],
)
def test_a_name_that_leads_to_no_probe(inputs: Inputs, text: str, said: str) -> None:
    """One sentence, before anything is read of the models."""
    assert said in refused(text, inputs)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def f(:", "importing it failed: SyntaxError: "),
        (
            "x = 1\nx.y",
            "importing it failed: AttributeError: 'int' object has no attribute 'y' (own.py, line 2)",
        ),
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("raise SystemExit", "importing it failed: SystemExit (own.py, line 1)"),
        ("def f(state_dict):\n    return 1\nf.__signature__ = 1", "does not say what it takes"),
        ("def f(prompts):\n    return 1", "takes neither state_dict nor model_dir"),
        ("def f(state_dict, /):\n    return 1", "takes state_dict, which no probe is given"),
        ("def f(state_dict, weights):\n    return 1", "takes weights, which no probe is given"),
    ],
)
def test_a_module_that_holds_no_probe(inputs: Inputs, probe: Probe, source: str, said: str) -> None:
    """One sentence, with the line of the module where there is one."""
    assert said in refused(probe(source), inputs)


def test_a_missing_module_of_a_module_is_no_missing_probe(
    probe: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what is missing, and where it was looked for."""
    probe("import no_such_module_anywhere", "broken_own_probe.py")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        AnalyzerError, match=r"importing broken_own_probe failed: .*\(broken_own_probe\.py, line 1\)"
    ):
        find_probe("broken_own_probe:f")


def test_the_identity_is_that_of_the_question(inputs: Inputs, probe: Probe) -> None:
    """Another text of the module or another prompt is another probe; what it does not take is no matter."""
    source = "def f(state_dict, prompts):\n    return 1"

    def identity(source: str, **options: object) -> str:
        with opened(probe(source), inputs, **options) as prober:
            before = prober.identity
            prober.take(COLUMN_A)
            assert before == prober.identity
            return before

    first = identity(source)
    assert first == identity(source, device="cuda:0", dtype="bf16")
    others = {identity(source, prompts=["one"]), identity(f"{source} + 1"), identity(source, prompts=["two"])}
    assert 3 == len(others - {first})


def test_the_identity_is_also_that_of_the_files_beside(inputs: Inputs, probe: Probe, tmp_path: Path) -> None:
    """Another tokenizer makes other outputs, where a probe can read it."""
    found = []
    for content in ("one", "another one"):
        (tmp_path / "a" / "tokenizer.json").write_text(content)
        for name in ("model_dir", "state_dict"):
            with opened(probe(f"def f({name}):\n    return 1", f"{name}.py"), inputs) as prober:
                found.append(prober.identity)
    assert found[0] != found[2]
    assert found[1] == found[3]
