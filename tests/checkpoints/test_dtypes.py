"""The dtype table, against the libraries that write these types."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors
import torch

from analyzer.checkpoints.dtypes import BY_TORCH_NAME, DTYPES, PACKED
from analyzer.kernels.formats import FLOATS


def known_to_the_library() -> set[str]:
    """The names that the safetensors library lists when it meets one that it does not know."""
    header = b'{"a":{"dtype":"?","shape":[0],"data_offsets":[0,0]}}'
    with pytest.raises(safetensors.SafetensorError, match="unknown variant") as caught:
        safetensors.deserialize(len(header).to_bytes(8, "little") + header)
    listed = str(caught.value).partition("expected one of")[2].partition(" at line")[0]
    return {name.strip(" `") for name in listed.split(",")}


def test_every_name_of_the_library_is_known() -> None:
    """A dtype of safetensors either has a row or is refused as packed; none is forgotten."""
    assert known_to_the_library() <= set(DTYPES) | PACKED


@pytest.mark.parametrize("name", DTYPES)
def test_itemsize_and_kind_agree_with_torch(name: str) -> None:
    """The size of an element, and whether it is real floating point, are what torch says."""
    if not hasattr(torch, DTYPES[name].torch):
        pytest.skip("newer than this torch")
    dtype = getattr(torch, DTYPES[name].torch)
    assert (dtype.itemsize, dtype.is_floating_point) == (DTYPES[name].itemsize, DTYPES[name].floating)


@pytest.mark.parametrize("name", DTYPES)
def test_raw_view_keeps_the_size(name: str) -> None:
    """The numpy dtype for raw bits has the size of the element."""
    assert DTYPES[name].itemsize == np.dtype(DTYPES[name].raw).itemsize


def test_torch_names_lead_back() -> None:
    """No two dtypes share a torch name."""
    assert list(DTYPES) == [BY_TORCH_NAME[dtype.torch] for dtype in DTYPES.values()]


@pytest.mark.parametrize("name", FLOATS)
def test_float_formats_have_a_row(name: str) -> None:
    """Every format that the kernels compute with is stored in as many bits as they read."""
    assert (FLOATS[name].bits, True) == (8 * DTYPES[name].itemsize, DTYPES[name].floating)
