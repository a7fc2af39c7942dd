"""What a column holds while it is painted, what it leaves behind, and what the pictures depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analyzer.checkpoints import Checkpoint, open_checkpoint
from analyzer.errors import AnalyzerError
from analyzer.experiment import painting
from analyzer.experiment.painting import Painter, open_painter
from analyzer.experiment.pipelines import load_pipeline
from analyzer.experiment.records import A, Column, Conditions
from analyzer.merge import merge, plan_merge
from analyzer.merging.inputs import Inputs
from analyzer.quiet import quiet
from analyzer.recipes.recipe import Recipe

State = dict[str, torch.Tensor]

CONDITIONS = Conditions(
    prompt="best quality, a woman",
    negative_prompt="blurry",
    seeds=(1, 2),
    steps=2,
    sampler="euler_a",
    cfg=3.0,
    width=64,
    height=64,
    device="cpu",
    dtype="fp32",
    alpha=1.0,
)
COLUMN_A = Column(A, None, None, None)


def column(inputs: Inputs, label: str, recipe: Recipe) -> Column:
    """A column as the loop makes it."""
    plan = plan_merge(inputs, recipe)
    return Column(label, recipe.only, recipe, plan)


def weights(pipeline: Any) -> State:
    """A copy of everything that the pipeline's networks hold."""
    return {
        f"{part}.{name}": value.detach().clone()
        for part, network in pipeline.components.items()
        if isinstance(network, torch.nn.Module)
        for name, value in network.state_dict().items()
    }


def differing(one: State, other: State) -> set[str]:
    """The names of tensors of which some bit differs."""
    assert one.keys() == other.keys()
    return {name for name, value in one.items() if value.numpy().tobytes() != other[name].numpy().tobytes()}


def written(model: Checkpoint, inputs: Inputs, recipe: Recipe, out: Path, configs: Path) -> State:
    """What diffusers loads of the file or folder that `mergescope merge` writes."""
    import diffusers

    path = out if model.folder else out.with_suffix(".safetensors")
    merge(inputs, plan_merge(inputs, recipe), recipe, out=path)
    kind, options = diffusers.StableDiffusionPipeline, {"dtype": torch.float32, "local_files_only": True}
    with quiet():
        if model.folder:
            return weights(kind.from_pretrained(str(path), **options))
        return weights(kind.from_single_file(str(path), config=str(configs), **options))


@pytest.fixture(scope="module")
def open_models(pocket_pair: Any) -> Iterator[dict[str, Checkpoint]]:
    """The pair in both layouts, open."""
    models = {
        name: open_checkpoint(getattr(pocket_pair, name)) for name in ("a", "b", "folder_a", "folder_b")
    }
    yield models
    for model in models.values():
        model.close()


@pytest.fixture(scope="module")
def shared(open_models: dict[str, Checkpoint]) -> Iterator[tuple[Inputs, Any, Painter]]:
    """A painter of single files for tests that leave it holding A."""
    inputs = Inputs(open_models["a"], open_models["b"])
    pipeline = load_pipeline(inputs.a, dtype="fp32", device="cpu")
    painter = open_painter(inputs, CONDITIONS, pipeline=pipeline)
    yield inputs, pipeline, painter
    painter.close()


@pytest.mark.parametrize(("of_a", "of_b"), list(product(("a", "folder_a"), ("b", "folder_b"))))
def test_a_column_holds_what_the_merge_writes(
    open_models: dict[str, Checkpoint], pocket_pair: Any, tmp_path: Path, of_a: str, of_b: str
) -> None:
    """Bit for bit, whatever the layouts of A and B; and nothing of A is lost on the way."""
    inputs = Inputs(open_models[of_a], open_models[of_b])
    pipeline = load_pipeline(inputs.a, dtype="fp32", device="cpu")
    painter = open_painter(inputs, CONDITIONS, pipeline=pipeline)
    before = weights(pipeline)
    painter.take(column(inputs, "attn2", Recipe(only="unet,attn2", alpha=1.0)))
    changed = differing(before, weights(pipeline))
    assert changed == {name for name in before if name.startswith("unet.") and ".attn2." in name}
    mixed = Recipe(alpha=0.3, sets=(("unet,attn2", 1.0), ("vae", 0.0), ("bias", 0.7)))
    painter.take(column(inputs, "mixed", mixed))
    expected = written(inputs.a, inputs, mixed, tmp_path / "mixed", pocket_pair.configs)
    held = weights(pipeline)
    assert set() == differing(expected, held)
    assert len(differing(before, held)) > 800
    painter.take(COLUMN_A)
    assert set() == differing(before, weights(pipeline))


def test_after_painting_columns_a_is_restored_bit_for_bit(
    shared: tuple[Inputs, Any, Painter], pocket_pair: Any
) -> None:
    """In the pipeline, in the picture, and on the disk."""
    inputs, pipeline, painter = shared
    files = [pocket_pair.a, pocket_pair.b]
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in files]
    before, picture = weights(pipeline), painter.show(1)
    for only in ("unet,attn1", "unet,attn1,ff", "unet,weight", "vae", None):
        painter.take(column(inputs, str(only), Recipe(only=only, alpha=1.0)))
        shown = painter.show(1)
        assert np.array_equal(picture.output, shown.output) == (only == "vae")
        assert not np.array_equal(picture.pixels, shown.pixels)
    painter.take(COLUMN_A)
    assert set() == differing(before, weights(pipeline))
    again = painter.show(1)
    np.testing.assert_array_equal(picture.output, again.output)
    np.testing.assert_array_equal(picture.pixels, again.pixels)
    assert digests == [hashlib.sha256(path.read_bytes()).digest() for path in files]


def test_only_what_differs_is_written(
    shared: tuple[Inputs, Any, Painter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From attn1 to attn1 and attn2: attn2 alone; to itself: nothing; to half of it: all again."""
    inputs, _, painter = shared
    count = 0
    put = painting.put

    def counting(*arguments: Any) -> None:
        nonlocal count
        count += 1
        put(*arguments)

    monkeypatch.setattr(painting, "put", counting)
    steps = [
        (Recipe(only="unet,attn1", alpha=1.0), 80),
        (Recipe(only="unet,attn1", alpha=1.0), 0),
        (Recipe(only="unet,attn1,attn2", alpha=1.0), 80),
        (Recipe(only="unet,attn2", alpha=1.0), 80),
        (Recipe(only="unet,attn2", alpha=0.5), 80),
    ]
    for recipe, expected in steps:
        count = 0
        painter.take(column(inputs, "x", recipe))
        assert expected == count, recipe.only
    count = 0
    painter.take(COLUMN_A)
    assert 80 == count


def test_a_column_that_fails_half_way_leaves_the_next_one_right(
    shared: tuple[Inputs, Any, Painter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error while B is read: what was written is known, and taken back."""
    inputs, pipeline, painter = shared
    before = weights(pipeline)
    tensors = painting.merged_tensors

    def failing(*arguments: Any, **options: Any) -> Iterator[Any]:
        for place, found in enumerate(tensors(*arguments, **options)):
            if place == 5:
                raise AnalyzerError("b ends early")
            yield found

    with monkeypatch.context() as patch:
        patch.setattr(painting, "merged_tensors", failing)
        with pytest.raises(AnalyzerError, match="ends early"):
            painter.take(column(inputs, "ff", Recipe(only="unet,ff", alpha=1.0)))
    assert 5 == len(differing(before, weights(pipeline)))
    painter.take(column(inputs, "ff", Recipe(only="unet,ff", alpha=1.0)))
    assert differing(before, weights(pipeline)) == {
        name for name in before if name.startswith("unet.") and ".ff." in name
    }
    painter.take(COLUMN_A)
    assert set() == differing(before, weights(pipeline))


def test_the_same_seed_paints_the_same_picture(shared: tuple[Inputs, Any, Painter]) -> None:
    """Twice the same, whatever was painted between; another seed is another picture."""
    _, _, painter = shared
    first, other, again = painter.show(3), painter.show(4), painter.show(3)
    np.testing.assert_array_equal(first.output, again.output)
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.output, other.output)
    assert ((4, 8, 8), np.float32) == (first.output.shape, first.output.dtype)
    assert ((64, 64, 3), np.uint8) == (first.pixels.shape, first.pixels.dtype)
    assert first.seconds > 0


def test_the_picture_is_that_of_the_plain_pipeline(
    shared: tuple[Inputs, Any, Painter], pocket_pair: Any
) -> None:
    """A user who calls diffusers with a seeded generator of the CPU gets the same, latents and pixels."""
    import diffusers

    _, _, painter = shared
    shown = painter.show(5)
    with quiet():
        plain = diffusers.StableDiffusionPipeline.from_pretrained(
            str(pocket_pair.folder_a), dtype=torch.float32
        )
        plain.scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(plain.scheduler.config)
        plain.set_progress_bar_config(disable=True)
        ask: Callable[..., Any] = lambda kind: plain(  # noqa: E731
            CONDITIONS.prompt,
            negative_prompt=CONDITIONS.negative_prompt,
            num_inference_steps=2,
            guidance_scale=3.0,
            generator=torch.Generator().manual_seed(5),
            output_type=kind,
        ).images[0]
        latents, picture = ask("latent"), ask("pil")
    np.testing.assert_array_equal(latents.numpy(), shown.output)
    np.testing.assert_array_equal(np.asarray(picture), shown.pixels)


def test_weights_that_are_not_finite_paint_what_they_paint(shared: tuple[Inputs, Any, Painter]) -> None:
    """NaN comes out as NaN and raises no warning; what it means is for the measures to say."""
    _, pipeline, painter = shared
    bias = pipeline.unet.conv_out.bias.data
    was = bias.clone()
    bias[:] = torch.nan
    shown = painter.show(1)
    bias[:] = was
    assert np.isnan(shown.output).all()
    assert (64, 64, 3) == shown.pixels.shape


@pytest.mark.parametrize(("width", "height"), [(60, 64), (64, 4), (0, 64)])
def test_a_size_that_cannot_be_painted_is_refused(
    shared: tuple[Inputs, Any, Painter], width: int, height: int
) -> None:
    """With one that can."""
    inputs, pipeline, _ = shared
    conditions = replace(CONDITIONS, width=width, height=height)
    with pytest.raises(AnalyzerError, match=rf"--size {width}x{height}: .* multiples of 8, such as \d+x\d+"):
        open_painter(inputs, conditions, pipeline=pipeline)


def test_other_sizes_are_painted(shared: tuple[Inputs, Any, Painter]) -> None:
    """Wider than high, of a number of latents that the U-Net must round up for."""
    inputs, _, _ = shared
    pipeline = load_pipeline(inputs.a, dtype="fp32", device="cpu")
    conditions = replace(CONDITIONS, width=88, height=64, steps=1, sampler="ddim")
    shown = open_painter(inputs, conditions, pipeline=pipeline).show(1)
    assert ((4, 8, 11), (64, 88, 3)) == (shown.output.shape, shown.pixels.shape)


def test_threads_are_those_asked_for_and_as_before_afterwards(
    shared: tuple[Inputs, Any, Painter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small model paints on one, where nothing was asked for."""
    inputs, pipeline, painter = shared
    seen: list[int] = []

    class EnoughError(Exception):
        """So that nothing is painted on two threads, which may wait long for one another."""

    def spy(*_arguments: Any, **_options: Any) -> None:
        seen.append(torch.get_num_threads())
        raise EnoughError

    monkeypatch.setattr(type(pipeline.unet), "forward", spy)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for each in (painter, Painter(inputs, CONDITIONS, pipeline, threads=2)):
            with pytest.raises(EnoughError):
                each.show(1)
            assert 3 == torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    assert [1, 2] == seen
