"""The floating-point formats of weights: how many bits they have for what. Knows no arrays and no files.

Names are those of safetensors. What compiled loops make of the formats stands in `analyzer.kernels.formats`;
this much is for those, too, who do without NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """A binary floating-point format of at most 64 bits."""

    code: int  # which branch of the compiled loops reads and writes it
    bits: int
    precision: int  # significand bits, the hidden one included: fp16 has 11
    emin: int  # exponent of the smallest normal number: 2^emin
    infinite: bool = True  # False: no Inf, the largest codes are finite (fp8 e4m3fn)

    @property
    def smallest_spacing(self) -> float:
        """The spacing of subnormal numbers, and so the smallest ulp of all."""
        return 2.0 ** (self.emin - self.precision + 1)

    @property
    def scale(self) -> float:
        """The spacing of normal numbers, by the power of two at or below them."""
        return 2.0 ** (1 - self.precision)


FLOATS: Mapping[str, FloatFormat] = {
    "F64": FloatFormat(code=0, bits=64, precision=53, emin=-1022),
    "F32": FloatFormat(code=1, bits=32, precision=24, emin=-126),
    "F16": FloatFormat(code=2, bits=16, precision=11, emin=-14),
    "BF16": FloatFormat(code=3, bits=16, precision=8, emin=-126),
    "F8_E4M3": FloatFormat(code=4, bits=8, precision=4, emin=-6, infinite=False),
    "F8_E5M2": FloatFormat(code=5, bits=8, precision=3, emin=-14),
}
