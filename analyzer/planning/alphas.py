"""Which alpha a key has, and which option said so. Knows names and labels, no values.

Alphas resolve in one order: `alpha`, then `base_alpha` and `block_weights`, then what a scan says, then
`text_encoder`, then `sets`, each replacing what came before; `only` is the gate over all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from analyzer.blocks.weights import BlockAlphas, alphas_by_block
from analyzer.categories.names import MARKER, SCHEDULE
from analyzer.errors import RecipeError
from analyzer.guidance.guiding import Guidance
from analyzer.recipes.recipe import DTYPES, Recipe
from analyzer.records import Labels
from analyzer.selectors import Selector, compile_selector

_COARSE = (DTYPES["fp8_e4m3"], DTYPES["fp8_e5m2"])

Decision = tuple[float, str]  # the alpha, and the option that decided it
Guided = Callable[["Row", Decision], Decision]


@dataclass(frozen=True, slots=True)
class Row:
    """A key of A as selectors see it."""

    key: str
    labels: Labels


class Alphas:
    """The alphas of one recipe on the keys of one model."""

    def __init__(
        self, recipe: Recipe, rows: Sequence[Row], blocks: Sequence[str], *, more: Sequence[Row] = ()
    ) -> None:
        """`rows` are A's keys, `more` those of B that may be added: selections may name them too."""
        only, named = recipe.only, [*rows, *more]
        self.rows = rows
        self.gate = None if only is None else compile_option("--only", only, named, blocks)
        self.sets = [(compile_option("--set", text, named, blocks), alpha) for text, alpha in recipe.sets]
        self.alpha = 1.0 if recipe.alpha is None else recipe.alpha
        self._by_default = (self.alpha, f"--alpha {self.alpha:g}")
        weights = _weights(recipe, blocks)
        self.note = None if weights is None else weights.note
        self._by_block = {} if weights is None else weights.by_block
        self.base = _base_alpha(recipe, weights)
        self._blocks = frozenset(blocks)
        self._weights = recipe.block_weights if isinstance(recipe.block_weights, str) else ""
        self._encoder = _text_encoder(recipe, rows)
        self._guided = _replayed(dict(recipe.alphas)) if recipe.alphas else None

    def follow(self, guidance: Guidance) -> None:
        """Let what a scan says take its place in the order."""
        self._guided = _guided(guidance)

    def of(self, row: Row) -> Decision:
        """The alpha of one key and the option that decided it."""
        decisive = self._decisive(row)
        if self.gate is not None and not self.lets_in(row):
            return 0.0, f"not in --only {self.gate.text}"
        if self.gate is None and decisive is None and not row.labels.counted:
            return 0.0, f"{row.labels.part} copies are merged only if named, as in --only part:ema"
        if decisive is not None:
            selector, alpha = self.sets[decisive]
            return alpha, f"--set {selector.text}={alpha:g}"
        if self._encoder is not None and _encodes_text(row):
            return self._encoder
        return self.guided(row)

    def guided(self, row: Row) -> Decision:
        """The alpha that a scan leaves a key, or without one what comes before."""
        plain = self._plain(row)
        return plain if self._guided is None else self._guided(row, plain)

    def lets_in(self, row: Row) -> bool:
        """Whether the gate is open for a key."""
        return self.gate is None or names(self.gate, row)

    def keeps_b(self, row: Row) -> bool:
        """Whether a key is to be B's whatever the method makes of alpha 1."""
        return self._encoder is not None and _encodes_text(row) and self._decisive(row) is None

    def idle_options(self, keys: Collection[str]) -> list[str]:
        """The options that decide no key of those that can be merged, as they are written."""
        if not self.sets and self._encoder is None:
            return []
        rows = [row for row in self.rows if row.key in keys and self.lets_in(row)]
        decisive = {self._decisive(row) for row in rows}
        texts = [selector.text for place, (selector, _) in enumerate(self.sets) if place not in decisive]
        idle = [f"--set {', '.join(texts)}"] if texts else []
        if self._encoder is not None and not any(
            _encodes_text(row) and self._decisive(row) is None for row in rows
        ):
            idle.append(self._encoder[1])
        return idle

    def _plain(self, row: Row) -> Decision:
        block = row.labels.block
        if block in self._by_block:
            alpha = self._by_block[block]
            return alpha, f"--block-weights {self._weights or block}={alpha:g}" + (
                f" at {block}" if self._weights else ""
            )
        if self.base is not None and block not in self._blocks:
            return self.base, f"base alpha {self.base:g}, outside all blocks"
        return self._by_default

    def _decisive(self, row: Row) -> int | None:
        """Which of `sets` has the last word on a key; None if none speaks of it."""
        if not self.sets:
            return None
        named = [place for place, (selector, _) in enumerate(self.sets) if names(selector, row)]
        return named[-1] if named else None


class Dtypes:
    """In which dtype a key is written: that of the last selection that names it, else the recipe's."""

    def __init__(self, recipe: Recipe, rows: Sequence[Row], blocks: Sequence[str]) -> None:
        self._default = DTYPES[recipe.dtype]
        self._selections = [
            (compile_option("--dtype", text, rows, blocks), DTYPES[name]) for text, name in recipe.dtypes
        ]

    def wanted(self, row: Row) -> str | None:
        """The name that a safetensors file has for it; None: the dtype that the key has."""
        if not self._selections and self._default not in _COARSE:
            return self._default
        named = [dtype for selector, dtype in self._selections if selector.hits(row)]
        if not named and self._default in _COARSE and row.labels.component in (SCHEDULE, MARKER):
            return None  # the WebUI loads alphas_cumprod from the file: in fp8 it would be another schedule
        return named[-1] if named else self._default


def compile_option(option: str, text: str, rows: Sequence[Row], blocks: Sequence[str]) -> Selector:
    """An option's selector; RecipeError if it hits no key that a merge may touch."""
    selector = compile_selector(text, rows=rows, blocks=blocks)
    if not any(names(selector, row) for row in rows):
        raise RecipeError(
            f"{option} {text} selects no key of A that may be merged (EMA copies only by name, as in "
            "part:ema): look at its categories with mergescope scan"
        )
    return selector


def names(selector: Selector, row: Row) -> bool:
    """Whether a selector means a key; EMA copies only where it names their part, not by a glob."""
    return selector.hits(row) and (row.labels.part != "ema" or "part" in selector.axes)


def _weights(recipe: Recipe, blocks: Sequence[str]) -> BlockAlphas | None:
    if recipe.block_weights is None:
        return None
    if not blocks:
        raise RecipeError("--block-weights: A has no numbered blocks; use --only and --set instead")
    return alphas_by_block(recipe.block_weights, blocks)


def _base_alpha(recipe: Recipe, weights: BlockAlphas | None) -> float | None:
    """The alpha of keys outside all blocks; None: --alpha's."""
    if recipe.base_alpha is not None or weights is None:
        return recipe.base_alpha
    return 0.0 if weights.base is None else weights.base


def _text_encoder(recipe: Recipe, rows: Sequence[Row]) -> Decision | None:
    if recipe.text_encoder is None:
        return None
    if not any(map(_encodes_text, rows)):
        raise RecipeError("--text-encoder: A holds no text encoder; leave the option out")
    return {"keep-a": 0.0, "keep-b": 1.0}[recipe.text_encoder], f"--text-encoder {recipe.text_encoder}"


def _encodes_text(row: Row) -> bool:
    return row.labels.part.startswith("text_encoder")


def _guided(guidance: Guidance) -> Guided:
    """What a scan makes of the alpha that a key would have."""

    def guided(row: Row, plain: Decision) -> Decision:
        key = row.key
        if guidance.chosen is not None and key not in guidance.chosen:
            return 0.0, f"not chosen by {guidance.choice}"
        if not guidance.alphas:
            return (plain[0], f"{plain[1]}, chosen by {guidance.choice}") if guidance.choice else plain
        if key not in guidance.alphas:
            return 0.0, "not in the scan"
        return guidance.alphas[key], guidance.reasons[key]

    return guided


def _replayed(chosen: Mapping[str, float]) -> Guided:
    """The same of a scan that is not at hand, as the recipe of its merge recorded it."""

    def guided(row: Row, plain: Decision) -> Decision:
        return (chosen[row.key], "as a scan chose") if row.key in chosen else plain

    return guided
