"""Confidence intervals of a median and of a share.

A median has the order-statistics interval, which assumes nothing about the distribution; a share has Wilson's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """Holds the true value with the confidence that was asked for, if the samples are independent."""

    low: float
    high: float


def median_interval(samples: Sequence[float], *, confidence: float = CONFIDENCE) -> Interval:
    """Return the narrowest symmetric pair of order statistics that holds the true median with `confidence`.

    The number of samples below the median is Binomial(n, 1/2), so that so many lie outside at each end (David, Nagaraja
    2003, "Order statistics", section 7.1). Where even the smallest and the largest do not reach the confidence (below
    six samples for 95 %), they are returned. SciPy's `quantile_test` gives the same interval, and NaN in that case, but
    lives in `scipy.stats`, which takes four times as long to import as `scipy.special`.

    Raises:
        ValueError: no samples.
    """
    from scipy.special import bdtr  # noqa: PLC0415 - takes time to import

    if not samples:
        raise ValueError("an interval needs at least one sample")
    ordered, count = sorted(samples), len(samples)
    rejected = 2.0 * bdtr(np.arange((count + 1) // 2), count, 0.5) <= 1.0 - confidence
    outside = max(0, int(np.count_nonzero(rejected)) - 1)
    return Interval(ordered[outside], ordered[-1 - outside])


def wilson_interval(hits: float, trials: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Return Wilson's interval of a share of which `hits` of `trials` were seen, such as the errors on a test set.

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) (Wilson 1927, "Probable inference, the law of succession,
    and statistical inference", Journal of the American Statistical Association 22). It also holds near 0 and 1, where
    the one from the standard error fails (Newcombe 1998, Statistics in Medicine 17, method 3). SciPy's takes no
    fractions of a hit.

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
    return Interval(max(0.0, low), min(1.0, high))
