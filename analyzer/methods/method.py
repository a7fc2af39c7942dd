"""What a merge method is, what it is given, and what it may ask for beforehand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Need = Literal["no", "may", "must"]

_NOTHING = 2.0**-50  # coefficients of about 1 that cancel leave less


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number that a method takes beside alpha."""

    default: float
    low: float
    high: float
    meaning: str  # one line
    whole: bool = False  # whether only whole numbers will do


@dataclass(frozen=True, slots=True)
class Setting:
    """The numbers with which a method is applied to one tensor."""

    alpha: float  # of B
    weights: tuple[float, ...] = ()  # of the further models, in their order
    parameters: Mapping[str, float] = field(default_factory=dict)  # every one of the method, by name
    based: bool = False  # whether a base was given: only then has A a task of its own


@dataclass(frozen=True, slots=True, eq=False)
class Operands:
    """One run of elements of every model, widened to fp64: one-dimensional arrays of one length."""

    a: Array
    b: Array
    base: Array  # A's own elements where no base was given
    models: tuple[Array, ...]  # the further ones
    key: str  # A's name of the tensor
    start: int  # the place of the first element in A's tensor
    shape: tuple[int, ...]  # of the whole tensor


class AbstractSurvey(ABC):
    """What a method must know of whole tensors before the first of their elements can be combined.

    A state is made for each tensor; `observe` is called once for every run of elements in each of the
    `turns`, from many threads and in no order, and must come to the same state for any order and cut.
    """

    turns: int = 1  # how often all elements are read

    def needed(self, setting: Setting) -> bool:  # noqa: ARG002 - most always are
        """Whether a tensor must be surveyed; if not, it may be left out, and `known` is None."""
        return True

    @abstractmethod
    def begin(self, setting: Setting, count: int) -> Any:
        """The state of a tensor of which nothing was seen; `count` elements will be, in every turn.

        So a state knows when a turn is over, and drops then what it needs no more.
        """

    @abstractmethod
    def observe(self, state: Any, operands: Operands, turn: int) -> None:
        """Take one run of elements into account. Locks what it changes."""

    @abstractmethod
    def conclude(self, states: Mapping[str, Any]) -> Mapping[str, Any]:
        """What `Method.combine` gets as `known` for each tensor, from the states of all, by key."""


Combine = Callable[[Operands, Setting, Any], Array]
# (setting, Gram matrix of `vectors` or None) -> the coefficients k of M = Σ kᵢ·vᵢ
Coefficients = Callable[[Setting, Array | None], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Method:
    """One merge method and where it comes from.

    A linear method has `coefficients`, and no `combine`; its outcome can be predicted from sums.
    """

    formula: str
    source: str  # the paper, or the tool that it comes from
    combine: Combine | None = None
    coefficients: Coefficients | None = None
    fused: bool = False  # whether it is a + alpha·(b − a), which one compiled loop does
    needs_gram: bool = False  # whether the coefficients depend on the tensor's Gram matrix
    survey: AbstractSurvey | None = None  # of the methods that have `combine`
    base: Need = "no"  # whether it takes a base C
    models: Need = "no"  # whether it takes further models
    tasks: int = 1  # the fewest of A (with a base), B and further models that it can combine
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


def difference(model: Array, origin: Array) -> Array:
    """The elements of model − origin; what is equal differs by 0, Inf too."""
    step = model - origin
    if not np.isfinite(step.sum()):
        step[model == origin] = 0.0
    return step


def shifted(values: Array, step: Array) -> Array:
    """The elements of values + step, in the memory of `step`; a step of 0 leaves −0 as it is."""
    np.subtract(0.0, step, out=step)  # −step, and no −0
    return np.subtract(values, step, out=step)


def vectors(operands: Operands) -> list[Array]:
    """The vectors that linear methods combine: a, b − a, c − a, and m − a of every further model.

    c is the base; without one c − a is zero. Equal elements, Inf too, are no step apart.
    """
    a = operands.a
    models = (operands.b, operands.base, *operands.models)
    return [a, *(np.zeros_like(a) if model is a else difference(model, a) for model in models)]


def combine_linear(operands: Operands, coefficients: Sequence[float]) -> Array:
    """Σ kᵢ·vᵢ over `vectors`; an element that no model moves comes out unchanged to the bit.

    Where the base takes part, the others' steps are taken from it, so that nothing large cancels: with
    k = (1, α, −α) this is a + α·(b − c), and a where b = c.
    """
    a, base = operands.a, operands.base
    first, of_b, of_base, *others = coefficients
    models = zip((of_b, *others), (operands.b, *operands.models), strict=True)
    result = first * a  # a copy: by 1 it is exact
    if of_base and base is not a:
        rest = fsum(coefficients[1:])
        terms = [(rest if abs(rest) > _NOTHING else 0.0, base, a), *((k, model, base) for k, model in models)]
    else:
        terms = [(k, model, a) for k, model in models]
    for factor, model, origin in terms:
        if factor:
            step = difference(model, origin)
            step *= factor
            result = shifted(result, step)
    return result
