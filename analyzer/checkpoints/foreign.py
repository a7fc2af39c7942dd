"""Files that are named or downloaded as models and are none: what each is, and the way out."""

from __future__ import annotations

import codecs
from collections.abc import Mapping

# How such a file starts -> what it is.
_SIGNATURES: Mapping[bytes, str] = {
    b"version https://git-lfs.github.com/spec/": (
        "is a Git LFS pointer and not the model itself; run `git lfs pull`, or download the file "
        "from its page"
    ),
    b"\x89HDF": "is an HDF5 file, which this version does not read; convert it to safetensors",
    b"\x93NUMPY": "is a NumPy array, not a model; convert it to safetensors",
    b"PK\x05\x06": "is an empty zip archive; download it again",
    b"\x1f\x8b": "is a gzip archive; unpack it first",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive; unpack it first",
    b"Rar!": "is a RAR archive; unpack it first",
}
_WEB_PAGES = (b"<!doctype", b"<html", b"<?xml")


def describe_foreign(head: bytes) -> str | None:
    """What the file is that starts with these bytes, as the rest of a sentence; None if that is unclear."""
    for signature, sentence in _SIGNATURES.items():
        if head.startswith(signature):
            return sentence
    if head.lstrip().lower().startswith(_WEB_PAGES):
        return (
            "is a web page and not a model: the download failed or needs a login; "
            "download it again, with a browser that is logged in"
        )
    if _is_text(head):
        return "is a text file and not a model; check what was saved under this name"
    return None


def _is_text(head: bytes) -> bool:
    try:
        # Not final: the end of the sample may cut a character in two.
        text = codecs.getincrementaldecoder("utf-8")().decode(head, final=False)
    except UnicodeDecodeError:
        return False
    return text != "" and all(c.isprintable() or c.isspace() for c in text)
