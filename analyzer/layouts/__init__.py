"""The same weights under other names: what the tensors of one network are called in its other layouts.

`canonical`, `original` and `translates` are the doors. What the names are stands in the TOML files of this
folder, one for each network (`analyzer/layouts/maps.py` describes the format). Knows names, never shapes or
values.
"""

from analyzer.layouts.facets import Facet
from analyzer.layouts.translate import canonical, original, translates

__all__ = ["Facet", "canonical", "original", "translates"]
