"""The tables as data: rows add up, nothing is left out, what must be known is said."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_records import ALIVE, EVENTS, FORWARD, case, exact, failed, record, run, schema_1

from capsbench.measure.ceilings import Ceilings
from capsbench.measure.optable import VIEW, OpEvent
from capsbench.record.ceilings import DeviceCeilings
from capsbench.report.format import NOTHING
from capsbench.report.ops import op_tables
from capsbench.report.parts import VIEWS
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


CLOSING = (VIEWS, "(other phases)", "(unattributed)", "total")


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
    assert len(table.rows) <= top + 4


def test_op_rows_hold_what_the_profile_holds():
    """A canonical op's row shows the bytes, time and calls of all its events, in every framework's columns."""
    [table, _] = op_tables(run(), top=3)
    by_op = {row[0].text: row[1:] for row in table.rows}
    for op in ("BatchMatMul", "Mul"):
        events = [event for event in EVENTS if event.op == op]
        size, seconds, calls = (cell.value for cell in by_op[op][:3])
        assert size == sum(event.allocated_bytes for event in events)
        assert seconds == pytest.approx(sum(event.self_seconds for event in events))
        assert calls == sum(event.calls for event in events)
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


@given(events, st.integers(1, 8))
def test_views_are_one_line_above_the_rest(ops, top):
    """Whatever moves no data stands in one row before what nothing is known of, and adds to no other row."""
    size = sum(each.allocated_bytes for each in ops)
    [table] = op_tables([record(ops=ops, step_profile_seconds=1e3, step_profile_bytes=size)], top=top)
    names = [row[0].text for row in table.rows]
    views = [each for each in ops if each.op == VIEW]
    assert names[-2:] == ["(unattributed)", "total"]
    assert (VIEWS in names) == bool(views)
    assert VIEW not in names
    if views:
        assert names.index(VIEWS) == len(names) - 3
        assert table.rows[-3][1].value == sum(each.allocated_bytes for each in views)


@pytest.mark.parametrize("sort", ["bytes", "time"])
@given(ops=events)
def test_rows_are_sorted_by_what_is_asked(sort, ops):
    """Bytes or seconds never grow from one row to the next."""
    [table] = op_tables([record(ops=ops, step_profile_seconds=1.0, step_profile_bytes=10**14)], top=100, sort=sort)
    shown = [row for row in table.rows if row[0].text[0] != "(" and row[0].text != "total"]
    values = [row[1 if sort == "bytes" else 2].value for row in shown]
    assert values == sorted(values, reverse=True)


@given(ops=events, phase=st.sampled_from(["forward", "backward", "optimizer"]))
def test_a_phase_shows_its_own_ops_and_sums_the_others_up(ops, phase):
    """Rows hold the phase's events only, the others are one line, and the total stays the step's."""
    size = sum(each.allocated_bytes for each in ops)
    [table] = op_tables(
        [record(ops=ops, step_profile_seconds=1.0, step_profile_bytes=size)], top=100, by="op", phase=phase
    )
    by_op = {row[0].text: row for row in table.rows}
    own = [each for each in ops if each.phase == phase]
    assert set(by_op) - set(CLOSING) == {each.op for each in own} - {VIEW}
    for op in set(by_op) - set(CLOSING):
        assert by_op[op][3].value == sum(each.calls for each in own if each.op == op)
    others = by_op.get("(other phases)")
    assert (others[1].value if others else 0) == sum(e.allocated_bytes for e in ops if e.phase != phase)
    assert by_op["total"][1].value == size


def test_an_evaluation_has_a_table_of_its_own():
    """The forward profile's ops and totals, not the train step's."""
    [table] = op_tables([record()], which="forward")
    assert "one evaluation" in table.context
    assert [cell.value for cell in table.rows[-1][1:3]] == [FORWARD.allocated_bytes, FORWARD.step_seconds]
    assert op_tables([schema_1()], which="forward") == ()


def test_bytes_alive_at_the_peak_add_up_layer_by_layer():
    """Layers, what was there before, and the rest make the peak; without a peak there is no such column."""
    [table] = op_tables([record()], by="layer")
    assert column(table, "alive at\npeak, MB")[-1] == "163.1"
    alive = {row[0].text: row[4].value for row in table.rows}
    assert alive["conv_caps1"] == 92_160_000 + 20_000_000
    assert alive["(before the step)"] == 11_883_952 + 5_941_976 + 156_800
    assert alive["(unattributed)"] == 2_980_728
    assert alive["total"] == sum(tensor.bytes for tensor in ALIVE)
    [old] = op_tables([schema_1()], by="layer")
    assert [each.header for each in old.columns] == ["layer", "torch:eager\nMB", "ms", "calls"]


def test_a_layer_holds_its_views():
    """Time that reshapes take in a layer is that layer's."""
    [table] = op_tables([record()], by="layer")
    calls = {row[0].text: row[3].value for row in table.rows}
    assert calls["conv_caps1"] == 12 + 24 + 44 + 321


@pytest.mark.parametrize(
    ("bare", "counted", "wanted"),
    [
        (0.1262, 1_650_300_333, "126.2 ms without the profiler, which added 4 %; bytes equal the memory pass."),
        (0.1262, None, "126.2 ms without the profiler, which added 4 %."),
        (0.2, 1_650_300_333, "200.0 ms without the profiler, 34 % more than the profiled step took; bytes equal"),
        (None, 1_650_302_333, "the memory pass, without it, counted 2.00 kB more."),
        (None, 1_650_300_000, "the memory pass, without it, counted 333 B less."),
    ],
)
def test_each_column_says_what_the_profiler_did_to_it(bare, counted, wanted):
    """What the step takes without the profiler, and whether the memory pass counted the same bytes."""
    counts = {} if counted is None else {"allocated_bytes": exact(counted, "B")}
    [table] = op_tables([record(metrics=counts, step_bare_seconds=bare)])
    assert any(note.startswith(f"torch:eager: {wanted}") for note in table.notes), table.notes


def test_a_sub_that_squares_is_said_to():
    """TensorFlow's fused op counts as Sub, and the table says so; others say nothing of it."""
    tables = [op_tables([found])[0] for found in run()[:2]]
    said = [[note for note in table.notes if "SquaredDifference" in note] for table in tables]
    assert [len(notes) for notes in said] == [0, 1]


def test_an_old_record_has_its_tables():
    """What an earlier capsbench stored is shown, without what it did not store."""
    [table] = op_tables([schema_1()])
    assert "without the profiler" not in " ".join(table.notes)
    assert report([schema_1()]).tables


def test_steps_without_time_or_bytes_have_tables():
    """Zero seconds and zero bytes divide nothing by zero."""
    nothing = tuple(replace(each, self_seconds=0.0, allocated_bytes=0) for each in EVENTS)
    [table] = op_tables([record(ops=nothing, step_profile_seconds=0.0, step_profile_bytes=0, step_bare_seconds=0.0)])
    assert {row[1].text for row in table.rows} == {"0"}


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
    table = next(table for table in report(run()).tables if table.title == "Most expensive ops: em-seed")
    [note] = [note for note in table.notes if note.startswith("torch:compile: compiled")]
    assert "does the work of several ops" in note
    assert "no profiler can tell their shares" in note


def test_data_say_how_much_of_a_split_was_used():
    """A part of a split is never shown as if it were the whole."""
    table = report([record()]).tables[0]
    assert {"trained on 10,000 of 60,000", "tested on 10,000", "epochs 5"} <= set(table.context)


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


def test_the_share_of_the_peak():
    """FLOPs of the equations a second, over the machine's multiply-adds; no column where nobody measured these."""
    flops, seconds = record().metrics["train_step_flops"].value, record().metrics["train_step_seconds"].value
    known = DeviceCeilings("cpu", 2, "float32", "numpy", Ceilings(1e11, 1e10, 4.0 * flops / seconds))
    tables = report([record(), failed(case(batch=1000), "oom", "too large")], ceilings=[known]).tables
    [cost] = [table for table in tables if table.title == "Cost"]
    assert column(cost, "% of\nFMA") == ["25.0", NOTHING]
    other = replace(known, ceilings=Ceilings(1e11, 1e10))
    for ceilings in ([], [other]):
        [cost] = [table for table in report([record()], ceilings=ceilings).tables if table.title == "Cost"]
        assert "% of\nFMA" not in [each.header for each in cost.columns]


def test_mixed_precision_has_errors_of_its_own_and_no_share_of_float32s_peak():
    """Its errors stand beside parity, where any case has some; multiply-adds of float32 are no measure for it."""
    known = DeviceCeilings("cpu", 2, "float32", "numpy", Ceilings(1e11, 1e10, 1e12))
    errors = {f"mixed_{way}_relative_error": exact(0.0035, "1") for way in ("forward", "gradient")}
    mixed = record(case(precision="mixed_bfloat16"), metrics={**record().metrics, **errors})
    for records, shown in (([record(), mixed], [NOTHING, "3.5e-03"]), ([record()], None)):
        tables = report(records, ceilings=[known]).tables
        [cost] = [table for table in tables if table.title == "Cost"]
        headers = [each.header for each in cost.columns]
        if shown is None:
            assert "mixed\nforward" not in headers
            assert not any("mixed" in note for note in cost.notes)
        else:
            assert column(cost, "mixed\nforward") == column(cost, "mixed\ngradient") == shown
            assert column(cost, "precision") == ["float32", "mixed_bfloat16"]
            assert column(cost, "% of\nFMA")[1] == NOTHING != column(cost, "% of\nFMA")[0]
            assert any(note.startswith("mixed: the same errors in mixed precision itself") for note in cost.notes)
