"""Routing iterations: what each costs within one step, and what one more costs from case to case."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from capsbench.measure.optable import OpEvent, Phase
from capsbench.metrics import METRICS
from capsbench.record.grouping import distinct, grouped
from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.fields import KEY_ATTRIBUTES, SETTING_ATTRIBUTES
from capsbench.report.groups import STEP_NAMES, Group, Which, context, groups, title
from capsbench.report.notes import profile_notes
from capsbench.report.parts import OTHER_PHASES_LINE, TOTAL, Key, closing_lines, columns, parts
from capsbench.report.rows import Field, attributes, table_of_items
from capsbench.report.table import Cell, Column, Table, cell, text_cell
from capsbench.store.records import values_of

OUTSIDE: Final = "outside routing"

TITLE: Final = "Routing iterations"
_ITERATION: Final = "iteration"
_OUTSIDE_LINE: Final[Key] = ("", OUTSIDE)
_SLOPES: Final[tuple[tuple[str, Callable[[float | None], str]], ...]] = (
    ("train_step_seconds", fmt.seconds),
    ("forward_seconds", fmt.seconds),
    ("peak_bytes", fmt.size),
    ("allocated_bytes", fmt.size),
)


def iteration_tables(
    records: Sequence[Record], *, phase: Phase | None = None, which: Which = "train_step"
) -> tuple[Table, ...]:
    """What each routing iteration costs, a table for each group of cases, and what one more costs.

    Args:
        records: of a run; of several seeds the first is shown, and all are points of the slopes.
        phase: the only one whose costs are sorted by iteration; None for all.
        which: step that the costs are of; the slopes are always of both.
    """
    sloped = sloped_networks(records)
    costs = (table for group in groups(records) for table in of_group(group, phase=phase, which=which, sloped=sloped))
    return (*costs, *slope_tables(records))


def sloped_networks(records: Sequence[Record]) -> set[str]:
    """The networks with a slope."""
    of_work = grouped(_routed(records), _work).values()
    return {cases[0].case.network for cases in of_work if len(distinct(cases, _iterations)) > 1}


def slope_tables(records: Sequence[Record]) -> Iterator[Table]:
    """What one more iteration costs; one table, or none where no case has two counts."""
    found = [work for work in _works(_routed(records)) if len(work.counts) > 1]
    if found:
        yield table_of_items("One more routing iteration", _FIELDS, found, (_SLOPE_NOTE,))


def slope(iterations: NDArray[np.int64], values: NDArray[np.float64]) -> float | None:
    """Least-squares slope of values over iteration counts, [cases] both; None with fewer than two counts.

    A value that is not finite is no point of the line.
    """
    finite = np.isfinite(values)
    counts, values = iterations[finite].astype(np.float64), values[finite]
    if not len(counts) or counts.min() == counts.max():
        return None
    counts -= counts.mean()
    return float(counts @ (values - values.mean()) / (counts @ counts))


def of_group(
    group: Group,
    *,
    phase: Phase | None = None,
    which: Which = "train_step",
    sloped: AbstractSet[str] = frozenset(),
) -> Iterator[Table]:
    """What each routing iteration costs, as in `iteration_tables`; `sloped` networks need no word on how to get one."""

    def key(event: OpEvent) -> Key:
        if phase is not None and event.phase != phase:
            return OTHER_PHASES_LINE
        return _OUTSIDE_LINE if event.routing_iteration is None else (_ITERATION, str(event.routing_iteration))

    steps = parts(group, which, key)
    iterations = {key for part in steps for key in part.lines if key[0] == _ITERATION}
    if not iterations:
        return
    keys = [*sorted(iterations, key=lambda key: int(key[1])), _OUTSIDE_LINE, *closing_lines(steps)]
    heads, cells = columns(steps, [[key] for key in keys])
    names = [*(name for _, name in keys), TOTAL]
    notes = ["iterations are counted from 0; a backward op belongs to the one whose forward op it is of."]
    if group.case.network not in sloped:
        notes.append("a suite with `routing_iterations: [1, 2, 3]` gives the slope per added iteration.")
    yield Table(
        title(TITLE, group),
        (Column("iteration", "key", "left"), *heads),
        tuple((text_cell(name), *row) for name, row in zip(names, cells, strict=True)),
        context=context(group, *([f"{phase} phase"] if phase else []), STEP_NAMES[which]),
        notes=(*notes, *profile_notes(group, steps, which)),
        closing_rows=1,
    )


def _routed(records: Sequence[Record]) -> list[Record]:
    """The cases that route."""
    return [record for record in records if record.case.routing_iterations is not None]


def _work(record: Record) -> tuple[object, ...]:
    """All of a case but its iteration count and seed."""
    case = record.case
    what = (case.network, case.dataset, case.backend, case.mode, case.batch)
    return *what, case.device, case.threads, case.devices, case.precision, case.allocator


def _iterations(record: Record) -> int:
    return record.case.routing_iterations or 0


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """Cases that differ in their iteration count and seed only.

    Attributes:
        first: stands for what they share.
        iterations: of each, [cases].
        values: by metric, [cases] each; NaN where a case has none.
    """

    first: Record
    iterations: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]

    @property
    def counts(self) -> list[int]:
        """The different iteration counts, ascending."""
        return sorted(set(self.iterations.tolist()))


def _works(records: Sequence[Record]) -> Iterator[_Work]:
    columns = zip(*(values_of(records, name) for name, _ in _SLOPES), strict=True)
    for group in grouped(zip(records, columns, strict=True), lambda each: _work(each[0])).values():
        cases, rows = zip(*group, strict=True)
        values = np.array(rows, dtype=np.float64).T
        iterations = np.array(list(map(_iterations, cases)), dtype=np.int64)
        yield _Work(cases[0], iterations, dict(zip((name for name, _ in _SLOPES), values, strict=True)))


def _slope_cell(work: _Work, *, metric: str, text: Callable[[float | None], str]) -> Cell:
    return cell(slope(work.iterations, work.values[metric]), text)


def _most_points(work: _Work) -> Cell:
    return cell(max(int(np.isfinite(column).sum()) for column in work.values.values()), fmt.count)


_SLOPE_NOTE: Final = "least-squares slope over all cases that differ in their iteration count and seed only."
_FIELDS: Final[tuple[Field[_Work], ...]] = (
    *attributes((*KEY_ATTRIBUTES[:-1], *SETTING_ATTRIBUTES), "first"),
    Field(
        Column("iterations", "key", "left", shared="iterations {}"),
        lambda work: text_cell(", ".join(map(str, work.counts))),
    ),
    Field(Column("points", "key", shared="points {}"), _most_points),
    *(Field(Column(METRICS[name].header), partial(_slope_cell, metric=name, text=text)) for name, text in _SLOPES),
)
