"""Rows are made when they are read, and a screen shows the first of many."""

from dataclasses import replace

import pytest
from printing import printed_tables
from sample_records import case, failed, record

from capsbench.report.export import write
from capsbench.report.rows import Field, MadeRows, few, shortened, table_of_items
from capsbench.report.table import Cell, Column, Table, share
from capsbench.report.tables import report

FIELDS = (
    Field(Column("name", "key", "left"), lambda item: Cell(item[0], item[0])),
    Field(Column("time"), lambda item: Cell(f"{item[1]} s", item[1], "s")),
    Field(Column("device", shared="on {}"), lambda item: Cell(item[2])),
)


def table(items):
    return table_of_items(
        "Some",
        FIELDS,
        items,
        ("a note",),
        urgent=[at for at, item in enumerate(items) if item[1] > 90],
        urgent_name="slow",
    )


@pytest.mark.parametrize("items", [[], [("a", 1, "cpu")], [("a", 1, "cpu"), ("b", 2, "cuda")], [("a", 1, "—")] * 3])
def test_made_rows_are_the_rows_that_are_held(items):
    """In every format, and what all rows agree on has left the columns alike."""
    held = Table("Some", tuple(each.column for each in FIELDS), tuple(MadeRows(items, FIELDS)), notes=("a note",))
    made = table(items)
    assert share(held) == made
    assert [*made.rows] == [made.rows[i] for i in range(len(items))]
    for kind in ("csv", "json", "md", "latex"):
        assert write(kind, [made]) == write(kind, [share(held)])


def test_a_long_table_is_shortened_and_says_so():
    """The first rows and urgent ones, up to half, in their order; how many are left out, and how they are seen."""
    items = [(f"n{number}", 99 if number in {50, 60, 70} else number, "cpu") for number in range(89)]
    short = shortened(table(items), 4)
    assert [row[0].text for row in short.rows] == ["n0", "n1", "n50", "n60"]
    assert short.notes[0].startswith("… 85 more rows, 1 of them slow; --case GLOB chooses, --rows N or all shows more")
    assert short.notes[1:] == ("a note",)
    assert short.context == ("on cpu",)


def test_a_short_table_is_shown_whole():
    """As is any when all rows are asked for, and one whose rows are of no cases."""
    items = [("a", 1, "cpu")] * 9
    assert shortened(table(items), 9) == table(items)
    assert shortened(table(items), None) == table(items)
    held = replace(table(items), rows=tuple(table(items).rows))
    assert shortened(held, 2) == held


def test_of_many_tables_a_few_are_made():
    """A quarter as many as rows, one more to know that there is one, and the last says so."""
    made = []
    found = list(few((made.append(n) or table([(str(n), n, "cpu")]) for n in range(100)), 12))
    assert len(found) == 3
    assert len(made) == 4
    assert found[-1].notes[-1].startswith("… more tables like this one")
    assert [each.notes for each in found[:2]] == [("a note",)] * 2
    assert len(list(few(iter(found), 12))) == len(list(few(iter(found), None))) == 3
    assert list(few(iter([]), 12)) == []


def test_units_are_those_of_all_rows_where_they_may_differ():
    """Of mixed numbers all are looked at, of others the first that there is."""
    units = ["", "s", "B"]
    cells = [Cell("—"), Cell("1 s", 1, "s"), Cell("2 B", 2, "B")]
    for mixed, expected in ((True, {"s", "B"}), (False, {"s"})):
        rows = MadeRows(range(3), (Field(Column("x"), cells.__getitem__, mixed=mixed),))
        assert rows.units(0) == expected, units


def test_every_field_keeps_to_one_unit():
    """Where it does not say that its numbers are mixed, in every table of a run."""
    for each in report([record(), record(case(seed=1)), failed(case(seed=2), "oom", "too large")]).tables:
        if isinstance(each.rows, MadeRows):
            for index, field in enumerate(each.rows.fields):
                found = {row[index].unit for row in each.rows if row[index].value is not None}
                assert field.mixed or len(found) <= 1, field.column.header


def test_a_screen_shows_the_failed_cases_of_a_large_run():
    """Whatever comes first in the order of the axes."""
    records = [record(case(seed=number)) for number in range(60)]
    records[55] = failed(case(seed=55), "oom", "asked for more than there is")
    accuracy = report(records, most=40).tables[0]
    text = printed_tables([shortened(accuracy, 40)])
    assert "oom" in text
    assert "… 20 more rows; " in text


def test_notes_are_numbered_by_the_whole_run():
    """A number stands for the same note, however few rows are shown."""
    records = [failed(case(seed=number), "oom", f"reason {number}") for number in range(5)]
    found = report(records)
    rows = [row[-1].text for row in found.tables[0].rows]
    assert rows == [f"oom ({number})" for number in range(1, 6)]
    assert found.referred == {1, 2, 3, 4, 5}
