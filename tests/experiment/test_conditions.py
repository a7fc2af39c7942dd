"""Seeds, sizes, prompts: what may be asked for, and what is meant where nothing is said."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.errors import AnalyzerError, DeviceError
from analyzer.experiment.conditions import (
    Asked,
    device_named,
    dtype_on,
    painted,
    parse_seeds,
    parse_size,
    probed,
)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("1,2,3,4", (1, 2, 3, 4)),
        ("1-8", (1, 2, 3, 4, 5, 6, 7, 8)),
        ("7", (7,)),
        ("3-4, 1 ,3,0", (3, 4, 1, 0)),
        ("4294967295", (4294967295,)),
        ("5-5", (5,)),
    ],
)
def test_seeds(text: str, seeds: tuple[int, ...]) -> None:
    """Numbers and ranges, each seed once and where it was first named."""
    assert seeds == parse_seeds(text)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20, unique=True))
def test_every_list_of_seeds_is_read(seeds: list[int]) -> None:
    """As it was written."""
    assert tuple(seeds) == parse_seeds(",".join(map(str, seeds)))


@pytest.mark.parametrize(
    "text",
    ["", "a", "1,", "-1", "1.5", "1-", "8-1", "4294967296", "0-4294967295", "1-2-3", "٣", "1-900,2000-2900"],
)
def test_what_is_no_list_of_seeds(text: str) -> None:
    """One sentence, and no list of four billion numbers."""
    with pytest.raises(AnalyzerError, match=r"--seeds .*: \S+.*") as caught:
        parse_seeds(text)
    assert "\n" not in str(caught.value)


def test_the_message_on_long_seeds_is_short() -> None:
    """It repeats the beginning."""
    with pytest.raises(AnalyzerError) as caught:
        parse_seeds("1x" * 10_000)
    assert 250 > len(str(caught.value))


@pytest.mark.parametrize(
    ("text", "size"), [("512", (512, 512)), ("512x768", (512, 768)), (" 64 X 8", None), ("1024×8", (1024, 8))]
)
def test_sizes(text: str, size: tuple[int, int] | None) -> None:
    """One side of a square, or width by height."""
    if size is None:
        with pytest.raises(AnalyzerError):
            parse_size(text)
    else:
        assert size == parse_size(text)


@pytest.mark.parametrize("text", ["", "0", "-8", "12", "512x", "8x8x8", "8x12", "8200", "1" * 5000, "5²"])
def test_what_is_no_size(text: str) -> None:
    """One sentence."""
    with pytest.raises(AnalyzerError, match=r"^--size .*: \S+.*"):
        parse_size(text)


@pytest.mark.parametrize(
    ("asked", "option"),
    [
        (Asked(steps=0), "--steps 0"),
        (Asked(steps=10_001), "--steps 10001"),
        (Asked(cfg=-0.1), "--cfg -0.1"),
        (Asked(cfg=float("inf")), "--cfg inf"),
        (Asked(dtype="fp8"), "--dtype fp8"),
    ],
)
def test_what_nobody_can_paint(asked: Asked, option: str) -> None:
    """Said before a model is loaded."""
    with pytest.raises(AnalyzerError, match=f"^{option}: "):
        asked.check(paints=True)


def test_the_defaults_are_the_articles() -> None:
    """40 steps of Euler a at a guidance of 7, seeds 1 to 4, its two prompts; the size is the model's own."""
    asked = Asked()
    asked.check(paints=True)
    found = painted(asked, pocket=False, own_size=(512, 512), own_sampler="euler_a", device="cpu", alpha=1.0)
    assert found.prompt.startswith("masterpiece, best quality, beautiful anime girl, school uniform, ")
    assert found.prompt.endswith("ISO 100 Shutter Speed 1000")
    assert found.negative_prompt.startswith("lowres, bad anatomy")
    assert found.negative_prompt.endswith("jpeg artifacts, blurry")
    assert {
        "seeds": (1, 2, 3, 4), "steps": 40, "sampler": "euler_a", "cfg": 7.0, "width": 512, "height": 512,
        "device": "cpu", "dtype": "fp32", "alpha": 1.0,
    } == {name: value for name, value in asdict(found).items() if "prompt" not in name}  # fmt: skip


def test_the_pocket_models_have_a_prompt_of_their_own() -> None:
    """In the words that they know."""
    from analyzer.pocket.captions import vocabulary

    found = painted(
        Asked(), pocket=True, own_size=(64, 64), own_sampler="euler_a", device="cuda:0", alpha=1.0
    )
    words = f"{found.prompt}, {found.negative_prompt}".replace(",", "").split()
    assert set(words) <= set(vocabulary())
    assert "fp16" == found.dtype


def test_what_is_said_wins() -> None:
    """An empty prompt too."""
    asked = Asked(prompts=("",), negative_prompt="", seeds=(9,), size=(64, 128), dtype="bf16")
    found = painted(
        asked, pocket=False, own_size=(512, 512), own_sampler="euler_a", device="cuda:1", alpha=0.5
    )
    assert ("", "", (9,), 64, 128) == (
        found.prompt, found.negative_prompt, found.seeds, found.width, found.height,
    )  # fmt: skip
    assert ("bf16", 0.5) == (found.dtype, found.alpha)


def test_pictures_are_of_one_prompt() -> None:
    """A probe takes several."""
    asked = Asked(prompts=("a", "b"))
    with pytest.raises(AnalyzerError, match="--prompt was given 2 times"):
        asked.check(paints=True)
    asked.check(paints=False)
    assert "a\nb" == probed(asked, seeded=True, device="cpu", alpha=1.0).prompt


def test_a_probe_without_a_seed_is_asked_once() -> None:
    """Whatever seeds there are."""
    assert (1,) == probed(Asked(), seeded=False, device="cpu", alpha=1.0).seeds
    assert (1, 2, 3, 4) == probed(Asked(), seeded=True, device="cpu", alpha=1.0).seeds


@pytest.mark.parametrize(
    ("device", "dtype", "expected"),
    [
        ("cpu", "auto", "fp32"),
        ("cuda:0", "auto", "fp16"),
        ("mps", "auto", "fp32"),
        ("cpu", "fp16", "fp16"),
        ("cuda:0", "fp32", "fp32"),
    ],
)
def test_the_dtype_follows_the_device(device: str, dtype: str, expected: str) -> None:
    """Half precision where the hardware is made for it."""
    assert expected == dtype_on(device, dtype)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Apple GPU paints, though it cannot measure."""
    import torch

    assert "cpu" == device_named("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert "mps" == device_named("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="'mps' is not there"):
        device_named("mps")
    with pytest.raises(DeviceError, match="unknown device 'tpu'"):
        device_named("tpu")
