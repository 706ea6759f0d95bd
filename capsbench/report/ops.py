"""Where a train step goes, op by op or layer by layer, with the frameworks side by side.

Every column adds up to the profiled step: the rows shown, the other ops, what no op is known for, and the total are
rounded together, so that this holds for the printed numbers as well.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from capsbench.measure.optable import UNATTRIBUTED, VIEW, OpRow, StepProfile, rows
from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.table import Cell, Column, Table, text_cell

By = Literal["op", "phase", "layer"]
NO_LAYER = "(no layer)"
TOTAL = "total"

_Key = tuple[str | None, str]
_SETTINGS = ("device", "threads", "precision", "allocator")
_TITLES = {"op": "Most expensive ops", "phase": "Most expensive ops by phase", "layer": "Layers"}


@dataclass(frozen=True, slots=True)
class _Part:
    """The profile of one realization: what it is called, and its rows by (phase, op or layer)."""

    name: str
    seconds: float
    size: int
    rows: dict[_Key, OpRow]


def op_tables(records: Sequence[Record], *, by: By = "op", top: int = 10) -> tuple[Table, ...]:
    """A table for each network, data set, batch and iteration count of which a train step was profiled.

    Args:
        records: of a run; of several seeds the first is shown.
        by: what a row is: a canonical op, an op in one phase of the step, or a layer.
        top: how many rows before the others are summed up.
    """
    groups: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        case = record.case
        groups.setdefault((case.network, case.dataset, case.batch, case.routing_iterations), []).append(record)
    return tuple(table for group in groups.values() for table in _table(group, by, top))


def _table(group: Sequence[Record], by: By, top: int) -> Iterator[Table]:
    names_of = _names(group)
    parts = list(_parts(group, names_of, by))
    if not parts:
        return
    keys = _ranked(parts)
    shown, others = keys[:top], keys[top:]
    case = group[0].case
    columns = [_columns(part, parts, shown, others) for part in parts]
    names = [_name_cells(key, by) for key in shown]
    names += [_name_cells((None, text), by) for text in _closing(others, by)]
    yield Table(
        f"{_TITLES[by]}: {fmt.label(case.network)}",
        (*_name_columns(by), *(header for headers, _ in columns for header in headers)),
        tuple((*name, *(cell for _, cells in columns for cell in cells[i])) for i, name in enumerate(names)),
        context=_context(group[0]),
        notes=tuple(_notes(group, names_of, parts, by)),
        closing_rows=1,
    )


def _parts(group: Sequence[Record], names: Sequence[str], by: By) -> Iterator[_Part]:
    seen = set()
    for name, record in zip(names, group, strict=True):
        if name in seen or record.step_profile_seconds is None or record.step_profile_bytes is None or not record.ops:
            continue
        seen.add(name)
        events = record.ops
        if by == "layer":
            events = tuple(e if e.op == VIEW else replace(e, op=e.layer or NO_LAYER) for e in events)
        profile = StepProfile(events, record.step_profile_seconds, record.step_profile_bytes)
        table = rows(profile, by_phase=by == "phase")
        yield _Part(name, profile.step_seconds, profile.allocated_bytes, {(row.phase, row.op): row for row in table})


def _names(group: Sequence[Record]) -> list[str]:
    """For each record `backend:mode`, and whatever else tells the realizations of the group apart."""
    varying = [name for name in _SETTINGS if len({getattr(record.case, name) for record in group}) > 1]
    return [
        fmt.label(", ".join([f"{case.backend}:{case.mode}", *(f"{name} {getattr(case, name)}" for name in varying)]))
        for case in (record.case for record in group)
    ]


def _ranked(parts: Sequence[_Part]) -> list[_Key]:
    """All keys but the unattributed rest, by the larger of their shares in bytes and in time, in any column."""
    weight: dict[_Key, float] = {}
    for part in parts:
        for key, row in part.rows.items():
            shares = row.allocated_bytes / (part.size or 1), row.self_seconds / (part.seconds or 1)
            weight[key] = max(weight.get(key, 0.0), *shares)
    weight.pop((None, UNATTRIBUTED), None)
    return sorted(weight, key=lambda key: (-weight[key], key[1], key[0] or ""))


def _columns(
    part: _Part, parts: Sequence[_Part], shown: Sequence[_Key], others: Sequence[_Key]
) -> tuple[tuple[Column, ...], list[tuple[Cell, ...]]]:
    """Bytes, time and calls of one realization; all of them use the same units."""
    size_unit = fmt.common_unit(max(other.size for other in parts), fmt.BYTES)
    time_unit = fmt.common_unit(max(other.seconds for other in parts), fmt.SECONDS)
    lines = [[part.rows[key]] if key in part.rows else [] for key in shown]
    if others:
        lines.append([part.rows[key] for key in others if key in part.rows])
    lines.append([part.rows[None, UNATTRIBUTED]])
    sizes = _cells([sum(r.allocated_bytes for r in line) if line else None for line in lines], part.size, size_unit)
    times = _cells([sum(r.self_seconds for r in line) if line else None for line in lines], part.seconds, time_unit)
    numbers: list[int | None] = [sum(row.calls for row in line) if line else None for line in lines]
    numbers.append(sum(number or 0 for number in numbers))
    calls = [Cell(fmt.count(number or None), number) for number in numbers]
    heads = (f"{part.name}\n{size_unit.name}", time_unit.name, "calls")
    return tuple(Column(head, group=part.name) for head in heads), list(zip(sizes, times, calls, strict=True))


def _cells(values: Sequence[float | None], total: float, unit: fmt.Unit) -> list[Cell]:
    """Cells of one column in one unit, the total last; what is printed adds up."""
    decimals = 0 if unit.whole else 1
    tick = unit.size / 10**decimals
    present = [value for value in values if value is not None]
    rounded = iter(fmt.apportion(present, total, tick))
    cells = [_cell(next(rounded), value, decimals) if value is not None else Cell(fmt.NOTHING) for value in values]
    return [*cells, _cell(round(total / tick), total, decimals)]


def _cell(ticks: int, value: float, decimals: int) -> Cell:
    return Cell(f"{ticks / 10**decimals:,.{decimals}f}", value)


def _closing(others: Sequence[_Key], by: By) -> list[str]:
    what = f"other {'layer' if by == 'layer' else 'op'}{'s' if len(others) > 1 else ''}"
    return [*([f"{len(others)} {what}"] if others else []), UNATTRIBUTED, TOTAL]


def _name_columns(by: By) -> tuple[Column, ...]:
    if by == "phase":
        return Column("phase", "key", "left"), Column("op", "key", "left")
    return (Column(by, "key", "left"),)


def _name_cells(key: _Key, by: By) -> tuple[Cell, ...]:
    phase, name = key
    return (Cell(phase or "", phase), text_cell(name)) if by == "phase" else (text_cell(name),)


def _context(record: Record) -> tuple[str, ...]:
    case = record.case
    iterations = "no routing" if case.routing_iterations is None else f"iterations {case.routing_iterations}"
    return fmt.label(case.dataset), f"batch {fmt.count(case.batch)}", iterations, "one train step"


def _notes(group: Sequence[Record], names: Sequence[str], parts: Sequence[_Part], by: By) -> Iterator[str]:
    if by != "layer":
        yield "ordered by the larger of an op's shares in bytes and in time; views, which move no data, are left out."
    profiled = {part.name for part in parts}
    for name, record in dict(zip(names, group, strict=True)).items():
        if name not in profiled:
            yield f"{name}: no train step was profiled, the case ended with {record.status}."
        yield from (f"{name}: {fmt.label(note)}." for note in record.notes if note.startswith("ops:"))
    if len({record.case.seed for record in group}) > 1:
        yield f"seed {group[0].case.seed}; the others do the same work."
