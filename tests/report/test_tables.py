"""The tables as data: rows add up, nothing is left out, what must be known is said."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_records import EVENTS, case, exact, failed, metrics, record, run

from capsbench.measure.optable import OpEvent, StepProfile, rows
from capsbench.report.format import NOTHING
from capsbench.report.ops import op_tables
from capsbench.report.table import Cell, Column, Table, cut, share
from capsbench.report.tables import report

events = st.lists(
    st.builds(
        OpEvent,
        op=st.sampled_from(["Mul", "Sum", "View", "Conv2D", "Other:x", "Exp", "Sub"]),
        native=st.just("n"),
        layer=st.sampled_from([None, "conv1", "caps"]),
        phase=...,
        routing_iteration=st.none(),
        calls=st.integers(0, 10**6),
        self_seconds=st.floats(0, 10),
        allocated_bytes=st.integers(0, 10**12),
    ),
    min_size=1,
    max_size=30,
).map(tuple)


def number(text):
    """What a printed cell is worth."""
    return Decimal(0) if text == NOTHING else Decimal(text.replace(",", ""))


def value_columns(table):
    """The printed texts of each value column."""
    for index, column in enumerate(table.columns):
        if column.role == "value":
            yield [row[index].text for row in table.rows]


def column(table, header):
    """The printed texts below a header."""
    index = [each.header for each in table.columns].index(header)
    return [row[index].text for row in table.rows]


@given(
    st.lists(events, min_size=1, max_size=3), st.integers(1, 8), st.sampled_from(["op", "phase", "layer"]), st.data()
)
def test_every_printed_column_adds_up_to_its_printed_total(profiles, top, by, data):
    """Rows, other ops and the unattributed rest add up to the total in every column, however it is rounded."""
    modes = ["eager", "compile", "fused"]
    records = [
        record(
            case(mode=mode),
            ops=ops,
            step_profile_seconds=data.draw(st.floats(0, 1000)),
            step_profile_bytes=sum(each.allocated_bytes for each in ops) + data.draw(st.integers(0, 10**9)),
        )
        for mode, ops in zip(modes, profiles, strict=False)
    ]
    [table] = op_tables(records, by=by, top=top)
    for texts in value_columns(table):
        *parts, total = map(number, texts)
        assert sum(parts) == total


@given(events, st.integers(1, 8))
def test_totals_are_those_of_the_profiled_step(ops, top):
    """The total row's exact values are what the profiler said of the whole step."""
    size = sum(each.allocated_bytes for each in ops) + 17
    [table] = op_tables([record(ops=ops, step_profile_seconds=1.25, step_profile_bytes=size)], top=top)
    assert [cell.value for cell in table.rows[-1][1:3]] == [size, 1.25]
    assert len(table.rows) <= top + 3


def test_op_rows_hold_what_the_profile_holds():
    """A canonical op's row shows the bytes, time and calls of all its events, in every framework's columns."""
    [table, _] = op_tables(run(), top=3)
    by_op = {row[0].text: row[1:] for row in table.rows}
    profile = StepProfile(EVENTS, 0.131_313, 1_650_300_333)
    wanted = {row.op: row for row in rows(profile)}
    for op in ("BatchMatMul", "Mul"):
        values = [cell.value for cell in by_op[op][:3]]
        assert values == [wanted[op].allocated_bytes, wanted[op].self_seconds, wanted[op].calls]
    assert [each.group for each in table.columns[1::3]] == ["torch:eager", "tensorflow:graph", "torch:compile"]


def test_an_op_that_only_costs_time_is_not_overlooked():
    """What is expensive in one column only, bytes or time, stands above what is cheap everywhere."""
    ops = (
        OpEvent("Big", "b", None, "forward", None, 1, 0.0, 900),
        OpEvent("Slow", "s", None, "forward", None, 1, 0.8, 0),
        OpEvent("Cheap", "c", None, "forward", None, 1, 0.1, 100),
    )
    [table] = op_tables([record(ops=ops, step_profile_seconds=1.0, step_profile_bytes=1000)], top=2)
    assert [row[0].text for row in table.rows] == ["Big", "Slow", "1 other op", "(unattributed)", "total"]


def test_layers_are_summed_and_what_has_none_says_so():
    """Each layer's bytes are those of its ops; ops without a layer have a row of their own."""
    [table] = op_tables([record()], by="layer")
    sizes = {row[0].text: row[1].value for row in table.rows}
    assert sizes["class_caps"] == 55_555_555 + 3_333_333
    assert sizes["(no layer)"] == 322_222_222 + 123


def test_realizations_that_differ_in_a_setting_have_columns_of_their_own():
    """The same mode on two devices is named with its device, and neither hides the other."""
    [table] = op_tables([record(), record(case(device="cuda:0"))])
    assert [each.group for each in table.columns[1::3]] == ["torch:eager, device cpu", "torch:eager, device cuda:0"]


def test_every_case_has_a_row_in_both_tables():
    """A case that failed is a row with its status, and its reason is among the notes."""
    found = report(run())
    accuracy, cost, *_ = found.tables
    assert len(accuracy.rows) == len(cost.rows) == len(run())
    assert column(accuracy, "status")[-1] == column(cost, "status")[-1] == "oom (1)"
    assert found.notes == ("oom: the worker asked for more than 12.0 GiB",)
    assert column(accuracy, "accuracy %")[-1] == NOTHING


def test_notes_of_every_case_are_said_once_and_others_where_they_belong():
    """What holds for all that ran needs no mark; what holds for one case is marked at that case only."""
    records = [record(notes=("all", "one")), record(case(seed=1), notes=("all",)), failed(case(seed=2), "crash", "")]
    found = report(records)
    assert found.general == ("all",)
    assert found.notes == ("one", "crash: no reason was given")
    assert column(found.tables[0], "status") == ["ok (1)", "ok", "crash (2)"]


def test_what_compiled_modes_cannot_tell_stands_under_the_ops():
    """A note on ops is printed with the op table, with the realization it is of."""
    table = report(run()).tables[3]
    assert "torch:compile: ops: compiled, so kernels hold several ops each." in table.notes


def test_data_say_how_much_of_a_split_was_used():
    """A part of a split is never shown as if it were the whole."""
    table = report([record()]).tables[0]
    assert {"trained on 10,000 of 60,000", "tested on 10,000", "epochs 5"} <= set(table.context)


def test_seeds_are_summed_up_in_words():
    """Several seeds of one case give a sentence with mean and range."""
    records = [record(case(seed=seed), metrics=metrics(accuracy=value)) for seed, value in enumerate((0.9, 0.92, 0.97))]
    assert report(records).tables[0].notes == (
        "em-seed, torch:eager, batch 50: mean accuracy over 3 seeds 93.00 % (90.00 to 97.00 %).",
    )


def test_numbers_that_are_not_finite_are_shown_as_what_they_are():
    """A NaN in a metric is printed, not hidden and not fatal."""
    table = report([record(metrics={"accuracy": exact(float("nan"), "1")}, ops=())]).tables[0]
    assert column(table, "accuracy %") == ["nan"]


def test_no_records_make_no_rows():
    """Tables of nothing are empty, not an error."""
    found = report([])
    assert [len(table.rows) for table in found.tables] == [0, 0]


def test_share_moves_only_what_rows_agree_on():
    """A column leaves where all rows that have a cell there agree, and stays otherwise."""
    columns = (Column("a", shared="a {}"), Column("b", shared="b {}"), Column("c"))
    cells = [tuple(map(Cell, texts)) for texts in (("1", "1", "1"), (NOTHING, "2", "1"))]
    shared = share(Table("t", columns, tuple(cells)))
    assert [each.header for each in shared.columns] == ["b", "c"]
    assert shared.context == ("a 1",)


@given(
    st.lists(st.tuples(st.sampled_from(["", "x", "y"]), st.integers(1, 30)), min_size=1, max_size=12),
    st.integers(20, 200),
)
def test_blocks_hold_every_column_once_and_fit(spec, width):
    """Each value column stands in one block, key and status in all, and blocks of more than one value column fit."""
    columns = (Column("k", "key"), *(Column("v", group=group) for group, _ in spec), Column("s", "status"))
    widths = [5, *(size for _, size in spec), 3]
    blocks = cut(Table("t", columns, ()), widths, width, 2)
    values = [index for block in blocks for index in block[1:-1]]
    assert sorted(values) == list(range(1, len(spec) + 1))
    for block in blocks:
        assert (block[0], block[-1]) == (0, len(columns) - 1)
        assert len(block) == 3 or sum(widths[i] + 2 for i in block) - 2 <= width


@pytest.mark.parametrize("status", ["oom", "timeout", "diverged", "unsupported", "parity_failed", "crash"])
def test_partial_metrics_of_failed_cases_are_shown(status):
    """What was measured before a case failed is not thrown away."""
    part = replace(failed(case(), status, "why"), metrics={"parameters": exact(319_568, "1")})
    assert column(report([part]).tables[1], "params") == ["319,568"]
