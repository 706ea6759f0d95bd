"""Columns that tables with a row a case share: which case it is, and its metrics."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import repeat
from typing import Final

from capsbench.metrics import METRICS
from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.format import UNITS
from capsbench.report.numbers import texts
from capsbench.report.rows import Field, attributes, table_of_items
from capsbench.report.table import SETTING_COLUMNS, Cell, Column, Table, cell, text_cell
from capsbench.store.records import seeds_of, value_of, values_of


@lru_cache(maxsize=4096)
def exact_cell(value: int) -> Cell:
    """A whole number."""
    return cell(value, fmt.count)


def metric_cell(record: Record, name: str, text: Callable[[float | None], str]) -> Cell:
    """A metric as `text` writes it; a dash where the case has none of the name."""
    return cell(value_of(record.metrics, name), text)


def metric_field(name: str, text: Callable[[float | None], str], group: str = "") -> Field[Record]:
    """Make a column of a metric, under its header in the table of metrics."""
    column = Column(METRICS[name].header, group=group)
    return numbers_field(column, text, lambda record: value_of(record.metrics, name), partial(values_of, metric=name))


def numbers_field(
    column: Column,
    text: Callable[[float | None], str],
    get: Callable[[Record], float | None],
    get_all: Callable[[Sequence[Record]], Sequence[float | None]],
) -> Field[Record]:
    """A column of numbers as `text` writes them.

    Args:
        column: the column.
        text: writes a number.
        get: that of a record.
        get_all: those of many.
    """
    unit = UNITS.get(text, "")

    def cells(records: Sequence[Record]) -> list[Cell]:
        values = get_all(records)
        return list(map(_CELL, zip(texts(text, values), values, repeat(unit))))

    return Field(column, lambda record: cell(get(record), text), all=cells)


_CELL: Final = partial(tuple.__new__, Cell)


def table_of(
    title: str, fields: Sequence[Field[Record]], records: Sequence[Record], notes: tuple[str, ...] = ()
) -> Table:
    """A row for each record; what all rows agree on goes into the context."""
    return table_of_items(title, fields, records, notes, urgent=_failed, what="of cases that failed")


def _failed(record: Record) -> bool:
    return record.status != "ok"


KEY_ATTRIBUTES: Final = (
    (Column("network", "key", "left"), "case.network", text_cell),
    (Column("backend:mode", "key", "left"), "case.realization", text_cell),
    (Column("batch", "key", shared="batch {}"), "case.batch", exact_cell),
    (Column("iters", "key", shared="routing iterations {}"), "case.routing_iterations", text_cell),
)
"""Which case it is, as `attributes` takes it."""
_SETTINGS: Final = (
    ("case.dataset", text_cell),
    ("case.device", text_cell),
    ("case.threads", exact_cell),
    ("case.precision", text_cell),
    ("case.allocator", text_cell),
)
SETTING_ATTRIBUTES: Final = tuple(
    (column, path, write) for column, (path, write) in zip(SETTING_COLUMNS, _SETTINGS, strict=True)
)
"""How it was run, likewise."""
KEYS: Final[tuple[Field[Record], ...]] = attributes(KEY_ATTRIBUTES)
SETTINGS: Final[tuple[Field[Record], ...]] = attributes(SETTING_ATTRIBUTES)
SEED: Final[Field[Record]] = Field(
    Column("seed", "key", shared="seed {}"),
    lambda record: exact_cell(record.case.seed),
    each=seeds_of,
    all=lambda records: list(map(exact_cell, seeds_of(records))),
)
