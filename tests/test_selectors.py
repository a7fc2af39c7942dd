"""Selectors against a slow oracle that reads the rules of the language row by row."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from time import process_time
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.errors import SelectorError
from analyzer.measures import Sums
from analyzer.records import KeyScan, Labels
from analyzer.selectors import compile_selector, select

Term: TypeAlias = tuple[bool, str, str]  # whether it excludes, its axis, its name
Terms: TypeAlias = list[Term]

BLOCKS = ("IN00", "IN01", "IN02", "IN03", "M00", "OUT00", "OUT01", "OUT02", "OUT03")  # IN03 holds no key


@dataclass(frozen=True, slots=True)
class Row:
    """A key as selectors see it, unlike a KeyScan without anything measured."""

    key: str
    labels: Labels


def _model() -> tuple[Row, ...]:
    """A small Stable Diffusion: every part, and one of each kind of key that counts in no total."""
    rows = []
    places = {"IN01": "input_blocks.1", "M00": "middle_block", "OUT02": "output_blocks.2"}
    for block, prefix in places.items():
        for path in ("attn1/to_q", "attn1/to_k", "attn2/to_k", "attn2/to_out", "ff/net", "norm1"):
            component = f"transformer_blocks/{path}"
            for kind in ("weight", "bias"):
                key = f"{prefix}.{component.replace('/', '.')}.{kind}"
                rows.append(Row(f"model.{key}", _labels("unet", block, component, kind)))
                if block == "IN01" and path == "attn2/to_k":
                    rows.append(
                        Row(f"model_ema.{key}", _labels("ema", block, component, kind, counted=False))
                    )
    rows += [
        Row("model.time_embed.0.weight", _labels("unet", "IN00", "time_embed", "weight")),
        Row("model.out.2.bias", _labels("unet", "OUT03", "out", "bias")),
        Row("model.label_emb", _labels("unet", "IN00", "label_emb", "other")),
        Row("cond.self_attn.q_proj.weight", _labels("text_encoder", "BASE", "self_attn/q_proj", "weight")),
        Row("cond.position_ids", _labels("text_encoder", "BASE", "position_ids", "other", counted=False)),
        Row("vae.Conv_In.weight", _labels("vae", "VAE", "encoder/Conv_In", "weight")),
        Row("vae.attn1.to_k.bias", _labels("vae", "VAE", "attn1/to_k", "bias")),
        Row("betas", _labels("other", "BASE", "schedule", "other", counted=False)),
        Row("v_pred", _labels("other", "BASE", "marker", "other", counted=False)),
        Row("logit_scale", _labels("other", "BASE", "logit_scale", "weight")),
    ]
    return tuple(rows)


def _labels(part: str, block: str, component: str, kind: str, *, counted: bool = True) -> Labels:
    return Labels(part, block, component, kind, component, counted)


MODEL = _model()


def keys(text: str, rows: Sequence[Row] = MODEL) -> set[str]:
    return {row.key for row in select(text, rows=rows, blocks=BLOCKS)}


def hit(text: str) -> set[str]:
    """Like `keys`, but nothing hit is no error."""
    selector = compile_selector(text, rows=MODEL, blocks=BLOCKS)
    return {row.key for row in MODEL if selector.hits(row)}


def where(**wanted: str) -> set[str]:
    """The counted keys whose labels are exactly so."""
    return {
        row.key
        for row in MODEL
        if row.labels.counted and all(getattr(row.labels, axis) == value for axis, value in wanted.items())
    }


def holding(*segments: str) -> set[str]:
    """The counted keys whose component has one of these segments."""
    return {r.key for r in MODEL if r.labels.counted and set(segments) & set(r.labels.component.split("/"))}


def message(text: str) -> str:
    with pytest.raises(SelectorError) as caught:
        select(text, rows=MODEL, blocks=BLOCKS)
    return str(caught.value)


def outcome(text: str) -> tuple[Row, ...] | str:
    """What a selector hits, or the message of its SelectorError."""
    try:
        return select(text, rows=MODEL, blocks=BLOCKS)
    except SelectorError as error:
        return str(error)


# The oracle. It takes terms with their axes, and repeats the rules literally.


def fits(row: Row, axis: str, name: str) -> bool:
    if axis == "key":
        return fnmatch.fnmatchcase(row.key, name)
    name = name.lower()
    if axis == "component":
        path, run = row.labels.component.lower().split("/"), name.split("/")
        return any(path[start : start + len(run)] == run for start in range(len(path)))
    if axis == "block" and ".." in name:
        first, last = (BLOCKS.index(end.upper()) for end in name.split(".."))
        return row.labels.block in BLOCKS[first : last + 1]
    return bool(getattr(row.labels, axis).lower() == name)


def oracle(terms: Terms) -> set[str]:
    chosen = [(axis, name) for excludes, axis, name in terms if not excludes]
    excluded = [(axis, name) for excludes, axis, name in terms if excludes]
    result = set()
    for row in MODEL:
        axes = {axis for axis, _ in chosen}
        fitting = {axis for axis, name in chosen if fits(row, axis, name)}
        if row.labels.counted:
            allowed = True
        elif row.labels.part == "ema":
            allowed = ("part" in fitting) or ("key" in fitting)
        else:
            by_part = "part" in fitting and row.labels.part == "other"
            allowed = by_part or bool(fitting & {"component", "kind", "key"})
        if allowed and axes == fitting and not any(fits(row, *term) for term in excluded):
            result.add(row.key)
    return result


def _capitals(text: str, seed: int) -> str:
    """Every letter in upper or lower case, as the bits of `seed` say."""
    return "".join(
        letter.upper() if seed >> place & 1 else letter.lower() for place, letter in enumerate(text)
    )


def _case(terms: Terms, seed: int) -> Terms:
    return [(sign, axis, name if axis == "key" else _capitals(name, seed)) for sign, axis, name in terms]


def write(terms: Terms, separator: str = ",") -> str:
    return separator.join(f"{'!' * excludes}{axis}:{name}" for excludes, axis, name in terms)


RANGES = tuple(f"{a}..{b}" for i, a in enumerate(BLOCKS) for b in BLOCKS[i:])
NAMES = {
    "part": ("unet", "text_encoder", "vae", "ema", "other"),
    "block": (*BLOCKS, "BASE", "VAE", *RANGES),
    "component": (
        "attn1",
        "attn2",
        "to_k",
        "attn2/to_k",
        "transformer_blocks/attn1",
        "schedule",
        "position_ids",
    ),
    "kind": ("weight", "bias", "other"),
    "key": ("*", "*attn1*", "model*bias", "model_ema.*", "betas", "*.to_[kq].*", "*.?.weight", "*[!t]s"),
}
terms = st.builds(
    lambda excludes, named: (excludes, *named),
    st.booleans(),
    st.sampled_from([(axis, name) for axis, names in NAMES.items() for name in names]),
)
term_lists = st.lists(terms, min_size=1, max_size=6)


@given(term_lists)
def test_a_selector_hits_what_its_rules_say(terms: Terms) -> None:
    """Union on an axis, intersection of axes, exclusion last, uncounted keys only by name."""
    assert oracle(terms) == hit(write(terms))


@given(term_lists, st.randoms(use_true_random=False), st.sampled_from([",", " ", ", ", "\n", ",,"]))
def test_order_and_separators_do_not_matter(terms: Terms, random: Random, separator: str) -> None:
    """Any order of the terms, however separated, is the same selector with the same canonical text."""
    shuffled = random.sample(terms, len(terms))
    expected = compile_selector(write(terms), rows=MODEL, blocks=BLOCKS)
    other = compile_selector(write(shuffled, separator), rows=MODEL, blocks=BLOCKS)
    assert expected.text == other.text
    assert hit(write(terms)) == hit(write(shuffled, separator))


@given(term_lists, st.integers(min_value=0, max_value=2**40))
def test_the_case_of_names_does_not_matter(terms: Terms, seed: int) -> None:
    """Names in any mixture of cases select the same rows; globs keep theirs."""
    assert hit(write(terms)) == hit(write(_case(terms, seed)))


@given(term_lists)
def test_the_canonical_text_is_the_same_selector(terms: Terms) -> None:
    """Parsing the canonical text again gives the same text and the same rows."""
    canonical = compile_selector(write(terms), rows=MODEL, blocks=BLOCKS).text
    assert canonical == compile_selector(canonical, rows=MODEL, blocks=BLOCKS).text
    assert hit(write(terms)) == hit(canonical)


@given(term_lists, terms)
def test_an_exclusion_is_a_difference_of_sets(selection: Terms, term: Term) -> None:
    """What `!term` takes away is exactly what `term` fits."""
    _, axis, name = term
    taken = {row.key for row in MODEL if fits(row, axis, name)}
    assert hit(write(selection)) - taken == hit(write([*selection, (True, axis, name)]))


@given(st.text(alphabet="atn12 ,!:./*?[]-_keyblocpartumdWVAEOther0IN\x00é\n", max_size=40))
def test_any_text_is_a_selector_or_a_selector_error(text: str) -> None:
    """No text raises anything but SelectorError, nor a message that could not be printed."""
    result = outcome(text)
    assert result.isprintable() if isinstance(result, str) else set() < set(result) <= set(MODEL)


@given(st.text(max_size=60))
def test_arbitrary_unicode_is_refused_politely(text: str) -> None:
    """Text that selects nothing selects no more beside a good term, or is a printable SelectorError."""
    alone, result = outcome(text), outcome(f"attn1,{text}")
    if isinstance(result, str):
        assert result.isprintable()
    elif isinstance(alone, str):  # else it is a selector by accident, such as conv_in
        assert holding("attn1") >= {row.key for row in result}


def test_axes_intersect_and_names_unite() -> None:
    """The contract's example: `attn1,attn2,weight` is the weights of attn1 and attn2."""
    assert holding("attn1", "attn2") & where(kind="weight") == keys("attn1,attn2,weight")


def test_exclusions_alone_start_from_everything_that_counts() -> None:
    """`!attn1` is all counted keys but those of attn1: no EMA copy, schedule or marker comes along."""
    assert where() - holding("attn1") == keys("!attn1")


@pytest.mark.parametrize("text", ["attn2/to_k", "ATTN2/TO_K", "component:attn2/to_k"])
def test_consecutive_segments_are_a_name(text: str) -> None:
    """A run of path segments selects the components that hold it, in any case."""
    expected = {key for key in where(part="unet") if ".attn2.to_k." in key}
    assert expected == keys(text)


@pytest.mark.parametrize(
    "text", ["attn", "to_", "transformer", "attn2/to", "ttn2/to_k", "transformer_blocks/to_k"]
)
def test_a_piece_of_a_name_is_not_the_name(text: str) -> None:
    """Names match whole, neighbouring segments, never substrings."""
    assert f"unknown selector term '{text}'" in message(text)


def test_a_range_runs_through_the_middle_block() -> None:
    """IN01..OUT02 includes both ends and the middle, in the network's order."""
    blocks = ("IN01", "M00", "OUT02")
    assert set.union(*(where(block=block) for block in blocks)) == keys("IN01..OUT02")
    assert where(block="M00") == keys("block:in02..out01")


def test_a_reversed_range_is_an_error_that_shows_the_right_order() -> None:
    """OUT01..IN01 is not silently empty."""
    assert "against the network's order: write 'IN01..OUT01'" in message("OUT01..IN01")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("CLIP", "text_encoder"),
        ("U-Net", "unet"),
        ("u-net", "unet"),
        ("UNet", "unet"),
        ("VAE", "vae"),
        ("vae", "vae"),
        ("part:clip", "text_encoder"),
        ("part:U-Net", "unet"),
    ],
)
def test_parts_have_the_names_that_people_use(text: str, part: str) -> None:
    """CLIP, U-Net and VAE stand for parts, though VAE is also a block."""
    assert where(part=part) == keys(text)


def test_other_with_a_capital_is_the_part_and_ambiguous_else() -> None:
    """`Other` is the name of a part; `other` stands on two axes, and the error shows both forms."""
    assert {"betas", "v_pred", "logit_scale"} == keys("Other")
    assert "write 'part:other' or 'kind:other'" in message("other")
    assert "write '!part:other' or '!kind:other'" in message("!other")


def test_ema_copies_are_hit_by_part_or_key_only() -> None:
    """An EMA copy shares its component with what it copies, and stays out unless it is named."""
    ema = {row.key for row in MODEL if row.labels.part == "ema"}
    assert not ema & (keys("attn2") | keys("IN01") | keys("component:to_k,weight") | keys("!VAE"))
    assert ema == keys("ema") == keys("key:model_ema.*") == keys("ema,attn2")


@pytest.mark.parametrize("text", ["schedule", "key:betas", "component:schedule", "kind:other,schedule"])
def test_what_is_not_merged_can_be_named(text: str) -> None:
    """A schedule is hit by its component or key."""
    assert {"betas"} == keys(text)


@pytest.mark.parametrize("text", ["CLIP", "BASE", "text_encoder,BASE", "!attn1"])
def test_uncounted_keys_are_not_hit_in_passing(text: str) -> None:
    """Integers in a part or block that is chosen as a whole stay out."""
    uncounted = {row.key for row in MODEL if not row.labels.counted}
    assert set() == keys(text) & uncounted


def test_the_kind_other_brings_in_what_is_stored_beside_the_weights() -> None:
    """Buffers, tables, markers and integers are asked for by their kind."""
    assert {"model.label_emb", "cond.position_ids", "betas", "v_pred"} == keys("kind:other")


def test_names_in_capitals_are_found_in_any_case() -> None:
    """The model's own spelling does not matter either."""
    assert {"vae.Conv_In.weight"} == keys("conv_in") == keys("ENCODER/CONV_IN")


def test_globs_fit_the_whole_raw_key_and_its_case() -> None:
    """`*`, `?` and `[…]` on the raw key, as in a shell; a glob is a name on an axis of its own."""
    assert {"model.out.2.bias"} == keys("key:model.out.?.bias")
    assert {"vae.Conv_In.weight"} == keys("key:*.[A-Z]*,weight")
    assert {"betas"} == keys("key:b*")
    assert "no key matches" in message("key:out")
    assert "no key matches" in message("key:*conv_in*")


def test_a_block_of_the_network_without_keys_is_known() -> None:
    """IN03 is a block, though this model was pruned there: it hits nothing, alone it is an error."""
    assert keys("IN01") == keys("IN01,IN03")
    assert "'IN03' hits none of the" in message("IN03")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("time_embed,bias", "each of the axes component, kind"),
        ("attn1,!attn1", "exclusions"),
        ("IN03", "no key in them"),
    ],
)
def test_a_selection_that_hits_nothing_says_why(text: str, hint: str) -> None:
    """Known names whose combination is empty are an error that tells what to change."""
    assert hint in message(text)


@pytest.mark.parametrize(
    ("text", "way_out"),
    [
        ("atn2", "nearest are attn2, attn1"),
        ("UOT02", "OUT02"),
        ("!wieght", "nearest are weight"),
        ("atn2/to_k", "nearest are attn2/to_k, attn1/to_k"),
        ("conv_im", "Conv_In"),
        ("zzzzzz", "the parts are ema, other, text_encoder, unet, vae; the blocks are IN00, IN01"),
        ("kind:qqqq", "the kinds are bias, other, weight"),
        ("kind:wieght", "nearest are weight"),
        ("kind:attn2", "it is a component here, write 'component:attn2'"),
        ("betas", "write 'key:betas'"),
        ("attn*", "write 'key:*attn*'"),
        ("key:model.out.2.bais", "model.out.2.bias"),
        ("foo:attn2", "the axes are part, block, component, kind and key"),
        ("", "the selector is empty"),
        (" , ", "the selector is empty"),
        ("attn1,component:", "as in 'component:NAME'"),
        ("! attn1", "as in '!NAME'"),
        ("IN00..", "write FIRST..LAST"),
        ("..OUT02", "write FIRST..LAST"),
        ("IN00..M00..OUT02", "write FIRST..LAST"),
        ("IN00..OUT99", "unknown block 'OUT99'"),
        ("BASE..OUT02", "write it as a term of its own"),
        ("component:attn1..attn2", "only blocks have an order"),
    ],
)
def test_a_wrong_term_is_refused_with_the_way_out(text: str, way_out: str) -> None:
    """Unknown, malformed and empty terms each tell what to write instead."""
    assert way_out in message(text)


def test_names_from_a_hostile_file_are_escaped_in_messages() -> None:
    """A key name with a terminal escape cannot reach the terminal through an error."""
    row = Row("k", _labels("unet", "IN00", "\x1b[31mattn", "weight"))
    with pytest.raises(SelectorError) as caught:
        select("attm", rows=[row], blocks=BLOCKS)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("WEIGHT, Attn2 attn1", "attn1,attn2,weight"),
        ("component:attn2", "attn2"),
        ("!out02 Vae", "vae,!OUT02"),
        ("block:vae", "block:VAE"),
        ("Other", "part:other"),
        ("clip", "text_encoder"),
        ("encoder/conv_in", "encoder/Conv_In"),
        ("in01..out02", "IN01..OUT02"),
        ("attn1,attn1", "attn1"),
    ],
)
def test_the_canonical_text_is_the_shortest_in_the_models_spelling(text: str, canonical: str) -> None:
    """An axis stands only where the bare name would not do."""
    assert canonical == compile_selector(text, rows=MODEL, blocks=BLOCKS).text


def test_select_keeps_rows_and_their_order() -> None:
    """The rows of a scan come back as they are, in the order of the file."""
    rows = [KeyScan(row.key, row.key, (1,), "F16", "F16", row.labels, Sums()) for row in reversed(MODEL)]
    expected = tuple(row for row in rows if row.labels.counted and row.labels.part == "vae")
    assert expected == select("VAE", rows=rows, blocks=BLOCKS)


def test_a_selector_speaks_about_rows_that_it_was_not_compiled_with() -> None:
    """A key of the other model is judged by its labels too."""
    selector = compile_selector("attn1,weight", rows=MODEL, blocks=BLOCKS)
    stranger = Row("new", _labels("unet", "IN02", "adapter/attn1/lora", "weight"))
    assert selector.hits(stranger)


def test_a_hundred_thousand_rows_take_a_moment() -> None:
    """Compiled once and matched fast: a mixture of experts has this many keys."""
    rows = [
        Row(f"layers.{i % 64}.experts.{i}.weight", _labels("unet", "M00", f"experts/{i % 512}/w", "weight"))
        for i in range(100_000)
    ]
    start = process_time()
    found = select("experts/7,weight,!key:*.63.*", rows=rows, blocks=BLOCKS)
    elapsed = process_time() - start
    assert sum(i % 512 == 7 for i in range(100_000)) == len(found)
    assert elapsed < 5  # about 0.5 s on one slow core


@pytest.mark.parametrize("form", ["{}", "!{}", "part:{}", "key:{}", "OUT00..{}", "attn2/{}"])
def test_messages_stay_short(form: str) -> None:
    """A term longer than any key is refused by its length; shorter ones are repeated as they are."""
    assert message(form.format("a" * 5000)).endswith("characters; 400 are the limit")
    assert "a" * 380 in message(form.format("a" * 380))
    for length in (380, 5000):
        assert len(message(form.format("a" * length))) < 2000
    assert len(message(",".join(["VAE", *(f"OUT0{n % 3}" for n in range(3)), "attn2", "!bias"] * 200))) < 600


@pytest.mark.parametrize(
    ("text", "hits"),
    [
        ("attn", {"h.0.attn.c_attn.weight"}),
        ("qkv", {"blocks.0.attn.qkv.weight"}),
        ("kind:other,attn", {"h.0.attn.bias", "blocks.0.attn.qkv.scale_weight"}),
        ("key:*.bias", {"h.0.attn.bias"}),
        ("position_ids", {"embeddings.position_ids"}),
        ("embeddings", {"embeddings.word.weight"}),
        ("embeddings/position_ids", {"embeddings.position_ids"}),
    ],
)
def test_a_layers_name_does_not_mean_its_masks_and_scales(text: str, hits: set[str]) -> None:
    """What counts in no total is named itself: GPT-2's causal mask and fp8's scales only lie in a layer."""
    rows = [
        Row("h.0.attn.c_attn.weight", _labels("transformer", "L00", "attn/c_attn", "weight")),
        Row("h.0.attn.bias", _labels("transformer", "L00", "attn", "other", counted=False)),
        Row("blocks.0.attn.qkv.weight", _labels("transformer", "L00", "mixer/qkv", "weight")),
        Row(
            "blocks.0.attn.qkv.scale_weight",
            _labels("transformer", "L00", "attn/qkv", "other", counted=False),
        ),
        Row("embeddings.word.weight", _labels("transformer", "BASE", "embeddings/word", "weight")),
        Row(
            "embeddings.position_ids",
            _labels("transformer", "BASE", "embeddings/position_ids", "other", counted=False),
        ),
    ]
    assert hits == {row.key for row in select(text, rows=rows, blocks=["L00"])}


def test_a_misspelt_long_name_among_many_is_compared_with_few() -> None:
    """Comparing all of them would take minutes; its neighbours by the alphabet are enough."""
    random = Random(1)
    names = ["".join(random.choices("ab", k=150)) for _ in range(20_000)]
    rows = [Row(name, _labels("unet", "BASE", name, "weight")) for name in names]
    for prefix in ("", "key:"):
        with pytest.raises(SelectorError) as caught:
            compile_selector(f"{prefix}{names[7][:-1]}c", rows=rows, blocks=())
        assert names[7][:100] in str(caught.value)
