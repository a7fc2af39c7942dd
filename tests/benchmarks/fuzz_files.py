"""Hostile model files that are no pickles: safetensors, folders with their indexes, GGUF, scaled fp8."""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from fuzz_bytes import ANY_JSON, NAMES, edited, edited_json
from hypothesis import strategies as st

from analyzer.categories import categorize
from analyzer.checkpoints import open_checkpoint

Call = Callable[[], object]
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U8": 1, "I8": 1}
SIZES |= {"I32": 4, "I64": 8, "BOOL": 1}

Tensors = Mapping[str, tuple[str, Sequence[int]]]


def safetensors(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    """A sound file of these dtypes and shapes."""
    header, data = header_of(tensors), b""
    if metadata:
        header = {"__metadata__": dict(metadata), **header}
    data = bytes(range(256)) * (_end(header) // 256 + 1)
    return with_length(json.dumps(header).encode(), data[: _end(header)])


def header_of(tensors: Tensors) -> dict[str, object]:
    """The header, as a value."""
    header: dict[str, object] = {}
    offset = 0
    for key, (dtype, shape) in tensors.items():
        size = math.prod(shape) * SIZES[dtype]
        header[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    return header


def with_length(header: bytes, data: bytes, length: int | None = None) -> bytes:
    """A file: the header's length, perhaps a lie, the header, the tensors."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def _end(header: Mapping[str, object]) -> int:
    ends = [
        entry["data_offsets"][1] for entry in header.values() if isinstance(entry, dict) and "shape" in entry
    ]
    return max(ends, default=0)


MODEL: Tensors = {
    "model.diffusion_model.input_blocks.0.0.weight": ("F16", (4, 4, 3, 3)),
    "model.diffusion_model.time_embed.0.weight": ("F16", (8, 4)),
    "model_ema.diffusion_modelinput_blocks00weight": ("F32", (4, 4, 3, 3)),
    "cond_stage_model.transformer.text_model.embeddings.position_ids": ("I64", (1, 77)),
    "betas": ("F64", (3,)),
    "v_pred": ("F32", (0,)),
    "scalar": ("BF16", ()),
}
SOUND = safetensors(MODEL, {"format": "pt", "a": "b"})
SOUND_HEADER = {"__metadata__": {"format": "pt"}, **header_of(MODEL)}


def look(path: Path) -> None:
    """Open a model, label its keys, read some of its bytes."""
    with open_checkpoint(path) as checkpoint:
        categorize(checkpoint.infos.values())
        checkpoint.fingerprint()
        for info in checkpoint.infos.values():  # dequantized, scaled, gathered from views
            for start in {0, max(info.nbytes // 4 * 4 - 4096, 0)} if info.nbytes % 4 == 0 else {0}:
                checkpoint.read_into(info, start, np.empty(min(info.nbytes - start, 4096), np.uint8))


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """The bytes of a .safetensors file."""
    kind = draw(st.sampled_from(["bytes", "json", "json", "twice", "length", "any", "sound", "sound"]))
    if kind == "sound":
        metadata = draw(st.dictionaries(_WORDS, _WORDS, max_size=2))
        return safetensors(draw(st.dictionaries(_WORDS, _TENSORS, max_size=6)), metadata)
    data = bytes(draw(st.sampled_from([_end(SOUND_HEADER), 0, 4, 24, 5000])))
    if kind == "bytes":
        return edited(draw, SOUND)
    if kind == "json":
        return with_length(edited_json(draw, SOUND_HEADER).encode("utf-8", "surrogatepass"), data)
    if kind == "twice":
        keys = draw(st.lists(st.sampled_from(["a", "b", "__metadata__", "\\u0061"]), min_size=2, max_size=4))
        entry = draw(st.sampled_from(['{"dtype":"F32","shape":[1],"data_offsets":[0,4]}', "{}", '{"a":"b"}']))
        return with_length(("{" + ",".join(f'"{key}":{entry}' for key in keys) + "}").encode(), data)
    if kind == "length":
        length = draw(st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 2000), st.just(100_000_001)))
        return with_length(json.dumps(SOUND_HEADER).encode(), data, length)
    value = draw(st.one_of(ANY_JSON, st.dictionaries(st.text(max_size=9), _ENTRIES, max_size=6)))
    return with_length(json.dumps(value).encode(), data)


_WORDS = st.one_of(
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=12),
    st.sampled_from(
        [
            *MODEL,
            "lora_up.weight",
            "a.lora_A.weight",
            "a.hada_w1_a",
            "emb_params",
            "__metadata__ ",
            "x" * 3000,
        ]
    ),
)
_TENSORS = st.tuples(st.sampled_from(sorted(SIZES)), st.lists(st.integers(0, 5), max_size=4))
_ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*SIZES, "F4", "C64", "f32", ""]),
        "shape": st.lists(st.one_of(st.integers(0, 9), st.integers()), max_size=5),
        "data_offsets": st.lists(st.one_of(st.integers(0, 64), st.integers()), min_size=1, max_size=3),
    }
)


def prepare_file(name: str) -> Callable[[Path, bytes], tuple[Call, int]]:
    """Writes the drawn bytes under this name."""

    def prepare(folder: Path, content: bytes) -> tuple[Call, int]:
        path = folder / name
        path.write_bytes(content)
        return lambda: look(path), len(content)

    return prepare


SHARDS = ("m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors")
KEYS = {"a": SHARDS[0], "b": SHARDS[0], "c": SHARDS[1]}
INDEX = {"metadata": {"total_size": 36}, "weight_map": KEYS}
PIPELINE = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "safety_checker": [None, None],
}


@st.composite
def indexes(draw: st.DrawFn) -> tuple[str, bytes]:
    """The name and the bytes of a JSON file that describes a folder."""
    name = draw(st.sampled_from(["m.safetensors.index.json", "model_index.json"]))
    sound = INDEX if name.startswith("m.") else PIPELINE
    names = st.one_of(st.sampled_from(NAMES), st.text(max_size=8))
    kind = draw(st.sampled_from(["bytes", "json", "json", "names", "any"]))
    if kind == "bytes":
        return name, edited(draw, json.dumps(sound).encode())
    if kind == "json":
        return name, edited_json(draw, sound).encode("utf-8", "surrogatepass")
    if kind == "any":
        return name, json.dumps(draw(ANY_JSON)).encode()
    if sound is INDEX:
        keys = st.one_of(st.sampled_from(list(KEYS)), st.text(max_size=4))
        weight_map = draw(st.dictionaries(keys, names, max_size=4))
        return name, json.dumps({"weight_map": KEYS | weight_map}).encode()
    kinds = st.one_of(st.just(["diffusers", "UNet2DConditionModel"]), ANY_JSON)
    return name, json.dumps(PIPELINE | draw(st.dictionaries(names, kinds, max_size=4))).encode()


def prepare_index(folder: Path, drawn: tuple[str, bytes]) -> tuple[Call, int]:
    """Two shards, a sub-folder with a third, a pipeline, and one of the JSON files."""
    name, content = drawn
    kind = "shards" if name.startswith("m.") else "pipeline"
    model = folder / kind
    if not model.exists():
        outside = folder.parent / "outside"
        outside.mkdir(exist_ok=True)
        (outside / "m.safetensors").write_bytes(safetensors({"d": ("F32", (3,))}))
        places = {"shards": (*SHARDS, "sub/m.safetensors"), "pipeline": ("unet/", "vae/", "text_encoder/")}
        for number, place in enumerate(places[kind]):
            file = model / (f"{place}diffusion_pytorch_model.safetensors" if place.endswith("/") else place)
            file.parent.mkdir(parents=True, exist_ok=True)
            tensors = dict.fromkeys(("ab", "c", "d")[number], ("F32", (3,)))
            file.write_bytes(safetensors(tensors))
    (model / name).write_bytes(content)
    return lambda: look(model / name if kind == "shards" and len(content) % 2 else model), len(content) + 1000


_STEMS = st.sampled_from(
    [
        "model",
        "pytorch_model",
        "diffusion_pytorch_model",
        "sd_xl_base_1.0",
        "x",
        "consolidated",
        "adapter_model",
    ]
)
_FILES = st.one_of(
    st.builds(
        "{}{}{}{}{}".format,
        _STEMS,
        st.sampled_from(["", "", ".fp16", ".non_ema", ".0"]),
        st.sampled_from(["", "", "-00001-of-00002", "-00002-of-00002", "-99999-of-99999", "-00000-of-00000"]),
        st.sampled_from([".safetensors", ".bin", ".ckpt", ".gguf", ".SAFETENSORS", ".pt", ".h5"]),
        st.sampled_from(["", "", "", ".index.json", ".index.fp16.json"]),
    ),
    st.text(min_size=1, max_size=12),
    st.sampled_from(
        ["optimizer.pt", "training_args.bin", "config.json", "adapter_config.json", "scheduler.bin"]
    ),
)
_CONTENTS = st.sampled_from(
    [SOUND, SOUND, safetensors({"a": ("F16", (2,))}), safetensors({"b": ("F16", (2,))}), b"", b"{}", b"PK"]
)


@st.composite
def folders(draw: st.DrawFn) -> dict[str, bytes]:
    """The names and contents of the files in a folder."""
    inside = st.sampled_from(["", "", "", "unet/", "vae/", "text_encoder/", "snapshots/1/", "x/"])
    names = draw(st.lists(st.tuples(inside, _FILES), min_size=1, max_size=draw(st.sampled_from([1, 2, 5]))))
    return {folder + name: draw(_CONTENTS) for folder, name in names}


def prepare_folder(folder: Path, files: Mapping[str, bytes]) -> tuple[Call, int]:
    """The folder; names that the file system does not take are left out."""
    model = folder / "model"
    shutil.rmtree(model, ignore_errors=True)
    model.mkdir()
    for name, content in files.items():
        path = model / name
        try:
            if model in path.resolve().parents:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        except (OSError, ValueError):
            continue
    return lambda: look(model), sum(map(len, files.values()))


def _text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


_LENGTHS = st.one_of(st.integers(0, 9), st.sampled_from([2**16, 2**31, 2**32, 2**63, 2**64 - 1]))
_ENTRY_NAMES = st.sampled_from(
    [
        b"general.architecture",
        b"general.alignment",
        b"split.count",
        b"a",
        b"\xff",
        b"comfy.gguf.orig_shape.a",
        b"x" * 70_000,
    ]
)
_GGUF_VALUES = st.one_of(
    st.tuples(
        st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 255]), st.binary(min_size=8, max_size=8)
    ),
    st.tuples(st.just(8), st.binary(max_size=9).map(_text)),
    st.tuples(
        st.just(9),
        st.builds(
            lambda code, count, rest: struct.pack("<IQ", code, count) + rest,
            st.sampled_from([0, 4, 5, 6, 8, 9, 10, 99]),
            _LENGTHS,
            st.one_of(st.binary(max_size=40), st.just(struct.pack("<IQ", 9, 1) * 9)),
        ),
    ),
)


@st.composite
def ggufs(draw: st.DrawFn) -> bytes:
    """The bytes of a .gguf file."""
    entries = [
        _text(name) + struct.pack("<I", code) + value
        for name, (code, value) in draw(st.lists(st.tuples(_ENTRY_NAMES, _GGUF_VALUES), max_size=3))
    ]
    tensors = []
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from([b"a", b"b.weight", b"\xed\xa0\x80", b"", b"c" * 300]))
        sizes = draw(st.lists(st.one_of(st.sampled_from([1, 2, 32, 256]), _LENGTHS), max_size=5))
        axes = draw(st.one_of(st.just(len(sizes)), _LENGTHS)) % 2**32
        code = draw(st.sampled_from([0, 1, 2, 8, 10, 12, 14, 24, 28, 30, 39, 4, 99, 2**32 - 1]))
        place = struct.pack("<IQ", code, draw(st.one_of(st.sampled_from([0, 32, 64, 1]), _LENGTHS)))
        tensors.append(_text(name) + struct.pack("<I", axes) + struct.pack(f"<{len(sizes)}Q", *sizes) + place)
    counts = [draw(st.one_of(st.just(n), st.just(n), _LENGTHS)) for n in (len(tensors), len(entries))]
    version = draw(st.sampled_from([3, 3, 3, 2, 1, 0, 3 << 24, 2**32 - 1]))
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(entries) + b"".join(tensors)
    content = head + bytes(-len(head) % 32) + bytes(draw(st.sampled_from([0, 64, 1000, 5000])))
    if draw(st.booleans()):
        sound = [_text(b"general.alignment") + struct.pack("<II", 4, 32)]
        head = b"GGUF" + struct.pack("<IQQ", 3, len(_SOUND_TENSORS), 1) + b"".join([*sound, *_SOUND_TENSORS])
        content = head + bytes(-len(head) % 32) + bytes(1000)
    return edited(draw, content) if draw(st.booleans()) else content


_SOUND_TENSORS = [
    _text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, code, place)
    for name, sizes, code, place in (
        (b"blk.0.attn_q.weight", (32, 4), 8, 0),
        (b"b", (4,), 0, 160),
        (b"c.weight", (2, 3), 30, 192),
        (b"d", (), 1, 224),
    )
]
_SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 31, 32, 128, 130, 256]), max_size=4).filter(
    lambda shape: math.prod(shape) <= 40_000
)
_SCALES = st.sampled_from(
    [
        *(
            "scale_weight",
            "weight_scale",
            "weight_scale_inv",
            "scale",
            "weight_scale_2",
            "comfy_quant",
            "input_scale",
        ),
        *("scale_weight_tensor", "pre_quant_scale", "weight_shape"),
    ]
)


@st.composite
def scaled(draw: st.DrawFn) -> bytes:
    """A .safetensors file with weights in fp8, or close to it, and what may be their scales."""
    tensors: dict[str, tuple[str, Sequence[int]]] = {}
    for stem in draw(
        st.lists(st.sampled_from(["a", "b.c", "experts.0.gate_up_proj", ""]), min_size=1, max_size=3)
    ):
        shape = draw(_SHAPES)
        dtype = draw(st.sampled_from(["F8_E4M3", "F8_E4M3", "F8_E5M2", "F16", "I8", "U8", "F8_E8M0"]))
        tensors[f"{stem}.weight"] = (dtype, shape)
        for name in draw(st.lists(_SCALES, max_size=3)):
            blocks = [-(-size // 128) for size in shape]
            fits = st.sampled_from(
                [[], [1], shape[:1], [*shape[:1], 1], blocks, shape, [*shape, 1], [512], [0]]
            )
            scale_dtype = draw(
                st.sampled_from(["F32", "F32", "F16", "BF16", "U8", "F8_E8M0", "I64", "F8_E4M3"])
            )
            tensors[f"{stem}.{name}"] = (scale_dtype, draw(st.one_of(fits, _SHAPES)))
    layers = draw(st.one_of(st.none(), ANY_JSON, st.just({"layers": {"a": {"format": "mxfp8"}, "b.c": 3}})))
    odd = draw(st.sampled_from(["", "{", "[" * 100_000]))
    metadata = {"_quantization_metadata": odd or json.dumps(layers)} if layers is not None else None
    return safetensors(tensors, metadata)
