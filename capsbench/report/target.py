"""Time to accuracy: what each case took to the first evaluation that reached the suite's target."""

from collections.abc import Callable, Sequence

from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.fields import KEYS, SEED, SETTINGS, metric_field, table_of
from capsbench.report.rows import Field
from capsbench.report.table import Cell, Column, Table

_NOTE = "time: train steps, preparation of batches and evaluations, to the end of the first that reached the target."


def target_tables(records: Sequence[Record], status: Callable[[Record], Cell]) -> tuple[Table, ...]:
    """One table with a row for each case that was trained to a target; none where there was no target.

    A case that did not reach it has no numbers, and its status refers to the note that says so.
    """
    trained = list(filter(_had_target, records))
    if not trained:
        return ()
    fields = (
        *KEYS,
        SEED,
        *SETTINGS,
        metric_field("steps_to_target", fmt.count),
        metric_field("images_to_target", fmt.count),
        metric_field("seconds_to_target", fmt.seconds),
        metric_field("evaluation_seconds_to_target", fmt.seconds),
        Field(Column("status", "status", "left"), status),
    )
    return (table_of("Time to accuracy", fields, trained, (_NOTE,)),)


def _had_target(record: Record) -> bool:
    return "steps_to_target" in record.metrics or any(note.startswith("the target of ") for note in record.notes)
