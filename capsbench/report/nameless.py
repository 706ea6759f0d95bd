"""Tables without what names a person or a host, whoever wrote it into the records."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from capsbench.measure.privacy import scrub
from capsbench.report.rows import Field, MadeRows
from capsbench.report.table import Cell, Row, Table


def nameless(table: Table) -> Table:
    """The same table, all texts of which are scrubbed; its rows are still made when they are read."""
    rows: Sequence[Row] = tuple(tuple(map(_cell, row)) for row in _held(table))
    if isinstance(table.rows, MadeRows):
        rows = replace(table.rows, fields=tuple(map(_field, table.rows.fields)))
    return replace(
        table,
        title=_scrub(table.title),
        context=tuple(map(_scrub, table.context)),
        notes=tuple(map(_scrub, table.notes)),
        rows=rows,
    )


def _field(field: Field[object]) -> Field[object]:
    return replace(field, cell=_Cells(field), all=None if field.all is None else _AllCells(field))


@dataclass(frozen=True, slots=True)
class _AllCells:
    """The cells of a field, of all items, scrubbed."""

    field: Field[object]

    def __call__(self, items: Sequence[object]) -> Sequence[Cell]:
        return list(map(_cell, self.field.cells(items)))


@dataclass(frozen=True, slots=True)
class _Cells:
    """The cells of a field, scrubbed."""

    field: Field[object]

    def __call__(self, item: object) -> Cell:
        return _cell(self.field.cell(item))


def _held(table: Table) -> Iterator[Row]:
    if not isinstance(table.rows, MadeRows):
        yield from table.rows


def _cell(cell: Cell) -> Cell:
    if isinstance(cell.value, int | float):
        return cell
    value = _scrub(cell.value) if isinstance(cell.value, str) else cell.value
    return Cell(_scrub(cell.text), value, cell.unit)


@lru_cache(maxsize=4096)
def _scrub(text: str) -> str:
    return scrub(text)
