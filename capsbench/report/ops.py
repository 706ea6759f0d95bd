"""Where a step goes, op by op or layer by layer, with the frameworks side by side.

Every column adds up to the profiled step: the rows shown, the others, views, what no op is known for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from capsbench.measure.optable import VIEW, OpEvent, Phase
from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.groups import STEP_NAMES, Group, Which, context, groups, title
from capsbench.report.notes import fused_sub_notes, profile_notes
from capsbench.report.parts import (
    OTHER_PHASES_LINE,
    TOTAL,
    VIEWS_LINE,
    Key,
    Part,
    Spent,
    closing_lines,
    columns,
    parts,
)
from capsbench.report.table import Cell, Column, Table, text_cell

By = Literal["op", "phase", "layer"]
Sort = Literal["share", "bytes", "time"]
NO_LAYER = "(no layer)"

TITLES: Final[Mapping[By, str]] = {
    "op": "Most expensive ops",
    "phase": "Most expensive ops by phase",
    "layer": "Layers",
}
_ORDERED: dict[Sort, str] = {
    "share": "ordered by the larger of {} shares in bytes and in time.",
    "bytes": "ordered by {} bytes.",
    "time": "ordered by {} time.",
}


@dataclass(frozen=True, slots=True)
class View:
    """How a step is looked at.

    Attributes:
        by: what a row is: a canonical op, an op in one phase of the step, or a layer.
        top: how many rows before the others are summed up.
        sort: by what, the largest in any column first; `share` is the larger of the shares in bytes and in time.
        phase: only this one's rows; the other phases are summed up.
        which: a train step or an evaluation.
    """

    by: By = "op"
    top: int = 10
    sort: Sort = "share"
    phase: Phase | None = None
    which: Which = "train_step"


def op_tables(
    records: Sequence[Record],
    *,
    by: By = "op",
    top: int = 10,
    sort: Sort = "share",
    phase: Phase | None = None,
    which: Which = "train_step",
) -> tuple[Table, ...]:
    """A table for each network, data set, batch and iteration count of which a step was profiled.

    Args:
        records: of a run; of several seeds the first is shown.
        by: see `View`, as for all others.
        top: rows before the others are summed up.
        sort: order of the rows.
        phase: the only one whose rows are shown.
        which: step.
    """
    view = View(by, top, sort, phase, which)
    return tuple(table for group in groups(records) for table in of_group(group, view))


def of_group(group: Group, view: View) -> Iterator[Table]:
    """The table of one group, or none."""
    sides = parts(group, view.which, event_key(view.by, view.phase))
    if not sides:
        return
    alive = view.by == "layer" and any(part.profile.alive_at_peak for part in sides)
    ranked, closing = _ranked(sides, view.sort), closing_lines(sides, alive=alive)
    shown, others = ranked[: view.top], ranked[view.top :]
    lines = [*([key] for key in shown), *([others] if others else []), *([key] for key in closing)]
    names = [_name_cells(key, view.by) for key in shown]
    names += [_name_cells(("", text), view.by) for text in (*_others(others, view.by), *(n for _, n in closing), TOTAL)]
    heads, cells = columns(sides, lines, alive=alive)
    yield Table(
        title(TITLES[view.by], group),
        (*_name_columns(view.by), *heads),
        tuple((*name, *row) for name, row in zip(names, cells, strict=True)),
        context=context(group, *([f"{view.phase} phase"] if view.phase else []), STEP_NAMES[view.which]),
        notes=(*_reading_notes(sides, view), *profile_notes(group, sides, view.which)),
        closing_rows=1,
    )


def event_key(by: By, phase: Phase | None = None) -> Callable[[OpEvent], Key]:
    """The line that an event belongs to: views are a line of their own among ops, and part of their layer."""

    def key(event: OpEvent) -> Key:
        if phase is not None and event.phase != phase:
            return OTHER_PHASES_LINE
        if by == "layer":
            return ("layer", event.layer) if event.layer is not None else ("", NO_LAYER)
        if event.op == VIEW:
            return VIEWS_LINE
        return (event.phase if by == "phase" else by, event.op)

    return key


def _ranked(sides: Sequence[Part], sort: Sort) -> list[Key]:
    """All keys but the closing ones, the heaviest in any column first."""
    weight: dict[Key, float] = {}
    for part in sides:
        for key, spent in part.lines.items():
            weight[key] = max(weight.get(key, 0.0), _weight(spent, part.total, sort))
    for key in closing_lines(sides, alive=True):
        weight.pop(key, None)
    return sorted(weight, key=lambda key: (-weight[key], key[1], key[0]))


def _weight(spent: Spent, total: Spent, sort: Sort) -> float:
    if sort == "bytes":
        return spent.allocated_bytes
    if sort == "time":
        return spent.seconds
    return max(spent.allocated_bytes / (total.allocated_bytes or 1), spent.seconds / (total.seconds or 1))


def _others(others: Sequence[Key], by: By) -> list[str]:
    what = f"other {'layer' if by == 'layer' else 'op'}{'s' if len(others) > 1 else ''}"
    return [f"{fmt.count(len(others))} {what}"] if others else []


def _name_columns(by: By) -> tuple[Column, ...]:
    if by == "phase":
        return Column("phase", "key", "left"), Column("op", "key", "left")
    return (Column(by, "key", "left"),)


def _name_cells(key: Key, by: By) -> tuple[Cell, ...]:
    kind, name = key
    return (Cell(kind, kind or None), text_cell(name)) if by == "phase" else (text_cell(name),)


def _reading_notes(sides: Sequence[Part], view: View) -> Iterator[str]:
    yield _ORDERED[view.sort].format("a layer's" if view.by == "layer" else "an op's")
    if any(VIEWS_LINE in part.lines for part in sides):
        yield "(views): reshapes and the like, which move no data."
    if view.by != "layer":
        yield from fused_sub_notes(sides)
    elif any(part.profile.alive_at_peak for part in sides):
        yield "alive at peak: of the bytes that a layer's ops asked for, those that are alive when the most bytes are."
