"""How routing goes from one iteration to the next: undecided or decided, nearer or not, who starves."""

from collections.abc import Iterator, Sequence
from typing import Final

from capsbench.measure.distribution import RoutingIteration
from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.groups import Group, Side, context, groups, seed_notes, sides, title
from capsbench.report.table import Cell, Column, Table, cell, text_cell
from capsbench.store.records import may_have

TITLE: Final = "Routing"
_Place = tuple[str, int]
_NOTES: Final = (
    "entropy of a child's couplings over its parents: 1 undecided, 0 decided.",
    "gain: by how much the votes have drawn nearer to their parents' poses since the first iteration.",
    "starved: parents that hardly any vote is assigned to.",
)


def routing_tables(records: Sequence[Record]) -> tuple[Table, ...]:
    """The routing metrics, a row for each layer and iteration, the realizations of a group side by side."""
    return tuple(table for group in groups(records) for table in of_group(group))


def of_group(group: Group) -> Iterator[Table]:
    """The table of one group, or none."""
    told = sides(group, lambda record: record.routing, lambda record: may_have(record, "routing"))
    if not told:
        return
    layers = list(dict.fromkeys(state.layer for side in told for state in side.record.routing))
    places = sorted(
        {(state.layer, state.iteration) for side in told for state in side.record.routing},
        key=lambda place: (layers.index(place[0]), place[1]),
    )
    made = [_column_cells(side, places) for side in told]
    columns = (Column("layer", "key", "left"), Column("iteration", "key"))
    yield Table(
        title(TITLE, group),
        (*columns, *(column for side in told for column in _columns(side))),
        tuple(
            (text_cell(layer), cell(iteration, fmt.count), *(cell for cells in made for cell in cells[i]))
            for i, (layer, iteration) in enumerate(places)
        ),
        context=context(group, "trained network, test split"),
        notes=(*_NOTES, *seed_notes(group)),
    )


def _columns(side: Side) -> tuple[Column, ...]:
    return tuple(Column(head, group=side.name) for head in (f"{side.name}\nentropy", "gain %", "starved %"))


def _column_cells(side: Side, places: Sequence[_Place]) -> list[tuple[Cell, ...]]:
    states = {(state.layer, state.iteration): state for state in side.record.routing}
    return [_cells(states.get(place)) for place in places]


def _cells(state: RoutingIteration | None) -> tuple[Cell, ...]:
    if state is None:
        return (Cell(fmt.NOTHING),) * 3
    return (
        cell(state.coupling_entropy, fmt.plain_number),
        cell(state.agreement_gain, fmt.percent),
        cell(state.starved_share, fmt.percent),
    )
