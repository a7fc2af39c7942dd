"""Are two models relatives at all, and what stands out? Knows scans, nothing that reads files."""

from __future__ import annotations

from analyzer.ranking import Axis, counted, exact_selector, rank
from analyzer.records import Finding, KeyScan, Scan
from analyzer.statistics import cosine

# Below this many elements chance alone can give any cosine; norm gains and biases are such keys.
SAMPLE_ELEMENTS = 1000
FINE_TUNE_COSINE = 0.9
DISTANT_COSINE = 0.1
# Two models with more keys without a partner than this share of the compared ones are not called identical.
UNPAIRED_SHARE = 0.1


def kinship(scan: Scan) -> tuple[str | None, float | None]:
    """What the two models are to each other, and the cosine that says so.

    The element-weighted median of the cosines of all keys that changed and have 1000 elements or
    more: from 0.9 on "fine-tune", from 0.1 on "distant", below "unrelated", which means trained
    apart. "same" if weights were compared and none changed. (None, None) where none could be
    compared, or where no key that changed is large enough or has a direction.
    """
    compared = [row for row in counted(scan.keys) if row.sums.n]
    changed = [row for row in compared if row.sums.changed]
    if not changed:
        return ("same" if compared else None), None
    large = [row for row in changed if row.sums.numel >= SAMPLE_ELEMENTS]
    median = _weighted_median_cosine(large)
    if median is None:
        return None, None
    if median >= FINE_TUNE_COSINE:
        return "fine-tune", median
    return ("distant" if median >= DISTANT_COSINE else "unrelated"), median


def findings(scan: Scan) -> list[Finding]:
    """Plain sentences about a scan, the most important first; none without its number."""
    found = [_kinship_finding(scan), *_nonfinite_findings(scan)]
    groups = rank(scan)
    moved = [row for row in groups if row.statistics["relative_change"]]
    first = moved[0] if len(moved) > 1 else None  # one group alone moves neither most nor least
    change = first.statistics["relative_change"] if first else None
    share = first.statistics["energy_share"] if first else None
    if first is not None and change is not None and share is not None:
        text = f"{first.name} moved most, by {change:.2g} of its norm; it holds {share:.0%} of all change"
        found.append(Finding(text, "relative_change", change, first.selector))
    return [*found, *_still_findings(scan)]


def _still_findings(scan: Scan) -> list[Finding]:
    """The parts, and beside them the components, in which nothing changed while something did elsewhere."""
    rows = counted(scan.keys)
    if not any(row.sums.changed for row in rows):
        return []
    parts = _still([row.labels.part for row in rows], rows)
    others = [row for row in rows if row.labels.part not in parts]
    components = _still([row.labels.group for row in others], others)
    found = []
    axes: tuple[tuple[Axis, dict[str, list[KeyScan]]], ...] = (("part", parts), ("component", components))
    for axis, still in axes:
        if not still:
            continue
        keys = [row for members in still.values() for row in members]
        same_dtypes = all(row.dtype_a == row.dtype_b for row in keys)
        how = "equal values" if same_dtypes else "equal values, stored in another dtype"
        names = ", ".join(path.rsplit("/", 1)[-1] for path in still)
        text = f"nothing changed in {names} ({len(keys)} key{'s' * (len(keys) != 1)}, {how})"
        selector = exact_selector(scan, axis=axis, paths=list(still))
        found.append(Finding(text, "changed_fraction", 0.0, selector))
    return found


def _still(names: list[str], rows: list[KeyScan]) -> dict[str, list[KeyScan]]:
    """The groups whose every key was compared in full and did not change, by name."""
    groups: dict[str, list[KeyScan]] = {}
    for name, row in zip(names, rows, strict=True):
        groups.setdefault(name, []).append(row)
    return {
        name: members
        for name, members in sorted(groups.items())
        if all(row.sums.n == row.sums.numel and not row.sums.changed for row in members)
        and any(row.sums.n for row in members)
    }


def _kinship_finding(scan: Scan) -> Finding:
    name, value = kinship(scan)
    if name == "same":
        return Finding(_sameness(scan), "changed_fraction", 0.0, "")
    if name is None or value is None:
        measured = any(row.sums.n for row in counted(scan.keys))
        text = (
            f"kinship cannot be told: no key that changed has {SAMPLE_ELEMENTS} elements and a direction "
            "in both models"
            if measured
            else "kinship cannot be told: no weights could be compared"
        )
        return Finding(text, "cosine", None, "")
    evidence = f"the median cosine of the keys that changed is {value:.3f}"
    if name == "unrelated" and (few := _small_share(scan)):
        text = f"{few} was replaced or trained apart: {evidence}; the rest of the weights is identical"
        return Finding(text, "cosine", value, "")
    text = {
        "fine-tune": f"relatives: {evidence}, as between a model and its fine-tune",
        "distant": f"distant relatives: {evidence}; expect a merge to lose quality",
        "unrelated": (
            f"trained apart: {evidence}, as between models that share no training; "
            "merging them is pointless, a weighted sum of the two is neither"
        ),
    }[name]
    return Finding(text, "cosine", value, "")


def _small_share(scan: Scan) -> str:
    """Where the change lies, if it touches less than half of all elements; "" otherwise."""
    rows = counted(scan.keys)
    changed = [row for row in rows if row.sums.changed]
    if sum(r.sums.numel for r in changed) * 2 >= sum(r.sums.numel for r in rows):
        return ""
    parts = ", ".join(sorted({row.labels.part for row in changed}))
    return f"what changed ({len(changed)} of {len(rows)} keys, in {parts})"


def _sameness(scan: Scan) -> str:
    """How equal two models are in which no weight changed."""
    beside = [
        (len(scan.only_in_a), "only in A"),
        (len(scan.only_in_b), "only in B"),
        (len(scan.shape_mismatch), "of different shape"),
        (sum(1 for row in scan.keys if row.sums.changed), "outside the totals that changed"),
        (sum(1 for row in scan.keys if row.sums.n != row.sums.numel), "with NaN or Inf"),
    ]
    exceptions = ", ".join(f"{count} {what}" for count, what in beside if count)
    if not exceptions:
        return "identical: the two models hold the same values"
    unpaired = max(len(scan.only_in_a), len(scan.only_in_b)) + len(scan.shape_mismatch)
    broken = any(row.sums.n != row.sums.numel for row in scan.keys)
    whole = not broken and unpaired <= UNPAIRED_SHARE * len(scan.keys)
    return (
        f"{'identical: ' if whole else ''}all weights that could be compared are equal; beside them stand "
        f"keys: {exceptions}"
    )


def _nonfinite_findings(scan: Scan) -> list[Finding]:
    found = []
    for side in ("a", "b"):
        name = f"nonfinite_{side}"
        bad = [row for row in scan.keys if getattr(row.sums, name)]
        if bad:
            count = sum(getattr(row.sums, name) for row in bad)
            others = len(bad) - 1
            first, more = bad[0].key, f" and {others} more key{'s' * (others > 1)}" if others else ""
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
