"""Student's quantiles against a table, and the interval of a mean against what it promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsbench.stats.student import mean_interval, t_quantile

# NIST/SEMATECH e-Handbook of Statistical Methods, section 1.3.6.7.2: upper critical values for 0.975.
TABLE = {
    1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228,
    11: 2.201, 12: 2.179, 13: 2.160, 14: 2.145, 15: 2.131, 16: 2.120, 17: 2.110, 18: 2.101, 19: 2.093, 20: 2.086,
    21: 2.080, 22: 2.074, 23: 2.069, 24: 2.064, 25: 2.060, 26: 2.056, 27: 2.052, 28: 2.048, 29: 2.045, 30: 2.042,
    40: 2.021, 60: 2.000, 100: 1.984,
}  # fmt: skip


@pytest.mark.parametrize("freedom", TABLE)
def test_quantiles_are_those_of_the_table(freedom):
    """To all three decimals that it has."""
    assert t_quantile(freedom) == pytest.approx(TABLE[freedom], abs=5.1e-4)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_other_confidences(confidence):
    """Two degrees of freedom have a closed form: t = c * sqrt(2 / (1 - c^2))."""
    assert t_quantile(2, confidence) == pytest.approx(confidence * np.sqrt(2 / (1 - confidence**2)), rel=1e-12)


def test_impossible_quantiles_are_refused():
    """No degrees of freedom, or certainty."""
    for freedom, confidence in ((0, 0.95), (3, 1.0), (3, -0.1)):
        with pytest.raises(ValueError, match="no quantile"):
            t_quantile(freedom, confidence)


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
