"""Tables as GitHub shows them in Markdown; no name can become markup or a link."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

from capsbench.report.export.columns import columns_of, written
from capsbench.report.table import Cell, Table

# ASCII punctuation, all of which a backslash takes its meaning from (CommonMark 0.31, 2.4).
_MARKUP: Final = re.compile(r"([\\`*_{}\[\]()<>#+!|~&@$^=-])")
_LINK: Final = re.compile(r"(://|www\.)")


def pieces(tables: Iterable[Table]) -> Iterator[str]:
    """The tables, each below its title."""
    lines = (line for table in tables for line in _lines(table))
    yield next(lines, "")
    yield from (f"\n{line}" for line in lines)


def write(tables: Iterable[Table]) -> str:
    """The whole text."""
    return "".join(pieces(tables))


@lru_cache(maxsize=4096)
def escape(text: str) -> str:
    """A text that stands for itself, on one line."""
    told = _MARKUP.sub(r"\\\1", " ".join(text.split()))
    return _LINK.sub(lambda found: f"{found[1][0]}&#8203;{found[1][1:]}", told)


def _lines(table: Table) -> Iterator[str]:
    yield from (f"### {escape(table.title)}", "")
    if table.context:
        yield from (escape(" · ".join(table.context)), "")
    yield _row([escape(column.header) for column in table.columns])
    yield _row([":---" if column.align == "left" else "---:" for column in table.columns])
    closing = len(table.rows) - table.closing_rows
    rows = (row for columns in columns_of(table) for row in zip(*map(_escaped, columns), strict=True))
    for number, texts in enumerate(rows):
        yield _row([f"**{text}**" if text else "" for text in texts] if number >= closing else texts)
    yield ""
    if table.notes:
        yield from (f"- {escape(note)}" for note in table.notes)
        yield ""


def _escaped(cells: Sequence[Cell]) -> list[str]:
    return written(cells, lambda cell: escape(cell.text))


def _row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"
