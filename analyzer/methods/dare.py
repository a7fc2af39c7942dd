"""Each task with elements dropped at random, and the rest scaled up for them."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.methods.method import Array, Method, Operands, Parameter, Setting
from analyzer.methods.tasks import SCALING, add_up, numbers_of, tasks_of
from analyzer.methods.ties import DENSITY

_STEP = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's: 2^64 / golden ratio, made odd
_MIX = ((30, np.uint64(0xBF58476D1CE4E5B9)), (27, np.uint64(0x94D049BB133111EB)))


def dare_linear(operands: Operands, setting: Setting, _known: Any = None) -> Array:
    """The base and lambda·Σ weight·thinned task."""
    return add_up(operands, setting, _thinned(operands, setting), elect=False)


def dare_ties(operands: Operands, setting: Setting, _known: Any = None) -> Array:
    """The same of the thinned tasks with the sign that TIES elects."""
    return add_up(operands, setting, _thinned(operands, setting), elect=True)


def random_bits(seed: int, key: str, number: int, start: int, count: int) -> NDArray[np.uint64]:
    """64 random bits for each of `count` elements from `start` on, of model `number`'s tensor `key`.

    They depend on nothing else, so that any cut and any order give the same. SplitMix64 as a function of
    its counter: Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    stream = blake2b(f"{seed}\n{number}\n{key}".encode(), digest_size=8).digest()
    bits = np.arange(start + 1, start + 1 + count, dtype=np.uint64)
    bits *= _STEP
    bits += np.uint64(int.from_bytes(stream, "little"))
    for shift, factor in _MIX:
        bits ^= bits >> np.uint64(shift)
        bits *= factor
    bits ^= bits >> np.uint64(31)
    return bits


def _thinned(operands: Operands, setting: Setting) -> list[Array]:
    """The tasks, each element kept with probability density and, with rescale, divided by it."""
    tasks = tasks_of(operands, setting)
    density, seed = setting.parameters["density"], int(setting.parameters["seed"])
    if density >= 1:
        return tasks
    bound = np.uint64(int(density * 2.0**64))
    scale = 1 / density if setting.parameters["rescale"] and density > 0 else 1.0
    for task, number in zip(tasks, numbers_of(setting), strict=True):
        kept = random_bits(seed, operands.key, number, operands.start, len(task)) < bound
        # A product: what is not finite is not hidden by being dropped.
        task *= kept * scale
    return tasks


_PAPER = "Yu et al., Language models are super Mario, arXiv 2311.03099"
_PARAMETERS = {
    "density": DENSITY,
    "seed": Parameter(0.0, 0.0, 2.0**53, "of the random numbers", whole=True),
    "rescale": Parameter(1.0, 0.0, 1.0, "1: divide what is kept by density", whole=True),
    **SCALING,
}

DARE_LINEAR = Method(
    formula="c + lambda·Σ weight·(task·(random < density) / density)",
    source=_PAPER,
    combine=dare_linear,
    base="may",
    models="may",
    parameters=_PARAMETERS,
)
DARE_TIES = Method(
    formula="c + lambda·Σ weight·(task·(random < density) / density), of those with the elected sign",
    source=f"{_PAPER}; the election of Yadav et al., arXiv 2306.01708",
    combine=dare_ties,
    base="may",
    models="may",
    parameters=_PARAMETERS,
)
