"""Modes that compile, beside the others of their backend: what that costs, and after how many steps it has paid."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil, isfinite
from typing import Final

from capsbench.record.schema import CaseKey, Record
from capsbench.report import format as fmt
from capsbench.report.table import SETTING_COLUMNS, Cell, Column, Table, cell, share, text_cell

COMPILED: Final = "Compiled"
"""The canonical op of a kernel that a compiler made of several ops."""
COMPILED_NOTE: Final = "ops: compiled"

# A case whose ops were not profiled has nothing but the name of its mode to tell by.
_MODES: Final = frozenset({"compile", "xla"})
# Its kernels are compiled too, or found compiled, but layer by layer, so that a profiler tells their shares.
_BY_LAYER: Final = "fused"
_NEVER: Final = "never"


def is_compiled(record: Record) -> bool:
    """Whether a compiler made the step: its ops or their note say so, or its mode is known to."""
    noted = any(note.startswith(COMPILED_NOTE) for note in record.notes)
    return noted or record.case.mode in _MODES or any(event.op == COMPILED for event in record.ops)


def compiles(record: Record) -> bool:
    """Whether its first step compiles, or looks for what another process has compiled."""
    return is_compiled(record) or record.case.mode == _BY_LAYER


def compiled_tables(records: Sequence[Record]) -> tuple[Table, ...]:
    """One table with a row for each compiled mode and each other mode of its backend; none without compiled modes."""
    rows = tuple(_row(record, other) for record, other in _pairs(records))
    if not rows:
        return ()
    return (share(Table("Compiled modes", _COLUMNS, rows, notes=_NOTES)),)


def pays_off_after(first: float, step: float, other_first: float, other_step: float) -> float | None:
    """Steps after the first until a compiled mode has made up for what its first step took longer; None for never.

    Args:
        first: seconds of the compiled mode's first step, compilation included.
        step: seconds of its later steps.
        other_first: seconds of the other mode's first step.
        other_step: seconds of its later steps.
    """
    if not other_step > step:
        return None
    return max(0.0, (first - other_first) / (other_step - step))


def _pairs(records: Sequence[Record]) -> Iterator[tuple[Record, Record | None]]:
    """Each timed case that compiles, with each timed case that differs in its mode only; None where there is none.

    Of several seeds the first is taken: they do the same work.
    """
    cases: dict[CaseKey, dict[str, Record]] = {}
    for record in records:
        if "train_step_seconds" in record.metrics:
            cases.setdefault(replace(record.case, id="", mode="", seed=0), {}).setdefault(record.case.mode, record)
    for modes in cases.values():
        others: list[Record | None] = [record for record in modes.values() if not compiles(record)]
        for record in modes.values():
            if compiles(record):
                yield from ((record, other) for other in others or [None])


_COLUMNS: Final = (
    Column("network", "key", "left"),
    Column("backend:mode", "key", "left"),
    Column("batch", "key", shared="batch {}"),
    Column("iters", "key", shared="routing iterations {}"),
    *SETTING_COLUMNS,
    Column("compiling", group="compiled", shared="compiling {}"),
    Column("first\nstep", group="compiled"),
    Column("later\nsteps", group="compiled"),
    Column("against", "key", "left"),
    Column("first\nstep", group="other"),
    Column("later\nsteps", group="other"),
    Column("speed-up", group="verdict"),
    Column("pays off\nafter steps", group="verdict"),
)
_NOTES: Final = (
    "compiling: of forward pass and train step together; the first step's is in its time.",
    "pays off: steps after the first until the time that compiling took is made up.",
)


def _row(record: Record, other: Record | None) -> tuple[Cell, ...]:
    case, compiling = record.case, _seconds(record, "compile_seconds")
    first, step = _seconds(record, "first_step_seconds"), _seconds(record, "train_step_seconds")
    other_first, other_step = _seconds(other, "first_step_seconds"), _seconds(other, "train_step_seconds")
    return (
        text_cell(case.network),
        text_cell(case.realization),
        cell(case.batch, fmt.count),
        text_cell(case.routing_iterations),
        text_cell(case.dataset),
        text_cell(case.device),
        cell(case.threads, fmt.count),
        text_cell(case.precision),
        text_cell(case.allocator),
        cell(compiling, fmt.seconds),
        cell(first, fmt.seconds),
        cell(step, fmt.seconds),
        text_cell(None if other is None else other.case.mode),
        cell(other_first, fmt.seconds),
        cell(other_step, fmt.seconds),
        _speed_up(step, other_step),
        _pays_off(first, step, other_first, other_step),
    )


def _seconds(record: Record | None, name: str) -> float | None:
    metric = record.metrics.get(name) if record is not None else None
    return None if metric is None else metric.value


def _speed_up(step: float | None, other: float | None) -> Cell:
    if not step or other is None:
        return Cell(fmt.NOTHING)
    return Cell(f"{fmt.plain_number(other / step)}×", other / step)


def _pays_off(first: float | None, step: float | None, other_first: float | None, other_step: float | None) -> Cell:
    times = (first, step, other_first, other_step)
    if first is None or step is None or other_first is None or other_step is None or not all(map(_finite, times)):
        return Cell(fmt.NOTHING)
    steps = pays_off_after(first, step, other_first, other_step)
    return Cell(_NEVER, _NEVER) if steps is None else cell(ceil(steps), fmt.count)


def _finite(value: float | None) -> bool:
    return value is not None and isfinite(value)
