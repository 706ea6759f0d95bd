"""Columns that tables with a row a case share: which case it is, and its metrics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.table import SETTING_COLUMNS, Cell, Column, Table, cell, share, text_cell


@dataclass(frozen=True, slots=True)
class Field:
    """A column and where its cells come from."""

    column: Column
    cell: Callable[[Record], Cell]


def exact_cell(value: int) -> Cell:
    """A whole number."""
    return cell(value, fmt.count)


def metric_cell(record: Record, name: str, text: Callable[[float | None], str]) -> Cell:
    """A metric as `text` writes it; a dash where the case has none of the name."""
    metric = record.metrics.get(name)
    return cell(None if metric is None else metric.value, text)


def table_of(title: str, fields: Sequence[Field], records: Sequence[Record], notes: tuple[str, ...] = ()) -> Table:
    """A row for each record; what all rows agree on goes into the context."""
    rows = tuple(tuple(field.cell(record) for field in fields) for record in records)
    return share(Table(title, tuple(field.column for field in fields), rows, notes=notes))


KEYS = (
    Field(Column("network", "key", "left"), lambda r: text_cell(r.case.network)),
    Field(Column("backend:mode", "key", "left"), lambda r: text_cell(r.case.realization)),
    Field(Column("batch", "key", shared="batch {}"), lambda r: exact_cell(r.case.batch)),
    Field(Column("iters", "key", shared="routing iterations {}"), lambda r: text_cell(r.case.routing_iterations)),
)
_SETTING_CELLS: tuple[Callable[[Record], Cell], ...] = (
    lambda r: text_cell(r.case.dataset),
    lambda r: text_cell(r.case.device),
    lambda r: exact_cell(r.case.threads),
    lambda r: text_cell(r.case.precision),
    lambda r: text_cell(r.case.allocator),
)
SETTINGS = tuple(map(Field, SETTING_COLUMNS, _SETTING_CELLS))
SEED = Field(Column("seed", "key", shared="seed {}"), lambda r: exact_cell(r.case.seed))
