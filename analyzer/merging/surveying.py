"""The passes over whole tensors that some methods need before they can combine the first element."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from analyzer.blending import AbstractBlender
from analyzer.merging.steps import Span, Step, spans_of
from analyzer.merging.worker import Buffers, buffers_for, operands_of
from analyzer.methods import METHODS, AbstractSurvey
from analyzer.methods.gram import GramSurvey
from analyzer.recipes.recipe import Recipe
from analyzer.streaming import in_batches, run_batches

_BATCH_BYTES = 1 << 20
_GROUP_ELEMENTS = 1 << 21  # whose states are held at once, if they lie in more than one tensor


def survey_for(recipe: Recipe, steps: Sequence[Step]) -> tuple[AbstractSurvey | None, list[Step]]:
    """The survey that the recipe's method needs, and of which steps; None and none if it needs none."""
    method = METHODS[recipe.method]
    survey = GramSurvey() if method.needs_gram else method.survey
    if survey is None:
        return None, []
    return survey, [step for step in steps if step.setting is not None and survey.needed(step.setting)]


def survey_steps(
    survey: AbstractSurvey,
    steps: Sequence[Step],
    blender: AbstractBlender,
    *,
    threads: int | None,
    progress: Callable[[int], None] = lambda _: None,
) -> Mapping[str, Any]:
    """What the survey found of every step's tensor, by key.

    The states of a few tensors are held at a time: a survey may drop what it needs no more when a
    turn ends. `progress` is told how many bytes more were read, counted as the output's.
    """
    states: dict[str, Any] = {}
    buffers = buffers_for(steps, blender.chunk)
    for group in _groups(steps):
        for step in group:
            assert step.setting is not None
            states[step.action.key] = survey.begin(step.setting, _count(step))
        for turn in range(survey.turns):

            def observe(batch: Sequence[Span], own: Buffers, turn: int = turn) -> int:
                for span in batch:
                    operands = operands_of(span, own, blender)
                    with np.errstate(all="ignore"):
                        survey.observe(states[operands.key], operands, turn)
                return sum(span.nbytes for span in batch)

            told = 0

            def tell(done: int, _total: int) -> None:
                nonlocal told
                progress(done - told)
                told = done

            run_batches(
                in_batches(
                    (span for step in group for span in spans_of(step, blender.chunk)),
                    size=lambda span: span.nbytes,
                    limit=_BATCH_BYTES,
                ),
                observe,
                state=buffers,
                threads=threads,
                total=sum(step.entry.nbytes for step in group),
                progress=tell,
            )
    return survey.conclude(states)


def _groups(steps: Sequence[Step]) -> Iterator[list[Step]]:
    return in_batches(steps, size=_count, limit=_GROUP_ELEMENTS)


def _count(step: Step) -> int:
    return sum(cut.count for cut in step.cuts)
