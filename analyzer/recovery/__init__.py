"""What somebody's merge was made of: alphas by least squares over the sums of a merge and its parents."""

from analyzer.recovery.account import Group, Recovered, groups, recovered
from analyzer.recovery.summing import Parents, Recovery, recover

__all__ = ["Group", "Parents", "Recovered", "Recovery", "groups", "recover", "recovered"]
