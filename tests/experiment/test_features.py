"""Perceptual features come from a local vision model, and from nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from analyzer.errors import AnalyzerError
from analyzer.experiment.features import open_features

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZE = 32
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION |= {"image_size": SIZE, "patch_size": 8}
PICTURE = np.random.default_rng(5).integers(0, 256, (48, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP with random weights, saved by transformers."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"vocab_size": 50, "max_position_embeddings": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
    transformers.CLIPModel(config).save_pretrained(folder)
    _processor(folder)
    return folder


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DINOv2."""
    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(1)
    config = transformers.Dinov2Config(**{key: VISION[key] for key in VISION if key != "intermediate_size"})
    transformers.Dinov2Model(config).save_pretrained(folder)
    _processor(folder)
    return folder


def _processor(folder: Path) -> None:
    sides = {"height": SIZE, "width": SIZE}
    config = {"image_processor_type": "CLIPImageProcessor", "size": sides, "crop_size": sides}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))


def _inputs(folder: Path) -> torch.Tensor:
    """The picture as the folder's processor prepares it."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    return processor(images=PICTURE, return_tensors="pt")["pixel_values"]


def test_features_of_clip_are_its_image_embedding(clip: Path) -> None:
    """Vision tower, then projection, computed by hand from the model's own parts."""
    model = transformers.CLIPModel.from_pretrained(clip).eval()
    with torch.no_grad():
        pooled = model.vision_model(pixel_values=_inputs(clip)).pooler_output
        expected = torch.nn.functional.normalize(pooled @ model.visual_projection.weight.T)[0]
    found = open_features(clip)(PICTURE)
    assert (24,) == found.shape
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def test_features_of_dino_are_its_pooled_output(dino: Path) -> None:
    model = transformers.Dinov2Model.from_pretrained(dino).eval()
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model(pixel_values=_inputs(dino)).pooler_output)[0]
    np.testing.assert_allclose(open_features(dino)(PICTURE), expected.numpy(), atol=1e-6)


def test_features_tell_pictures_apart_and_are_the_same_each_time(dino: Path) -> None:
    features = open_features(dino)
    assert np.array_equal(features(PICTURE), features(PICTURE))
    assert not np.array_equal(features(PICTURE), features(255 - PICTURE))


def test_a_pooler_that_was_not_saved_is_not_a_random_one(tmp_path: Path) -> None:
    """ViT's class has a pooler, many of its checkpoints have none: then the first token counts."""
    torch.manual_seed(2)
    model = transformers.ViTModel(transformers.ViTConfig(**VISION), add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path)
    _processor(tmp_path)
    with torch.no_grad():
        first = model(pixel_values=_inputs(tmp_path)).last_hidden_state[:, 0]
    expected = torch.nn.functional.normalize(first)[0]
    np.testing.assert_allclose(open_features(tmp_path)(PICTURE), expected.numpy(), atol=1e-6)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnalyzerError, match=r"has no config\.json; name a folder of a vision model"):
        open_features(tmp_path)


def test_a_pickle_is_never_opened(dino: Path, tmp_path: Path) -> None:
    """Weights that only a pickle holds are refused, whatever it would do."""
    folder = tmp_path / "model"
    shutil.copytree(dino, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(AnalyzerError, match="transformers cannot use it"):
        open_features(folder)


def test_code_of_a_folder_is_never_run(dino: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(dino, folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}
    config["model_type"] = "evil"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    with pytest.raises(AnalyzerError, match="transformers cannot use it"):
        open_features(folder)
    assert not (tmp_path / "run").exists()


def test_a_model_of_text_is_refused(tmp_path: Path) -> None:
    """Though it lies beside a processor of pictures."""
    torch.manual_seed(3)
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=20
    )
    transformers.BertModel(config).save_pretrained(tmp_path)
    _processor(tmp_path)
    with pytest.raises(AnalyzerError, match="BertModel sees no pictures"):
        open_features(tmp_path)


def test_weights_that_are_missing_are_not_made_up(dino: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(dino, folder)
    tensors = load_file(folder / "model.safetensors")
    removed = next(key for key in tensors if key.endswith("query.weight"))
    save_file(
        {key: tensors[key] for key in tensors if key != removed},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(AnalyzerError, match=r"lacks weights of its network, such as \S+\.weight;"):
        open_features(folder)
