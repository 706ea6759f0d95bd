"""Tables for LaTeX with booktabs; they need nothing but that package, textcomp and the font encoding T1.

A table wider than a column of text is cut as on a narrow console, one longer than a page by its rows: each part is a
float of its own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Final

from capsbench.report.console import column_widths
from capsbench.report.table import Cell, Column, Table, cut

_ESCAPES: Final[Mapping[str, str]] = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "–": "--",
    "—": "---",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "µ": r"$\mu$",
    "→": r"$\rightarrow$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "λ": r"$\lambda$",
    "β": r"$\beta$",
    "…": r"\ldots{}",
    "-": "-{}",  # two of them are not a dash
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
}

_TRANSLATION: Final = str.maketrans(dict(_ESCAPES))

# Of a page of the class article, 345 points wide, in a font of 8 points; of its height.
_WIDTH: Final = 80
_GAP: Final = 2
_LINES: Final = 42
_FLOATS: Final = 16
_EM_A_CHARACTER: Final = 0.5


def pieces(tables: Iterable[Table]) -> Iterator[str]:
    """The tables, each a float of its own, or several, with its notes below."""
    yield "% \\usepackage{booktabs}\n% \\usepackage[T1]{fontenc}\n% \\usepackage{textcomp}\n"
    for number, part in enumerate(part for table in tables for part in _floats(table)):
        # LaTeX holds a few dozen floats back at most; whoever exports more has no text between them.
        between = "" if number == 0 else "\n" if number % _FLOATS else "\n\\clearpage\n"
        yield between + part
    yield "\n"


def write(tables: Iterable[Table]) -> str:
    """The whole text."""
    return "".join(pieces(tables))


def escape(text: str) -> str:
    """A text that stands for itself; a letter that is not ASCII, and no sign known here, becomes a question mark."""
    told = " ".join(text.split()).translate(_TRANSLATION)
    return told if told.isascii() else "".join(c if c.isascii() else "?" for c in told)


def _floats(table: Table) -> Iterator[str]:
    """A float for each part; the notes are in the last."""
    table = replace(table, rows=tuple(table.rows))  # all of its parts look at them
    widths = column_widths(table, _WIDTH)
    parts = [
        (block, rows) for block in cut(table, widths, _WIDTH, _GAP) for rows in _pages(_folded(table, block, widths))
    ]
    for number, (block, rows) in enumerate(parts, 1):
        part = f" ({number} of {len(parts)})" if len(parts) > 1 else ""
        notes = table.notes if number == len(parts) else ()
        yield "\n".join(_lines(table, f"{table.title}{part}", block, rows, widths, notes))


def _lines(
    table: Table, title: str, block: Sequence[int], rows: Sequence[int], widths: Sequence[int], notes: Sequence[str]
) -> Iterator[str]:
    yield from (r"\begin{table}[htbp]", r"\centering\footnotesize\setlength{\tabcolsep}{4pt}")
    yield rf"\caption{{{escape(', '.join([title, *table.context]))}}}"
    aligned = "".join("l" if table.columns[index].align == "left" else "r" for index in block)
    yield rf"\begin{{tabular}}{{@{{}}{aligned}@{{}}}}"
    yield r"\toprule"
    yield from _header([table.columns[index] for index in block])
    yield r"\midrule"
    for place in rows:
        if place == len(table.rows) - table.closing_rows and place != rows[0]:
            yield r"\midrule"
        yield _row([_cell(table.rows[place][index], widths[index]) for index in block])
    yield from (r"\bottomrule", r"\end{tabular}")
    yield from (rf"\par\smallskip\raggedright {escape(note)}" for note in notes)
    yield r"\end{table}"


def _folded(table: Table, block: Sequence[int], widths: Sequence[int]) -> list[int]:
    """How many lines each row takes; where words end, a fifth of a line is lost."""

    def lines(text: str, width: int) -> int:
        return 1 if len(text) <= width else ceil(1.2 * len(text) / width)

    return [max(lines(row[index].text, widths[index]) for index in block) for row in table.rows]


def _pages(lines: Sequence[int]) -> Iterator[range]:
    """Rows, as many as a page holds; none of no rows."""
    first = used = 0
    for place, taken in enumerate(lines):
        if used + taken > _LINES and place > first:
            yield range(first, place)
            first, used = place, 0
        used += taken
    yield range(first, len(lines))


def _header(columns: Sequence[Column]) -> Iterator[str]:
    """As many lines as the tallest header, each header standing on the last of them."""
    heads = [column.header.split("\n") for column in columns]
    height = max(map(len, heads))
    for line in range(height):
        yield _row([escape(head[line - height]) if height - line <= len(head) else "" for head in heads])


def _cell(cell: Cell, width: int) -> str:
    """A text, in lines where it is wider than its column."""
    if len(cell.text) <= width:
        return escape(cell.text)
    return rf"\parbox[t]{{{_EM_A_CHARACTER * width:.1f}em}}{{\raggedright {escape(cell.text)}\strut}}"


def _row(texts: Sequence[str]) -> str:
    # The end of the line before would take a bracket or an asterisk for its own.
    guard = r"\relax " if texts and texts[0].startswith(("[", "*")) else ""
    return f"{guard}{' & '.join(texts)} \\\\"
