"""The report page as text: what it holds, how it is escaped, and that it asks for nothing."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import re
import zlib
from array import array
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyzer.cli.report import render_report
from analyzer.findings import findings
from analyzer.measures import COUNTS, SUM_FIELDS, Histogram, Sums
from analyzer.records import Finding, KeyScan, Labels, ModelId, Scan, ShapeMismatch
from analyzer.uncertainty import EXACT
from reports.page import SCRIPTS, measured, render
from reports.tables import KINSHIPS

HOSTILE = "</script><img src=x onerror=alert(1)>&\"'\u2028"
FINDING = Finding("attn2 moved most, by 0.3 of its norm", "relative_change", 0.3, "component:attn2")


class Elements(HTMLParser):
    """The elements of a page with their attributes and the text inside them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        self.found.append((f"/{tag}", {}, []))

    def handle_data(self, data: str) -> None:
        if self.found:
            self.found[-1][2].append(data)

    def of(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, "".join(text)) for name, attributes, text in self.found if name == tag]


def key_scan(key: str = "block.attn2.weight", **changes: Any) -> KeyScan:
    labels = Labels("unet", "IN01", "attn2/to_k", "weight", "attn2")
    sums = Sums(numel=4, n=4, numeric=4, changed=4, sum_aa=1 / 3, sum_bb=0.4, sum_dd=0.1, sum_a=1e-300)
    return replace(KeyScan(key, key, (2, 2), "F16", "F16", labels, sums), **changes)


def scan_of(*keys: KeyScan, **changes: Any) -> Scan:
    model = ModelId("/models/one.safetensors", 2_132_625_612, "sha256:0", "sd1", "Stable Diffusion 1.x")
    other = replace(
        model, path="C:\\models\\two.ckpt", bytes=999_950, keys=1143, dtypes={"I64": 1, "F16": 99}
    )
    scan = Scan("mergescope 0", "2024-02-29T12:00:00Z", model, other, ("IN00", "IN01"), keys, (), (), ())
    return replace(scan, **changes)


def page_of(scan: Scan, *, kinship: str = "fine-tune", **options: Any) -> str:
    return render(scan, kinship=kinship, findings=[FINDING], **options)


def embedded(html: str) -> dict[str, Any]:
    """What the page's script reads, without its columns of numbers."""
    [text] = [text for attributes, text in Elements(html).of("script") if attributes.get("id") == "scan"]
    data: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(text)).partition(b"\n")[0])
    return data


def visible_text(html: str) -> str:
    """What a reader without scripts sees, in one line."""
    body = html[html.index("<body>") : html.index('<script type="application/octet-stream"')]
    return " ".join("".join(part for _, _, text in Elements(body).found for part in text).split())


def sections_of(html: str) -> list[str | None]:
    """The names of the page's sections, in its order."""
    return [a["data-section"] for _, a, _ in Elements(html).found if "data-section" in a]


def links_of(html: str) -> list[str | None]:
    """Where the links above the head lead to, the way past them first."""
    return [a["href"] for a, _ in Elements(html[: html.index("<main>")]).of("a")]


def policy_of(html: str) -> dict[str, list[str]]:
    """The page's Content-Security-Policy: directive -> sources."""
    [content] = [a["content"] for a, _ in Elements(html).of("meta") if "http-equiv" in a]
    assert content
    return {name: sources for name, *sources in (directive.split() for directive in content.split(";"))}


def plotly_of(html: str) -> str:
    """The script that the page carries packed."""
    [text] = [text for attributes, text in Elements(html).of("script") if attributes.get("id") == "plotly"]
    return zlib.decompress(base64.b64decode(text)).decode()


def digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# What the page holds


def test_the_page_has_the_sections_of_the_contract() -> None:
    """Each once and in this order; what the two learned beyond their base stands there if there is one."""
    figures = ["ranking", "map", "scatter", "profile", "treemap", "histogram"]
    scan = scan_of(key_scan())
    assert ["head", "findings", *figures, "planner", "keys"] == sections_of(page_of(scan, plotlyjs="cdn"))
    html = page_of(replace(scan, base=scan.a), plotlyjs="cdn")
    assert ["head", "findings", *figures, "tasks", "planner", "keys"] == sections_of(html)


def test_the_head_names_both_models_and_their_size() -> None:
    """File name, size in decimal units, architecture, dtypes by size, keys; paths of any system."""
    text = visible_text(page_of(scan_of(key_scan()), plotlyjs="cdn"))
    assert "Model A: one.safetensors 2.13 GB · Stable Diffusion 1.x /models/one.safetensors" in text
    assert (
        "Model B: two.ckpt 1 MB · Stable Diffusion 1.x · fp16 + int64 · 1,143 keys C:\\models\\two.ckpt"
        in text
    )


def test_the_head_lists_what_does_not_pair_and_what_to_beware_of() -> None:
    """Unpaired keys, other shapes, NaN and other dtypes, each with its count and its names."""
    nan = key_scan("broken", sums=Sums(numel=9, nonfinite_a=1, nonfinite_b=2))
    scan = scan_of(
        nan,
        key_scan("recast", dtype_b="BF16"),
        only_in_a=("left",),
        only_in_b=("right", "far right"),
        shape_mismatch=(ShapeMismatch("wide", (2, 4), (2, 9)),),
    )
    text = visible_text(page_of(scan, plotlyjs="cdn"))
    for expected in (
        "2 keys pair",
        "1 key only in A left",
        "2 keys only in B right far right",
        "1 key of another shape wide 2×4 → 2×9",
        "1 key with NaN or Inf, left out of every sum broken 1 in A, 2 in B",
        "1 key stored in another dtype recast F16 → BF16",
    ):
        assert expected in text


def test_long_lists_are_cut_and_say_so() -> None:
    """A head that lists thousands of keys would hide the page; the data still holds them all."""
    names = tuple(f"key.{n}" for n in range(1234))
    html = page_of(scan_of(key_scan(), only_in_a=names), plotlyjs="cdn")
    assert "and 734 more" in visible_text(html)
    assert list(names) == embedded(html)["only_in_a"]


def test_findings_stand_with_their_number_and_their_selector() -> None:
    """The sentence, the value for the script to format, and a button that selects."""
    html = page_of(scan_of(key_scan()), plotlyjs="cdn")
    elements = Elements(html)
    assert FINDING.text in visible_text(html)
    assert "0.3" in [attributes.get("data-value") for attributes, _ in elements.of("span")]
    assert "component:attn2" in [attributes.get("data-selector") for attributes, _ in elements.of("button")]


@pytest.mark.parametrize("kinship", KINSHIPS)
def test_only_unrelated_models_get_the_banner(kinship: str) -> None:
    """A reader about to merge two strangers is told so; nobody else is."""
    html = page_of(scan_of(key_scan()), kinship=kinship, plotlyjs="cdn")
    assert (kinship == "unrelated") == ("These two models were trained apart." in visible_text(html))


@pytest.mark.parametrize(("cosine", "words"), [(-0.11, "Opposed."), (-0.09, "were trained apart.")])
def test_a_model_that_points_against_the_other_is_called_opposed(cosine: float, words: str) -> None:
    """The threshold from both sides, as for the findings: a stranger's cosine is about 0."""
    sums = Sums(numel=4000, n=4000, numeric=4000, changed=4000, sum_aa=1.0, sum_bb=1.0, sum_dd=2 - 2 * cosine)
    html = render_report(scan_of(key_scan(sums=sums)), plotlyjs="cdn").decode()
    assert words in visible_text(html)
    assert "unrelated" == embedded(html)["kinship"]


def test_what_only_rounding_tells_apart_is_no_fine_tune() -> None:
    """The kinship's figure does not contradict the banner above it."""
    sums = Sums(numel=4, n=4, numeric=4, changed=4, cast_only=4, sum_aa=1.0, sum_bb=1.0, sum_dd=1e-9)
    text = visible_text(page_of(scan_of(key_scan(sums=sums)), kinship="fine-tune", plotlyjs="cdn"))
    assert "Only rounding differs." in text
    assert "same weights" in text


def test_an_identical_pair_has_no_figures() -> None:
    """Nothing differs: the page says it in words and leaves the figures out."""
    same = key_scan(sums=Sums(numel=4, n=4, numeric=4, sum_aa=1.0, sum_bb=1.0))
    html = page_of(scan_of(same), kinship="same", plotlyjs="cdn")
    assert "Nothing differs." in visible_text(html)
    assert ["head", "findings", "keys"] == sections_of(html)
    assert ["#findings-title", "#keys-title"] == links_of(html)[1:]


@pytest.mark.parametrize(
    ("sums", "sentence"),
    [
        (Sums(numel=4), "no weights could be compared"),
        (Sums(numel=4, n=4, numeric=4, changed=4, sum_bb=1.0, sum_dd=1.0), "a direction in both models"),
    ],
)
def test_an_undefined_kinship_is_said_and_explained(sums: Sums, sentence: str) -> None:
    """The head says undefined, the finding says why, and no number is made up."""
    scan = scan_of(key_scan(sums=sums))
    html = render(scan, kinship="undefined", findings=findings(scan), plotlyjs="cdn")
    [value] = [a["data-value"] for a, _ in Elements(html).of("span") if a.get("data-statistic") == "cosine"]
    text = visible_text(html)
    assert "" == value
    assert "kinshipundefined" in text.replace(" ", "")
    assert sentence in text
    assert "Nothing differs." not in text


def test_unknown_dtypes_show_as_their_file_names_them() -> None:
    """A dtype of tomorrow is not renamed, and a name that Python's objects have is no surprise."""
    model = ModelId("/m/x", 1, "sha256:0", "sd1", "", 1, {"F4_E2M1": 3, "F32": 2, "__class__": 1})
    text = visible_text(page_of(scan_of(key_scan(), a=model), plotlyjs="cdn"))
    assert "F4_E2M1 + fp32 + __class__" in text


def test_elements_that_could_not_be_compared_are_not_identical() -> None:
    """A NaN leaves every sum, so a pair with one is not called identical."""
    nan = key_scan(sums=Sums(numel=4, n=3, numeric=3, nonfinite_a=1, sum_aa=1.0, sum_bb=1.0))
    assert "Nothing differs." not in visible_text(page_of(scan_of(nan), plotlyjs="cdn"))


def test_the_page_of_the_command_says_how_sure_its_rankings_are() -> None:
    """Every counted group of every axis has an interval or the reason why not, of every statistic drawn."""
    generator = np.random.default_rng(11)
    keys = []
    for n in range(12):
        change = float(generator.uniform(0.01, 0.02) if n < 6 else generator.uniform(1, 2))
        labels = Labels("unet", f"IN{n % 2:02}", f"c{n // 6}", "weight", f"c{n // 6}")
        sums = Sums(numel=100, n=100, numeric=100, changed=100, sum_aa=1.0, sum_bb=1.0, sum_dd=change)
        keys.append(key_scan(f"key{n}", labels=labels, sums=sums))
    alone = Labels("vae", "VAE", "lone", "bias", "lone")
    copy = Labels("ema", "IN00", "c0", "weight", "copy", counted=False)
    scan = scan_of(*keys, key_scan("lone", labels=alone), key_scan("copy", labels=copy))
    data = embedded(render_report(scan, plotlyjs="cdn").decode())["intervals"]
    rows = {data["groups"][code]: its for code, *its in data["rows"]["group"]["relative_change"]}
    assert {"c0", "c1", "lone"} == set(rows)
    assert [None, None, None, 1, "1 key"] == rows["lone"]
    assert rows["c0"][1] < rows["c1"][0]
    assert ([2, 6, ""], [1, 6, ""]) == (rows["c0"][2:], rows["c1"][2:])
    assert {"group", "block", "part", "kind"} == set(data["rows"])
    assert set(measured(scan)) - EXACT == set(data["rows"]["block"])


def test_of_thousands_of_groups_none_has_an_interval() -> None:
    """Of 12,500 blocks they took an hour, for a page on which nobody compares them."""
    keys = [
        key_scan(
            f"k{i}",
            sums=replace(key_scan().sums, sum_dd=0.1 + i / 1e4),
            labels=replace(key_scan().labels, block=f"L{i // 6:05}"),
        )
        for i in range(3006)
    ]
    rows = embedded(render_report(scan_of(*keys), plotlyjs="cdn").decode())["intervals"]["rows"]
    assert rows["group"]
    assert not rows["block"]


def test_a_page_without_a_ranking_needs_no_intervals() -> None:
    """Identical models have no figures, and so nothing to be unsure of."""
    same = key_scan(sums=Sums(numel=4, n=4, numeric=4, sum_aa=1.0, sum_bb=1.0))
    assert {} == embedded(render_report(scan_of(same), plotlyjs="cdn").decode())["intervals"]["rows"]


@pytest.mark.parametrize(
    ("sums", "banner"),
    [
        (Sums(numel=4, n=4, numeric=4, sum_aa=1.0, sum_bb=1.0), "Nothing differs."),
        (Sums(numel=4, n=4, numeric=4, changed=2, cast_only=2, sum_aa=1.0, sum_bb=1.0), "Only rounding"),
        (
            Sums(numel=4, n=4, numeric=4, changed=2, cast_only=1, sum_aa=1.0, sum_dd=4e-9, sum_ulp_sq=12e-9),
            "Only rounding differs. 1 key pairs: 1 differs by no more than rounding would leave.",
        ),
        (
            Sums(numel=4, n=4, numeric=4, changed=2, cast_only=1, sum_aa=1.0, sum_dd=5e-9, sum_ulp_sq=12e-9),
            "",
        ),
        (Sums(numel=4, n=3, numeric=3, nonfinite_b=1, nonfinite_differs=1, sum_aa=1.0, sum_bb=1.0), ""),
    ],
)
def test_the_banner_says_whether_more_than_rounding_differs(sums: Sums, banner: str) -> None:
    """At twice what rounding leaves it is rounding still; beyond, and with a NaN on one side, a change."""
    html = page_of(scan_of(key_scan(sums=sums)), plotlyjs="cdn")
    assert banner in visible_text(html)
    assert bool(banner) == ('class="banner same"' in html)


def test_verdicts_are_counted_in_the_head() -> None:
    """The largest difference first, those that occur alone, and how many keys count in no total."""
    same = Sums(numel=4, n=4, numeric=4)
    uncounted = Labels("ema", "IN01", "attn2/to_k", "weight", "attn2", counted=False)
    scan = scan_of(key_scan("x"), key_scan("y", sums=same), key_scan("z", labels=uncounted))
    html = page_of(scan, plotlyjs="cdn")
    assert "3 keys pair, 1 of them count in no total 2 changed 1 identical" in visible_text(html)
    assert ["changed", "identical"] == re.findall(r'data-verdict="(\w+)"', html)


def test_the_base_has_a_card_of_its_own() -> None:
    """Name, size and fingerprint of C where there is one; no word of it elsewhere."""
    base = ModelId("/models/base.safetensors", 4_265_146_304, "sha256:c", "sd1", "Stable Diffusion 1.x")
    scan = scan_of(key_scan())
    text = visible_text(page_of(replace(scan, base=base), plotlyjs="cdn"))
    assert "Model C: base.safetensors 4.27 GB · Stable Diffusion 1.x" in text
    assert "C sha256:c" in text
    assert "base" not in visible_text(page_of(scan, plotlyjs="cdn")).lower()


# Safety


@pytest.mark.parametrize("plotlyjs", ["inline", "cdn"])
def test_names_from_files_are_never_markup(plotlyjs: str) -> None:
    """Hostile names of every origin leave the page's elements as they are with harmless ones."""

    def page(name: str) -> list[str]:
        labels = Labels(name, name, name, name, name)
        model = ModelId(f"/m/{name}", 1, name, name, name, 1, {name: 1})
        finding = Finding(name, "cosine", None, name)
        scan = scan_of(
            key_scan(name, key_b=f"{name}b", labels=labels, dtype_a=name, sums=Sums(numel=1, nonfinite_a=1)),
            tool=name,
            created=name,
            a=model,
            b=model,
            only_in_a=(name,),
            only_in_b=(name,),
            shape_mismatch=(ShapeMismatch(name, (1,), (2,)),),
        )
        html = render(scan, kinship="distant", findings=[finding], plotlyjs=plotlyjs)  # type: ignore[arg-type]
        return [tag for tag, _, _ in Elements(html).found]

    assert page("harmless") == page(HOSTILE)


def test_a_lone_surrogate_survives_in_the_data_and_does_not_break_the_file() -> None:
    """Such a name is legal in a JSON header and illegal in UTF-8: the page can be written either way."""
    html = page_of(scan_of(key_scan("lone \ud800"), only_in_a=("also \udfff",)), plotlyjs="cdn")
    assert html.encode("utf-8")
    assert ["lone \ud800"] == embedded(html)["keys"]["key"]


def test_the_policy_allows_the_page_s_own_scripts_and_nothing_else() -> None:
    """Every script is named by its hash, the style by a nonce; no origin, no inline handler, no eval."""
    html = page_of(scan_of(key_scan()))
    scripts = [text for attributes, text in Elements(html).of("script") if "type" not in attributes]
    policy = policy_of(html)
    assert [f"'sha256-{digest(script)}'" for script in [*scripts, plotly_of(html)]] == policy["script-src"]
    assert ["'none'"] == policy["default-src"]
    assert ["data:", "blob:"] == policy["img-src"]
    assert "unsafe" not in str(policy)
    [(style, _)] = Elements(html).of("style")
    assert [f"'nonce-{style['nonce']}'"] == policy["style-src"]


def test_the_page_carries_the_script_of_the_installed_plotly_package() -> None:
    """To the last byte, packed: what the policy allows is what plotly ships."""
    spec = importlib.util.find_spec("plotly")
    assert spec is not None
    assert spec.submodule_search_locations
    shipped = Path(spec.submodule_search_locations[0], "package_data", "plotly.min.js")
    assert shipped.read_text(encoding="utf-8") == plotly_of(page_of(scan_of(key_scan())))


def test_the_inline_page_names_no_address_to_load() -> None:
    """No element of the page points anywhere but into the page, and every such place is there."""
    html = page_of(scan_of(key_scan()))
    found = Elements(html).found
    addresses = {a[name] for _, a, _ in found for name in ("src", "href", "action") if name in a} - {"data:,"}
    assert addresses <= {f"#{a['id']}" for _, a, _ in found if "id" in a}
    assert "#keys-title" in addresses


def test_the_small_page_names_one_script_by_address_and_hash() -> None:
    """With `cdn`, plotly.js comes from its own site, in the version that the inline page would hold."""
    html, inline = (page_of(scan_of(key_scan()), plotlyjs=mode) for mode in ("cdn", "inline"))
    [script] = [attributes for attributes, _ in Elements(html).of("script") if "src" in attributes]
    plotly = plotly_of(inline)
    version = re.search(r"plotly\.js v(\S+)", plotly)
    assert version
    assert f"https://cdn.plot.ly/plotly-{version[1]}.min.js" == script["src"]
    assert f"sha256-{digest(plotly)}" == script["integrity"]
    assert script["src"] in policy_of(html)["script-src"]
    assert len(html) < 400_000


def test_a_part_that_was_trained_apart_is_a_warning_of_the_head() -> None:
    """A reader who stops at the head still learns of it; what is but a number below is no warning."""
    apart = Finding("vae was replaced or trained apart", "cosine", 0.01, "vae")
    others = [
        Finding("kinship cannot be told", "cosine", None, ""),
        Finding("the U-Net is near", "cosine", 0.99, "unet"),
        Finding("the U-Net hardly moved", "relative_change", 0.01, "unet"),
    ]
    html = render(scan_of(key_scan()), kinship="fine-tune", findings=[apart, *others], plotlyjs="cdn")
    text = visible_text(html)
    assert "a part trained apart vae was replaced or trained apart" in text
    assert 2 == text.count(apart.text)
    assert [1, 1, 1] == [text.count(finding.text) for finding in others]
    html = render(scan_of(key_scan()), kinship="fine-tune", findings=others, plotlyjs="cdn")
    assert "trained apart" not in visible_text(html)


# Size, repeatability


def test_a_page_of_2600_keys_stays_small_beside_plotly() -> None:
    """The largest common layout, with names as long as they are there and sums of full length.

    Beside plotly.js, 2 MB of it packed: 1 MB, and another one for histograms in which no bin is like another.
    """
    name = "conditioner.embedders.1.model.transformer.resblocks.{:05}.attn.in_proj_weight_of_that_layer"
    values: dict[str, Any] = {n: 10**9 + 7 if n in COUNTS else 1.2345678901234567e-5 for n in SUM_FIELDS}
    plain = [key_scan(name.format(n), sums=Sums(**values)) for n in range(2600)]
    assert len(page_of(scan_of(*plain)).encode()) < 3_000_000
    generator = np.random.default_rng(5)

    def histogram() -> Histogram:
        counts, energies = generator.integers(1, 10**6, 36), generator.random(36)
        return Histogram(60, array("q", counts.tolist()), array("d", energies.tolist()))

    keys = [replace(key, sums=replace(key.sums, histogram=histogram())) for key in plain]
    assert len(page_of(scan_of(*keys), plotlyjs="cdn").encode()) < 2_000_000


def test_the_same_scan_gives_the_same_bytes() -> None:
    """Nothing of the page depends on the clock, on chance, or on the order of a set."""
    scan = scan_of(key_scan("x"), key_scan("y"))
    assert page_of(scan) == page_of(scan)


def test_every_script_of_the_folder_is_in_the_page() -> None:
    """A module that nobody lists would silently be missing."""
    folder = {file.name for file in files("reports").joinpath("js").iterdir() if file.name.endswith(".js")}
    assert {*SCRIPTS, "prelude.js"} == folder
