"""Where every key of a model stands on the four axes. Knows names, never values.

`categorize` is the door; what an architecture's names mean stands in `analyzer/architectures/`.
"""

from analyzer.categories.categorize import categorize
from analyzer.categories.library import RuleBook, architectures, require_used, rule_book, shipped

__all__ = ["RuleBook", "architectures", "categorize", "require_used", "rule_book", "shipped"]
