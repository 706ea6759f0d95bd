"""Tables for LaTeX with booktabs; they need nothing but that package, textcomp and the font encoding T1.

A table wider than a column of text is cut as on a narrow console, one longer than a page by its rows: each part is a
float of its own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from math import ceil
from typing import Final

from capsbench.report.table import Column, Table, cut
from capsbench.report.widths import widths_of

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


def pieces(table: Table) -> Iterator[str]:
    """A float for each part of a table; the notes are in the last."""
    columns = _texts(table)
    widths = widths_of(table.columns, columns, _WIDTH)
    parts = [
        (block, rows)
        for block in cut(table, widths, _WIDTH, _GAP)
        for rows in _pages(_folded([columns[index] for index in block], [widths[index] for index in block]))
    ]
    made: dict[int, list[str]] = {}
    for number, (block, rows) in enumerate(parts, 1):
        if rows.start == 0:  # columns of the next block, but for keys and status
            made = {index: made.get(index) or _cells(columns[index], widths[index]) for index in block}
        part = f" ({number} of {len(parts)})" if len(parts) > 1 else ""
        notes = table.notes if number == len(parts) else ()
        yield "\n".join(_lines(table, f"{table.title}{part}", made, rows, notes))


def together(tables: Iterable[Iterable[str]]) -> Iterator[str]:
    """The floats of tables, and what they need."""
    yield "% \\usepackage{booktabs}\n% \\usepackage[T1]{fontenc}\n% \\usepackage{textcomp}\n"
    for number, part in enumerate(part for table in tables for part in table):
        # LaTeX holds a few dozen floats back at most; whoever exports more has no text between them.
        between = "" if number == 0 else "\n" if number % _FLOATS else "\n\\clearpage\n"
        yield between + part
    yield "\n"


def write(tables: Iterable[Table]) -> str:
    """The whole text."""
    return "".join(together(map(pieces, tables)))


def escape(text: str) -> str:
    """A text that stands for itself; a letter that is not ASCII, and no sign known here, becomes a question mark."""
    told = " ".join(text.split()).translate(_TRANSLATION)
    return told if told.isascii() else "".join(c if c.isascii() else "?" for c in told)


def _texts(table: Table) -> list[list[str]]:
    """Of each column all texts."""
    rows = [[cell.text for cell in row] for row in table.rows]
    return list(map(list, zip(*rows, strict=True))) or [[] for _ in table.columns]


def _cells(texts: Sequence[str], width: int) -> list[str]:
    return [_cell(text, width) for text in texts]


def _lines(
    table: Table, title: str, made: Mapping[int, Sequence[str]], rows: range, notes: Sequence[str]
) -> Iterator[str]:
    yield from (r"\begin{table}[htbp]", r"\centering\footnotesize\setlength{\tabcolsep}{4pt}")
    yield rf"\caption{{{escape(', '.join([title, *table.context]))}}}"
    aligned = "".join("l" if table.columns[index].align == "left" else "r" for index in made)
    yield rf"\begin{{tabular}}{{@{{}}{aligned}@{{}}}}"
    yield r"\toprule"
    yield from _header([table.columns[index] for index in made])
    yield r"\midrule"
    told = _rows([texts[rows.start : rows.stop] for texts in made.values()])
    closing = len(table.rows) - table.closing_rows - rows.start
    if 0 < closing < len(told):
        told.insert(closing, r"\midrule")
    yield from told
    yield from (r"\bottomrule", r"\end{tabular}")
    yield from (rf"\par\smallskip\raggedright {escape(note)}" for note in notes)
    yield r"\end{table}"


def _folded(columns: Sequence[Sequence[str]], widths: Sequence[int]) -> Sequence[int]:
    """How many lines each row takes; where words end, a fifth of a line is lost."""
    lines = [1] * len(columns[0]) if columns else []
    for texts, width in zip(columns, widths, strict=True):
        if max(map(len, texts), default=0) > width:
            folded = [1 if len(text) <= width else ceil(1.2 * len(text) / width) for text in texts]
            lines = list(map(max, lines, folded))
    return lines


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
        yield from _rows([[escape(head[line - height]) if height - line <= len(head) else ""] for head in heads])


@lru_cache(maxsize=65536)
def _cell(text: str, width: int) -> str:
    """A text, in lines where it is wider than its column."""
    if len(text) <= width:
        return escape(text)
    return rf"\parbox[t]{{{_EM_A_CHARACTER * width:.1f}em}}{{\raggedright {escape(text)}\strut}}"


def _rows(columns: Sequence[Sequence[str]]) -> list[str]:
    first, *others = columns or [[]]
    # The end of the line before would take a bracket or an asterisk for its own.
    guarded = [rf"\relax {text}" if text.startswith(("[", "*")) else text for text in first]
    return [f"{row} \\\\" for row in map(" & ".join, zip(guarded, *others, strict=True))]
