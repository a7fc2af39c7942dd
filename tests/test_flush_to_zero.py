"""A thread that flushes subnormal numbers to zero still widens every fp16 value exactly."""

from __future__ import annotations

import struct
import subprocess
import sys

import numpy as np
import pytest

FLUSHED = """
import sys
import numpy as np
import torch
from analyzer.blending import open_blender
if not torch.set_flush_denormal(True) or np.float32(1e-40) * np.float32(1) != 0:
    sys.exit(77)
codes = np.arange(1 << 16, dtype="<u2")
out, bad = open_blender("cpu").convert(codes.view("u1"), "F16", dtype="F64")
sys.stdout.buffer.write(int(bad).to_bytes(8, "little") + out.tobytes())
"""


def test_fp16_is_widened_exactly_where_subnormals_are_flushed() -> None:
    """All 65536 codes, both signs; the flag belongs to the thread, so it is set in another process."""
    done = subprocess.run([sys.executable, "-I", "-c", FLUSHED], capture_output=True, timeout=120)
    if done.returncode == 77:
        pytest.skip("this processor does not flush subnormals to zero")
    assert (0, b"") == (done.returncode, done.stderr)
    bad, widened = int.from_bytes(done.stdout[:8], "little"), np.frombuffer(done.stdout[8:], "<f8")
    # What the standard library makes of the codes; int·2^-24 for the subnormals, said once more.
    expected = np.array(struct.unpack("<65536e", np.arange(1 << 16, dtype="<u2").tobytes()))
    subnormal = np.arange(1, 0x400)
    np.testing.assert_array_equal(subnormal * 2.0**-24, widened[subnormal])
    np.testing.assert_array_equal(subnormal * -(2.0**-24), widened[0x8000 + subnormal])
    np.testing.assert_array_equal(expected, widened)
    assert int((~np.isfinite(expected)).sum()) == bad
