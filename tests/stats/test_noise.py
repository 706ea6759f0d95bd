"""The noise floor: what share of comparisons of equal code it holds, and that drift does not pass for noise."""

from math import exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsbench.stats.noise import (
    SHARE,
    SIDES,
    apart_reach,
    floor_of,
    floors,
    interleaved_reach,
    pair_scatter,
    rounds_to_find,
)
from capsbench.stats.shift import shift

NAME = "train_step_seconds"


def medians(generator, blocks, *, scatter=0.05, shared=0.0, drift=0.0):
    """Times of processes, pair after pair, that scatter, have their moments in common, and grow from first to last."""
    count = len(SIDES) * blocks
    moments = np.repeat(shared * generator.standard_normal(count // 2) + drift * np.linspace(0.0, 1.0, count // 2), 2)
    return np.exp(scatter * generator.standard_normal(count) + moments).tolist()


def test_equal_code_stays_within_the_floor():
    """Of ratios of fresh pairs about 99 % lie within the floor that others of the same kind gave."""
    generator = np.random.default_rng(1)
    reach = interleaved_reach(np.log(medians(generator, 50, shared=0.3)), 6)
    drawn = [medians(generator, 3, shared=0.3) for _ in range(500)]
    held = sum(abs(log(shift(times[::2], times[1::2], paired=True).ratio)) <= reach for times in drawn)
    assert 0.97 <= held / 500 < 1.0
    assert SHARE == 0.99


def test_more_processes_have_a_lower_floor():
    """With scatter alone the reach falls about as one over the root of the pairs."""
    logs = np.log(medians(np.random.default_rng(2), 100))
    few, many = (interleaved_reach(logs, count) for count in (5, 20))
    assert few / many == pytest.approx(2.0, rel=0.15)


def test_what_pairs_have_in_common_cancels():
    """Moments that differ by a fifth, and a machine that slows down by a half, move two runs in a row but no pairs."""
    generator = np.random.default_rng(3)
    alone = np.log(medians(generator, 20, scatter=0.01))
    logs = np.log(medians(generator, 20, scatter=0.01, shared=0.2, drift=log(1.5)))
    assert interleaved_reach(logs, 10) == pytest.approx(interleaved_reach(alone, 10), rel=0.3)
    assert apart_reach(logs, 10) > 10 * interleaved_reach(logs, 10)
    assert pair_scatter(logs) == pytest.approx(0.01 * np.sqrt(2), rel=0.3)


def test_a_side_that_starts_first_and_is_slower_for_it_is_noise():
    """The first of every pair takes a tenth longer: that is scatter of equal code, whatever side it stood for."""
    times = [1.1, 1.0] * 8
    assert pair_scatter(np.log(times)) == pytest.approx(log(1.1))
    assert interleaved_reach(np.log(times), 1) == pytest.approx(log(1.1))


def test_two_runs_in_a_row_never_have_the_lower_floor():
    """Where the largest gap between windows happens to be small, the resampled one counts."""
    for seed in range(5):
        for each in floors({NAME: medians(np.random.default_rng(seed), 3)}):
            assert each.apart >= each.interleaved


def test_a_floor_is_stated_for_what_was_recorded():
    """Three blocks give floors for up to six a side; more take that for six, fewer than known take none."""
    known = floors({NAME: medians(np.random.default_rng(4), 3)})
    assert [each.processes for each in known] == [1, 2, 3, 4, 5, 6]
    assert floor_of(known, NAME, 40, interleaved=True) == known[-1].interleaved
    assert floor_of(known, NAME, 4, interleaved=False) == known[3].apart
    assert floor_of(known[2:], NAME, 2, interleaved=True) is None
    assert floor_of(known, "forward_seconds", 4, interleaved=True) is None


@given(st.lists(st.floats(1e-6, 1e3), min_size=4, max_size=4), st.floats(1e-3, 1e3))
def test_units_play_no_part(block, factor):
    """Milliseconds have the floor of seconds, and no floor is below nothing."""
    here, there = floors({NAME: block}), floors({NAME: [factor * value for value in block]})
    for one, other in zip(here, there, strict=True):
        assert one.interleaved >= 0.0
        assert log(1.0 + one.interleaved) == pytest.approx(log(1.0 + other.interleaved), abs=1e-9)


def test_rounds_are_named_where_any_would_do():
    """A smaller slowdown, more scatter and more rows take more of them; below the floor no number does."""
    low = floors({NAME: medians(np.random.default_rng(6), 12, scatter=0.06)})
    rounds = rounds_to_find(1.1, 0.08, low)
    assert rounds_to_find(1.2, 0.08, low) < rounds < rounds_to_find(1.1, 0.08, low, rows=100)
    assert rounds < rounds_to_find(1.1, 0.12, low)
    high = floors({NAME: medians(np.random.default_rng(6), 12, scatter=0.3)})
    assert floor_of(high, NAME, 200, interleaved=True) > 0.1
    assert rounds_to_find(1.1, 0.08, high) is None


def test_a_quiet_machine_needs_as_many_rounds_as_the_table_is_long():
    """Where pairs hardly scatter, the fewest pairs that can reject at all decide."""
    quiet = floors({NAME: medians(np.random.default_rng(8), 12, scatter=0.001)})
    assert [rounds_to_find(1.2, 0.002, quiet, rows=rows) for rows in (1, 24)] == [8, 13]


def test_it_repeats():
    """The same processes have the same floor, to the bit."""
    times = medians(np.random.default_rng(5), 4)
    assert floors({NAME: times}) == floors({NAME: times})


def test_processes_all_alike_have_no_noise():
    """A clock that always says the same leaves a floor of zero."""
    assert {(each.interleaved, each.apart) for each in floors({NAME: [0.5] * 8})} == {(exp(0.0) - 1.0, 0.0)}


@pytest.mark.parametrize("bad", [[], [1.0] * 3, [1.0, 1.0, 1.0, 0.0], [1.0, 1.0, float("nan"), 1.0]])
def test_what_is_no_experiment_is_refused(bad):
    """No whole blocks, or times that are none."""
    with pytest.raises(ValueError, match=NAME):
        floors({NAME: bad})
