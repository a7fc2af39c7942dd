"""Torch checkpoints: their tensors are those that torch loads, and nothing in them is ever run."""

from __future__ import annotations

import io
import os
import pickle
import sys
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.checkpoints import Checkpoint, open_checkpoint
from analyzer.errors import CheckpointError


def a_model() -> dict[str, torch.Tensor]:
    """Tensors of every layout that a state dict comes with, from a seed."""
    make = torch.Generator().manual_seed(1)
    base = torch.randn(6, 7, generator=make)
    return {
        "weight": base,
        "tied": base,
        "rows": base[2:4],
        "transposed": base.t(),
        "every_other": base[:, ::2],
        "permuted": torch.randn(2, 3, 4, generator=make).permute(2, 0, 1)[1:],
        "repeated": torch.randn(1, 3, generator=make).expand(4, 3),
        "half": torch.randn(5, generator=make).half(),
        "bfloat16": torch.randn(5, generator=make).bfloat16(),
        "double": torch.randn(5, generator=make).double(),
        "complex": torch.randn(3, dtype=torch.complex64, generator=make),
        "flags": torch.tensor([True, False]),
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(3, generator=make)),
    }


def raw(tensor: torch.Tensor) -> bytes:
    """A tensor's bytes in row-major order, by torch."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def read(checkpoint: Checkpoint, key: str, chunk: int = 7) -> bytes:
    info = checkpoint.infos[key]
    whole = bytearray()
    for start in range(0, info.nbytes, chunk):
        part = np.empty(min(chunk, info.nbytes - start), np.uint8)
        checkpoint.read_into(info, start, part)
        whole += part.tobytes()
    return bytes(whole)


def read_all(path: Path) -> dict[str, bytes]:
    with open_checkpoint(path) as checkpoint:
        return {key: read(checkpoint, key) for key in checkpoint.infos}


def saved(content: object, **options: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def repacked(
    archive: bytes,
    change: Callable[[str, bytes], bytes | None] = lambda _name, data: data,
    method: int = zipfile.ZIP_STORED,
) -> bytes:
    """The same archive, packed by another tool, with changed records; None leaves one out."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(stream, "w", method) as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return stream.getvalue()


def with_pickle(archive: bytes, old: bytes, new: bytes) -> bytes:
    """The archive with a part of data.pkl replaced."""
    return repacked(archive, lambda name, data: data.replace(old, new) if name.endswith(".pkl") else data)


def refusal(path: Path, content: bytes) -> str:
    """What is said about the file, after its path."""
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path).close()
    name, _, sentence = str(caught.value).partition(": ")
    assert str(path) == name
    assert sentence.isprintable()
    return sentence


WAYS: dict[str, Callable[[object], bytes]] = {
    "archive": saved,
    "before 1.6": lambda content: saved(content, _use_new_zipfile_serialization=False),
    "packed again": lambda content: repacked(saved(content)),
    "compressed": lambda content: repacked(saved(content), method=zipfile.ZIP_DEFLATED),
}


@pytest.mark.parametrize("save", WAYS.values(), ids=WAYS)
def test_reads_what_torch_saved(tmp_path: Path, save: Callable[[object], bytes]) -> None:
    """Keys, shapes and bytes are those of the tensors that were saved, views and shared storages too."""
    path = tmp_path / "m.ckpt"
    path.write_bytes(save(a_model()))
    with open_checkpoint(path) as checkpoint:
        found = {i.key: (i.shape, read(checkpoint, i.key)) for i in checkpoint.infos.values()}
        described = (checkpoint.format, checkpoint.bytes, checkpoint.files, dict(checkpoint.metadata))
    assert {key: (tuple(t.shape), raw(t)) for key, t in a_model().items()} == found
    assert ("torch", path.stat().st_size, (path,), {}) == described


def test_dtypes_have_their_safetensors_names(tmp_path: Path) -> None:
    """Every torch dtype is named as a safetensors file would name it."""
    tensors = {
        "F8_E4M3": torch.zeros(2, dtype=torch.float8_e4m3fn),
        "F8_E5M2": torch.zeros(2, dtype=torch.float8_e5m2),
        "BF16": torch.zeros(2, dtype=torch.bfloat16),
        "C64": torch.zeros(2, dtype=torch.complex64),
        "BOOL": torch.zeros(2, dtype=torch.bool),
        "U16": torch.zeros(2, dtype=torch.uint16),
    }
    path = tmp_path / "m.pt"
    torch.save(tensors, path)
    with open_checkpoint(path) as checkpoint:
        assert {name: name for name in tensors} == {i.key: i.dtype for i in checkpoint.infos.values()}


def test_archives_are_read_in_place(tmp_path: Path) -> None:
    """Of contiguous tensors nothing is loaded: they lie in the file, tied ones at the same place."""
    path = tmp_path / "m.ckpt"
    model = a_model()
    torch.save({key: model[key] for key in ("weight", "tied", "rows")}, path)
    with open_checkpoint(path) as checkpoint:
        infos = checkpoint.infos
        assert {0} == {i.source for i in infos.values()}
        assert infos["weight"].offset == infos["tied"].offset
        assert infos["weight"].offset + 2 * 7 * 4 == infos["rows"].offset
        offset = infos["weight"].offset
        assert raw(model["weight"]) == path.read_bytes()[offset : offset + infos["weight"].nbytes]


def test_a_torch_that_tells_no_places_loads_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older releases cannot load an archive without its data; the result and its identity are the same."""
    path = tmp_path / "m.ckpt"
    torch.save(a_model(), path)
    with open_checkpoint(path) as checkpoint:
        fingerprint = checkpoint.fingerprint()
    load = torch.load

    def old_load(stream: object, *, map_location: str, **options: bool) -> object:
        if map_location == "meta":
            raise RuntimeError("record size does not match")
        return load(stream, map_location=map_location, **options)

    monkeypatch.setattr(torch, "load", old_load)
    assert {key: raw(t) for key, t in a_model().items()} == read_all(path)
    with open_checkpoint(path) as checkpoint:
        assert fingerprint == checkpoint.fingerprint()


def test_tensors_saved_on_a_gpu_open_without_one(tmp_path: Path) -> None:
    """Where a tensor lived when it was saved does not matter."""
    path = tmp_path / "m.ckpt"
    archive = with_pickle(saved({"a": torch.ones(3)}), b"X\3\0\0\0cpu", b"X\6\0\0\0cuda:0")
    path.write_bytes(archive)
    assert {"a": raw(torch.ones(3))} == read_all(path)
    assert b"cuda:0" in archive


ONE, TWO = torch.ones(1), torch.full((1,), 2.0)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"state_dict": {"a": ONE}, "epoch": 3, "lr": 0.1}, {"a": ONE}),
        ({"state_dict": {"a": ONE}, "global_step": TWO}, {"a": ONE}),
        ({"model": {"a": ONE}, "optimizer": {"state": {0: {"exp_avg": TWO}}}}, {"a": ONE}),
        ({"module": {"a": ONE}, "ema": {"a": TWO}}, {"a": ONE}),
        ({"params": {"a": TWO}, "params_ema": {"a": ONE}}, {"a": ONE}),
        ({"ema": {"a": TWO}, "state_dict": {"a": ONE}}, {"a": ONE}),
        ({"state_dict": {}, "model": {"a": ONE}}, {"a": ONE}),
        ({"model": 3, "a": ONE}, {"a": ONE}),
        ({"encoder": {"w": ONE}, "decoder": {"w": TWO}}, {"encoder.w": ONE, "decoder.w": TWO}),
        (OrderedDict(b=TWO, a=ONE), {"b": TWO, "a": ONE}),
        ({"a": ONE, 3: TWO, "b": None}, {"a": ONE}),
    ],
)
def test_finds_the_state_dict(tmp_path: Path, content: object, expected: dict[str, torch.Tensor]) -> None:
    """Wrappers of training frameworks are taken off, what is no named tensor is left out."""
    path = tmp_path / "m.pt"
    torch.save(content, path)
    found = read_all(path)
    assert [(key, raw(tensor)) for key, tensor in expected.items()] == list(found.items())


def test_leftovers_of_training_do_not_hinder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning's callbacks and numpy's numbers, as in the first Stable Diffusion files, are passed over."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    name = {"__module__": module.__name__, "__qualname__": "ModelCheckpoint"}
    module.ModelCheckpoint = type("ModelCheckpoint", (), name)
    path = tmp_path / "m.ckpt"
    with monkeypatch.context() as patch:
        for package in ("pytorch_lightning", "pytorch_lightning.callbacks"):
            patch.setitem(sys.modules, package, types.ModuleType(package))
        patch.setitem(sys.modules, module.__name__, module)
        callbacks = {module.ModelCheckpoint: {"monitor": "loss", "best": np.float64(0.5)}}
        torch.save({"state_dict": {"a": ONE}, "callbacks": callbacks}, path)
    assert {"a": raw(ONE)} == read_all(path)
    assert not any(name.startswith("pytorch_lightning") for name in sys.modules)


def test_attributes_that_hide_methods_do_not_mislead(tmp_path: Path) -> None:
    """A pickle may give an OrderedDict attributes named like its methods."""
    tensors = OrderedDict(a=ONE)
    vars(tensors).update(get=3, keys=3, values=3)
    path = tmp_path / "m.pt"
    path.write_bytes(saved(tensors))
    assert {"a": raw(ONE)} == read_all(path)


class Intruder:
    """Pickles as a call that would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"echo > {self.target}",)


INTRUSIONS: dict[str, Callable[[object], bytes]] = {
    **{f"pickle {protocol}": lambda o, p=protocol: pickle.dumps(o, p) for protocol in (2, 3, 4, 5)},
    "archive": saved,
    "archive, pickle 4": lambda o: saved(o, pickle_protocol=4),
    "before 1.6": lambda o: saved(o, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("save", INTRUSIONS.values(), ids=INTRUSIONS)
def test_a_pickle_with_code_is_refused_and_not_run(
    tmp_path: Path, save: Callable[[object], bytes], suffix: str
) -> None:
    """The message names what would have been called and the way out; nothing was called."""
    target = tmp_path / "created"
    sentence = refusal(tmp_path / f"m{suffix}", save({"a": Intruder(target)}))
    assert f"refers to '{os.system.__module__}.system', which is code and not weights" in sentence
    assert "save its state dict as safetensors" in sentence
    assert not target.exists()
    pickle.loads(pickle.dumps(Intruder(target)))  # it is a real one
    assert target.exists()


@pytest.mark.parametrize("protocol", [0, 1])
def test_the_oldest_pickles_are_not_opened_at_all(tmp_path: Path, protocol: int) -> None:
    """Protocols without a signature were never written by torch.save; nothing reads them."""
    target = tmp_path / "created"
    sentence = refusal(tmp_path / "m.pt", pickle.dumps(Intruder(target), protocol))
    assert "is a text file" in sentence or "is neither a zip archive nor a pickle" in sentence
    assert not target.exists()


def test_a_pickled_module_is_code(tmp_path: Path) -> None:
    """A whole module needs its class to be loaded; only state dicts are read."""
    sentence = refusal(tmp_path / "m.pt", saved(torch.nn.Linear(2, 2)))
    assert "refers to 'torch.nn.modules.linear.Linear', which is code" in sentence


def test_torchscript_is_code(tmp_path: Path) -> None:
    """A TorchScript archive is a program, even where its weights could be read."""
    content = repacked(saved({"a": ONE}))
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("archive/constants.pkl", b"\x80\2.")
    assert "is a TorchScript program" in refusal(tmp_path / "m.pt", stream.getvalue())


def unusual(make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """A tensor of a kind for which torch warns that it is new, or old."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


UNUSUAL: dict[str, tuple[Callable[[], torch.Tensor], str]] = {
    "sparse": (lambda: torch.eye(3).to_sparse(), "'odd' is sparse"),
    "sparse rows": (lambda: torch.eye(3).to_sparse_csr(), "'odd' is sparse"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2)]), "'odd' is nested"),
    "quantized": (
        lambda: torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8),
        "'odd' is quantized",
    ),
    "complex128": (lambda: torch.ones(2, dtype=torch.complex128), "'odd' is of dtype torch.complex128"),
    "conjugate": (lambda: torch.ones(2, dtype=torch.complex64).conj(), "'odd' is a conjugate"),
    "meta": (lambda: torch.ones(2, device="meta"), "'odd' was saved without its values"),
    "unfolding": (lambda: torch.ones(1).expand(100_000, 100_000), "'odd' unfolds to more memory"),
}


@pytest.mark.parametrize(("make", "expected"), UNUSUAL.values(), ids=UNUSUAL)
def test_tensors_that_are_not_plain_are_named(
    tmp_path: Path, make: Callable[[], torch.Tensor], expected: str
) -> None:
    """A tensor whose values are not simply bytes in a row is refused by its key."""
    assert expected in refusal(tmp_path / "m.pt", saved({"good": ONE, "odd": unusual(make)}))


ARCHIVE = saved({"a": torch.arange(6.0)})


def replace(name: str, new: bytes | None) -> bytes:
    return repacked(ARCHIVE, lambda found, data: new if found == f"archive/{name}" else data)


REFUSED: dict[str, tuple[bytes, str]] = {
    "cut off": (ARCHIVE[:-100], "truncated or damaged zip archive"),
    "no data.pkl": (replace("data.pkl", None), "is a zip archive without data.pkl"),
    "no storage": (replace("data/0", None), "is damaged, or no torch checkpoint"),
    "storage too short": (replace("data/0", b"1234"), "'a' does not fit the 4 bytes stored for it"),
    "view past its storage": (
        with_pickle(ARCHIVE, b"K\6\x85", b"K\xc8\x85"),
        "'a' does not fit the 24 bytes stored for it",
    ),
    "big-endian": (replace("byteorder", b"big"), "was saved on a big-endian machine"),
    "checksum": (ARCHIVE.replace(b"FloatStorage", b"FloatSt0rage"), "truncated or damaged zip archive"),
    "bomb": (
        repacked(saved({"a": torch.zeros(100_000)}), method=zipfile.ZIP_DEFLATED),
        "unpacks to more than 16 times its size",
    ),
    "damaged pickle": (replace("data.pkl", b"\x80\2}q\0X\1"), "is damaged, or no torch checkpoint"),
    "unknown opcode": (replace("data.pkl", b"\x80\2\xff."), "is damaged, or holds more than a state dict"),
    "newer pickle": (saved({"a": ONE}, pickle_protocol=4), "is pickled with protocol 4"),
    "no dict": (saved(ONE), "holds a Tensor where a dict of named tensors should be"),
    "no tensors": (saved({"epoch": 3, "state_dict": {"a": 1}}), "holds no named tensors"),
    "name twice": (saved({"a": {"b.c": ONE}, "a.b": {"c": ONE}}), "two tensors are both named 'a.b.c'"),
    "name that is no Unicode": (saved({"\ud800": ONE}), "not valid Unicode"),
    "plain pickle": (pickle.dumps({"a": 1}, 2), "is damaged, or no torch checkpoint"),
    "cut off, before 1.6": (
        saved({"a": ONE}, _use_new_zipfile_serialization=False)[:-3],
        "is damaged, or no torch checkpoint",
    ),
    "random bytes": (np.random.default_rng(1).bytes(500), "is neither a zip archive nor a pickle"),
}


@pytest.mark.parametrize(("content", "expected"), REFUSED.values(), ids=REFUSED)
def test_refuses(tmp_path: Path, content: bytes, expected: str) -> None:
    """Every kind of damage is named in one printable line that starts with the path."""
    assert expected in refusal(tmp_path / "m.ckpt", content)


def patched(archive: bytes, name: str, *, at: int, new: bytes) -> bytes:
    """The archive with a field of a record's entry in the central directory overwritten."""
    entry = archive.rindex(name.encode()) - 46  # PKWARE's APPNOTE, §4.3.12: the name follows 46 bytes
    return archive[: entry + at] + new + archive[entry + at + len(new) :]


RECORD = "archive/data/0"
LYING: dict[str, tuple[bytes, str]] = {
    "encrypted": (patched(ARCHIVE, RECORD, at=8, new=b"\1"), "it is encrypted"),
    "record too long": (
        patched(ARCHIVE, RECORD, at=20, new=b"\xff\xff\0\0\xff\xff\0\0"),
        "a record lies outside of the file",
    ),
    "record past the end": (
        patched(ARCHIVE, RECORD, at=42, new=(len(ARCHIVE) - 9).to_bytes(4, "little")),
        "a record lies outside of the file",
    ),
    "record elsewhere": (
        patched(ARCHIVE, RECORD, at=42, new=b"\1\0\0\0"),
        "a record lies outside of the file",
    ),
    "huge pickle": (
        patched(ARCHIVE, "archive/data.pkl", at=20, new=b"\xff\xff\xff\x7f" * 2),
        "its data.pkl has more than",
    ),
}


@pytest.mark.parametrize(("content", "expected"), LYING.values(), ids=LYING)
def test_a_directory_that_lies_is_not_followed(tmp_path: Path, content: bytes, expected: str) -> None:
    """No byte outside of the file, and none that belongs to the archive itself, becomes a weight."""
    assert expected in refusal(tmp_path / "m.ckpt", content)


def test_a_damaged_compressed_record_is_noticed(tmp_path: Path) -> None:
    """The archive's checksums are believed: no tensor is made of whatever memory held before."""
    content = bytearray(repacked(saved({"a": torch.arange(100.0)}), method=zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        start = archive.getinfo("archive/data/0").header_offset
    content[start + 30 + len("archive/data/0") + 40] ^= 0xFF
    assert "truncated or damaged zip archive" in refusal(tmp_path / "m.ckpt", bytes(content))


examples = settings(max_examples=150)
EDIT = st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=8))
MODEL = {"state_dict": {"a": torch.arange(6.0).reshape(2, 3), "t": torch.arange(6.0).reshape(2, 3).t()}}


def damage(content: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """`content` with some bytes replaced, put in or taken out."""
    for place, removed, added in edits:
        at = int(place * len(content))
        content = content[:at] + added + content[at + removed :]
    return content


def survives(path: Path, content: bytes) -> bool:
    """Whether a file is either read to its end or refused with a sentence about it."""
    path.write_bytes(content)
    try:
        return read_all(path) != {}
    except CheckpointError as error:
        return str(error).startswith(f"{path}: ") and str(error).isprintable()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "m.ckpt"


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "before 1.6"])
@examples
@given(edits=st.lists(EDIT, min_size=1, max_size=3))
def test_damaged_files_are_read_or_refused(
    scratch: Path, edits: list[tuple[float, int, bytes]], archive: bool
) -> None:
    """Whatever happens to the bytes of a file, nothing but a CheckpointError comes out."""
    assert survives(scratch, damage(saved(MODEL, _use_new_zipfile_serialization=archive), edits))


@examples
@given(edits=st.lists(EDIT, min_size=1, max_size=3))
def test_damaged_pickles_are_read_or_refused(scratch: Path, edits: list[tuple[float, int, bytes]]) -> None:
    """A sound archive may hold any pickle."""
    damaged = repacked(
        saved(MODEL), lambda name, data: damage(data, edits) if name.endswith(".pkl") else data
    )
    assert survives(scratch, damaged)
