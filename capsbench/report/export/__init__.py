"""Tables for papers, pages and spreadsheets: one module a format, all with `write(tables) -> text`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from capsbench.report.export import comma, latex, markdown, plainjson
from capsbench.report.table import Table

Format = Literal["csv", "json", "md", "latex"]

WRITERS: Final[Mapping[Format, Callable[[Sequence[Table]], str]]] = {
    "csv": comma.write,
    "json": plainjson.write,
    "md": markdown.write,
    "latex": latex.write,
}
