"""What the page of an experiment says in words: its conditions, what stands out, what failed.

Owns every conversion from the data document to text. Prompts, selectors and messages come from strangers:
what leaves here as text is escaped by the template. Computes nothing but the largest and the least.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analyzer.statistics import STATISTICS
from reports.effects import title
from reports.tables import ModelCard, decimal_size, file_name

Document = Mapping[str, Any]  # as `analyzer.experiment.document` describes it
_PAIR = re.compile(r"\b(\w+) with (\w+)\b")  # a statistic and an effect, as notes name them
_NAME = re.compile(r"\b(?:[a-z0-9]+(?:_[a-z0-9]+)+|numel)\b")  # no word of the language has an underscore
_SEEDS_NAMED = 8  # more are counted


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence, the number it rests on, and where the page shows it."""

    value: str
    text: str
    selector: str | None = None  # of the column
    section: str | None = None  # of the page


def model_cards(data: Document) -> tuple[ModelCard, ModelCard]:
    """A and B, as the head shows them."""
    return _card("A", data["models"]["a"]), _card("B", data["models"]["b"])


def conditions(data: Document) -> list[tuple[str, str]]:
    """Under which conditions the pictures were made, as (name, value); what plays no part is left out."""
    its = data["conditions"]
    seeds = its["seeds"]
    words = {
        "probe": its.get("probe"),
        "seeds": _seeds(seeds) if seeds else None,
        "alpha": _plain(its.get("alpha")),
    }
    if not its.get("probe"):
        words |= {
            "steps": _plain(its.get("steps")),
            "sampler": its.get("sampler"),
            "CFG": _plain(its.get("cfg")),
            "size": f"{its['width']} × {its['height']}" if its.get("width") and its.get("height") else None,
            "device": " · ".join(str(its[name]) for name in ("device", "dtype") if its.get(name)),
        }
    return [(name, str(value)) for name, value in words.items() if value not in (None, "")]


def findings(data: Document) -> list[Finding]:
    """Which category came furthest to B, which led away from both, which hardly mattered; then the notes.

    The first note, on what the weights foretell, is in short here: it stands whole beside its figure.
    """
    notes = [Finding("", sentence(note)) for note in data["notes"][1:]]
    return [*_extremes(data), *_foresight(data), *notes]


def sentence(note: str) -> str:
    """A note of the document as a sentence, with statistics and effects called as the page calls them."""
    words = _PAIR.sub(
        lambda its: f"{_titled(its[1])} with “{_titled(its[2])}”" if its[1] in STATISTICS else its[0], note
    )
    words = _NAME.sub(lambda its: _titled(its[0]), words)
    return f"{words[:1].upper()}{words[1:]}{'' if words.endswith(('.', '!', '?')) else '.'}"


def _titled(name: str) -> str:
    its = STATISTICS[name].title if name in STATISTICS else title(name)
    return its.replace(" ", "\N{NO-BREAK SPACE}")


def number(value: float | None) -> str:
    """Two decimals with a true minus sign; undefined is a dash."""
    return "—" if value is None else f"{value:.2f}".replace("-", "−")


def _extremes(data: Document) -> Iterable[Finding]:
    """The three columns to look at first; fewer where fewer differ."""
    toward, neither, moved = (_means(data, name) for name in ("toward_b", "neither", "moved"))
    if len(toward) < 2:
        return
    furthest = max(toward, key=lambda name: toward[name])
    if toward[furthest] > 0:
        yield Finding(
            number(toward[furthest]),
            f"{furthest} went furthest toward B{_over(data)}: 0 is A, 1 is B.",
            furthest,
        )
    strangest = max(neither, key=lambda name: neither[name])
    if neither[strangest] > 0:
        yield Finding(
            number(neither[strangest]),
            f"{strangest} led furthest to where neither A nor B is, in lengths of the way from A to B.",
            strangest,
        )
    stillest = min(moved, key=lambda name: moved[name])
    if moved[stillest] < max(moved.values()):
        what = "changed nothing" if moved[stillest] == 0 else "changed what is shown least"
        yield Finding(number(moved[stillest]), f"{stillest} {what}.", stillest)


def _foresight(data: Document) -> Iterable[Finding]:
    """Whether the weights foretold the effect, in short; nothing where it cannot be told."""
    best = data["best"]
    if best:
        statistic, effect = best["statistic"], title(best["effect"])
        name = STATISTICS[statistic].title if statistic in STATISTICS else statistic
        text = f"“{name}” of the weights foretells “{effect}”: Spearman’s ρ over the categories."
        yield Finding(number(best["spearman"]), text, section="foresight")
    elif data["foresight"] == "none":
        yield Finding("no", "statistic of the weights foretells what is shown.", section="foresight")


def _over(data: Document) -> str:
    seeds = len(data["conditions"]["seeds"])
    return f", on average over {seeds:,} seeds" if seeds > 1 else ""


def _means(data: Document, measure: str) -> dict[str, float]:
    """The mean of each category that has one, in the order of the grid."""
    means = {entry["selector"]: entry["mean"] for entry in data["summary"] if entry["measure"] == measure}
    names = [column["selector"] for column in data["columns"]]
    return {name: means[name] for name in names if means.get(name) is not None}


def _card(letter: str, model: Mapping[str, Any]) -> ModelCard:
    size = decimal_size(model["bytes"]) if model.get("bytes") else ""
    facts = tuple(fact for fact in (size, model.get("architecture") or "") if fact)
    return ModelCard(letter, file_name(model["path"]), model["path"], facts)


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) <= _SEEDS_NAMED:
        return ", ".join(map(str, seeds))
    return f"{', '.join(map(str, seeds[:3]))} … {seeds[-1]} ({len(seeds):,})"


def _plain(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"
