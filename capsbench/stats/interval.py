"""How sure is a median? The order-statistics interval, which assumes nothing about the distribution."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """Holds the true median with the given confidence, if the samples are independent."""

    low: float
    high: float
    confidence: float


def median_interval(samples: Sequence[float], *, confidence: float = CONFIDENCE) -> Interval:
    """The narrowest symmetric pair of order statistics that holds the true median with `confidence`.

    The number of samples below the median is Binomial(n, 1/2), so the k-th smallest and k-th largest enclose it with
    probability 1 - 2 P(B < k) (David, Nagaraja 2003, "Order statistics", section 7.1). Where even the smallest and the
    largest do not reach the confidence (below six samples for 95 %), they are returned, with the confidence they have.

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("an interval needs at least one sample")
    ordered = sorted(samples)
    count = len(ordered)
    rank, below = 1, 1  # below = sum of comb(count, i) for i < rank
    while 2 * (rank + 1) <= count + 1 and _coverage(below + comb(count, rank), count) >= confidence:
        below += comb(count, rank)
        rank += 1
    return Interval(ordered[rank - 1], ordered[-rank], _coverage(below, count))


def _coverage(below: int, count: int) -> float:
    return max(0.0, 1.0 - below / (1 << (count - 1)))
