"""The element types of model files, under their safetensors names: the only dtype table.

How a floating-point format splits its bits into exponent and significand is arithmetic, and stands
in `analyzer.kernels.formats`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dtype:
    """One element type of whole bytes."""

    itemsize: int  # bytes of one element
    floating: bool  # real floating point, of any width; complex, integers and booleans are not
    torch: str  # its attribute in the torch module
    label: str  # for people

    @property
    def raw(self) -> str:
        """The numpy dtype under which the bits of an element survive any copy."""
        return f"<u{self.itemsize}"


DTYPES: Mapping[str, Dtype] = {
    "F64": Dtype(8, True, "float64", "fp64"),
    "F32": Dtype(4, True, "float32", "fp32"),
    "F16": Dtype(2, True, "float16", "fp16"),
    "BF16": Dtype(2, True, "bfloat16", "bf16"),
    "F8_E4M3": Dtype(1, True, "float8_e4m3fn", "fp8 e4m3"),
    "F8_E5M2": Dtype(1, True, "float8_e5m2", "fp8 e5m2"),
    "F8_E4M3FNUZ": Dtype(1, True, "float8_e4m3fnuz", "fp8 e4m3fnuz"),
    "F8_E5M2FNUZ": Dtype(1, True, "float8_e5m2fnuz", "fp8 e5m2fnuz"),
    "F8_E8M0": Dtype(1, True, "float8_e8m0fnu", "fp8 e8m0"),
    "C64": Dtype(8, False, "complex64", "complex64"),
    "I64": Dtype(8, False, "int64", "int64"),
    "I32": Dtype(4, False, "int32", "int32"),
    "I16": Dtype(2, False, "int16", "int16"),
    "I8": Dtype(1, False, "int8", "int8"),
    "U64": Dtype(8, False, "uint64", "uint64"),
    "U32": Dtype(4, False, "uint32", "uint32"),
    "U16": Dtype(2, False, "uint16", "uint16"),
    "U8": Dtype(1, False, "uint8", "uint8"),
    "BOOL": Dtype(1, False, "bool", "bool"),
}

# safetensors also knows these; their elements are not whole bytes, so they have no row above.
PACKED = frozenset({"F4", "F6_E2M3", "F6_E3M2"})

BY_TORCH_NAME: Mapping[str, str] = {dtype.torch: name for name, dtype in DTYPES.items()}
