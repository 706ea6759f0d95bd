"""Routing iterations: their costs add up, the slope is that of the points, the metrics are those of the record."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import assert_adds_up, by_name, column
from sample_records import EVENTS, ROUTING, case, exact, iteration_run, record, run, schema_1

from capsbench.measure.optable import OpEvent
from capsbench.report.format import NOTHING
from capsbench.report.iterations import OUTSIDE, iteration_tables, slope
from capsbench.report.routing import routing_tables

events = st.lists(
    st.builds(
        OpEvent,
        op=st.sampled_from(["Mul", "View"]),
        native=st.just("n"),
        layer=st.sampled_from([None, "caps"]),
        phase=...,
        routing_iteration=st.sampled_from([None, 0, 1, 10, 2]),
        calls=st.integers(0, 10**6),
        self_seconds=st.floats(0, 10),
        allocated_bytes=st.integers(0, 10**12),
    ),
    min_size=1,
    max_size=30,
).map(tuple)


@given(events, st.floats(0, 1000), st.integers(0, 10**9), st.sampled_from([None, "forward", "backward"]))
def test_iterations_add_up_to_the_step(ops, seconds, rest, phase):
    """Each iteration once and in order, what lies outside, the other phases, the rest: together they are the step."""
    size = sum(each.allocated_bytes for each in ops) + rest
    found = record(ops=ops, step_profile_seconds=seconds, step_profile_bytes=size)
    tables = iteration_tables([found], phase=phase)
    own = [each for each in ops if phase in {None, each.phase}]
    iterations = sorted({each.routing_iteration for each in own} - {None})
    assert bool(tables) == bool(iterations)
    for table in tables:
        assert_adds_up(table)
        assert [row[0].text for row in table.rows][: len(iterations)] == list(map(str, iterations))
        for i, row in zip(iterations, table.rows, strict=False):
            assert row[3].value == sum(each.calls for each in own if each.routing_iteration == i)
        assert [cell.value for cell in table.rows[-1][1:3]] == [size, seconds]


def test_what_does_not_route_has_a_line_of_its_own():
    """Ops of no iteration stand under outside routing; a network without any has no table."""
    tables = iteration_tables(run())
    assert [table.title for table in tables] == ["Routing iterations: em-seed"]
    outside = by_name(tables[0], "calls", "torch:eager")[OUTSIDE]
    assert outside.value == sum(each.calls for each in EVENTS if each.routing_iteration is None)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6, unique=True), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_points_on_a_line_have_its_slope(counts, offset, rise):
    """The slope of values that grow evenly is what they grow by."""
    iterations = np.array(counts)
    assert slope(iterations, offset + rise * iterations) == pytest.approx(rise, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("iterations", "values"), [([], []), ([2], [1.0]), ([2, 2], [1.0, 3.0]), ([1, 2], [1.0, float("nan")])]
)
def test_one_count_has_no_slope(iterations, values):
    """With fewer than two counts, or nothing finite at one of them, nothing is said of the slope."""
    assert slope(np.array(iterations, dtype=int), np.array(values)) is None


def test_the_slope_is_by_all_cases_that_differ_in_count_and_seed():
    """Four cases of three counts give one row with their least-squares slopes, however many tables of costs."""
    *costs, slopes = iteration_tables(iteration_run())
    assert len(costs) == 3
    assert not any("gives the slope" in note for table in costs for note in table.notes)
    assert len(slopes.rows) == 1
    assert {"iterations 1, 2, 3", "points 4"} <= set(slopes.context)
    # Each count adds a quarter of what `metrics` says of one.
    assert column(slopes, "peak")[0].value == pytest.approx(0.25 * 163_123_456, rel=1e-6)
    assert column(slopes, "allocated")[0].value == pytest.approx(0.25 * 1_650_300_333, rel=1e-6)
    assert column(slopes, "train\nstep")[0].value == pytest.approx(0.25 * 0.2123)
    assert column(slopes, "forward")[0].value == pytest.approx(0.25 * 0.0611)


def test_realizations_and_settings_have_slopes_of_their_own():
    """What differs in more than count and seed is never one line's points."""
    both = [
        record(case(iterations=n, backend=backend, batch=batch), metrics={"peak_bytes": exact(n * size, "B")})
        for backend, batch, size in (("torch", 50, 7), ("tensorflow", 50, 11), ("torch", 10, 3))
        for n in (1, 3)
    ]
    table = iteration_tables(both)[-1]
    assert [cell.value for cell in column(table, "peak")] == pytest.approx([7, 11, 3])
    assert [cell.text for cell in column(table, "forward")] == [NOTHING] * 3


def test_a_single_count_says_what_would_give_the_slope():
    """Instead of a slope there is a note on how to come by one."""
    [table] = iteration_tables([record()])
    assert any("`routing_iterations: [1, 2, 3]`" in note for note in table.notes)


def test_routing_metrics_stand_by_layer_and_iteration():
    """Every number of the record is in its place; who has none has no column, and old records no table."""
    [table] = routing_tables([record(), record(case(backend="tensorflow", mode="graph"), routing=ROUTING[1:])])
    assert [(row[0].text, row[1].value) for row in table.rows] == [
        ("conv_caps1", 0),
        ("conv_caps1", 1),
        ("conv_caps2", 0),
        ("conv_caps2", 1),
    ]
    assert [cell.value for cell in column(table, "gain %", "torch:eager")] == [0.0, 0.125, 0.0, 0.125]
    assert [cell.text for cell in column(table, "starved %", "tensorflow:graph")] == [NOTHING, "1.10", "0.10", "1.10"]
    assert routing_tables([schema_1(), replace(record(), routing=())]) == ()
