"""Tables for papers, pages and spreadsheets: one module a format.

Each has `pieces(table)`, the text of one table, and `together(tables)`, which makes one text of the pieces of several.
No more is held of a table than its format asks for, however many rows it has.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from capsbench.report.export import comma, latex, markdown, plainjson
from capsbench.report.table import Table

Format = Literal["csv", "json", "md", "latex"]


@dataclass(frozen=True, slots=True)
class Writer:
    """A format.

    Attributes:
        pieces: the text of a table, piece by piece.
        together: the whole text, of the pieces of each table.
    """

    pieces: Callable[[Table], Iterator[str]]
    together: Callable[[Iterable[Iterable[str]]], Iterator[str]]

    def text(self, tables: Iterable[Table]) -> Iterator[str]:
        """The whole text of tables, piece by piece."""
        return self.together(map(self.pieces, tables))


WRITERS: Final[Mapping[Format, Writer]] = {
    "csv": Writer(comma.pieces, comma.together),
    "json": Writer(plainjson.pieces, plainjson.together),
    "md": Writer(markdown.pieces, markdown.together),
    "latex": Writer(latex.pieces, latex.together),
}


def write(format_: Format, tables: Iterable[Table]) -> str:
    """The whole text."""
    return "".join(WRITERS[format_].text(tables))
