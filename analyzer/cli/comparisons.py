"""What `report --compare` asks of its scans. Knows no page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analyzer.errors import AnalyzerError

if TYPE_CHECKING:
    from analyzer.records import Scan


def require_same_a(paths: Sequence[Path], scans: Sequence[Scan]) -> None:
    """Refuse scans of different A's: their changes begin at different places.

    The content decides, by its fingerprint; where A lay, and what it was called, may differ.
    """
    first, one = paths[0], scans[0]
    for path, scan in zip(paths[1:], scans[1:], strict=True):
        if scan.a.fingerprint == one.a.fingerprint:
            continue
        swapped = scan.b.fingerprint == one.a.fingerprint
        way_out = (
            f"scan it the other way round, with {_name(one.a.path)} first"
            if swapped
            else f"scan {_name(scan.b.path)} against {_name(one.a.path)}"
        )
        raise AnalyzerError(
            f"{path}: its A is {_name(scan.a.path)}, and that of {first} is {_name(one.a.path)}, "
            f"another model; --compare needs the same A in every scan, so {way_out}"
        )


def _name(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2] or path
