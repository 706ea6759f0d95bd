"""Rows that are made when they are read: a table of a hundred thousand cases is a list of cases and a few functions."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar

from capsbench.report.format import NOTHING
from capsbench.report.table import Cell, Column, Row, Table

T = TypeVar("T")

_FIRST: Final = 100
"""Rows that are looked at before all are."""
_CHUNK: Final = 2_000
"""Rows that are made at a time."""
_MORE: Final = "--case GLOB chooses, --rows N or all shows more, capsbench export has all."


@dataclass(frozen=True, slots=True)
class Field(Generic[T]):
    """A column and where its cells come from.

    Attributes:
        column: the column.
        cell: of an item.
        mixed: whether its numbers have several units; else all have that of the first.
        key: what of an item the cell follows from, where that is quicker to have than the cell.
    """

    column: Column
    cell: Callable[[T], Cell]
    mixed: bool = False
    key: Callable[[T], Hashable] | None = None


def attribute(column: Column, path: str, write: Callable[[Any], Cell]) -> Field[Any]:
    """A column with an attribute of its items, such as `case.network`."""
    get = attrgetter(path)
    return Field(column, lambda item: write(get(item)), key=get)


def attributes(known: Iterable[tuple[Column, str, Callable[[Any], Cell]]], part: str = "") -> tuple[Field[Any], ...]:
    """Such columns; of a part of their items, such as `pair.base`."""
    return tuple(attribute(column, f"{part}.{path}" if part else path, write) for column, path, write in known)


@dataclass(frozen=True, slots=True, eq=False)
class MadeRows(Sequence[Row], Generic[T]):
    """A row for each item.

    Attributes:
        items: what the rows are of.
        fields: of the columns.
        urgent: places of items that a person must see, such as cases that failed, whatever else is left out.
        urgent_name: what they are called.
        prepare: is called with the items of some rows before these are made.
    """

    items: Sequence[T]
    fields: tuple[Field[T], ...]
    urgent: Sequence[int] = ()
    urgent_name: str = ""
    prepare: Callable[[Sequence[T]], None] = field(default=lambda _: None)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Row]:
        cells = [each.cell for each in self.fields]
        for some in self._chunks():
            for item in some:
                yield tuple([cell(item) for cell in cells])

    def _chunks(self) -> Iterator[Sequence[T]]:
        for first in range(0, len(self.items), _CHUNK):
            some = self.items[first : first + _CHUNK]
            self.prepare(some)
            yield some

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
        cells = map(self.fields[index].cell, (item for some in self._chunks() for item in some))
        numbers = (cell for cell in cells if cell.value is not None)
        return {cell.unit for cell in (numbers if self.fields[index].mixed else islice(numbers, 1))}

    def first(self, count: int) -> "MadeRows[T]":
        """So many rows in their order, among them urgent ones, which may be up to half of them."""
        chosen = dict.fromkeys([*self.urgent[: count // 2], *range(min(count, len(self.items)))])
        places = sorted(islice(chosen, count))
        urgent = set(self.urgent).intersection(places)
        return replace(self, items=[self.items[place] for place in places], urgent=tuple(urgent))


def table_of_items(
    title: str,
    fields: Sequence[Field[T]],
    items: Sequence[T],
    notes: tuple[str, ...] = (),
    *,
    urgent: Sequence[int] = (),
    urgent_name: str = "",
    prepare: Callable[[Sequence[T]], None] = lambda _: None,
    examples: Sequence[Any] | None = None,
) -> Table:
    """A row for each item; what all rows agree on goes into the context.

    Args:
        title: of the table.
        fields: of its columns.
        items: what the rows are of.
        notes: below it.
        urgent: see `MadeRows`, as for the next two.
        urgent_name: see there.
        prepare: see there.
        examples: what has all cells of the columns that may be shared, where that is quicker to have than all items.
    """
    rows = MadeRows(items, tuple(fields), urgent, urgent_name, prepare)
    kept, context = [], []
    for index, each in enumerate(rows.fields):
        texts = _agreed(each, items if examples is None else examples) if each.column.shared else None
        if texts is None:
            kept.append(index)
        else:
            context += [each.column.shared.format(text) for text in texts]
    columns = tuple(rows.fields[index].column for index in kept)
    return Table(title, columns, rows.of(kept), context=tuple(context), notes=notes)


def _agreed(field: Field[T], items: Sequence[T]) -> set[str] | None:
    """The only text of a column, or none; None where there are several. A row with nothing there contradicts nobody."""
    texts: set[str] = set()
    for some in (items[:_FIRST], items):  # most columns that disagree do so soon
        different = some if field.key is None else dict(zip(map(field.key, some), some, strict=True)).values()
        for item in different:
            text = field.cell(item).text
            if text != NOTHING:
                texts.add(text)
                if len(texts) > 1:
                    return None
    return texts


def shortened(table: Table, rows: int | None) -> Table:
    """A table for a screen: so many of its rows, if these are of cases, and how many more there are; None for all."""
    made = table.rows
    if rows is None or not isinstance(made, MadeRows) or len(made) <= rows:
        return table
    shown = made.first(rows)
    urgent = len(made.urgent) - len(shown.urgent)
    which = f", {urgent:,} of them {made.urgent_name}" if urgent else ""
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
