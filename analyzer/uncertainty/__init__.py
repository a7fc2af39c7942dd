"""How sure a ranking is: intervals, probabilities of ranks, tests between groups, tiers.

The keys of a category are taken as its sample: what would the statistic be of other keys like these? (That
the keys of one model are independent is an assumption. The values themselves are exact: nothing here is
about an error of measurement.)

The interval is value ± t · standard error on the scale of the statistic (`bands`). The standard error is
that of 1000 bootstrap resamples of the keys; t has m − 1 degrees of freedom, where m is the number of keys
of equal weight that say as much as the keys do (a bias of 320 numbers beside a matrix of a million says
nothing). Efron & Tibshirani, An Introduction to the Bootstrap, 1993; Hesterberg 2015, arXiv 1411.5279.

What was measured (tests/benchmarks/interval_coverage.py, 1000 simulated categories a line): how often
the interval holds the true relative change, at a nominal 95 %, of keys of three sizes whose changes
spread by a factor of e^0.3, e^0.5, e^0.7. Categories of real fine-tunes lie between e^0.1 and e^0.5.

    keys     percentile              BCa                     these intervals
             0.3    0.5    0.7       0.3    0.5    0.7       0.3    0.5    0.7
      3      69 %   65 %   55 %      60 %   57 %   48 %      –      –      –
      5      76 %   69 %   59 %      72 %   67 %   58 %      98 %   96 %   91 %
      8      80 %   76 %   64 %      78 %   75 %   65 %      95 %   94 %   89 %
     10      82 %   76 %   68 %      80 %   77 %   69 %      96 %   94 %   88 %
     20      89 %   82 %   74 %      87 %   82 %   76 %      95 %   91 %   85 %
     50      90 %   86 %   79 %      89 %   86 %   82 %      93 %   90 %   87 %

Percentiles and BCa hold the truth too seldom for all sizes that categories have, so neither is used. Below 5
keys there is no interval, nor where nothing changed (that these keys are alike does not say that others
would be), nor where fewer than 2.2 keys of equal weight carry the sum: it would span a factor of ten. Where
keys spread by more than e^0.5 an interval of 95 % holds the truth in about 87 %.
"""

from analyzer.uncertainty.assessment import (
    EXACT,
    WIDE,
    Assessment,
    AxisIntervals,
    GroupUncertainty,
    assess,
    intervals,
)
from analyzer.uncertainty.bands import FEWEST_KEYS, KINDS
from analyzer.uncertainty.comparing import LEVEL, AxisTest, Border, Comparison

__all__ = [
    "EXACT",
    "FEWEST_KEYS",
    "KINDS",
    "LEVEL",
    "WIDE",
    "Assessment",
    "AxisIntervals",
    "AxisTest",
    "Border",
    "Comparison",
    "GroupUncertainty",
    "assess",
    "intervals",
]
