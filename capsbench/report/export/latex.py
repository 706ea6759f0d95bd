"""Tables for LaTeX with booktabs; they need nothing but that package and the font encoding T1."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from capsbench.report.table import Table

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


def write(tables: Sequence[Table]) -> str:
    """The tables, each a float of its own with its notes below."""
    head = "% \\usepackage{booktabs}\n% \\usepackage[T1]{fontenc}\n% \\usepackage{textcomp}\n"
    return head + "\n".join(line for table in tables for line in _lines(table)) + "\n"


def escape(text: str) -> str:
    """A text that stands for itself; a letter that is not ASCII, and no sign known here, becomes a question mark."""
    return "".join(_ESCAPES.get(c, c if c.isascii() else "?") for c in " ".join(text.split()))


def _lines(table: Table) -> Iterator[str]:
    yield from (r"\begin{table}", r"\centering\small")
    yield rf"\caption{{{escape(', '.join([table.title, *table.context]))}}}"
    yield rf"\begin{{tabular}}{{{''.join('l' if column.align == 'left' else 'r' for column in table.columns)}}}"
    yield r"\toprule"
    yield _row([escape(column.header) for column in table.columns])
    yield r"\midrule"
    closing = len(table.rows) - table.closing_rows
    for number, row in enumerate(table.rows):
        if number == closing and number > 0:
            yield r"\midrule"
        yield _row([escape(each.text) for each in row])
    yield from (r"\bottomrule", r"\end{tabular}")
    yield from (rf"\par\smallskip\footnotesize {escape(note)}" for note in table.notes)
    yield r"\end{table}"


def _row(texts: Sequence[str]) -> str:
    return f"{' & '.join(texts)} \\\\"
