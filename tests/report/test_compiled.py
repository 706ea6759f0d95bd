"""Compiled modes: who they are held against, and when they pay off."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import column
from sample_records import COMPILED_NOTE, UNPROFILED, case, event, failed, record, run, sampled, schema_1, timed

from capsbench.report.compiled import compiled_tables, is_compiled, pays_off_after
from capsbench.report.format import NOTHING
from capsbench.report.tables import report

times = st.floats(1e-6, 1e4)


@given(times, times, times, times)
def test_at_the_break_even_both_have_taken_the_same_time(first, step, other_first, other_step):
    """After that many steps the totals are equal; it is never where a later step is no faster."""
    steps = pays_off_after(first, step, other_first, other_step)
    if other_step <= step:
        assert steps is None
    elif first <= other_first:
        assert steps == 0
    else:
        assert first + steps * step == pytest.approx(other_first + steps * other_step, rel=1e-6)


def rival(mode, first, step, **changes):
    """A timed case of the same work."""
    return record(case(mode=mode), metrics=timed(first, step), **{**UNPROFILED, **changes})


def test_each_compiled_mode_is_held_against_each_other_mode_of_its_backend():
    """Speed-up and break-even against every mode that is not compiled, and against no other backend's."""
    records = [
        rival("eager", 0.5, 0.2),
        rival("tiled", 0.5, 0.05),
        rival("compile", 20.5, 0.1),
        record(case(backend="tensorflow", mode="graph"), metrics=timed(1.0, 0.3)),
    ]
    [table] = compiled_tables(records)
    assert [cell.text for cell in column(table, "against")] == ["eager", "tiled"]
    assert [cell.value for cell in column(table, "speed-up")] == pytest.approx([2.0, 0.5])
    assert [cell.text for cell in column(table, "pays off\nafter steps")] == ["200", "never"]


def test_other_work_is_no_rival():
    """Another batch, network, thread count or iteration count is not what compiling saves."""
    others = [record(case(**other)) for other in ({"batch": 10}, {"network": "em-tiny"}, {"threads": 1})]
    [table] = compiled_tables([rival("compile", 20.5, 0.1), *others])
    assert [cell.text for cell in column(table, "against")] == [NOTHING]
    assert [cell.text for cell in column(table, "speed-up")] == [NOTHING]


@pytest.mark.parametrize(
    "found",
    [
        rival("compile", 1.0, 1.0),
        rival("odd", 1.0, 1.0, notes=(COMPILED_NOTE,)),
        rival("odd", 1.0, 1.0, ops=(event("Compiled", "XlaLaunch", "forward", 1, 0.1, 10),)),
    ],
)
def test_compiled_modes_are_known_by_op_note_or_name(found):
    """A stranger's compiled mode is recognised by what its profile says."""
    assert is_compiled(found)


def test_kernels_that_are_compiled_layer_by_layer_are_held_against_plain_modes():
    """The fused mode has a row, though its ops are no compiler's; what compiling took stands in it."""
    kernels = rival("fused", 6.0, 0.1)
    kernels = replace(kernels, metrics={**kernels.metrics, "compile_seconds": sampled([12.5])})
    [table] = compiled_tables([kernels, rival("eager", 0.5, 0.2), rival("tiled", 0.5, 0.4)])
    assert not is_compiled(kernels)
    assert [cell.text for cell in column(table, "against")] == ["eager", "tiled"]
    assert "compiling 12.5 s" in table.context


def test_without_compiled_modes_or_times_there_is_no_table():
    """Plain modes, untimed and failed cases give none."""
    untimed = record(case(mode="compile"), metrics={})
    assert compiled_tables([record(), schema_1(), untimed, failed(case(mode="xla"), "oom", "why")]) == ()


def test_the_table_is_part_of_the_report():
    """A run with a compiled mode prints it without being asked."""
    assert "Compiled modes" in [table.title for table in report(run()).tables]


def test_missing_and_infinite_times_are_shown_as_what_they_are():
    """Without a first step nothing is said of when it pays off."""
    plain = record(case(mode="compile"), **UNPROFILED)
    [table] = compiled_tables([plain, rival("eager", float("inf"), 0.2)])
    assert [cell.text for cell in column(table, "pays off\nafter steps")] == [NOTHING]
