"""Measure a written merge against its parents, and hold it against what was predicted.

One pass reads A, B and the written model together, with the written model in the place of the base: its
sums over a − w and b − w are ‖W − A‖² and ‖W − B‖². What is copied is compared byte by byte.

How far W may lie from the predicted M. Rounding once moves an element by half a spacing at most, and the
spacing at m is at most max(scale·|m|, smallest), with the format's scale 2^(1 − significand bits). So for
every key ‖W − M‖ ≤ R = ½·√(scale²·‖M‖² + n·smallest²), whatever the errors have to do with the step: where a
small step is swallowed they are its negative. Evenly spread errors come to about half of R (Widrow & Kollár,
Quantization Noise, §4). Over keys R² adds, and by the triangle inequality

    |‖W‖ − ‖M‖| ≤ R,  |‖W − A‖ − ‖M − A‖| ≤ R,  |angle(W, A) − angle(M, A)| ≤ arcsin(R / ‖M‖).

Where M lies between A and B, ‖W − M‖ itself follows from the sums of a key as well, so that data in a wrong
place is found even where norms and distances happen to agree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import asin, fsum, inf, pi, sin, sqrt

import numpy as np

from analyzer.checkpoints import Checkpoint
from analyzer.checkpoints.encodings import AbstractEncodedSource
from analyzer.errors import VerificationError
from analyzer.formulas import divides
from analyzer.kernels.formats import FLOATS
from analyzer.prediction.closed_form import KEPT, TAKEN, Prediction, Squares, Steps, derive, squares_of
from analyzer.ranking import counted, rank_keys
from analyzer.records import KeyScan, Scan, TensorInfo
from analyzer.scan import scan as measure
from analyzer.streaming import Progress

Copies = Mapping[
    str, tuple[Checkpoint, str]
]  # written key -> the model whose bytes it has, and the key there

TOLERANCE = 1e-6  # of lengths: as a share of that of A or B

_SLACK = 1 + 2.0**-8  # arithmetic in fp32 before it is rounded to fp16, and the rounding of the sums
_NAMED = 3  # faults that a message names
_CHUNK = 1 << 20  # bytes
_VALUES = ("norm", "distance_a", "distance_b", "cosine_a", "cosine_b")


@dataclass(frozen=True, slots=True)
class Compared:
    """One value of the written model beside the one that was predicted."""

    statistic: str  # a field of `Prediction`
    predicted: float | None  # None: undefined, before and after
    measured: float | None
    allowed: float  # by which they may differ

    @property
    def agrees(self) -> bool:
        """Whether they lie as near to one another as they must."""
        if self.predicted is None or self.measured is None:
            return self.predicted is self.measured
        return abs(self.measured - self.predicted) <= self.allowed


@dataclass(frozen=True, slots=True)
class VerifiedGroup:
    """The values of the whole model, or of a group of keys."""

    name: str  # "" for the whole
    selector: str
    predicted: Prediction
    measured: Prediction
    values: tuple[Compared, ...]


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found in a written model that is as it should be."""

    whole: VerifiedGroup
    groups: tuple[VerifiedGroup, ...]
    keys: int  # that were measured and compared with their prediction
    copied: int  # that hold the bytes they were to have
    unpredicted: int  # all other keys of the written model: of their values nothing was predicted


def verify(
    written: Checkpoint,
    a: Checkpoint,
    b: Checkpoint,
    *,
    steps: Steps,
    copies: Copies,
    scan: Scan,
    predicted: Mapping[str, Squares] | None = None,
    axis: str = "component",
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Verification:
    """Measure a written merge and compare it with its prediction, whole and by the groups of an axis.

    `scan` is the scan of A and B that the prediction was made from, with the base if the method has one.
    `steps` are the coefficients of its keys as in `prediction.predict`, those that were only cast having
    (1, 0, 0); `copies` says which keys were to hold another model's bytes. Of keys in neither, and of those
    that the scan did not measure, nothing is predicted: they are left out on both sides, and counted.
    `predicted` are the squared lengths of keys that are merged with models which the scan does not know.
    Raises VerificationError that names what is off.
    """
    _check_copies(written, copies)
    found = measure(a, b, base=written, device=device, threads=threads, progress=progress)
    based, more = scan.base is not None, predicted or {}
    expected = {row.key: row for row in scan.keys if row.sums.numeric}
    known = {key: step for key, step in steps.items() if key not in copies}
    copied = _copied_steps(copies, expected, a=a, b=b)
    keys: dict[str, _Key] = {}
    for row in found.keys:
        step = copied.get(row.key) or known.get(row.key)
        if step is not None and row.key in expected:
            whole = row.key in copied
            spacings = None if whole else _Spacings.of(written, row.key)
            squares = more.get(row.key) or squares_of(expected[row.key], step, based=based)
            if squares is None:
                continue
            key = _Key.of(expected[row.key], row, step, squares, spacings, copied=whole)
            keys |= {} if key is None else {row.key: key}
    _check_keys(written, keys.values())
    groups = [
        _group(ranked.row.name, ranked.row.selector, inside)
        for ranked in rank_keys(scan, axis=axis)
        if (inside := [keys[row.key] for row in ranked.keys if row.key in keys])
    ]
    everything = _group("", "", [keys[row.key] for row in counted(scan.keys) if row.key in keys])
    _check_groups(written, [*groups, everything])
    measured = sum(key not in copied for key in keys)
    unpredicted = sum(key not in keys and key not in copies for key in written.infos)
    return Verification(everything, tuple(groups), measured, len(copies), unpredicted)


def _copied_steps(
    copies: Copies, rows: Mapping[str, KeyScan], *, a: Checkpoint, b: Checkpoint
) -> dict[str, Sequence[float]]:
    """The coefficients of keys that were to hold the bytes that A or B has for them."""
    found: dict[str, Sequence[float]] = {}
    for key, (source, name) in copies.items():
        if source is a and name == key:
            found[key] = KEPT
        elif source is b and key in rows and name == rows[key].key_b:
            found[key] = TAKEN
    return found


@dataclass(frozen=True, slots=True)
class _Spacings:
    """How far apart the numbers lie that a written tensor can hold."""

    scale: float  # at x: at most scale·|x| …
    smallest: float  # … or, over the whole tensor, the root of the sum of the squares of the smallest

    @classmethod
    def of(cls, written: Checkpoint, key: str) -> _Spacings | None:
        """Of one tensor; None where that is not known."""
        info = written.infos.get(key)
        if info is None or info.storage not in FLOATS:
            return None
        f = FLOATS[info.storage]
        if info.encoded is None:
            return cls(f.scale, f.smallest_spacing * sqrt(info.numel))
        source = written.sources[info.source]
        if info.view is not None or not isinstance(source, AbstractEncodedSource):
            return None
        step, total = _CHUNK, 0.0
        for start in range(0, info.numel, step):
            count = min(step, info.numel - start)
            factors = np.broadcast_to(source.factors(info.offset // info.itemsize + start, count), (count,))
            total += float(np.square(factors, dtype=np.float64).sum())
        return cls(f.scale, f.smallest_spacing * sqrt(total))


@dataclass(frozen=True, slots=True)
class _Key:
    """One key: what was predicted, what was measured, and how far apart they may lie."""

    row: KeyScan
    predicted: Squares
    measured: Squares | None  # None: W lacks elements
    rounding: float  # R, the most that ‖W − M‖ can be
    apart: float  # ‖W − M‖; where it does not follow from the sums, the least that it can be
    missing: int = 0  # elements that are not finite in W alone

    @classmethod
    def of(
        cls,
        expected: KeyScan,
        found: KeyScan,
        step: Sequence[float],
        predicted: Squares,
        spacings: _Spacings | None,
        *,
        copied: bool,
    ) -> _Key | None:
        """`expected` is measured of A and B, `found` of A, B and W. None where nothing can be compared.

        That is where the prediction was made from fewer elements, as some of the base are not finite.
        """
        if copied:  # the bytes were compared
            return cls(expected, predicted, predicted, 0.0, 0.0)
        s, task = found.sums, found.sums.task
        count = task.n if task is not None else 0
        if task is None or count < expected.sums.numeric:
            return cls(expected, predicted, None, inf, inf, expected.sums.numeric - count)
        if count > expected.sums.numeric:
            return None
        squares = max(s.sum_aa - 2 * task.dot_a + task.aa, 0.0)  # w = a − p
        measured = Squares(s.sum_aa, s.sum_bb, squares, task.aa, task.bb)
        rounding = inf
        if spacings is not None:
            rounding = _SLACK / 2 * sqrt(spacings.scale**2 * predicted.m + spacings.smallest**2)
        return cls(expected, predicted, measured, rounding, _apart(found, step, predicted, measured))


def _apart(found: KeyScan, step: Sequence[float], predicted: Squares, measured: Squares) -> float:
    """‖W − M‖ from the sums over A, B and W in the place of a base.

    Where M depends on more models, what the triangle inequality leaves: the largest difference of lengths.
    """
    k0, k1, *others = step
    if not any(others):
        # W − M = (c − a) − (k0 − 1)·a − k1·(b − a), with c = w
        squares = squares_of(found, (2.0 - k0, -k1, 1.0))
        if squares is not None:
            return sqrt(squares.from_a)
    sides = [
        (predicted.m, measured.m),
        (predicted.from_a, measured.from_a),
        (predicted.from_b, measured.from_b),
    ]
    return max(abs(sqrt(x) - sqrt(y)) for x, y in sides)


def _check_copies(written: Checkpoint, copies: Copies) -> None:
    """Raise VerificationError where a key does not hold the bytes that it was to keep."""
    wrong = [key for key, (source, name) in copies.items() if not _same_bytes(written, key, source, name)]
    if wrong:
        raise VerificationError(
            f"{written.path}: {_listed(wrong)} should hold the bytes of "
            f"{copies[wrong[0]][0].path} and does not: write it again"
        )


def _same_bytes(written: Checkpoint, key: str, source: Checkpoint, name: str) -> bool:
    info, original = written.infos.get(key), source.infos[name]
    if info is None or _kind(info) != _kind(original):
        return False
    ours, theirs = np.empty(_CHUNK, np.uint8), np.empty(_CHUNK, np.uint8)
    for start in range(0, info.nbytes, _CHUNK):
        count = min(_CHUNK, info.nbytes - start)
        written.read_into(info, start, ours[:count])
        source.read_into(original, start, theirs[:count])
        if not np.array_equal(ours[:count], theirs[:count]):
            return False
    return True


def _kind(info: TensorInfo) -> tuple[str, str, tuple[int, ...]]:
    return info.dtype, info.storage, info.shape


def _check_keys(written: Checkpoint, keys: Iterable[_Key]) -> None:
    """Raise VerificationError where a key lies further from its prediction than rounding can explain."""
    faults: list[tuple[float, str]] = []
    for key in keys:
        name = f"{key.row.key} ({key.row.labels.component})"
        if key.missing:
            faults.append((inf, f"{name}: {_missing(written, key)}"))
        elif key.measured is not None:
            size = sqrt(max(key.predicted.a, key.predicted.b, key.predicted.m))
            allowed = max(TOLERANCE * size, key.rounding)
            if not key.apart <= allowed:
                share, most = (x / size if size else inf for x in (key.apart, allowed))
                text = (
                    f"{name} lies {share:.3g} of its norm from what it should be, rounding allows {most:.3g}"
                )
                text += f" (norm {sqrt(key.measured.m):.6g}, predicted {sqrt(key.predicted.m):.6g})"
                faults.append((key.apart / allowed if allowed else inf, text))
    if faults:
        faults.sort(key=lambda fault: -fault[0])
        more = f", and {len(faults) - _NAMED} more keys" if len(faults) > _NAMED else ""
        texts = "; ".join(text for _, text in faults[:_NAMED])
        raise VerificationError(f"{written.path}: {texts}{more}: write it again")


def _missing(written: Checkpoint, key: _Key) -> str:
    """What is wrong with a key that lacks values, and the way out."""
    many = f"{key.missing:,} elements are" if key.missing > 1 else "1 element is"
    info = written.infos.get(key.row.key)
    if info is not None and info.shape == key.row.shape and info.storage == "F16":
        return f"{many} not finite (where fp16 is too narrow for them, --dtype bf16 and fp32 go further)"
    return f"{many} missing or not finite"


def _group(name: str, selector: str, keys: Sequence[_Key]) -> VerifiedGroup:
    predicted = derive([key.predicted for key in keys], keys=len(keys))
    measured = derive([key.measured for key in keys], keys=len(keys))
    rounding = sqrt(fsum(key.rounding**2 for key in keys)) if keys else 0.0
    lengths = {side: sqrt(fsum(getattr(key.predicted, side) for key in keys)) for side in ("a", "b", "m")}

    def turn(away: float | None) -> float:
        """The most by which a cosine can differ, from its predicted distance from 1."""
        if away is None or not divides(lengths["m"]):
            return 0.0
        angle = 2 * asin(sqrt(min(away, 2.0) / 2))
        by = asin(min(rounding / lengths["m"], 1.0)) if rounding < lengths["m"] else pi
        # |cos x − cos y| = 2·sin((x + y) / 2)·sin(|x − y| / 2), and the sine grows up to a right angle
        return 2 * sin(min(angle + by / 2, pi / 2)) * sin(by / 2)

    def allowed(statistic: str) -> float:
        if statistic == "norm":
            return max(TOLERANCE * lengths["m"], rounding)
        if statistic.startswith("cosine"):
            return max(TOLERANCE, turn(getattr(predicted, f"cosine_distance_{statistic[-1]}")))
        length = lengths[statistic[-1]]
        return max(TOLERANCE, rounding / length if length else 0.0)

    values = tuple(
        Compared(value, getattr(predicted, value), getattr(measured, value), allowed(value))
        for value in _VALUES
    )
    return VerifiedGroup(name, selector, predicted, measured, values)


def _check_groups(written: Checkpoint, groups: Sequence[VerifiedGroup]) -> None:
    """Raise VerificationError where a value of a group is not the one that was predicted."""
    faults = [
        f"{value.statistic} of {group.name or 'the whole model'} is {_shown(value.measured)}, "
        f"predicted {_shown(value.predicted)} ± {value.allowed:.2g}"
        for group in groups
        for value in group.values
        if not value.agrees
    ]
    if faults:
        more = f", and {len(faults) - _NAMED} more values" if len(faults) > _NAMED else ""
        raise VerificationError(f"{written.path}: {'; '.join(faults[:_NAMED])}{more}: write it again")


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.6g}"


def _listed(keys: Collection[str]) -> str:
    named = ", ".join(list(keys)[:_NAMED])
    return named if len(keys) <= _NAMED else f"{named} and {len(keys) - _NAMED} more"
