"""Compile a module of loops to one object file that needs nothing but this processor.

Numba makes the loops' code in LLVM's language; they neither allocate nor raise nor touch Python's objects.
What numba adds for functions that do (a status to return, the interpreter's lock, exceptions) is unreachable
then, and LLVM drops it once the functions are compiled as one program, of which only the entry points can be
called from outside.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from llvmlite import binding
from numba import cfunc, types
from numba.extending import intrinsic
from numba.np import arrayobj

from analyzer.kernels.compiled import compile_inner
from analyzer.kernels.entry_points import Argument, Loop, arguments
from analyzer.kernels.processor import Processor

_KINDS = {"u1": types.uint8, "i8": types.int64, "f8": types.float64}
_WORD = 8  # bytes
_types: Any = types
_cfunc: Any = cfunc
_ENTRY = _types.int64(_types.CPointer(_types.int64))

# Numba's own functions are untyped.
_make_array: Any = arrayobj.make_array
_populate_array: Any = arrayobj.populate_array


def compile_object(module: str, layouts: Mapping[str, str], processor: Processor) -> bytes:
    """The object file of a module's entry points. RuntimeError if it would refer to anything outside."""
    loops = importlib.import_module(f"analyzer.kernels.{module}")
    machine = processor.target_machine()
    whole = binding.parse_assembly("")
    names = {}
    with _front_end():
        for name, layout in layouts.items():
            # Without the doors that numba makes for Python, which take a fifth of the time.
            loop = compile_inner()(getattr(loops, name).py_func)
            entry = _cfunc(_ENTRY, _nrt=False, error_model="numpy")(_taking_words(loop, layout))
            names[entry.native_name] = name
            whole.link_in(binding.parse_assembly(entry.inspect_llvm()))
    _close(whole, names)
    tuning = binding.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_vectorization = True
    passes = binding.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(whole, passes)
    whole.verify()
    outside = [each.name for each in (*whole.functions, *whole.global_variables) if each.is_declaration]
    outside = [name for name in outside if not name.startswith("llvm.")]
    if outside:
        raise RuntimeError(f"the loops of {module} refer to {outside}")
    return bytes(machine.emit_object(whole))


def _front_end() -> AbstractContextManager[None]:
    """Numba as a front end alone; in a release that cannot be one it also optimises, in twice the time."""
    try:
        from analyzer.kernels.front_end import front_end_only, is_possible
    except ImportError:
        return nullcontext()
    return front_end_only() if is_possible() else nullcontext()


def _close(whole: Any, names: Mapping[str, str]) -> None:
    """Give the entry points their names, and let nothing else be seen from outside."""
    for function in whole.functions:
        if function.name in names:
            function.name = names[function.name]
        elif not function.is_declaration:
            function.linkage = "internal"
    for variable in whole.global_variables:
        if not variable.is_declaration:
            variable.linkage = "internal"


def _taking_words(loop: Loop, layout: str) -> Callable[[Any], Any]:
    unpacked = _unpacking(arguments(layout))

    def entry(words: Any) -> Any:
        return loop(*unpacked(words))

    return entry


def _unpacking(taken: tuple[Argument, ...]) -> Any:
    """A function for compiled code that makes a loop's arguments of the words they were handed over as."""
    kinds = [types.Array(_KINDS[a.dtype], a.axes, "C") if a.axes else _KINDS[a.dtype] for a in taken]
    together = _types.Tuple(kinds)

    @intrinsic
    def unpack(_context: Any, words: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            places = iter(range(sum(len(argument.words) for argument in taken)))

            def word() -> Any:
                return builder.load(builder.gep(args[0], [context.get_constant(types.intp, next(places))]))

            def array(kind: Any) -> Any:
                made = _make_array(kind)(context, builder)
                address = builder.inttoptr(word(), made.data.type)
                shape = [word() for _ in range(kind.ndim)]
                size = context.get_constant(types.intp, kind.dtype.bitwidth // _WORD)
                strides = [size]
                for extent in shape[:0:-1]:
                    strides.insert(0, builder.mul(strides[0], extent))
                _populate_array(made, address, shape=shape, strides=strides, itemsize=size, meminfo=None)
                return made._getvalue()

            def number(kind: Any) -> Any:
                return builder.bitcast(word(), context.get_value_type(kind))

            values = [array(kind) if isinstance(kind, types.Array) else number(kind) for kind in kinds]
            return context.make_tuple(builder, together, values)

        return together(words), generate

    return unpack
