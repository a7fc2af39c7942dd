"""Numba as a front end alone: Python functions to LLVM's language, and no machine code on the way.

By itself numba optimises and assembles every function as soon as it is compiled, and once more with each that
calls it. Where a program is compiled as a whole afterwards, a third of the time goes there.

Reaches for names that numba keeps to itself: the same from 0.61 to 0.68. Ask `is_possible` first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba.core import codegen, registry
from numba.core.compiler_lock import global_compiler_lock

_Library: Any = getattr(codegen, "JITCodeLibrary", object)
# What is replaced or called here.
_OF_LIBRARY = ("_optimize_final_module", "_finalize_final_module", "_finalize_dynamic_globals", "_finalized")


class _Unassembled(_Library):  # type: ignore[misc]  # numba's classes are untyped
    """What is compiled stays as the front end wrote it. Whoever calls it can still link it."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, _name: str) -> int:
        """There is no code to point to: 0, numba's answer for what is not defined."""
        self._ensure_finalized()
        return 0


def is_possible() -> bool:
    """Whether this release of numba has all that `front_end_only` reaches for."""
    try:
        makers = type(registry.cpu_target.target_context.codegen())
        return makers._library_class is _Library and all(
            hasattr(*names) for names in ((makers, "set_env"), *((_Library, name) for name in _OF_LIBRARY))
        )
    except AttributeError:
        return False


@contextmanager
def front_end_only() -> Iterator[None]:
    """Within, what numba compiles cannot be called from Python, only from what it compiles later.

    Holds numba's lock, so that no other thread compiles meanwhile.
    """
    with global_compiler_lock:
        maker = registry.cpu_target.target_context.codegen()
        maker._library_class = _Unassembled
        maker.set_env = lambda _name, _env: None  # it would look for the code's address
        try:
            yield
        finally:
            del maker._library_class, maker.set_env
