"""What the compiled loops share: the compiler's options, reading numbers as bits, widening to fp64.

The loops work on blocks of 1024 elements that stay in the first-level cache: widen all sides to fp64,
exactly, then do the arithmetic of the block. The interpreter lock is released throughout, so threads
scale. The first call on a machine compiles (some seconds) and stores the result beside the package, or
in the user's cache folder.

Where a host program has told its threads to flush subnormal numbers to zero (no thread of ours is
told so), fp16 is still widened exactly; fp32 and bf16 values below 1.2e-38 then count as zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import config, njit, types
from numba.extending import intrinsic

from analyzer.kernels.backends import BLOCK
from analyzer.kernels.stored_code import source_stamp

__all__ = ["BLOCK"]

Function = TypeVar("Function", bound=Callable[..., Any])

_STAMP = source_stamp()


def compile_loop(**options: Any) -> Callable[[Function], Function]:
    """`numba.njit`, cached on disk where some folder for the cache is writable."""

    def decorate(function: Function) -> Function:
        # Numba looks for changes in a loop's own file only. What it calls and its constants stand in others,
        # and are compiled in: without another name a new release would go on with loops of the one before.
        function.__qualname__ += f"_{_STAMP}"
        try:
            compiled = njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # "no locator available": a read-only installation without a home
            compiled = njit(nogil=True, **options)(function)
        return compiled  # type: ignore[no-any-return]  # numba's decorators are untyped

    return decorate


def compile_inner(**options: Any) -> Callable[[Function], Function]:
    """`compile_loop` for what only compiled code calls: no door for Python, and nothing kept on disk.

    Compiled in half of the time, and without references and exceptions.
    """
    options |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}
    compiled: Callable[[Function], Function] = njit(nogil=True, error_model="numpy", **options)
    return compiled


def _bitcast(kind_in: Any, kind_out: Any, llvm_type: Any) -> Any:
    """A function for compiled code that reads a number's bits as another type of the same width."""

    @intrinsic
    def reinterpret(_context: Any, _value: Any) -> Any:
        return kind_out(kind_in), lambda _c, builder, _s, args: builder.bitcast(args[0], llvm_type)

    return reinterpret


f32_of_bits = _bitcast(types.int32, types.float32, ir.FloatType())
f64_of_bits = _bitcast(types.int64, types.float64, ir.DoubleType())
bits_of_f64 = _bitcast(types.float64, types.int64, ir.IntType(64))
bits_of_f32 = _bitcast(types.float32, types.int32, ir.IntType(32))


def _add_pair(_context: Any, array: Any, place: Any, first: Any, second: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pair = ir.VectorType(ir.DoubleType(), 2)
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        address = builder.bitcast(builder.gep(data, [args[1]]), pair.as_pointer())
        values = ir.Constant(pair, [0.0, 0.0])
        for lane, value in enumerate(args[2:]):
            values = builder.insert_element(values, value, ir.Constant(ir.IntType(32), lane))
        held = builder.load(address, align=8)
        builder.store(builder.fadd(held, values), address, align=8)
        return context.get_dummy_value()

    return types.void(array, place, first, second), generate


# Add two numbers to the neighbours array[place] and array[place + 1] in one step, unchecked. Numba's compiler
# leaves them apart, and a histogram of counts and sums takes half as long again.
add_pair: Any = intrinsic(_add_pair)


@compile_inner()
def count_at_least(values: Any, n: Any, limit: Any) -> Any:
    """How many magnitudes are `limit` or more, or NaN."""
    count = 0
    for i in range(n):
        count += not abs(values[i]) < limit
    return count


def _half_to_double(_context: Any, _value: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        half = builder.bitcast(args[0], ir.HalfType())
        return builder.fpext(builder.fpext(half, ir.FloatType()), ir.DoubleType())

    return types.float64(types.uint16), generate


def _single_to_half(_context: Any, _value: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), generate


# Where the processor has no such instruction, compiled code that uses these cannot be loaded.
half_to_double: Any = intrinsic(_half_to_double)
single_to_half: Any = intrinsic(_single_to_half)


def processor_knows_half() -> bool:
    """Whether code is compiled for this processor, and it converts between fp16 and fp32 by itself."""
    # What a user tells numba to compile for: values that its settings have only while it runs.
    if any(getattr(config, name, None) is not None for name in ("CPU_NAME", "CPU_FEATURES")):
        return False
    try:
        return bool(get_host_cpu_features().get("f16c"))
    except RuntimeError:  # the system does not tell
        return False


KNOWS_HALF = processor_knows_half()


@compile_inner()
def widen_half_by_hardware(half: Any, n: Any, out: Any) -> Any:
    """The first n fp16 numbers as fp64, exactly: half the time of `widen_half_by_fields`."""
    for i in range(n):
        out[i] = half_to_double(half[i])


@compile_inner()
def widen_half_by_fields(half: Any, n: Any, out: Any) -> Any:
    """The same on any processor."""
    # fp16's fields, moved to where fp32 has them, are the value divided by 2^112. Subnormals
    # are subnormal there too: a thread that flushes those to zero must take the slow road.
    if f32_of_bits(np.int32(min(n, 1))) * np.float32(2.0**112) > 0:
        for i in range(n):
            h = np.int32(half[i])
            fields = (h & np.int32(0x7FFF)) << np.int32(13) | (h & np.int32(0x8000)) << np.int32(16)
            out[i] = np.float64(f32_of_bits(np.int32(fields)) * np.float32(2.0**112))
    else:
        for i in range(n):
            h = np.int32(half[i])
            magnitude = h & np.int32(0x7FFF)
            normal = f32_of_bits(np.int32((magnitude << np.int32(13)) + np.int32(112 << 23)))
            x = normal if magnitude >= np.int32(0x400) else np.float32(magnitude) * np.float32(2.0**-24)
            out[i] = np.float64(x if h == magnitude else -x)
    # Inf and NaN came out as 65536 and more, which fp16 does not have.
    if count_at_least(out, n, 65536.0) > 0:
        for i in range(n):
            if abs(out[i]) == 65536.0:
                out[i] *= np.inf
            elif abs(out[i]) > 65536.0:
                out[i] = np.nan


widen_half = widen_half_by_hardware if KNOWS_HALF else widen_half_by_fields


@compile_loop()
def widen(raw: Any, code: Any, table: Any, start: Any, n: Any, out: Any) -> Any:
    """Elements start … start+n as fp64, exactly; return how many are NaN or Inf."""
    if code == 0:
        f64 = raw.view(np.float64)[start : start + n]
        for i in range(n):
            out[i] = f64[i]
    elif code == 1:
        f32 = raw.view(np.float32)[start : start + n]
        for i in range(n):
            out[i] = np.float64(f32[i])
    elif code == 2:
        half = raw.view(np.uint16)[start : start + n]
        widen_half(half, n, out)
    elif code == 3:
        brain = raw.view(np.uint16)[start : start + n]
        for i in range(n):
            out[i] = np.float64(f32_of_bits(np.int32(np.int32(brain[i]) << np.int32(16))))
    else:
        for i in range(n):
            out[i] = table[raw[start + i]]
    return count_at_least(out, n, np.inf)
