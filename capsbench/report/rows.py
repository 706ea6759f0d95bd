"""Rows that are made when they are read: a table of a hundred thousand cases is a list of cases and a few functions."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from capsbench.record.classes import examples, told, where
from capsbench.report.format import NOTHING
from capsbench.report.table import Cell, Column, Row, Table

T = TypeVar("T")
H = TypeVar("H", bound=Hashable)

_SOON: Final = 100
"""Rows that are looked at before all are."""
_TOGETHER: Final = 2_000
"""Rows that are made at a time."""
_FEW: Final = 20
"""Rows in which a number is looked for before it is in others."""
_MORE: Final = "--case GLOB chooses, --rows N or all shows more, capsbench export has all."


@dataclass(frozen=True, slots=True)
class Field(Generic[T]):
    """A column and where its cells come from.

    Attributes:
        column: the column.
        cell: of an item.
        alike: whether items of a class have the same cell, as far as `items` know of classes.
        mixed: whether its numbers have several units; else all have that of the first.
        told: what of an item the cell follows from, where that is quicker to have than the cell.
        all: makes the cells of all items, where that is quicker than one by one.
        each: what the cells of all items follow from, where that is quicker to have together; not of what is alike.
    """

    column: Column
    cell: Callable[[T], Cell]
    alike: bool = False
    mixed: bool = False
    told: Callable[[T], Hashable] | None = None
    each: Callable[[Sequence[T]], Sequence[Hashable]] | None = None
    all: Callable[[Sequence[T]], Sequence[Cell]] | None = None

    def cells(self, items: Sequence[T]) -> Sequence[Cell]:
        """The cells of items."""
        if self.all is not None:
            return self.all(items)
        return told(items, self.cell) if self.alike else list(map(self.cell, items))


def attribute(column: Column, path: str, write: Callable[[Any], Cell]) -> Field[Any]:
    """A column that tells an attribute of its items, such as `case.network`, which all of a class have in common."""
    return derived(column, attrgetter(path), write)


def attributes(known: Iterable[tuple[Column, str, Callable[[Any], Cell]]], part: str = "") -> tuple[Field[Any], ...]:
    """Such columns; of a part of their items, such as `pair.base`."""
    return tuple(attribute(column, f"{part}.{path}" if part else path, write) for column, path, write in known)


def derived(column: Column, get: Callable[[T], H], write: Callable[[H], Cell]) -> Field[T]:
    """A column whose cells follow from one thing about its items, which all of a class have in common."""
    return Field(column, lambda item: write(get(item)), alike=True, told=get)


@dataclass(frozen=True, slots=True, eq=False)
class MadeRows(Sequence[Row], Generic[T]):
    """A row for each item.

    Attributes:
        items: what the rows are of.
        fields: of the columns.
        urgent: which items a person must see, such as cases that failed, whatever else is left out.
        what: the urgent items are called.
    """

    items: Sequence[T]
    fields: tuple[Field[T], ...]
    urgent: Callable[[T], bool] = field(default=lambda _: False)
    what: str = ""

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Row]:
        for columns in self.columns():
            yield from zip(*columns, strict=True)

    def columns(self) -> Iterator[Sequence[Sequence[Cell]]]:
        """The cells column by column, some rows at a time."""
        for first in range(0, len(self.items), _TOGETHER):
            some = self.items[first : first + _TOGETHER]
            yield [each.cells(some) for each in self.fields]

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204 - of Sequence
        if isinstance(index, slice):
            return replace(self, items=self.items[index])
        item = self.items[index]
        return tuple([each.cell(item) for each in self.fields])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def of(self, columns: Sequence[int]) -> "MadeRows[T]":
        """The same rows with some of the columns."""
        return replace(self, fields=tuple(self.fields[index] for index in columns))

    def units(self, index: int) -> set[str]:
        """What the numbers of a column are in."""
        ends = [0, min(_FEW, len(self.items)), *range(_FEW + _TOGETHER, len(self.items), _TOGETHER), len(self.items)]
        some = (self.items[first:end] for first, end in pairwise(ends))
        cells = (cell for items in some for cell in self.fields[index].cells(items))
        numbers = (cell for cell in cells if cell.value is not None)
        return {cell.unit for cell in (numbers if self.fields[index].mixed else islice(numbers, 1))}

    def first(self, count: int) -> "MadeRows[T]":
        """So many rows in their order, among them urgent ones, which may be up to half of them."""
        urgent = np.flatnonzero(self.are_urgent)[: count // 2].tolist()
        chosen = dict.fromkeys([*urgent, *range(min(count, len(self.items)))])
        return replace(self, items=[self.items[i] for i in sorted(islice(chosen, count))])

    @property
    def are_urgent(self) -> NDArray[np.bool_]:
        """Which items are urgent, [items]."""
        return where(self.items, self.urgent)


def table_of_items(
    title: str,
    fields: Sequence[Field[T]],
    items: Sequence[T],
    notes: tuple[str, ...] = (),
    *,
    urgent: Callable[[T], bool] = lambda _: False,
    what: str = "",
) -> Table:
    """A row for each item; what all rows agree on goes into the context."""
    rows = MadeRows(items, tuple(fields), urgent, what)
    kept, context = [], []
    for index, each in enumerate(rows.fields):
        texts = _agreed(each, items) if each.column.shared else None
        if texts is None:
            kept.append(index)
        else:
            context += [each.column.shared.format(text) for text in texts]
    columns = tuple(rows.fields[index].column for index in kept)
    return Table(title, columns, rows.of(kept), context=tuple(context), notes=notes)


def _agreed(field: Field[T], items: Sequence[T]) -> set[str] | None:
    """The only text of a column, or none; None where there are several. A row with nothing there contradicts nobody."""
    texts: set[str] = set()
    for some in (items[:_SOON], items):  # most columns that disagree do so soon
        for item in _different(field, some):
            text = field.cell(item).text
            if text != NOTHING:
                texts.add(text)
                if len(texts) > 1:
                    return None
    return texts


def _different(field: Field[T], items: Sequence[T]) -> Iterable[T]:
    """Items among which are all cells of a field, as few as are soon found."""
    some = examples(items) if field.alike else items
    if field.each is not None:
        places = {value: place for place, value in enumerate(field.each(items))}
        return (items[place] for place in places.values())
    return some if field.told is None else dict(zip(map(field.told, some), some, strict=True)).values()


def shortened(table: Table, rows: int | None) -> Table:
    """A table for a screen: so many of its rows, if these are of cases, and how many more there are; None for all."""
    made = table.rows
    if rows is None or not isinstance(made, MadeRows) or len(made) <= rows:
        return table
    shown = made.first(rows)
    urgent = int(made.are_urgent.sum() - shown.are_urgent.sum()) if made.what else 0
    which = f", {urgent:,} of them {made.what}" if urgent else ""
    note = f"… {len(made) - rows:,} more rows{which}; {_MORE}"
    return replace(table, rows=tuple(shown), notes=(note, *table.notes))


def few(tables: Iterator[Table], most: int | None) -> Iterator[Table]:
    """The first tables of a kind, a quarter as many as `most` rows; the last says that there are more. None for all."""
    last = None
    for table in islice(tables, None if most is None else -(-most // 4)):
        if last is not None:
            yield last
        last = table
    if last is None:
        return
    if most is not None and next(tables, None) is not None:
        last = replace(last, notes=(*last.notes, f"… more tables like this one; {_MORE}"))
    yield last
