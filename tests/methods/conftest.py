"""Applying a merge method to tensors as the merge does: survey, then combine, run by run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pytest

from analyzer.methods import METHODS, GramSurvey, Operands, Setting, combine_linear

Tensors = Sequence[np.ndarray]  # a, b, the further models


def runs(size: int, cuts: Sequence[int], order: int | None) -> list[slice]:
    """A tensor's elements in runs of the lengths given, again and again; shuffled with a seed."""
    found, start, lengths = [], 0, cycle(cuts or [max(size, 1)])
    while start < size:
        length = min(next(lengths), size - start)
        found.append(slice(start, start + length))
        start += length
    if order is not None:
        np.random.default_rng(order).shuffle(found)
    return found


def merged_model(
    name: str,
    model: Mapping[str, Tensors],
    *,
    bases: Mapping[str, np.ndarray] | None = None,
    alpha: float = 0.5,
    weights: Sequence[float] = (),
    parameters: Mapping[str, float] | None = None,
    cuts: Sequence[int] = (),
    order: int | None = None,
) -> dict[str, np.ndarray]:
    """Every tensor of a model, by key, in fp64 and its own shape."""
    method = METHODS[name]
    numbers = {key: parameter.default for key, parameter in method.parameters.items()} | dict(
        parameters or {}
    )
    setting = Setting(alpha, tuple(weights), numbers, bases is not None)
    pieces: dict[str, list[Operands]] = {}
    for key, (a, b, *models) in model.items():
        base = bases[key] if bases else a
        flat = [np.asarray(x, np.float64).reshape(-1) for x in (a, b, base, *models)]
        pieces[key] = []
        for run in runs(a.size, cuts, order):
            one, two, three, *others = (x[run] for x in flat)
            three = three if bases else one
            pieces[key].append(Operands(one, two, three, tuple(others), key, run.start, a.shape))
    known: Mapping[str, Any] = {}
    survey = GramSurvey() if method.needs_gram else method.survey
    with np.errstate(all="ignore"):
        if survey is not None and survey.needed(setting):
            states = {key: survey.begin(setting, a.size) for key, (a, *_) in model.items()}
            for turn in range(survey.turns):
                for key, operands in pieces.items():
                    for piece in operands:
                        survey.observe(states[key], piece, turn)
            known = survey.conclude(states)
        return {
            key: _combined(method, operands, setting, known.get(key), model[key][0].shape)
            for key, operands in pieces.items()
        }


def _combined(
    method: Any, pieces: Sequence[Operands], setting: Setting, known: Any, shape: tuple[int, ...]
) -> np.ndarray:
    result = np.full(int(np.prod(shape)), np.nan)
    for piece in pieces:
        inputs = [piece.a, piece.b, piece.base, *piece.models]
        before = [x.copy() for x in inputs]
        if method.coefficients is not None:
            values = combine_linear(piece, method.coefficients(setting, known))
        else:
            values = method.combine(piece, setting, known)
        assert all(np.array_equal(x, y, equal_nan=True) for x, y in zip(before, inputs, strict=True))
        result[piece.start : piece.start + len(piece.a)] = values
    return result.reshape(shape)


@pytest.fixture(scope="session")
def merge_model() -> Callable[..., dict[str, np.ndarray]]:
    """`merged_model`."""
    return merged_model


@pytest.fixture(scope="session")
def merge_tensor() -> Callable[..., np.ndarray]:
    """One tensor: name, a, b, further models, then as `merged_model`."""

    def merge(name: str, *tensors: np.ndarray, base: np.ndarray | None = None, **options: Any) -> np.ndarray:
        bases = None if base is None else {"key": base}
        return merged_model(name, {"key": tensors}, bases=bases, **options)["key"]

    return merge
