"""Which models an experiment looks at: A, B, and A with one category of B each. Knows names, no values.

A column is a merge, so what it holds is what `mergescope merge --only SELECTOR` writes. A selector that
names no part and no raw key is meant within the denoiser, as in the experiment this project comes from:
what lies outside of the U-Net stayed A's there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from analyzer.categories import RuleBook, categorize, shipped
from analyzer.errors import AnalyzerError, RecipeError, SelectorError
from analyzer.experiment.records import A, B, Column
from analyzer.merge import plan_merge
from analyzer.merging.inputs import Inputs
from analyzer.planning.alphas import Row
from analyzer.ranking import crossed_axes, rank_keys
from analyzer.recipes.recipe import Recipe
from analyzer.records import Plan, Scan
from analyzer.selectors import Selector, compile_selector
from analyzer.verdicts import verdict

UNET = "unet"
DENOISERS = (UNET, "transformer")  # the parts within which a selector is meant
ARTICLE = (
    "transformer_blocks", "attn1", "attn2", "attn1,attn2", "ff", "skip_connection", "weight", "bias",
)  # fmt: skip
AXIS = "component"  # of models without a U-Net
_UNTOUCHED = ("keep", "cast")


@dataclass(frozen=True, slots=True)
class Choice:
    """What was asked for. Nothing says: the article's categories, or of other models their components."""

    each: tuple[str, ...] = ()  # selectors, a column each
    axis: str | None = None  # one of a ranking: a column for each of its groups
    only: str | None = None  # the gate over all columns, in the place of the denoiser
    alpha: float = 1.0

    def check(self) -> None:
        """Refuse what fits no model; raises AnalyzerError."""
        if self.each and self.axis is not None:
            raise AnalyzerError("--each and --axis both say which columns there are: leave one of them out")
        if self.axis is not None:
            crossed_axes(self.axis)
        if not math.isfinite(self.alpha) or self.alpha == 0:
            raise AnalyzerError(
                f"--alpha {self.alpha:g}: a column takes so much of B's difference; write a number that is "
                "not 0, such as 1 or 0.5"
            )


def parents(inputs: Inputs, *, book: RuleBook | None = None) -> tuple[Column, Column]:
    """A as it is, and A with everything that it can take of B.

    Raises PairingError if the two share no key, RecipeError if nothing of them can be merged.
    """
    recipe = Recipe(alpha=1.0)
    plan = plan_merge(inputs, recipe, book=book)
    return Column(A, None, None, None), Column(B, None, recipe, plan, _taken(plan))


def axis_of(choice: Choice, whole: Plan) -> str | None:
    """The axis whose groups are the columns; None where selectors name them. `whole` is B's plan."""
    if choice.axis is not None or choice.each:
        return choice.axis
    return None if _has(whole, UNET) else AXIS


def named_columns(
    inputs: Inputs, choice: Choice, whole: Plan, *, book: RuleBook | None = None
) -> tuple[Column, ...]:
    """A column for every selector; of the article's, those that this model has.

    Raises SelectorError or RecipeError for a selector that is wrong or hits nothing that can be merged.
    """
    pair = _Pair(inputs, whole, book, choice.alpha)
    gate = choice.only or pair.denoiser()
    if choice.each:
        return tuple(pair.named(text, gate, choice) for text in dict.fromkeys(choice.each))
    if gate is not None:
        pair.compiled(gate)  # what is wrong with it is wrong with every category
    columns = []
    for text in ARTICLE:
        try:
            columns.append(pair.named(text, gate, choice))
        except (SelectorError, RecipeError):  # a miniature without skip connections, a gate that excludes it
            continue
    if not columns:
        raise SelectorError(
            "the model has none of the usual categories: name some with --each, or give --axis"
        )
    return tuple(columns)


def ranked_columns(
    inputs: Inputs, choice: Choice, whole: Plan, scan: Scan, *, axis: str, book: RuleBook | None = None
) -> tuple[Column, ...]:
    """A column for every group of a ranking, the one that differs most first.

    Raises SelectorError if the gate is wrong, or goes together with no group.
    """
    pair = _Pair(inputs, whole, book, choice.alpha)
    # The parts beside each other are all of the model, not all of its denoiser.
    gate = choice.only or (None if "part" in crossed_axes(axis) else pair.denoiser())
    columns = []
    for group in rank_keys(scan, axis=axis, only=gate):
        try:
            columns.append(pair.column(group.row.name, _within(gate, group.row.selector, pair)))
        except RecipeError:  # nothing of it can be merged: other shapes, integers
            continue
    if not columns:
        raise SelectorError(f"--axis {axis}: none of its groups can be merged; name categories with --each")
    return tuple(columns)


def require_measured(scan: Scan, b: Column, *, where: str) -> None:
    """Refuse a scan of a part of the models, AnalyzerError: what it says of a category would be of less."""
    known = {row.key for row in scan.keys}
    lacking = [key for key in b.keys if key not in known]
    if lacking:
        raise AnalyzerError(
            f"{where}: lacks {len(lacking):,} keys, such as {lacking[0]}: it was made with --only; make "
            "one of all, or leave out --scan"
        )


def limits(inputs: Inputs, whole: Plan, *, book: RuleBook | None = None) -> list[str]:
    """What column B and the categories cannot show of B, one sentence each; `whole` is B's plan.

    Tensors that pair with none stay A's in every column, so B's is not all of B where there are some. Of
    copies, tables and integers, which paint nothing, nothing is said.
    """
    counted = {key for key, labels in whole.labels.items() if labels.counted}
    labels_b = categorize(inputs.b.infos.values(), book=book or shipped()).labels
    taken = set(_taken(whole))
    found = [
        _listed([key for key in whole.only_in_a if key in counted], "of A has", "of A have", "no like in B"),
        _listed(
            [key for key in whole.shape_mismatch if key in counted - taken],
            "has",
            "have",
            "another shape in B",
        ),
        _listed(
            [key for key in whole.shape_mismatch if key in counted & taken],
            "is",
            "are",
            "taken from B as far as its shape fits",
        ),
        _listed(
            [key for key in whole.dropped if labels_b[key].counted], "of B has", "of B have", "no like in A"
        ),
    ]
    found = [text for text in found if text]
    return [f"column B is A with all of B that fits: {'; '.join(found)}"] if found else []


def _listed(keys: Sequence[str], one: str, several: str, what: str) -> str:
    """How many tensors, and which is the first."""
    if not keys:
        return ""
    return f"{len(keys):,} {one if len(keys) == 1 else several} {what} ({keys[0]}{' …' * (len(keys) > 1)})"


def left_out(choice: Choice, axis: str | None, columns: Sequence[Column]) -> list[str]:
    """Of the article's categories those that have no column, in a sentence; none where others were named."""
    if choice.each or axis is not None:
        return []
    labels = {column.label for column in columns}
    names = [text for text in ARTICLE if text not in labels]
    return [f"no column for {', '.join(names)}: nothing of that can be taken from B"] if names else []


def unchanged(columns: Sequence[Column], scan: Scan) -> frozenset[str]:
    """The labels of the columns whose every tensor is the same in A and B: their pictures are A's."""
    same = {row.key for row in scan.keys if verdict(row.sums) == "identical"}
    return frozenset(x.label for x in columns if x.recipe is not None and same.issuperset(x.keys))


@dataclass(frozen=True, slots=True)
class _Pair:
    """Both models, and how selectors see A."""

    inputs: Inputs
    whole: Plan
    book: RuleBook | None
    alpha: float

    @property
    def rows(self) -> list[Row]:
        """All keys of A with their labels."""
        return [Row(key, labels) for key, labels in self.whole.labels.items()]

    def compiled(self, text: str) -> Selector:
        """A selector on A; SelectorError if it is wrong."""
        return compile_selector(text, rows=self.rows, blocks=self.whole.blocks)

    def hit(self, text: str) -> set[str]:
        """The keys of A that a selector hits."""
        selector = self.compiled(text)
        return {row.key for row in self.rows if selector.hits(row)}

    def denoiser(self) -> str | None:
        """The selector of the U-Net or transformer; None if there is none, or nothing else."""
        counted = {labels.part for labels in self.whole.labels.values() if labels.counted}
        part = next((part for part in DENOISERS if part in counted), None)
        return None if part is None or len(counted) == 1 else self.compiled(f"part:{part}").text

    def named(self, text: str, gate: str | None, choice: Choice) -> Column:
        """The column of a selector as the user gave it."""
        axes = self.compiled(text).axes
        if choice.only is None and not axes.isdisjoint(("part", "key")):
            gate = None  # it says itself where it is meant
        if gate is not None and choice.only is None and self.hit(text) and not self.hit(f"{gate},{text}"):
            part = next(labels.part for key, labels in self.whole.labels.items() if key in self.hit(text))
            raise SelectorError(
                f"--each {text}: is not within {gate}, where categories are looked for; name its part, as in "
                f"{part},{text}"
            )
        try:
            return self.column(text, _within(gate, text, self))
        except RecipeError as error:
            # The merge calls it by its own option.
            said = str(error).replace(f"--only {_within(gate, text, self)}", f"--each {text}")
            raise RecipeError(said) from error

    def column(self, label: str, selector: str) -> Column:
        """The column that takes what a selector hits."""
        recipe = Recipe(only=selector, alpha=self.alpha)
        plan = plan_merge(self.inputs, recipe, book=self.book)
        name = f"category {label}" if label in (A, B) else label
        return Column(name, selector, recipe, plan, _taken(plan))


def _within(gate: str | None, text: str, pair: _Pair) -> str:
    """The selector of what both hit.

    Terms of one axis unite, so where both speak of an axis the gate's terms are left out, if that says the
    same. Raises SelectorError where no selector does.
    """
    if gate is None:
        return text
    shared = pair.compiled(gate).axes & pair.compiled(text).axes
    words = [word for word in re.split(r"[,\s]+", gate) if word]
    kept = [word for word in words if pair.compiled(word).axes.isdisjoint(shared)]
    selector = ",".join([*kept, text])
    if shared:
        both = pair.hit(gate) & pair.hit(text)
        if not both or both != pair.hit(selector):
            raise SelectorError(
                f"--only {gate} and the category {text!r} both speak of {', '.join(sorted(shared))}, and no "
                f"selector is what they have in common; write what is meant with --each"
            )
    return selector


def _taken(plan: Plan) -> tuple[str, ...]:
    """The keys that are not A's."""
    return tuple(action.key for action in plan.actions if action.verb not in _UNTOUCHED)


def _has(plan: Plan, part: str) -> bool:
    return any(labels.part == part and labels.counted for labels in plan.labels.values())
