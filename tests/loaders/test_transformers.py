"""Merged language models load in transformers as folders: shards, index, tied heads, configuration.

The models are built, saved and loaded by transformers itself; the expected weights are computed here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

Run = Callable[..., Any]

ALPHA = 0.3
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 32,
}
FAMILIES = ("Llama", "Qwen2")
TOKENS = torch.arange(1, 9)[None]


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="pip install transformers")


@pytest.fixture(scope="module")
def pair(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Path]]:
    """Two models of one family and different seeds, saved in several shards."""

    def build(family: str, *, tied: bool, dtype: torch.dtype = torch.float32) -> tuple[Path, Path]:
        root = tmp_path_factory.mktemp(family)
        for seed, name in enumerate(("a", "b")):
            torch.manual_seed(seed)
            config = getattr(transformers, f"{family}Config")(**SIZES, tie_word_embeddings=tied)
            model = getattr(transformers, f"{family}ForCausalLM")(config).to(dtype)
            model.save_pretrained(root / name, max_shard_size="60KB" if dtype == torch.float32 else "30KB")
            (root / name / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {name: 0}}}))
        return root / "a", root / "b"

    return build


def load(transformers: Any, folder: Path, **options: Any) -> Any:
    """The model in a folder; fails where a weight is missing, unexpected or of another shape."""
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        str(folder), local_files_only=True, output_loading_info=True, **options
    )
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [False, True])
def test_a_sharded_folder_loads(
    transformers: Any,
    pair: Callable[..., tuple[Path, Path]],
    tmp_path: Path,
    run: Run,
    family: str,
    tied: bool,
) -> None:
    """The same shards, index and companions as A's; all weights are the blend, a tied head follows."""
    a, b = pair(family, tied=tied)
    shards = sorted(path.name for path in a.glob("*.safetensors"))
    assert 2 <= len(shards)
    out = tmp_path / "merged"
    assert 0 == run("merge", a, b, "-o", out, "--alpha", ALPHA).code
    assert sorted(path.name for path in a.iterdir()) == sorted(path.name for path in out.iterdir())
    for name in ("config.json", "generation_config.json", "tokenizer.json"):
        assert (a / name).read_bytes() == (out / name).read_bytes()
    one, two, merged = (load(transformers, folder) for folder in (a, b, out))
    states = [model.state_dict() for model in (one, two, merged)]
    for key, tensor in states[0].items():
        x, y = (state[key].to(torch.float64).numpy() for state in (states[0], states[1]))
        assert tensor.shape == states[2][key].shape
        np.testing.assert_allclose(states[2][key].numpy(), x + ALPHA * (y - x), rtol=2.0**-23, atol=1e-12)
    head, embedding = merged.get_output_embeddings().weight, merged.get_input_embeddings().weight
    assert tied == (head.data_ptr() == embedding.data_ptr())
    with torch.no_grad():
        assert torch.isfinite(merged(TOKENS).logits).all()


def test_alpha_1_speaks_as_b(
    transformers: Any, pair: Callable[..., tuple[Path, Path]], tmp_path: Path, run: Run
) -> None:
    """At alpha 1 the merged folder computes what B computes, and at alpha 0 what A does."""
    a, b = pair("Llama", tied=False)
    for alpha, side in ((0, a), (1, b)):
        out = tmp_path / str(alpha)
        assert 0 == run("merge", a, b, "-o", out, "--alpha", alpha).code
        with torch.no_grad():
            wanted, found = (load(transformers, folder)(TOKENS).logits for folder in (side, out))
        assert torch.equal(wanted, found)


def test_a_cast_folder_loads_in_its_dtype(
    transformers: Any, pair: Callable[..., tuple[Path, Path]], tmp_path: Path, run: Run
) -> None:
    """config.json is told of --dtype, and `dtype="auto"` goes by it."""
    a, b = pair("Qwen2", tied=True)
    out = tmp_path / "merged"
    assert 0 == run("merge", a, b, "-o", out, "--alpha", ALPHA, "--dtype", "bf16").code
    model = load(transformers, out, dtype="auto")
    assert {torch.bfloat16} == {parameter.dtype for parameter in model.parameters()}


def test_bf16_shards_are_rounded_once(
    transformers: Any, pair: Callable[..., tuple[Path, Path]], tmp_path: Path, run: Run
) -> None:
    """Models in bf16 stay so: each value is the exact blend, rounded once."""
    a, b = pair("Llama", tied=False, dtype=torch.bfloat16)
    out = tmp_path / "merged"
    assert 0 == run("merge", a, b, "-o", out, "--only", "self_attn", "--alpha", "0.5").code
    one, two, merged = (load(transformers, folder, dtype="auto").state_dict() for folder in (a, b, out))
    for key, tensor in one.items():
        wanted = ((tensor.double() + two[key].double()) / 2).bfloat16() if ".self_attn." in key else tensor
        assert torch.equal(wanted, merged[key]), key
