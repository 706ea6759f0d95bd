"""Student's interval of the mean of few samples."""

from collections.abc import Sequence
from functools import cache
from math import isfinite, sqrt
from statistics import fmean, stdev

from capsbench.stats.interval import CONFIDENCE, Interval


def mean_interval(
    samples: Sequence[float], *, confidence: float = CONFIDENCE, scatter: float | None = None
) -> Interval | None:
    """Return mean ± t * s / sqrt(n), which holds the mean of the distribution if that of the samples is about normal.

    None for fewer than two samples, or some that are not finite: nothing is known of their scatter.

    Args:
        samples: independent of each other.
        confidence: how surely the interval holds the mean.
        scatter: s, the samples' standard deviation (n - 1 in the denominator), where it is known already.
    """
    count = len(samples)
    if count < 2 or not all(map(isfinite, samples)):
        return None
    mean = fmean(samples)
    half = t_quantile(count - 1, confidence) * (stdev(samples) if scatter is None else scatter) / sqrt(count)
    return Interval(mean - half, mean + half)


@cache
def t_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """Return the t for which P(-t < T < t) = `confidence`, with so many degrees of freedom."""
    from scipy.special import stdtrit  # noqa: PLC0415 - takes time to import

    return float(stdtrit(freedom, 0.5 + confidence / 2.0))
