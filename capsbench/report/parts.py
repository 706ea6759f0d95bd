"""What a profiled step spent, sorted into lines whose columns add up: the same for ops, layers, routing iterations.

The lines of a column, what no op is known for among them, are rounded together with the total, so that the printed
numbers add up as the exact ones do.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from capsbench.measure.optable import LiveTensor, OpEvent, StepProfile
from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.groups import Group, Step, Which
from capsbench.report.table import Cell, Column

TOTAL = "total"
VIEWS = "(views)"
UNATTRIBUTED = "(unattributed)"

Key = tuple[str, str]
"""What kind of line, and its name; kinds keep an op called like a closing line apart from it."""

VIEWS_LINE: Key = ("", VIEWS)
OTHER_PHASES_LINE: Key = ("", "(other phases)")
BEFORE_LINE: Key = ("", "(before the step)")
UNATTRIBUTED_LINE: Key = ("", UNATTRIBUTED)
_CLOSING = (VIEWS_LINE, OTHER_PHASES_LINE, BEFORE_LINE)

# Of which unit those that columns are printed in are multiples.
_BASES: Final = {
    unit: base for units, base in ((fmt.BYTES, "B"), (fmt.SECONDS, "s"), ((fmt.PERCENT,), "%")) for unit in units
}
_NOTHING: Final = Cell(fmt.NOTHING)


@dataclass(frozen=True, slots=True)
class Spent:
    """Quantities of one line."""

    calls: int = 0
    seconds: float = 0.0
    allocated_bytes: int = 0
    live_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """The step of one realization.

    Attributes:
        name: of the realization.
        record: that the profile is of.
        profile: of the step.
        lines: what was spent on each line; the unattributed rest is one of them.
        total: of the step; its calls are those of the ops.
    """

    name: str
    record: Record
    profile: StepProfile
    lines: Mapping[Key, Spent]
    total: Spent


def parts(group: Group, which: Which, key: Callable[[OpEvent], Key]) -> tuple[Part, ...]:
    """The profiled steps of a group.

    Args:
        group: of records.
        which: step.
        key: the line that an event belongs to.
    """
    return tuple(_part(step, key) for step in group.steps(which))


def is_resident(tensor: LiveTensor) -> bool:
    """Whether it was alive before the step began."""
    return tensor.op is None and tensor.name is not None


def spent_on(events: Sequence[OpEvent]) -> Spent:
    """The sum of events."""
    return Spent(
        sum([event.calls for event in events]),
        sum([event.self_seconds for event in events], 0.0),
        sum([event.allocated_bytes for event in events]),
        sum([event.live_bytes_at_peak for event in events]),
    )


def _part(step: Step, key: Callable[[OpEvent], Key]) -> Part:
    profile = step.profile
    by_line: dict[Key, list[OpEvent]] = {}
    for event in profile.events:
        by_line.setdefault(key(event), []).append(event)
    lines = {line: spent_on(events) for line, events in by_line.items()}
    resident = sum([tensor.bytes for tensor in profile.alive_at_peak if is_resident(tensor)])
    if resident:
        lines[BEFORE_LINE] = Spent(live_bytes=resident)
    known = _total(lines.values())
    alive = sum([tensor.bytes for tensor in profile.alive_at_peak])
    total = Spent(known.calls, profile.step_seconds, profile.allocated_bytes, alive)
    lines[UNATTRIBUTED_LINE] = Spent(
        0,
        profile.unattributed_seconds,
        profile.unattributed_bytes,
        # Without a peak there is no rest of it either.
        alive - known.live_bytes if profile.alive_at_peak else 0,
    )
    return Part(step.name, step.record, profile, lines, total)


def _total(spent: Collection[Spent]) -> Spent:
    return Spent(
        sum([each.calls for each in spent]),
        sum([each.seconds for each in spent], 0.0),
        sum([each.allocated_bytes for each in spent]),
        sum([each.live_bytes for each in spent]),
    )


def closing_lines(parts: Sequence[Part], *, alive: bool = False) -> list[Key]:
    """The lines that every table ends in, as far as there is anything in them; the unattributed rest always comes."""
    held = [line for line in _CLOSING if any(line in part.lines for part in parts)]
    return [*(line for line in held if alive or line != BEFORE_LINE), UNATTRIBUTED_LINE]


def columns(
    parts: Sequence[Part], lines: Sequence[Sequence[Key]], *, alive: bool = False
) -> tuple[list[Column], list[tuple[Cell, ...]]]:
    """Bytes, time and calls of each realization, line by line, the total last; all use the same units.

    Args:
        parts: that stand side by side.
        lines: of the table, each the sum of some lines of a part.
        alive: whether bytes alive at the peak have a column.
    """
    size_unit = fmt.common_unit(max([part.total.allocated_bytes for part in parts]), fmt.BYTES)
    time_unit = fmt.common_unit(max([part.total.seconds for part in parts]), fmt.SECONDS)
    live_unit = fmt.common_unit(max([part.total.live_bytes for part in parts]), fmt.BYTES)
    heads = [size_unit.name, time_unit.name, "calls", *([f"alive at\npeak, {live_unit.name}"] if alive else [])]
    cells: list[list[Cell]] = []
    for part in parts:
        spent, total = [_sum(part, line) for line in lines], part.total
        cells.append(summed(each(spent, "allocated_bytes"), total.allocated_bytes, size_unit))
        cells.append(summed(each(spent, "seconds"), total.seconds, time_unit))
        cells.append(_counts(each(spent, "calls")))
        if alive and part.profile.alive_at_peak:
            cells.append(summed(each(spent, "live_bytes"), total.live_bytes, live_unit))
        elif alive:
            cells.append([_NOTHING] * (len(spent) + 1))
    return [column for part in parts for column in side_columns(part.name, heads)], list(zip(*cells, strict=True))


def side_columns(name: str, heads: Sequence[str]) -> list[Column]:
    """The columns of one realization, whose name stands above the first."""
    return [Column(head if number else f"{name}\n{head}", group=name) for number, head in enumerate(heads)]


def each(spent: Sequence[Spent | None], quantity: str) -> list[float | None]:
    """One quantity of each line, by its name in `Spent`."""
    return [None if line is None else getattr(line, quantity) for line in spent]


def _sum(part: Part, line: Sequence[Key]) -> Spent | None:
    held = [part.lines[key] for key in line if key in part.lines]
    return held[0] if len(held) == 1 else _total(held) if held else None


def summed(values: Sequence[float | None], total: float, unit: fmt.Unit) -> list[Cell]:
    """Cells of one column in one unit, the total last; what is printed adds up."""
    scale, pattern = (1, "{:,.0f}") if unit.whole else (10, "{:,.1f}")
    tick = unit.size / scale
    ticks = fmt.apportion([value for value in values if value is not None], total, tick)
    texts = iter([pattern.format(number / scale) for number in (*ticks, round(total / tick))])
    base = _BASES.get(unit, "")
    return [_NOTHING if value is None else Cell(next(texts), value, base) for value in (*values, total)]


def _counts(numbers: Sequence[float | None]) -> list[Cell]:
    total = sum([number or 0 for number in numbers])
    return [Cell(fmt.count(number or None), number) for number in (*numbers, total)]
