"""The module beside the tests is imported by its name, however pytest imports them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))
