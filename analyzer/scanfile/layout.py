"""What the writer and the reader of scan files agree on."""

import re

FORMAT = "mergescope.scan"
VERSION = 1
TASK = "task_"  # before the name of a field of `TaskSums`
LARGEST_COUNT = 2**53  # beyond it JSON numbers stop being exact
LARGEST_TENSOR = 2**40  # elements of a key: what millions of keys count together is within 64 bits
SIGNED = frozenset({"sum_a", "sum_b", "sum_ab", "dot_a"})  # all other sums are at least 0
LOWEST_COSINE = -1.0


# What selectors are written with (`..`, commas, spaces) stands in no name of a part or component.
_WORD = re.compile(r"[A-Za-z0-9_-]+")
_PATH = re.compile(rf"{_WORD.pattern}(/{_WORD.pattern})*")


def is_part(text: str) -> bool:
    """Whether it is a word: only then it selects its keys."""
    return _WORD.fullmatch(text) is not None


def leads(group: str, component: str) -> bool:
    """Whether a component is a path of words, and its group the first of these: only then they select it."""
    path = _PATH.fullmatch(component) is not None
    return path and bool(group) and f"{component}/".startswith(f"{group}/")
