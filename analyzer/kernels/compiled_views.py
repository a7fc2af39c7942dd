"""Parts of arrays as the compiled loops take them: an address and a length, owned by nobody.

Slices and views of numba's own count references and can raise; code that shall run without numba may do
neither.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

# What lets a sum run in vector registers. NaN and Inf keep their meaning.
REASSOCIATE = {"reassoc", "nsz", "contract"}

# Numba's own functions are untyped.
_make_array: Any = arrayobj.make_array
_populate_array: Any = arrayobj.populate_array
_pointer_add: Any = cgutils.pointer_add


def _view(kind: Any, bits: int) -> Any:
    """A function (array, byte offset, count) → the numbers there, unchecked, at whatever alignment."""
    view = types.Array(kind, 1, "C", aligned=False)

    @intrinsic
    def elements(_context: Any, array: Any, _offset: Any, _count: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = _make_array(signature.args[0])(context, builder, args[0]).data
            part = _make_array(view)(context, builder)
            address = _pointer_add(builder, data, args[1], part.data.type)
            size = context.get_constant(types.intp, bits // 8)
            _populate_array(part, address, shape=[args[2]], strides=[size], itemsize=size, meminfo=None)
            return part._getvalue()

        return view(array, types.int64, types.int64), generate

    return elements


f64_at = _view(types.float64, 64)
f32_at = _view(types.float32, 32)
i64_at = _view(types.int64, 64)
i32_at = _view(types.int32, 32)
u16_at = _view(types.uint16, 16)
bytes_at = _view(types.uint8, 8)
