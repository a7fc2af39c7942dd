"""Measure what a merge wrote, and hold it against the plan and its forecast."""

from __future__ import annotations

from analyzer.checkpoints import Checkpoint, open_checkpoint
from analyzer.merge import MergeResult
from analyzer.merging.inputs import Inputs
from analyzer.prediction.closed_form import KEPT
from analyzer.prediction.forecast import Forecast
from analyzer.prediction.verification import Verification, verify
from analyzer.records import Plan, Scan
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
    is compared. Raises VerificationError that names what is off.
    """
    steps = dict(found.steps) if found else {}
    steps |= {action.key: KEPT for action in plan.actions if action.verb == "cast"}
    steps = {key: step for key, step in steps.items() if key not in result.clipped}
    with open_checkpoint(result.path) as written:
        return verify(
            written,
            inputs.a,
            inputs.b,
            steps=steps,
            copies=_copies(inputs, plan),
            scan=scan,
            device=device,
            threads=threads,
            progress=progress,
        )


def _copies(inputs: Inputs, plan: Plan) -> dict[str, tuple[Checkpoint, str]]:
    """The keys that hold another model's bytes, and whose."""
    copies = {action.key: (inputs.a, action.key) for action in plan.actions if action.verb == "keep"}
    for action in plan.actions:
        # Encoded values and other dtypes are converted on the way.
        if (
            action.verb == "add"
            and action.dtype == (info := inputs.b.infos[action.key]).dtype == info.storage
        ):
            copies[action.key] = (inputs.b, action.key)
    return copies
