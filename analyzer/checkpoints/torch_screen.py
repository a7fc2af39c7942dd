"""What loading a torch pickle would take, told before torch loads it. Reads opcodes, runs none of them.

torch's weights-only loader runs no code from a file, but it can be made to work for ever or to fill the
memory: a few hundred bytes ask for a bytearray of gigabytes, for the hash of a tuple that holds itself
twice, thirty times over, or for one of a million tuples inside each other, which ends the process (all
seen with torch 2.13). So its steps are counted here beforehand, with nothing built but their costs.
"""

from __future__ import annotations

import pickle
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

MAX_UNFOLDED_BYTES = 64 << 20  # what a pickle may take in memory, beside as much as its file has, four times
MAX_TENSORS_BYTES = 1 << 30  # and for many small tensors, in proportion to the file: 100,000 take 0.7 GB here
MAX_NESTING = 100  # of tuples in tuples; torch.save needs 3

_ENOUGH = "do not use this model unless you know why"
_TOO_MUCH = f"the pickle inside would take far more time or memory than its file has bytes; {_ENOUGH}"
_TOO_DEEP = (
    f"the pickle inside nests more than {MAX_NESTING} tuples in each other, as no model does; {_ENOUGH}"
)

# What may be called, apart from stand-ins: all that state dicts consist of, and nothing that makes large
# things of small ones.
_CALLABLE = frozenset(
    {
        *("builtins.complex", "builtins.set", "collections.Counter", "collections.OrderedDict"),
        *("torch.Size", "torch.device", "torch.nn.parameter.Parameter", "torch.serialization._get_layout"),
        *("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"),
        *(f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3")),
        *(f"torch._utils._rebuild_{kind}_tensor" for kind in ("nested", "sparse")),
        *("torch._utils._rebuild_qtensor", "torch._utils._rebuild_meta_tensor_no_storage"),
    }
)
_ANY_TENSOR = "torch._tensor._rebuild_from_type_v2"  # calls its first argument
_BYTES = frozenset({"_codecs.encode", "builtins.bytearray"})  # of a text; the latter also of a size
_CODECS = frozenset({"latin1", "latin-1"})  # others can take a time that grows with the square

# A tensor of one element takes 170 bytes of a file and 6000 here, and may be all that a file holds.
_TENSORS_SHARE = 48

# In bytes, about as many as CPython and torch take.
_STEP, _OBJECT, _CONTAINER, _ENTRY, _STORAGE, _TENSOR = 16, 96, 128, 112, 512, 1024


@dataclass(slots=True, eq=False)
class _Value:
    """What is known of a value that the loader would have."""

    cost: int = 1  # grows with what it holds, counted as often as it is held: what hashing it takes
    depth: int = 0  # tuples in each other
    name: str = ""  # of something imported; of a short text, the text
    text: bool = False
    items: Sequence[_Value] = ()  # of a tuple


_ATOM = _Value()  # a number, a storage: all alike


class _BombError(Exception):
    """The pickle asks for too much; the message is the rest of a sentence."""


def refuse_bombs(stream: BinaryIO, *, size: int, pickles: int, stand_ins: Collection[str]) -> str | None:
    """Why torch must not load so many pickles from the stream, as the rest of a sentence; None if it may.

    `size` is that of the file. Raises UnpicklingError, as torch would, for what its weights-only loader
    refuses, and EOFError or LookupError for what is damaged.
    """
    screen = _Screen(stream, size, stand_ins)
    try:
        for _ in range(pickles):
            screen.run()
    except _BombError as refused:
        return str(refused)
    return None


class _Screen:
    """The loader's machine, with costs in the place of values."""

    def __init__(self, stream: BinaryIO, size: int, stand_ins: Collection[str]) -> None:
        self._stream = stream
        self._size = size
        self._stand_ins = stand_ins
        self._left = MAX_UNFOLDED_BYTES + 4 * size + min(_TENSORS_SHARE * size, MAX_TENSORS_BYTES)

    def run(self) -> None:
        """Go through one pickle up to its end."""
        self._stack: list[_Value] = []
        self._marked: list[list[_Value]] = []
        self._memo: dict[int, _Value] = {}
        while (opcode := self._read(1)) != pickle.STOP:
            self._step(opcode)

    def _step(self, opcode: bytes) -> None:
        """One opcode; those that torch's loader knows, and no others."""
        stack = self._stack
        self._spend(_STEP)
        if opcode in _PUTS:
            self._memo[self._number(_PUTS[opcode])] = stack[-1]
            self._spend(_ENTRY)
        elif opcode in _GETS:
            stack.append(self._memo[self._number(_GETS[opcode])])
        elif opcode in _PLAIN:
            self._read(_PLAIN[opcode])
            self._push(_ATOM, _OBJECT)
        elif opcode in _COUNTED:
            self._push(*self._text(opcode))
        elif opcode in _TUPLES:
            count = _TUPLES[opcode]
            items = self._pop_mark() if count is None else self._pop(count)
            self._tuple(items)
        elif opcode in _CONTAINERS:
            self._push(_Value(), _CONTAINER)
        elif opcode == pickle.MARK:
            self._marked.append(stack)
            self._stack = []
            self._spend(_CONTAINER)
        elif opcode in (pickle.APPEND, pickle.SETITEM):
            self._put_in(self._pop(1 if opcode == pickle.APPEND else 2))
        elif opcode in (pickle.APPENDS, pickle.SETITEMS):
            self._put_in(self._pop_mark())
        elif opcode in (pickle.REDUCE, pickle.NEWOBJ):
            function, arguments = self._pop(2)
            self._call(function, arguments)
        elif opcode == pickle.BUILD:
            (state,) = self._pop(1)
            self._spend(_ENTRY + state.cost)
        elif opcode == pickle.BINPERSID:
            (place,) = self._pop(1)
            self._push(_ATOM, _STORAGE + place.cost)
        elif opcode == pickle.GLOBAL:
            module, name = self._line(), self._line()
            self._push(_Value(name=f"{'builtins' if module == '__builtin__' else module}.{name}"), _OBJECT)
        elif opcode == pickle.PROTO:
            self._read(1)
        else:
            raise pickle.UnpicklingError(f"Unsupported operand {opcode[0]}")

    def _call(self, function: _Value, arguments: _Value) -> None:
        """A function of a tuple, or a class of the arguments for its new object."""
        name = function.name
        given = arguments.items
        if name in _BYTES:
            allowed = all(item.text for item in given) and all(item.name in _CODECS for item in given[1:])
        elif name == _ANY_TENSOR:
            allowed = bool(given) and given[0].name in _CALLABLE
        elif name.startswith("torch.") and name.endswith("Tensor"):
            allowed = not given  # else sizes, or nested lists; BUILD tells the rest
        else:
            allowed = name in _CALLABLE or name in self._stand_ins
        if function.text or not name:
            raise pickle.UnpicklingError("calls what is no function")
        if not allowed:
            raise pickle.UnpicklingError(f"GLOBAL {name} must not be called")
        base = _TENSOR if name.startswith("torch.") else _CONTAINER
        self._push(_Value(arguments.cost, arguments.depth), base + 4 * arguments.cost)

    def _tuple(self, items: Sequence[_Value]) -> None:
        depth = 1 + max((item.depth for item in items), default=0)
        if depth > MAX_NESTING:
            raise _BombError(_TOO_DEEP)
        cost = 16 + sum(item.cost for item in items)
        if cost > self._left:  # never summed up further: the numbers would grow without end
            raise _BombError(_TOO_MUCH)
        self._push(_Value(cost, depth, items=items), _OBJECT + 8 * len(items))

    def _put_in(self, items: Sequence[_Value]) -> None:
        """Into a list, or by pairs into a dict, which then stands on top."""
        cost = sum(item.cost for item in items)
        self._spend(cost + _ENTRY * len(items))
        self._stack[-1].cost += cost

    def _text(self, opcode: bytes) -> tuple[_Value, int]:
        length = self._number(_COUNTED[opcode])
        raw = self._read(length)
        short = raw.decode("latin-1") if length <= 16 else ""
        return _Value(cost=length or 1, name=short, text=opcode == pickle.BINUNICODE), _OBJECT + 4 * length

    def _push(self, value: _Value, cost: int) -> None:
        self._spend(cost)
        self._stack.append(value)

    def _spend(self, cost: int) -> None:
        self._left -= cost
        if self._left < 0:
            raise _BombError(_TOO_MUCH)

    def _pop(self, count: int) -> list[_Value]:
        items = self._stack[len(self._stack) - count :] if count <= len(self._stack) else []
        if len(items) < count:
            raise IndexError("the pickle takes more than it has")
        del self._stack[len(self._stack) - count :]
        return items

    def _pop_mark(self) -> list[_Value]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _read(self, count: int) -> bytes:
        if count > _BLOCK_BYTES:  # a length may lie, and a stream makes room before it reads
            count = min(count, self._size + 1 - self._stream.tell())
        raw = self._stream.read(count)
        if len(raw) < count or count < 0:
            raise EOFError("the pickle is cut off")
        return raw

    def _number(self, size: int) -> int:
        return int.from_bytes(self._read(size), "little")

    def _line(self) -> str:
        return self._stream.readline()[:-1].decode()


_BLOCK_BYTES = 1 << 16


def _sized(size: int, *opcodes: bytes) -> Iterable[tuple[bytes, int]]:
    return ((opcode, size) for opcode in opcodes)


# Opcode -> the bytes of its argument, or of the argument's length.
_PUTS = dict([*_sized(1, pickle.BINPUT), *_sized(4, pickle.LONG_BINPUT)])
_GETS = dict([*_sized(1, pickle.BINGET), *_sized(4, pickle.LONG_BINGET)])
_PLAIN = dict(
    [
        *_sized(0, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
        *_sized(1, pickle.BININT1),
        *_sized(2, pickle.BININT2),
        *_sized(4, pickle.BININT),
        *_sized(8, pickle.BINFLOAT),
    ]
)
_COUNTED = dict([*_sized(1, pickle.SHORT_BINSTRING, pickle.LONG1), *_sized(4, pickle.BINUNICODE)])
_TUPLES = {
    pickle.EMPTY_TUPLE: 0,
    pickle.TUPLE1: 1,
    pickle.TUPLE2: 2,
    pickle.TUPLE3: 3,
    pickle.TUPLE: None,  # all from the last mark on
}
_CONTAINERS = frozenset({pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.EMPTY_SET})
