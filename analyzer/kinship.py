"""Are two models relatives at all, and what stands out? Knows scans, nothing that reads files."""

from __future__ import annotations

from analyzer.ranking import counted, rank
from analyzer.records import Finding, KeyScan, Scan
from analyzer.statistics import cosine

# Below this many elements chance alone can give any cosine; norm gains and biases are such keys.
SAMPLE_ELEMENTS = 1000
FINE_TUNE_COSINE = 0.9
DISTANT_COSINE = 0.1


def kinship(scan: Scan) -> tuple[str | None, float | None]:
    """What the two models are to each other, and the cosine that says so.

    The element-weighted median of the cosines of all keys that changed and have 1000 elements or
    more (of all that changed, where none is so large): from 0.9 on "fine-tune", from 0.1 on
    "distant", below "unrelated", which means trained apart. "same" if nothing changed. (None, None)
    where no key that changed has a direction.
    """
    changed = [row for row in counted(scan.keys) if row.sums.changed]
    if not changed:
        return "same", None
    large = [row for row in changed if row.sums.numel >= SAMPLE_ELEMENTS]
    median = _weighted_median_cosine(large or changed)
    if median is None:
        return None, None
    if median >= FINE_TUNE_COSINE:
        return "fine-tune", median
    return ("distant" if median >= DISTANT_COSINE else "unrelated"), median


def findings(scan: Scan) -> list[Finding]:
    """Plain sentences about a scan, the most important first; none without its number."""
    found = [_kinship_finding(scan)]
    found += _nonfinite_findings(scan)
    ranked = [row for row in rank(scan) if row.statistics["relative_change"]]
    if len(ranked) > 1:
        first = ranked[0]
        change, share = first.statistics["relative_change"], first.statistics["energy_share"]
        assert change is not None
        assert share is not None
        text = f"{first.name} moved most, by {change:.2g} of its norm; it holds {share:.0%} of all change"
        found.append(Finding(text, "relative_change", change, first.selector))
    still = [row for row in rank(scan, axis="part") if row.sums.changed == 0]
    if still and ranked:
        names = ", ".join(row.name for row in still)
        selector = ",".join(row.selector for row in still)
        text = f"nothing changed in {names} ({sum(row.keys for row in still)} keys, bit for bit equal values)"
        found.append(Finding(text, "changed_fraction", 0.0, selector))
    return found


def _kinship_finding(scan: Scan) -> Finding:
    name, value = kinship(scan)
    if name == "same":
        return Finding("the two models hold the same values", "changed_fraction", 0.0, "")
    if name is None or value is None:
        return Finding("no changed key has a direction, so kinship cannot be told", "cosine", None, "")
    evidence = f"the median cosine of the keys that changed is {value:.2f}"
    text = {
        "fine-tune": f"relatives: {evidence}, as between a model and its fine-tune",
        "distant": f"distant relatives: {evidence}; expect a merge to lose quality",
        "unrelated": (
            f"trained apart: {evidence}, as between models that share no training; "
            "merging them is pointless, a weighted sum of the two is neither"
        ),
    }[name]
    return Finding(text, "cosine", value, "")


def _nonfinite_findings(scan: Scan) -> list[Finding]:
    found = []
    for side in ("a", "b"):
        name = f"nonfinite_{side}"
        bad = [row for row in scan.keys if getattr(row.sums, name)]
        if bad:
            count = sum(getattr(row.sums, name) for row in bad)
            first, more = bad[0].key, f" and {len(bad) - 1} more keys" if len(bad) > 1 else ""
            text = f"{side.upper()} holds {count:,} values that are NaN or Inf, in {first!r}{more}: left out"
            found.append(Finding(text, name, float(count), ""))
    return found


def _weighted_median_cosine(rows: list[KeyScan]) -> float | None:
    """The cosine at which half of the elements lie at or below it; None without any cosine."""
    pairs = sorted((c, row.sums.numel) for row in rows if (c := cosine(row.sums)) is not None)
    half, passed = sum(weight for _, weight in pairs) / 2, 0
    for value, weight in pairs:
        passed += weight
        if passed >= half:
            return value
    return None
