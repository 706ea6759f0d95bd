"""Columns that tables with a row a case share: which case it is, and its metrics."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from capsbench.record.packed import value_of
from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.rows import Field, table_of_items
from capsbench.report.table import SETTING_COLUMNS, Cell, Column, Table, cell, text_cell


@lru_cache(maxsize=4096)
def exact_cell(value: int) -> Cell:
    """A whole number."""
    return cell(value, fmt.count)


def metric_cell(record: Record, name: str, text: Callable[[float | None], str]) -> Cell:
    """A metric as `text` writes it; a dash where the case has none of the name."""
    return cell(value_of(record.metrics, name), text)


def table_of(
    title: str, fields: Sequence[Field[Record]], records: Sequence[Record], notes: tuple[str, ...] = ()
) -> Table:
    """A row for each record; what all rows agree on goes into the context."""
    return table_of_items(title, fields, records, notes, urgent=_failed, what="of cases that failed")


def _failed(record: Record) -> bool:
    return record.status != "ok"


KEYS: Final[tuple[Field[Record], ...]] = (
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
SETTINGS: Final[tuple[Field[Record], ...]] = tuple(map(Field, SETTING_COLUMNS, _SETTING_CELLS))
SEED: Final[Field[Record]] = Field(Column("seed", "key", shared="seed {}"), lambda r: exact_cell(r.case.seed))
