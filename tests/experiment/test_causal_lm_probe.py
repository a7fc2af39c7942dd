"""`--probe causal_lm` on tiny models that transformers has built, against merged folders that it loads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import AnalyzerError
from analyzer.experiment.measures import movement
from analyzer.experiment.probes.causal_lm import PROMPTS, logits
from analyzer.experiment.probing import open_prober
from analyzer.experiment.records import A, B, Column
from analyzer.merge import merge, plan_merge
from analyzer.merging.inputs import Inputs
from analyzer.recipes.recipe import Recipe

WORDS = ("the", "capital", "of", "france", "is", "once", "upon", "a", "time", "sky", "blue", "why")
GIVEN = ("the capital of france is", "why is the sky blue", "once")
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 32,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def pair(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny Llama with a tied head and a tokenizer of a few words, and a copy with noise added."""
    root = tmp_path_factory.mktemp("llama")
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, tie_word_embeddings=True))
    model.save_pretrained(root / "a", max_shard_size="8KB")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    model.save_pretrained(root / "b", max_shard_size="8KB")
    _tokenizer(transformers).save_pretrained(root / "a")  # B has none: a column's is A's
    return root / "a", root / "b"


def _tokenizer(transformers: Any) -> Any:
    import tokenizers

    vocabulary = {word: place for place, word in enumerate(("<unk>", *WORDS))}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>")


@pytest.fixture(scope="module")
def inputs(pair: tuple[Path, Path]) -> Iterator[Inputs]:
    with open_checkpoint(pair[0]) as a, open_checkpoint(pair[1]) as b:
        yield Inputs(a, b)


Asked = Callable[..., NDArray[np.float32]]


@pytest.fixture(scope="module")
def asked(inputs: Inputs) -> Iterator[Asked]:
    """What `--probe causal_lm` shows of a recipe's model; of A without one. All by one prober."""
    prober = open_prober("causal_lm", inputs, prompts=GIVEN)

    def ask(recipe: Recipe | None = None) -> NDArray[np.float32]:
        plan = plan_merge(inputs, recipe) if recipe else None
        prober.take(Column("", None, recipe, plan))
        return prober.show(0).output

    yield ask
    prober.close()


def spoken(transformers: Any, folder: Path, tokens_of: Path) -> NDArray[np.float32]:
    """The logits after each prompt, of a folder as transformers itself loads it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype="float32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokens_of, local_files_only=True)
    with torch.no_grad():
        rows = [model.eval()(**tokenizer(text, return_tensors="pt")).logits[0, -1] for text in GIVEN]
    return torch.stack(rows).numpy()


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(alpha=1.0),
        Recipe(only="self_attn", alpha=1.0),
        Recipe(only="mlp", alpha=0.3),
        Recipe(only="embed_tokens", alpha=1.0),  # and the tied head with it
    ],
)
def test_a_column_speaks_as_the_merged_folder(
    transformers: Any, asked: Asked, inputs: Inputs, tmp_path: Path, recipe: Recipe
) -> None:
    """Bit for bit what transformers computes of what a merge has written."""
    merge(inputs, plan_merge(inputs, recipe), recipe, out=tmp_path / "merged")
    wanted = spoken(transformers, tmp_path / "merged", tmp_path / "merged")
    assert np.array_equal(wanted, asked(recipe))
    assert (len(GIVEN), SIZES["vocab_size"]) == wanted.shape


def test_all_of_b_is_b_and_nothing_is_a(transformers: Any, asked: Asked, pair: tuple[Path, Path]) -> None:
    """The ends of the scale: toward_b is 1 of everything and 0 of nothing, and neither is 0 at both."""
    a, b = (spoken(transformers, folder, pair[0]) for folder in pair)
    assert np.array_equal(a, asked())
    whole, nothing = movement(a, b, asked(Recipe(alpha=1.0))), movement(a, b, asked(Recipe(alpha=0.0)))
    assert (1.0, 0.0) == (whole.toward_b, whole.neither)
    assert (0.0, 0.0) == (nothing.toward_b, nothing.neither)
    part = movement(a, b, asked(Recipe(only="self_attn", alpha=1.0)))
    assert part.moved is not None
    assert 0 < part.moved
    assert np.array_equal(a, asked())  # A again, after all of these


def test_weights_in_bf16_are_computed_with_in_fp32(
    transformers: Any, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """Rounding would hide small effects; `dtype` asks for it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(pair[0], local_files_only=True)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "a")
    _tokenizer(transformers).save_pretrained(tmp_path / "a")
    wanted = spoken(transformers, tmp_path / "a", tmp_path / "a")
    with open_checkpoint(tmp_path / "a") as a:
        for dtype, close in (("fp32", 0.0), ("bf16", 0.1)):
            prober = open_prober("causal_lm", Inputs(a, a), prompts=GIVEN, dtype=dtype)
            prober.take(Column(A, None, None, None))
            found = prober.show(0).output
            prober.close()
            np.testing.assert_allclose(wanted, found, rtol=0, atol=close)
            assert (dtype == "fp32") == np.array_equal(wanted, found)


def test_it_has_prompts_of_its_own(inputs: Inputs) -> None:
    """Where none is given; it is asked once for each model, for it takes no seed."""
    prober = open_prober("causal_lm", inputs)
    prober.take(Column(A, None, None, None))
    assert (len(PROMPTS), SIZES["vocab_size"]) == prober.show(0).output.shape
    assert not prober.seeded
    prober.close()


def test_the_library_is_left_as_it_was(transformers: Any, asked: Asked) -> None:
    """Its bars and its verbosity are the caller's."""
    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    asked()
    assert before == (logging.get_verbosity(), logging.is_progress_bar_enabled())


def refused(folder: Path, **options: Any) -> str:
    """The sentence with which a folder's own model is refused."""
    with open_checkpoint(folder) as a:
        prober = open_prober("causal_lm", Inputs(a, a), **options)
        prober.take(Column(B, None, None, None))
        with pytest.raises(AnalyzerError) as caught:
            prober.show(0)
        prober.close()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def copy(pair: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(pair[0], tmp_path / "copy"))


def _configured(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_weights_of_another_network_are_refused(copy: Path) -> None:
    """A third layer that has no weights, or a wider one: nothing random is ever shown."""
    _configured(copy, num_hidden_layers=3)
    assert "9 weights of LlamaForCausalLM are missing or of another shape" in refused(copy)


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    _configured(copy, intermediate_size=48)
    assert "6 weights of LlamaForCausalLM are missing or of another shape" in refused(copy)


def test_a_network_that_is_no_causal_model_is_refused(copy: Path) -> None:
    _configured(copy, model_type="clip_vision_model")
    assert "transformers cannot use it (Unrecognized configuration class" in refused(copy)


def test_code_beside_a_model_is_not_run(copy: Path, tmp_path: Path) -> None:
    """A configuration that sends the loader to a file in the folder is refused, and the file left alone."""
    (copy / "own.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    _configured(copy, model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"})
    assert "transformers cannot use it" in refused(copy)
    assert not (tmp_path / "run").exists()


def test_a_folder_without_configuration_is_refused(copy: Path) -> None:
    (copy / "config.json").unlink()
    assert "has no config.json" in refused(copy)


def test_a_folder_without_tokenizer_is_refused(copy: Path) -> None:
    for path in copy.glob("tokenizer*"):
        path.unlink()
    assert "transformers cannot use it" in refused(copy)


def test_a_prompt_without_a_token_is_refused(copy: Path) -> None:
    assert "the prompt '' has no token" in refused(copy, prompts=["once", ""])


def test_the_probe_is_a_function_for_anybody(transformers: Any, pair: tuple[Path, Path]) -> None:
    """It takes a state_dict as torch has it, without an experiment around it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(pair[1], local_files_only=True)
    assert np.array_equal(
        spoken(transformers, pair[1], pair[0]), logits(model.state_dict(), str(pair[0]), GIVEN)
    )
