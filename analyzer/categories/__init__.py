"""Where every key of a model stands on the four axes. Knows names, never values.

`categorize` is the door; what an architecture's names mean stands in `analyzer/architectures/`.
"""

from analyzer.categories.categorize import architectures, categorize

__all__ = ["architectures", "categorize"]
