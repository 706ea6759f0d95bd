"""Tables as GitHub shows them in Markdown; no name can become markup or a link."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

from capsbench.report.table import Table

# ASCII punctuation, all of which a backslash takes its meaning from (CommonMark 0.31, 2.4).
_MARKUP: Final = re.compile(r"([\\`*_{}\[\]()<>#+!|~&@$^=-])")
_LINK: Final = re.compile(r"(://|www\.)")


def pieces(table: Table) -> Iterator[str]:
    """A table below its title."""
    yield f"### {escape(table.title)}\n\n"
    if table.context:
        yield f"{escape(' · '.join(table.context))}\n\n"
    yield _row([escape(column.header) for column in table.columns])
    yield _row([":---" if column.align == "left" else "---:" for column in table.columns])
    closing = len(table.rows) - table.closing_rows
    for number, row in enumerate(table.rows):
        texts = [escape(cell.text) for cell in row]
        yield _row(texts if number < closing else [f"**{text}**" if text else "" for text in texts])
    if table.notes:
        yield "\n"
        yield from (f"- {escape(note)}\n" for note in table.notes)


def together(tables: Iterable[Iterable[str]]) -> Iterator[str]:
    """The tables one below the other, an empty line between two."""
    for number, table in enumerate(tables):
        if number:
            yield "\n"
        yield from table


def write(tables: Iterable[Table]) -> str:
    """The whole text."""
    return "".join(together(map(pieces, tables)))


@lru_cache(maxsize=65536)
def escape(text: str) -> str:
    """A text that stands for itself, on one line."""
    told = _MARKUP.sub(r"\\\1", " ".join(text.split()))
    return _LINK.sub(lambda found: f"{found[1][0]}&#8203;{found[1][1:]}", told)


def _row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |\n"
