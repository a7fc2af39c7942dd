"""Blending and conversion in torch: for CUDA, and for a CPU where the compiled loops are not at hand.

Slower than `analyzer.kernels.compiled_blend` on a CPU, and equal to it to the last byte.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from analyzer.kernels.formats import FLOATS, rounding_parameters

TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
EXPONENT_BITS = 0x7FF0000000000000
_MAGNITUDE_BITS = 0x7FFFFFFFFFFFFFFF


def blend(
    raw_a: NDArray[np.uint8],
    dtype_a: str,
    raw_b: NDArray[np.uint8],
    dtype_b: str,
    alpha: float,
    dtype_out: str,
    device: str,
) -> tuple[NDArray[np.uint8], int]:
    """The bytes of a + alpha·(b − a), formed in fp64 and rounded once, and how many are not finite."""
    a, b = widen(raw_a, dtype_a, device), widen(raw_b, dtype_b, device)
    # what both sides share stays as it is: signed zeros, Inf
    return _narrow(torch.where(a == b, a, a + alpha * (b - a)), dtype_out)


def convert(raw: NDArray[np.uint8], dtype: str, dtype_out: str, device: str) -> tuple[NDArray[np.uint8], int]:
    """The bytes of the same values in another format, rounded once, and how many are not finite."""
    return _narrow(widen(raw, dtype, device), dtype_out)


def upload(raw: NDArray[np.uint8], device: str) -> torch.Tensor:
    """The bytes on the device. From pinned memory they travel while the processor goes on."""
    if not raw.size:  # an empty slice of numpy has a stride of 0, which torch does not view as a wider dtype
        return torch.empty(0, dtype=torch.uint8, device=device)
    return torch.from_numpy(raw).to(device, non_blocking=True)


def widen(raw: NDArray[np.uint8] | torch.Tensor, dtype: str, device: str) -> torch.Tensor:
    """The elements as fp64 on the device, exactly; the bytes travel, not the widened values."""
    tensor = raw if isinstance(raw, torch.Tensor) else upload(raw, device)
    wanted = TORCH_DTYPES[dtype]
    if tensor.storage_offset() % wanted.itemsize:  # torch views no element across its place
        tensor = tensor.clone()
    return tensor.view(wanted).to(torch.float64)


def _narrow(values: torch.Tensor, dtype: str) -> tuple[NDArray[np.uint8], int]:
    """fp64 values rounded to a format, to nearest and ties to even.

    Not `values.to(dtype)`: torch goes from fp64 to fp16 by way of fp32 and so rounds twice.
    """
    if FLOATS[dtype].bits >= 32:
        narrowed = values.to(TORCH_DTYPES[dtype])
        not_finite = ~torch.isfinite(narrowed)
        raw = narrowed.cpu()
        raw[raw.isnan()] = torch.nan  # one code for every NaN: the CPU's, whatever the device made
        return raw.view(torch.uint8).numpy(), int(not_finite.sum())
    drop, rebias, smallest_normal, magic, largest, nan = rounding_parameters(dtype).tolist()
    bits = values.view(torch.int64)
    magnitude = bits & _MAGNITUDE_BITS
    normal = ((magnitude + ((1 << (drop - 1)) - 1) + ((magnitude >> drop) & 1)) >> drop) - rebias
    magic_value = float(np.array(magic, dtype=np.int64).view(np.float64))
    subnormal = (values.abs() + magic_value).view(torch.int64) - magic
    code = torch.where(magnitude >= smallest_normal, normal, subnormal).clamp(max=largest)
    infinite, is_nan = magnitude == EXPONENT_BITS, magnitude > EXPONENT_BITS
    no_infinity = nan == largest + 1
    code = torch.where(is_nan | infinite if no_infinity else is_nan, nan, code)
    not_finite = infinite | is_nan if no_infinity else code >= largest
    sign = 1 << (FLOATS[dtype].bits - 1)
    code = torch.where((bits < 0) & (code != nan), code | sign, code)  # one code for every NaN
    width = torch.int16 if FLOATS[dtype].bits == 16 else torch.uint8
    # int64 keeps the low bits when it is narrowed, which is all that a bit pattern needs
    return code.to(width).cpu().view(torch.uint8).numpy(), int(not_finite.sum())
