"""Equations beside measurements: sums, rates, shares of ceilings, and what bounds."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import assert_adds_up, by_name
from sample_records import EQUATIONS, EVENTS, case, event, record, run, schema_1

from capsbench.measure.ceilings import Ceilings
from capsbench.record.ceilings import DeviceCeilings
from capsbench.report.format import NOTHING
from capsbench.report.parts import Spent
from capsbench.report.roofline import Need, best_ceilings, roofline_tables

CEILINGS = (DeviceCeilings("cpu", 2, "float32", "torch", Ceilings(1e11, 1e10)),)


@pytest.mark.parametrize(
    ("flops", "least", "allocated", "seconds", "wanted"),
    [
        (10**11, 0, 0, 1.0, "arithmetic"),
        (10**11, 10**10 + 1, 0, 1.0, "memory"),
        (0, 0, 5 * 10**9, 1.0, "memory"),
        (0, 0, 5 * 10**9, 4.0, "memory"),
        (0, 0, 5 * 10**9, 4.1, "overhead"),
        (10**11, 0, 0, 4.1, "overhead"),
        (2 * 10**11, 0, 5 * 10**9, 4.1, "arithmetic"),
    ],
)
def test_a_layer_is_bound_by_what_takes_longer(flops, least, allocated, seconds, wanted):
    """Arithmetic or memory at the ceiling, whichever is longer, and overhead where neither is a quarter of the time."""
    spent = Spent(1, seconds, allocated)
    assert Need(flops, least).bound(spent, Ceilings(1e11, 1e10)) == wanted


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_traffic_is_at_least_twice_what_was_allocated_and_what_must_move(least, allocated):
    """Allocated bytes are written once and read at least once; no backend moves less than the equations ask for."""
    assert Need(0, least).traffic_bytes(Spent(1, 1.0, allocated)) == max(2 * allocated, least)


def test_seconds_and_bytes_add_up_to_the_step():
    """Layers, ops without one, and the rest sum to the measured total, for every realization."""
    tables = roofline_tables(run(), CEILINGS)
    assert [table.title.split(": ")[1] for table in tables] == ["em-seed", "cnn-seed"]
    for table in tables:
        assert_adds_up(table, {"ms", "MB"})
    assert [row[0].text for row in tables[0].rows] == [
        "conv1",
        "conv_caps1",
        "conv_caps2",
        "class_caps",
        "loss",
        "(no layer)",
        "(unattributed)",
        "total",
    ]


def test_rates_are_flops_and_traffic_over_seconds():
    """A layer's rates follow from its equations and its events, and its shares from the ceilings."""
    [table] = roofline_tables([record()], CEILINGS)
    own = [each for each in EVENTS if each.layer == "conv_caps2"]
    seconds, allocated = sum(e.self_seconds for e in own), sum(e.allocated_bytes for e in own)
    rate = by_name(table, "GFLOP\n/s")["conv_caps2"].value
    assert rate == pytest.approx(1_260_445_632 / seconds)
    assert by_name(table, "GB/s")["conv_caps2"].value == pytest.approx(2 * allocated / seconds)
    assert by_name(table, "% of\nGEMM")["conv_caps2"].value == pytest.approx(rate / 1e11)
    assert by_name(table, "% of\ncopy")["conv_caps2"].value == pytest.approx(2 * allocated / seconds / 1e10)
    assert by_name(table, "GB/s")["conv1"].value == pytest.approx(2_180_000 / 0.008_76)
    assert by_name(table, "bound by")["conv1"].text == "overhead"
    assert by_name(table, "least\nFLOPs")["total"].value == sum(cost.train_step_flops for cost in EQUATIONS)
    assert by_name(table, "GFLOP\n/s")["loss"].text == NOTHING


def test_an_evaluation_is_held_against_the_forward_equations():
    """FLOPs and bytes of the forward pass alone, seconds of the forward profile."""
    [table] = roofline_tables([record()], which="forward")
    assert by_name(table, "least\nFLOPs")["conv_caps1"].value == 616_000_000
    assert by_name(table, "torch:eager\nms")["total"].value == 0.0611


def test_without_ceilings_their_columns_are_left_out():
    """No share and no bound is guessed, and a note says what measures the ceilings."""
    [table] = roofline_tables([record()])
    assert not {"bound by", "% of\nGEMM", "% of\ncopy"} & {each.header for each in table.columns}
    assert any("`capsbench doctor`" in note for note in table.notes)


def test_ceilings_are_of_the_same_device_threads_and_precision_and_the_best_of_all_backends():
    """Each number is the best that any backend reached there; what was measured elsewhere says nothing."""
    known = (
        DeviceCeilings("cpu", 2, "float32", "torch", Ceilings(5.0, 2.0)),
        DeviceCeilings("cpu", 2, "float32", "tensorflow", Ceilings(3.0, 4.0)),
        DeviceCeilings("cpu", 1, "float32", "torch", Ceilings(9.0, 9.0)),
        DeviceCeilings("cpu", 2, "float64", "torch", Ceilings(9.0, 9.0)),
        DeviceCeilings("cuda:0", 2, "float32", "torch", Ceilings(9.0, 9.0)),
        DeviceCeilings("cpu", 2, "float32", "broken", Ceilings(0.0, 9.0)),
    )
    assert best_ceilings(known, record()) == Ceilings(5.0, 4.0)
    assert best_ceilings(known, record(case(threads=7))) is None


def test_old_records_and_layers_without_time_are_no_obstacle():
    """Without equations there is no table; without seconds there is no rate."""
    assert roofline_tables([schema_1()], CEILINGS) == ()
    nothing = (event("Mul", "aten::mul", "forward", 1, 0.0, 100),)
    still = replace(record(), ops=nothing, step_profile_seconds=0.0, step_profile_bytes=100)
    [table] = roofline_tables([still], CEILINGS)
    assert by_name(table, "GB/s")["conv_caps1"].text == by_name(table, "bound by")["total"].text == NOTHING


def test_mixed_precision_is_held_against_no_ceiling():
    """Not against float32's, and nobody is sent to the doctor, who has none for it."""
    [table] = roofline_tables([record(case(precision="mixed_bfloat16"))], CEILINGS)
    assert not {"bound by", "% of\nGEMM", "% of\ncopy"} & {each.header for each in table.columns}
    assert any("mixed precision has no ceilings" in note for note in table.notes)
    assert not any("doctor" in note for note in table.notes)
