"""What B learned since C, added to A."""

from __future__ import annotations

from analyzer.methods.method import Array, Method, Setting


def coefficients(setting: Setting, _gram: Array | None = None) -> tuple[float, ...]:
    """A + alpha·(B − C). Elements that B and C share leave A's unchanged to the bit."""
    return (1.0, setting.alpha, -setting.alpha)


ADD_DIFFERENCE = Method(
    formula="a + alpha·(b − c)",
    source='"Add difference" of the Stable Diffusion web UI\'s checkpoint merger',
    coefficients=coefficients,
    base="must",
)
