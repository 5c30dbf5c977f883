"""Quantiles of a sample."""

from collections.abc import Sequence


def quantile(values: Sequence[float], share: float) -> float:
    """Returns the value that `share` of the sample does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
