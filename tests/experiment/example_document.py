"""A data document made by hand, as `analyzer.experiment.document.describe` makes them: for the page's tests.

The article's eight categories and four seeds; the numbers are plausible, not measured. One cell failed, and
in one seed a few measures are undefined.
"""

from __future__ import annotations

from math import cos, hypot, sin
from typing import Any

SEEDS = (1, 2, 3, 4)
# selector, keys, elements, relative change, toward_b, neither: of the mean over the seeds
_CATEGORIES = (
    ("transformer_blocks", 256, 1_620_000, 0.210, 0.71, 0.58),
    ("attn1", 80, 402_000, 0.180, 0.28, 0.47),
    ("attn2", 80, 431_000, 0.165, 0.22, 0.41),
    ("attn1,attn2", 160, 833_000, 0.172, 0.46, 0.56),
    ("ff", 64, 742_000, 0.231, 0.33, 0.39),
    ("skip_connection", 28, 96_000, 0.094, 0.06, 0.17),
    ("weight", 442, 2_790_000, 0.204, 0.93, 0.21),
    ("bias", 244, 31_000, 0.121, 0.04, 0.14),
)
_MEASURES = (
    *("toward_b", "neither", "moved", "ssim_a", "ssim_b", "histogram_a", "histogram_b"),
    *("pixels_toward_b", "pixels_neither", "features_toward_b", "features_neither"),
)
_STATISTICS = (
    *("numel", "norm_a", "norm_ratio", "cosine_distance", "norm_delta", "relative_change", "max_abs_delta"),
    *("changed_fraction", "sign_flip_fraction", "energy_share", "rank_90"),
)
FAILED = ("skip_connection", 3)
UNDEFINED = ("bias", 4)


def example() -> dict[str, Any]:
    """A new document at each call, so that a test may change it."""
    rows = [_row(place, seed) for place in range(len(_CATEGORIES)) for seed in SEEDS]
    return {
        "format": "mergescope.experiment",
        "version": 1,
        "tool": "mergescope 0.1.0",
        "created": "2026-11-27T10:00:00+00:00",
        "models": {
            side: {
                "path": path,
                "bytes": 7_400_000,
                "fingerprint": f"sha256:{side * 64}",
                "architecture": "sd1",
            }
            for side, path in (("a", "base.safetensors"), ("b", "fine-tune.safetensors"))
        },
        "conditions": {
            "prompt": "best quality, a woman, school uniform",
            "negative_prompt": "blurry, low quality",
            "seeds": list(SEEDS),
            "steps": 40,
            "sampler": "euler_a",
            "cfg": 7.0,
            "width": 64,
            "height": 64,
            "device": "cpu",
            "dtype": "fp32",
            "alpha": 1.0,
            "probe": None,
        },
        "columns": [_column(place) for place in range(len(_CATEGORIES))],
        "rows": rows,
        "parents": [
            {
                "seed": seed,
                "ssim": 0.41 + 0.03 * seed,
                "histogram": 0.52 - 0.02 * seed,
                "distance": 0.74 + 0.05 * sin(seed),
                "error_a": None,
                "error_b": None,
            }
            for seed in SEEDS
        ],
        "summary": [_summary(rows, entry[0], measure) for entry in _CATEGORIES for measure in _MEASURES],
        "correlations": [
            _correlation(place, statistic, effect)
            for place, statistic in enumerate(_STATISTICS)
            for effect in ("toward_b", "neither", "moved", "pixels_toward_b", "pixels_neither")
        ],
        "best": {
            "statistic": "norm_delta",
            "effect": "moved",
            "spearman": 1.0,
            "p": 0.0008,
            "offered": None,
        },
        "foresight": "found",
        "notes": [
            "a weight statistic foretells the effect: norm_delta with moved, ρ = 1.00 over 8 categories, "
            "p = 0.0008 as the largest of 50 pairs of a statistic and an effect",
            "all 8 categories share weights with another (transformer_blocks, attn1, attn2 and 5 more): "
            "they are no independent sample, so the intervals of ρ may be too narrow and its p too small; "
            "those of --axis component share none",
            "1 of 40 cells failed: skip_connection with seed 3",
        ],
    }


def without_pictures() -> dict[str, Any]:
    """The same of a probe that knows no seed: one row a category, nothing of pixels, no best statistic."""
    document = example()
    document["conditions"] |= {"seeds": [], "probe": "analyzer.experiment.probes.causal_lm:logits"}
    of_pictures = [name for name in _MEASURES if name not in ("toward_b", "neither", "moved")]
    rows = [row | dict.fromkeys(of_pictures) for row in document["rows"] if row["seed"] == SEEDS[0]]
    document["rows"] = [row | {"seed": None} for row in rows]
    document["parents"] = [document["parents"][0] | {"seed": None, "ssim": None, "histogram": None}]
    document["summary"] = [
        _summary(document["rows"], entry[0], measure) for entry in _CATEGORIES for measure in _MEASURES
    ]
    document["correlations"] = [
        row for row in document["correlations"] if not row["effect"].startswith("pixels")
    ]
    document["best"], document["foresight"] = None, "none"
    document["notes"] = [
        "no weight statistic foretells the effect: the largest ρ of 30 pairs of a statistic and an effect, "
        "norm_delta with moved, is 0.81, and chance alone reaches that with p = 0.17; |ρ| above 0.90 would "
        "tell"
    ]
    return document


def _column(place: int) -> dict[str, Any]:
    selector, keys, numel, change, _, _ = _CATEGORIES[place]
    norm_a = numel**0.5 * 0.04
    return {
        "selector": selector,
        "merged": f"unet,{selector}",
        "keys": keys,
        "statistics": {
            "numel": numel,
            "norm_a": norm_a,
            "norm_ratio": 1 + change / 10,
            "cosine_distance": change**2 / 2,
            "norm_delta": change * norm_a,
            "relative_change": change,
            "max_abs_delta": 0.05 + change / 3,
            "changed_fraction": 0.998,
            "sign_flip_fraction": change / 8,
            "energy_share": (change * norm_a) ** 2 / 200,
            "rank_90": None if selector == "bias" else round(30 * change),
        },
    }


def _row(place: int, seed: int) -> dict[str, Any]:
    selector, _, _, _, toward, neither = _CATEGORIES[place]
    row: dict[str, Any] = {"selector": selector, "seed": seed, **dict.fromkeys(_MEASURES)}
    if (selector, seed) == FAILED:
        return row | {"seconds": None, "error": "the sampler ran out of memory: give a smaller --size"}
    row |= {"seconds": 3.2 + 0.1 * seed, "error": None}
    if (selector, seed) == UNDEFINED:
        return row
    wobble = 1 + 0.25 * sin(7 * seed + 3 * place)
    toward_b, left = toward * wobble, neither * (1 + 0.2 * cos(5 * seed + place))
    return row | {
        "toward_b": toward_b,
        "neither": left,
        "moved": hypot(toward_b, left),
        "ssim_a": 1 - 0.6 * min(hypot(toward_b, left), 1),
        "ssim_b": 0.4 + 0.5 * min(toward_b, 1),
        "histogram_a": 0.5 * min(hypot(toward_b, left), 1),
        "histogram_b": 0.5 * (1 - min(toward_b, 1)),
        "pixels_toward_b": toward_b * 0.9,
        "pixels_neither": left * 1.1,
    }


def _summary(rows: list[dict[str, Any]], selector: str, measure: str) -> dict[str, Any]:
    values = [row[measure] for row in rows if row["selector"] == selector and row[measure] is not None]
    entry: dict[str, Any] = {"selector": selector, "measure": measure, "n": len(values)}
    if not values:
        return entry | {"mean": None, "low": None, "high": None}
    mean = sum(values) / len(values)
    if len(values) < 2:
        return entry | {"mean": mean, "low": None, "high": None}
    reach = 1.8 * (max(values) - min(values)) / len(values) ** 0.5
    return entry | {"mean": mean, "low": mean - reach, "high": mean + reach}


def _correlation(place: int, statistic: str, effect: str) -> dict[str, Any]:
    entry = {"statistic": statistic, "effect": effect, "n": 7 if statistic == "rank_90" else 8}
    if statistic == "changed_fraction":  # the same in all columns
        return entry | {"spearman": None, "low": None, "high": None}
    if (statistic, effect) == ("norm_delta", "moved"):  # perfect: the formula has no interval
        return entry | {"spearman": 1.0, "low": None, "high": None}
    rho = 0.9 * sin(place + len(effect))
    return entry | {"spearman": rho, "low": max(-0.99, rho - 0.6), "high": min(0.99, rho + 0.5)}
