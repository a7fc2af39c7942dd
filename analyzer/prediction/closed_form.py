"""What a linear merge will be, before it is written: closed forms of a scan's sums. Knows no files.

A linear method gives every key the coefficients k of M = k0·a + k1·(b − a) + k2·(c − a). Then ‖M‖², ‖M − A‖²
and ‖M − B‖² are quadratic forms of k with the key's Gram matrix. They add over keys, and whatever is
predicted of a group follows from their totals. M − A and M − B are formed as their own vectors, not as
differences of norms, so models that are nearly the same keep their digits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, inf, isfinite, sqrt

import numpy as np
from numpy.typing import NDArray

from analyzer.formulas import angular_distance, divides
from analyzer.measures import Sums
from analyzer.prediction.survival import surviving_share
from analyzer.ranking import counted, rank_keys
from analyzer.records import KeyScan, Scan

Steps = Mapping[str, Sequence[float]]  # A's key -> the coefficients of a method on it

KEPT = (1.0, 0.0, 0.0)  # the coefficients that leave A as it is
TAKEN = (1.0, 1.0, 0.0)  # those that take B's values
LEAST_SURVIVING = 0.5  # below it, a warning

_KNOWN = 3  # the vectors a, b − a and c − a; of further models a scan has no sums
# The most of a step's energy that may lie elsewhere than along b − a for its survival to be told from b − a.
_ASIDE = 0.01
_SHORT_NAMES = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}
_SHORT_NAMES |= {"F8_E4M3": "fp8_e4m3", "F8_E5M2": "fp8_e5m2"}


@dataclass(frozen=True, slots=True)
class Squares:
    """What adds over the keys of a merged model M: squared lengths, in the unit of the weights squared."""

    a: float  # ‖A‖²
    b: float  # ‖B‖²
    m: float  # ‖M‖²
    from_a: float  # ‖M − A‖²
    from_b: float  # ‖M − B‖²


@dataclass(frozen=True, slots=True)
class Prediction:
    """A merged model M before it is rounded, as a scan of it would measure it; None is undefined.

    All values but `keys` are None too where some key cannot be predicted: it is combined with a model that
    the scan did not measure.
    """

    norm: float | None  # ‖M‖, in the unit of the weights
    distance_a: float | None  # ‖M − A‖ / ‖A‖; None where A is zero
    distance_b: float | None  # ‖M − B‖ / ‖B‖
    cosine_a: float | None  # of M and A, −1 … 1; None where one of them is zero
    cosine_b: float | None
    cosine_distance_a: float | None  # 1 − cosine_a, which keeps its digits near 0
    cosine_distance_b: float | None
    survives: float | None  # of the step's energy, 0 … 1, see `survival`; None without a step, or unknown
    keys: int  # that were counted


@dataclass(frozen=True, slots=True)
class GroupPrediction:
    """The prediction of one group of keys."""

    name: str  # short: "attn2"
    selector: str  # that hits its counted keys: "component:transformer_blocks/attn2"
    prediction: Prediction


class Outlook:
    """What a merge makes of every key of a scan, from which whole, groups and warning follow.

    `steps`, `dtypes` and `without` are those of `predict`; `alphas` are what the user knows the steps by,
    the factors of b − a where they are not given; `measured` are the squared lengths of keys that are
    merged with models which the scan does not know.
    """

    def __init__(
        self,
        scan: Scan,
        steps: Steps,
        *,
        dtypes: Mapping[str, str] | None = None,
        without: Collection[str] = (),
        alphas: Mapping[str, float] | None = None,
        measured: Mapping[str, Squares] | None = None,
    ) -> None:
        self._scan, self._dtypes = scan, dtypes or {}
        self._alphas = alphas or {key: step[1] for key, step in steps.items()}
        based = scan.base is not None
        self._rows = {
            row.key: row for row in counted(scan.keys) if row.sums.numeric and row.key not in without
        }
        more = measured or {}
        self._seen = {
            key: _Seen(more[key], more[key].from_a, None)
            if key in more
            else _seen(row, steps.get(key, KEPT), self._dtype(row), based=based)
            for key, row in self._rows.items()
        }

    def whole(self) -> Prediction:
        """The whole model; see `predict`."""
        return _derived(list(self._seen.values()))

    def groups(self, axis: str = "component") -> list[GroupPrediction]:
        """The groups of an axis; see `predict_groups`."""
        return [
            GroupPrediction(
                group.row.name,
                group.row.selector,
                _derived([self._seen[row.key] for row in group.keys if row.key in self._seen]),
            )
            for group in rank_keys(self._scan, axis=axis)
        ]

    def warning(self) -> str | None:
        """What rounding takes away, if that is most of it; see `survival_warning`."""
        share = _share_of_all(list(self._seen.values()))
        if share is None or share >= LEAST_SURVIVING:
            return None
        lost: dict[str, list[float]] = {}
        factors: dict[str, list[float]] = {}
        for key, seen in self._seen.items():
            if seen.energy and seen.survived is not None:
                dtype = self._dtype(self._rows[key])
                lost.setdefault(dtype, []).append(seen.energy - seen.survived)
                factors.setdefault(dtype, []).append(self._alphas[key])
        worst = max(lost, key=lambda dtype: fsum(lost[dtype]))
        low, high = min(factors[worst]), max(factors[worst])
        alpha = f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} … {high:.3g}"
        wider = "" if worst in ("F32", "F64") else "write --dtype fp32, or "
        name = _SHORT_NAMES.get(worst, worst)
        save = f"{'an' if name.startswith('f') else 'a'} {name} save"
        left = f"leaves {_percent(share)} of the step above rounding"
        return f"{save} at alpha {alpha} {left}: {wider}take a larger alpha"

    def _dtype(self, row: KeyScan) -> str:
        return self._dtypes.get(row.key, row.dtype_a)


def _derived(seen: Sequence[_Seen]) -> Prediction:
    return derive([each.squares for each in seen], keys=len(seen), survives=_share_of_all(seen))


def predict(
    scan: Scan, steps: Steps, *, dtypes: Mapping[str, str] | None = None, without: Collection[str] = ()
) -> Prediction:
    """The whole merged model, over the counted keys that both models have.

    `steps` are the coefficients by A's key; a key that is not in it stays A's. `dtypes` are the
    output's dtypes by key, as safetensors names them ("BF16"); a key that is not in it keeps A's. Keys
    `without` a prediction, such as those of a method that is not linear, are left out.
    """
    return Outlook(scan, steps, dtypes=dtypes, without=without).whole()


def predict_groups(
    scan: Scan,
    steps: Steps,
    *,
    axis: str = "component",
    dtypes: Mapping[str, str] | None = None,
    without: Collection[str] = (),
) -> list[GroupPrediction]:
    """The same by group, in the order in which `ranking.rank` has them: the one that differs most first.

    `axis` is one of its axes or two that are crossed. Raises AnalyzerError for an unknown one.
    """
    return Outlook(scan, steps, dtypes=dtypes, without=without).groups(axis)


def gram_of(row: KeyScan, *, based: bool = True) -> NDArray[np.float64] | None:
    """The Gram matrix of a, b − a and c − a, shape (3, 3); for methods whose coefficients depend on it.

    c is the base, and c − a is zero where it has no such tensor, and with `based` False. None for integers,
    for sums beyond fp64 and where a scan file of an earlier release lacks what a base needs.
    """
    products = _products(row.sums, based=based)
    if products is None:
        return None
    aa, uu, vv, au, av, uv = products
    return np.array([[aa, au, av], [au, uu, uv], [av, uv, vv]])


def squares_of(row: KeyScan, step: Sequence[float], *, based: bool = True) -> Squares | None:
    """The squared lengths of one key under the coefficients of a method; None where they are not known.

    `based`: whether the scan has a base, without which c − a has no length.
    """
    k0, k1, k2, *more = step if len(step) >= _KNOWN else (*step, 0.0)
    s = row.sums
    products = _products(s, based=bool(k2))
    if products is None or any(more) or (k2 and not based):
        return None
    if k0 == 1 and not k2:  # as nearly always, and in a fraction of the time
        aa, uu, _, au, _, _ = products
        energy = k1 * k1 * uu
        whole = max(fsum((aa, energy, 2 * k1 * au)), 0.0)
        return Squares(s.sum_aa, s.sum_bb, whole, energy, (k1 - 1) * (k1 - 1) * uu)
    return Squares(
        s.sum_aa,
        s.sum_bb,
        _form(products, (k0, k1, k2)),
        _form(products, (k0 - 1, k1, k2)),
        _form(products, (k0 - 1, k1 - 1, k2)),
    )


def squares_from(gram: NDArray[np.float64], step: Sequence[float]) -> Squares:
    """The squared lengths of a key from its own Gram matrix of a, b − a, c − a and m − a, shape (n, n).

    `step` are the n coefficients of the merge.
    """
    k = np.asarray(step, np.float64)
    ends = (1.0, *[0.0] * (len(k) - 1)), (1.0, 1.0, *[0.0] * (len(k) - 2))
    forms = (*ends, k, k - ends[0], k - ends[1])
    a, b, m, from_a, from_b = (max(float(np.dot(v, gram @ v)), 0.0) for v in forms)
    return Squares(a, b, m, from_a, from_b)


def derive(squares: Iterable[Squares | None], *, keys: int, survives: float | None = None) -> Prediction:
    """What follows from the squared lengths of all keys; undefined if one of them is not known."""
    rows = list(squares)
    known = [row for row in rows if row is not None]
    if len(known) < len(rows) or not known:
        return Prediction(None, None, None, None, None, None, None, None, keys)
    a, b, m, from_a, from_b = (
        fsum(getattr(row, name) for row in known) for name in ("a", "b", "m", "from_a", "from_b")
    )
    away_a, away_b = angular_distance(a, m, from_a), angular_distance(b, m, from_b)
    return Prediction(
        norm=sqrt(m) if isfinite(m) else None,
        distance_a=sqrt(from_a) / sqrt(a) if divides(a) and isfinite(from_a) else None,
        distance_b=sqrt(from_b) / sqrt(b) if divides(b) and isfinite(from_b) else None,
        cosine_a=None if away_a is None else 1.0 - away_a,
        cosine_b=None if away_b is None else 1.0 - away_b,
        cosine_distance_a=away_a,
        cosine_distance_b=away_b,
        survives=survives,
        keys=keys,
    )


def survival_warning(
    scan: Scan, steps: Steps, *, dtypes: Mapping[str, str] | None = None, without: Collection[str] = ()
) -> str | None:
    """One sentence if less than half of a merge's step survives rounding; None if there is no need of it.

    Names the dtype in which most of it is lost, and the factors of the keys that have that dtype.
    """
    return Outlook(scan, steps, dtypes=dtypes, without=without).warning()


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else "less than 1 %"


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a merge makes of one key."""

    squares: Squares | None  # None: it cannot be told
    energy: float  # of the step; inf where that is not known
    survived: float | None  # how much of it survives rounding; None where that is not known


def _seen(row: KeyScan, step: Sequence[float], dtype: str, *, based: bool) -> _Seen:
    squares = squares_of(row, step, based=based)
    if squares is None:
        # without a base c − a has no length, and what it holds of the step is not known either
        moves = tuple(step) != KEPT
        return _Seen(None, inf if moves else 0.0, None if moves else 0.0)
    energy = squares.from_a
    if not energy > 0:
        return _Seen(squares, 0.0, 0.0)
    if not isfinite(energy):
        return _Seen(squares, inf, None)
    k0, factor, *others = step
    if k0 != 1 or any(others):
        aside = squares_of(row, (k0, 0.0, *others), based=based)
        if aside is None or aside.from_a > _ASIDE * energy:
            return _Seen(squares, energy, None)
    share = surviving_share(row.sums, factor, stored=row.dtype_a, written=dtype)
    return _Seen(squares, energy, None if share is None else energy * share)


def _share_of_all(seen: Sequence[_Seen]) -> float | None:
    """The share of the steps of all keys together; None without a step, or if it is not known of one."""
    energy = fsum(each.energy for each in seen)
    survived = [each.survived for each in seen if each.survived is not None]
    if len(survived) < len(seen) or not energy > 0:
        return None
    return min(fsum(survived) / energy, 1.0)


def _products(s: Sums, *, based: bool) -> tuple[float, float, float, float, float, float] | None:
    """⟨a,a⟩, ⟨u,u⟩, ⟨v,v⟩, ⟨a,u⟩, ⟨a,v⟩ and ⟨u,v⟩ with u = b − a and v = c − a; None if not finite."""
    if not s.numeric:
        return None
    # by the law of cosines, as everywhere: from d itself
    products = [s.sum_aa, s.sum_dd, 0.0, (s.sum_bb - s.sum_aa - s.sum_dd) / 2, 0.0, 0.0]
    if based and s.task is not None:
        # v = −p, and u − v = q
        products[2], products[4] = s.task.aa, -s.task.dot_a
        products[5] = (s.task.dd + s.task.aa - s.task.bb) / 2
    aa, uu, vv, au, av, uv = products
    return (aa, uu, vv, au, av, uv) if all(map(isfinite, products)) else None


def _form(products: tuple[float, float, float, float, float, float], k: tuple[float, float, float]) -> float:
    """‖k0·a + k1·u + k2·v‖²."""
    aa, uu, vv, au, av, uv = products
    x, y, z = k
    parts = (x * x * aa, y * y * uu, z * z * vv, 2 * x * y * au, 2 * x * z * av, 2 * y * z * uv)
    return max(fsum(parts), 0.0)
