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
    keys = list(map(id, cells))
    different = dict(zip(keys, cells, strict=True))
    if len(different) == len(cells):
        return list(map(write, cells))
    texts = {key: write(cell) for key, cell in different.items()}
    return [texts[key] for key in keys]


def translated(texts: Sequence[str], write: Callable[[str], str]) -> list[str]:
    """Each text as it is written, the same one once."""
    known = {text: write(text) for text in dict.fromkeys(texts)}
    return [known[text] for text in texts]
