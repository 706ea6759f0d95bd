"""Two sets of samples are told apart by their ranks, exactly."""

from itertools import permutations
from math import comb

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from capsbench.stats.rank_sum import _ways, can_reject, outside, p_values


@pytest.mark.parametrize(("count_a", "count_b"), [(1, 1), (2, 3), (4, 2), (3, 3)])
def test_orders_are_counted_right(count_a, count_b):
    """The distribution of U is that of all orders of the samples, counted one by one."""
    counted = [0] * (count_a * count_b + 1)
    for order in set(permutations("a" * count_a + "b" * count_b)):
        counted[sum(order[:i].count("b") for i, side in enumerate(order) if side == "a")] += 1
    assert list(_ways(count_a, count_b)) == counted
    assert sum(counted) == comb(count_a + count_b, count_a)


@pytest.mark.parametrize(("count_a", "count_b"), [(3, 4), (8, 8), (10, 10), (12, 9)])
def test_p_values_are_exact(count_a, count_b):
    """As SciPy counts them, also for more than eight samples a side, where it would rather approximate."""
    generator = np.random.default_rng(11)
    base, new = (generator.standard_normal((3, count)) for count in (count_a, count_b))
    new += np.array([[0.0], [1.0], [9.0]])
    exact = mannwhitneyu(base, new, axis=1, alternative="two-sided", method="exact").pvalue
    assert p_values(base, new) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(("count_a", "count_b"), [(1, 9), (3, 3), (4, 4), (5, 7), (10, 10), (20, 12)])
def test_the_interval_leaves_out_no_more_than_it_may(count_a, count_b):
    """The shift lies beyond either end in 5 % of all orders at most, and would not one gap further in."""
    ways, total, left = _ways(count_a, count_b), comb(count_a + count_b, count_a), outside(count_a, count_b, 0.05)
    if not can_reject(count_a, count_b, 0.05):
        assert left == 0
    else:
        assert 2 * sum(ways[: left + 1]) <= 0.05 * total < 2 * sum(ways[: left + 2])
