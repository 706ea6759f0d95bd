"""How sure is a mean of few samples? Student's t interval."""

from collections.abc import Sequence
from functools import cache
from math import atan, cos, dist, isfinite, pi, sin, sqrt
from statistics import fmean

from capsbench.stats.interval import CONFIDENCE, Interval


def mean_interval(
    samples: Sequence[float], *, confidence: float = CONFIDENCE, scatter: float | None = None
) -> Interval | None:
    """Holds the mean of the distribution with `confidence`, if samples are independent and their mean is about normal.

    mean ± t * s / sqrt(n), with s the samples' standard deviation (n - 1 in the denominator) and t the quantile of
    Student's distribution with n - 1 degrees of freedom. None for fewer than two samples, or some that are not finite:
    nothing is known of their scatter. Who knows s already may give it.
    """
    count = len(samples)
    if count < 2 or not all(map(isfinite, samples)):
        return None
    mean = fmean(samples)
    spread = dist(samples, [mean] * count) / sqrt(count - 1) if scatter is None else scatter
    half = t_quantile(count - 1, confidence) * spread / sqrt(count)
    return Interval(mean - half, mean + half, confidence)


@cache
def t_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """The t for which P(-t < T < t) = `confidence`, by bisection.

    Args:
        freedom: degrees of freedom, 1 or more.
        confidence: in [0, 1).

    Raises:
        ValueError: one of them is not.
    """
    if freedom < 1 or not 0.0 <= confidence < 1.0:
        raise ValueError(f"no quantile for {freedom} degrees of freedom and a confidence of {confidence}")
    low, high = 0.0, 1.0
    while _coverage(high, freedom) < confidence:
        low, high = high, 2.0 * high
    while low < (middle := 0.5 * (low + high)) < high:
        low, high = (middle, high) if _coverage(middle, freedom) < confidence else (low, middle)
    return high


def _coverage(t: float, freedom: int) -> float:
    """P(-t < T < t) for whole degrees of freedom, a finite sum (Abramowitz, Stegun 1964, 26.7.3 and 26.7.4)."""
    angle = atan(t / sqrt(freedom))
    odd = freedom % 2
    term = cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= cos(angle) ** 2 * (k - 1) / k
        total += term
    return 2.0 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total
