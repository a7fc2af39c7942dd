"""Open the compiled loops: machine code that an earlier run left on disk, else compiled now.

Numba is imported only to compile: its import and its own way of loading code take longer than a small scan.
Where llvmlite cannot load code by itself, numba's functions serve; both give the same numbers.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path

from analyzer.kernels.entry_points import ENTRY_POINTS, Loop
from analyzer.kernels.stored_code import read_code, source_stamp, write_code

NOTICE = "compiling the loops for this processor, once: a few seconds"

_log = logging.getLogger(__name__)


@functools.cache
def open_loops(module: str) -> Mapping[str, Loop]:
    """The entry points of a module of loops, by name.

    Says through `logging`, as information, that it compiles.
    """
    try:
        return _native(module)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong there, numba's own road is open
        _log.debug("%s: no machine code of our own", module, exc_info=error)
        return plain_loops(module)


def plain_loops(module: str) -> Mapping[str, Loop]:
    """The same loops as numba's functions, kept in its own cache."""
    loops = importlib.import_module(f"analyzer.kernels.{module}")
    return {name: getattr(loops, name) for name in ENTRY_POINTS[module]}


def _native(module: str) -> Mapping[str, Loop]:
    from analyzer.kernels.processor import Processor

    source = source_stamp()
    if not source:  # code of one release could not be told from another's; numba knows archives
        raise ImportError("the loops' source cannot be read")
    processor, layouts = Processor.here(), ENTRY_POINTS[module]
    name = f"{module}-{source}-{_compiler_stamp()}-{processor.name}-{processor.digest}.code"
    code = read_code(name)
    if code is None:
        _log.info(NOTICE)
        from analyzer.kernels.object_code import compile_object

        code = compile_object(module, layouts, processor)
        write_code(name, code)
    return processor.load(code, layouts)


def _compiler_stamp() -> str:
    """What tells one release of numba and llvmlite from another, without an import of the former."""
    import llvmlite

    spec = importlib.util.find_spec("numba")
    assert spec is not None
    assert spec.origin is not None
    version = (Path(spec.origin).parent / "_version.py").read_bytes()
    return f"{llvmlite.__version__}-{hashlib.sha256(version).hexdigest()[:8]}"
