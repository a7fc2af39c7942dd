"""Block weights: how they are read, presets of one's own among them, and what alpha each block has of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.blocks import presets
from analyzer.blocks.preset_files import MAX_BYTES, read_presets
from analyzer.blocks.weights import alphas_by_block, interpolate, parse
from analyzer.cli.presets import curve
from analyzer.cli.presets import presets as command
from analyzer.errors import RecipeError

SD = (*(f"IN{n:02}" for n in range(12)), "M00", *(f"OUT{n:02}" for n in range(12)))
SDXL = (*(f"IN{n:02}" for n in range(9)), "M00", *(f"OUT{n:02}" for n in range(9)))
CASCADE = ("IN00", "IN01", "OUT00", "OUT01")
LAYERS = tuple(f"L{n:02}" for n in range(32))
FLUX = (*(f"D{n:02}" for n in range(19)), *(f"S{n:02}" for n in range(38)))
T5 = (*(f"ENC{n:02}" for n in range(12)), *(f"DEC{n:02}" for n in range(12)))

NUMBERS = st.lists(st.floats(-2, 2), min_size=1, max_size=40)

Write = Callable[[str], Path]


@pytest.fixture
def tsv(tmp_path: Path) -> Write:
    """Write a text as a file of presets."""

    def write(text: str) -> Path:
        path = tmp_path / "mine.tsv"
        path.write_bytes(text.encode())
        return path

    return write


@pytest.fixture
def toml(tmp_path: Path) -> Write:
    """Write a text as a TOML file of presets."""

    def write(text: str) -> Path:
        path = tmp_path / "mine.toml"
        path.write_bytes(text.encode())
        return path

    return write


# What a user writes.


@given(NUMBERS)
def test_numbers_with_commas(numbers: list[float]) -> None:
    """Commas, with or without blanks, or blanks alone; values as written."""
    words = [repr(number) for number in numbers]
    assert tuple(numbers) == parse(",".join(words)) == parse(" , ".join(words)) == parse("  ".join(words))


@pytest.mark.parametrize("text", ["0,1.,.5,1e-3,+2,-0.5", "0 1. .5\t1E-3,+2 , -0.5\n"])
def test_ways_to_write_a_number(text: str) -> None:
    """As other tools write them; beyond 0 … 1 too, which the plan warns of."""
    assert (0.0, 1.0, 0.5, 0.001, 2.0, -0.5) == parse(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0,,1", "number 2 is ''"), ("0,half,1", "number 2 is 'half'"), ("0,nan", "number 2 is 'nan'"),
        ("1,inf", "number 2 is 'inf'"), ("1e999", "number 1 is 1e999, which is not finite"),
        (",", "number 1 is ''"), (" ", "number 1 is ''"), ("1_0,1", "number 1 is '1_0'"),
        ("١,1", "number 1 is '١'"), ("0.5.5", "number 1 is '0.5.5'"), ("WRAP8", "nearest are WRAP"),
        ("NO_SUCH_PRESET_AT_ALL", "neither a preset"), ("", "neither a preset"),
        ("a\0b", "neither a preset"), ("x" * 5000, "neither a preset"),
        ("1" * 60_000 + "-", "number 1 is '1111"),
    ],
)  # fmt: skip
def test_what_is_neither_preset_nor_numbers(text: str, told: str) -> None:
    """One sentence that says which number is wrong, or which presets have such a name."""
    with pytest.raises(RecipeError) as caught:
        parse(text)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 800


@settings(max_examples=300)
@given(st.text(max_size=40))
def test_any_text_is_weights_or_one_error(text: str) -> None:
    """Nothing but RecipeError is raised."""
    try:
        weights = parse(text)
    except RecipeError as error:
        assert str(error)
    else:
        assert isinstance(weights, str) or all(isinstance(weight, float) for weight in weights)


def test_a_preset_is_its_name() -> None:
    """In one spelling, whatever the user's; its numbers depend on the model."""
    assert "REVERSE-SMOOTHSTEP" == parse("reverse_smoothstep")
    assert "SMOOTHSTEP/2" == parse(" smoothstep/2 ")


def test_a_presets_name_comes_before_a_file_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And numbers come before a file too; a path makes a file of it."""
    monkeypatch.chdir(tmp_path)
    for name in ("ALL_B", "1", "plain"):
        Path(name).write_text("0.25 0.75")
    assert "ALL_B" == parse("ALL_B")
    assert (1.0,) == parse("1")
    assert (0.25, 0.75) == parse("./ALL_B") == parse("./1") == parse("plain")


def test_numbers_from_a_file(tmp_path: Path) -> None:
    """Commas, blanks or lines; as Windows writes files too; a comma in the file's name does not matter."""
    file = tmp_path / "a, b.txt"
    file.write_bytes(b"\xef\xbb\xbf0, 0.5\r\n1\r\n")
    assert (0.0, 0.5, 1.0) == parse(str(file))
    file.write_text("0, half")
    with pytest.raises(RecipeError, match="number 2 is 'half'"):
        parse(str(file))
    file.write_text("MY_PRESET\t0,1")
    with pytest.raises(RecipeError, match="a file of presets is for --presets"):
        parse(str(file))


@pytest.mark.parametrize("content", [b"\xff\xfe0", b"0," * 40_000])
def test_a_file_that_holds_no_numbers(tmp_path: Path, content: bytes) -> None:
    """Not UTF-8, or longer than weights can be."""
    file = tmp_path / "weights"
    file.write_bytes(content)
    with pytest.raises(RecipeError, match="nor a readable file of numbers"):
        parse(str(file))


def test_a_folder_and_a_device_are_no_files(tmp_path: Path) -> None:
    """What has no end is not read."""
    for path in (tmp_path, Path("/dev/zero")):
        with pytest.raises(RecipeError, match="nor a readable file of numbers"):
            parse(str(path))


def test_presets_of_a_user() -> None:
    """By name like those that ship, and before them; their names are offered too."""
    user = {"My-Preset": (0.1, 0.2), "GRAD_V": (0.0, 1.0, 0.0)}
    assert (0.1, 0.2) == parse("my_preset", user=user)
    assert (0.0, 1.0, 0.0) == parse("grad-v", user=user)
    assert "GRAD_A" == parse("GRAD_A", user=user)
    with pytest.raises(RecipeError, match="nearest are My-Preset"):
        parse("my_pressed", user=user)


@pytest.mark.parametrize("base", [(), (0.0,)])
def test_a_published_table_is_the_preset_that_ships(base: tuple[float, ...]) -> None:
    """Of 25 numbers, or 26 with a BASE of 0: a copy of its table must not keep WRAP08 from fitting SDXL."""
    table = tuple(round(alpha, 10) for alpha in presets.weights("GRAD_V", 25))
    assert "GRAD_V" == parse("GRAD_V", user={"grad_v": base + table})
    other = (1.0, *table)
    assert other == parse("GRAD_V", user={"grad_v": other})


# Files of presets.


def test_a_file_of_the_merge_block_weighted_extension(tsv: Write) -> None:
    """With its heading, a comment, an empty line, and a line that stands twice."""
    text = "preset_name\tpreset_weights\n# mine\nA_1\t0,0.5,1.\n\nB 2\t1,0\nA_1\t0,0.5,1\n"
    assert {"A_1": (0.0, 0.5, 1.0), "B 2": (1.0, 0.0)} == read_presets(tsv(text))


def test_a_file_of_supermerger(tsv: Write) -> None:
    """26 numbers, BASE first, behind a tab or a colon; with quotes, a BOM or lines of Windows."""
    row = ",".join(["0.5", *["1"] * 25])
    text = f'\ufeffNEW\t{row}\r\nOLD:{row}\r\nQUOTED\t"{row}"\r\n'
    assert dict.fromkeys(("NEW", "OLD", "QUOTED"), (0.5, *(1.0,) * 25)) == read_presets(tsv(text))


def test_a_toml_file_of_presets(toml: Write) -> None:
    """Integers and floats, on one line or more; names that are no bare words in quotes."""
    text = 'MINE = [0, 0.5, 1]\n"SMOOTH*9" = [\n  1,\n  -2.5e-1,\n]\n'
    assert {"MINE": (0.0, 0.5, 1.0), "SMOOTH*9": (1.0, -0.25)} == read_presets(toml(text))


NAMES = (
    st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ*/_ ", min_size=1, max_size=20)
    .map(str.strip)
    .filter(lambda name: name.strip("E _") != "")
)


@given(st.dictionaries(NAMES, NUMBERS, min_size=1, max_size=5))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, known: dict[str, list[float]]
) -> None:
    """Both formats give the same names, in their order, and the same numbers."""
    wanted = {name: tuple(numbers) for name, numbers in known.items()}
    folder = tmp_path_factory.mktemp("presets")
    rows, table = folder / "p.txt", folder / "p.TOML"
    rows.write_text("".join(f"{name}\t{','.join(map(repr, n))}\n" for name, n in wanted.items()))
    table.write_text("".join(f"{json.dumps(name)} = {list(n)!r}\n" for name, n in wanted.items()))
    assert list(wanted.items()) == list(read_presets(rows).items()) == list(read_presets(table).items())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no preset"),
        ("preset_name\tpreset_weights\n", "holds no preset"),
        ("A\t0,1\nB\t0,x\n", "line 2: B: number 2 is 'x'"),
        ("A\t0,1\nB\n", "line 2: B has no numbers behind it"),
        ("A\t", "line 1: A has no numbers behind it"),
        ("A 0,1", "line 1: A 0,1 has no numbers behind it"),
        ("\t0,1", "line 1: '' is no name"),
        ("0,0.5,1", "line 1: begins with a number"),
        ("0.5\t1,1", "line 1: begins with a number"),
        ("x" * 101 + "\t1", "is no name of 1 to 100"),
        ("A\x1b[2J\t1", "is no name"),
        ("A\t1,1e999", "line 1: A: number 2 is 1e999, which is not finite"),
        ("A\t1,nan", "line 1: A: number 2 is 'nan'"),
        ("A-1\t0,1\na_1\t0,0\n", "line 2: a_1 stands there before, with other numbers"),
        ("A\t0 1\tremark", "number 3 is 'remark'"),
    ],
)  # fmt: skip
def test_lines_that_are_no_presets(tsv: Write, text: str, told: str) -> None:
    """The line, what is wrong with it, and how it is written."""
    with pytest.raises(RecipeError) as caught:
        read_presets(tsv(text))
    assert told in str(caught.value)
    assert "MY_PRESET<tab>0,0.5,1" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no preset"),
        ("A = [0, 1]\n\nB = [0, 'x']", "line 3: B: number 2 is 'x'"),
        ("A = [0, true]", "line 1: A: number 2 is True"),
        ("A = [0, nan]", "line 1: A: number 2 is nan, which is not finite"),
        ("A = [-inf]", "number 1 is -inf"),
        ("A = [0x" + "F" * 1000 + "]", "number 1 is too large"),
        ("A = [[0, 1]]", "number 1 is a list"),
        ("A = [{b = 1}]", "number 1 is a table"),
        ("A = []", "line 1: A has no numbers behind it"),
        ("A = '0,1'", "line 1: A has no numbers behind it"),
        ("A = 1", "A has no numbers behind it"),
        ("x = [1]\n[presets]\nA = [1]", "line 2: presets has no numbers behind it"),
        ("'0.5' = [1]", "line 1: begins with a number"),
        ("'' = [1]", "'' is no name"),
        ("A = [1]\nA = [1]", "is not valid TOML: Cannot overwrite a value"),
        ("A-B = [1]\nA_B = [2]", "line 2: A_B stands there before"),
        ("A\t0,1", "is not valid TOML"),
        ("A = " + "[" * 100_000, "is not valid TOML"),
        ("a" + ".a" * 100_000 + " = 1", "a name has more than 50 parts"),
        ("A = [" + "9" * 5000 + "]", "is not valid TOML"),
        ("# " + "." * 1000 + "\nA = [x]", "Invalid value (at line 2"),
    ],
)  # fmt: skip
def test_toml_that_is_no_presets(toml: Write, text: str, told: str) -> None:
    """The line, what is wrong with it, and how it is written; in no time."""
    with pytest.raises(RecipeError) as caught:
        read_presets(toml(text))
    assert told in str(caught.value)
    assert "MY_PRESET = [0, 0.5, 1]" in str(caught.value)
    assert str(caught.value).isprintable()


def test_all_wrong_lines_are_told_at_once(tsv: Write) -> None:
    """As many as can be read, and how many more there are."""
    with pytest.raises(RecipeError, match=r"line 1: A0 .*line 2: A1 .*and \d+ more"):
        read_presets(tsv("\n".join(f"A{n}" for n in range(1000))))


@pytest.mark.parametrize("name", ["none.tsv", "folder", "zero", "binary", "large", "pipe"])
def test_what_is_no_file_of_presets(tmp_path: Path, name: str) -> None:
    """A missing file, a folder, a device, a pipe, bytes that are no text, more bytes than presets have."""
    path = Path("/dev/zero") if name == "zero" else tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("this system has no pipes in folders")
        os.mkfifo(path)
    elif name == "binary":
        path.write_bytes(b"\xff\xfeA")
    elif name == "large":
        path.write_bytes(b"A\t0\n" * (MAX_BYTES // 4 + 1))
    with pytest.raises(RecipeError, match="cannot read presets"):
        read_presets(path)


@settings(max_examples=200)
@given(st.binary(max_size=80), st.sampled_from(["p.tsv", "p.toml"]))
def test_any_bytes_are_presets_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    """Whatever stands in a file."""
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    try:
        found = read_presets(path)
    except RecipeError as error:
        assert str(error)
    else:
        assert found
        assert all(np.isfinite(numbers).all() for numbers in found.values())


# What each block has of it.


@pytest.mark.parametrize("blocks", [SD, SDXL, CASCADE, LAYERS, FLUX, T5])
def test_one_number_for_each_block(blocks: tuple[str, ...]) -> None:
    """In network order; one more is BASE's, and comes first."""
    numbers = tuple(n / 100 for n in range(len(blocks)))
    got = alphas_by_block(numbers, blocks)
    assert (dict(zip(blocks, numbers, strict=True)), None, None) == (got.by_block, got.base, got.note)
    got = alphas_by_block((0.75, *numbers), blocks)
    assert (dict(zip(blocks, numbers, strict=True)), 0.75) == (got.by_block, got.base)
    assert ("BASE first" in (got.note or "")) == (blocks in (LAYERS, FLUX, T5))


@pytest.mark.parametrize(
    ("blocks", "count", "told"),
    [
        (SD, 24, "A needs 25 (IN00 … OUT11), or 26 with BASE first"),
        (SD, 19, "19 are for SDXL, whose blocks are other ones"),
        (SD, 20, "20 are for SDXL, whose blocks are other ones"),
        (SDXL, 25, "has 25 numbers: A needs 19 (IN00 … OUT08), or 20 with BASE first; 25 are for SD 1 and 2"),
        (SDXL, 26, "26 are for SD 1 and 2, whose blocks are other ones: give a preset by name"),
        (SDXL, 1, "has 1 number: A needs 19"),
        (SDXL, 2, "give a preset by name"),
        (CASCADE, 6, "A needs 4 (IN00 … OUT01), or 5 with BASE first"),
        (SD, 0, "has no numbers"),
        (LAYERS, 0, "has no numbers"),
    ],
)  # fmt: skip
def test_numbers_that_do_not_fit(blocks: tuple[str, ...], count: int, told: str) -> None:
    """A U-Net takes no curve: numbers of one mean other blocks of another."""
    with pytest.raises(RecipeError) as caught:
        alphas_by_block((0.5,) * count, blocks)
    assert told in str(caught.value)


@pytest.mark.parametrize("weights", ["GRAD_V", (0.5,), ()])
def test_a_model_without_blocks(weights: tuple[float, ...] | str) -> None:
    """There is nothing that block weights could mean."""
    with pytest.raises(RecipeError, match="A has no numbered blocks; use --only and --set instead"):
        alphas_by_block(weights, ())


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_are_finite(number: float) -> None:
    """However they came here."""
    with pytest.raises(RecipeError, match=r"number 3 is (nan|inf), which is not finite"):
        alphas_by_block((0.0, 0.5, number), LAYERS)


@pytest.mark.parametrize("blocks", [SD, SDXL, LAYERS, FLUX, T5, ("L00",)])
def test_a_preset_fits_every_model(blocks: tuple[str, ...]) -> None:
    """Its name gives the numbers for this depth; a depth that it was not made for is said."""
    got = alphas_by_block("wrap12", blocks)
    assert presets.weights("WRAP12", len(blocks)) == tuple(got.by_block.values())
    assert blocks == tuple(got.by_block)
    assert got.base is None
    assert (got.note is None) == (blocks == SD)
    assert got.note is None or f"WRAP12, scaled to {len(blocks)} block" in got.note


def test_an_unknown_preset_of_a_recipe() -> None:
    """A name that came by another way than the command line is checked as well."""
    with pytest.raises(RecipeError, match="unknown preset 'WRAP9'"):
        alphas_by_block("WRAP9", SD)


def test_a_curve_over_layers() -> None:
    """Straight between its points, the first at the first layer and the last at the last."""
    got = alphas_by_block((0.0, 1.0, 0.0, 0.0, 0.5), LAYERS)
    oracle = np.interp(np.linspace(0, 4, 32), range(5), [0, 1, 0, 0, 0.5])
    assert oracle == pytest.approx(list(got.by_block.values()), abs=1e-14)
    assert got.base is None
    assert (
        "block weights: 5 numbers, a curve over 32 blocks (L00 … L31), the first for L00 and none for BASE"
        == got.note
    )


def test_the_blocks_of_flux_are_one_depth() -> None:
    """Double blocks, then single ones; so are an encoder and its decoder, and the note says so."""
    got = alphas_by_block((0.0, 1.0), FLUX)
    assert (0.0, 18 / 56, 19 / 56, 1.0) == pytest.approx(
        [got.by_block[b] for b in ("D00", "D18", "S00", "S37")]
    )
    assert "57 blocks (D00 … D18, S00 … S37)" in (got.note or "")
    got = alphas_by_block("OUT12", T5)
    assert {block: float(block.startswith("DEC")) for block in T5} == got.by_block
    assert "(ENC00 … ENC11, DEC00 … DEC11)" in (got.note or "")


def test_one_number_is_the_same_for_all_layers() -> None:
    """A curve of one point."""
    got = alphas_by_block((0.3,), LAYERS)
    assert dict.fromkeys(LAYERS, 0.3) == got.by_block
    assert "1 number, the same for 32 blocks" in (got.note or "")


@given(NUMBERS, st.integers(1, 120))
def test_interpolation_against_numpy(numbers: list[float], count: int) -> None:
    """Any number of points on any number of layers; never beyond the points."""
    got = interpolate(numbers, count)
    last = len(numbers) - 1
    places = np.linspace(0, last, count) if count > 1 else [last / 2]
    assert np.interp(places, range(len(numbers)), numbers) == pytest.approx(got, abs=1e-13)
    assert min(numbers) <= min(got) <= max(got) <= max(numbers)
    if count > 1:
        assert (numbers[0], numbers[-1]) == (got[0], got[-1])
    assert got[::-1] == interpolate(numbers[::-1], count)


@given(NUMBERS)
def test_a_curve_of_one_point_a_block_is_those_points(numbers: list[float]) -> None:
    """To the last bit; a level curve stays level on every depth."""
    if len(numbers) > 1:
        assert tuple(numbers) == interpolate(numbers, len(numbers))
    assert (numbers[0],) * 33 == interpolate(numbers[:1] * 7, 33)


def test_a_preset_of_25_numbers_drawn_over_layers_is_near_its_formula() -> None:
    """A smooth preset, as a curve of 25 points, differs from the formula by the chords of its bends alone."""
    for name in ("GRAD_V", "SMOOTHSTEP", "COSINE", "SMOOTHSTEP/2"):
        drawn = interpolate(presets.weights(name, 25), 57)
        assert presets.weights(name, 57) == pytest.approx(drawn, abs=0.02), name


# The command.


def show(*arguments: object) -> str:
    """What `mergescope presets …` prints on a terminal of 80 columns."""
    result = CliRunner(env={"COLUMNS": "80"}).invoke(
        command, [str(a) for a in arguments], catch_exceptions=False
    )
    assert 0 == result.exit_code
    return result.output


def test_the_list_fits_80_columns() -> None:
    """A line for each preset: name, curve, meaning."""
    lines = show().splitlines()
    assert list(presets.PRESETS) == [line.split()[0] for line in lines]
    assert max(map(len, lines)) <= 80
    assert "WRAP08 ████▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁████ the outer 8 blocks of 25" == " ".join(lines[4].split())


def test_one_preset_shows_numbers_that_block_weights_takes() -> None:
    """On the last line, for as many blocks as are asked for; exceptions are told."""
    text = show("mid12_50")
    assert "block 6 of 25 has 0.5, as published; the formula gives 0" in text
    assert presets.weights("MID12_50", 25) == parse(text.splitlines()[-1])
    flux = show("cosine", "--blocks", 57).splitlines()
    assert presets.weights("COSINE", 57) == pytest.approx(parse(flux[-1]), abs=1e-9)
    assert 25 == len(flux[-2])
    assert "alpha = (1 + cos πt) / 2" in flux


def test_presets_as_json() -> None:
    """All of them, or one, with full precision."""
    document = orjson.loads(show("--json", "--blocks", 3))
    assert ("mergescope.presets", 1) == (document["format"], document["version"])
    assert list(presets.PRESETS) == [row["name"] for row in document["presets"]]
    [row] = orjson.loads(show("true-cubic-hermite", "--json", "--blocks", 3))["presets"]
    assert [1 / 24, 25 / 48, 1.0] == pytest.approx(row["numbers"])


def test_the_presets_of_a_file_can_be_looked_at(tsv: Write) -> None:
    """With their own numbers; names that the file lacks are those that ship."""
    file = tsv("MINE\t0,1\nwrap08\t0.5,-3,7\n")
    assert ["MINE ▁█ 2 numbers", "wrap08 ▅▁█ 3 numbers"] == [
        " ".join(line.split()) for line in show("--presets", file).splitlines()
    ]
    assert "0.5,-3,7" == show("WRAP08", "--presets", file).splitlines()[-1]
    assert show("wrap12") == show("wrap12", "--presets", file)


def test_an_unknown_preset_is_an_error_of_the_command() -> None:
    """With the nearest names."""
    result = CliRunner().invoke(command, ["WRAP8"])
    assert isinstance(result.exception, RecipeError)
    assert "nearest are WRAP" in str(result.exception)


def test_a_terminal_without_block_signs_shows_digits() -> None:
    """0 … 9 for 0 … 1."""
    assert "0459" == curve((0.0, 0.4, 0.6, 1.0), fancy=False)
    assert "▁▄▅█" == curve((-1.0, 0.45, 0.55, 2.0), fancy=True)
    assert 25 == len(curve((0.5,) * 1000, fancy=True))
    assert "▁" == curve((0.0,), fancy=True)
