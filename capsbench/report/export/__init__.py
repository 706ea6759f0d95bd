"""Tables for papers, pages and spreadsheets: one module a format, all with `pieces(tables)`, which make up its text.

Tables are taken one at a time and no more is held of one than its format asks for, however many rows it has.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Literal

from capsbench.report.export import comma, latex, markdown, plainjson
from capsbench.report.table import Table

Format = Literal["csv", "json", "md", "latex"]

PIECES: Final[Mapping[Format, Callable[[Iterable[Table]], Iterator[str]]]] = {
    "csv": comma.pieces,
    "json": plainjson.pieces,
    "md": markdown.pieces,
    "latex": latex.pieces,
}


def write(format_: Format, tables: Iterable[Table]) -> str:
    """The whole text."""
    return "".join(PIECES[format_](tables))
