"""A browser, pages opened in it, and scans of real arrays to open. Knows no expectation of any test."""

from __future__ import annotations

import base64
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyzer.findings import findings
from analyzer.kinship import kinship
from analyzer.measures import Sums
from analyzer.records import Finding, KeyScan, Labels, ModelId, Scan, ShapeMismatch
from reports.embedded import Intervals, Planner
from reports.page import render

sys.path.append(str(Path(__file__).parent))

from array_sums import measure, measure_tasks, row_cosines, spectrum
from browser_page import Page

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--in-process-gpu",  # fewer processes: the pages are our own, and two workers have two browsers
    "--disable-site-isolation-trials",
    "--no-zygote",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # a page that asks for the network gets none
)
DESKTOP, PHONE = (1440, 1000), (390, 844)

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, slots=True)
class Synthetic:
    """A scan and the arrays whose sums it holds."""

    scan: Scan
    arrays: Arrays


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First the tests that share the page below, then the others: so it is opened once a worker."""
    places = [place for place, item in enumerate(items) if item.path.parent == Path(__file__).parent]
    here = [items[place] for place in places]
    here.sort(key=lambda item: not _shares(item))
    for place, item in zip(places, here, strict=True):
        items[place] = item


def _shares(item: pytest.Item) -> bool:
    """Whether a test asks for the page below; some files have a page of their own."""
    return (
        isinstance(item, pytest.Function) and "page" in item.fixturenames and not hasattr(item.module, "page")
    )


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Debian's Chromium under its own driver; nothing is ever downloaded."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield browser
    browser.quit()


@pytest.fixture(scope="session")
def open_page(driver: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Page]:
    """Render a scan, open it, and wait until it is drawn."""
    path = tmp_path_factory.mktemp("report") / "report.html"  # one path: the browser keeps compiled scripts

    def open_scan(
        scan: Scan,
        *,
        found: Sequence[Finding] | None = None,
        intervals: Intervals | None = None,
        planner: Planner | None = None,
        plotlyjs: Any = "inline",
        size: tuple[int, int] = DESKTOP,
        scheme: str = "light",
        fragment: str = "",
    ) -> Page:
        name = kinship(scan)[0] or "undefined"
        found = findings(scan) if found is None else found
        html = render(
            scan, kinship=name, findings=found, intervals=intervals, planner=planner, plotlyjs=plotlyjs
        )
        path.write_text(html, encoding="utf-8")
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        page = Page(driver)
        page.complaints(), page.requests()  # what an earlier page left behind
        if fragment:
            driver.get("about:blank")  # from the page itself it would be a jump inside it
        driver.get(path.as_uri() + fragment)
        page.wait("return Boolean(window.mergescope && window.mergescope.predict)")
        return page

    return open_scan


@pytest.fixture
def page(driver: Any, open_page: Callable[..., Page], synthetic: Synthetic) -> Page:
    """The page of the synthetic scan as it opens; opened once and put back, where a test left it open."""
    page = Page(driver)
    if not page.run("return Boolean(window.mergescope?.isShared)"):
        page = open_page(synthetic.scan)
        page.run("window.mergescope.isShared = true")
    page.restore()
    return page


@pytest.fixture(scope="session")
def synthetic() -> Synthetic:
    """Two fine-tunes of a small Stable Diffusion 1.x: about 280 keys of real, seeded arrays.

    With a base, which has no VAE, and spectra. The text encoder's first norm was stored in half.
    """
    arrays: Arrays = {}
    keys = []
    generator = np.random.default_rng(20240229)
    for key, shape, labels, rate in _layout():
        a, b = _pair(generator, shape, rate, is_integer=labels.kind == "other" and key.endswith("ids"))
        dtype_a = dtype_b = "I64" if a.dtype.kind == "i" else "F32"
        if key.endswith("layers.0.layer_norm1.weight"):
            b, dtype_b = a.astype(np.float16), "F16"
        arrays[key] = a, b
        row = KeyScan(key, key, shape, dtype_a, dtype_b, labels, measure(a, b))
        if dtype_a == "F32" and labels.part != "vae":
            learned = generator.normal(0.0, 0.05 * max(rate, 0.01), shape).astype(np.float32)
            c = a - learned * (generator.random(shape) < 0.7)
            row = replace(row, sums=replace(row.sums, task=measure_tasks(a, b, c)))
        if dtype_a == "F32" and len(shape) == 2:
            row = replace(row, row_cosines=row_cosines(a, b), spectrum=spectrum(a, b, len(keys)))
        keys.append(row)
    blocks = (*(f"IN{i:02}" for i in range(12)), "M00", *(f"OUT{i:02}" for i in range(12)))
    scan = Scan(
        tool="mergescope 0.0",
        created="2024-02-29T12:00:00Z",
        a=_model("small-v1.safetensors", "sha256:0a", len(keys)),
        b=_model("small-tuned.safetensors", "sha256:0b", len(keys)),
        blocks=blocks,
        keys=tuple(keys),
        only_in_a=("model_ema.decay",),
        only_in_b=("lora.up", "lora.down"),
        shape_mismatch=(ShapeMismatch("conv_in.weight", (8, 4, 3, 3), (8, 9, 3, 3)),),
        base=_model("small-base.safetensors", "sha256:0c", len(keys)),
        with_spectrum=True,
    )
    return Synthetic(scan, arrays)


@pytest.fixture(scope="session")
def take_screenshot(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Page, str], Path]:
    """What saves the whole page as NAME.png, in the folder MERGESCOPE_SCREENSHOTS where that is set."""
    asked = os.environ.get("MERGESCOPE_SCREENSHOTS")
    folder = Path(asked) if asked else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)

    def take(page: Page, name: str) -> Path:
        content = page.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        options = {"format": "png", "captureBeyondViewport": True, "clip": {**content, "scale": 1}}
        shot = page.driver.execute_cdp_cmd("Page.captureScreenshot", options)
        path = folder / f"{name}.png"
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    return take


@pytest.fixture(scope="session")
def sums_of() -> Callable[[np.ndarray, np.ndarray], Sums]:
    """What makes the record of two arrays of a test."""
    return measure


def _pair(
    generator: np.random.Generator, shape: tuple[int, ...], rate: float, *, is_integer: bool
) -> tuple[np.ndarray, np.ndarray]:
    """A tensor, and the same tensor after training moved it by about `rate` of its norm."""
    if is_integer:
        a = np.arange(np.prod(shape)).reshape(shape)
        return a, a + (a == 3)
    a = generator.normal(0.0, 0.05, shape).astype(np.float32)
    step = generator.normal(0.0, 0.05 * rate, shape).astype(np.float32)
    b = (a * np.float32(1 + rate * rate * generator.normal())) + step if rate else a.copy()
    return a, b


def _layout() -> Iterator[tuple[str, tuple[int, ...], Labels, float]]:
    """Key, shape, labels and rate of change, of the parts that such a checkpoint has."""
    yield "alphas_cumprod", (50,), Labels("other", "BASE", "schedule", "other", "schedule", False), 0.0
    text = "cond_stage_model.transformer.text_model"
    ids = Labels("text_encoder", "BASE", "embeddings/position_ids", "other", "embeddings", False)
    yield f"{text}.embeddings.position_ids", (1, 77), ids, 0.0
    for layer in range(4):
        for name, component, size in _TEXT:
            group = component.split("/")[0]
            for kind, shape in (("weight", (size, 16)), ("bias", (size,))):
                labels = Labels("text_encoder", "BASE", component, kind, group)
                yield f"{text}.encoder.layers.{layer}.{name}.{kind}", shape, labels, 0.02 * (layer + 1)
    for place, block in enumerate(_UNET):
        for part, prefix in (("unet", "model.diffusion_model."), ("ema", "model_ema.")):
            for name, component, rate in _BLOCK if part == "unet" else _BLOCK[:2]:
                group = "/".join(component.split("/")[: 2 if component.startswith("transformer") else 1])
                for kind, shape in (("weight", (24, 20)), ("bias", (24,))):
                    labels = Labels(part, block, component, kind, group, part == "unet")
                    yield f"{prefix}{block.lower()}.{name}.{kind}", shape, labels, rate * (1 + place / 8)
    for name in ("encoder.conv_in", "decoder.proj_in", "quant_conv"):
        for kind, shape in (("weight", (12, 12)), ("bias", (12,))):
            labels = Labels("vae", "VAE", name.replace(".", "/"), kind, name.split(".")[0])
            yield f"first_stage_model.{name}.{kind}", shape, labels, 0.0


def _model(name: str, fingerprint: str, keys: int) -> ModelId:
    path = f"/models/{name}"
    return ModelId(
        path, 2_132_625_612, fingerprint, "sd1", "Stable Diffusion 1.x", keys, {"F32": 9, "I64": 1}
    )


_TEXT = (
    ("self_attn.q_proj", "self_attn/q_proj", 16),
    ("self_attn.k_proj", "self_attn/k_proj", 16),
    ("mlp.fc1", "mlp/fc1", 32),
    ("layer_norm1", "layer_norm1", 8),
)
_UNET = ("IN01", "IN02", "IN04", "M00", "OUT03", "OUT05", "OUT08", "OUT11")
_BLOCK = (
    ("attn2.to_k", "transformer_blocks/attn2/to_k", 0.3),
    ("attn2.to_q", "transformer_blocks/attn2/to_q", 0.25),
    ("attn1.to_k", "transformer_blocks/attn1/to_k", 0.12),
    ("attn1.to_out.0", "transformer_blocks/attn1/to_out", 0.1),
    ("ff.net.2", "transformer_blocks/ff/net", 0.07),
    ("norm1", "transformer_blocks/norm1", 0.01),
    ("proj_in", "proj_in", 0.04),
    ("in_layers.2", "in_layers", 0.03),
    ("out_layers.3", "out_layers", 0.035),
    ("skip_connection", "skip_connection", 0.025),
)
