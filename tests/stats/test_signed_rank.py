"""Pairs are told from no shift by the signs and ranks of their gaps, exactly."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, wilcoxon

from capsbench.stats.signed_rank import _at_most, can_reject, outside, p_values, walsh_averages


@pytest.mark.parametrize("count", [*range(1, 25), 40, 60])
def test_p_values_are_exact(count):
    """As SciPy counts them, also for more pairs than it would count by itself."""
    gaps = np.random.default_rng(count).standard_normal((4, count)) + np.array([[0.0], [0.3], [-1.0], [9.0]])
    assert p_values(gaps) == pytest.approx(wilcoxon(gaps, axis=1, method="exact").pvalue, rel=1e-9)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_gaps_of_equal_size_are_counted_sign_by_sign(gaps):
    """Ties and zeros included, the p-value is the share of all signs that are no less extreme."""
    ranks = rankdata(np.abs(gaps)) * (np.array(gaps) != 0)
    signs = np.array(list(product((-1, 1), repeat=len(gaps))))
    seen = abs((np.sign(gaps) * ranks).sum())
    assert p_values(np.array([gaps], dtype=float)) == pytest.approx([np.mean(np.abs(signs @ ranks) >= seen)])


def test_gaps_that_are_all_alike_are_evidence():
    """Ten pairs that all differ by the same say it as clearly as any ten can; ten that do not differ say nothing."""
    assert p_values(np.full((2, 10), [[0.1], [-0.1]])) == [2 / 2**10] * 2
    assert p_values(np.zeros((1, 10))) == [1.0]


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 10, 13, 30, 200])
def test_the_interval_leaves_out_no_more_than_it_may(count):
    """The shift lies beyond either end with a chance of 5 % at most, and would not one average further in."""
    left, chances = outside(count, 0.05), 2 * _at_most(count)
    assert can_reject(count, 0.05) == (count >= 6)
    if count < 6:
        assert left == 0
    else:
        assert chances[left] <= 0.05 < chances[left + 1]


@given(st.lists(st.integers(-99, 99), min_size=1, max_size=12, unique_by=abs))
def test_walsh_averages_count_the_ranks(gaps):
    """As many averages are positive as the ranks of the positive gaps add up to (Tukey 1949)."""
    averages = walsh_averages(np.array([gaps], dtype=float))
    assert averages.shape == (1, len(gaps) * (len(gaps) + 1) // 2)
    ranks = rankdata(np.abs(gaps))
    assert (averages > 0.0).sum() == ranks[np.array(gaps) > 0.0].sum()
