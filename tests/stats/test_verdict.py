"""One word for two sets of samples: how often it is right, and that it is never more than they say."""

from math import exp

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from capsbench.stats.shift import Shift, shift, shifts
from capsbench.stats.verdict import (
    _RANK_SUM,
    _SIGNED_RANK,
    ALPHA,
    _decides,
    decide,
    difference,
    finds,
    holm,
    least_pairs,
    least_samples,
    samples_needed,
)

TIME = st.floats(1e-6, 1e3)
TIMES = st.lists(TIME, min_size=1, max_size=8)
PAIRED = st.lists(st.tuples(TIME, TIME), min_size=1, max_size=12)


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
    assert held >= 2_000 * 0.945


def test_equal_samples_are_no_evidence():
    """Where samples tie the p-value is approximated, and where all are equal it is one."""
    assert shift([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]).p_value == 1.0
    assert 0.0 < shift([1.0, 1.0, 2.0, 3.0], [4.0, 4.0, 5.0, 6.0]).p_value < 0.05


def matched(generator, count, *, factor=1.0, scatter=0.03, shared=0.3):
    """Medians of processes of A and B that ran at the same time, in pairs whose log ratio scatters by so much."""
    moments = np.exp(shared * generator.standard_normal(count))
    return moments, moments * drawn(generator, count, factor=factor, scatter=scatter)


def paired_words(factor, *, trials, count=10, scatter=0.03, rows=1):
    """Verdicts of many comparisons of pairs, each in a table of so many rows."""
    generator = np.random.default_rng(13)
    sides = [matched(generator, count, factor=factor, scatter=scatter) for _ in range(trials)]
    found = shifts(sides, paired=True)
    return [decide(each, min(1.0, rows * each.p_value), 0.05) for each in found]


def test_what_pairs_have_in_common_cancels():
    """On a machine whose moments differ by 30 % a tenth is found where pairs scatter by 3 %, and not without pairs."""
    assert paired_words(1.1, trials=100).count("worse") >= 98
    assert paired_words(1.0 / 1.1, trials=100).count("better") >= 98
    assert paired_words(1.0, trials=100).count("same") >= 95
    generator = np.random.default_rng(13)
    alone = [shift(*matched(generator, 10, factor=1.1)) for _ in range(100)]
    assert sum(decide(each, each.p_value, 0.05) == "worse" for each in alone) <= 5


@pytest.mark.parametrize(("scatter", "count"), [(0.03, 8), (0.1, 10), (0.3, 12)])
def test_paired_equals_are_seldom_called_worse(scatter, count):
    """Of two thousand comparisons of a program with itself at most 1 % are called worse, and as many better."""
    words = paired_words(1.0, trials=2_000, scatter=scatter, count=count)
    assert words.count("worse") <= 2_000 * ALPHA
    assert words.count("better") <= 2_000 * ALPHA


def test_paired_estimates_are_right():
    """Over two thousand comparisons the ratio lies about the planted factor, and 95 % of intervals hold it."""
    generator = np.random.default_rng(29)
    found = shifts([matched(generator, 9, factor=1.07) for _ in range(2_000)], paired=True)
    logs = np.log([each.ratio for each in found])
    assert logs.mean() == pytest.approx(np.log(1.07), abs=4 * logs.std() / np.sqrt(2_000))
    assert 0.935 <= np.mean([each.low <= 1.07 <= each.high for each in found]) <= 0.97
    assert np.sqrt(np.mean([2 * each.scatter**2 for each in found])) == pytest.approx(0.03, rel=0.03)
    assert {each.paired for each in found} == {True}


@given(PAIRED)
def test_a_paired_comparison_turned_round_is_the_inverse(samples):
    """B against A has one over the ratio and its ends, and the same p-value; the order of pairs plays no part."""
    base, new = zip(*samples, strict=True)
    there, back = shift(base, new, paired=True), shift(new, base, paired=True)
    assert back.ratio == pytest.approx(1.0 / there.ratio)
    assert back.low == pytest.approx(1.0 / there.high)
    assert back.high == pytest.approx(1.0 / there.low)
    assert back.p_value == there.p_value
    assert there.low <= there.ratio * (1 + 1e-12)
    assert there.ratio <= there.high * (1 + 1e-12)
    turned = shift(base[::-1], new[::-1], paired=True)
    assert (turned.ratio, turned.p_value) == (pytest.approx(there.ratio), there.p_value)


def test_few_pairs_have_no_sure_interval():
    """Five pairs cannot hold 95 %, so that the interval is all there is; six can."""
    base = np.ones(6)
    for count in (1, 5, 6):
        found = shift(base[:count], (base + np.arange(6) / 100)[:count], paired=True)
        assert found.sure == (count == 6)
        assert (found.low, found.high) == (1.0, pytest.approx(1.0 + (count - 1) / 100))


def test_sides_of_other_lengths_are_no_pairs():
    """Where a round of one side is missing, nothing is known of what belongs together."""
    assert shift([1.0, 1.1, 1.2], [1.0, 1.1], paired=True) == shift([1.0, 1.1, 1.2], [1.0, 1.1])
    assert not shift([1.0, 1.1, 1.2], [1.0, 1.1], paired=True).paired
    assert shift([1.0, 0.0], [1.0, 1.0], paired=True) is None
    assert shift([], [], paired=True) is None


@pytest.mark.parametrize(("rows", "least"), [(1, 8), (2, 9), (24, 13), (100, 15)])
def test_the_fewest_pairs_are_known(rows, least):
    """With so many pairs of the same sign a row of a table is rejected, with one fewer it is not."""
    assert least_pairs(rows) == least
    base, new = np.ones(least), 1.5 + np.arange(least) / 100
    assert rows * shift(base, new, paired=True).p_value <= ALPHA
    assert rows * shift(base[1:], new[1:], paired=True).p_value > ALPHA


@pytest.mark.parametrize(("scatter", "rows"), [(0.06, 1), (0.1, 2), (0.045, 24), (0.08, 24)])
def test_so_many_pairs_as_are_named_find_a_tenth(scatter, rows):
    """The first number with a power of 80 % has it, about, and what is undecided asks for that number."""
    needed = next(n for n in range(2, 200) if finds(n, 1.1, 0.05, scatter / np.sqrt(2), rows))
    found = paired_words(1.1, trials=500, count=needed, scatter=scatter, rows=rows)
    assert 0.72 <= found.count("worse") / 500 <= 0.97
    seen = Shift(1.1, 0.9, 1.3, 0.2, scatter / np.sqrt(2), 3, sure=False, paired=True)
    assert samples_needed(seen, 0.05, rows) == needed


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


@given(st.lists(st.tuples(TIMES, TIMES), max_size=6), st.booleans())
def test_many_shifts_are_those_of_each_alone(pairs, paired):
    """Whatever else is reckoned with together, in the order given."""
    assert shifts(pairs, paired=paired) == [shift(*pair, paired=paired) for pair in pairs]


@pytest.mark.parametrize("scatter", [0.001, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("ratio", [1.0, 1.02, 1.049, 1.06, 1.2])
@pytest.mark.parametrize("rows", [1, 2_000])
@pytest.mark.parametrize("paired", [False, True])
def test_no_fewer_samples_would_decide(scatter, ratio, rows, paired):
    """What is needed is the first count of all that decides, as if each had been tried."""
    found = Shift(ratio, ratio, ratio, 0.5, scatter, 3, sure=True, paired=paired)
    edge, size = np.log(1.05), abs(np.log(ratio))
    least, test = (least_pairs, _SIGNED_RANK) if paired else (least_samples, _RANK_SUM)
    tried = (n for n in range(max(least(rows), 4), 1_001) if _decides(n, size, edge, scatter, rows, test))
    assert samples_needed(found, 0.05, rows) == next(tried, None)


@given(gaps=st.lists(st.floats(-1.0, 1.0).map(lambda gap: round(gap, 6)), min_size=2, max_size=30))
def test_paired_p_values_are_those_of_scipy(gaps):
    """The paired t test says what SciPy's says, down to the tails that corrected tables are decided in."""
    assume(max(gaps) - min(gaps) > 1e-5)
    found = difference([0.0] * len(gaps), gaps)
    assert found.p_value == pytest.approx(float(ttest_1samp(gaps, 0.0).pvalue), rel=1e-9)
