"""The signed-rank test of gaps within pairs (Wilcoxon 1945, Biometrics Bulletin 1), counted exactly.

What both of a pair have in common cancels in their gap, so that it need not be told from a shift.
"""

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

Gaps = npt.NDArray[np.float64]

_HALF: Final = 0.5


def walsh_averages(gaps: Gaps) -> Gaps:
    """(x_i + x_j) / 2 for i <= j, in no order, [rows, n (n + 1) / 2], of gaps [rows, n].

    As many of them are positive as the ranks of the positive gaps add up to, so that their median is the shift that
    the test rejects least (Hodges, Lehmann 1963, Annals of Mathematical Statistics 34).
    """
    first, second = np.triu_indices(gaps.shape[1])
    averages: Gaps = _HALF * (gaps[:, first] + gaps[:, second])
    return averages


def p_values(gaps: Gaps) -> list[float]:
    """Two-sided, of no shift, a row of gaps [rows, n] each: P(T <= t) + P(T >= the opposite t), at most 1.

    T is the sum of the ranks that the negative gaps have by size. Without a shift each gap is as likely negative as
    positive, and these 2^n signs are counted, with the ranks as they are: gaps of equal size share the mean of their
    ranks, and those of 0 take up ranks but have no sign (Pratt 1959, Journal of the American Statistical
    Association 54).
    """
    count, sizes = gaps.shape[1], np.abs(gaps)
    ordered = np.sort(sizes, axis=1)
    odd = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1) | (ordered[:, 0] == 0.0)
    ranks = sizes.argsort(axis=1).argsort(axis=1) + 1
    negative = np.where(gaps < 0.0, ranks, 0).sum(axis=1)
    found = np.minimum(1.0, 2.0 * _at_most(count)[np.minimum(negative, count * (count + 1) // 2 - negative)])
    for row in np.flatnonzero(odd):
        found[row] = _odd_p_value(gaps[row])
    listed: list[float] = found.tolist()
    return listed


@cache
def outside(count: int, level: float) -> int:
    """How many of the smallest Walsh averages lie outside an interval that holds the shift with 1 - `level`.

    The most for which 2 P(T <= k) <= level: the interval ends at the average that comes next, and the shift lies below
    that where at most k averages do. 0 where there are too few pairs, so that the interval is all averages.
    """
    return max(0, int(np.searchsorted(2.0 * _at_most(count), level, side="right")) - 1)


def can_reject(count: int, level: float) -> bool:
    """Whether gaps that all have one sign are as rare as the level, two-sided."""
    return 2.0**count >= 2.0 / level


@cache
def _at_most(count: int) -> Gaps:
    """P(T <= t) for each t, of gaps that all differ in size."""
    return np.cumsum(_chances(np.arange(1, count + 1)))


def _chances(ranks: npt.NDArray[np.int64]) -> Gaps:
    """P(T = t) for each t from 0, where each rank counts or does not, as a coin falls."""
    chances = np.zeros(int(ranks.sum()) + 1)
    chances[0] = 1.0
    most = 0
    for rank in ranks.tolist():
        chances[: most + rank + 1] *= _HALF
        chances[rank : most + rank + 1] += chances[: most + 1].copy()
        most += rank
    return chances


def _odd_p_value(gaps: Gaps) -> float:
    """Of one row in which sizes are equal or zero."""
    _, place, times = np.unique(np.abs(gaps), return_inverse=True, return_counts=True)
    last = np.cumsum(times)
    doubled = (2 * last - times + 1)[place]  # twice the mean of the ranks that equal sizes share
    negative, positive = int(doubled[gaps < 0.0].sum()), int(doubled[gaps > 0.0].sum())
    below = _chances(doubled[gaps != 0.0])[: min(negative, positive) + 1].sum()
    return min(1.0, 2.0 * float(below))
