"""The module beside the tests is imported by its name, however pytest imports them; pieces are small."""

from __future__ import annotations

import pkgutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens in the middle of a merge can happen in that of a small one."""
    from crashing import SMALL_PIECES

    for holder, name, value in SMALL_PIECES:
        monkeypatch.setattr(pkgutil.resolve_name(holder), name, value)
