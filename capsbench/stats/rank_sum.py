"""The rank test of two sets of samples that have nothing in common (Mann, Whitney 1947), counted exactly."""

from functools import cache
from itertools import accumulate
from math import comb
from typing import Final

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float64]

_MOST_EXACT: Final = 2_500  # pairs of samples for which orders are counted


def p_values(base: Samples, new: Samples) -> list[float]:
    """Two-sided, of Mann and Whitney's U: exact where no samples are equal, else by the normal approximation.

    The approximation is far off in the tail that a table of many rows is decided in: of ten samples a side that do not
    overlap at all it says 2e-4, where one order in 92,378 is as extreme.

    Args:
        base: [rows, samples of A].
        new: [rows, samples of B].
    """
    (rows, count_a), count_b = base.shape, new.shape[1]
    ordered = np.sort(np.concatenate([base, new], axis=1), axis=1)
    tied = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    if count_a * count_b > _MOST_EXACT:
        tied[:] = True
    below = (new[:, None, :] < base[:, :, None]).reshape(rows, count_a * count_b).sum(axis=1)
    fewer = np.minimum(below, count_a * count_b - below)
    found = np.ones(rows)
    if not tied.all():
        found = np.minimum(1.0, 2.0 * np.array(_at_most(count_a, count_b))[fewer])
    if tied.any():
        found[tied] = _tied_p_values(base[tied], new[tied])
    listed: list[float] = found.tolist()
    return listed


@cache
def outside(count_a: int, count_b: int, level: float) -> int:
    """How many of the smallest pairwise gaps lie outside an interval that holds the shift with 1 - `level`.

    The most for which 2 P(U <= k) <= level: the interval ends at the gap that comes next, and the shift lies below
    that where at most k gaps do. 0 where there are too few samples, so that the interval is all gaps.
    """
    return max(0, sum(2.0 * below <= level for below in _at_most(count_a, count_b)) - 1)


def can_reject(count_a: int, count_b: int, level: float) -> bool:
    """Whether any order of so many samples is as rare as the level, two-sided."""
    return comb(count_a + count_b, count_a) >= 2.0 / level


def _tied_p_values(base: npt.NDArray[np.float64], new: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """By the normal approximation with its correction for ties, [rows]; 1 where all samples of a row are equal."""
    both = np.concatenate([base, new], axis=1)
    varied = both.max(axis=1) > both.min(axis=1)
    found = np.ones(len(base))
    if varied.any():
        from scipy.stats import mannwhitneyu  # noqa: PLC0415 - takes seconds to import

        sides = base[varied], new[varied]
        found[varied] = mannwhitneyu(*sides, alternative="two-sided", method="asymptotic", axis=1).pvalue
    return found


@cache
def _at_most(count_a: int, count_b: int) -> tuple[float, ...]:
    """P(U <= u) for each u, where all orders of the samples are equally likely."""
    total = comb(count_a + count_b, count_a)
    return tuple(below / total for below in accumulate(_ways(count_a, count_b)))


@cache
def _ways(count_a: int, count_b: int) -> tuple[int, ...]:
    """In how many orders of the samples each value of Mann and Whitney's U comes about (Mann, Whitney 1947, eq. 6)."""
    ways = [1] + [0] * (count_a * count_b)
    for k in range(1, count_a + 1):  # times (1 - x^(b + k)) / (1 - x^k), the factors of the Gaussian binomial
        for value in range(count_a * count_b, count_b + k - 1, -1):
            ways[value] -= ways[value - count_b - k]
        for value in range(k, count_a * count_b + 1):
            ways[value] += ways[value - k]
    return tuple(ways)
