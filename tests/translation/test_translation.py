"""The names of one network in two layouts mean the same, and nothing else is taken for it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layout_pairs import Pairs, clip, flux, openclip, sd3, unet, vae

from analyzer.layouts import Facet, canonical, original

SHARED = Path(__file__).resolve().parents[3] / "shared" / "layouts"

UNETS: dict[str, Pairs] = {
    "SD 1.x": unet([1, 1, 1, 0]),
    "SD 2.x": unet([1, 1, 1, 0]),
    "SD 2.1 unCLIP": unet([1, 1, 1, 0], embedding="class_embedding"),
    "SDXL base": unet([0, 2, 10], embedding="add_embedding"),
    "SDXL refiner": unet([0, 4, 4, 0], embedding="add_embedding"),
}
VAES: dict[str, Pairs] = {"VAE": vae(), "VAE of Flux": vae(quant=False)}
OTHERS: dict[str, Pairs] = {
    "CLIP L": clip(12),
    "OpenCLIP H": openclip(24),
    "OpenCLIP G": openclip(32),
    "Flux dev": flux(19, 38, guidance=True),
    "Flux schnell": flux(19, 38, guidance=False),
    "SD 3": sd3(24, norms=False),
    "SD 3.5 large": sd3(38),
    "SD 3.5 medium": sd3(24, dual=13),
}
NETWORKS = UNETS | VAES | OTHERS
every_network = pytest.mark.parametrize("pairs", NETWORKS.values(), ids=NETWORKS)


def _names(marked: Iterable[str]) -> list[str]:
    """The names of tensors, each once, without the part that a mark says."""
    return list(dict.fromkeys(name.partition("[")[0] for name in marked))


def _sides(pairs: Pairs) -> tuple[list[str], list[str]]:
    return _names(old for old, _ in pairs), _names(new for _, new in pairs)


def _by_facet(names: Iterable[str]) -> dict[str, str]:
    """Which tensor has which facet, the fused ones marked as in the pairs."""
    return {
        facet.name: f"{name}[{facet.word}]" if facet.word else name
        for name, facets in canonical(list(names)).items()
        for facet in facets
    }


# --- Both layouts ---


@every_network
def test_each_tensor_is_the_same_in_both_layouts(pairs: Pairs) -> None:
    """What structure says of the two names of every tensor, and nothing is left over on either side."""
    old, new = (_by_facet(side) for side in _sides(pairs))
    assert old.keys() == new.keys()
    assert set(pairs) == {(old[facet], new[facet]) for facet in old}


@every_network
def test_facets_cover_the_rows_in_order(pairs: Pairs) -> None:
    """The parts of a tensor follow each other from its first row to its last; a whole one has no word."""
    for side in _sides(pairs):
        for facets in canonical(side).values():
            edges = [0, *(facet.last for facet in facets)]
            assert edges[:-1] == [facet.first for facet in facets]
            assert edges == sorted(set(edges))
            assert {edges[-1]} == {facet.of for facet in facets}
            assert (len(facets) > 1) == all(facet.word for facet in facets)


@every_network
def test_a_canonical_name_is_its_own_facet(pairs: Pairs) -> None:
    """Translating twice changes nothing: what a tensor is called in diffusers, its facets are called."""
    for name, facets in canonical(_sides(pairs)[1]).items():
        # The one layer that has two names in diffusers.
        expected = name.replace("class_embedding.", "add_embedding.")
        assert {expected} == {facet.name.partition("#")[0] for facet in facets}
        assert (len(facets) > 1) == all("#" in facet.name for facet in facets)


@every_network
def test_half_of_a_network_is_translated_as_in_the_whole(pairs: Pairs) -> None:
    """Every other tensor missing: what is there has the same facets."""
    old, _ = _sides(pairs)
    needed = [name for name in old if "mlp.fc1" in name or "embed" in name or ".layers.0." in name]
    some = list(dict.fromkeys([*old[::2], *needed]))
    whole = canonical(old)
    assert {name: whole[name] for name in some} == canonical(some)


@pytest.mark.parametrize(("name", "count"), [("SD 1.x", 686), ("SDXL base", 1680), ("SDXL refiner", 1220)])
def test_the_networks_of_these_tests_are_the_published_ones(name: str, count: int) -> None:
    """As many tensors as the published files have."""
    assert count == len(UNETS[name])
    assert 248 == len(VAES["VAE"])


def test_a_published_layout_is_understood() -> None:
    """Stable Diffusion 1.5 as it was published: the U-Net of the LDM file is that of the diffusers folder."""
    if not SHARED.exists():
        pytest.skip("needs the published layouts")
    prefix = "model.diffusion_model."
    ldm = [name.removeprefix(prefix) for name in _published("sd15-ldm.tsv") if name.startswith(prefix)]
    diffusers = _published("sd15-diffusers-unet.tsv")
    assert set(diffusers) == set(_by_facet(ldm))
    assert set(ldm) == set(original(diffusers).values())


@pytest.mark.parametrize("file", ["bert.tsv", "llama.tsv"])
def test_published_networks_without_a_map_keep_their_names(file: str) -> None:
    """BERT has an `encoder.layer` too, and is no CLIP."""
    if not SHARED.exists():
        pytest.skip("needs the published layouts")
    names = _published(file)
    assert {name: (Facet(name),) for name in names} == canonical(names)
    assert {} == original(names)


def _published(file: str) -> list[str]:
    lines = (SHARED / file).read_text(encoding="utf-8").splitlines()[1:]
    return [line.partition("\t")[0] for line in lines]


# --- Single facts ---

FACTS = [
    ("SD 1.x", "input_blocks.8.1.proj_in.weight", "down_blocks.2.attentions.1.proj_in.weight"),
    ("SD 1.x", "output_blocks.2.1.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"),
    ("SD 1.x", "output_blocks.5.2.conv.bias", "up_blocks.1.upsamplers.0.conv.bias"),
    ("SD 1.x", "input_blocks.9.0.op.weight", "down_blocks.2.downsamplers.0.conv.weight"),
    ("SD 1.x", "middle_block.2.out_layers.3.weight", "mid_block.resnets.1.conv2.weight"),
    ("SDXL base", "output_blocks.2.2.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"),
    ("SDXL base", "label_emb.0.2.bias", "add_embedding.linear_2.bias"),
    ("SDXL refiner", "output_blocks.2.1.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"),
    ("VAE", "decoder.up.0.block.2.conv1.weight", "decoder.up_blocks.3.resnets.2.conv1.weight"),
    ("VAE", "encoder.down.1.block.0.nin_shortcut.bias", "encoder.down_blocks.1.resnets.0.conv_shortcut.bias"),
    ("VAE", "encoder.mid.attn_1.proj_out.weight", "encoder.mid_block.attentions.0.to_out.0.weight"),
    ("CLIP L", "encoder.layers.3.mlp.fc1.bias", "text_model.encoder.layers.3.mlp.fc1.bias"),
    ("OpenCLIP G", "transformer.resblocks.31.mlp.c_proj.bias", "text_model.encoder.layers.31.mlp.fc2.bias"),
    ("Flux dev", "guidance_in.in_layer.bias", "time_text_embed.guidance_embedder.linear_1.bias"),
    ("Flux dev", "double_blocks.7.txt_mlp.2.weight", "transformer_blocks.7.ff_context.net.2.weight"),
    ("SD 3.5 large", "joint_blocks.7.x_block.attn.ln_q.weight", "transformer_blocks.7.attn.norm_q.weight"),
]


@pytest.mark.parametrize(("network", "old", "new"), FACTS)
def test_known_pairs_of_names(network: str, old: str, new: str) -> None:
    """Pairs read from the conversions of diffusers."""
    assert (Facet(new),) == canonical(_sides(NETWORKS[network])[0])[old]


def test_fused_rows_of_flux() -> None:
    """linear1 of a single block is q, k, v and a feed-forward as wide as four of them."""
    at = "single_transformer_blocks.3"
    assert (
        Facet(f"{at}.attn.to_q.bias", "q", 0, 1, 7),
        Facet(f"{at}.attn.to_k.bias", "k", 1, 2, 7),
        Facet(f"{at}.attn.to_v.bias", "v", 2, 3, 7),
        Facet(f"{at}.proj_mlp.bias", "mlp", 3, 7, 7),
    ) == canonical(["single_blocks.3.linear1.bias"])["single_blocks.3.linear1.bias"]


def test_the_last_modulation_of_flux_has_its_halves_swapped() -> None:
    """Shift and scale in the original, scale and shift in diffusers."""
    old = canonical(_sides(NETWORKS["Flux dev"])[0])["final_layer.adaLN_modulation.1.weight"]
    new = canonical(_sides(NETWORKS["Flux dev"])[1])["norm_out.linear.weight"]
    shift, scale = "norm_out.linear.weight#shift", "norm_out.linear.weight#scale"
    assert (Facet(shift, "shift", 0, 1, 2), Facet(scale, "scale", 1, 2, 2)) == old
    assert (Facet(scale, "scale", 0, 1, 2), Facet(shift, "shift", 1, 2, 2)) == new


def test_only_the_last_text_modulation_of_sd3_is_swapped() -> None:
    """All others have six parts in one order."""
    found = canonical(_sides(sd3(3))[1])
    halves = [len(found[f"transformer_blocks.{n}.norm1_context.linear.weight"]) for n in range(3)]
    assert [1, 1, 2] == halves


def test_the_projection_of_openclip_is_stored_transposed() -> None:
    """OpenCLIP multiplies from the right; a linear layer holds the transpose. Nothing else is transposed."""
    found = canonical(_sides(NETWORKS["OpenCLIP G"])[0])
    assert (Facet("text_projection.weight", transposed=True),) == found["text_projection"]
    assert ["text_projection"] == [k for k, facets in found.items() if any(f.transposed for f in facets)]


def test_old_diffusers_names_of_the_vae() -> None:
    """query, key, value and proj_attn are to_q, to_k, to_v and to_out.0, and have labels like these."""
    new = _sides(NETWORKS["VAE"])[1]
    words = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    older = {name: name for name in new}
    for word, old in words.items():
        older = {name: known.replace(f".{word}.", f".{old}.") for name, known in older.items()}
    assert {old: (Facet(name),) for name, old in older.items()} == canonical(list(older.values()))
    assert (
        "encoder.mid.attn_1.q.bias"
        == original(list(older.values()))["encoder.mid_block.attentions.0.query.bias"]
    )


# --- Labels ---

LABELLED = UNETS | VAES


@pytest.mark.parametrize("pairs", LABELLED.values(), ids=LABELLED)
def test_original_names_of_diffusers_networks(pairs: Pairs) -> None:
    """Every tensor of a diffusers U-Net or VAE has the label that structure says."""
    old, new = _sides(pairs)
    assert {new: old for old, new in pairs} == original(new)
    assert {} == original(old)


@pytest.mark.parametrize("pairs", OTHERS.values(), ids=OTHERS)
def test_networks_without_original_labels(pairs: Pairs) -> None:
    """Text encoders and transformers are labelled by the names that they have."""
    assert [{}, {}] == [original(side) for side in _sides(pairs)]


def test_names_without_a_counterpart_have_no_label() -> None:
    """A layer that only diffusers' code knows is left out; the rest keeps its labels."""
    pairs = UNETS["SD 1.x"]
    names = [*_sides(pairs)[1], "time_embedding.cond_proj.weight"]
    assert {new: old for old, new in pairs} == original(names)
    assert (Facet("time_embedding.cond_proj.weight"),) == canonical(names)["time_embedding.cond_proj.weight"]


# --- What is something else ---

STRANGERS = {
    "BERT": ["encoder.layer.0.attention.self.query.weight", "embeddings.word_embeddings.weight"],
    "BART": ["encoder.layers.0.self_attn.q_proj.weight", "encoder.layers.0.final_layer_norm.weight"],
    "CLIP's vision tower": [
        "embeddings.patch_embedding.weight",
        "embeddings.position_embedding.weight",
        "encoder.layers.0.layer_norm1.weight",
        "encoder.layers.0.self_attn.q_proj.weight",
    ],
    "OpenCLIP's vision tower": ["class_embedding", "conv1.weight", "transformer.resblocks.0.ln_1.weight"],
    "a U-Net of DeepFloyd": [
        "input_blocks.1.0.emb_layers.1.weight",
        "input_blocks.3.0.in_layers.0.weight",
        "input_blocks.15.0.in_layers.0.weight",
    ],
    "Stable Video Diffusion": [
        "input_blocks.1.0.emb_layers.1.weight",
        "input_blocks.1.0.time_stack.in_layers.0.weight",
    ],
    "a VQGAN of five levels": [
        "decoder.up.3.block.0.conv1.weight",
        "decoder.up.4.block.0.conv1.weight",
        "decoder.mid.attn_1.q.weight",
    ],
    "a VAE of three levels": ["decoder.up.2.block.0.conv1.weight", "decoder.mid.attn_1.q.weight"],
    "Mochi": [
        "norm_out.linear.weight",
        "patch_embed.proj.weight",
        "transformer_blocks.0.attn.add_q_proj.weight",
        "transformer_blocks.0.norm1_context.linear.weight",
    ],
    "Flux 2": [
        "double_blocks.0.img_attn.qkv.weight",
        "single_blocks.0.linear1.weight",
        "double_stream_modulation_img.lin.weight",
    ],
}


@pytest.mark.parametrize("names", STRANGERS.values(), ids=STRANGERS)
def test_other_networks_keep_their_names(names: list[str]) -> None:
    """Networks that share names with one that a map knows are not taken for it."""
    assert {name: (Facet(name),) for name in names} == canonical(names)
    assert {} == original(names)


def test_a_file_that_holds_two_layouts_keeps_both() -> None:
    """Where two tensors would have one name, neither is translated, and the others are."""
    names = [*_sides(UNETS["SD 1.x"])[0], "conv_in.weight"]
    found = canonical(names)
    for name in ("conv_in.weight", "input_blocks.0.0.weight"):
        assert (Facet(name),) == found[name]
    assert (Facet("conv_in.bias"),) == found["input_blocks.0.0.bias"]


def test_two_tensors_never_have_one_label() -> None:
    """The LDM layout has one name for SDXL's and for unCLIP's embedding; the canonical name gets it."""
    names = [*_sides(UNETS["SDXL base"])[1], "class_embedding.linear_1.weight"]
    labels = original(names)
    assert "label_emb.0.0.weight" == labels["add_embedding.linear_1.weight"]
    assert "class_embedding.linear_1.weight" not in labels


def test_a_fused_tensor_beside_one_of_its_parts_stays_whole() -> None:
    """All of it keeps its name, so that its facets still cover it."""
    found = canonical(["double_blocks.0.img_attn.qkv.weight", "transformer_blocks.0.attn.to_k.weight"])
    assert {name: (Facet(name),) for name in found} == found


EVERY_NAME = sorted({name for pairs in NETWORKS.values() for side in _sides(pairs) for name in side})
names_of_all_kinds = st.one_of(
    st.text(max_size=30),
    st.sampled_from(EVERY_NAME),
    st.builds(lambda name, more: name + more, st.sampled_from(EVERY_NAME), st.text(max_size=5)),
    st.lists(st.sampled_from(["", "0", "01", "9" * 30, "{n}", "#", "**", "x"]), max_size=6).map(".".join),
)


@given(st.lists(names_of_all_kinds, max_size=30, unique=True))
def test_any_names_are_translated(names: list[str]) -> None:
    """Nothing raises; every name has facets in order that cover it, and no facet belongs to two."""
    found = canonical(names)
    assert names == list(found)
    facets = [facet.name for parts in found.values() for facet in parts]
    assert len(facets) == len(set(facets))
    for parts in found.values():
        assert [0, *(part.last for part in parts[:-1])] == [part.first for part in parts]
        assert parts[-1].of == parts[-1].last
    labels = original(names)
    assert labels.keys() <= set(names)
    assert len(labels) == len(set(labels.values()))


@given(st.lists(st.text(st.characters(exclude_characters="."), max_size=20), unique=True))
def test_unknown_names_are_themselves(names: list[str]) -> None:
    """Names of no network are what they are."""
    assert {f"zz.{name}": (Facet(f"zz.{name}"),) for name in names} == canonical([f"zz.{n}" for n in names])


def test_translation_is_fast() -> None:
    """Three thousand names take a few hundredths of a second; ten times as long is a mistake."""
    names = [name.replace(".0.", f".{n}.") for n in range(3) for name in _sides(NETWORKS["Flux dev"])[0]]
    canonical(names)
    start = time.process_time()
    canonical(names)
    assert 0.5 > time.process_time() - start
