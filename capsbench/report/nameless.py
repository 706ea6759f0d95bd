"""Tables without what names a person or a host, whoever wrote it into the records."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from capsbench.measure.privacy import scrub
from capsbench.report.rows import Field, MadeRows
from capsbench.report.table import Cell, Row, Table


def nameless(table: Table) -> Table:
    """The same table, all texts of which are scrubbed; its rows are still made when they are read."""
    rows: Sequence[Row] = table.rows
    if isinstance(rows, MadeRows):
        rows = replace(rows, fields=tuple(map(_field, rows.fields)))
    else:
        rows = tuple(tuple(map(_cell, row)) for row in rows)
    return replace(
        table,
        title=_scrub(table.title),
        context=tuple(map(_scrub, table.context)),
        notes=tuple(map(_scrub, table.notes)),
        rows=rows,
    )


def _field(field: Field[object]) -> Field[object]:
    make: Callable[[object], Cell] = field.cell
    return replace(field, cell=lambda item: _cell(make(item)))


def _cell(cell: Cell) -> Cell:
    if isinstance(cell.value, int | float):
        return cell
    value = _scrub(cell.value) if isinstance(cell.value, str) else cell.value
    return Cell(_scrub(cell.text), value, cell.unit)


@lru_cache(maxsize=4096)
def _scrub(text: str) -> str:
    return scrub(text)
