"""`Scan` to versioned JSON and back. Undefined is null, never NaN. Knows no torch."""

from analyzer.scanfile.reading import load
from analyzer.scanfile.writing import dumps, pieces

__all__ = ["dumps", "load", "pieces"]
