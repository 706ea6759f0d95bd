"""Modes that compile, beside the others of their backend: what that costs, and after how many steps it has paid."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from typing import Final

from capsbench.record.schema import CaseKey, Record
from capsbench.report import format as fmt
from capsbench.report.fields import KEY_ATTRIBUTES, SETTING_ATTRIBUTES
from capsbench.report.rows import Field, attributes, table_of_items
from capsbench.report.table import Cell, Column, Table, cell, text_cell
from capsbench.store.records import op_names, value_of

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
    return noted or record.case.mode in _MODES or COMPILED in op_names(record)


def compiles(record: Record) -> bool:
    """Whether its first step compiles, or looks for what another process has compiled."""
    return record.case.mode == _BY_LAYER or is_compiled(record)


def compiled_tables(records: Sequence[Record]) -> tuple[Table, ...]:
    """One table with a row for each compiled mode and each other mode of its backend; none without compiled modes."""
    pairs = [_Pair(record, other) for record, other in _pairs(records)]
    return (table_of_items("Compiled modes", _FIELDS, pairs, _NOTES),) if pairs else ()


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
    cases: dict[tuple[object, ...], dict[str, Record]] = {}
    for record in records:
        if "train_step_seconds" in record.metrics:
            cases.setdefault(_work(record.case), {}).setdefault(record.case.mode, record)
    for modes in cases.values():
        compiled = {mode: record for mode, record in modes.items() if compiles(record)}
        others: list[Record | None] = [record for mode, record in modes.items() if mode not in compiled]
        for record in compiled.values():
            yield from ((record, other) for other in others or [None])


def _work(case: CaseKey) -> tuple[object, ...]:
    """What a case does, whatever its mode and seed."""
    what = (case.network, case.dataset, case.backend, case.batch, case.routing_iterations)
    return (*what, case.device, case.threads, case.devices, case.precision, case.allocator)


_NOTES: Final = (
    "compiling: of forward pass and train step together; the first step's is in its time.",
    "pays off: steps after the first until the time that compiling took is made up.",
)


@dataclass(frozen=True, slots=True)
class _Pair:
    """A case that compiles, and one that differs in its mode only, if there is one."""

    record: Record
    other: Record | None


def _seconds(record: Record | None, name: str) -> float | None:
    return None if record is None else value_of(record.metrics, name)


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


def _times(pair: _Pair) -> tuple[float | None, float | None, float | None, float | None]:
    """First and later steps, and those of the other mode."""
    first, step = _seconds(pair.record, "first_step_seconds"), _seconds(pair.record, "train_step_seconds")
    return first, step, _seconds(pair.other, "first_step_seconds"), _seconds(pair.other, "train_step_seconds")


_FIELDS: Final[tuple[Field[_Pair], ...]] = (
    *attributes((*KEY_ATTRIBUTES, *SETTING_ATTRIBUTES), "record"),
    Field(
        Column("compiling", group="compiled", shared="compiling {}"),
        lambda pair: cell(_seconds(pair.record, "compile_seconds"), fmt.seconds),
    ),
    Field(Column("first\nstep", group="compiled"), lambda pair: cell(_times(pair)[0], fmt.seconds)),
    Field(Column("later\nsteps", group="compiled"), lambda pair: cell(_times(pair)[1], fmt.seconds)),
    Field(Column("against", "key", "left"), lambda pair: text_cell(pair.other and pair.other.case.mode)),
    Field(Column("first\nstep", group="other"), lambda pair: cell(_times(pair)[2], fmt.seconds)),
    Field(Column("later\nsteps", group="other"), lambda pair: cell(_times(pair)[3], fmt.seconds)),
    Field(
        Column("speed-up", group="verdict"),
        lambda pair: _speed_up(_seconds(pair.record, "train_step_seconds"), _seconds(pair.other, "train_step_seconds")),
    ),
    Field(Column("pays off\nafter steps", group="verdict"), lambda pair: _pays_off(*_times(pair))),
)
