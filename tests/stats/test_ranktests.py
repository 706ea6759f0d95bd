"""The rank tests against all orders or signs of few samples, counted one by one."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from capsbench.stats.ranktests import (
    rank_sum_can_reject,
    rank_sum_outside,
    rank_sum_p_values,
    signed_rank_can_reject,
    signed_rank_outside,
    signed_rank_p_values,
    walsh_averages,
)


def statistics_of_orders(count_a, count_b):
    """Mann and Whitney's U of every order of the samples, in order of size."""
    places = np.array(list(combinations(range(count_a + count_b), count_a)))
    return np.sort(places.sum(axis=1) - count_a * (count_a - 1) // 2)


def statistics_of_signs(ranks):
    """The sum of the negative ranks for every combination of signs, in order of size."""
    return np.sort(np.array(list(product((0, 1), repeat=len(ranks)))) @ ranks)


@pytest.mark.parametrize(("count_a", "count_b"), [(1, 1), (2, 3), (9, 3), (9, 9)])
def test_rank_sums_are_counted_exactly(count_a, count_b):
    """The p-value is twice the share of orders that are no less extreme, also beyond SciPy's eight samples a side."""
    generator = np.random.default_rng(11)
    base, new = (generator.standard_normal((3, count)) for count in (count_a, count_b))
    new += np.array([[0.0], [1.0], [9.0]])
    seen = (base[:, :, None] > new[:, None, :]).sum(axis=(1, 2))
    extreme = np.minimum(seen, count_a * count_b - seen)
    orders = statistics_of_orders(count_a, count_b)
    exact = np.minimum(1.0, 2.0 * np.searchsorted(orders, extreme, side="right") / len(orders))
    assert rank_sum_p_values(base, new) == pytest.approx(exact, rel=1e-9)


def test_tied_samples_have_a_rank_test():
    """Rows with ties are approximated, and those that are equal throughout are no evidence."""
    base, new = (
        np.array([[1.0, 1.0, 2.0], [1.0, 1.0, 1.0], [1.0, 2.0, 3.0]]),
        np.array([[2.0, 3.0], [1.0, 1.0], [4, 5]]),
    )
    tied, equal, exact = rank_sum_p_values(base, new)
    assert 0.1 < tied < 0.3
    assert equal == 1.0
    assert exact == pytest.approx(2 / 10)


@pytest.mark.parametrize(("count_a", "count_b"), [(1, 9), (3, 3), (4, 4), (5, 7), (8, 9)])
def test_rank_sum_intervals_leave_out_no_more_than_they_may(count_a, count_b):
    """The shift lies beyond either end in 5 % of all orders at most, and would not one gap further in."""
    orders, left = statistics_of_orders(count_a, count_b), rank_sum_outside(count_a, count_b, 0.05)
    if not rank_sum_can_reject(count_a, count_b, 0.05):
        assert left == 0
    else:
        assert 2 * np.mean(orders <= left) <= 0.05 < 2 * np.mean(orders <= left + 1)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_signed_ranks_are_counted_sign_by_sign(gaps):
    """With and without ties and zeros, the p-value is the share of all signs that are no less extreme."""
    ranks = rankdata(np.abs(gaps)) * (np.array(gaps) != 0)
    seen = abs((np.sign(gaps) * ranks).sum())
    exact = np.mean(np.abs(ranks.sum() - 2 * statistics_of_signs(ranks)) >= seen)
    assert signed_rank_p_values(np.array([gaps], dtype=float)) == pytest.approx([exact])


def test_gaps_that_are_all_alike_are_evidence():
    """Ten pairs that all differ by the same say it as clearly as any ten can; ten that do not differ say nothing."""
    assert signed_rank_p_values(np.full((2, 10), [[0.1], [-0.1]])).tolist() == [2 / 2**10] * 2
    assert signed_rank_p_values(np.zeros((1, 10))) == [1.0]


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 10, 13])
def test_signed_rank_intervals_leave_out_no_more_than_they_may(count):
    """The shift lies beyond either end with a chance of 5 % at most, and would not one average further in."""
    left, sums = signed_rank_outside(count, 0.05), statistics_of_signs(np.arange(1, count + 1))
    assert signed_rank_can_reject(count, 0.05) == (count >= 6)
    if count < 6:
        assert left == 0
    else:
        assert 2 * np.mean(sums <= left) <= 0.05 < 2 * np.mean(sums <= left + 1)


@given(st.lists(st.integers(-99, 99), min_size=1, max_size=12, unique_by=abs))
def test_walsh_averages_count_the_ranks(gaps):
    """As many averages are positive as the ranks of the positive gaps add up to (Tukey 1949)."""
    averages = walsh_averages(np.array([gaps], dtype=float))
    assert averages.shape == (1, len(gaps) * (len(gaps) + 1) // 2)
    ranks = rankdata(np.abs(gaps))
    assert (averages > 0.0).sum() == ranks[np.array(gaps) > 0.0].sum()
