"""Every tensor of a model is found in the pipeline that diffusers made of it, and nothing else passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from analyzer.checkpoints import Checkpoint, open_checkpoint
from analyzer.errors import AnalyzerError
from analyzer.experiment.pipelines import load_pipeline
from analyzer.experiment.placing import Spot, place, put, read_tensor
from analyzer.records import View

WIDTH, LAYERS, WORDS = 8, 2, 20


@pytest.fixture(scope="module", params=["a", "folder_a"])
def loaded(pocket_pair: Any, request: pytest.FixtureRequest) -> Iterator[tuple[Checkpoint, Any]]:
    """A model in either layout, and its pipeline; a test leaves it as it was."""
    with open_checkpoint(getattr(pocket_pair, request.param)) as model:
        yield model, load_pipeline(model, dtype="fp32", device="cpu")


def test_every_weight_of_the_pipeline_has_its_place(loaded: tuple[Checkpoint, Any]) -> None:
    """All parameters are covered, in both layouts; what has no place are a file's tables and numbers."""
    model, pipeline = loaded
    placing = place(model, pipeline)
    covered = [(id(spot.module), spot.name) for spots in placing.values() for spot in spots]
    networks = [each for each in pipeline.components.values() if isinstance(each, torch.nn.Module)]
    assert sum(len(list(network.parameters())) for network in networks) == len(set(covered)) == len(covered)
    rest = model.infos.keys() - placing.keys()
    assert (13 if model.format == "safetensors" else 0) == len(rest), rest


def test_a_value_that_is_not_as_in_the_file_is_found(loaded: tuple[Checkpoint, Any]) -> None:
    """One element of one tensor, by the smallest step."""
    model, pipeline = loaded
    bias = pipeline.unet.mid_block.resnets[0].conv1.bias.data
    was = bias[3].clone()
    bias[3] = torch.nextafter(was, torch.tensor(9.0))
    with pytest.raises(AnalyzerError, match=r"mid(dle)?_block\..*\.bias.*--config"):
        place(model, pipeline)
    bias[3] = was


def test_a_weight_that_the_model_does_not_hold_is_found(loaded: tuple[Checkpoint, Any]) -> None:
    """A network that was made larger than the file."""
    model, pipeline = loaded
    pipeline.unet.conv_out.register_parameter("extra", torch.nn.Parameter(torch.ones(2)))
    with pytest.raises(AnalyzerError, match=r"1 weights .*unet\.conv_out\.extra"):
        place(model, pipeline)
    del pipeline.unet.conv_out.extra


def test_another_model_altogether_has_no_place(
    loaded: tuple[Checkpoint, Any], write: Callable[..., Path]
) -> None:
    """Not one name in common."""
    path = write("other.safetensors", {"x.y": np.ones(3, np.float32)})
    with open_checkpoint(path) as other, pytest.raises(AnalyzerError, match="none of its tensors"):
        place(other, loaded[1])


def test_nan_and_the_weights_dtype_are_no_difference(pocket_pair: Any, tmp_path: Path) -> None:
    """fp32 on the disk and fp16 in the pipeline: rounded once; what is not a number stays so."""
    from safetensors.torch import load_file

    tensors = {
        key: value.float() * (1 + 2**-18) if value.is_floating_point() else value
        for key, value in load_file(pocket_pair.a).items()
    }
    key = "model.diffusion_model.out.2.bias"
    tensors[key][0] = torch.nan
    save_file(tensors, tmp_path / "wide.safetensors", {"format": "pt"})
    with open_checkpoint(tmp_path / "wide.safetensors") as model:
        pipeline = load_pipeline(model, dtype="fp16", device="cpu")
        assert {torch.float16} == {p.dtype for p in pipeline.unet.parameters()}
        assert len(place(model, pipeline)[key]) == 1


@pytest.fixture
def openclip(tmp_path: Path) -> Iterator[tuple[Checkpoint, Any]]:
    """A text encoder as OpenCLIP stores it, with q, k and v in one tensor and a transposed projection."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(3)
    config = CLIPTextConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        projection_dim=WIDTH,
        bos_token_id=WORDS - 2,
        eos_token_id=WORDS - 1,
        pad_token_id=WORDS - 1,
    )
    network = CLIPTextModelWithProjection(config)
    own = {name.removeprefix("text_model."): value.detach() for name, value in network.state_dict().items()}
    own |= {name: torch.randn(value.shape) for name, value in own.items()}
    network.load_state_dict(
        {name: own[name.removeprefix("text_model.")] for name in network.state_dict()}, strict=True
    )
    save_file(dict(_openclip(own)), tmp_path / "clip.safetensors")
    with open_checkpoint(tmp_path / "clip.safetensors") as model:
        yield model, SimpleNamespace(components={"text_encoder_2": network})


def _openclip(own: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """The names of open_clip's text tower inside an SDXL file, written down by hand."""
    top = "conditioner.embedders.1.model."
    yield f"{top}token_embedding.weight", own["embeddings.token_embedding.weight"]
    yield f"{top}positional_embedding", own["embeddings.position_embedding.weight"]
    yield f"{top}text_projection", own["text_projection.weight"].T.contiguous()
    for end in ("weight", "bias"):
        yield f"{top}ln_final.{end}", own[f"final_layer_norm.{end}"]
        for layer in range(LAYERS):
            old, new = f"{top}transformer.resblocks.{layer}.", f"encoder.layers.{layer}."
            parts = [own[f"{new}self_attn.{word}_proj.{end}"] for word in "qkv"]
            yield f"{old}attn.in_proj_{end}", torch.cat(parts)
            yield f"{old}attn.out_proj.{end}", own[f"{new}self_attn.out_proj.{end}"]
            for one, other in {"ln_1": "layer_norm1", "ln_2": "layer_norm2"}.items():
                yield f"{old}{one}.{end}", own[f"{new}{other}.{end}"]
            for one, other in {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}.items():
                yield f"{old}{one}.{end}", own[f"{new}{other}.{end}"]


def test_fused_and_transposed_tensors_go_where_their_rows_live(openclip: tuple[Checkpoint, Any]) -> None:
    """Three places for q, k and v; a projection that lies the other way round."""
    model, pipeline = openclip
    network = pipeline.components["text_encoder_2"]
    placing = place(model, pipeline)
    assert model.infos.keys() == placing.keys()
    fused = "conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_weight"
    turned = "conditioner.embedders.1.model.text_projection"
    assert 3 == len(placing[fused])
    values = torch.arange(3.0 * WIDTH * WIDTH)
    put(placing[fused], values)
    (attention,) = (each for name, each in network.named_modules() if name.endswith("layers.1.self_attn"))
    there = [each.weight.flatten() for each in (attention.q_proj, attention.k_proj, attention.v_proj)]
    assert torch.equal(values, torch.cat(there))
    put(placing[turned], values[: WIDTH * WIDTH])
    assert torch.equal(values[: WIDTH * WIDTH].reshape(WIDTH, WIDTH).T, network.text_projection.weight)
    for key in (fused, turned):
        put(placing[key], read_tensor(model, key))
    place(model, pipeline)  # all is as in the file again


@settings(max_examples=60)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    more=st.integers(0, 3),
    before=st.integers(0, 7),
    transposed=st.booleans(),
)
def test_a_view_shows_the_elements_that_its_definition_names(
    rows: int, columns: int, more: int, before: int, transposed: bool
) -> None:
    """Against the words of `View`, element by element."""
    stride = columns + more
    flat = np.arange(before + rows * stride, dtype=np.float32)
    module = torch.nn.Module()
    module.register_buffer("w", torch.from_numpy(flat.copy()))
    spot = Spot(module, "w", 0, rows * columns, before, View(columns, stride, transposed))
    matrix = flat[before:].reshape(rows, stride)[:, :columns]
    expected = (matrix.T if transposed else matrix).flatten()
    assert expected.tolist() == spot.tensor().flatten().tolist()
    put((spot,), torch.arange(-1.0, -1 - rows * columns, -1))
    found = module.w.numpy()
    changed = found != flat
    assert rows * columns == changed.sum()
    again = found[before:].reshape(rows, stride)[:, :columns]
    assert list(-1 - np.arange(rows * columns)) == (again.T if transposed else again).flatten().tolist()


def test_moving_a_network_does_not_lose_its_places(loaded: tuple[Checkpoint, Any]) -> None:
    """Pipelines cast a VAE to fp32 for a while; what is written afterwards still arrives."""
    model, pipeline = loaded
    placing = place(model, pipeline)
    pipeline.vae.to(torch.float64).to(torch.float32)
    key = next(key for key in placing if key.endswith("decoder.conv_out.bias"))
    put(placing[key], torch.tensor([1.0, 2.0, 3.0]))
    assert [1.0, 2.0, 3.0] == pipeline.vae.decoder.conv_out.bias.tolist()
    put(placing[key], read_tensor(model, key))
