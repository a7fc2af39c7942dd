"""Strategies for bytes and texts that were something sensible once."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from hypothesis import strategies as st

_EDIT = st.tuples(
    st.integers(0, 9999),  # of ten thousand parts of the whole
    st.sampled_from([0, 1, 1, 2, 4, 8, 64]),
    st.one_of(
        st.binary(max_size=8),
        st.sampled_from([b"\xff" * 8, bytes(8), b"\0\0\0\0\0\0\0\x80", b'"', b"{", b"]"]),
    ),
)
# What stands where something else is expected. Texts are put in as they are, so that they need not be JSON.
_ODD = (
    *("0", "-1", "1.5", "1e999", "-0", "true", "null", "NaN", "Infinity", '""', "[]", "{}", "[[]]"),
    *(str(2**31), str(2**63 - 1), str(2**63), str(2**64), "9" * 400, "9" * 5000, "[0,0,0]"),
    *("[" * 200_000, '{"a":' * 5000, '"\\ud800"', '"\\u0000"', '"a\\nb"', '"' + "x" * 5000 + '"'),
    *('"F32"', '"F4"', '"BF16"', '"F8_E4M3"', '"U8"'),
    *("[9223372036854775807,2]", "[0,9223372036854775807]", "[1,0]", "[0,0]", "[4294967296,4294967296]"),
    *('{"dtype":"F32","shape":[],"data_offsets":[0,4]}', "[" + "1," * 70 + "1]"),
)  # fmt: skip

NAMES = (
    *(
        "..",
        "../outside/m.safetensors",
        "/etc/passwd",
        "a/../../b",
        "a\\b.safetensors",
        "C:\\x",
        "CON",
        "a\0b",
    ),
    *(
        "\u202e",
        "\ud800",
        "m\u0301",
        "",
        " ",
        ".",
        "./x",
        "a//b",
        "~",
        "%00",
        "x" * 300,
        "é" * 130,
        "a:b",
        "*",
    ),
    *(
        "sub/m.safetensors",
        "m-00001-of-00002.safetensors",
        "m-00002-of-00002.safetensors",
        "none.safetensors",
    ),
)


def edited(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes with some replaced, put in or taken out, or cut off."""
    for place, removed, added in draw(st.lists(_EDIT, min_size=1, max_size=4)):
        at = place * len(content) // 10_000
        content = content[:at] + added + content[at + removed :]
    if draw(st.sampled_from([*[False] * 9, True])):
        content = content[: draw(st.integers(0, 9999)) * len(content) // 10_000]
    return content


def edited_json(draw: st.DrawFn, value: object) -> str:
    """The value as JSON, with something odd in a few places."""
    document = json.dumps(value)
    places = [i for i, sign in enumerate(document) if sign in "[{:,"]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.sampled_from(places)) + 1
        end = next((i for i in range(at, len(document)) if document[i] in ",]}"), at)
        odd = draw(st.one_of(st.sampled_from(_ODD), st.text(max_size=6).map(json.dumps)))
        separator = "," if draw(st.booleans()) else ""
        document = document[:at] + odd + (separator + document[at:] if separator else document[end:])
    return document


ANY_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=12), inner, max_size=5)
    ),
    max_leaves=20,
)


def edited_text(draw: st.DrawFn, content: str, words: Sequence[str]) -> str:
    """The text with paragraphs doubled, taken out or swapped, and words where others stood."""
    for _ in range(draw(st.integers(1, 3))):
        what = draw(st.sampled_from(["double", "remove", "swap", "line", *["quoted"] * 5]))
        if what == "quoted":
            content = _requoted(draw, content, words)
            continue
        separator = "\n" if what == "line" else "\n\n"
        pieces = content.split(separator)
        at = draw(st.integers(0, len(pieces) - 1))
        if what == "double":
            pieces.insert(at, pieces[at])
        elif what == "remove":
            del pieces[at]
        elif what == "swap":
            pieces[at : at + 2] = reversed(pieces[at : at + 2])
        else:
            place = draw(st.integers(0, len(pieces[at])))
            pieces[at] = pieces[at][:place] + draw(st.sampled_from(words)) + pieces[at][place:]
        content = separator.join(pieces)
    return content


def _requoted(draw: st.DrawFn, content: str, words: Sequence[str]) -> str:
    """One of the quoted texts, changed within its quotes."""
    quoted = list(re.finditer(r'"([^"\n]*)"', content))
    if not quoted:
        return content
    found = draw(st.sampled_from(quoted))
    word = draw(st.one_of(st.sampled_from(words), st.text(max_size=4)))
    inside = draw(st.sampled_from([word, f"{found[1]}.{word}", f"{word}.{found[1]}", found[1] + word]))
    return f"{content[: found.start(1)]}{inside}{content[found.end(1) :]}"
