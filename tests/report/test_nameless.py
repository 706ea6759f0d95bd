"""Exported tables can be had without names, whoever wrote them into the records."""

from sample_records import case, failed, record

from capsbench.report.export import write
from capsbench.report.nameless import nameless
from capsbench.report.tables import report


def test_nobody_is_named_in_an_anonymous_export():
    """Paths of other machines as well; numbers, names of networks and everything else are as they were."""
    records = [
        record(),
        failed(case(seed=1), "crash", "no file /home/bob/kernels/a.so, see https://bob:pw@example.org/x"),
    ]
    plain = report(records).tables
    told = [nameless(table) for table in plain]
    for kind in ("csv", "json", "md", "latex"):
        assert write(kind, told) == write(kind, plain)  # reasons stand in the notes
    noted = report(records, published=lambda: plain)
    assert "bob" in "".join(noted.notes)
    held = nameless(_notes(noted.notes))
    assert "bob" not in write("csv", [held])
    assert "no file ~/kernels/a.so, see https://example.org/x" in write("csv", [held])


def _notes(notes):
    from capsbench.report.table import Column, Table, text_cell

    return Table("Notes", (Column("note"),), tuple((text_cell(note),) for note in notes), notes=notes)
