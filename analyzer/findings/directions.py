"""In which directions matrices changed: few of them, as a LoRA does, or few of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from analyzer.findings import wording
from analyzer.findings.finder import Finder, Rule
from analyzer.findings.selecting import keys_selector
from analyzer.findings.survey import Group, Survey
from analyzer.kinship import MATRIX_AXES
from analyzer.records import Finding, KeyScan, RowCosines, Spectrum
from analyzer.verdicts import verdict

# Of a component's matrices that changed, at least so many and this share must look like a LoRA.
LORA_KEYS = 3
LORA_SHARE = 0.9
# A change is of low rank if this share of the directions that its matrix has hold 90 % of it; for the median
# matrix of a component of `LORA_KEYS` or more.
LOW_RANK = 0.1
# A few rows were replaced if the row that turned most has at most this cosine while the 5th percentile of the
# rows has at least that one: fewer than one row in twenty turned. Below so many rows, 5 % is a handful; of
# rows of fewer elements, chance turns one now and then.
ROW_TURNED = 0.5
ROWS_KEPT = 0.9
ROWS = 100
ROW_ELEMENTS = 32


def find_low_rank(survey: Survey) -> list[Finding]:
    """The components whose change looks like a LoRA, else those whose change lies in few directions."""
    loras, low = [], []
    for group in survey.components:
        spectra = [(r, r.spectrum) for r in group.keys if r.spectrum and verdict(r.sums) == "changed"]
        ranks = [spectrum.lora_rank for _, spectrum in spectra if spectrum.lora_rank is not None]
        if len(ranks) >= LORA_KEYS and len(ranks) >= LORA_SHARE * len(spectra):
            loras.append((group, ranks, len(spectra)))
            continue
        shares = [share for row, spectrum in spectra if (share := _directions(row, spectrum)) is not None]
        if len(shares) >= LORA_KEYS and median(shares) <= LOW_RANK:
            low.append((group, spectra))
    return [*([_lora_finding(survey, loras)] if loras else []), *([_low_finding(survey, low)] if low else [])]


def _lora_finding(survey: Survey, found: Sequence[tuple[Group, list[int], int]]) -> Finding:
    ranks = [rank for _, own, _ in found for rank in own]
    spread = f"rank {min(ranks)}" if min(ranks) == max(ranks) else f"ranks {min(ranks)} to {max(ranks)}"
    matrices = sum(count for _, _, count in found)
    names = wording.names([group.name for group, _, _ in found])
    text = f"the change of {len(ranks):,} of {matrices:,} matrices of {names} looks like a LoRA of {spread}"
    selector = survey.selecting.groups("component", [group.path for group, _, _ in found])
    return Finding(text, "lora_rank", float(median(ranks)), selector)


def _low_finding(
    survey: Survey, found: Sequence[tuple[Group, Sequence[tuple[KeyScan, Spectrum]]]]
) -> Finding:
    spectra = [pair for _, own in found for pair in own if _directions(*pair) is not None]
    rank = median(spectrum.rank_90 for _, spectrum in spectra if spectrum.rank_90 is not None)
    full = median(_full_rank(row) for row, _ in spectra)
    names = wording.names([group.name for group, _ in found])
    text = (
        f"the change of {names} lies in few directions: {rank:,.0f} of {full:,.0f} hold 90% of it, in the "
        f"median of its {len(spectra):,} matrices"
    )
    selector = survey.selecting.groups("component", [group.path for group, _ in found])
    return Finding(text, "rank_90", float(rank), selector)


def _directions(row: KeyScan, spectrum: Spectrum) -> float | None:
    """The share of its directions that hold 90 % of a change; None above the cap of `rank_90`."""
    return None if spectrum.rank_90 is None else spectrum.rank_90 / _full_rank(row)


def _full_rank(row: KeyScan) -> int:
    """The largest rank that the key can have, as a matrix out × rest."""
    shape = row.slice or row.shape
    out = max(shape[0], 1)
    return max(min(out, row.sums.numel // out), 1)


def find_turned_rows(survey: Survey) -> list[Finding]:
    """The key of which a few rows were replaced while the others hardly turned: new words, a new class."""
    found = [(row.row_cosines, row) for row in survey.changed if row.row_cosines and _has_turned(row)]
    if not found:
        return []
    cosines, row = min(found, key=lambda pair: (pair[0].minimum, pair[1].key))
    rows = (row.slice or row.shape)[0]
    more = f"; so in {wording.count(len(found) - 1, 'more key')}" if len(found) > 1 else ""
    text = (
        f"some of the {rows:,} rows of {row.key} were replaced, fewer than 1 in 20: the one that turned most "
        f"has cosine {wording.cosine(cosines.minimum)}, 95% of them at least "
        f"{wording.cosine(cosines.p05)}{more}"
    )
    return [Finding(text, "row_cosine_min", cosines.minimum, keys_selector([row.key]))]


def _has_turned(row: KeyScan) -> bool:
    cosines = row.row_cosines
    if not isinstance(cosines, RowCosines) or cosines.minimum > ROW_TURNED or cosines.p05 < ROWS_KEPT:
        return False
    shape = row.slice or row.shape
    rows = shape[0] if len(shape) >= MATRIX_AXES else 0
    return rows >= ROWS and row.sums.numel >= rows * ROW_ELEMENTS


LOW_RANKS = Finder(
    find_low_rank,
    (
        Rule(
            "the change of 128 of 128 matrices of attn2 looks like a LoRA of rank 16",
            "with --spectrum: {LORA_KEYS} matrices or more of a component, and {LORA_SHARE} of those that "
            "changed, have a lora_rank",
            {"LORA_KEYS": LORA_KEYS, "LORA_SHARE": LORA_SHARE},
        ),
        Rule(
            "the change of ff lies in few directions: 12 of 320 hold 90% of it, in the median of its 32 "
            "matrices",
            "with --spectrum: else, the median over {LORA_KEYS} matrices or more of rank_90 over the full "
            "rank is at most {LOW_RANK}",
            {"LORA_KEYS": LORA_KEYS, "LOW_RANK": LOW_RANK},
        ),
    ),
)
TURNED_ROWS = Finder(
    find_turned_rows,
    (
        Rule(
            "some of the 49,408 rows of token_embedding.weight were replaced, fewer than 1 in 20: …",
            "of a key with {ROWS} rows or more of {ROW_ELEMENTS} elements or more, row_cosine_min is at most "
            "{ROW_TURNED} and row_cosine_p05 at least {ROWS_KEPT}",
            {
                "ROWS": ROWS,
                "ROW_ELEMENTS": ROW_ELEMENTS,
                "ROW_TURNED": ROW_TURNED,
                "ROWS_KEPT": ROWS_KEPT,
            },
        ),
    ),
)
