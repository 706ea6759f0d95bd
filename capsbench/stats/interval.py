"""How sure is a median, or a share? Intervals that hold the true value with a given confidence.

A median has the order-statistics interval, which assumes nothing about the distribution; a share has Wilson's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """Holds the true median or share with the given confidence, if the samples are independent."""

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


def wilson_interval(hits: float, trials: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Of a share of which `hits` of `trials` were seen, such as the errors on a test set.

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) (Wilson 1927, "Probable inference, the law of succession,
    and statistical inference", Journal of the American Statistical Association 22). It also holds near 0 and 1, where
    the one from the standard error fails (Newcombe 1998, Statistics in Medicine 17, method 3).

    Args:
        hits: from 0 to `trials`; not whole where a share is known but not the images behind it.
        trials: images, at least 1.
        confidence: how surely the interval holds the true share.

    Raises:
        ValueError: no trials, or more hits than trials.
    """
    if trials < 1 or not 0 <= hits <= trials:
        raise ValueError(f"a share needs from 0 to {trials} hits of at least one trial, not {hits}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, excess = hits / trials, z * z / trials
    centre = share + excess / 2
    reach = sqrt(excess * (share * (1 - share) + excess / 4))
    low, high = ((centre + side * reach) / (1 + excess) for side in (-1, 1))
    return Interval(max(0.0, low), min(1.0, high), confidence)


def _coverage(below: int, count: int) -> float:
    return max(0.0, 1.0 - below / (1 << (count - 1)))
