"""Tables as CSV (RFC 4180), one below the other: a title, a header, rows, the context and the notes.

A column of numbers with a unit is followed by one of the exact values, whose header has the unit in brackets:
`train step` holds 212.3 ms, `train step [s]` holds 0.2123.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from capsbench.errors import BadInput
from capsbench.report.rows import MadeRows
from capsbench.report.table import Cell, Column, Row, Table, Value

TITLE: Final = "# "
"""Begins the first line of a table, which holds its title; lines below the rows begin with one of the next two."""
CONTEXT: Final = "#: "
NOTE: Final = "#. "
_CHUNK: Final = 1_000
"""Rows of a piece of text."""


def pieces(table: Table) -> Iterator[str]:
    """The text of a table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([TITLE + table.title])
    units = [_unit(table, index) for index in range(len(table.columns))]
    heads = [_head(column) for column in table.columns]
    names = zip(heads, units, strict=True)
    writer.writerow([name for head, unit in names for name in (head, *([] if unit is None else [f"{head} [{unit}]"]))])
    is_exact = [unit is not None for unit in units]
    for number, row in enumerate(table.rows, 1):
        writer.writerow(_with_exact(row, is_exact))
        if number % _CHUNK == 0:
            yield _taken(text)
    writer.writerows([[CONTEXT + each] for each in table.context])
    writer.writerows([[NOTE + each] for each in table.notes])
    yield _taken(text)


def together(tables: Iterable[Iterable[str]]) -> Iterator[str]:
    """The texts of tables, an empty line between two of them."""
    for number, table in enumerate(tables):
        if number:
            yield "\n"
        yield from table


def write(tables: Iterable[Table]) -> str:
    """The whole text."""
    return "".join(together(map(pieces, tables)))


def _taken(text: io.StringIO) -> str:
    told = text.getvalue()
    text.seek(0)
    text.truncate()
    return told


def read(text: str) -> tuple[Table, ...]:
    """The tables that `write` wrote: titles, headers, texts, exact values where they have a unit, context, notes.

    Raises:
        BadInput: it wrote no such text.
    """
    tables: list[Table] = []
    block: list[list[str]] = []
    for row in [*csv.reader(io.StringIO(text), strict=True), []]:
        if row:
            block.append(row)
        elif block:
            tables.append(_table(block))
            block = []
    return tuple(tables)


def _unit(table: Table, index: int) -> str | None:
    """What the numbers of a column are in; None where texts say all."""
    rows = table.rows
    if isinstance(rows, MadeRows):
        units = rows.units(index)
    else:
        units = {row[index].unit for row in rows if row[index].value is not None}
    return "/".join(sorted(units - {""})) or None


def _head(column: Column) -> str:
    head = " ".join(column.header.split())
    return f"{column.group}: {head}" if column.group and "\n" in column.header else head


def _with_exact(row: Row, is_exact: Sequence[bool]) -> Iterator[Value]:
    """The texts of a row, each exact value beside its text; the writer writes all its digits, and nothing for None."""
    for (text, value, _), has_exact in zip(row, is_exact, strict=True):
        yield text
        if has_exact:
            yield value


def _table(block: Sequence[Sequence[str]]) -> Table:
    title, *rest = block
    said = [row for row in rest if len(row) == 1 and row[0].startswith((CONTEXT, NOTE))]
    rows = [row for row in rest if row not in said]
    if not title[0].startswith(TITLE) or not rows or any(len(row) != len(rows[0]) for row in rows):
        raise BadInput("this is no CSV of capsbench: a title, a header and rows as long as it are expected")
    heads, *lines = rows
    columns = [index for index in range(len(heads)) if not _is_exact(heads, index)]
    return Table(
        title[0].removeprefix(TITLE),
        tuple(Column(heads[index]) for index in columns),
        tuple(tuple(_cell(heads, line, index) for index in columns) for line in lines),
        context=tuple(row[0].removeprefix(CONTEXT) for row in said if row[0].startswith(CONTEXT)),
        notes=tuple(row[0].removeprefix(NOTE) for row in said if row[0].startswith(NOTE)),
    )


def _is_exact(heads: Sequence[str], index: int) -> bool:
    return index > 0 and heads[index].startswith(f"{heads[index - 1]} [") and heads[index].endswith("]")


def _cell(heads: Sequence[str], line: Sequence[str], index: int) -> Cell:
    if index + 1 < len(heads) and _is_exact(heads, index + 1) and line[index + 1]:
        unit = heads[index + 1].removeprefix(f"{heads[index]} [").removesuffix("]")
        return Cell(line[index], float(line[index + 1]), unit)
    return Cell(line[index])
