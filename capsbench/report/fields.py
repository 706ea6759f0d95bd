"""Columns that tables with a row a case share: which case it is, and its metrics."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from capsbench.metrics import METRICS
from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.format import UNITS
from capsbench.report.rows import Field, attribute, attributes, table_of_items
from capsbench.report.table import SETTING_COLUMNS, Cell, Column, Table, cell, text_cell
from capsbench.store.records import read_metrics_of, value_of


@lru_cache(maxsize=4096)
def exact_cell(value: int) -> Cell:
    """A whole number."""
    return cell(value, fmt.count)


def metric_field(name: str, text: Callable[[float | None], str], group: str = "") -> Field[Record]:
    """A column of a metric as `text` writes it, under its header in the table of metrics."""
    unit = UNITS.get(text, "")

    def metric_cell(record: Record) -> Cell:
        value = value_of(record.metrics, name)
        return Cell(text(value), value, unit)

    return Field(Column(METRICS[name].header, group=group), metric_cell)


def table_of(
    title: str, fields: Sequence[Field[Record]], records: Sequence[Record], notes: tuple[str, ...] = ()
) -> Table:
    """A row for each record; what all rows agree on goes into the context."""
    return table_of_items(
        title,
        fields,
        records,
        notes,
        urgent=[place for place, record in enumerate(records) if record.status != "ok"],
        urgent_name="of cases that failed",
        prepare=read_metrics_of,
    )


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
SEED: Final[Field[Record]] = attribute(Column("seed", "key", shared="seed {}"), "case.seed", exact_cell)
