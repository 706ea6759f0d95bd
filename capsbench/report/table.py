"""A table as data: columns, cells, what all rows share, and what must be known to read it."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from capsbench.report.format import NOTHING, UNITS, label

Value = float | int | str | None


class Cell(NamedTuple):
    """A text as printed, and the exact value behind it for whoever exports the table.

    Attributes:
        text: as printed.
        value: what it says, exactly.
        unit: of the value: `s`, `B`, `FLOP`; `share` where the text is in per cent; empty for a name or a mere number.
    """

    text: str
    value: Value = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        header: one line, or two where a group's name stands above.
        role: `key` says which row it is and is repeated at the left wherever the table is cut to the width of a
            screen, `status` likewise at the right; `value` is what is told of the row.
        align: of header and cells.
        group: columns of one group are not torn apart where the table is cut.
        shared: where all rows have the same cell, the column leaves and this text, with {} for the cell, goes into the
            table's context; empty for a column that always stays.
    """

    header: str
    role: Literal["key", "value", "status"] = "value"
    align: Literal["left", "right"] = "right"
    group: str = ""
    shared: str = ""


Row = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """What is printed.

    Attributes:
        title: what it is about.
        columns: from left to right.
        rows: as many cells each as there are columns; `rows.MadeRows` makes them when they are read.
        context: what holds for every row.
        notes: what must be known to read the numbers.
        closing_rows: how many of the last rows are set apart by a line, such as a total.
    """

    title: str
    columns: tuple[Column, ...]
    rows: Sequence[Row]
    context: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    closing_rows: int = 0


SETTING_COLUMNS: Final = (
    Column("data set", "key", "left", shared="{}"),
    Column("device", "key", "left", shared="{}"),
    Column("threads", "key", shared="threads {}"),
    Column("precision", "key", "left", shared="{}"),
    Column("allocator", "key", "left", shared="{} allocator"),
)
"""What a case was run on and how; said once above a table where all cases agree."""


def cell(value: float | None, write: Callable[[float | None], str]) -> Cell:
    """A number as a function of `format` writes it."""
    return Cell(write(value), value, UNITS.get(write, ""))


@lru_cache(maxsize=4096, typed=True)
def text_cell(value: Hashable) -> Cell:
    """A cell for a name or another word from elsewhere; what does not print is escaped."""
    return Cell(NOTHING) if value is None else Cell(label(value), value if isinstance(value, int | str) else None)


def share(table: Table) -> Table:
    """Move what all rows agree on, as far as they say anything, out of the columns and into the context."""
    agreed = [index for index, column in enumerate(table.columns) if column.shared and len(_told(table, index)) <= 1]
    context = [table.columns[index].shared.format(text) for index in agreed for text in _told(table, index)]
    kept = [index for index in range(len(table.columns)) if index not in agreed]
    return replace(
        table,
        columns=tuple(table.columns[index] for index in kept),
        rows=tuple(tuple(row[index] for index in kept) for row in table.rows),
        context=(*table.context, *context),
    )


def _told(table: Table, index: int) -> set[str]:
    """The different texts of a column; a row that has nothing there contradicts nobody."""
    return {row[index].text for row in table.rows} - {NOTHING}


def cut(table: Table, widths: Sequence[int], width: int, gap: int) -> list[tuple[int, ...]]:
    """Cut a table into blocks that are no wider than `width`, with key and status columns in each.

    Args:
        table: the table.
        widths: characters of each column.
        width: characters of the screen.
        gap: characters between two columns.

    Returns:
        The columns' indices, block by block. Groups are kept whole where one fits; a column alone may be too wide.
    """
    roles = [column.role for column in table.columns]
    left = [i for i, role in enumerate(roles) if role == "key"]
    right = [i for i, role in enumerate(roles) if role == "status"]
    free = width - sum(widths[i] + gap for i in (*left, *right)) + gap
    blocks: list[list[int]] = [[]]
    used = 0
    for group in _groups(table, widths, free, gap):
        needed = sum(widths[i] + gap for i in group)
        if blocks[-1] and used + needed > free:
            blocks.append([])
            used = 0
        blocks[-1] += group
        used += needed
    return [(*left, *block, *right) for block in blocks]


def _groups(table: Table, widths: Sequence[int], free: int, gap: int) -> Iterable[list[int]]:
    """Indices of value columns that stay together; the columns of a group that is too wide go one by one."""
    groups: dict[tuple[str, int], list[int]] = {}
    for index, column in enumerate(table.columns):
        if column.role == "value":
            groups.setdefault((column.group, 0 if column.group else index), []).append(index)
    for group in groups.values():
        if sum(widths[i] + gap for i in group) <= free:
            yield group
        else:
            yield from ([index] for index in group)
