"""The great circle between A and B, tensor by tensor."""

from __future__ import annotations

from math import atan2, cos, sin, sqrt

from analyzer.methods.method import Array, Method, Parameter, Setting

_PARALLEL = 1e-7  # angles below have the straight line's coefficients, or no plane to turn in


def coefficients(setting: Setting, gram: Array | None) -> tuple[float, ...]:
    """sin((1 − alpha)·θ)/sin θ · A + sin(alpha·θ)/sin θ · B, with θ the angle between the whole tensors.

    The lengths are not made equal first, as in mergekit: the weights are of A and B as they are. Where
    |cos θ| > dot_threshold the two are all but parallel, or opposite, and the straight line is taken; so
    it is where one of them is all zero and has no direction.
    """
    assert gram is not None
    alpha = setting.alpha
    theta = _angle(gram)
    threshold = setting.parameters["dot_threshold"]
    if theta is None or sin(theta) < _PARALLEL or abs(cos(theta)) > threshold:
        return (1.0, alpha, *(0.0 for _ in gram[2:]))
    of_a, of_b = sin((1 - alpha) * theta) / sin(theta), sin(alpha * theta) / sin(theta)
    return (of_a + of_b, of_b, *(0.0 for _ in gram[2:]))


def _angle(gram: Array) -> float | None:
    """The angle between a and b = a + d, 0 … π; None if one of them has no direction.

    From the distance and the sum of the unit vectors, as an arc cosine has no digits left for small ones.
    Kahan, How futile are mindless assessments of roundoff, 2006, §12.
    """
    aa, ad, dd = float(gram[0, 0]), float(gram[0, 1]), float(gram[1, 1])
    bb = aa + 2 * ad + dd
    if aa <= 0 or bb <= 0:
        return None
    a, b = sqrt(aa), sqrt(bb)
    # ‖a/‖a‖ − b/‖b‖‖² = (‖d‖² − (‖b‖ − ‖a‖)²) / (‖a‖·‖b‖), with ‖b‖ − ‖a‖ = (‖b‖² − ‖a‖²) / (‖b‖ + ‖a‖)
    apart = max((dd - ((2 * ad + dd) / (a + b)) ** 2) / (a * b), 0.0)
    return 2 * atan2(sqrt(apart), sqrt(max(4 - apart, 0.0)))


SLERP = Method(
    formula="a·sin((1 − alpha)·θ)/sin θ + b·sin(alpha·θ)/sin θ",
    source="Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985; per tensor as in mergekit",
    coefficients=coefficients,
    needs_gram=True,
    parameters={
        "dot_threshold": Parameter(0.9995, 0.0, 1.0, "|cos θ| above which the straight line is taken"),
    },
)
