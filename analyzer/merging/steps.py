"""How each tensor of the output comes about, from the plan. Reads and computes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from analyzer.checkpoints import Checkpoint
from analyzer.checkpoints.encodings import AbstractEncodedSource
from analyzer.kernels.formats import FLOATS
from analyzer.merging.cuts import Cut, aligned, whole
from analyzer.merging.inputs import Inputs
from analyzer.methods import Setting
from analyzer.model_folder import OutputFile
from analyzer.recipes.recipe import Recipe, parameters_of
from analyzer.records import Action, Pair, Plan
from analyzer.writing.writer import Entry


@dataclass(frozen=True, slots=True)
class Step:
    """How one tensor of the output comes about."""

    file: int  # which of the output's files it goes to
    index: int  # its place in that file
    action: Action
    entry: Entry
    cuts: tuple[Cut, ...] = ()  # what is read; nothing of a tensor that is made anew
    setting: Setting | None = None  # of a merge: A, B, a base if there is one, and the models in `setting`
    encoder: AbstractEncodedSource | None = None  # what turns values into A's codes

    @property
    def copies(self) -> bool:
        """Whether it takes no arithmetic."""
        if self.setting is not None or self.encoder is not None:
            return False
        return all(place.info.dtype == self.entry.dtype for cut in self.cuts for place in cut.places)

    @property
    def keeps(self) -> bool:
        """Whether the values stay A's."""
        return self.action.verb in ("keep", "cast")


@dataclass(frozen=True, slots=True)
class Span:
    """A run of elements of one output tensor, small enough for one buffer."""

    step: Step
    cut: Cut | None
    start: int  # within the cut
    count: int  # 1 or more
    nbytes: int  # that are written

    @property
    def place(self) -> int:
        """Where the first element stands in the output tensor."""
        return self.start + (self.cut.start if self.cut else 0)

    @property
    def offset(self) -> int:
        """Where the first byte stands in the output tensor."""
        return self.place * (self.nbytes // self.count)


def steps_of(files: Sequence[OutputFile], inputs: Inputs, plan: Plan, recipe: Recipe) -> list[Step]:
    """A step for every tensor of the files, in their order."""
    actions = {action.key: action for action in plan.actions}
    planner = _Planner(inputs, plan, recipe, parameters_of(recipe))
    return [
        planner.step(actions[key], (place, index), file.inner(key))
        for place, file in enumerate(files)
        for index, key in enumerate(file.keys)
    ]


def spans_of(step: Step, chunk: int) -> Iterator[Span]:
    """The step's elements in runs of at most `chunk`."""
    itemsize = step.entry.itemsize
    for cut in step.cuts or (None,):
        count = cut.count if cut else prod(step.entry.shape)
        for start in range(0, count, chunk):
            here = min(chunk, count - start)
            yield Span(step, cut, start, here, here * itemsize)


@dataclass(frozen=True, slots=True)
class _Planner:
    inputs: Inputs
    plan: Plan
    recipe: Recipe
    parameters: Mapping[str, float]
    settings: dict[tuple[float, tuple[float, ...]], Setting] = field(default_factory=dict)  # those in use

    def step(self, action: Action, place: tuple[int, int], name: str) -> Step:
        if action.verb == "reset":
            return Step(*place, action, Entry(name, action.dtype, action.shape, prod(action.shape) * 8))
        source = self.inputs.b if action.verb == "add" else self.inputs.a
        info = source.infos[action.key]
        stored = info.encoded or info
        as_stored = action.dtype == stored.dtype
        if as_stored:
            entry = Entry(name, action.dtype, stored.shape, stored.nbytes)
        else:
            nbytes = prod(action.shape) * FLOATS[action.dtype].bits // 8
            entry = Entry(name, action.dtype, action.shape, nbytes)
        if action.verb in ("keep", "add", "cast"):
            return Step(*place, action, entry, (whole(source, stored if as_stored else info),))
        encoder = None
        if info.encoded and as_stored:
            found = self.inputs.a.sources[info.source]
            assert isinstance(found, AbstractEncodedSource)
            encoder = found
        if action.verb == "merge":
            return self._merge(action, place, entry, encoder)
        taken = self._taken(action)
        return Step(*place, action, entry, tuple(aligned(None, [taken])), encoder=encoder)

    def _taken(self, action: Action) -> tuple[Checkpoint, Pair]:
        """The model whose values a key gets, and how they are paired with A's."""
        if action.verb == "bake":
            assert self.inputs.vae is not None
            assert self.plan.partners.vae is not None
            return self.inputs.vae, self.plan.partners.vae[action.key]
        return self.inputs.b, self.plan.pairs[action.key]

    def _merge(
        self, action: Action, place: tuple[int, int], entry: Entry, encoder: AbstractEncodedSource | None
    ) -> Step:
        key, partners = action.key, self.plan.partners
        assert action.alpha is not None
        others = [(self.inputs.b, self.plan.pairs[key])]
        if partners.base is not None:
            assert self.inputs.base is not None
            others.append((self.inputs.base, partners.base[key]))
        weights = []
        for checkpoint, pairs, weight in zip(
            self.inputs.models, partners.models, self.recipe.weights, strict=True
        ):
            if key in pairs:
                others.append((checkpoint, pairs[key]))
                weights.append(weight)
        cuts = aligned((self.inputs.a, self.inputs.a.infos[key]), others)
        setting = self._setting(action.alpha, tuple(weights))
        return Step(*place, action, entry, tuple(cuts), setting, encoder)

    def _setting(self, alpha: float, weights: tuple[float, ...]) -> Setting:
        """One record for all tensors that are merged alike."""
        found = self.settings.get((alpha, weights))
        if found is None:
            based = self.plan.partners.base is not None
            found = self.settings[alpha, weights] = Setting(alpha, weights, self.parameters, based=based)
        return found
