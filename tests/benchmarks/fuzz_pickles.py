"""Hostile pickles: damaged ones, programs of random opcodes, and ones that try to run something."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from fuzz_bytes import edited
from hypothesis import strategies as st

GLOBALS = (
    *(("os", "system"), ("posix", "system"), ("nt", "system"), ("subprocess", "Popen"), ("pty", "spawn")),
    *(("builtins", "eval"), ("builtins", "exec"), ("__builtin__", "eval"), ("__builtin__", "execfile")),
    *(("builtins", "__import__"), ("builtins", "getattr"), ("builtins", "open"), ("builtins", "compile")),
    *(("fuzz_watch", "touch"), ("importlib", "import_module"), ("runpy", "run_module"), ("ctypes", "CDLL")),
    *(("functools", "partial"), ("operator", "attrgetter"), ("copyreg", "_reconstructor")),
    *(("copy_reg", "__newobj__"), ("types", "FunctionType"), ("webbrowser", "open"), ("pdb", "run")),
    *(("torch", "load"), ("torch.storage", "_load_from_bytes"), ("torch.hub", "load"), ("torch.jit", "load")),
    *(("torch.serialization", "load"), ("torch.utils.cpp_extension", "load"), ("torch", "save")),
    *(("torch._tensor", "_rebuild_from_type_v2"), ("torch._utils", "_rebuild_tensor_v2")),
    *(("torch._utils", "_rebuild_parameter"), ("torch._utils", "_rebuild_parameter_with_state")),
    *(("torch._utils", "_rebuild_wrapper_subclass"), ("torch._utils", "_rebuild_meta_tensor_no_storage")),
    *(("torch._utils", "_rebuild_sparse_tensor"), ("torch._utils", "_rebuild_qtensor")),
    *(("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"), ("torch._utils", "_rebuild_nested_tensor")),
    *(("torch", "FloatStorage"), ("torch", "FloatTensor"), ("torch", "Tensor"), ("torch", "Size")),
    *(("torch", "device"), ("torch", "float16"), ("torch.storage", "UntypedStorage")),
    *(("torch.nn.parameter", "Parameter"), ("torch.nn.modules.linear", "Linear")),
    *(("torch.serialization", "_get_layout"), ("collections", "OrderedDict"), ("collections", "Counter")),
    *(("collections", "defaultdict"), ("__builtin__", "set"), ("__builtin__", "bytearray")),
    *(("__builtin__", "complex"), ("_codecs", "encode"), ("numpy.core.multiarray", "scalar")),
    *(("numpy.core.multiarray", "_reconstruct"), ("numpy", "dtype"), ("argparse", "Namespace")),
    ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
    ("omegaconf.dictconfig", "DictConfig"),
)
CANARY = "created-by-a-pickle"  # a file of this name beside the input would show that something ran

MODEL = {
    "state_dict": OrderedDict(
        a=torch.arange(6.0).reshape(2, 3), t=torch.arange(6.0).reshape(2, 3).t(), n=torch.ones(2).half()
    ),
    "epoch": 3,
    "callbacks": {"best": torch.tensor(1.0), "path": "last.ckpt", "scores": [1.5, None, True, (1, 2)]},
}


def old_format(state: bytes, keys: bytes) -> bytes:
    """What torch before 1.6 wrote: five pickles, then the storages."""
    start = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join([*start, state, keys, bytes(64)])


def _saved(content: object) -> tuple[bytes, bytes, bytes]:
    """A file of torch's own, its data.pkl, and the same in the old format."""
    new, old = io.BytesIO(), io.BytesIO()
    torch.save(content, new)
    torch.save(content, old, _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(new) as packed:
        name = next(name for name in packed.namelist() if name.endswith("data.pkl"))
        return new.getvalue(), packed.read(name), old.getvalue()


SOUND, SOUND_PICKLE, SOUND_OLD = _saved(MODEL)
with zipfile.ZipFile(io.BytesIO(SOUND)) as _packed:
    _RECORDS = {name: _packed.read(name) for name in _packed.namelist() if not name.endswith("data.pkl")}


def archive(data_pkl: bytes, *, method: int = zipfile.ZIP_STORED) -> bytes:
    """The sound archive with another pickle."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as packed:
        packed.writestr("archive/data.pkl", data_pkl)
        for name, record in _RECORDS.items():
            packed.writestr(f"archive/{name.partition('/')[2]}", record)
    return stream.getvalue()


_BORDERS = [place for _, _, place in pickletools.genops(SOUND_PICKLE) if place]  # where an opcode begins


def imported(module: str, name: str) -> bytes:
    """GLOBAL."""
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def text(value: str) -> bytes:
    """BINUNICODE."""
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + len(raw).to_bytes(4, "little") + raw


def commands(canary: Path) -> tuple[str, ...]:
    """What would create the canary, for a shell, for `eval` and for others."""
    return f"echo > '{canary}'", f"open({str(canary)!r}, 'w').close()", str(canary), "fuzz_watch"


_NUMBERS = st.one_of(
    st.integers(0, 255).map(lambda n: b"K" + bytes([n])),
    st.integers(-(2**31), 2**31 - 1).map(lambda n: b"J" + n.to_bytes(4, "little", signed=True)),
    st.sampled_from([2**31, 2**40, 2**63 - 1, 2**63, -1, 2**2000]).map(
        lambda n: (
            b"\x8a"
            + bytes([n.bit_length() // 8 + 1])
            + n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
        )
    ),
    st.just(b"G?\xf0\0\0\0\0\0\0"),
)
_TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["storage", "cpu", "0", "latin1", "utf-32", "rot13", "a" * 200, "__class__"]),
).map(text)
_GLOBAL = st.sampled_from(GLOBALS).map(lambda pair: imported(*pair))
_SMALL = st.one_of(
    _NUMBERS, _TEXTS, _GLOBAL, st.sampled_from([b"N", b"\x88", b"\x89", b")", b"]", b"}", b"\x8f"])
)
_STORAGE = st.builds(
    lambda kind, key, size: (
        b"(" + text("storage") + imported("torch", kind) + text(key) + text("cpu") + size + b"tQ"
    ),
    st.sampled_from(["FloatStorage", "HalfStorage", "BoolStorage", "ByteStorage", "Nonsense"]),
    st.sampled_from(["0", "1", "2", "9", "../0"]),
    _NUMBERS,
)
_VALUES = st.recursive(
    st.one_of(_SMALL, _STORAGE),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: b"(" + b"".join(items) + b"t"),
        st.lists(inner, max_size=4).map(lambda items: b"](" + b"".join(items) + b"e"),
        st.lists(st.tuples(inner, inner), max_size=3).map(
            lambda items: b"}(" + b"".join(key + value for key, value in items) + b"u"
        ),
        st.tuples(
            _GLOBAL, st.lists(inner, max_size=7), st.sampled_from([b"R", b"\x81", b"R}b", b"Rq\0h\0b"])
        ).map(lambda call: call[0] + b"(" + b"".join(call[1]) + b"t" + call[2]),
    ),
    max_leaves=8,
)
_INERT = st.sampled_from(
    [
        *(("collections", "OrderedDict"), ("argparse", "Namespace"), ("omegaconf.dictconfig", "DictConfig")),
        *(
            ("numpy.core.multiarray", "scalar"),
            ("numpy", "dtype"),
            ("typing", "Any"),
            ("collections", "defaultdict"),
        ),
        ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
    ]
).map(lambda pair: imported(*pair))
_PLAIN = st.one_of(_NUMBERS, _TEXTS, _INERT, st.sampled_from([b"N", b"\x88", b")", b"]", b"}"]))
_HARMLESS = st.recursive(
    _PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: b"(" + b"".join(items) + b"t"),
        st.lists(inner, max_size=4).map(lambda items: b"](" + b"".join(items) + b"e"),
        st.lists(st.tuples(_TEXTS, inner), max_size=3).map(
            lambda items: b"}(" + b"".join(key + value for key, value in items) + b"u"
        ),
        st.tuples(
            _INERT, st.lists(inner, max_size=3), st.sampled_from([b"R", b"\x81", b"R}b", b"\x81Nb"])
        ).map(lambda call: call[0] + b"(" + b"".join(call[1]) + b"t" + call[2]),
    ),
    max_leaves=8,
)


@st.composite
def _attacks(draw: st.DrawFn, canary: Path) -> bytes:
    """Opcodes that leave one value on the stack and would run a command on their way."""
    module, name = draw(st.sampled_from(GLOBALS))
    command = text(draw(st.sampled_from(commands(canary))))
    more = b"".join(draw(st.lists(_SMALL, max_size=3)))
    call = {
        "reduce": imported(module, name) + b"(" + command + more + b"tR",
        "new": imported(module, name) + b"(" + command + more + b"t\x81",
        "new with names": imported(module, name) + b"(" + command + b"t}\x92",
        "inst": b"(" + command + more + b"i" + module.encode() + b"\n" + name.encode() + b"\n",
        "obj": b"(" + imported(module, name) + command + more + b"o",
        "by stack": text(module) + text(name) + b"\x93(" + command + more + b"tR",
        "as a tensor": imported("torch._tensor", "_rebuild_from_type_v2") + b"(" + imported(module, name)
        + imported("torch", "Tensor") + command + b"\x85}tR",
        "as a hook": imported("torch._utils", "_rebuild_parameter_with_state") + b"(" + _TENSOR + b"\x89}}"
        + text("__setstate__") + imported(module, name) + b"stR" + command + b"b",
        "as a class": imported("collections", "OrderedDict") + b")R}" + text("__class__")
        + imported(module, name) + b"sb",
        "as a storage": b"(" + imported(module, name) + command + b"tQ",
        "as an extension": b"\x82\1" + command + b"\x85R",
        "stand-in": imported("argparse", "Namespace") + b")\x81}" + text("__setstate__")
        + imported(module, name) + b"sb" + command + b"b",
    }  # fmt: skip
    return call[draw(st.sampled_from(sorted(call)))]


_TENSOR = (
    imported("torch._utils", "_rebuild_tensor_v2")
    + b"((" + text("storage") + imported("torch", "FloatStorage") + text("0") + text("cpu") + b"K\6tQ"
    + b"K\0K\2K\3\x86K\3K\1\x86\x89" + imported("collections", "OrderedDict") + b")RtR"
)  # fmt: skip


@st.composite
def _programs(draw: st.DrawFn) -> bytes:
    """Few opcodes, repeated: what makes large things of small files."""
    step = draw(st.lists(st.sampled_from(_OPCODES), min_size=1, max_size=6))
    start = draw(
        st.sampled_from(
            [b"", b"}", b"})q\0", b"]q\0", imported("torch", "Size"), imported("collections", "Counter")]
        )
    )
    end = draw(st.sampled_from([b".", b"Ns.", b"R.", b"\x85R.", b"t.", b"a.", b"\x81}b.", b""]))
    return b"\x80\2" + start + b"".join(step) * draw(st.sampled_from([1, 5, 40, 1000, 5000])) + end


_OPCODES = (
    *(
        b")",
        b"}",
        b"]",
        b"\x8f",
        b"(",
        b"N",
        b"\x85",
        b"\x86",
        b"\x87",
        b"t",
        b"e",
        b"u",
        b"a",
        b"s",
        b"R",
        b"b",
    ),
    *(
        b"q\0",
        b"h\0",
        b"q\1",
        b"h\1",
        b"\x81",
        b"Q",
        b"K\0",
        b"J\xff\xff\xff\x7f",
        b"U\4abcd",
        text("ab" * 20),
    ),
    *(
        imported("__builtin__", "bytearray"),
        imported("__builtin__", "set"),
        imported("collections", "OrderedDict"),
    ),
    *(imported("torch", "FloatTensor"), imported("_codecs", "encode"), imported("torch", "FloatStorage")),
)


@st.composite
def pickles(draw: st.DrawFn, canary: Path) -> bytes:
    """The bytes of a .ckpt file."""
    kinds = ["damaged", "attack", "attack", "value", "program", "archive", "old", "leftovers", "leftovers"]
    kind = draw(st.sampled_from(kinds))
    if kind == "leftovers":
        body = SOUND_PICKLE[:-1] + draw(_TEXTS) + draw(_HARMLESS) + b"s."
        return archive(body, method=draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])))
    if kind == "archive":
        return edited(draw, SOUND)
    if kind == "old":
        return edited(draw, SOUND_OLD)
    if kind == "damaged":
        body = edited(draw, SOUND_PICKLE)
    elif kind == "program":
        body = draw(_programs())
    else:
        value = draw(_attacks(canary) if kind == "attack" else st.one_of(_HARMLESS, _VALUES))
        place = draw(st.sampled_from(_BORDERS))
        body = draw(
            st.sampled_from(
                [
                    b"\x80\2}" + text("a") + value + b"s.",
                    b"\x80\2" + value + b".",
                    b"\x80\4\x95" + bytes(8) + value + b".",
                    b"\x80\2}" + value + text("a") + b"s.",
                    SOUND_PICKLE[:-1] + text("x") + value + b"s.",
                    SOUND_PICKLE[:-1] + text("x") + value + b"s.",
                    SOUND_PICKLE[:place] + value + SOUND_PICKLE[place:],
                ]
            )
        )
    wrap = draw(st.sampled_from(["archive", "archive", "archive", "packed", "old", "keys", "bare"]))
    if wrap == "packed":
        return archive(body, method=zipfile.ZIP_DEFLATED)
    if wrap == "old":
        return old_format(body, pickle.dumps(["0"], 2))
    if wrap == "keys":
        return old_format(pickle.dumps({}, 2), body)
    return body if wrap == "bare" else archive(body)
