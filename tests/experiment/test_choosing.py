"""Which columns there are, and what each of them takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import AnalyzerError, RecipeError, SelectorError
from analyzer.experiment.choosing import (
    ARTICLE,
    Choice,
    axis_of,
    left_out,
    limits,
    named_columns,
    parents,
    ranked_columns,
    require_measured,
    unchanged,
)
from analyzer.experiment.records import Column
from analyzer.merging.inputs import Inputs
from analyzer.scan import scan

Tensors = dict[str, np.ndarray]
Open = Callable[[Path, Path], Inputs]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Open two files as the inputs of a merge; closed at the end."""
    with ExitStack() as stack:

        def both(a: Path, b: Path) -> Inputs:
            return Inputs(*(stack.enter_context(open_checkpoint(path)) for path in (a, b)))

        yield both


@pytest.fixture
def inputs(opened: Open, write: Callable[..., Path], unet: Callable[[int], Tensors]) -> Inputs:
    """Two miniatures of Stable Diffusion 1.5."""
    return opened(write("a.safetensors", unet(0)), write("b.safetensors", unet(1)))


@pytest.fixture
def language(opened: Open, write: Callable[..., Path]) -> Inputs:
    """Two miniatures of a language model, of which `mlp` is the same."""
    rng = np.random.default_rng(0)
    layers = [f"model.layers.{n}.{x}.weight" for n in range(3) for x in ("self_attn.q_proj", "mlp.up_proj")]
    layers += ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    a = {key: rng.standard_normal((4,) if "norm" in key else (4, 4)).astype(np.float32) for key in layers}
    b = {key: value if ".mlp." in key else value * np.float32(1.5) for key, value in a.items()}
    return opened(write("a.safetensors", a), write("b.safetensors", b))


def chosen(inputs: Inputs, choice: Choice) -> tuple[Column, ...]:
    """The categories' columns."""
    choice.check()
    _, b = parents(inputs)
    assert b.plan is not None
    axis = axis_of(choice, b.plan)
    if axis is None:
        return named_columns(inputs, choice, b.plan)
    return ranked_columns(inputs, choice, b.plan, scan(inputs.a, inputs.b), axis=axis)


def test_a_takes_nothing_and_b_takes_all_that_a_merge_may_touch(inputs: Inputs) -> None:
    """Integers and the noise schedule stay A's, whatever is asked for."""
    a, b = parents(inputs)
    assert ("A", None, None, ()) == (a.label, a.recipe, a.plan, a.keys)
    left = [key for key in inputs.a.infos if key not in set(b.keys)]
    assert ["betas", "cond_stage_model.transformer.text_model.embeddings.position_ids"] == sorted(left)
    assert list(b.keys) == [key for key in inputs.a.infos if key in set(b.keys)]


def test_the_articles_categories_are_the_default(inputs: Inputs) -> None:
    """In its order, within the U-Net, with all of B's values."""
    columns = chosen(inputs, Choice())
    assert list(ARTICLE) == [column.label for column in columns]
    assert [f"unet,{label}" for label in ARTICLE] == [column.selector for column in columns]
    unet = {key for key in inputs.a.infos if key.startswith("model.diffusion_model.")}
    for column in columns:
        words = column.label.split(",")
        if column.label in ("weight", "bias"):
            expected = {key for key in unet if key.endswith(f".{column.label}")}
        else:
            expected = {key for key in unet if any(word in key.split(".") for word in words)}
        assert expected == set(column.keys)
        assert column.plan is not None
        assert {1.0} == {x.alpha for x in column.plan.actions if x.key in expected}


def test_what_a_model_lacks_of_the_articles_categories_is_left_out(
    opened: Open, write: Callable[..., Path], unet: Callable[[int], Tensors]
) -> None:
    """No column, and no error: nobody asked for it."""
    files = []
    for seed in (0, 1):
        tensors = {key: value for key, value in unet(seed).items() if "skip_connection" not in key}
        files.append(write(f"{seed}.safetensors", tensors))
    columns = chosen(opened(*files), Choice())
    assert [label for label in ARTICLE if label != "skip_connection"] == [x.label for x in columns]


def test_a_selector_that_names_a_part_or_raw_keys_stands_by_itself(inputs: Inputs) -> None:
    """The denoiser is no gate for it."""
    columns = chosen(inputs, Choice(each=("CLIP", "vae,bias", "key:cond_stage_model.*", "bias")))
    assert ["CLIP", "vae,bias", "key:cond_stage_model.*", "unet,bias"] == [x.selector for x in columns]
    assert ["first_stage_model.decoder.conv_out.bias"] == list(columns[1].keys)
    assert set(columns[0].keys) == set(columns[2].keys)


def test_only_replaces_the_gate(inputs: Inputs) -> None:
    """What lies outside of the denoiser can be reached, and what lies in it be cut down."""
    (column,) = chosen(inputs, Choice(each=("bias",), only="CLIP,U-Net"))
    assert {"model", "cond_stage_model"} == {key.split(".")[0] for key in column.keys}
    (attention,) = chosen(inputs, Choice(each=("attn1,weight",), only="attn1,attn2,IN01"))
    assert "IN01,attn1,weight" == attention.selector
    assert 2 == len(attention.keys)


def test_the_alpha_is_of_every_category_and_not_of_b(inputs: Inputs) -> None:
    """Column B is the whole of B."""
    _, b = parents(inputs)
    (column,) = chosen(inputs, Choice(each=("attn1",), alpha=0.25))
    assert b.plan is not None
    assert column.plan is not None
    assert {0.25} == {x.alpha for x in column.plan.actions if x.verb == "merge"}
    assert {1.0} == {x.alpha for x in b.plan.actions if x.key in set(b.keys)}


def test_an_axis_has_a_column_for_each_group_of_the_ranking(inputs: Inputs) -> None:
    """Together they are the denoiser, and none holds another's keys."""
    columns = chosen(inputs, Choice(axis="component"))
    keys = [key for column in columns for key in column.keys]
    assert sorted(key for key in inputs.a.infos if key.startswith("model.")) == sorted(keys)
    assert {"attn1", "attn2", "ff", "skip_connection"} <= {column.label for column in columns}


def test_the_axis_of_parts_is_not_within_the_denoiser(inputs: Inputs) -> None:
    """Or there would be one column."""
    columns = chosen(inputs, Choice(axis="part"))
    assert {"unet", "text_encoder", "vae"} == {column.label for column in columns}


def test_an_axis_under_a_gate_of_the_same_axis(inputs: Inputs) -> None:
    """Terms of one axis would unite: the groups stay apart."""
    columns = chosen(inputs, Choice(axis="component", only="attn1,attn2,weight"))
    assert {"attn1", "attn2"} == {column.label for column in columns}
    for column in columns:
        assert all(f".{column.label}." in key and key.endswith("weight") for key in column.keys)


def test_models_without_a_unet_are_taken_apart_by_component(language: Inputs) -> None:
    """All of such a model is its denoiser, so there is no gate; what did not change comes last."""
    columns = chosen(language, Choice())
    assert {"self_attn", "mlp", "norm", "embed_tokens", "lm_head"} == {column.label for column in columns}
    assert "mlp" == columns[-1].label
    assert frozenset({"mlp"}) == unchanged(columns, scan(language.a, language.b))


def test_nothing_is_unchanged_that_was_not_measured(language: Inputs) -> None:
    """A scan of a part says nothing of the rest."""
    columns = chosen(language, Choice())
    assert frozenset() == unchanged(columns, scan(language.a, language.b, only="self_attn"))


def test_a_category_twice_is_one_column(inputs: Inputs) -> None:
    """In the place where it was first named."""
    columns = chosen(inputs, Choice(each=("attn2", "attn1", "attn2")))
    assert ["attn2", "attn1"] == [column.label for column in columns]


def test_a_component_called_as_a_model_is(opened: Open, write: Callable[..., Path]) -> None:
    """Its column is told from A's."""
    rng = np.random.default_rng(0)
    pair = [
        write(f"{n}.safetensors", {f"net.{x}.weight": rng.random((2, 2)) for x in ("A", "C")}) for n in "ab"
    ]
    assert "category A" in {column.label for column in chosen(opened(*pair), Choice(each=("A",)))}


@pytest.mark.parametrize(
    ("choice", "error", "words"),
    [
        (Choice(each=("attn1",), axis="block"), AnalyzerError, "--each and --axis"),
        (Choice(axis="blocks"), AnalyzerError, "unknown axis 'blocks'"),
        (Choice(alpha=0.0), AnalyzerError, "--alpha 0"),
        (Choice(alpha=float("nan")), AnalyzerError, "--alpha nan"),
        (Choice(each=("atn1",)), SelectorError, "nearest are attn1"),
        (Choice(each=("self_attn",)), SelectorError, "text_encoder,self_attn"),
        (Choice(each=("attn1",), only="atn1"), SelectorError, "nearest are attn1"),
        (Choice(only="atn1"), SelectorError, "nearest are attn1"),
        (Choice(each=("CLIP",), only="U-Net"), SelectorError, "both speak of part"),
        (Choice(each=("attn1,proj_in",), only="attn1,ff,OUT11"), SelectorError, "both speak of component"),
        (Choice(only="part:other"), SelectorError, "none of the usual categories"),
        (Choice(each=("attn1,bias",)), None, ""),
        (Choice(each=("part:other",)), RecipeError, "none can be merged"),
        (Choice(axis="component", only="part:other"), AnalyzerError, "none of its groups can be merged"),
    ],
)
def test_what_cannot_be_chosen(
    inputs: Inputs, choice: Choice, error: type[AnalyzerError] | None, words: str
) -> None:
    """One sentence that says the way out."""
    if error is None:
        assert chosen(inputs, choice)
        return
    with pytest.raises(error) as caught:
        chosen(inputs, choice)
    assert words in str(caught.value)


def test_what_column_b_lacks_of_b_is_told(
    opened: Open, write: Callable[..., Path], unet: Callable[[int], Tensors]
) -> None:
    """Keys of one of the two alone, and other shapes; of copies and tables, which paint nothing, no word."""
    a, b = unet(0), unet(1)
    lost = sorted(key for key in b if ".attn2." in key)  # as a safetensors file has them
    shaped = next(key for key in b if ".skip_connection.weight" in key)
    b = {key: value for key, value in b.items() if key not in lost}
    b[shaped] = np.zeros((3, *b[shaped].shape[1:]), np.float16)
    b |= {"model.diffusion_model.label_emb.0.0.weight": np.zeros((4, 4), np.float16)}
    b |= {"model_ema.diffusion_modelouttwoweight": np.zeros((4, 4), np.float16)}
    inputs = opened(write("a.safetensors", a), write("b.safetensors", b))
    whole = parents(inputs)[1].plan
    assert whole is not None
    (text,) = limits(inputs, whole)
    assert text == (
        f"column B is A with all of B that fits: {len(lost)} of A have no like in B ({lost[0]} …); "
        f"1 has another shape in B ({shaped}); "
        "1 of B has no like in A (model.diffusion_model.label_emb.0.0.weight)"
    )
    columns = named_columns(inputs, Choice(), whole)
    (text,) = left_out(Choice(), None, columns)
    assert text == "no column for attn2: nothing of that can be taken from B"
    assert [] == left_out(Choice(each=("ff",)), None, columns)


def test_of_relatives_that_have_all_in_common_nothing_is_told(inputs: Inputs) -> None:
    whole = parents(inputs)[1].plan
    assert whole is not None
    assert [] == limits(inputs, whole)
    assert [] == left_out(Choice(), None, named_columns(inputs, Choice(), whole))


def test_a_scan_of_a_part_is_refused(inputs: Inputs) -> None:
    """Its sums of a category would be of less than the category takes."""
    b = parents(inputs)[1]
    require_measured(scan(inputs.a, inputs.b, threads=1), b, where="scan.json")
    with pytest.raises(AnalyzerError, match=r"scan\.json: lacks [0-9,]+ keys, such as .*--only"):
        require_measured(scan(inputs.a, inputs.b, only="attn1", threads=1), b, where="scan.json")


def test_a_category_that_cannot_be_merged_is_named_by_its_option(pocket_pair: Any) -> None:
    with (
        open_checkpoint(pocket_pair.a) as a,
        open_checkpoint(pocket_pair.b) as b,
        pytest.raises(RecipeError, match=r"^--each text_encoder,position_ids selects"),
    ):
        chosen(Inputs(a, b), Choice(each=("text_encoder,position_ids",)))
