"""What the head of the page says of a scan: cards of the models, counts, short lists.

Owns every conversion from records to words. Key names, paths and dtypes come from strangers' files:
what leaves here as text is escaped by the template. Draws nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analyzer.measures import Sums
from analyzer.records import ModelId, Scan
from analyzer.verdicts import VERDICTS, Verdict, verdict, worst

LISTED = 500  # names that a list in the head shows; the embedded scan holds all of them

# A dtype that is not here shows as its file names it.
_DTYPE_TITLES = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16", "I64": "int64", "I32": "int32"}
_DTYPE_TITLES |= {"I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the head says of one model."""

    letter: str  # "A", "B" or, of the base, "C"
    name: str  # the last segment of the path
    path: str
    facts: tuple[str, ...]  # "2.1 GB", "Stable Diffusion 1.x", "fp16", "1,143 keys"


@dataclass(frozen=True, slots=True)
class Kinship:
    """How two models are related, in a word and in a sentence."""

    title: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Listing:
    """A titled list of names that the head folds away."""

    title: str
    names: tuple[str, ...]  # the first `LISTED`
    omitted: int
    is_warning: bool = False


@dataclass(frozen=True, slots=True)
class Banner:
    """One sentence that a reader must not miss, and what it means."""

    title: str
    text: str
    is_warning: bool = False


@dataclass(frozen=True, slots=True)
class VerdictCount:
    """How many of the paired keys have a verdict."""

    name: Verdict
    meaning: str
    keys: int
    share: float  # of all paired keys, in 0 … 1
    before: float  # the share of those that stand before it


@dataclass(frozen=True, slots=True)
class Head:
    """Everything above the figures that needs no arithmetic."""

    a: ModelCard
    b: ModelCard
    base: ModelCard | None
    banner: Banner | None
    paired: str  # "1,143 keys pair, 12 of them count in no total"
    verdicts: tuple[VerdictCount, ...]  # those that occur, the largest difference first
    listings: tuple[Listing, ...]
    identical: bool


# What the kinship of two models means to somebody who wants to merge them.
KINSHIPS = {
    "same": Kinship("identical", "nothing changed between them"),
    "fine-tune": Kinship(
        "fine-tune", "one was trained on from the other, or both from one parent: merging them makes sense"
    ),
    "distant": Kinship("distant", "they share an origin, but training took them far apart: merge with care"),
    "unrelated": Kinship("trained apart", "their weights do not point the same way: merging is pointless"),
    "opposed": Kinship("opposed", "B points against A: in a weighted sum they cancel each other"),
    "rounded": Kinship("same weights", "only rounding lies between them"),
    "undefined": Kinship("undefined", "no weights could be compared, or none that changed has a direction"),
}

# What a verdict on a key means, as `analyzer.verdicts` defines it.
VERDICT_MEANINGS: dict[Verdict, str] = {
    "identical": "the same values",
    "cast": "equal after a cast to the coarser of the two dtypes",
    "rounding": "the change is at most twice what rounding alone would leave",
    "changed": "more than rounding differs",
}


def head(scan: Scan, *, kinship: str) -> Head:
    """The models, what pairs, what does not, and what a reader should be warned of."""
    counted = [key.sums for key in scan.keys if key.labels.counted]
    verdicts = Counter(verdict(key.sums) for key in scan.keys)
    paired = _count(len(scan.keys), "key pairs", "keys pair")
    uncounted = len(scan.keys) - len(counted)
    return Head(
        a=_card("A", scan.a),
        b=_card("B", scan.b),
        base=None if scan.base is None else _card("C", scan.base),
        banner=_banner(scan, counted, verdicts, kinship=kinship),
        paired=f"{paired}, {uncounted:,} of them count in no total" if uncounted else paired,
        verdicts=tuple(_shares(verdicts)),
        listings=tuple(listing for listing in (*_unpaired(scan), *_warnings(scan)) if listing.names),
        identical=is_identical(scan),
    )


def _banner(
    scan: Scan, counted: Sequence[Sums], verdicts: Counter[Verdict], *, kinship: str
) -> Banner | None:
    """The one thing to know before anything else, if there is such a thing."""
    paired = _count(len(scan.keys), "key pairs", "keys pair")
    if kinship == "opposed":
        text = (
            "B's weights point against A's, as if one were the other times −1: in a weighted sum of the two "
            "they cancel each other."
        )
        return Banner("Opposed.", text, is_warning=True)
    if kinship == "unrelated":
        text = (
            "Such weights have no common origin and point in unrelated directions. The numbers below are "
            "right, but a merge of them would be neither: merging them is pointless."
        )
        return Banner(f"{_who_changed(counted)} trained apart.", text, is_warning=True)
    if is_identical(scan):
        return Banner("Nothing differs.", f"{paired}, and every one holds the same values in both models.")
    if is_rounded(scan):
        return Banner("Only rounding differs.", f"{paired}: {_rounding(verdicts)}.")
    return None


def _rounding(verdicts: Counter[Verdict]) -> str:
    """How the keys are spread over the verdicts below `changed`, in words."""
    clauses = {
        "identical": ("holds the same values", "hold the same values"),
        "cast": ("is equal after a cast to the coarser dtype", "are equal after a cast to the coarser dtype"),
        "rounding": (
            "differs by no more than rounding would leave",
            "differ by no more than rounding would leave",
        ),
    }
    return ", ".join(
        _count(verdicts[name], *clauses[name]) for name in VERDICTS if name in clauses and verdicts[name]
    )


def _shares(verdicts: Counter[Verdict]) -> Iterable[VerdictCount]:
    total, before = sum(verdicts.values()), 0.0
    for name in reversed(VERDICTS):
        if verdicts[name]:
            share = verdicts[name] / total
            yield VerdictCount(name, VERDICT_MEANINGS[name], verdicts[name], share, before)
            before += share


def _who_changed(counted: Sequence[Sums]) -> str:
    changed = [sums for sums in counted if sums.changed]
    if sum(sums.numel for sums in changed) * 2 >= sum(sums.numel for sums in counted):
        return "These two models were"
    return f"The {len(changed)} of {len(counted)} keys that changed were"


def is_identical(scan: Scan) -> bool:
    """Whether there are paired elements, every one was compared, and none differs."""
    every = [key.sums for key in scan.keys]
    return any(sums.n for sums in every) and all(sums.changed == 0 and sums.n == sums.numel for sums in every)


def is_rounded(scan: Scan) -> bool:
    """Whether something differs, and nothing by more than a cast or rounding explains."""
    return not is_identical(scan) and worst(verdict(key.sums) for key in scan.keys) in ("cast", "rounding")


def _card(letter: str, model: ModelId) -> ModelCard:
    dtypes = model.dtypes or {}
    by_size = sorted(dtypes, key=lambda dtype: (-dtypes[dtype], dtype))
    facts = (
        decimal_size(model.bytes),
        model.title or model.architecture,
        " + ".join(_DTYPE_TITLES.get(dtype, dtype) for dtype in by_size),
        _count(model.keys, "key", "keys") if model.keys else "",
    )
    return ModelCard(letter, file_name(model.path), model.path, tuple(fact for fact in facts if fact))


def _unpaired(scan: Scan) -> Iterable[Listing]:
    mismatches = [
        f"{m.key}  {'×'.join(map(str, m.shape_a))} → {'×'.join(map(str, m.shape_b))}"
        for m in scan.shape_mismatch
    ]
    yield _listing("only in A", scan.only_in_a)
    yield _listing("only in B", scan.only_in_b)
    yield _listing("of another shape", mismatches)


def _warnings(scan: Scan) -> Iterable[Listing]:
    nonfinite = [
        f"{key.key}  {key.sums.nonfinite_a:,} in A, {key.sums.nonfinite_b:,} in B"
        for key in scan.keys
        if key.sums.nonfinite_a or key.sums.nonfinite_b
    ]
    recast = [f"{key.key}  {key.dtype_a} → {key.dtype_b}" for key in scan.keys if key.dtype_a != key.dtype_b]
    yield _listing("with NaN or Inf, left out of every sum", nonfinite, is_warning=True)
    yield _listing("stored in another dtype", recast, is_warning=True)


def _listing(what: str, names: Sequence[str], *, is_warning: bool = False) -> Listing:
    title = f"{_count(len(names), 'key', 'keys')} {what}"
    return Listing(title, tuple(names[:LISTED]), max(0, len(names) - LISTED), is_warning)


def _count(number: int, singular: str, plural: str) -> str:
    return f"{number:,} {singular if number == 1 else plural}"


def file_name(path: str) -> str:
    """The last segment of a path of any system: a scan may have been made on another one."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2] or path


def decimal_size(number: int) -> str:
    """Decimal units with three digits: "2.13 GB", as file managers and download pages count."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:  # what would round to 1000 takes the next unit
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
