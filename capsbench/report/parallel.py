"""Training on several devices: what it gains over one, and how far its losses lie from those of one."""

from collections.abc import Sequence
from typing import Final

from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.fields import KEYS, SEED, SETTINGS, exact_cell, metric_field, table_of
from capsbench.report.rows import Field
from capsbench.report.table import Cell, Column, Table, cell

_EFFICIENCY: Final = "scaling_efficiency"
_NOTES: Final = (
    "efficiency: images a second, over those of so many devices as quick as one alone; with its range over the rounds.",
    "loss deviation: largest relative difference of the losses of the first train steps from those on one device.",
)
_ON_CPU: Final = "on the CPU every replica has its threads; one device has as many as one replica."
_ROUNDING: Final = "rounding: beyond the limit after a while, which float64 is not."


def parallel_tables(records: Sequence[Record]) -> tuple[Table, ...]:
    """One table with a row for each case on several devices; none without such a case."""
    several = [record for record in records if record.case.devices > 1]
    if not several:
        return ()
    notes = (
        *_NOTES,
        *([_ON_CPU] if any(record.case.device == "cpu" for record in several) else []),
        *([_ROUNDING] if any(map(_is_rounding, several)) else []),
    )
    return (table_of("Data parallel", (*KEYS, SEED, *SETTINGS, *_FIELDS), several, notes),)


def _efficiency_range(record: Record) -> Cell:
    metric = record.metrics.get(_EFFICIENCY)
    if metric is None or not metric.samples:
        return Cell(fmt.NOTHING)
    text = f"{fmt.percent(min(metric.samples))}–{fmt.percent(max(metric.samples))}"
    return Cell(text, text)


def _deviation(record: Record) -> Cell:
    found = record.data_parallel
    return cell(None if found is None else found.loss_max_relative_deviation, fmt.error)


def _verdict(record: Record) -> Cell:
    found = record.data_parallel
    if found is None:
        return Cell(fmt.NOTHING)
    word = "rounding" if _is_rounding(record) else "passed" if found.passed else "failed"
    return Cell(word, word)


def _is_rounding(record: Record) -> bool:
    found = record.data_parallel
    return found is not None and found.passed and found.drift is not None


_FIELDS: Final[tuple[Field[Record], ...]] = (
    Field(Column("devices", "key"), lambda r: exact_cell(r.case.devices)),
    metric_field("images_per_second", fmt.plain_number, "speed"),
    metric_field("one_device_images_per_second", fmt.plain_number, "speed"),
    metric_field(_EFFICIENCY, fmt.percent, "speed"),
    Field(Column("its\nrange", group="speed"), _efficiency_range),
    Field(Column("loss\ndeviation", group="loss"), _deviation),
    Field(Column("of\nlosses", "status", "left"), _verdict),
)
