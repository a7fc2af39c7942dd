"""`mergescope inspect`, and rules of a user's own, from the command line down."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from analyzer.categories import categorize
from analyzer.categories.rulefiles import MAX_BYTES
from analyzer.checkpoints import open_checkpoint
from analyzer.cli import options
from analyzer.inspection import inspect_model
from analyzer.selectors import select

sys.path.append(str(Path(__file__).resolve().parent / "layouts"))
import layouts

Run = Callable[..., Any]
Write = Callable[..., Path]

MODELS = ("sd15-ldm-ema", "sdxl-vpred", "qwen3-8b", "gpt2", "t5-base")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small models with real names."""
    folder = tmp_path_factory.mktemp("models")
    return {name: layouts.write(name, folder / f"{name}.safetensors") for name in MODELS}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's configuration lies in the test's folder, and is empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(click, "get_app_dir", lambda name: str(tmp_path / "config" / name))
    return options.rules_folder()


def inspected(run: Run, *arguments: object) -> dict[str, Any]:
    result = run("inspect", *arguments, "--json")
    assert (0, "") == (result.code, result.err)
    document: dict[str, Any] = json.loads(result.out)
    return document


def refused(run: Run, *arguments: object) -> str:
    """The one line that the command says before it fails, without a traceback."""
    result = run(*arguments)
    assert (1, "") == (result.code, result.out)
    assert result.err.startswith("Error: ")
    assert 1 == result.err.count("\n") == result.err.count("Error")
    return result.err


# --- What it shows ---


@pytest.mark.parametrize("name", MODELS)
def test_sums_of_all_views_are_those_of_the_file(run: Run, models: dict[str, Path], name: str) -> None:
    """Parts, dtypes, blocks and components each hold every key once; EMA copies are in no component."""
    found = inspected(run, models[name])
    with open_checkpoint(models[name]) as checkpoint:
        infos = list(checkpoint.infos.values())
        expected = (checkpoint.fingerprint(), checkpoint.bytes, len(infos), sum(i.numel for i in infos))
    assert expected == tuple(found[field] for field in ("fingerprint", "bytes", "keys", "elements"))
    ema = found["ema"] or {"keys": 0, "elements": 0, "bytes": 0, "dtypes": {}}
    for view, extra in (("parts", {}), ("dtypes", {}), ("blocks", ema), ("components", ema)):
        for field, total in (
            ("keys", len(infos)),
            ("elements", sum(i.numel for i in infos)),
            ("bytes", sum(i.nbytes for i in infos)),
        ):
            assert total == sum(row[field] for row in found[view]) + extra.get(field, 0), (view, field)
        dtypes = Counter(extra.get("dtypes", {}))
        for row in found[view]:
            dtypes.update(row["dtypes"])
        wanted: Counter[str] = Counter()
        for info in infos:
            wanted[info.dtype] += info.numel
        assert +wanted == +dtypes
    assert "ema" not in {row["component"] for row in found["components"]}


@pytest.mark.parametrize("name", MODELS)
def test_groups_are_those_of_the_labels(run: Run, models: dict[str, Path], name: str) -> None:
    """Counted again from the labels; blocks in network order, components by size."""
    found = inspected(run, models[name])
    with open_checkpoint(models[name]) as checkpoint:
        infos = list(checkpoint.infos.values())
    known = categorize(infos)
    live = [info for info in infos if known.labels[info.key].part != "ema"]
    for view, axis, among in (
        ("parts", "part", infos),
        ("components", "group", live),
        ("blocks", "block", live),
    ):
        name_of = view.removesuffix("s")
        wanted = Counter(getattr(known.labels[info.key], axis) for info in among)
        assert wanted == {row[name_of]: row["keys"] for row in found[view] if row["keys"]}
    sizes = [row["elements"] for row in found["components"]]
    assert sorted(sizes, reverse=True) == sizes
    order = [row["block"] for row in found["blocks"]]
    assert list(known.blocks) == order[: len(known.blocks)]
    assert order == list(dict.fromkeys(order))
    uncounted = [i for i in live if not known.labels[i.key].counted]
    assert len(uncounted) == (found["uncounted"] or {"keys": 0})["keys"]


@pytest.mark.parametrize("name", MODELS)
def test_the_text_says_what_the_json_says(run: Run, models: dict[str, Path], name: str) -> None:
    """Title, container, parts with their numbers, blocks, the largest components, every oddity."""
    found, text = inspected(run, models[name]), run("inspect", models[name]).out
    lines = text.splitlines()
    assert lines[0].startswith(str(models[name]))
    assert lines[0].endswith(found["title"])
    assert lines[1].startswith(f"{found['container']}, {found['keys']:,} keys, ")
    said = re.sub(r"\s+", " ", text)
    for oddity in found["oddities"]:
        assert oddity in said
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    for part in found["parts"]:
        assert f"{part['keys']:,}" == rows[part["part"]][0]
        assert part["title"] in next(line for line in lines if line.startswith(part["part"] + " "))
    blocks = dict(
        re.findall(r"\b([A-Z]+[0-9]*) +([0-9.]+[kMG]?)(?= |$)", text[text.index("blocks\n") :], re.M)
    )
    assert {row["block"] for row in found["blocks"] if row["keys"]} == set(blocks)
    for component in found["components"][:24]:
        short = component["component"].rsplit("/", 1)[-1]
        assert any(
            short in line.split()[0] and f" {component['keys']:,} " in line for line in lines if line.strip()
        )
    if len(found["components"]) > 24:
        assert f"and {len(found['components']) - 24} more: --json lists all" in lines


def test_blocks_without_a_key_are_named(run: Run, tmp_path: Path) -> None:
    """A pruned model: what is missing is said, not left out."""
    infos = [i for i in layouts.infos("sd15-ldm", scale=True) if ".input_blocks.7." not in i.key]
    save_file({i.key: torch.zeros(i.shape) for i in infos}, tmp_path / "m.safetensors")
    assert "without keys: IN07\n" in run("inspect", tmp_path / "m.safetensors").out
    blocks = {row["block"]: row["keys"] for row in inspected(run, tmp_path / "m.safetensors")["blocks"]}
    assert 0 == blocks["IN07"] < blocks["IN08"]


def test_metadata_and_container_are_told(run: Run, write: Write, tmp_path: Path) -> None:
    """What the file says of itself, and what kind of file it is."""
    path = write("m.safetensors", {"a.weight": np.zeros(2, np.float32)}, {"format": "pt", "ss_tag": "x"})
    found = inspected(run, path)
    assert ("safetensors", 1, {"format": "pt", "ss_tag": "x"}) == (
        *(found["container"], found["files"], found["metadata"]),
    )
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "m.ckpt")
    assert "torch" == inspected(run, tmp_path / "m.ckpt")["container"]


def test_a_folder_is_inspected_as_one_model(run: Run, tmp_path: Path) -> None:
    """A diffusers folder: each sub-model is a part."""
    for name, layout in (("unet", "sd15-unet-diffusers"), ("vae", "vae-diffusers")):
        (tmp_path / "m" / name).mkdir(parents=True)
        layouts.write(layout, tmp_path / "m" / name / "diffusion_pytorch_model.safetensors")
    found = inspected(run, tmp_path / "m")
    assert ("diffusers", 2, "sd1") == (found["container"], found["files"], found["architecture"])
    assert {"unet", "vae"} == {part["part"] for part in found["parts"]}
    assert "2 files, " in run("inspect", tmp_path / "m").out


@pytest.mark.parametrize("deep", [False, True])
def test_deep_reads_the_values(run: Run, tmp_path: Path, deep: bool) -> None:
    """Without it they are not looked at, and `nonfinite` is null and not zero."""
    save_file({"a": torch.tensor([1.0, float("nan")]), "b": torch.zeros(3)}, tmp_path / "m.safetensors")
    found = inspected(run, tmp_path / "m.safetensors", *(["--deep", "--threads", "2"] if deep else []))
    assert ({"a": 1} if deep else None) == found["nonfinite"]
    assert (["1 values are NaN or Inf, in a"] if deep else []) == found["oddities"]


# --- On terminals ---


@pytest.mark.parametrize("width", [120, 80, 60, 40])
@pytest.mark.parametrize("name", [*MODELS, "long"])
def test_no_number_is_cut(
    run: Run, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, width: int
) -> None:
    """Tables fit the terminal; a narrow one has fewer columns, and names give way before numbers."""
    path = models.get(name) or _long_names(tmp_path)
    monkeypatch.setenv("COLUMNS", str(width))
    lines = run("inspect", path).out.splitlines()
    for line in lines[2:]:
        assert len(line) <= width
    for heading in ("part", "component"):
        start = next(i for i, line in enumerate(lines) if line.startswith(heading))
        columns = lines[start].split()[1:]
        assert columns == ["keys", "elements", "size", "dtypes", "architecture"][: len(columns)]
        assert len(columns) >= 2
        for line in lines[start + 1 :]:
            if not line.strip() or line.startswith("and "):
                break
            words = line.split()
            assert re.fullmatch(r"[0-9,]+", words[1])
            assert re.fullmatch(r"[0-9.]+[kMG]?", words[2])
            if "size" in columns:
                assert re.search(r"[0-9.]+ (bytes|kB|MB|GB)\b", line)


def _long_names(folder: Path) -> Path:
    dtypes = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float32)
    tensors = {
        f"blocks.{n}.a_name_that_takes_a_whole_line_of_a_small_terminal_{n}.{m}.weight": torch.zeros(
            99, 3
        ).to(t)
        for n in range(30)
        for m, t in enumerate(dtypes)
    }
    save_file(tensors, folder / "m.safetensors")
    return folder / "m.safetensors"


def test_hostile_names_do_not_reach_the_terminal(run: Run, write: Write) -> None:
    """Escape sequences in keys are spelled out everywhere."""
    path = write("m.safetensors", {"evil\x1b[31m\x07.weight": np.full(4, np.nan, np.float32)})
    for arguments in ([], ["--deep"], ["--only", "key:*"]):
        result = run("inspect", path, *arguments)
        assert 0 == result.code
        assert not set("\x1b\x07") & set(result.out + result.err)
    assert r"evil\x1b[31m" in run("inspect", path, "--only", "key:*").out


# --- With a selector ---

SELECTORS = {
    "sd15-ldm-ema": [
        "attn2,weight",
        "OUT03..OUT08,!bias",
        "part:ema",
        "CLIP",
        "VAE",
        "schedule",
        "key:*.to_k.*",
    ],
    "sdxl-vpred": ["marker", "text_encoder_2", "IN04", "!attn1"],
    "qwen3-8b": ["self_attn/q_proj", "L03..L05,mlp", "BASE"],
    "gpt2": ["attn", "kind:other,key:*"],
    "t5-base": ["ENC00", "SelfAttention"],
}


@cache
def whole(path: Path) -> tuple[list[Any], tuple[str, ...], Any]:
    """A row for every key of a model, its blocks in order, and its tensors."""
    with open_checkpoint(path) as checkpoint:
        every = inspect_model(checkpoint, only="key:*").selected
        assert every is not None
        return list(every), categorize(checkpoint.infos.values()).blocks, checkpoint.infos


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, many in SELECTORS.items() for text in many]
)
def test_only_shows_what_a_selector_hits(run: Run, models: dict[str, Path], name: str, text: str) -> None:
    """Key by key, with labels, type and shape, in the file's order; the rest of the report is the whole's."""
    every, blocks, infos = whole(models[name])
    expected = select(text, rows=every, blocks=blocks)
    found = inspected(run, models[name], "--only", text)
    assert [row.key for row in expected] == [row["key"] for row in found["selected"]]
    for row, wanted in zip(found["selected"], expected, strict=True):
        assert (*_axes(wanted), infos[wanted.key].dtype, list(infos[wanted.key].shape)) == (
            *(row[axis] for axis in ("part", "block", "component", "kind", "counted")),
            *(row["dtype"], row["shape"]),
        )
    assert len(infos) == found["keys"]
    lines = run("inspect", models[name], "--only", text).out.splitlines()
    assert [row.key for row in expected] == [line.split("  ")[0] for line in lines[:-1]]
    assert f"{len(expected):,} of {len(infos):,} keys" == lines[-1]


def _axes(row: Any) -> Iterator[object]:
    return (getattr(row.labels, axis) for axis in ("part", "block", "component", "kind", "counted"))


def test_a_line_of_a_selection(run: Run, write: Write) -> None:
    """Name, labels, type, shape; a scalar has none."""
    path = write("m.safetensors", {"a.b.weight": np.zeros((2, 3), np.float16), "s": np.array(1, np.float32)})
    out = run("inspect", path, "--only", "key:*").out
    assert "a.b.weight  other BASE a/b weight  F16 2×3\n" in out
    assert re.search(r"^s  other BASE s weight  F32 scalar$", out, re.M)


# --- What is wrong ---


def _nothing(_path: Path) -> None: ...


def _holding(content: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_text(content)

    return make


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("none.safetensors", _nothing, "no such file; check the spelling"),
        ("m.safetensors", _holding(""), "is empty; download it again"),
        ("m.safetensors", _holding("<html>"), "is a web page and not a model"),
        ("m.ckpt", _holding("abc"), "is a text file and not a model"),
        ("folder", lambda path: path.mkdir(), "is a folder without a model"),
    ],
)
def test_files_that_cannot_be_inspected(
    run: Run, tmp_path: Path, name: str, make: Callable[[Path], None], words: str
) -> None:
    """One sentence: which file, what is wrong, what to do."""
    make(tmp_path / name)
    message = refused(run, "inspect", tmp_path / name)
    assert words in message
    assert str(tmp_path) in message


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        ("", "the selector is empty"),
        ("attn3", "unknown selector term 'attn3': nearest are attn"),
        ("OUT08..OUT03", "runs against the network's order: write 'OUT03..OUT08'"),
        ("axis:x", "unknown axis 'axis'"),
        ("vae,OUT03", "hits none of the"),
        ("key:nothing*", "no key matches the selector term"),
    ],
)
def test_selectors_that_cannot_be_used(run: Run, models: dict[str, Path], selector: str, words: str) -> None:
    """One sentence with the nearest names."""
    assert words in refused(run, "inspect", models["sd15-ldm-ema"], "--only", selector)


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    """`deep` finds it out."""
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(5000)}, path)
    with open_checkpoint(path) as checkpoint:
        path.write_bytes(path.read_bytes()[:9000])
        with pytest.raises(Exception, match="ended early"):
            inspect_model(checkpoint, deep=True)


@pytest.mark.parametrize("option", [["--device", "tpu"], ["--device", "cuda:99"]])
def test_devices_that_are_not_there(run: Run, models: dict[str, Path], option: list[str]) -> None:
    """The option is checked although a look at a model computes nothing."""
    assert option[1].partition(":")[0] in refused(run, "inspect", models["gpt2"], *option)


# --- Rules of the user's own ---

OWN = """
name = "bricks"
title = "Bricks"
part = "transformer"
blocks = ["L.."]

[[require]]
keys = ["wall.#.brick.*"]

[places.layer]
at = ["wall.{n:#}"]
block = "L{n:02}"

[[rule]]
places = ["layer"]
key = "brick.*"
component = "masonry/brick"
"""


@pytest.fixture
def walls(write: Write) -> tuple[Path, Path]:
    """Two models of an architecture that nobody else has."""
    rng = np.random.default_rng(5)

    def build(name: str) -> Path:
        keys = [f"wall.{n}.brick.{kind}" for n in range(3) for kind in ("weight", "bias")]
        return write(name, {key: rng.standard_normal((4, 4)).astype(np.float32) for key in keys})

    return build("a.safetensors"), build("b.safetensors")


def own_file(folder: Path, text: str = OWN, name: str = "own.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("way", ["--rules", "folder"])
def test_own_rules_hold_in_every_command(
    run: Run, walls: tuple[Path, Path], tmp_path: Path, own_folder: Path, way: str
) -> None:
    """inspect, scan and merge know the blocks and components that a file of the user's names."""
    path = own_file(own_folder if way == "folder" else tmp_path / "x")
    use = ["--rules", path] if way == "--rules" else []
    found = inspected(run, walls[0], *use)
    assert ("bricks", "Bricks") == (found["architecture"], found["title"])
    assert ["L00", "L01", "L02"] == [row["block"] for row in found["blocks"]]
    assert [("masonry", 6)] == [(row["component"], row["keys"]) for row in found["components"]]
    assert 0 == sum(part["unknown"] for part in found["parts"])

    scan = tmp_path / "s.json"
    assert 0 == run("scan", *walls, "-o", scan, *use).code
    keys = json.loads(scan.read_text())["keys"]
    assert {("L01", "masonry/brick")} == {(k["block"], k["component"]) for k in keys if ".1." in k["key"]}

    out = tmp_path / "o.safetensors"
    assert 0 == run("merge", *walls, "-o", out, "--only", "L01,masonry", "--alpha", 1, *use).code
    with open_checkpoint(out) as merged, open_checkpoint(walls[0]) as a, open_checkpoint(walls[1]) as b:
        for key, info in merged.infos.items():
            source = b if key.startswith("wall.1.") else a
            buffers = [np.empty(info.nbytes, np.uint8) for _ in range(2)]
            merged.read_into(info, 0, buffers[0])
            source.read_into(source.infos[key], 0, buffers[1])
            assert buffers[0].tobytes() == buffers[1].tobytes()


def test_without_them_the_model_is_unknown(run: Run, walls: tuple[Path, Path]) -> None:
    """What the two tests above owe to the file."""
    assert "generic" == inspected(run, walls[0])["architecture"]
    assert "unknown selector term 'masonry'" in refused(run, "inspect", walls[0], "--only", "masonry")


def test_own_rules_replace_those_of_the_same_name(
    run: Run, models: dict[str, Path], own_folder: Path
) -> None:
    """A GPT-2 with other names for its components."""
    before = inspected(run, models["gpt2"])
    text = OWN.replace('"bricks"', '"gpt2"').replace("wall.#.brick.*", "h.#.attn.c_attn.*")
    text = text.replace('at = ["wall.{n:#}"]', 'at = ["h.{n:#}", "transformer.h.{n:#}"]').replace(
        "brick.*", "**"
    )
    own_file(own_folder, text)
    found = inspected(run, models["gpt2"])
    assert ("gpt2", "gpt2", "Bricks") == (before["architecture"], found["architecture"], found["title"])
    assert "masonry" in {row["component"] for row in found["components"]}
    assert inspected(run, models["qwen3-8b"])["architecture"].startswith("qwen3")


BAD = {
    "a group too deep": (OWN + "group = 9\n", "rule 1: group = 9 is not within 1 … the segments of"),
    "an unknown place": (
        OWN.replace('["layer"]', '["floor"]'),
        "rule 1: there is no place 'floor', only layer",
    ),
    "no TOML": ("name = ", "the rules are not valid TOML: Invalid value (at "),
    "no rules": ('name = "a"\ntitle = "A"\n', "the file: has no [[rule]]"),
    "extends itself": (OWN.replace("blocks", 'extends = ["bricks"]\nblocks'), "extends 'bricks'; there are "),
    "extends nothing known": (OWN.replace("blocks", 'extends = ["x"]\nblocks'), "extends 'x'; there are "),
    "too large": ("#" * (MAX_BYTES + 1), f"has more than {MAX_BYTES} bytes, so it is no file of rules"),
    "another encoding": ("name = \udcff", "cannot read the rules ('utf-8' codec can't decode"),
}


@pytest.mark.parametrize("command", ["inspect", "scan", "merge"])
@pytest.mark.parametrize(("text", "reason"), BAD.values(), ids=BAD)
def test_bad_rules_are_refused_by_every_command(
    run: Run, walls: tuple[Path, Path], tmp_path: Path, own_folder: Path, text: str, reason: str, command: str
) -> None:
    """One sentence with file, rule and reason, from --rules or from the folder; nothing is written."""
    out = tmp_path / "o.safetensors"
    arguments = {
        "inspect": ["inspect", walls[0]],
        "scan": ["scan", *walls],
        "merge": ["merge", *walls, "-o", out, "--alpha", 0.5],
    }[command]
    path = tmp_path / "x" / "own.toml"
    path.parent.mkdir()
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    message = refused(run, *arguments, "--rules", path)
    assert message.startswith(f"Error: {path}: ")
    assert reason in message
    own_folder.mkdir(parents=True)
    path.rename(own_folder / "own.toml")
    message = refused(run, *arguments)
    assert message.startswith(f"Error: {own_folder / 'own.toml'}: ")
    assert reason in message
    assert not out.exists()


def test_rules_that_are_no_file(run: Run, walls: tuple[Path, Path], tmp_path: Path) -> None:
    """A folder, and nothing at all."""
    assert "is no regular file; give a TOML file" in refused(run, "inspect", walls[0], "--rules", tmp_path)
    assert "No such file" in refused(run, "inspect", walls[0], "--rules", tmp_path / "none.toml")


def test_rules_that_fit_nothing_are_a_mistake(
    run: Run, models: dict[str, Path], tmp_path: Path, own_folder: Path
) -> None:
    """If they were named for this model; in the folder they wait for theirs."""
    path = own_file(tmp_path / "x")
    message = refused(run, "inspect", models["gpt2"], "--rules", path)
    assert (
        f"{path}: these rules fit no network of {models['gpt2']}: every [[require]] must find one" in message
    )
    own_file(own_folder)
    assert "gpt2" == inspected(run, models["gpt2"])["architecture"]


def test_the_folder_is_where_programs_keep_their_configuration(own_folder: Path, tmp_path: Path) -> None:
    """`mergescope/architectures` below the user's configuration; the help of --rules names it."""
    assert tmp_path / "config" / "mergescope" / "architectures" == own_folder


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As click finds it on Linux; on other systems their own places."""
    monkeypatch.undo()
    if sys.platform != "linux":
        pytest.skip("XDG_CONFIG_HOME is Linux's")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert tmp_path / "mergescope" / "architectures" == options.rules_folder()


def test_a_merged_model_tells_of_its_parents(run: Run, models: dict[str, Path], tmp_path: Path) -> None:
    """A line for the merge, below the head, and none in models that were not merged."""
    a, out = models["gpt2"], tmp_path / "merged.safetensors"
    assert 0 == run("merge", a, a, "-o", out, "--alpha", "0.25").code
    line = "merged from gpt2.safetensors (0.75) and gpt2.safetensors (0.25) by weighted_sum"
    assert [line] == inspected(run, out)["history"]
    assert line in run("inspect", out).out.splitlines()
    assert [] == inspected(run, a)["history"]
