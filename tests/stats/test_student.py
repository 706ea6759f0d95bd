"""The interval of a mean against what it promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsbench.stats.student import mean_interval


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_interval_holds_the_mean_as_often_as_it_says(count):
    """In 95 % of 4,000 draws from a normal distribution, give or take four standard errors."""
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4_000, count))
    found = [mean_interval(row) for row in draws.tolist()]
    assert np.mean([each.low <= 3.0 <= each.high for each in found]) == pytest.approx(0.95, abs=4 * 0.0035)


def test_a_known_interval():
    """Three accuracies, by hand: 0.97 ± 4.303 * 0.01 / sqrt(3)."""
    found = mean_interval([0.96, 0.97, 0.98])
    assert (found.low, found.high) == pytest.approx((0.94516, 0.99484), abs=1e-5)


@pytest.mark.parametrize("samples", [[], [0.5], [0.5, float("nan")], [0.5, float("inf")]])
def test_nothing_is_believed_of_nothing(samples):
    """One sample has no scatter, and no interval."""
    assert mean_interval(samples) is None


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_the_interval_is_about_the_mean(samples):
    """It holds the samples' mean in its middle."""
    found = mean_interval(samples)
    assert found.low <= np.mean(samples) + 1e-12
    assert (found.low + found.high) / 2 == pytest.approx(np.mean(samples), abs=1e-9)
