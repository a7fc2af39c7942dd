"""The page of an experiment as text: what it says, what it escapes, and what it never allows."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import zlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from reports.effects import EFFECTS, VIEWS, title
from reports.experiment import SCRIPTS, STYLES, render
from reports.experiment_words import conditions, findings, number, sentence

sys.path.append(str(Path(__file__).parent / "experiment"))

from example_document import FAILED, SEEDS, example, without_pictures

HOSTILE = "</script><img src=x onerror=alert(1)>&\"'<b>"
PIXEL = ("image/png", b"\x89PNG one pixel")


def pictures_of(data: dict[str, Any]) -> dict[tuple[str, int], tuple[str, bytes]]:
    labels = ["A", "B", *(column["selector"] for column in data["columns"])]
    return {(label, seed): PIXEL for label in labels for seed in data["conditions"]["seeds"]}


def page_of(data: dict[str, Any], pictures: Any = None, **options: Any) -> str:
    return render(data, pictures_of(data) if pictures is None else pictures, plotlyjs="cdn", **options)


def embedded(html: str) -> dict[str, Any]:
    """What the page's script reads, unpacked by Python."""
    [text] = re.findall(r'id="experiment">([^<]+)<', html)
    found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(text)))
    return found


# Words


def test_every_measure_of_the_document_has_its_words() -> None:
    """Those that only some experiments have are the same on another view of the pictures."""
    for row in example()["rows"]:
        for name in row.keys() - {"selector", "seed", "seconds", "error"}:
            assert "_" not in title(name)
    assert "neither, in pixels" == title("pixels_neither")
    assert "of_tomorrow" == title("of_tomorrow")
    assert len({effect.title for effect in EFFECTS.values()}) == len(EFFECTS)
    assert "" == VIEWS[0].prefix


def test_findings_name_the_extremes_and_then_the_notes() -> None:
    """The categories by their means: furthest toward B, furthest off, least moved; the foresight in short."""
    data = example()
    means = {(entry["selector"], entry["measure"]): entry["mean"] for entry in data["summary"]}
    names = [column["selector"] for column in data["columns"]]
    toward, off = (max(names, key=lambda name: means[name, of]) for of in ("toward_b", "neither"))
    still = min(names, key=lambda name: means[name, "moved"])
    found = findings(data)
    assert [toward, off, still] == [finding.selector for finding in found[:3]]
    assert f"{means[toward, 'toward_b']:.2f}" == found[0].value
    assert ("1.00", "foresight") == (found[3].value, found[3].section)
    assert "“‖B − A‖” of the weights foretells “moved”" in found[3].text
    assert [sentence(note) for note in data["notes"][1:]] == [finding.text for finding in found[4:]]
    assert "no" == findings(without_pictures())[3].value


def test_nothing_measured_is_no_finding() -> None:
    """Where A and B show the same there is no furthest, and nothing to foretell."""
    data = example() | {"best": None, "foresight": "unknown", "notes": ["a and b show the same"]}
    data["summary"] = [entry | {"mean": None, "low": None, "high": None} for entry in data["summary"]]
    data["correlations"] = [entry | {"spearman": None} for entry in data["correlations"]]
    assert [] == findings(data)


def test_a_note_is_a_sentence_in_the_words_of_the_page() -> None:
    """Statistics and effects by their titles; a selector that looks like them stays as it is."""
    note = "no statistic foretells it: norm_delta with toward_b is 0.8, skip_connection with seed 3"
    expected = "No statistic foretells it: ‖B − A‖ with “toward B” is 0.8, skip_connection with seed 3."
    assert expected == sentence(note).replace("\N{NO-BREAK SPACE}", " ")
    assert "A whole sentence." == sentence("A whole sentence.")


def test_conditions_are_those_that_play_a_part() -> None:
    """Of a probe no sampler; of many seeds their number."""
    assert {"seeds", "alpha", "steps", "sampler", "CFG", "size", "device"} == set(dict(conditions(example())))
    assert {"probe", "alpha"} == set(dict(conditions(without_pictures())))
    data = example()
    data["conditions"]["seeds"] = list(range(1, 41))
    assert "1, 2, 3 … 40 (40)" == dict(conditions(data))["seeds"]


def test_numbers_have_two_decimals_and_a_true_minus() -> None:
    """Undefined is a dash, never 0."""
    assert ["0.50", "−0.25", "—"] == [number(value) for value in (0.5, -0.25, None)]


# The page


def test_the_grid_holds_every_picture_and_every_failure() -> None:
    """A row a seed, a column a model; a cell without a picture says why."""
    data = example()
    pictures = pictures_of(data)
    del pictures[FAILED], pictures["bias", 1]
    data["parents"][1]["error_b"] = "out of paint"
    del pictures["B", 2]
    html = page_of(data, pictures)
    cells = re.findall(r'<td class="shown[^"]*" data-column="(\d+)" data-row="(\d+)">(.*?)</td>', html, re.S)
    assert [(str(c), str(r)) for r in range(len(SEEDS)) for c in range(10)] == [its[:2] for its in cells]
    shown = {(int(column), int(row)): text for column, row, text in cells}
    source = f"data:image/png;base64,{base64.b64encode(PIXEL[1]).decode()}"
    assert 37 == sum(source in text for text in shown.values())
    assert "ran out of memory" in shown[7, 2]
    assert "out of paint" in shown[1, 1]
    assert "no picture" in shown[9, 0]


def test_the_page_embeds_the_document_as_it_is() -> None:
    """With the words for it."""
    data = example()
    found = embedded(page_of(data))
    assert data == found["experiment"]
    assert ["", "pixels_"] == [view["prefix"] for view in found["views"]]
    assert set(data["columns"][0]["statistics"]) == set(found["statistics"])


def test_a_statistic_that_foretells_is_the_one_that_the_page_opens_with() -> None:
    """And only then; otherwise the relative change."""
    chosen = re.compile(r'<option value="(\w+)"[^>]* selected')
    assert ["norm_delta", "norm_delta", "moved"] == chosen.findall(page_of(example()))
    assert ["relative_change", "relative_change", "toward_b"] == chosen.findall(
        page_of(without_pictures(), {})
    )


def test_a_probe_has_no_pictures_and_no_viewer() -> None:
    """Its measures stand without them, under their own name."""
    html = page_of(without_pictures(), {})
    assert "<img" not in html
    assert "<dialog" not in html
    assert ["output"] == [view["title"] for view in embedded(html)["views"]]


def test_hostile_text_is_escaped() -> None:
    """Of prompts, selectors, paths, messages and notes: none opens an element."""
    data = example()
    data["conditions"] |= {"prompt": HOSTILE, "negative_prompt": HOSTILE, "device": HOSTILE}
    data["models"]["a"] |= {"path": HOSTILE, "fingerprint": HOSTILE, "architecture": HOSTILE}
    data |= {"tool": HOSTILE, "created": HOSTILE, "notes": [HOSTILE, HOSTILE]}
    data["columns"][7] |= {"selector": HOSTILE, "merged": HOSTILE}
    for row in [*data["rows"], *data["summary"]]:
        row["selector"] = HOSTILE if row["selector"] == "bias" else row["selector"]
    data["rows"][-1]["error"] = HOSTILE
    pictures = pictures_of(data)
    del pictures[HOSTILE, SEEDS[-1]]
    html = page_of(data, pictures)
    assert "onerror=alert(1)&gt;" in html
    assert "<img src=x" not in html
    assert 39 == html.count("<img ")
    assert page_of({**data, "tool": "\ud800"}, pictures).encode("utf-8")


def test_a_file_that_is_no_picture_never_enters_the_page() -> None:
    """An SVG could carry a script."""
    with pytest.raises(AssertionError, match=r"image/svg\+xml"):
        page_of(example(), {("A", 1): ("image/svg+xml", b"<svg/>")})


def test_the_policy_allows_the_page_s_own_scripts_and_nothing_else() -> None:
    """Every script is named by its hash; no inline style or handler, which the policy would refuse."""
    html = render(example(), pictures_of(example()))
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    for script in re.findall(r"<script>(.*?)</script>", html, re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"&#39;sha256-{digest}&#39;" in policy
    assert "default-src &#39;none&#39;" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    markup = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", html, flags=re.S)
    assert not re.search(r"<[^>]+\s(style|on\w+)=", markup)


def test_the_same_experiment_gives_the_same_bytes() -> None:
    """Nothing depends on the clock or on the order of a set."""
    assert page_of(example()) == page_of(example())


def test_every_script_and_style_of_the_page_is_there() -> None:
    """And every file of the folder is in the page: one that nobody lists would silently be missing."""
    folder = files("reports")
    assert all(folder.joinpath("js", *name.split("/")).is_file() for name in SCRIPTS)
    own = {f"experiment/{file.name}" for file in folder.joinpath("js", "experiment").iterdir()}
    assert own == {name for name in SCRIPTS if name.startswith("experiment/")}
    assert all(folder.joinpath("styles", name).is_file() for name in STYLES)
