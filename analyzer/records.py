"""The plain values that pass between stages. Knows no files, no torch, no formulas.

Every record is frozen: a stage takes records and returns new ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from analyzer.measures import Sums


@dataclass(frozen=True, slots=True)
class View:
    """Which elements of a row-major matrix in its source a tensor consists of, and in which order.

    The tensor's elements are the first `columns` of every stored row of `stride` elements, row by row;
    if `transposed`, the first `columns` elements of every stored row, column by column.
    """

    columns: int
    stride: int
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as its file's header describes it; its values stay on the disk.

    `dtype`, `shape`, `offset` and `nbytes` are those of the elements that a reader gets. Where the file
    holds them in another encoding (GGUF's blocks, scaled fp8), `encoded` says what lies in the file.
    """

    key: str
    dtype: str  # the safetensors name: "F16", "BF16", "F8_E4M3", "I64", "BOOL" …
    shape: tuple[int, ...]  # () for a scalar
    offset: int  # bytes from the start of its source, where the first element lies
    nbytes: int
    source: int = 0  # index into the checkpoint's sources (files, or blocks of memory)
    part: str = ""  # the sub-model of a diffusers folder that holds it; the key begins with it and a dot
    encoded: TensorInfo | None = None  # as the file holds it, if `dtype` is not what is stored
    view: View | None = None  # None: the elements lie one after the other

    @property
    def numel(self) -> int:
        """Number of elements; 1 for a scalar, 0 for an empty marker."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of one element as read; 1 where there is none."""
        return self.nbytes // self.numel if self.numel else 1

    @property
    def storage(self) -> str:
        """The name of the type that the file holds: `dtype`, or the encoding's ("Q4_K", "F8_E4M3")."""
        return self.encoded.dtype if self.encoded else self.dtype


@dataclass(frozen=True, slots=True)
class Run:
    """Elements that lie together on both sides: a whole pair, or rows of a fused tensor."""

    a: TensorInfo
    b: TensorInfo  # as many elements as `a`, in the same order
    start: int = 0  # of the first one among all elements of A's tensor
    word: str = ""  # what the rows are inside a fused tensor: "q", "k", "v"; "" for a whole tensor


@dataclass(frozen=True, slots=True)
class Pair:
    """Two tensors that stand for the same weights, or one and the several that it is split into."""

    a: TensorInfo  # A's tensor; of one that is compared in part, that part
    b: TensorInfo  # B's, seen in A's shape; the first of several
    runs: tuple[Run, ...] = ()  # what to compare with what, if that is more than `a` with `b`
    partial: bool = False  # only the common rows or channels are compared

    @property
    def parts(self) -> tuple[Run, ...]:
        """All runs, in the order of A's elements."""
        return self.runs or (Run(self.a, self.b),)

    @property
    def key_b(self) -> str:
        """B's raw name; of several, all of them with " + " between."""
        if not self.runs:  # nearly all
            return self.b.key
        return " + ".join(dict.fromkeys(run.b.key for run in self.runs))


@dataclass(frozen=True, slots=True)
class ShapeMismatch:
    """A key that both models have, with shapes that cannot be compared element by element."""

    key: str
    shape_a: tuple[int, ...]
    shape_b: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pairing:
    """What two models have in common, in A's header order, and what they have not."""

    pairs: tuple[Pair, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    shape_mismatch: tuple[ShapeMismatch, ...]
    notes: tuple[str, ...] = ()  # how keys found each other, where it was not by name


@dataclass(frozen=True, slots=True)
class Labels:
    """Where one key stands on the four axes."""

    part: str  # "unet", "text_encoder", "vae", "transformer", "ema", "other" …
    block: str  # "IN00", "M00", "OUT11", "L07", "ENC00", "VAE", "BASE" …
    component: str  # a path, coarse to fine: "transformer_blocks/attn2/to_k"
    kind: str  # "weight", "bias" or "other"
    group: str  # the leading part of `component` at which rankings group: "transformer_blocks/attn2"
    counted: bool = True  # False: EMA copy, schedule, marker, integer; in no total unless named


@dataclass(frozen=True, slots=True)
class Network:
    """One of the networks that a model file holds: a U-Net, a text encoder, a language model."""

    part: str
    architecture: str
    title: str
    names: Mapping[str, str]  # raw key -> its name inside the network
    copies: Mapping[str, str]  # raw key of an EMA copy -> the name inside the network of what it copies
    known: int = 0  # how many of both names the architecture's rules know


@dataclass(frozen=True, slots=True)
class Categorized:
    """The labels of every key of one model."""

    architecture: str  # of the main network: "sd1", "generic" …
    title: str  # "Stable Diffusion 1.x", for people
    blocks: tuple[str, ...]  # the blocks that block weights address, in network order
    labels: Mapping[str, Labels]  # by raw key
    networks: tuple[Network, ...] = ()  # the main one first


@dataclass(frozen=True, slots=True)
class RowCosines:
    """The cosines between the rows of two matrices (out × rest), those rows left out that have none."""

    minimum: float
    p05: float  # the 5th percentile, between neighbours interpolated linearly
    median: float


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The singular values σ of a change, seen as a matrix (out × rest), in few numbers. Does not add."""

    stable_rank: float  # Σσ² / max σ²
    rank_90: int | None  # the fewest singular values that hold 90 % of Σσ²; None above a cap
    top_singular_share: float  # max σ² / Σσ²
    lora_rank: int | None  # of this rank, but for rounding; None if it does not look like a LoRA


@dataclass(frozen=True, slots=True)
class KeyScan:
    """One paired tensor: its names, its place on the axes, and what was measured of it."""

    key: str  # A's raw name
    key_b: str
    shape: tuple[int, ...]
    dtype_a: str  # as stored: "F16", "Q4_K"
    dtype_b: str
    labels: Labels
    sums: Sums
    slice: tuple[int, ...] | None = None  # the shape that was compared, if that is less than A's tensor
    rows: tuple[int, int] | None = None  # of a virtual row: which rows of A's fused tensor, first and end
    # None: fewer than two axes, rows of one element, more than 2^20 rows, or no row with a direction
    row_cosines: RowCosines | None = None
    spectrum: Spectrum | None = None  # None: not asked for, fewer than two axes, or nothing changed


@dataclass(frozen=True, slots=True)
class ModelId:
    """Which file was measured. The fingerprint depends on its content, not on path or time."""

    path: str
    bytes: int
    fingerprint: str  # "sha256:…"
    architecture: str
    title: str = ""
    keys: int = 0
    dtypes: Mapping[str, int] | None = None  # dtype -> elements
    sha256: str | Mapping[str, str] | None = None  # of the file, or of each in a folder; None: not asked for


@dataclass(frozen=True, slots=True)
class Scan:
    """All that a scan found; the only thing that crosses from `analyzer` to `reports`."""

    tool: str  # "mergescope 0.1.0"
    created: str  # ISO 8601, UTC
    a: ModelId
    b: ModelId
    blocks: tuple[str, ...]  # in network order
    keys: tuple[KeyScan, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    shape_mismatch: tuple[ShapeMismatch, ...]
    virtual: tuple[KeyScan, ...] = ()  # rows of fused tensors; their sums are part of those in `keys`
    notes: tuple[str, ...] = ()  # what was odd about the files or the pairing, one sentence each
    base: ModelId | None = None  # the third model, from which A and B were both trained on
    with_spectrum: bool = False  # whether spectra were asked for


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about a scan, the number that supports it, and what to select to act on it."""

    text: str
    statistic: str  # a name of `analyzer.statistics`, or "count"
    value: float | None
    selector: str  # "" where there is nothing to select


@dataclass(frozen=True, slots=True)
class Action:
    """What a merge does with one key, and why."""

    key: str
    verb: str  # "keep", "cast", "merge", "take", "reset", "add", "bake"
    alpha: float | None  # None where no arithmetic is in question
    reason: str
    dtype: str  # of the output
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Partners:
    """What further models have for A's tensors, by A's key: whole ones, of A's shape."""

    base: Mapping[str, Pair] | None = None  # None: no base was given
    models: tuple[Mapping[str, Pair], ...] = ()  # the further models, in their order
    vae: Mapping[str, Pair] | None = None  # the file whose VAE replaces A's


@dataclass(frozen=True, slots=True)
class Plan:
    """One action for every key of the output, in A's header order, and what to tell the user."""

    actions: tuple[Action, ...]
    only_in_a: tuple[str, ...]  # keys, kept as they are
    shape_mismatch: tuple[str, ...]  # keys, kept as they are
    dropped: tuple[str, ...]  # keys that only B has and the output has not
    warnings: tuple[str, ...]
    metadata: Mapping[str, str]  # A's, without what the merge makes false
    recipe: Mapping[str, Any]  # the options as they were resolved, nothing left to a default
    pairs: Mapping[str, Pair]  # by A's key: what of B a key is merged with
    partners: Partners = Partners()  # what of the further models
    pruned: tuple[str, ...] = ()  # keys of A that the output has not, as asked
    plain: frozenset[str] = frozenset()  # weights that A holds quantized and that get plain values
    labels: Mapping[str, Labels] = field(default_factory=dict)  # by key of the output, and those pruned
    blocks: tuple[str, ...] = ()  # A's, in network order
