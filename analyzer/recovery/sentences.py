"""What a recovery found, in plain sentences, and the command that makes the merge again."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from math import inf

from analyzer.records import ModelId
from analyzer.recovery.account import Recovered
from analyzer.recovery.fits import beyond_rounding
from analyzer.recovery.reconstruction import Reconstruction
from analyzer.recovery.summing import Recovery

_LISTED = 3
_A_LITTLE = 0.001  # of ‖m − a‖²: what lies below is not worth a sentence
_STANDS_OUT = 0.8
_HALF = 0.5
_MOST = 0.9  # of it, from which on the models are not the merge's parents
_DTYPES = {"F16": "fp16", "BF16": "bf16", "F32": "fp32", "F8_E4M3": "fp8_e4m3", "F8_E5M2": "fp8_e5m2"}


def sentences(recovery: Recovery, found: Recovered) -> list[str]:
    """What the merge was made of, in the order in which a reader wants to know."""
    said = [_made(recovery, found)]
    said += _rest(recovery, found)
    said += _foreign(found)
    if found.neither:
        said.append(f"Whole numbers of neither A nor B are in {_some(found.neither)}")
    return said


def command(recovery: Recovery, found: Recovered) -> str | None:
    """The command that makes the merge again, ready for a shell; None where no options do.

    The output has a name that is no input's. Numbers have the digits that the sums support.
    """
    if found.made is None or (found.gamma and 0.0 in found.made.alphas.values()):
        return None  # an alpha of 0 keeps A's values, whatever gamma is
    words = ["mergescope", "merge", recovery.a.path, recovery.b.path, "-o", "remade.safetensors"]
    if recovery.c is not None and found.form == "difference":
        words += ["--method", "add_difference", "--base", recovery.c.path]
    if recovery.c is not None and found.gamma is not None:
        words += ["--method", "triple_sum", "--model", f"{recovery.c.path}={_number(found.gamma)}"]
    words += _options(found.made)
    dtype = _dtype(recovery)
    return shlex.join([*words, *(["--dtype", dtype] if dtype else [])])


def is_whole(found: Recovered) -> bool:
    """Whether the command makes the merge again, with nothing left over but what rounding leaves."""
    exact = found.made is not None and found.made.exact
    return exact and _is_all(found) and not (found.strange or found.foreign_keys)


def _options(made: Reconstruction) -> list[str]:
    words = []
    if made.block_weights is None:
        words += ["--alpha", _number(made.alpha or 0.0)]
    else:
        base, preset = made.base_alpha or 0.0, made.preset
        if preset:
            words += ["--block-weights", preset, *(["--base-alpha", _number(base)] if base else [])]
        else:
            words += ["--block-weights", ",".join(map(_number, [base, *made.block_weights]))]
    for selector, alpha in made.sets:
        words += ["--set", f"{selector}={_number(alpha)}"]
    return words


def _made(recovery: Recovery, found: Recovered) -> str:
    """How the merge came about."""
    whole, made = found.whole, found.made
    gram = whole.gram
    if gram.n and whole.equal:
        return "A and B hold the same values, so any alpha makes the same model"
    if not gram.moved:
        return "The merge is A: nothing of B is in it"
    if not gram.not_taken:
        return "The merge is B, to the last value"
    if whole.unexplained is None:
        return "The merge is A, but for rounding"
    if found.form == "sum" and found.gamma is None:
        nearest = "" if _is_all(found) else "Nearest is "
        return f"{nearest}A + alpha·(B − A) + gamma·(C − A) with numbers that differ from key to key"
    if made is None:
        return "The differences of A and B are too small to tell what the merge is made of"
    step = _step(found)
    if not made.exact:
        best = "the best one is" if made.block_weights is None else "the best for each block are"
        return f"No alphas of a few blocks and categories make it as A + alpha·{step}; {best} below"
    lead = _lead(recovery, found)
    if made.block_weights is not None:
        named = f", the preset {made.preset}" if made.preset else ""
        return f"{lead}A + alpha·{step} with an alpha for each block{named}{_beside(made.sets)}"
    assert made.alpha is not None
    if made.sets:
        return f"{lead}A + alpha·{step} with alpha {_number(made.alpha)}{_beside(made.sets)}"
    if made.alpha == 0 and found.form == "of B":
        return f"{lead}A, with nothing of B"
    return f"{lead}A + {_number(made.alpha)}·{step} throughout{_twice(found)}"


def _is_all(found: Recovered) -> bool:
    """Whether no more is left than rounding leaves, or nobody knows what that is."""
    return found.whole.fit.rounding == inf or (found.whole.unexplained or 0.0) <= _A_LITTLE


def _lead(recovery: Recovery, found: Recovered) -> str:
    """What is said before the formula."""
    nearest = "" if _is_all(found) else "Nearest is "
    if found.form == "difference":
        return f"{nearest}{'Add' if not nearest else 'add'} difference, for gamma is −alpha: "
    if recovery.c is None or found.gamma is not None:
        return nearest
    return "Nearest is, with C or without, " if nearest else "C has no part in it: "


def _step(found: Recovered) -> str:
    """What stands behind alpha in the formula."""
    if found.form == "difference":
        return "(B − C)"
    return "(B − A)" if found.gamma is None else f"(B − A) + {_number(found.gamma)}·(C − A)"


def _twice(found: Recovered) -> str:
    """The numbers of the same merge in the words of those who add one model after the other."""
    if found.made is None or found.made.alpha is None or found.gamma is None or found.gamma == 1:
        return ""
    alpha = found.made.alpha / (1 - found.gamma)
    return f": triple sum (or sum twice with alpha {alpha:.4g} and beta {_number(found.gamma)})"


def _beside(sets: Sequence[tuple[str, float]]) -> str:
    if not sets:
        return ""
    named = [f"{_number(alpha)} in {selector}" for selector, alpha in sets[:_LISTED]]
    more = f" and {len(sets) - _LISTED} more" if len(sets) > _LISTED else ""
    return f", and {', '.join(named)}{more}"


def _rest(recovery: Recovery, found: Recovered) -> list[str]:
    """What stays unexplained, by each key's own alpha and by the command's."""
    whole = found.whole
    if whole.unexplained is None:
        return []
    parents = "A, B and C" if recovery.c else "A and B"
    share = whole.unexplained
    lead = f"{_percent(share)} of what the merge changed (of ‖M − A‖²) is no step from A towards B"
    lead += " or C" if recovery.c else ""
    if whole.fit.rounding == inf:
        return [f"{lead}: the merge is quantised, and what that left is part of it"]
    if share > _A_LITTLE:
        verdict = f": {parents} do not explain it" if share > _MOST else ""
        if not verdict and share > _HALF:
            verdict = ": another model, a LoRA or another method had a part in it"
        return [f"{lead}{_mostly(found)}{verdict}"]
    beyond = 0.0
    if found.made is not None:
        beyond = beyond_rounding(found.made.left, whole.fit.rounding, whole.gram.ee)
    if beyond > _A_LITTLE:
        return [
            "Every key has an alpha of its own that explains it, but the options below leave "
            f"{_percent(beyond)} of what the merge changed"
        ]
    return ["All that the merge changed comes from there; what is left is no more than rounding leaves"]


def _mostly(found: Recovered) -> str:
    """In which categories most of it is, or in which part, where there are several and one stands out."""
    if found.where:
        return f", most of it in {' and '.join(filter(None, (', '.join(found.where[:-1]), found.where[-1])))}"
    by_part: dict[str, float] = {}
    for row in found.strange:
        by_part[row.labels.part] = by_part.get(row.labels.part, 0.0) + row.gram.ee
    if not by_part:
        return ""
    part = max(by_part, key=lambda name: by_part[name])
    alone = by_part[part] > _STANDS_OUT * sum(by_part.values())
    return f", most of it in {part}" if alone and found.parts > 1 else ""


def _foreign(found: Recovered) -> list[str]:
    if not found.foreign_keys:
        return []
    share = found.whole.foreign
    of_it = f", {_percent(share)} of what it changed" if share is not None else ""
    return [
        f"Foreign: where the parents are equal, the merge holds other values in {_some(found.foreign_keys)}"
        f"{of_it}"
    ]


def _dtype(recovery: Recovery) -> str | None:
    """The merge's dtype, if it is not A's."""
    ours, theirs = _main_dtype(recovery.m), _main_dtype(recovery.a)
    return _DTYPES[ours] if ours is not None and ours != theirs else None


def _main_dtype(model: ModelId) -> str | None:
    counts = Counter({name: n for name, n in (model.dtypes or {}).items() if name in _DTYPES})
    return counts.most_common(1)[0][0] if counts else None


def _number(value: float) -> str:
    return f"{value:.8g}"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}" if share >= 0.001 else "less than 0.1%"


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _LISTED:,} more" if len(keys) > _LISTED else ""
    return ", ".join(keys[:_LISTED]) + more
