"""The same harness as tests/methods: two folders of tests share no modules."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_SPEC = spec_from_file_location("method_harness", Path(__file__).parents[1] / "methods" / "conftest.py")
assert _SPEC is not None
assert _SPEC.loader is not None
_HARNESS = module_from_spec(_SPEC)
_SPEC.loader.exec_module(_HARNESS)

merge_model = _HARNESS.merge_model
merge_tensor = _HARNESS.merge_tensor
