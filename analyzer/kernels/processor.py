"""The processor that machine code is for: how it is told from others, and how its code is loaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llvmlite import binding

from analyzer.kernels.entry_points import Loop, NativeLoop


@dataclass(frozen=True, slots=True)
class Processor:
    """A processor as LLVM knows it."""

    name: str
    features: str

    @classmethod
    def here(cls) -> Processor:
        """The one that this runs on, or what the user tells numba to compile for."""
        name = os.environ.get("NUMBA_CPU_NAME") or binding.get_host_cpu_name()
        features = os.environ.get("NUMBA_CPU_FEATURES")
        if features is None:
            features = "" if name == "generic" else _features_here()
        return cls(name, features)

    @property
    def digest(self) -> str:
        """What tells it, and the system, from others."""
        text = "\n".join([self.name, self.features, binding.get_process_triple()])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def target_machine(self) -> Any:
        """What compiles for it, and loads into this process."""
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        target = binding.Target.from_default_triple()
        return target.create_target_machine(
            cpu=self.name,
            features=self.features,
            opt=3,
            # as numba does: code for x86 that is loaded at once need not be movable
            reloc="static" if target.name.startswith("x86") else "default",
            codemodel="jitdefault",
            jit=True,
        )

    def load(self, code: bytes, layouts: Mapping[str, str]) -> dict[str, Loop]:
        """The loops of an object file; ImportError if one is not in it."""
        engine = binding.create_mcjit_compiler(binding.parse_assembly(""), self.target_machine())
        engine.add_object_file(binding.ObjectFileRef.from_data(code))
        engine.finalize_object()
        loops: dict[str, Loop] = {}
        for name, layout in layouts.items():
            address = engine.get_function_address(name)
            if not address:
                raise ImportError(f"{name}: not in the object file")
            loops[name] = NativeLoop(address, layout)
        _ENGINES.append(engine)
        return loops


def _features_here() -> str:
    try:
        return str(binding.get_host_cpu_features().flatten())
    except RuntimeError:  # the system does not tell
        return ""


# Code is gone with the engine that holds it, and its addresses are in use until the process ends.
_ENGINES: list[Any] = []
