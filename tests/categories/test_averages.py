"""Averages are known by their names, and each is labelled as what it copies."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.categories import categorize
from analyzer.categories.averages import MARKERS, is_average, live_folder, live_names
from analyzer.records import TensorInfo

sys.path.append(str(Path(__file__).resolve().parents[1] / "layouts"))
import layouts


def nothing(_name: str) -> None:
    """A `restore` that knows no name."""


@pytest.mark.parametrize(
    ("name", "folder", "expected"),
    [
        ("model_ema.diffusion_modelout0weight", "", True),
        ("model_ema.decay", "", True),
        ("ema_model.module.layers.0.weight", "", True),
        ("ema.layers.0.weight", "", True),
        ("ema_params.w", "", True),
        ("unet_ema.out.0.weight", "unet_ema", True),
        ("model.diffusion_model.out.0.weight", "", False),
        ("schema.weight", "", False),
        ("layers.0.ema.weight", "", False),
        ("model_emaX.a", "", False),
        ("unet.out.0.weight", "unet", False),
    ],
)
def test_averages_are_told_by_how_they_begin(name: str, folder: str, expected: bool) -> None:
    """By a whole first word, or by the folder's name; never by a word inside."""
    assert expected == is_average(name, folder)


def test_a_folder_of_averages_is_named_after_the_live_one() -> None:
    """Training writes `unet_ema` beside `unet`."""
    assert ("unet", "unet", "vae") == tuple(map(live_folder, ("unet_ema", "unet", "vae")))


def test_a_live_twin_is_found_without_its_dots() -> None:
    """The LDM code leaves all dots out; the key of the same file says where they were."""
    live = ["model.diffusion_model.input_blocks.1.0.in_layers.2.weight", "model.diffusion_model.out.2.bias"]
    averages = {f"model_ema.{name.removeprefix('model.').replace('.', '')}": name for name in live}
    assert averages == live_names(averages, live, nothing)


def test_a_live_twin_is_found_with_its_dots() -> None:
    """Other trainers keep the dots, with or without what wraps the model."""
    live = ["layers.0.weight", "model.out.bias"]
    averages = {"ema.layers.0.weight": live[0], "ema_model.module.layers.0.weight": live[0]}
    averages |= {"ema_model.model.out.bias": live[1]}
    assert averages == live_names(averages, live, nothing)


def test_without_a_twin_rules_put_the_dots_back() -> None:
    """`restore` is given what stands behind `diffusion_model`."""
    asked: list[str] = []

    def restore(name: str) -> str:
        asked.append(name)
        return "out.0.weight"

    found = live_names(["model_ema.diffusion_modelout0weight"], [], restore)
    assert {"model_ema.diffusion_modelout0weight": "model.diffusion_model.out.0.weight"} == found
    assert ["out0weight"] == asked


@pytest.mark.parametrize(
    ("average", "expected"),
    [
        ("model_ema.diffusion_modelunknown7weight", "diffusion_modelunknown7.weight"),
        ("model_ema.logvarbias", "logvar.bias"),
        ("model_ema.scale", "scale"),
        ("ema.a.b", "a.b"),
    ],
)
def test_without_twin_and_rule_a_name_is_its_own(average: str, expected: str) -> None:
    """Only the dot before the kind can be put back."""
    assert {average: expected} == live_names([average], [], nothing)


@given(names=st.lists(st.text(alphabet="ab0._", max_size=9).map("model_ema.{}".format), max_size=6))
def test_every_average_has_a_name(names: list[str]) -> None:
    """None is lost, whatever it is called."""
    assert dict.fromkeys(names).keys() == live_names(names, ["model.a.b"], nothing).keys()


LDM = layouts.infos("sd15-ldm-ema")


def test_averages_have_the_labels_of_what_they_copy() -> None:
    """Beside the live U-Net of a Stable Diffusion 1.5: block, component, group and kind of its twin."""
    found = categorize(LDM).labels
    prefix = "model.diffusion_model."
    copies = {
        f"model_ema.{key.removeprefix('model.').replace('.', '')}": key for key in found if prefix in key
    }
    assert len(copies) == 686
    for copy, key in copies.items():
        ema, live = found[copy], found[key]
        assert ("ema", False) == (ema.part, ema.counted)
        assert (live.block, live.component, live.group, live.kind) == (
            *(ema.block, ema.component, ema.group, ema.kind),
        )


def test_averages_alone_have_the_same_labels() -> None:
    """A file with nothing but averages: the rules of the architecture put their dots back."""
    together = categorize(LDM).labels
    alone = [info for info in LDM if info.key.startswith("model_ema.")]
    assert {info.key: together[info.key] for info in alone} == dict(categorize(alone).labels)


def test_markers_of_averages_are_markers() -> None:
    """The decay and the number of updates are no weights."""
    infos = [
        *LDM,
        *(TensorInfo(name, "F32", (), 0, 4) for name in sorted(MARKERS) if "model_ema" not in name),
    ]
    found = categorize(infos).labels
    for name in MARKERS & found.keys():
        assert ("ema", "marker", False) == (found[name].part, found[name].component, found[name].counted)


def test_a_folder_of_averages_copies_the_folder_without_its_suffix() -> None:
    """In a diffusers folder the keys begin with the sub-model's name."""
    live = layouts.infos("sd15-unet-diffusers")[:40]
    infos = [
        TensorInfo(f"{part}.{info.key}", info.dtype, info.shape, 0, info.nbytes, part=part)
        for part in ("unet", "unet_ema")
        for info in live
    ]
    found = categorize(infos).labels
    for info in live:
        ema, own = found[f"unet_ema.{info.key}"], found[f"unet.{info.key}"]
        assert ("ema", own.block, own.component, own.kind) == (ema.part, ema.block, ema.component, ema.kind)
