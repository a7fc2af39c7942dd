"""`--probe classifier` on tiny classifiers that transformers has built, against what it computes itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import AnalyzerError
from analyzer.experiment.probing import open_prober
from analyzer.experiment.records import A, B, Column
from analyzer.merge import plan_merge
from analyzer.merging.inputs import Inputs
from analyzer.recipes.recipe import Recipe

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXTS = ("i like it", "it is bad")


def shown(a: Path, b: Path, prompts: tuple[str, ...]) -> list[NDArray[np.float32]]:
    """What A and B show."""
    found = []
    with open_checkpoint(a) as one, open_checkpoint(b) as other:
        inputs, recipe = Inputs(one, other), Recipe(alpha=1.0)
        prober = open_prober("classifier", inputs, prompts=prompts)
        for column in (Column(A, None, None, None), Column(B, None, recipe, plan_merge(inputs, recipe))):
            prober.take(column)
            found.append(prober.show(0).output)
        prober.close()
    return found


@pytest.fixture(scope="module")
def texts(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two tiny BERTs that tell three classes of texts apart."""
    root = tmp_path_factory.mktemp("texts")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "i", "like", "it", "is", "bad"]
    for seed, name in ((1, "a"), (2, "b")):
        torch.manual_seed(seed)
        config = transformers.BertConfig(**SIZES, vocab_size=len(words), num_labels=3)
        transformers.BertForSequenceClassification(config).save_pretrained(root / name)
        transformers.BertTokenizer(vocab={x: i for i, x in enumerate(words)}).save_pretrained(root / name)
    return root / "a", root / "b"


def test_a_classifier_of_texts(transformers: Any, texts: tuple[Path, Path]) -> None:
    """The logits are those of the whole model, as transformers loads it."""
    for folder, found in zip(texts, shown(*texts, TEXTS), strict=True):
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        with torch.no_grad():
            wanted = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in TEXTS]
        assert np.array_equal(torch.stack(wanted).numpy(), found)


def test_it_has_texts_of_its_own(texts: tuple[Path, Path]) -> None:
    assert [3, 3] == [x.shape[1] for x in shown(*texts, ())]


@pytest.fixture(scope="module")
def pictures(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two tiny ViTs that tell three classes of pictures apart."""
    root = tmp_path_factory.mktemp("pictures")
    for seed, name in ((1, "a"), (2, "b")):
        torch.manual_seed(seed)
        config = transformers.ViTConfig(**SIZES, image_size=16, patch_size=8, num_labels=3)
        transformers.ViTForImageClassification(config).save_pretrained(root / name)
        transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(root / name)
    return root / "a", root / "b"


def test_a_classifier_of_pictures(transformers: Any, pictures: tuple[Path, Path], tmp_path: Path) -> None:
    """Prompts are files; the expected numbers are those of an independent scaling to −1 … 1."""
    image = pytest.importorskip("PIL.Image", reason="pip install pillow")
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    image.fromarray(pixels).save(tmp_path / "one.png")
    scaled = torch.from_numpy(pixels / 127.5 - 1).float().permute(2, 0, 1)[None]
    for folder, found in zip(pictures, shown(*pictures, (str(tmp_path / "one.png"),)), strict=True):
        model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
        with torch.no_grad():
            np.testing.assert_allclose(model(scaled).logits.numpy(), found, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ((), "is a classifier of pictures; name some"),
        (("missing.png",), "--prompt missing.png: is no picture"),
    ],
)
def test_a_classifier_of_pictures_needs_some(
    pictures: tuple[Path, Path], prompts: tuple[str, ...], said: str
) -> None:
    with pytest.raises(AnalyzerError, match=said):
        shown(*pictures, prompts)
