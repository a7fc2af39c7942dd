"""Whether a scan is of these files. Knows sizes and fingerprints, nothing else of a model."""

from __future__ import annotations

from analyzer.checkpoints import Checkpoint
from analyzer.errors import RecipeError
from analyzer.records import ModelId, Scan


def require_same_models(scan: Scan, *, a: Checkpoint, b: Checkpoint, base: Checkpoint | None) -> None:
    """RecipeError unless a scan was made of these models, told by their fingerprints.

    A base is compared where the scan has one too. Reads at most 12 KiB of every tensor.
    """
    sides = [("A", a, scan.a), ("B", b, scan.b)]
    if base is not None and scan.base is not None:
        sides.append(("the base", base, scan.base))
    changed = [(name, model, known) for name, model, known in sides if not _is_same(model, known)]
    if not changed:
        return
    again = f"scan again: mergescope scan {a.path} {b.path}" + (f" --base {base.path}" if base else "")
    if _is_same(a, scan.b) and _is_same(b, scan.a):
        raise RecipeError(
            f"the scan has A and B the other way round: it went from {scan.a.path} to {scan.b.path}; swap "
            f"the two models, or {again} -o SCAN.json"
        )
    raise RecipeError(
        "the scan is not of these files: "
        + ", and ".join(_difference(name, model, known) for name, model, known in changed)
        + f"; {again} -o SCAN.json"
    )


def _is_same(model: Checkpoint, known: ModelId) -> bool:
    return model.bytes == known.bytes and model.fingerprint() == known.fingerprint


def _difference(name: str, model: Checkpoint, known: ModelId) -> str:
    """How a model differs from the one that was measured."""
    if model.bytes != known.bytes:
        return f"{name} is {model.path} with {model.bytes:,} bytes, and {known.path} had {known.bytes:,}"
    return f"{name} is {model.path}, of the size of {known.path} as it was scanned but with other contents"
