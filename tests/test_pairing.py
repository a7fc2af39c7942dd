"""Keys in common, keys of one side, shapes that differ: nothing is lost and nothing is invented."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.errors import PairingError
from analyzer.pairing import Side, pair
from analyzer.records import Network, Pair, Pairing, ShapeMismatch, TensorInfo

Shape = tuple[int, ...]
NAMES = ("a.safetensors", "b.ckpt")


def infos(shapes: dict[str, Shape], dtype: str = "F16") -> dict[str, TensorInfo]:
    """A model of these shapes."""
    return {key: TensorInfo(key, dtype, shape, 0, 2 * math.prod(shape)) for key, shape in shapes.items()}


def test_keys_pair_in_the_order_of_a() -> None:
    """Both sides of a pair come with their own dtype; B's order shows only in what B alone has."""
    a = infos({"z": (2, 3), "only.a": (1,), "m": (4,), "s": ()})
    b = infos({"s": (), "y": (7,), "m": (4,), "only.b": (), "z": (2, 3)}, dtype="BF16")
    expected = Pairing(
        pairs=tuple(Pair(a[key], b[key]) for key in ("z", "m", "s")),
        only_in_a=("only.a",),
        only_in_b=("y", "only.b"),
        shape_mismatch=(),
    )
    assert expected == pair(Side(a, NAMES[0]), Side(b, NAMES[1]))


@pytest.mark.parametrize(
    ("shape_a", "shape_b"), [((4, 9, 3, 3), (4, 4, 3, 3)), ((6,), (2, 3)), ((1,), ()), ((0,), (1,))]
)
def test_other_shapes_are_listed_not_compared(shape_a: Shape, shape_b: Shape) -> None:
    """An inpainting model's first convolution; and equal counts of elements are not equal shapes."""
    a, b = infos({"conv": shape_a, "x": (2,)}), infos({"conv": shape_b, "x": (2,)})
    pairing = pair(Side(a, NAMES[0]), Side(b, NAMES[1]))
    assert (ShapeMismatch("conv", shape_a, shape_b),) == pairing.shape_mismatch
    assert ["x"] == [p.a.key for p in pairing.pairs]
    assert ((), ()) == (pairing.only_in_a, pairing.only_in_b)


def test_a_common_key_of_another_shape_is_enough() -> None:
    """Two models that share keys and no shape are related: no error, and nothing to measure."""
    pairing = pair(Side(infos({"x": (2,)}), "a"), Side(infos({"x": (3,)}), "b"))
    assert ((), (ShapeMismatch("x", (2,), (3,)),)) == (pairing.pairs, pairing.shape_mismatch)


@pytest.mark.parametrize("names_b", [["model.y", "z"], []])
def test_nothing_in_common_is_an_error(names_b: list[str]) -> None:
    """It names both models and shows a key of each, so that a reader sees two layouts or two models."""
    a, b = infos({"model.x": (2,)}), infos(dict.fromkeys(names_b, (2,)))
    with pytest.raises(PairingError) as caught:
        pair(Side(a, NAMES[0]), Side(b, NAMES[1]))
    for word in ("a.safetensors", "b.ckpt", "'model.x'", "'model.y'" if names_b else "no keys", "in common"):
        assert word in str(caught.value)


_models = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from([(), (1,), (2, 2), (4,)]))


@given(shapes_a=_models, shapes_b=_models)
def test_every_key_is_in_exactly_one_place(shapes_a: dict[str, Shape], shapes_b: dict[str, Shape]) -> None:
    """Set algebra on the names is the oracle; each side's order is kept everywhere."""
    a, b = infos(shapes_a), infos(shapes_b)
    if not set(a) & set(b):
        with pytest.raises(PairingError):
            pair(Side(a, NAMES[0]), Side(b, NAMES[1]))
        return
    result = pair(Side(a, NAMES[0]), Side(b, NAMES[1]))
    paired = [p.a.key for p in result.pairs]
    differing = [mismatch.key for mismatch in result.shape_mismatch]
    assert set(a) - set(b) == set(result.only_in_a)
    assert set(b) - set(a) == set(result.only_in_b)
    assert sorted(set(a) & set(b)) == sorted(paired + differing)
    assert {key for key in set(a) & set(b) if shapes_a[key] == shapes_b[key]} == set(paired)
    assert all((p.a, p.b) == (a[p.a.key], b[p.a.key]) for p in result.pairs)
    for keys, order in ((paired, a), (differing, a), (result.only_in_a, a), (result.only_in_b, b)):
        assert [key for key in order if key in keys] == list(keys)


def network(prefix: str, names: list[str]) -> Network:
    """A network of an architecture that nobody knows, behind a prefix."""
    return Network("other", "generic", "", {f"{prefix}.{name}": name for name in names}, {})


def test_a_network_goes_with_what_has_its_shapes() -> None:
    """Eight tensors that are alike tell more than ten by the same names of which six are alike."""
    names = [f"t{n}.weight" for n in range(10)]
    a = infos({f"one.{name}": (4, 4) for name in names})
    named: dict[str, Shape] = {f"x.{name}": (4, 4) if n < 6 else (5, 5) for n, name in enumerate(names)}
    shaped: dict[str, Shape] = {f"y.{name}": (4, 4) for name in names[:8]}
    b = infos(named | shaped)
    twos = [network("x", names), network("y", names[:8])]
    for networks in (twos, twos[::-1]):
        pairing = pair(Side(a, "a", [network("one", names)]), Side(b, "b", networks))
        assert list(shaped) == [found.key_b for found in pairing.pairs]


def test_words_before_a_name_are_not_without_end() -> None:
    """A name of 400,000 words for a base model is looked at once, not once for every word."""
    deep = "bert." * 400_000 + "weight"
    one, two = (Side(infos({f"{p}.{deep}": (2,)}), p, [network(p, [deep])]) for p in ("a", "b"))
    assert 1 == len(pair(one, two).pairs)
