"""Pair the tensors of two models by key. Knows names and shapes, never values."""

from __future__ import annotations

from collections.abc import Mapping

from analyzer.errors import PairingError
from analyzer.records import Pair, Pairing, ShapeMismatch, TensorInfo


def pair(a: Mapping[str, TensorInfo], b: Mapping[str, TensorInfo], *, names: tuple[str, str]) -> Pairing:
    """Every key of A with its counterpart in B, in A's order; what has none is listed.

    `names` are what messages call the two models. Raises PairingError if they share no key at all.
    """
    common = [key for key in a if key in b]
    if not common:
        raise PairingError(
            f"{names[0]} and {names[1]} have no key in common ({_example(a)} against {_example(b)}): "
            "they are not two versions of one model, or are stored in different layouts"
        )
    return Pairing(
        pairs=tuple(Pair(a[key], b[key]) for key in common if a[key].shape == b[key].shape),
        only_in_a=tuple(key for key in a if key not in b),
        only_in_b=tuple(key for key in b if key not in a),
        shape_mismatch=tuple(
            ShapeMismatch(key, a[key].shape, b[key].shape) for key in common if a[key].shape != b[key].shape
        ),
    )


def _example(infos: Mapping[str, TensorInfo]) -> str:
    first = next(iter(infos), None)
    return "no keys" if first is None else repr(first)
