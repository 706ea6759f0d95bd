"""One word for two sets of samples: how often it is right, and that it is never more than they say."""

from itertools import permutations
from math import comb, exp

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, ttest_1samp

from capsbench.stats.verdict import (
    ALPHA,
    Shift,
    _decides,
    _ways,
    decide,
    difference,
    holm,
    least_samples,
    samples_needed,
    shift,
    shifts,
)

TIMES = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=8)


def drawn(generator, count, *, factor=1.0, scatter=0.05):
    """Medians of processes, as they were seen to scatter between processes."""
    return factor * np.exp(scatter * generator.standard_normal(count))


def words(factor, *, trials, count=10, scatter=0.05, margin=0.05):
    """Verdicts of many comparisons, each alone in its table."""
    generator = np.random.default_rng(7)
    found = [
        shift(drawn(generator, count, scatter=scatter), drawn(generator, count, factor=factor, scatter=scatter))
        for _ in range(trials)
    ]
    return [decide(each, each.p_value, margin) for each in found]


@pytest.mark.parametrize("scatter", [0.02, 0.05, 0.14])
def test_equals_are_seldom_called_worse(scatter):
    """Of a thousand comparisons of a program with itself at most 1 % say worse, however noisy the machine."""
    assert words(1.0, trials=1_000, scatter=scatter).count("worse") <= 1_000 * ALPHA


@pytest.mark.parametrize(("factor", "least"), [(1.2, 95), (1.1, 80)])
def test_slowdowns_are_found(factor, least):
    """With ten processes a side and 5 % between processes, a fifth more time is found nearly always, a tenth mostly."""
    assert words(factor, trials=100).count("worse") >= least
    assert words(1.0 / factor, trials=100).count("better") >= least


def test_equality_is_said_where_it_is_known():
    """Much the same times with little scatter are the same, with few processes they are undecided."""
    assert words(1.0, trials=100, scatter=0.01).count("same") >= 95
    assert words(1.0, trials=100, count=2, scatter=0.1).count("undecided") >= 95


@given(TIMES, TIMES)
def test_a_comparison_turned_round_is_the_inverse(base, new):
    """B against A has one over the ratio and its ends, and the same p-value."""
    there, back = shift(base, new), shift(new, base)
    assert back.ratio == pytest.approx(1.0 / there.ratio)
    assert back.low == pytest.approx(1.0 / there.high)
    assert back.high == pytest.approx(1.0 / there.low)
    assert back.p_value == pytest.approx(there.p_value)
    assert there.low <= there.ratio * (1 + 1e-12)
    assert there.ratio <= there.high * (1 + 1e-12)


@given(TIMES, st.floats(0.1, 10.0))
def test_a_factor_on_all_samples_is_the_ratio(base, factor):
    """Samples that are all so many times larger are shifted by that factor."""
    found = shift(base, [factor * value for value in base])
    assert found.low <= factor * (1 + 1e-9)
    assert found.high >= factor * (1 - 1e-9)


def test_the_interval_holds_what_it_says():
    """Of two thousand intervals from seven processes a side, about 95 % or more hold the true ratio."""
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(2_000):
        found = shift(drawn(generator, 7), drawn(generator, 7, factor=1.07))
        held += found.low <= 1.07 <= found.high
    assert held >= 2_000 * 0.94


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
    for factor in (1.0, 1.1, 2.0):
        base, new = drawn(generator, count_a), drawn(generator, count_b, factor=factor)
        exact = mannwhitneyu(base, new, alternative="two-sided", method="exact").pvalue
        assert shift(base, new).p_value == pytest.approx(exact, rel=1e-9)


def test_equal_samples_are_no_evidence():
    """Where samples tie the p-value is approximated, and where all are equal it is one."""
    assert shift([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]).p_value == 1.0
    assert 0.0 < shift([1.0, 1.0, 2.0, 3.0], [4.0, 4.0, 5.0, 6.0]).p_value < 0.05


@pytest.mark.parametrize("bad", [[], [0.0], [-1.0], [float("inf")], [float("nan")]])
def test_samples_that_are_no_times_are_not_compared(bad):
    """Nothing, zeros and what is not finite have no ratio."""
    assert shift(bad, [1.0]) is None
    assert shift([1.0], bad) is None


def test_seeds_are_compared_pair_by_pair():
    """A small gain that every seed shows is found beneath a large scatter between them; identical runs are the same."""
    base = [0.10, 0.20, 0.30, 0.40, 0.50]
    found = difference(
        base, [rate - gain for rate, gain in zip(base, [0.010, 0.011, 0.009, 0.010, 0.012], strict=True)]
    )
    assert decide(found, found.p_value, 0.002) == "better"
    assert found.low < found.mean < found.high < 0.0
    alike = difference(base, base)
    assert decide(alike, alike.p_value, 0.002) == "same"
    alone = difference([0.1], [0.2])
    assert decide(alone, alone.p_value, 0.002) == "undecided"
    assert difference([], []) is None
    assert difference([0.1], [float("nan")]) is None


def test_what_is_undecided_says_how_many_more():
    """The number asked for decides in about four of five trials; without scatter or with one sample none is named."""
    generator = np.random.default_rng(5)
    found = Shift(ratio=1.1, low=0.9, high=1.3, p_value=0.2, scatter=0.08, count=3, sure=False)
    needed = samples_needed(found, 0.05, rows=1)
    worse = 0
    for _ in range(300):
        again = shift(drawn(generator, needed, scatter=0.08), drawn(generator, needed, factor=1.1, scatter=0.08))
        worse += decide(again, again.p_value, 0.05) == "worse"
    assert 0.7 <= worse / 300 <= 0.97
    assert samples_needed(found, 0.05, rows=100) > needed
    assert samples_needed(Shift(1.05, 0.9, 1.2, 0.2, 0.3, 3, sure=False), 0.05, rows=1) is None
    assert samples_needed(Shift(1.1, 1.1, 1.1, 1.0, 0.0, 1, sure=False), 0.05, rows=1) is None
    assert samples_needed(difference([0.1, 0.2, 0.3], [0.11, 0.19, 0.31]), 0.002, rows=1) > 3


@given(st.lists(st.floats(0.0, 1.0), max_size=20))
def test_correction_keeps_order_and_only_raises(p_values):
    """Corrected p-values are no smaller, at most 1, in the same order; the smallest is multiplied by their number."""
    corrected = holm(p_values)
    assert all(p <= q <= 1.0 for p, q in zip(p_values, corrected, strict=True))
    for p, q in zip(p_values, corrected, strict=True):
        for other, raised in zip(p_values, corrected, strict=True):
            assert (p <= other) <= (q <= raised)
    if p_values:
        assert min(corrected) == min(1.0, len(p_values) * min(p_values))


def test_a_dead_zone_is_known():
    """Three processes a side can never be called worse, and the number that is asked for can."""
    found = shift([1.0, 1.01, 1.02], [2.0, 2.01, 2.02])
    assert decide(found, found.p_value, 0.05) == "undecided"
    needed = samples_needed(found, 0.05, rows=1)
    apart = shift(np.linspace(1.0, 1.02, needed), np.linspace(2.0, 2.02, needed))
    assert decide(apart, apart.p_value, 0.05) == "worse"
    assert exp(0.0) < apart.low


@given(st.lists(st.tuples(TIMES, TIMES), max_size=6))
def test_many_shifts_are_those_of_each_alone(pairs):
    """Whatever else is reckoned with together, in the order given."""
    assert shifts(pairs) == [shift(*pair) for pair in pairs]


@pytest.mark.parametrize("scatter", [0.001, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("ratio", [1.0, 1.02, 1.049, 1.06, 1.2])
@pytest.mark.parametrize("rows", [1, 2_000])
def test_no_fewer_samples_would_decide(scatter, ratio, rows):
    """What is needed is the first count of all that decides, as if each had been tried."""
    found = Shift(ratio, ratio, ratio, 0.5, scatter, 3, sure=True)
    edge, size = np.log(1.05), abs(np.log(ratio))
    tried = (n for n in range(max(least_samples(rows), 4), 1_001) if _decides(n, size, edge, scatter, rows))
    assert samples_needed(found, 0.05, rows) == next(tried, None)


@given(gaps=st.lists(st.floats(-1.0, 1.0).map(lambda gap: round(gap, 6)), min_size=2, max_size=30))
def test_paired_p_values_are_those_of_scipy(gaps):
    """The paired t test says what SciPy's says, down to the tails that corrected tables are decided in."""
    assume(max(gaps) - min(gaps) > 1e-5)
    found = difference([0.0] * len(gaps), gaps)
    assert found.p_value == pytest.approx(float(ttest_1samp(gaps, 0.0).pvalue), rel=1e-9)
