"""What the writer and the reader of scan files agree on."""

FORMAT = "mergescope.scan"
VERSION = 1
TASK = "task_"  # before the name of a field of `TaskSums`
LARGEST_COUNT = 2**53  # beyond it JSON numbers stop being exact
LARGEST_TENSOR = 2**40  # elements of a key: what millions of keys count together is within 64 bits
SIGNED = frozenset({"sum_a", "sum_b", "sum_ab", "dot_a"})  # all other sums are at least 0
LOWEST_COSINE = -1.0


def leads(group: str, component: str) -> bool:
    """Whether a component's path starts with these segments, one at least: only then they select it."""
    return bool(group) and f"{component}/".startswith(f"{group}/")
