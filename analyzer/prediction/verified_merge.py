"""Measure what a merge wrote, and hold it against the plan and its forecast."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from analyzer.checkpoints import Checkpoint, open_checkpoint
from analyzer.errors import CheckpointError, VerificationError
from analyzer.merge import MergeResult
from analyzer.merging.inputs import Inputs
from analyzer.prediction.closed_form import KEPT
from analyzer.prediction.forecast import Forecast
from analyzer.prediction.verification import Verification, verify
from analyzer.records import Action, Pair, Plan, Scan
from analyzer.streaming import Progress


def verify_merge(
    inputs: Inputs,
    plan: Plan,
    result: MergeResult,
    *,
    found: Forecast | None,
    scan: Scan,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Verification:
    """Open the written model and compare it, key by key, with what it should be.

    `result` is what the merge said: keys with values that were clipped to fit fp8 are left out. `found` is
    the forecast from `scan`; without one, as of methods that are not linear, only what was copied or cast
    is compared. Raises VerificationError that names what is off, also where the file is incomplete.
    """
    steps = dict(found.steps) if found else {}
    steps |= {action.key: KEPT for action in plan.actions if action.verb == "cast"}
    steps = {key: step for key, step in steps.items() if key not in result.clipped}
    with _opened(result.path) as written:
        return verify(
            written,
            inputs.a,
            inputs.b,
            steps=steps,
            copies=_copies(inputs, plan),
            scan=scan,
            predicted=found.measured if found else None,
            device=device,
            threads=threads,
            progress=progress,
        )


def _opened(path: Path) -> Checkpoint:
    try:
        return open_checkpoint(path)
    except CheckpointError as error:  # its own message says what is wrong with the file
        raise VerificationError(f"{error}; write it again") from error


def _copies(inputs: Inputs, plan: Plan) -> dict[str, tuple[Checkpoint, str]]:
    """The keys that hold another model's bytes, and whose; the model's key may have another name."""
    vae = plan.partners.vae or {}
    copies: dict[str, tuple[Checkpoint, str]] = {}
    for action in plan.actions:
        key = action.key
        if action.verb == "keep":
            copies[key] = inputs.a, key
        elif action.verb == "add":
            # Encoded values and other dtypes are converted on the way.
            if action.dtype == (info := inputs.b.infos[key]).dtype == info.storage:
                copies[key] = inputs.b, key
        elif action.verb == "take":
            copies |= _whole(inputs.b, plan.pairs[key], action)
        elif action.verb == "bake" and inputs.vae is not None:
            copies |= _whole(inputs.vae, vae[key], action)
    return copies


def _whole(source: Checkpoint, pair: Pair, action: Action) -> dict[str, tuple[Checkpoint, str]]:
    """The key, if its values are one tensor of the source as that stores it."""
    if len(pair.parts) != 1:
        return {}
    seen = pair.parts[0].b
    info = source.infos[seen.key]
    kind = (action.dtype, action.dtype, action.shape)
    as_stored = (info.dtype, info.storage, info.shape) == kind and replace(seen, shape=info.shape) == info
    return {action.key: (source, info.key)} if as_stored else {}
