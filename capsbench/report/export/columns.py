"""The cells of a table column by column: what many rows have in common is written once."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from capsbench.report.rows import MadeRows
from capsbench.report.table import Cell, Table

T = TypeVar("T")


def columns_of(table: Table) -> Iterator[Sequence[Sequence[Cell]]]:
    """The columns of some rows, and then of the next; none of a table without rows."""
    if isinstance(table.rows, MadeRows):
        yield from table.rows.columns()
    elif table.rows:
        yield list(zip(*table.rows, strict=True))


def written(cells: Sequence[Cell], write: Callable[[Cell], T]) -> list[T]:
    """Each cell as it is written; one that stands in many rows is written once."""
    different = {id(cell): cell for cell in cells}
    if len(different) == len(cells):
        return list(map(write, cells))
    texts = {key: write(cell) for key, cell in different.items()}
    return [texts[id(cell)] for cell in cells]
