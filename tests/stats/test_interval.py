from math import comb
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsbench.stats.interval import Interval, median_interval, wilson_interval

NUMBERS = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=200)


@given(NUMBERS)
def test_holds_the_sample_median(samples):
    """The interval holds the median of the samples and its ends are samples."""
    interval = median_interval(samples)
    assert interval.low <= median(samples) <= interval.high
    assert {interval.low, interval.high} <= set(samples)


@given(NUMBERS, st.randoms())
def test_order_does_not_matter(samples, random):
    """Samples have no order as far as the interval goes."""
    shuffled = list(samples)
    random.shuffle(shuffled)
    assert median_interval(shuffled) == median_interval(samples)


@given(st.integers(1, 300))
def test_is_the_narrowest_with_its_confidence(count):
    """The ranks hold the median with 95 %, or are the outermost; one rank further in would fall below that."""
    interval = median_interval(range(count))
    rank = interval.low + 1
    assert coverage(rank, count) >= 0.95 or rank == 1
    assert coverage(rank + 1, count) < 0.95 or 2 * (rank + 1) > count + 1


@pytest.mark.parametrize(("count", "rank"), [(1, 1), (3, 1), (5, 1), (6, 1), (8, 1), (9, 2), (10, 2)])
def test_known_ranks(count, rank):
    """Ranks of small samples as tables of the sign test give them."""
    assert median_interval(range(1, count + 1)) == Interval(rank, count + 1 - rank)


def test_nothing_has_no_interval():
    """Without a sample there is nothing to say."""
    with pytest.raises(ValueError, match="at least one sample"):
        median_interval([])


def coverage(rank, count):
    return max(0.0, 1 - 2 * sum(comb(count, i) for i in range(rank)) / 2**count)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_is_that_of_newcombe(hits, trials, low, high):
    """Method 3 of Newcombe 1998, table I."""
    found = wilson_interval(hits, trials)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(st.integers(1, 10_000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_wilson_holds_what_was_seen(drawn):
    """The share lies inside, the interval inside [0, 1], and errors have the mirror image of hits."""
    hits, trials = drawn
    found, other = wilson_interval(hits, trials), wilson_interval(trials - hits, trials)
    assert 0.0 <= found.low <= hits / trials + 1e-12
    assert hits / trials - 1e-12 <= found.high <= 1.0
    assert found.low == pytest.approx(1 - other.high, abs=1e-12)


@pytest.mark.parametrize(("hits", "trials"), [(0, 0), (3, 2), (-1, 2), (float("nan"), 2)])
def test_wilson_needs_a_share(hits, trials):
    """What is no share of anything has no interval."""
    with pytest.raises(ValueError, match="a share needs"):
        wilson_interval(hits, trials)
