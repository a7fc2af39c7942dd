"""The names of networks in their layouts, built from the structure of the networks for the tests beside it.

Every function gives pairs (original, canonical). A fused tensor comes once for each of its parts, and its
original name ends with `[part]`. The numbers of blocks are computed here and spelled out in the maps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Pairs = list[tuple[str, str]]

RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
}


def unet(depths: Sequence[int], *, embedding: str = "") -> Pairs:
    """A U-Net with so many transformer blocks on each level, and one more embedding of this name."""
    layers: list[tuple[str, str]] = [
        ("time_embed.0", "time_embedding.linear_1"),
        ("time_embed.2", "time_embedding.linear_2"),
        ("input_blocks.0.0", "conv_in"),
        ("out.0", "conv_norm_out"),
        ("out.2", "conv_out"),
    ]
    if embedding:
        layers += [(f"label_emb.0.{2 * n}", f"{embedding}.linear_{n + 1}") for n in (0, 1)]
    pairs: Pairs = []
    levels = len(depths)
    for i, depth in enumerate(depths):
        for j in range(2):
            at = f"input_blocks.{1 + 3 * i + j}"
            layers += _residual(f"{at}.0", f"down_blocks.{i}.resnets.{j}", shortcut=i in (1, 2) and j == 0)
            pairs += _transformer(f"{at}.1", f"down_blocks.{i}.attentions.{j}", depth)
        if i < levels - 1:
            layers.append((f"input_blocks.{3 * (i + 1)}.0.op", f"down_blocks.{i}.downsamplers.0.conv"))
    for i, depth in enumerate(reversed(depths)):
        for j in range(3):
            at = f"output_blocks.{3 * i + j}"
            layers += _residual(f"{at}.0", f"up_blocks.{i}.resnets.{j}", shortcut=True)
            pairs += _transformer(f"{at}.1", f"up_blocks.{i}.attentions.{j}", depth)
        if i < levels - 1:
            place = 2 if depth else 1
            layers.append((f"output_blocks.{3 * i + 2}.{place}.conv", f"up_blocks.{i}.upsamplers.0.conv"))
    for j in range(2):
        layers += _residual(f"middle_block.{2 * j}", f"mid_block.resnets.{j}", shortcut=False)
    pairs += _transformer("middle_block.1", "mid_block.attentions.0", max(depths))
    return _both(layers) + pairs


def _residual(old: str, new: str, *, shortcut: bool) -> Iterator[tuple[str, str]]:
    for a, b in RESIDUAL.items():
        yield f"{old}.{a}", f"{new}.{b}"
    if shortcut:
        yield f"{old}.skip_connection", f"{new}.conv_shortcut"


def _transformer(old: str, new: str, depth: int) -> Iterator[tuple[str, str]]:
    inner = [f"{layer}.{param}" for layer in ("norm", "proj_in", "proj_out") for param in ("weight", "bias")]
    for block in range(depth):
        layers = ["norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2", "attn1.to_out.0", "attn2.to_out.0"]
        names = [f"{layer}.{param}" for layer in layers for param in ("weight", "bias")]
        names += [f"{attn}.to_{x}.weight" for attn in ("attn1", "attn2") for x in "qkv"]
        inner += [f"transformer_blocks.{block}.{name}" for name in names]
    return ((f"{old}.{name}", f"{new}.{name}") for name in inner if depth)


def vae(*, quant: bool = True) -> Pairs:
    """A VAE of four levels; Flux's and SD 3's have no `quant` convolutions."""
    layers: list[tuple[str, str]] = []
    for half, blocks in (("encoder", 2), ("decoder", 3)):
        old_word, new_word = ("down", "down_blocks") if half == "encoder" else ("up", "up_blocks")
        for i in range(4):
            old = f"{half}.{old_word}.{i if half == 'encoder' else 3 - i}"
            new = f"{half}.{new_word}.{i}"
            for j in range(blocks):
                layers += [(f"{old}.block.{j}.{x}", f"{new}.resnets.{j}.{x}") for x in _CONVOLUTIONS]
            if i in ((1, 2) if half == "encoder" else (2, 3)):
                layers.append((f"{old}.block.0.nin_shortcut", f"{new}.resnets.0.conv_shortcut"))
            if i < 3:
                sampler = f"{old_word}sample"
                layers.append((f"{old}.{sampler}.conv", f"{new}.{sampler}rs.0.conv"))
        for j in range(2):
            old, new = f"{half}.mid.block_{j + 1}", f"{half}.mid_block.resnets.{j}"
            layers += [(f"{old}.{x}", f"{new}.{x}") for x in _CONVOLUTIONS]
        attention = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
        layers += [
            (f"{half}.mid.attn_1.{a}", f"{half}.mid_block.attentions.0.{b}") for a, b in attention.items()
        ]
        ends = {"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"}
        layers += [(f"{half}.{a}", f"{half}.{b}") for a, b in ends.items()]
    if quant:
        layers += [("quant_conv", "quant_conv"), ("post_quant_conv", "post_quant_conv")]
    return _both(layers)


def openclip(layers: int) -> Pairs:
    """OpenCLIP's text tower and transformers' CLIPTextModelWithProjection."""
    pairs = [
        ("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
        ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
        ("text_projection", "text_projection.weight"),
        *_both([("ln_final", "text_model.final_layer_norm")]),
    ]
    renamed = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
    renamed |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for n in range(layers):
        old, new = f"transformer.resblocks.{n}", f"text_model.encoder.layers.{n}"
        pairs += _both([(f"{old}.{a}", f"{new}.{b}") for a, b in renamed.items()])
        for param in ("weight", "bias"):
            for x in "qkv":
                pairs.append((f"{old}.attn.in_proj_{param}[{x}]", f"{new}.self_attn.{x}_proj.{param}"))
    return pairs


def clip(layers: int) -> Pairs:
    """CLIP's text encoder without and with `text_model.`."""
    attention = [f"self_attn.{x}_proj" for x in ("q", "k", "v", "out")]
    inner = [*attention, "mlp.fc1", "mlp.fc2", "layer_norm1", "layer_norm2"]
    names = [f"encoder.layers.{n}.{x}.{p}" for n in range(layers) for x in inner for p in ("weight", "bias")]
    names += [f"embeddings.{x}" for x in ("token_embedding.weight", "position_embedding.weight")]
    names += ["embeddings.position_ids", "final_layer_norm.weight", "final_layer_norm.bias"]
    return [(name, f"text_model.{name}") for name in names]


def flux(double: int, single: int, *, guidance: bool) -> Pairs:
    """Flux dev (with guidance) or schnell (without)."""
    embedders = {"time_in": "timestep_embedder", "vector_in": "text_embedder"}
    if guidance:
        embedders["guidance_in"] = "guidance_embedder"
    layers = [("img_in", "x_embedder"), ("txt_in", "context_embedder"), ("final_layer.linear", "proj_out")]
    for old, new in embedders.items():
        layers += [(f"{old}.in_layer", f"time_text_embed.{new}.linear_1")]
        layers += [(f"{old}.out_layer", f"time_text_embed.{new}.linear_2")]
    pairs = _swapped("final_layer.adaLN_modulation.1", "norm_out.linear")
    for n in range(double):
        old, new = f"double_blocks.{n}", f"transformer_blocks.{n}"
        for side, added, context in (("img", ("to_{}", "norm_{}"), ""), ("txt", _ADDED, "_context")):
            layers += [
                (f"{old}.{side}_mod.lin", f"{new}.norm1{context}.linear"),
                (f"{old}.{side}_attn.proj", f"{new}.attn.{'to_add_out' if context else 'to_out.0'}"),
                (f"{old}.{side}_mlp.0", f"{new}.ff{context}.net.0.proj"),
                (f"{old}.{side}_mlp.2", f"{new}.ff{context}.net.2"),
            ]
            parts = {x: f"attn.{added[0].format(x)}" for x in "qkv"}
            pairs += _fused(f"{old}.{side}_attn.qkv", new, parts)
            pairs += _norms(f"{old}.{side}_attn.norm", f"{new}.attn", added[1])
    for n in range(single):
        old, new = f"single_blocks.{n}", f"single_transformer_blocks.{n}"
        layers += [(f"{old}.modulation.lin", f"{new}.norm.linear"), (f"{old}.linear2", f"{new}.proj_out")]
        parts = {x: f"attn.to_{x}" for x in "qkv"} | {"mlp": "proj_mlp"}
        pairs += _fused(f"{old}.linear1", new, parts)
        pairs += _norms(f"{old}.norm", f"{new}.attn", "norm_{}")
    return _both(layers) + pairs


def sd3(depth: int, *, dual: int = 0, norms: bool = True) -> Pairs:
    """SD 3 (without `norms`) or 3.5; the first `dual` blocks of 3.5 medium have a second attention."""
    layers = [("x_embedder.proj", "pos_embed.proj"), ("context_embedder", "context_embedder")]
    layers += [("final_layer.linear", "proj_out")]
    for old, new in (("t_embedder", "timestep_embedder"), ("y_embedder", "text_embedder")):
        layers += [(f"{old}.mlp.{2 * n}", f"time_text_embed.{new}.linear_{n + 1}") for n in (0, 1)]
    pairs = [("pos_embed", "pos_embed.pos_embed")]
    pairs += _swapped("final_layer.adaLN_modulation.1", "norm_out.linear")
    for n in range(depth):
        new, last = f"transformer_blocks.{n}", n == depth - 1
        x_block, context_block = f"joint_blocks.{n}.x_block", f"joint_blocks.{n}.context_block"
        attentions = [(x_block, "attn", "attn", ("to_{}", "norm_{}"), "to_out.0")]
        attentions += [(context_block, "attn", "attn", _ADDED, "" if last else "to_add_out")]
        if n < dual:
            attentions += [(x_block, "attn2", "attn2", ("to_{}", "norm_{}"), "to_out.0")]
        for old, a, b, added, out in attentions:
            pairs += _fused(f"{old}.{a}.qkv", new, {x: f"{b}.{added[0].format(x)}" for x in "qkv"})
            if norms:
                pairs += [
                    (f"{old}.{a}.ln_{x}.weight", f"{new}.{b}.{added[1].format(x)}.weight") for x in "qk"
                ]
            layers += [(f"{old}.{a}.proj", f"{new}.{b}.{out}")] if out else []
        layers += [(f"{x_block}.adaLN_modulation.1", f"{new}.norm1.linear")]
        for old, context in ((x_block, ""), (context_block, "_context")):
            if not (last and context):
                layers += [(f"{old}.mlp.fc1", f"{new}.ff{context}.net.0.proj")]
                layers += [(f"{old}.mlp.fc2", f"{new}.ff{context}.net.2")]
        if last:
            pairs += _swapped(f"{context_block}.adaLN_modulation.1", f"{new}.norm1_context.linear")
        else:
            layers += [(f"{context_block}.adaLN_modulation.1", f"{new}.norm1_context.linear")]
    return _both(layers) + pairs


def _both(layers: Sequence[tuple[str, str]]) -> Pairs:
    return [(f"{old}.{param}", f"{new}.{param}") for old, new in layers for param in ("weight", "bias")]


def _fused(old: str, new: str, parts: dict[str, str]) -> Pairs:
    return [
        (f"{old}.{param}[{word}]", f"{new}.{name}.{param}")
        for param in ("weight", "bias")
        for word, name in parts.items()
    ]


def _norms(old: str, new: str, name: str) -> Pairs:
    words = {"query_norm": "q", "key_norm": "k"}
    return [(f"{old}.{a}.scale", f"{new}.{name.format(b)}.weight") for a, b in words.items()]


def _swapped(old: str, new: str) -> Pairs:
    """A modulation whose halves the two layouts store in opposite orders."""
    return [
        (f"{old}.{param}[{word}]", f"{new}.{param}[{word}]")
        for param in ("weight", "bias")
        for word in ("shift", "scale")
    ]


_CONVOLUTIONS = ("norm1", "conv1", "norm2", "conv2")
_ADDED = ("add_{}_proj", "norm_added_{}")
