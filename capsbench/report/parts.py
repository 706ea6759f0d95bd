"""What a profiled step spent, sorted into lines whose columns add up: the same for ops, layers, routing iterations.

The lines of a column, what no op is known for among them, are rounded together with the total, so that the printed
numbers add up as the exact ones do.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
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

# Multiples of which unit a column is printed in.
_BASES: Final = ((fmt.BYTES, "B"), (fmt.SECONDS, "s"), ((fmt.PERCENT,), "%"))


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
    resident = sum(tensor.bytes for tensor in profile.alive_at_peak if is_resident(tensor))
    if resident:
        lines[BEFORE_LINE] = Spent(live_bytes=resident)
    known = _total(lines.values())
    alive = sum(tensor.bytes for tensor in profile.alive_at_peak)
    total = Spent(known.calls, profile.step_seconds, profile.allocated_bytes, alive)
    lines[UNATTRIBUTED_LINE] = Spent(
        0,
        profile.unattributed_seconds,
        profile.unattributed_bytes,
        # Without a peak there is no rest of it either.
        alive - known.live_bytes if profile.alive_at_peak else 0,
    )
    return Part(step.name, step.record, profile, lines, total)


def _total(spent: Iterable[Spent]) -> Spent:
    held = list(spent)
    return Spent(
        sum([each.calls for each in held]),
        sum([each.seconds for each in held], 0.0),
        sum([each.allocated_bytes for each in held]),
        sum([each.live_bytes for each in held]),
    )


def closing_lines(parts: Sequence[Part], *, alive: bool = False) -> list[Key]:
    """The lines that every table ends in, as far as there is anything in them; the unattributed rest always comes."""
    held = [line for line in _CLOSING if any(line in part.lines for part in parts)]
    return [*(line for line in held if alive or line != BEFORE_LINE), UNATTRIBUTED_LINE]


def columns(
    part: Part, parts: Sequence[Part], lines: Sequence[Sequence[Key]], *, alive: bool = False
) -> tuple[tuple[Column, ...], list[tuple[Cell, ...]]]:
    """Bytes, time and calls of one realization, line by line, the total last; all realizations use the same units.

    Args:
        part: of the realization.
        parts: all that stand side by side.
        lines: of the table, each the sum of some lines of the part.
        alive: whether bytes alive at the peak have a column.
    """
    size_unit = fmt.common_unit(max(other.total.allocated_bytes for other in parts), fmt.BYTES)
    time_unit = fmt.common_unit(max(other.total.seconds for other in parts), fmt.SECONDS)
    spent = [_sum(part, line) for line in lines]
    made = [
        (size_unit.name, summed(each(spent, "allocated_bytes"), part.total.allocated_bytes, size_unit)),
        (time_unit.name, summed(each(spent, "seconds"), part.total.seconds, time_unit)),
        ("calls", _counts([None if line is None else line.calls for line in spent])),
    ]
    if alive:
        unit = fmt.common_unit(max(other.total.live_bytes for other in parts), fmt.BYTES)
        peak = part.total.live_bytes if part.profile.alive_at_peak else None
        live = each(spent, "live_bytes") if peak is not None else [None] * len(spent)
        made.append((f"alive at\npeak, {unit.name}", summed(live, peak, unit)))
    heads = [f"{part.name}\n{made[0][0]}", *(head for head, _ in made[1:])]
    cells = list(zip(*(cells for _, cells in made), strict=True))
    return tuple(Column(head, group=part.name) for head in heads), cells


def each(spent: Sequence[Spent | None], quantity: str) -> list[float | None]:
    """One quantity of each line, by its name in `Spent`."""
    return [None if line is None else getattr(line, quantity) for line in spent]


def _sum(part: Part, line: Sequence[Key]) -> Spent | None:
    held = [part.lines[key] for key in line if key in part.lines]
    return held[0] if len(held) == 1 else _total(held) if held else None


def summed(values: Sequence[float | None], total: float | None, unit: fmt.Unit) -> list[Cell]:
    """Cells of one column in one unit, the total last; what is printed adds up."""
    if total is None:
        return [Cell(fmt.NOTHING)] * (len(values) + 1)
    decimals = 0 if unit.whole else 1
    tick = unit.size / 10**decimals
    present = [value for value in values if value is not None]
    rounded = iter(fmt.apportion(present, total, tick))
    base = next((name for units, name in _BASES if unit in units), "")

    scale, digits = 10**decimals, f",.{decimals}f"

    def told(ticks: int, value: float) -> Cell:
        return Cell(format(ticks / scale, digits), value, base)

    cells = [Cell(fmt.NOTHING) if value is None else told(next(rounded), value) for value in values]
    return [*cells, told(round(total / tick), total)]


def _counts(numbers: Sequence[int | None]) -> list[Cell]:
    return [Cell(fmt.count(number or None), number) for number in (*numbers, sum(number or 0 for number in numbers))]
