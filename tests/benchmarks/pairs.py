"""Pairs of checkpoints to measure on: python tests/benchmarks/pairs.py KIND A B [options].

KIND is the name of a layout in `tests/layouts` (`sd15-ldm`, `sdxl-base-sgm` …), `layers` (a language model
of as many layers of Llama 3.2 1B as `--gigabytes` takes), `keys` (`--keys` tensors of 1,000 elements) or
`tensor` (as many bytes as these have, in one tensor). Needs a few megabytes of memory, whatever it writes.

Weights are normal with a deviation of 0.03. B is A plus noise of a share of that which depends on the key,
so that the ranking is known: `attn2` moves by 0.30 of its length, `attn1` and `self_attn` by 0.15, `ff` and
`mlp` by 0.10, everything else by 0.02, the VAE not at all. The same seed gives the same files, and files that
are there already are left as they are. Not collected by pytest.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "layouts"))

import notation

LAYOUTS = Path(notation.__file__).resolve().parent
Layout = Mapping[str, tuple[str, tuple[int, ...]]]  # dtype and shape by key

SIZES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "U8": 1}
SHARES = (("first_stage_model.", 0.0), ("attn2", 0.30), ("attn1", 0.15), ("self_attn", 0.15))
SHARES += ((".ff.", 0.10), (".mlp.", 0.10))
REST = 0.02
DEVIATION = 0.03
POOL = 1 << 22  # elements that are drawn; every tensor begins somewhere else among them
LAYERS = "llama32-1b"
ELEMENTS = 1_000  # of each of many keys


def layout_of(name: str, *, dtype: str, divisor: int = 1) -> Layout:
    """A published layout without its averaged copies, in one dtype but for integers.

    Axes of more than 64 are divided by their greatest common divisor with `divisor`.
    """
    lines = (LAYOUTS / f"{name}.layout").read_text(encoding="utf-8").splitlines()
    return {
        key: (dtype if stored.startswith(("F", "BF")) else stored, tuple(_short(n, divisor) for n in shape))
        for key, (stored, shape) in notation.parse(lines).items()
        if not key.startswith("model_ema")
    }


def layers_of(gigabytes: float, *, dtype: str, divisor: int = 1) -> Layout:
    """Layers of a language model, as many as come closest to this size (10^9 bytes), but one at least."""
    model = layout_of(LAYERS, dtype=dtype, divisor=divisor)
    layer = {key: kind for key, kind in model.items() if key.startswith("model.layers.0.")}
    size = sum(_bytes(*kind) for kind in layer.values())
    count = max(1, round(gigabytes * 1e9 / size))
    return {
        key.replace(".0.", f".{number}.", 1): kind for number in range(count) for key, kind in layer.items()
    }


def many_keys(count: int, *, dtype: str) -> Layout:
    """Experts of 1,000 elements each."""
    shape = (10, ELEMENTS // 10)
    return {f"model.layers.{i // 8}.mlp.experts.{i % 8}.up_proj.weight": (dtype, shape) for i in range(count)}


def one_tensor(count: int, *, dtype: str) -> Layout:
    """What `count` such experts hold, in one tensor."""
    return {"model.layers.0.mlp.up_proj.weight": (dtype, (count, ELEMENTS))}


def share_of(key: str) -> float:
    """How far B's tensor lies from A's, as a share of its length; tables of the sampler are the same."""
    return 0.0 if "." not in key else next((share for part, share in SHARES if part in key), REST)


def write_pair(a: Path, b: Path, layout: Layout, *, seed: int) -> None:
    """Write both models, tensors as the safetensors library orders them: by size of the type, by name."""
    ordered = dict(sorted(layout.items(), key=lambda item: (-SIZES[item[1][0]], item[0])))
    header = _header(ordered, seed)
    size = len(header) + sum(_bytes(*kind) for kind in ordered.values())
    pools = _Pools(seed)
    for path, second in ((a, False), (b, True)):
        if _is_there(path, header, size):
            continue
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            file.write(header)
            for key, (dtype, shape) in ordered.items():
                _write_tensor(file, key, dtype, math.prod(shape), pools, share_of(key) if second else 0.0)
        part.replace(path)


class _Pools:
    """The values of A, and of B by share, as bytes: what is written is cut out of these."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made: dict[tuple[str, float], memoryview] = {}

    @functools.cached_property
    def _drawn(self) -> list[np.ndarray]:  # not before something has to be written
        rng = np.random.default_rng(self._seed)
        return [DEVIATION * rng.standard_normal(POOL, np.float32) for _ in "ab"]

    def of(self, dtype: str, share: float) -> memoryview:
        if (dtype, share) not in self._made:
            base, noise = self._drawn
            values = base + np.float32(share) * noise
            self._made[dtype, share] = memoryview(_stored(values, dtype)).cast("B")
        return self._made[dtype, share]


def _stored(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "BF16":  # round to nearest, ties to even: numpy has no such type
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
    return values.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])


def _write_tensor(file: BinaryIO, key: str, dtype: str, count: int, pools: _Pools, share: float) -> None:
    if not dtype.startswith(("F", "BF")):
        file.write(np.arange(count).astype(f"<i{SIZES[dtype]}").tobytes())  # position_ids, above all
        return
    values, width = pools.of(dtype, share), SIZES[dtype]
    for first, last in _pieces(zlib.crc32(key.encode()) % POOL, count):
        file.write(values[first * width : last * width])


def _pieces(start: int, count: int) -> Iterator[tuple[int, int]]:
    """Where `count` elements lie that begin at `start` in a pool, and go round it."""
    while count:
        taken = min(count, POOL - start)
        yield start, start + taken
        start, count = (start + taken) % POOL, count - taken


def _header(layout: Layout, seed: int) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt", "seed": str(seed)}}
    position = 0
    for key, (dtype, shape) in layout.items():
        size = _bytes(dtype, shape)
        entries[key] = {"dtype": dtype, "shape": shape, "data_offsets": (position, position + size)}
        position += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _is_there(path: Path, header: bytes, size: int) -> bool:
    if not path.is_file() or path.stat().st_size != size:
        return False
    with path.open("rb") as file:
        return file.read(len(header)) == header


def _bytes(dtype: str, shape: tuple[int, ...]) -> int:
    return SIZES[dtype] * math.prod(shape)


def _short(length: int, divisor: int) -> int:
    return length if length <= 64 else length // math.gcd(length, divisor)


def main() -> None:
    """Parse, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kind", metavar="KIND")
    parser.add_argument("a", type=Path, metavar="A")
    parser.add_argument("b", type=Path, metavar="B")
    parser.add_argument("--dtype", default="F16", choices=["F16", "BF16", "F32"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of each model of KIND layers")
    parser.add_argument("--keys", type=int, default=100_000, help="of KIND keys and KIND tensor")
    parser.add_argument("--divisor", type=int, default=1, help="makes long axes of a layout shorter")
    options = parser.parse_args()
    dtype = options.dtype
    if options.kind == "layers":
        layout = layers_of(options.gigabytes, dtype=dtype, divisor=options.divisor)
    elif options.kind in ("keys", "tensor"):
        layout = (many_keys if options.kind == "keys" else one_tensor)(options.keys, dtype=dtype)
    elif (LAYOUTS / f"{options.kind}.layout").is_file():
        layout = layout_of(options.kind, dtype=dtype, divisor=options.divisor)
    else:
        parser.error(f"{options.kind}: layers, keys, tensor, or the name of a file in {LAYOUTS}")
    write_pair(options.a, options.b, layout, seed=options.seed)


if __name__ == "__main__":
    main()
