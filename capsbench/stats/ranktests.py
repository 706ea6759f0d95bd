"""Exact rank tests of two sides, counted by SciPy, and how far the intervals reach that belong to them.

`rank_sum_*` is for sides that have nothing in common (Mann, Whitney 1947), `signed_rank_*` for the gaps within pairs
(Wilcoxon 1945): what both of a pair have in common cancels there. All p-values are two-sided.
"""

from functools import cache
from math import comb
from typing import Final

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float64]

_MOST_EXACT: Final = 2_500  # pairs of samples for which orders are counted


def rank_sum_p_values(base: Samples, new: Samples) -> Samples:
    """Return the p-value of no shift for each row, [rows]: exact, or by the normal approximation where values are tied.

    The approximation is far off in the tail that decides a table of many rows: for ten samples a side without overlap
    it gives 2e-4, where one order in 92,378 is as extreme. SciPy by itself counts up to eight samples only.

    Args:
        base: samples of A, [rows, samples].
        new: samples of B, [rows, samples].
    """
    from scipy.stats import mannwhitneyu  # noqa: PLC0415 - takes a second to import

    ordered = np.sort(np.concatenate([base, new], axis=1), axis=1)
    is_tied = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1) | (base.shape[1] * new.shape[1] > _MOST_EXACT)
    found = np.empty(len(base))
    if not is_tied.all():
        found[~is_tied] = mannwhitneyu(base[~is_tied], new[~is_tied], axis=1, method="exact").pvalue
    if is_tied.any():
        found[is_tied] = mannwhitneyu(base[is_tied], new[is_tied], axis=1, method="asymptotic").pvalue
    return found


@cache
def rank_sum_outside(count_a: int, count_b: int, level: float) -> int:
    """Return how many of the smallest pairwise gaps lie outside an interval that holds the shift with 1 - `level`.

    The most for which 2 P(U <= k) <= level: the interval ends at the gap that comes next, and the shift lies below
    that where at most k gaps do. 0 where there are too few samples, so that the interval is all gaps. SciPy has no
    distribution of U, only the test, which is given samples with each value of U.
    """
    from scipy.stats import mannwhitneyu  # noqa: PLC0415 - takes a second to import

    statistics = np.arange(count_a * count_b // 2 + 1)[:, None]
    base = np.clip(statistics - count_b * np.arange(count_a), 0, count_b)  # how many of B each sample of A is above
    p_values = mannwhitneyu(base, np.arange(count_b)[None, :] + 0.5, axis=1, method="exact").pvalue
    return max(0, int(np.count_nonzero(p_values <= level)) - 1)


def rank_sum_can_reject(count_a: int, count_b: int, level: float) -> bool:
    """Return whether any order of so many samples is as rare as the level."""
    return comb(count_a + count_b, count_a) >= 2.0 / level


def walsh_averages(gaps: Samples) -> Samples:
    """Return (x_i + x_j) / 2 for i <= j, in no order, [rows, n (n + 1) / 2], of gaps [rows, n].

    As many of them are positive as the ranks of the positive gaps add up to, so that their median is the shift that
    the signed-rank test rejects least (Hodges, Lehmann 1963, Annals of Mathematical Statistics 34).
    """
    first, second = np.triu_indices(gaps.shape[1])
    averages: Samples = 0.5 * (gaps[:, first] + gaps[:, second])
    return averages


def signed_rank_p_values(gaps: Samples) -> Samples:
    """Return the exact p-value of no shift for each row of gaps within pairs, [rows, n].

    Gaps of equal size share the mean of their ranks; those of 0 take up ranks but have no sign (Pratt 1959, Journal of
    the American Statistical Association 54). Rows with such gaps are counted here: SciPy tries all 2^n signs (0.25 s a
    row for ten pairs), and approximates beyond 13 pairs.
    """
    from scipy.stats import wilcoxon  # noqa: PLC0415 - takes a second to import

    sizes = np.sort(np.abs(gaps), axis=1)
    is_tied = (sizes[:, 1:] == sizes[:, :-1]).any(axis=1) | (sizes[:, 0] == 0.0)
    found = np.empty(len(gaps))
    if not is_tied.all():
        found[~is_tied] = wilcoxon(gaps[~is_tied], axis=1, method="exact").pvalue
    for row in np.flatnonzero(is_tied):
        found[row] = _tied_p_value(gaps[row])
    return found


@cache
def signed_rank_outside(count: int, level: float) -> int:
    """Return how many of the smallest Walsh averages lie outside an interval that holds the shift with 1 - `level`.

    The most for which 2 P(T <= k) <= level, for the sum T of the ranks of negative gaps; 0 where there are too few
    pairs, so that the interval is all averages.
    """
    at_most = np.cumsum(_rank_sum_chances(np.arange(1, count + 1)))
    return max(0, int(np.searchsorted(2.0 * at_most, level, side="right")) - 1)


def signed_rank_can_reject(count: int, level: float) -> bool:
    """Return whether gaps that all have one sign are as rare as the level."""
    return 2.0**count >= 2.0 / level


def _tied_p_value(gaps: Samples) -> float:
    from scipy.stats import rankdata  # noqa: PLC0415 - takes a second to import

    doubled = np.rint(2.0 * rankdata(np.abs(gaps))).astype(np.int64)  # shared ranks may end in a half
    extreme = min(int(doubled[gaps < 0.0].sum()), int(doubled[gaps > 0.0].sum()))
    return min(1.0, 2.0 * float(_rank_sum_chances(doubled[gaps != 0.0])[: extreme + 1].sum()))


def _rank_sum_chances(ranks: npt.NDArray[np.int64]) -> Samples:
    """Return P(T = t) for each t from 0, where T sums the ranks for which a coin shows heads."""
    chances = np.zeros(int(ranks.sum()) + 1)
    chances[0] = 1.0
    for rank, most in zip(ranks.tolist(), np.cumsum(ranks).tolist(), strict=True):
        chances[: most + 1] *= 0.5
        chances[rank : most + 1] += chances[: most + 1 - rank].copy()
    return chances
