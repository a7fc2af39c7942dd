"""What a scan of A and B does not know: how the further models of a merge lie to them, in one more pass."""

from __future__ import annotations

from collections.abc import Mapping

from analyzer.blending import open_blender
from analyzer.merging.inputs import Inputs
from analyzer.merging.steps import steps_of
from analyzer.merging.surveying import survey_steps
from analyzer.methods import Array, GramSurvey
from analyzer.model_folder import OutputFile
from analyzer.recipes.recipe import Recipe
from analyzer.records import Plan
from analyzer.streaming import Progress


def measure_grams(
    inputs: Inputs,
    plan: Plan,
    recipe: Recipe,
    *,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Mapping[str, Array]:
    """The Gram matrices of a, b − a, c − a and m − a for every further model m, by A's key.

    Of the keys that are merged with a further model; there are none without one, and nothing is read. Over
    the positions that are finite in all models. Raises CheckpointError if a file cannot be read to its end.
    """
    if not inputs.models:
        return {}
    keys = tuple(action.key for action in plan.actions if action.verb == "merge")
    steps = [
        step
        for step in steps_of([OutputFile("", keys, {})], inputs, plan, recipe)
        if step.setting is not None and step.setting.weights
    ]
    if not steps:
        return {}
    blender = open_blender(device)
    total, done = sum(step.entry.nbytes for step in steps), 0

    def more(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        progress(done, total)

    return survey_steps(
        GramSurvey(),
        steps,
        blender,
        threads=threads or blender.threads,
        progress=more,
    )
