"""The record that a translation consists of. Knows nothing else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Facet:
    """A run of rows of one tensor, under the name that it has in every layout.

    `name` is canonical inside its network: the diffusers name ("transformer_blocks.0.attn.to_q.weight"),
    followed by `#` and the word where no layout stores these rows as a tensor of their own.
    """

    name: str
    word: str = (
        ""  # what the run is called inside a fused tensor: "q", "k", "v", "mlp"; "" for a whole tensor
    )
    first: int = 0  # the rows are first/of … last/of of the tensor's first axis
    last: int = 1
    of: int = 1
    transposed: bool = False  # the tensor is stored as the transpose of the canonical matrix
