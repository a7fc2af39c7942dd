"""Small pickles that would take all memory, all time, or end the process are refused beforehand."""

from __future__ import annotations

import io
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from time import process_time

import pytest
import torch

from analyzer.checkpoints import open_checkpoint, torch_screen
from analyzer.checkpoints.torch_leftovers import NAMES
from analyzer.checkpoints.torch_screen import MAX_UNFOLDED_BYTES, refuse_bombs
from analyzer.errors import CheckpointError


def imported(module: str, name: str) -> bytes:
    """The opcode GLOBAL."""
    return f"c{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    """The opcode BINUNICODE."""
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def integer(value: int) -> bytes:
    """The opcode LONG1."""
    return b"\x8a\x09" + value.to_bytes(9, "little")


DOUBLED = b"q\0h\0\x86"  # a value, twice in a tuple
TENSOR = imported("torch._utils", "_rebuild_tensor_v2")
LARGE = "the pickle inside would take far more time or memory than its file has bytes"
DEEP = "the pickle inside nests more than 100 tuples in each other"
CODE = "the pickle inside refers to '{}', which is code and not weights"
BOMBS = {
    "bytes of any number": (
        imported("__builtin__", "bytearray") + integer(2**40) + b"\x85R.",
        CODE.format("builtins.bytearray"),
    ),
    "bytes of a text of another codec": (
        imported("_codecs", "encode") + text("a" * 99) + text("punycode") + b"\x86R.",
        CODE.format("_codecs.encode"),
    ),
    "a tensor of any size": (
        imported("torch", "FloatTensor") + integer(2**40) + b"\x85R.",
        CODE.format("torch.FloatTensor"),
    ),
    "a new tensor of any size": (
        imported("torch", "FloatTensor") + integer(2**40) + b"\x85\x81.",
        CODE.format("torch.FloatTensor"),
    ),
    "a storage of any size": (
        imported("torch.storage", "UntypedStorage") + integer(2**40) + b"\x85R.",
        CODE.format("torch.storage.UntypedStorage"),
    ),
    "through a call of a call": (
        imported("torch._tensor", "_rebuild_from_type_v2")
        + b"("
        + imported("__builtin__", "bytearray")
        + imported("torch", "Tensor")
        + integer(2**40)
        + b"\x85}tR.",
        CODE.format("torch._tensor._rebuild_from_type_v2"),
    ),
    "a key of twice twice twice …": (b"})" + DOUBLED * 40 + b"Ns.", LARGE),
    "a list of twice twice twice …": (b"])" + DOUBLED * 40 + b"a.", LARGE),
    "a list in itself": (b"]q\0" + b"h\0a" * 64 + b".", LARGE),
    "a set of twice twice twice …": (
        imported("__builtin__", "set") + b"](" + b")" + DOUBLED * 40 + b"e\x85R.",
        LARGE,
    ),
    "a call of twice twice twice …": (b")" + DOUBLED * 40 + b")R.", LARGE),
    "tuples inside each other": (b"})" + b"\x85" * 200_000 + b"Ns.", DEEP),
    "tuples of calls inside each other": (
        b"})" + (b"\x85q\0" + imported("torch", "Size") + b"h\0\x85R") * 200 + b"Ns.",
        DEEP,
    ),
    "many empty dicts": (b"}" * 100_000 + b".", LARGE),
    "many marks": (b"(" * 100_000 + b".", LARGE),
    "many texts encoded": (
        text("a" * 100_000) + b"q\0" + text("latin1") + b"q\1" + imported("_codecs", "encode") + b"q\2"
        + b"h\2h\0h\1\x86R" * 2000 + b".",
        LARGE,
    ),
    "many copies of a dict": (
        b"}q\1" + b"".join(text(f"{n}") + b"N" + b"s" for n in range(10_000))
        + imported("collections", "OrderedDict") + b")Rq\2" + b"h\1b" * 20_000 + b".",
        LARGE,
    ),
}  # fmt: skip


def archive(body: bytes, *, method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as packed:
        packed.writestr("archive/data.pkl", b"\x80\2" + body)
        packed.writestr("archive/data/0", bytes(24))
    return stream.getvalue()


def old(body: bytes) -> bytes:
    start = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join([*start, b"\x80\2" + body, pickle.dumps([], 2)])


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    tracemalloc.start()
    start = process_time()
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path).close()
    seconds = process_time() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 10  # most take a thousandth; tracing takes the rest
    assert peak <= 3 * MAX_UNFOLDED_BYTES + 4 * len(content)
    return str(caught.value)


@pytest.mark.parametrize("pack", [archive, old], ids=["archive", "before 1.6"])
@pytest.mark.parametrize(("body", "expected"), BOMBS.values(), ids=BOMBS)
def test_bombs_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    body: bytes,
    expected: str,
    pack: Callable[[bytes], bytes],
) -> None:
    """Each says why in a sentence, before it takes anything."""
    monkeypatch.setattr(torch_screen, "MAX_UNFOLDED_BYTES", 4 << 20)  # so that the test is done soon
    assert expected in refusal(tmp_path / "m.ckpt", pack(body))


def test_a_packed_pickle_may_not_unfold_without_end(tmp_path: Path) -> None:
    """3 kB of zip make 3 MB of pickle, and those 400 MB of dicts."""
    content = archive(b"}" * 3_000_000, method=zipfile.ZIP_DEFLATED)
    assert len(content) < 10_000
    assert "which no state dict needs" in refusal(tmp_path / "m.ckpt", content)


def test_records_may_not_overlap(tmp_path: Path) -> None:
    """A directory that names the same bytes many times would have them loaded as often."""
    storage = bytes(range(256)) * 4
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr("archive/data.pkl", b"\x80\2}.")
        packed.writestr("archive/data/0", storage)
        first = packed.infolist()[-1]
        for number in range(1, 9):
            again = zipfile.ZipInfo(f"archive/data/{number}")
            again.header_offset, again.file_size, again.compress_size = first.header_offset, 1024, 1024
            again.CRC = first.CRC
            packed.filelist.append(again)
            packed.NameToInfo[again.filename] = again
    assert "its records overlap" in refusal(tmp_path / "m.ckpt", stream.getvalue())


def test_a_message_repeats_no_more_than_a_piece_of_the_file(tmp_path: Path) -> None:
    """A library quotes names of any length; terminals and logs are spared it."""
    stream = io.BytesIO()
    torch.save({"a": torch.zeros(300)}, stream)
    content = bytearray(stream.getvalue())
    content[26:28] = (5000 & 0xFFFF).to_bytes(2, "little")  # the length of the first record's name
    said = refusal(tmp_path / "m.ckpt", bytes(content) + bytes(6000))
    assert "truncated or damaged zip archive" in said
    assert len(said) < 400


def test_a_length_that_lies_reserves_no_memory(tmp_path: Path) -> None:
    """A text of 4 GB in a file of 200 bytes."""
    for pack in (archive, old):
        said = refusal(tmp_path / "m.ckpt", pack(b"X\xff\xff\xff\xff" + b"a" * 20))
        assert "is damaged, or no torch checkpoint (EOFError" in said


@pytest.mark.parametrize("new", [True, False], ids=["archive", "before 1.6"])
def test_many_tensors_are_no_bomb(tmp_path: Path, new: bool) -> None:
    """A training state of two thousand small tensors opens, however small they are."""
    tensors = {f"model.layers.{n}.self_attn.q_proj.weight": torch.full((2,), float(n)) for n in range(2000)}
    state = {n: {"step": n, "exp_avg": torch.zeros(1)} for n in range(500)}
    optimizer = {
        "state": state,
        "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "params": [*range(500)]}],
    }
    path = tmp_path / "m.ckpt"
    torch.save({"state_dict": tensors, "optimizer": optimizer}, path, _use_new_zipfile_serialization=new)
    with open_checkpoint(path) as checkpoint:
        assert list(tensors) == list(checkpoint.infos)


def test_real_pickles_take_a_small_part_of_what_they_may() -> None:
    """Ten thousand tensors without any data at all stay below the limit that every file has."""
    stream = io.BytesIO()
    torch.save({f"layers.{n}.weight": torch.zeros(0) for n in range(10_000)}, stream)
    with zipfile.ZipFile(stream) as packed:
        body = packed.read(next(name for name in packed.namelist() if name.endswith("data.pkl")))
    assert refuse_bombs(io.BytesIO(body), size=len(body), pickles=1, stand_ins=()) is None


def test_a_file_of_nothing_but_small_tensors_is_no_bomb() -> None:
    """As it was saved before 1.6, where a tensor of one element has the fewest bytes in the file."""
    stream = io.BytesIO()
    tensors = {f"w{n}": torch.zeros(1) for n in range(16_000)}
    torch.save(tensors, stream, _use_new_zipfile_serialization=False)
    size = stream.tell()
    stream.seek(0)
    assert refuse_bombs(stream, size=size, pickles=5, stand_ins=NAMES) is None


def test_what_small_tensors_may_take_has_an_end() -> None:
    """A large file is no reason for a pickle that takes more than tensors of any model do."""
    start = b"\x80\2" + text("a" * 1_000_000) + b"q\0" + imported("builtins", "set") + b"q\1"
    body = start + b"h\1h\0\x85R" * 700 + b"."
    for size in (1 << 20, 1 << 28):
        assert LARGE in str(refuse_bombs(io.BytesIO(body), size=size, pickles=1, stand_ins=()))
