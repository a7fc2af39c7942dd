"""The merge methods: a literal table of pure functions. To add one: a file, an entry.

A method sees runs of elements, widened exactly to fp64, of all models at once; what it returns is rounded
once, to the dtype of the output. It knows neither files nor keys' meanings, and gives the same values
however a tensor is cut into runs.
"""

from __future__ import annotations

from analyzer.methods.add_difference import ADD_DIFFERENCE
from analyzer.methods.breadcrumbs import BREADCRUMBS, BREADCRUMBS_TIES
from analyzer.methods.cosine_adaptive import COSINE_ADAPTIVE_A, COSINE_ADAPTIVE_B
from analyzer.methods.dare import DARE_LINEAR, DARE_TIES
from analyzer.methods.gram import GramSurvey
from analyzer.methods.method import (
    AbstractSurvey,
    Array,
    Method,
    Operands,
    Parameter,
    Setting,
    combine_linear,
    vectors,
)
from analyzer.methods.model_stock import MODEL_STOCK
from analyzer.methods.slerp import SLERP
from analyzer.methods.task_arithmetic import TASK_ARITHMETIC
from analyzer.methods.ties import TIES
from analyzer.methods.train_difference import TRAIN_DIFFERENCE
from analyzer.methods.triple_sum import SUM_TWICE, TRIPLE_SUM
from analyzer.methods.weighted_sum import WEIGHTED_SUM

__all__ = [
    "METHODS",
    "AbstractSurvey",
    "Array",
    "GramSurvey",
    "Method",
    "Operands",
    "Parameter",
    "Setting",
    "combine_linear",
    "vectors",
]

METHODS = {
    "weighted_sum": WEIGHTED_SUM,
    "add_difference": ADD_DIFFERENCE,
    "slerp": SLERP,
    "train_difference": TRAIN_DIFFERENCE,
    "cosine_adaptive_a": COSINE_ADAPTIVE_A,
    "cosine_adaptive_b": COSINE_ADAPTIVE_B,
    "task_arithmetic": TASK_ARITHMETIC,
    "ties": TIES,
    "dare_linear": DARE_LINEAR,
    "dare_ties": DARE_TIES,
    "breadcrumbs": BREADCRUMBS,
    "breadcrumbs_ties": BREADCRUMBS_TIES,
    "model_stock": MODEL_STOCK,
    "triple_sum": TRIPLE_SUM,
    "sum_twice": SUM_TWICE,
}
