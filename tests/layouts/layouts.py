"""Key layouts of published models: reads `*.layout`, and makes small models out of them.

A layout holds the names, dtypes and shapes of one real file (or of one folder of shards), and no values;
its first lines, comments, say which model it is and where the names come from. Tests import this module;
it knows nothing of the libraries that `make_layouts.py` builds layouts with.
"""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path

import numpy as np
import torch
from notation import Shape, parse
from safetensors.torch import save_file

from analyzer.checkpoints.dtypes import DTYPES
from analyzer.records import TensorInfo

FOLDER = Path(__file__).resolve().parent

Layout = dict[str, tuple[str, Shape]]

# Elements and bytes of one block: gguf-py/gguf/constants.py, GGML_QUANT_SIZES.
BLOCKS = {
    "Q4_0": (32, 18),
    "Q5_0": (32, 22),
    "Q8_0": (32, 34),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
}
# From last to first, as the safetensors library writes the types that stand in layouts.
WRITTEN = ("U8", "F8_E4M3", "F16", "BF16", "I32", "F32", "I64")

KEPT = 64  # axes of up to so many elements keep their length in a small model
ELEMENTS = 2_000_000  # what a small model may have
DIVISORS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
OWN_DIVISOR = {"gpt-oss-20b": 320, "gpt-oss-20b-bf16": 320}  # 2880 = 64 · 45: no power of two gets it down
SCALED_BLOCK = 128  # rows and columns that share one number of `weight_scale_inv`
SCALE = r"(.*\.)?(weight_scale|weight_scale_inv|scale_weight|scale_input)"


def names() -> list[str]:
    """The layouts that there are, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.layout"))


def source(name: str) -> str:
    """What the layout's comments say: which model it is, and where its names come from."""
    return "\n".join(line[1:].strip() for line in _lines(name) if line.startswith("#"))


def load(name: str) -> Layout:
    """Dtype and shape by key, in the order in which the safetensors library writes: by dtype, by name."""
    return dict(_load(name))


def infos(name: str, *, scale: bool = False, divisor: int | None = None) -> list[TensorInfo]:
    """The tensors as a reader of the file lists them; with `scale`, those of the small model.

    A tensor in GGUF's blocks is an F32 one whose `encoded` says what the file holds.
    """
    tensors, offset = [], 0
    for key, (dtype, shape) in (small(name, divisor=divisor) if scale else load(name)).items():
        size = _bytes(dtype, shape)
        info = TensorInfo(key, dtype, shape, offset, size)
        if dtype in BLOCKS:
            info = TensorInfo(key, "F32", shape, 0, 4 * math.prod(shape), encoded=info)
        tensors.append(info)
        offset += size
    return tensors


def small(name: str, *, divisor: int | None = None) -> Layout:
    """The same keys, dtypes and numbers of axes, with short axes.

    An axis of more than 64 is divided by its greatest common divisor with a power of two: what is 3, 5 or 7
    times as long stays so (a fused qkv, Flux's linear2 and linear1), and what is twice as long (gate_up)
    wherever the power divides the shorter one. The power is `divisor`, or else the smallest from 8 to 4096
    that leaves at most two million elements; layouts of one model have the same, so that they pair. Scales of
    fp8 blocks follow the short weights that they belong to; a row of GGUF's blocks is one block long.
    """
    layout = load(name)
    power = divisor or OWN_DIVISOR.get(name) or _divisor(layout)
    shrunk = {key: (dtype, _short(shape, power)) for key, (dtype, shape) in layout.items()}
    for key, (dtype, _) in layout.items():
        if key.endswith(".weight_scale_inv"):
            weight = shrunk[key.removesuffix("_scale_inv")]
            shrunk[key] = (dtype, tuple(-(-n // SCALED_BLOCK) for n in weight[1]))
        elif dtype in BLOCKS:
            shrunk[key] = (dtype, (*shrunk[key][1][:-1], BLOCKS[dtype][0]))
    return shrunk


def tiny(name: str, *, seed: int = 0, divisor: int | None = None) -> dict[str, np.ndarray]:
    """A small model with the real names, and random values: of the seed, and of nothing else.

    numpy has no bfloat16 and no fp8: such a tensor has float32 values that are exact in its dtype, which
    `write` then stores as what they are. Integers count up from 0, as position_ids do; scales of fp8 are
    powers of two, so that products with them are exact. What is in GGUF's blocks has any float32 values.
    """
    rng = np.random.default_rng(seed)
    layout = small(name, divisor=divisor)
    return {key: _values(rng, key, dtype, shape) for key, (dtype, shape) in layout.items()}


def write(name: str, path: Path, tensors: dict[str, np.ndarray] | None = None, *, seed: int = 0) -> Path:
    """Write a small model, or `tensors` with the same keys, as a safetensors file with the real dtypes."""
    layout = load(name)
    arrays = tiny(name, seed=seed) if tensors is None else tensors
    stored = {key: torch.from_numpy(np.array(a)) for key, a in arrays.items()}
    save_file({key: t.to(_torch(layout[key][0])) for key, t in stored.items()}, path)
    return path


@cache
def _load(name: str) -> Layout:
    layout = parse(_lines(name))
    return dict(sorted(layout.items(), key=lambda item: (-_rank(item[1][0]), item[0])))


def _rank(dtype: str) -> int:
    return -1 if dtype in BLOCKS else WRITTEN.index(dtype)  # a dtype that is in neither raises


def _lines(name: str) -> list[str]:
    return (FOLDER / f"{name}.layout").read_text(encoding="utf-8").splitlines()


def _bytes(dtype: str, shape: Shape) -> int:
    if dtype in DTYPES:
        return math.prod(shape) * DTYPES[dtype].itemsize
    elements, size = BLOCKS[dtype]
    return math.prod(shape) // elements * size


def _divisor(layout: Layout) -> int:
    shapes = [shape for dtype, shape in layout.values() if dtype != "U8"]  # a tokenizer's bytes do not shrink
    for power in DIVISORS:
        if sum(math.prod(_short(shape, power)) for shape in shapes) <= ELEMENTS:
            return power
    return DIVISORS[-1]


def _short(shape: Shape, divisor: int) -> Shape:
    return tuple(n if n <= KEPT else n // math.gcd(n, divisor) for n in shape)


def _torch(dtype: str) -> torch.dtype:
    found: torch.dtype = getattr(torch, DTYPES[dtype].torch)
    return found


def _values(rng: np.random.Generator, key: str, dtype: str, shape: Shape) -> np.ndarray:
    if dtype in BLOCKS:
        return rng.standard_normal(shape, np.float32)
    if not DTYPES[dtype].floating:
        counted = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
        return torch.from_numpy(counted).to(_torch(dtype)).numpy()
    scale = re.fullmatch(SCALE, key)
    drawn = 2.0 ** -rng.integers(4, 8, shape) if scale else rng.standard_normal(shape)
    exact = torch.from_numpy(np.asarray(drawn, np.float64)).to(_torch(dtype))
    return exact.numpy() if dtype in {"F64", "F32", "F16"} else exact.float().numpy()
