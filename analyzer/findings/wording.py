"""Numbers and lists as people read them: rounded, but never to something that is not so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analyzer.kinship import DISTANT_COSINE, FINE_TUNE_COSINE, Relation
from analyzer.verdicts import Verdict

LISTED = 3  # how many names a sentence holds before it says "and 5 more"
_FULL = 0.995  # from here on a share of two digits would read 100%
_TINY_SHARE = 1e-4
_TINY_CHANGE = 1e-6
_TIMES = 2.0  # from here on "3.1 times its length" reads better than 310%
_COSINE_DIGITS = 6
_VERDICTS: Mapping[Verdict, str] = {
    "identical": "identical",
    "cast": "equal after a cast",
    "rounding": "within rounding noise",
    "changed": "changed",
}


def share(value: float) -> str:
    """A share in 0 … 1 as a percentage of two digits; "100%" and "0%" only for exactly 1 and 0."""
    if value <= 0 or value >= 1:
        return "0%" if value <= 0 else "100%"
    if value < _TINY_SHARE:
        return f"less than {_TINY_SHARE:.2%}"
    if value < _FULL:
        return f"{100 * value:.2g}%"
    return next((text for d in (1, 2) if (text := f"{value:.{d}%}")[:3] != "100"), "more than 99.99%")


def at_least(value: float) -> str:
    """A share that others of its kind reach or exceed: "at least 60%", "more than 99.99%", "100%"."""
    text = share(value)
    return text if value >= 1 or text.startswith("more") else f"at least {text}"


def at_most(value: float) -> str:
    """A share that others of its kind do not exceed: "at most 3%", "less than 0.01%", "0%"."""
    text = share(value)
    return text if value <= 0 or text.startswith("less") else f"at most {text}"


def change(value: float, whose: str = "its") -> str:
    """A relative change in words: "30% of its length", "3.1 times its length"."""
    return f"{amount(value)}{' of' * (value < _TIMES)} {whose} length"


def amount(value: float) -> str:
    """A relative change, of a length that was named before: "30%", "3.1 times"."""
    if value < _TINY_CHANGE:
        return f"less than {_TINY_CHANGE:.4%}"
    if value >= _TIMES:
        return f"{value:,.{1 if value < 10 else 0}f} times"
    return f"{100 * value:.{2 if value < _FULL else 3}g}%"


def cosine(value: float) -> str:
    """A cosine of three digits behind the point, of more where it would pass for 0, 1 or a threshold."""
    marks = (-1.0, 0.0, 1.0, DISTANT_COSINE, FINE_TUNE_COSINE)
    for digits in range(3, _COSINE_DIGITS + 1):
        text = f"{value:.{digits}f}"
        if all(float(text) != mark or value == mark for mark in marks):
            return text
    if abs(value) < DISTANT_COSINE / 2:
        return f"{value:.0e}"
    return f"just {'below' if value < float(text) else 'above'} {float(text):g}"


def ratio(value: float) -> str:
    """How many times something: "0.71", "1.00", "346"."""
    return f"{value:.2f}" if 0.01 <= value < 10 else f"{value:,.0f}" if value >= 10 else f"{value:.0e}"


def stretch(factor: float) -> str:
    """What a factor does to a length: "10% longer"."""
    return f"{amount(abs(factor - 1))} {'longer' if factor >= 1 else 'shorter'}"


def chance(deviation: float | None) -> str:
    """What the cosine of unrelated weights is: "0 ± 0.004"; "" if it cannot be said."""
    return "" if deviation is None else f"0 ± {deviation:.1g}"


def evidence(found: Relation, keys: int | None = None) -> str:
    """How many keys (as many as have a say, if not said otherwise), their cosine, and that of chance."""
    assert found.cosine is not None
    beside = f", chance gives {chance(found.chance)}" if found.chance else ""
    middle = "median cosine" if found.keys > 1 else "cosine"
    return f"{count(found.keys if keys is None else keys)}, {middle} {cosine(found.cosine)}{beside}"


def count(n: int, noun: str = "key") -> str:
    """The number with its noun: "1 key", "1,131 keys"."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def names(of: Sequence[str]) -> str:
    """A list: "vae", "attn1 and attn2", "a, b, c and 5 more"."""
    if len(of) > LISTED + 1:
        return f"{', '.join(of[:LISTED])} and {len(of) - LISTED:,} more"
    return " and ".join(filter(None, [", ".join(of[:-1]), of[-1]]))


def verdict_counts(counts: Mapping[Verdict, int]) -> str:
    """How many keys have which verdict: "248 keys equal after a cast", "3 keys changed, 1 identical"."""
    order: Sequence[Verdict] = ("changed", "rounding", "cast", "identical")
    first, *others = [(counts[name], _VERDICTS[name]) for name in order if counts[name]]
    return ", ".join([f"{count(first[0])} {first[1]}", *(f"{n:,} {name}" for n, name in others)])
