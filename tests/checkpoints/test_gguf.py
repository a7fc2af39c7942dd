"""GGUF files: what llama.cpp's own package writes is read, what is damaged is refused in a sentence."""

from __future__ import annotations

import importlib
import struct
import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from analyzer.checkpoints import Checkpoint, gguf_header, open_checkpoint
from analyzer.checkpoints.gguf_file import GGML_TYPES
from analyzer.errors import CheckpointError

F32, F16, Q8_0, Q4_K, Q8_1, BF16 = 0, 1, 8, 12, 9, 30
U8, U32, I32, F32_VALUE, TEXT, ARRAY = 0, 4, 5, 6, 8, 9
PLAIN = {"F32": (0, "<f4"), "F16": (1, "<f2"), "I8": (24, "i1"), "I16": (25, "<i2"), "I32": (26, "<i4")}
PLAIN |= {"I64": (27, "<i8"), "F64": (28, "<f8"), "BF16": (30, "<u2")}
DEQUANTIZED = [
    code for code, kind in GGML_TYPES.items() if kind.elements > 1 and kind.name not in ("Q8_1", "Q8_K")
]


def text(value: str | bytes) -> bytes:
    """A text by the format's definition."""
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(name: str, code: int, value: bytes) -> bytes:
    """A metadata entry."""
    return text(name) + struct.pack("<I", code) + value


def described(name: str | bytes, shape: Sequence[int], code: int, offset: int) -> bytes:
    """A tensor's description; `shape` is row-major, and the file has it the other way round."""
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
    return text(name) + sizes + struct.pack("<IQ", code, offset)


def assemble(
    entries: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """A file by the format's definition."""
    numbers = counts or (len(tensors), len(entries))
    head = b"GGUF" + struct.pack("<IQQ", version, *numbers) + b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data


SMALL = assemble(
    [
        entry("general.architecture", TEXT, text("flux")),
        entry("tokens", ARRAY, struct.pack("<IQ", TEXT, 2) + text("a") * 2),
    ],
    [described("a.weight", (2, 3), F32, 0), described("b", (4,), F16, 32)],
    bytes(range(40)),
)


def read(checkpoint: Checkpoint, key: str, chunk: int = 1 << 20) -> bytes:
    """A tensor's bytes, `chunk` at a time."""
    info = checkpoint.infos[key]
    whole = bytearray()
    for start in range(0, info.nbytes, chunk):
        part = np.empty(min(chunk, info.nbytes - start), np.uint8)
        checkpoint.read_into(info, start, part)
        whole += part.tobytes()
    return bytes(whole)


def refusal(path: Path, content: bytes) -> str:
    """What is said about the file, after its path."""
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path).close()
    name, _, sentence = str(caught.value).partition(": ")
    assert str(path) == name
    assert "\n" not in sentence
    return sentence


def write_with_gguf(
    path: Path, tensors: dict[str, tuple[np.ndarray, int]], **shapes: tuple[int, ...]
) -> None:
    """A file by llama.cpp's own writer; of raw blocks where the type is quantized."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "flux")
    writer.add_name("a model")
    writer.add_array("tokenizer.ggml.tokens", ["a", "bc", ""])
    for key, shape in shapes.items():
        writer.add_array(f"comfy.gguf.orig_shape.{key}", shape)
    for key, (array, code) in tensors.items():
        writer.add_tensor(key, array, raw_dtype=gguf.GGMLQuantizationType(code))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def random_blocks(code: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Any bytes are blocks of a type; the shape is of elements."""
    kind = GGML_TYPES[code]
    width = shape[-1] // kind.elements * kind.bytes
    return np.random.default_rng(seed).integers(0, 256, (*shape[:-1], width), dtype=np.uint8)


def test_plain_types_are_read_in_place(tmp_path: Path) -> None:
    """Elements that are stored as such keep dtype and bytes, in row-major shape, without the package."""
    rng = np.random.default_rng(1)
    tensors, data, arrays = [], b"", {}
    for name, (code, dtype) in PLAIN.items():
        array = rng.integers(-100, 100, (2, 3, 5)).astype(dtype)
        arrays[name] = array
        tensors.append(described(name, array.shape, code, len(data)))
        data += array.tobytes()
        data += bytes(-len(data) % 32)
    path = tmp_path / "m.gguf"
    path.write_bytes(assemble([], tensors, data))
    with open_checkpoint(path) as checkpoint:
        assert "gguf" == checkpoint.format
        assert 1 == len(checkpoint.sources)
        for name, array in arrays.items():
            info = checkpoint.infos[name]
            assert (name, (2, 3, 5), None) == (info.dtype, info.shape, info.encoded)
            assert array.tobytes() == read(checkpoint, name, 7)


@pytest.mark.parametrize("version", [2, 3])
def test_header_is_what_stands_before_the_tensors(tmp_path: Path, version: int) -> None:
    """Both current versions are read; the fingerprint covers all of the header."""
    path = tmp_path / "m.gguf"
    content = SMALL[:4] + struct.pack("<I", version) + SMALL[8:]
    path.write_bytes(content)
    with open_checkpoint(path) as checkpoint:
        assert ["a.weight", "b"] == list(checkpoint.infos)
        assert content.startswith(checkpoint.header)
        assert bytes(range(24)) == read(checkpoint, "a.weight")
        assert bytes(range(32, 40)) == read(checkpoint, "b")
        assert {"general.architecture": "flux"} == dict(checkpoint.metadata)
        first = checkpoint.fingerprint()
    path.write_bytes(content.replace(b"flux", b"sdxl"))
    with open_checkpoint(path) as checkpoint:
        assert first != checkpoint.fingerprint()


def test_opens_what_the_package_writes(tmp_path: Path) -> None:
    """Names, shapes, texts and values are those that were given to llama.cpp's writer."""
    rng = np.random.default_rng(2)
    full, half = rng.standard_normal((3, 4, 5)).astype(np.float32), rng.standard_normal(7).astype(np.float16)
    path = tmp_path / "m.gguf"
    write_with_gguf(path, {"full": (full, F32), "half": (half, F16)})
    with open_checkpoint(path) as checkpoint:
        assert {"general.architecture": "flux", "general.name": "a model"} == dict(checkpoint.metadata)
        assert (3, 4, 5) == checkpoint.infos["full"].shape
        assert full.tobytes() == read(checkpoint, "full")
        assert half.tobytes() == read(checkpoint, "half")


def test_types_are_those_of_the_package() -> None:
    """Names and block sizes are ggml's; the package lists no type that is not known here."""
    constants = pytest.importorskip("gguf").constants
    theirs = {int(q): (q.name, *size) for q, size in constants.GGML_QUANT_SIZES.items()}
    ours = {code: (kind.name, kind.elements, kind.bytes) for code, kind in GGML_TYPES.items()}
    assert theirs == {code: ours[code] for code in theirs}


@pytest.mark.parametrize("code", DEQUANTIZED, ids=lambda code: GGML_TYPES[code].name)
def test_quantized_types_are_read_as_fp32(tmp_path: Path, code: int) -> None:
    """A quantized tensor has the values that the package gives it; the record says what the file holds."""
    gguf = pytest.importorskip("gguf")
    blocks = random_blocks(code, (6, 512), code)
    try:
        with np.errstate(all="ignore"):
            expected = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(code))
    except (ValueError, NotImplementedError):
        pytest.skip("the installed package is older than the type")
    path = tmp_path / "m.gguf"
    write_with_gguf(path, {"w": (blocks, code)})
    with open_checkpoint(path) as checkpoint:
        info = checkpoint.infos["w"]
        assert ("F32", (6, 512), 6 * 512 * 4) == (info.dtype, info.shape, info.nbytes)
        assert info.encoded is not None
        assert (GGML_TYPES[code].name, 0) == (info.storage, info.encoded.source)
        for chunk in (1 << 20, 4000, 1237):
            assert expected.tobytes() == read(checkpoint, "w", chunk)
        stored = np.empty(info.encoded.nbytes, np.uint8)
        checkpoint.read_into(info.encoded, 0, stored)
        assert blocks.tobytes() == stored.tobytes()


def test_quantizing_and_reading_stays_within_the_quantization_step(tmp_path: Path) -> None:
    """Values that the package quantized come back, each within half a step of its block, which is an fp16."""
    gguf = pytest.importorskip("gguf")
    values = np.random.default_rng(3).standard_normal((16, 64)).astype(np.float32)
    blocks = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    write_with_gguf(tmp_path / "m.gguf", {"w": (blocks, Q8_0)})
    with open_checkpoint(tmp_path / "m.gguf") as checkpoint:
        again = np.frombuffer(read(checkpoint, "w"), "<f4").reshape(16, 64)
    step = np.abs(values.reshape(16, 2, 32)).max(2, keepdims=True) / 127
    assert (np.abs(values - again).reshape(16, 2, 32) <= step * (0.5 + 127 / 2048)).all()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A tensor of more than one run of blocks, and its values."""
    gguf = pytest.importorskip("gguf")
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    blocks = random_blocks(Q4_K, (40, 4096), 4)
    write_with_gguf(path, {"w": (blocks, Q4_K)})
    with np.errstate(all="ignore"):
        return path, gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q4_K).tobytes()


@settings(max_examples=100)
@given(start=st.integers(0, 40 * 4096 * 4), count=st.integers(0, 300_000))
def test_reads_may_begin_and_end_anywhere(large: tuple[Path, bytes], start: int, count: int) -> None:
    """Any run of bytes is that of the whole, also from within a block or an element on."""
    path, values = large
    buffer = np.empty(min(count, len(values) - start), np.uint8)
    with open_checkpoint(path) as checkpoint:
        checkpoint.read_into(checkpoint.infos["w"], start, buffer)
    assert values[start : start + len(buffer)] == buffer.tobytes()


def test_many_threads_read_the_same_values(large: tuple[Path, bytes]) -> None:
    """Threads that read one tensor at once do not disturb each other."""
    path, values = large
    found: list[bool] = []
    with open_checkpoint(path) as checkpoint:

        def work(chunk: int) -> None:
            found.append(values == read(checkpoint, "w", chunk))

        threads = [threading.Thread(target=work, args=(10_001 + i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [True] * 8 == found


def test_a_large_read_needs_little_memory_of_its_own(large: tuple[Path, bytes]) -> None:
    """Beside the caller's buffer only a run of blocks is held."""
    path, values = large
    buffer = np.empty(len(values), np.uint8)
    with open_checkpoint(path) as checkpoint:
        tracemalloc.start()
        checkpoint.read_into(checkpoint.infos["w"], 0, buffer)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 << 20


def test_folded_tensors_get_their_shape_back(tmp_path: Path) -> None:
    """ComfyUI-GGUF folds convolutions into rows of 256 and writes down the shape that they had."""
    blocks = random_blocks(Q8_0, (9, 256), 5)
    write_with_gguf(
        tmp_path / "m.gguf", {"conv": (blocks, Q8_0), "odd": (blocks, Q8_0)}, conv=(16, 16, 3, 3), odd=(5, 5)
    )
    with open_checkpoint(tmp_path / "m.gguf") as checkpoint:
        assert (16, 16, 3, 3) == checkpoint.infos["conv"].shape
        assert (9, 256) == checkpoint.infos["odd"].shape
        assert (
            "m.gguf: original shapes that do not fit their tensors are left aside: 'odd'",
        ) == checkpoint.notes


def test_the_fingerprint_is_that_of_the_stored_blocks(
    large: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fingerprinting dequantizes nothing."""
    gguf = pytest.importorskip("gguf")
    with open_checkpoint(large[0]) as checkpoint:
        monkeypatch.setattr(gguf.quants, "dequantize", None)
        assert checkpoint.fingerprint().startswith("sha256:")


def test_quantized_tensors_need_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the optional package the message names it; plain tensors do not ask for it."""

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    (tmp_path / "plain.gguf").write_bytes(SMALL)
    open_checkpoint(tmp_path / "plain.gguf").close()
    said = refusal(tmp_path / "m.gguf", assemble([], [described("w", (32,), Q8_0, 0)], bytes(34)))
    assert (
        "holds quantized tensors ('w'), which need the package gguf (No module named 'gguf'); "
        "pip install 'mergescope[gguf]'"
    ) == said


def test_what_the_package_cannot_dequantize_is_named(tmp_path: Path) -> None:
    """Q8_1 exists only while llama.cpp computes, and the package does not know its values."""
    pytest.importorskip("gguf")
    said = refusal(tmp_path / "m.gguf", assemble([], [described("w", (32,), Q8_1, 0)], bytes(40)))
    assert (
        "holds tensors of type Q8_1 ('w'), which the installed package gguf cannot dequantize; "
        "upgrade it, or use a file of another type"
    ) == said


def test_a_part_of_a_split_model_is_noted(tmp_path: Path) -> None:
    """llama.cpp splits large models over files that look whole."""
    numbers = [entry("split.count", U32, struct.pack("<I", 3)), entry("split.no", U32, struct.pack("<I", 1))]
    (tmp_path / "m.gguf").write_bytes(assemble(numbers, [described("b", (1,), F32, 0)], bytes(4)))
    with open_checkpoint(tmp_path / "m.gguf") as checkpoint:
        assert (
            "m.gguf: is file 2 of 3 that make up one model, and only this one is read",
        ) == checkpoint.notes


def test_metadata_is_passed_over_whatever_it_is(tmp_path: Path) -> None:
    """Long and damaged texts, arrays of numbers, texts and arrays are left out and do no harm."""
    nested = struct.pack("<IQ", ARRAY, 2) + (struct.pack("<IQ", I32, 1) + bytes(4)) * 2
    entries = [
        entry("long", TEXT, text("x" * 5000)),
        entry("damaged", TEXT, text(b"\xff\xfe")),
        entry("scores", ARRAY, struct.pack("<IQ", F32_VALUE, 3000) + bytes(12_000)),
        entry("nested", ARRAY, nested),
        entry("rate", F32_VALUE, bytes(4)),
        entry("general.alignment", U32, struct.pack("<I", 64)),
        entry("kept", TEXT, text("ä")),
    ]
    data = np.arange(3, dtype="<f4").tobytes()
    (tmp_path / "m.gguf").write_bytes(assemble(entries, [described("w", (3,), F32, 0)], data, alignment=64))
    with open_checkpoint(tmp_path / "m.gguf") as checkpoint:
        assert {"kept": "ä"} == dict(checkpoint.metadata)
        assert data == read(checkpoint, "w")


W = described("w", (2, 2), F32, 0)
FILLED = bytes(64)
LIST = struct.pack("<IQ", ARRAY, 1)
REFUSED = {
    "version 1": (assemble(version=1), "is a GGUF file of version 1; this version reads 2 and 3"),
    "big-endian": (assemble(version=3 << 24), "is a big-endian GGUF file, which cannot be read"),
    "no end of the preamble": (
        SMALL[:20],
        "truncated: the header goes on after the end of the file, at byte 16",
    ),
    "too many tensors": (
        assemble(counts=(2**60, 0)),
        "1152921504606846976 tensors and 0 metadata entries are",
    ),
    "too many entries": (
        assemble(counts=(0, 250_000), data=bytes(4_000_000)),
        "0 tensors and 250000 metadata",
    ),
    "endless name": (
        assemble([struct.pack("<Q", 2**63) + bytes(64)]),
        "the name of a metadata entry would have",
    ),
    "endless text": (assemble([entry("a", TEXT, struct.pack("<Q", 2**62))]), "truncated: the header goes on"),
    "name of no text": (
        assemble([entry("a", U8, b"\0")], [described(b"\xff", (1,), F32, 0)]),
        "is not valid Unic",
    ),
    "unknown value": (assemble([entry("a", 13, bytes(8))]), "stands metadata of the unknown type 13"),
    "entry twice": (assemble([entry("a", U8, b"\0")] * 2), "the metadata entry 'a' stands twice"),
    "endless array": (
        assemble([entry("a", ARRAY, struct.pack("<IQ", TEXT, 2**61))]),
        "stands an array of 2305843009213693952 elements, which do not fit",
    ),
    "endless numbers": (
        assemble([entry("a", ARRAY, struct.pack("<IQ", U8, 2**61))]),
        "truncated: the header",
    ),
    "deep array": (assemble([entry("a", ARRAY, LIST * 9 + bytes(12))]), "arrays in arrays more than 4 deep"),
    "alignment 0": (
        assemble([entry("general.alignment", U32, bytes(4))], [W], FILLED),
        "general.alignment is 0",
    ),
    "alignment 48": (
        assemble([entry("general.alignment", U32, b"\x30\0\0\0")], [W], FILLED),
        "general.alignment is 48, not a power of two",
    ),
    "original shape of texts": (
        assemble(
            [entry("comfy.gguf.orig_shape.w", ARRAY, struct.pack("<IQ", TEXT, 1) + text("3"))], [W], FILLED
        ),
        "'comfy.gguf.orig_shape.w' is not a list of at most 8 whole numbers",
    ),
    "many axes": (
        assemble([], [described("w", (1,) * 9, F32, 0)], FILLED),
        "'w' has 9 axes, and 8 is the most",
    ),
    "many elements": (
        assemble([], [described("w", (2**40, 2**40), F32, 0)], FILLED),
        "more elements than can be",
    ),
    "negative size": (
        assemble([], [described("w", (0, 2**64 - 1), F32, 0)], FILLED),
        "more elements than can be",
    ),
    "unknown type": (
        assemble([], [described("w", (4,), 4, 0)], FILLED),
        "'w' is of ggml's type 4, which is not",
    ),
    "broken blocks": (
        assemble([], [described("w", (2, 33), Q8_0, 0)], FILLED),
        "'w' has rows of 33 elements",
    ),
    "misaligned": (
        assemble([], [described("w", (1,), F32, 4)], FILLED),
        "'w' begins at 4, which is no multiple",
    ),
    "beyond the file": (
        assemble([], [described("w", (1,), F32, 2**63)], FILLED),
        "truncated: 'w' should end at",
    ),
    "truncated": (SMALL[:-1], "truncated: 'b' should end at byte"),
    "twice": (assemble([], [W, W], FILLED), "'w' stands twice in the header"),
    "overlap": (assemble([], [W, described("v", (9,), F32, 0)], FILLED), "overlap"),
    "another file": (b"\xee" * 99, "does not start like a GGUF file, although its name ends like one"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_damaged_files_are_refused(tmp_path: Path, what: str) -> None:
    """Each with one sentence that says what is wrong."""
    content, expected = REFUSED[what]
    assert expected in refusal(tmp_path / "m.gguf", content)


def test_headers_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file can be made of nothing but header; it is given up at a limit."""
    monkeypatch.setattr(gguf_header, "MAX_HEADER_BYTES", 1000)
    numbers = entry("a", ARRAY, struct.pack("<IQ", U8, 2000) + bytes(2000))
    assert "the header would be longer than 1000 bytes" in refusal(tmp_path / "m.gguf", assemble([numbers]))
    monkeypatch.setattr(gguf_header, "MAX_STEPS", 10)
    texts = entry("a", ARRAY, struct.pack("<IQ", TEXT, 11) + bytes(88))
    assert "its arrays hold more than 10 texts" in refusal(tmp_path / "m.gguf", assemble([texts]))


@settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, len(SMALL) - 1), st.sampled_from([0, 1, 8, 9, 127, 128, 255]) | st.integers(0, 255)
        ),
        min_size=1,
        max_size=8,
    ),
    length=st.integers(0, len(SMALL)) | st.just(len(SMALL)),
)
@example(changes=[(8, 255), (15, 255)], length=len(SMALL))
def test_mutated_headers_raise_nothing_but_the_error(
    tmp_path: Path, changes: list[tuple[int, int]], length: int
) -> None:
    """Whatever is written over a header, the file opens or is refused, in little time and memory."""
    content = bytearray(SMALL)
    for place, value in changes:
        content[place] = value
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + content[4:length])
    tracemalloc.start()
    try:
        with open_checkpoint(path) as checkpoint:
            for key in checkpoint.infos:
                read(checkpoint, key)
    except CheckpointError as error:
        assert str(error).startswith(str(path))
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2 << 20
