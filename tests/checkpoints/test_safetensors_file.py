"""Headers of safetensors files: what the reference library writes is read, what is damaged is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from analyzer.checkpoints import Checkpoint, open_checkpoint
from analyzer.checkpoints.json_file import MAX_GROUPS
from analyzer.checkpoints.safetensors_file import MAX_HEADER_BYTES
from analyzer.errors import CheckpointError

TENSORS: dict[str, np.ndarray] = {
    "weight": np.arange(3000, dtype=np.float32).reshape(30, 100),
    "half": np.linspace(-1, 1, 5).astype(np.float16),
    "empty": np.zeros((0, 3), np.int64),
    "scalar": np.array(7),
    "flags": np.array([True, False, True]),
    "spectrum": np.array([1 + 2j, -3j], np.complex64),
}
SMALL: dict[str, Any] = {
    "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
    "b": {"dtype": "F16", "shape": [2, 1], "data_offsets": [4, 8]},
}


def encode(header: object, data: bytes = b"12345678") -> bytes:
    """A file by the format's definition, with any header at all."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(**changes: object) -> dict[str, Any]:
    """SMALL with the entry "a" changed."""
    return {**SMALL, "a": {**SMALL["a"], **changes}}


def read(checkpoint: Checkpoint, key: str, chunk: int) -> bytes:
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
    return sentence


@pytest.mark.parametrize("chunk", [1 << 20, 4096, 997, 7])
def test_reads_what_the_library_wrote(tmp_path: Path, chunk: int) -> None:
    """Every tensor's bytes are those of the array that was saved, in chunks of any size."""
    save_file(TENSORS, tmp_path / "m.safetensors")
    with open_checkpoint(tmp_path / "m.safetensors") as checkpoint:
        found = {key: read(checkpoint, key, chunk) for key in checkpoint.infos}
    assert {key: array.tobytes() for key, array in TENSORS.items()} == found


def test_infos_describe_the_tensors(tmp_path: Path) -> None:
    """Key, dtype, shape and size come from the header."""
    save_file(TENSORS, tmp_path / "m.safetensors", {"format": "pt"})
    with open_checkpoint(tmp_path / "m.safetensors") as checkpoint:
        found = {i.key: (i.dtype, i.shape, i.nbytes) for i in checkpoint.infos.values()}
        described = (checkpoint.format, dict(checkpoint.metadata), checkpoint.bytes, checkpoint.files)
    names = ("F32", "F16", "I64", "I64", "BOOL", "C64")
    expected = {k: (n, a.shape, a.nbytes) for (k, a), n in zip(TENSORS.items(), names, strict=True)}
    assert expected == found
    path = tmp_path / "m.safetensors"
    assert ("safetensors", {"format": "pt"}, path.stat().st_size, (path,)) == described


def test_keys_come_in_the_order_of_the_header(tmp_path: Path) -> None:
    """Not sorted, and not by their place in the file."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(encode({"b": SMALL["b"], "a": SMALL["a"]}))
    with open_checkpoint(path) as checkpoint:
        assert ["b", "a"] == list(checkpoint.infos)
        assert {"b": b"5678", "a": b"1234"} == {key: read(checkpoint, key, 3) for key in checkpoint.infos}


@pytest.mark.parametrize(
    "content",
    [
        encode({}, b""),
        encode(json.dumps(SMALL).encode() + b"   "),
        encode({"__metadata__": None, **SMALL}),
        encode({**SMALL, "z": {"dtype": "U8", "shape": [0, 2**40], "data_offsets": [8, 8]}}),
        encode(entry(note="unknown fields are ignored")),
    ],
    ids=["no tensors", "padding", "null metadata", "no elements", "extra field"],
)
def test_accepts_what_the_library_accepts(tmp_path: Path, content: bytes) -> None:
    """Unusual but sound headers open, with the library's keys."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with open_checkpoint(path) as checkpoint:
        assert {key for key, _ in safetensors.deserialize(content)} == set(checkpoint.infos)


REFUSED: dict[str, tuple[bytes, str]] = {
    "shorter than a length": (b"\1\0\0", "has only 3 bytes"),
    "length past the end": (encode(SMALL)[:60], "truncated: the header should end at byte"),
    "length past the limit": (
        (MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b"{}",
        f"{MAX_HEADER_BYTES} is the most",
    ),
    "not JSON": (encode(b'{"a": ]'), "the header cannot be read"),
    "not UTF-8": (encode(b'{"\xff": 1}'), "the header cannot be read"),
    "a number of 5000 digits": (encode(b'{"a": ' + b"9" * 5000 + b"}"), "the header cannot be read"),
    "NaN": (encode(b'{"a": NaN}'), "NaN is not JSON"),
    "nested too deeply": (encode(b'{"a": ' + b"[" * 100_000), "nested too deeply"),
    "not an object": (encode(b"[]"), "not a JSON object"),
    "key twice": (encode(b'{"a": 1, "a": 2}'), "the name 'a' stands twice"),
    "key that is no Unicode": (encode({"\ud800": SMALL["a"]}, b"1234"), "not valid Unicode"),
    "metadata no object": (
        encode({"__metadata__": [], **SMALL}),
        "__metadata__ in the header is not an object",
    ),
    "metadata no text": (
        encode({"__metadata__": {"steps": 3}, **SMALL}),
        "holds 'steps', which is not a string",
    ),
    "entry no object": (encode({**SMALL, "a": 3}), "entry for 'a' is not an object"),
    "no dtype": (encode({**SMALL, "a": {"shape": [1], "data_offsets": [0, 4]}}), "gives 'a' no dtype"),
    "unknown dtype": (encode(entry(dtype="F31")), "'a' has the unknown dtype 'F31'; known are F64, F32"),
    "packed dtype": (encode(entry(dtype="F4", shape=[8])), "'a' is F4, whose elements are not whole bytes"),
    "negative size": (encode(entry(shape=[-1])), "the shape of 'a'"),
    "boolean size": (encode(entry(shape=[True])), "the shape of 'a'"),
    "fractional size": (encode(entry(shape=[1.0])), "the shape of 'a'"),
    "too many axes": (encode(entry(shape=[1] * 65)), "the shape of 'a'"),
    "size past 64 bits": (encode(entry(shape=[2**64])), "the shape of 'a'"),
    "sizes that overflow": (encode(entry(shape=[2**62, 4])), "'a' needs 73786976294838206464 bytes"),
    "one offset": (encode(entry(data_offsets=[0])), "data_offsets of 'a'"),
    "offsets swapped": (encode(entry(data_offsets=[4, 0])), "data_offsets of 'a'"),
    "offsets of another size": (encode(entry(data_offsets=[0, 3])), "'a' needs 4 bytes"),
    "overlap": (encode(entry(dtype="U8", shape=[5], data_offsets=[0, 5])), "'a' and 'b' overlap"),
    "hole": (encode(entry(dtype="U8", shape=[3], data_offsets=[0, 3])), "have a hole between them"),
    "hole at the start": (encode({"b": SMALL["b"]}), "a hole before 'b'"),
    "bytes left over": (encode(SMALL, b"123456789"), "goes on for 1 bytes after its last tensor"),
    "offsets past the end": (
        encode(entry(shape=[2], data_offsets=[8, 16])),
        "truncated: the header promises",
    ),
}


@pytest.mark.parametrize(("content", "expected"), REFUSED.values(), ids=REFUSED)
def test_refuses(tmp_path: Path, content: bytes, expected: str) -> None:
    """Every kind of damage is named in one printable line that starts with the path."""
    sentence = refusal(tmp_path / "m.safetensors", content)
    assert expected in sentence
    assert sentence.isprintable()


def test_a_header_holds_no_more_objects_than_a_model_has(tmp_path: Path) -> None:
    """Empty ones take 27 times as much memory as their text: 100 MB of them would fill a computer."""
    header = b'{"a": [' + b"{}," * MAX_GROUPS + b"{}]}"
    sentence = refusal(tmp_path / "m.safetensors", encode(header))
    assert "the header holds more than 1000000 objects and lists" in sentence
    few = b'{"a": [' + b"{}," * (MAX_GROUPS - 3) + b"{}]}"
    assert "entry for 'a' is not an object" in refusal(tmp_path / "m.safetensors", encode(few))


def test_truncation_names_both_sizes(tmp_path: Path) -> None:
    """A download that broke off is told as such, with what is missing and what to do."""
    whole = save(TENSORS)
    sentence = refusal(tmp_path / "m.safetensors", whole[:-1])
    expected = f"truncated: the header promises {len(whole)} bytes, the file has {len(whole) - 1}; "
    assert expected + "download it again" == sentence


def test_names_in_messages_are_escaped_and_short(tmp_path: Path) -> None:
    """A hostile key can neither steer the terminal nor flood it."""
    sentence = refusal(tmp_path / "m.safetensors", encode({"\x1b[2J" + "x" * 10_000: 3}, b""))
    assert "'\\x1b[2Jxxx" in sentence
    assert len(sentence) < 250


@pytest.mark.parametrize("length", [0x0280, 0x0580, 0x4B50])
def test_header_length_that_looks_like_another_format(tmp_path: Path, length: int) -> None:
    """The first bytes of a length may be those of a pickle (80 02); the file is still safetensors."""
    text = json.dumps(SMALL).encode()
    path = tmp_path / "m.bin"
    path.write_bytes(encode(text.ljust(length)))
    with open_checkpoint(path) as checkpoint:
        assert ("safetensors", ["a", "b"]) == (checkpoint.format, list(checkpoint.infos))


examples = settings(max_examples=300)
EDIT = st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=8))


def damage(content: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """`content` with some bytes replaced, put in or taken out."""
    for place, removed, added in edits:
        at = int(place * len(content))
        content = content[:at] + added + content[at + removed :]
    return content


def check_judged(path: Path, content: bytes) -> None:
    """Assert that a file opens exactly if the library reads it, and then to the same bytes."""
    path.write_bytes(content)
    try:
        expected = {key: bytes(value["data"]) for key, value in safetensors.deserialize(content)}
    except safetensors.SafetensorError:
        expected = None
    found, message = None, ""
    try:
        with open_checkpoint(path) as checkpoint:
            found = {key: read(checkpoint, key, 5) for key in checkpoint.infos}
            checkpoint.fingerprint()
    except CheckpointError as error:
        message = str(error)
    assert message.isprintable()
    stricter = "whole bytes" in message or "stands twice" in message
    assert stricter or expected == found


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "m.safetensors"


@examples
@given(edits=st.lists(EDIT, min_size=1, max_size=3))
def test_damaged_bytes_are_judged_as_the_library_judges(
    scratch: Path, edits: list[tuple[float, int, bytes]]
) -> None:
    """Whatever happens to the bytes of a file, it is read like the library or refused with a sentence."""
    check_judged(scratch, damage(encode(SMALL), edits))


ODD: st.SearchStrategy[object] = st.one_of(
    st.sampled_from([None, True, -1, 0, 1, 4, 2**63, 2**64, 1.0, {}, {"a": "b"}, {"a": 1}, dict(SMALL["a"])]),
    st.sampled_from(["", "F32", "F16", "U8", "F4", "?"]),
    st.lists(st.sampled_from([0, 1, 2, 4, 8, True, "1"]), max_size=2),
)


@examples
@given(
    fields=st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(["dtype", "shape", "data_offsets"]), ODD), max_size=2
    ),
    keys=st.dictionaries(st.sampled_from(["a", "c", "", "é", "__metadata__"]), ODD, max_size=2),
    size=st.integers(0, 12),
)
def test_odd_headers_are_judged_as_the_library_judges(
    scratch: Path, fields: list[tuple[str, str, object]], keys: dict[str, object], size: int
) -> None:
    """Whatever the header claims, the file is read like the library reads it or refused."""
    header: dict[str, Any] = {key: dict(value) for key, value in SMALL.items()}
    for key, field, value in fields:
        header[key][field] = value
    check_judged(scratch, encode({**header, **keys}, bytes(size)))


def test_real_files_agree_with_the_library(real_file: Callable[[str], Path]) -> None:
    """A real model's tensors are those that the library reads."""
    path = real_file("silero_vad_v5.safetensors")
    with open_checkpoint(path) as checkpoint:
        found = {key: read(checkpoint, key, 10_007) for key in checkpoint.infos}
    with safetensors.safe_open(path, "np") as library:
        assert {key: library.get_tensor(key).tobytes() for key in library.keys()} == found  # noqa: SIM118


@pytest.fixture
def real_file() -> Callable[[str], Path]:
    """A file of ../shared/real, where it exists."""

    def find(name: str) -> Path:
        path = Path(__file__).resolve().parents[3] / "shared" / "real" / name
        if not path.exists():
            pytest.skip("the real models are not part of the repository")
        return path

    return find
