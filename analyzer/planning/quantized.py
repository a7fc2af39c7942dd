"""What becomes of quantized weights and their scales where a dtype is asked for. Knows names, no values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analyzer.checkpoints.scaled import is_scale, left_as_codes, scales_in_use
from analyzer.planning.alphas import Dtypes, Row
from analyzer.records import TensorInfo
from analyzer.scale_names import NETWORK_MARKER


@dataclass(frozen=True, slots=True)
class Quantized:
    """The quantized weights of one model, and the keys that say how to read them."""

    scales: Mapping[str, str]  # scales and markers that are applied -> such a weight
    plain: frozenset[str]  # weights of codes and scales that are written as plain values
    obsolete: frozenset[str]  # scales and markers that nobody needs any more
    opaque: frozenset[str]  # weights whose scales are not understood

    def is_fixed(self, row: Row) -> bool:
        """Whether a key means nothing in another dtype: a scale, or codes that are not understood."""
        named = is_scale(row.key) and not row.labels.counted and row.labels.part != "ema"
        return named or row.key in self.scales or row.key in self.opaque


def quantized(infos: Mapping[str, TensorInfo], rows: Sequence[Row], dtypes: Dtypes) -> Quantized:
    """What the dtypes that are asked for come to. A weight whose codes have the dtype already stays codes."""
    scales = scales_in_use(infos)
    encoded = [row for row in rows if infos[row.key].encoded]
    plain = frozenset(row.key for row in encoded if dtypes.wanted(row) not in (None, infos[row.key].storage))
    obsolete = set()
    for scale, weight in scales.items():
        network, marker, _ = scale.rpartition(NETWORK_MARKER)
        # A marker speaks of all weights of its network, and goes with the last of them.
        of = [row.key for row in encoded if row.key.startswith(network)] if marker else [weight]
        if plain.issuperset(of):
            obsolete.add(scale)
    return Quantized(scales, plain, frozenset(obsolete), left_as_codes(infos))
