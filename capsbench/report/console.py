"""Tables on the console, with rich: any width will do, and what is piped reads like what is seen.

All text goes in as `Text`, never as markup, so that no name can switch colours on or break a table.
"""

from collections.abc import Sequence
from typing import IO, Final

from rich.box import Box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from capsbench.report.rows import shortened
from capsbench.report.table import Cell, Column, Table, cut
from capsbench.report.tables import Report
from capsbench.report.widths import GAP, column_widths, may_fold

# A line under the header and one above the total; an ASCII box takes its place where the encoding has no such line.
_BOX: Final = Box("    \n    \n ── \n    \n ── \n    \n    \n    \n")
_GREEN, _YELLOW = ("ok", "yes", "holds", "agrees"), ("unsupported", "cannot be checked here", "not comparable")
_STYLES: Final = dict.fromkeys(_GREEN, "green") | dict.fromkeys(_YELLOW, "yellow")


def console(file: IO[str] | None = None, width: int | None = None) -> Console:
    """A console on `file` (standard output), as wide as the terminal, or `width`, or 80 where nobody knows."""
    return Console(file=file, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def print_report(report: Report, screen: Console, rows: int | None = None) -> None:
    """Print the tables of a run and the notes that they refer to; so many rows of each, None for all."""
    for table in report.each():
        print_table(table, screen, rows)
    notes = [(number, text) for number, text in enumerate(report.notes, 1) if number in report.referred]
    if notes or report.general:
        screen.print(Text("Notes", style="bold"))
        print_notes([f"({number}) {text}" for number, text in notes], screen)
        print_notes([f"every case that ran: {text}" for text in report.general], screen)
        screen.print()


def print_table(table: Table, screen: Console, rows: int | None = None) -> None:
    """Print one table, in as many blocks as the width asks for; so many of its rows, None for all."""
    table = shortened(table, rows)
    screen.print(Text(table.title, style="bold"))
    for line in _filled(table.context, screen.width):
        screen.print(Text(line, style="dim"), soft_wrap=True)
    widths = column_widths(table, screen.width)
    for number, block in enumerate(cut(table, widths, screen.width, GAP)):
        if number:
            screen.print()
        needed = sum(widths[i] + GAP for i in block)
        # Where not even one column fits, the terminal may wrap the line; rich would cut numbers to make it fit.
        fitting = screen if needed <= screen.width else console(screen.file, needed)
        fitting.print(_block(table, block, widths))
    print_notes(table.notes, screen)
    screen.print()


def print_notes(notes: Sequence[str], screen: Console) -> None:
    """Print notes, a paragraph each, indented where they go on."""
    for note in notes:
        lines = Text(note, style="dim").wrap(screen, max(20, screen.width - 2))
        for number, line in enumerate(lines):
            line.rstrip()
            screen.print(Text("  " if number else "").append_text(line), soft_wrap=True)


def _block(table: Table, block: Sequence[int], widths: Sequence[int]) -> RichTable:
    drawn = RichTable(box=_BOX, padding=(0, GAP - 1, 0, 0), show_edge=False, pad_edge=False, header_style="bold")
    for index in block:
        column = table.columns[index]
        drawn.add_column(
            Text(column.header),
            justify=column.align,
            width=widths[index],
            no_wrap=not may_fold(column),
            overflow="fold",
        )
    closing = len(table.rows) - table.closing_rows
    for number, row in enumerate(table.rows):
        if number == closing and number:
            drawn.add_section()
        drawn.add_row(*(_text(row[index], table.columns[index]) for index in block))
    return drawn


def _text(cell: Cell, column: Column) -> Text:
    if column.role != "status":
        return Text(cell.text)
    return Text(cell.text, style=_STYLES.get(str(cell.value), "red"))


def _filled(items: Sequence[str], width: int) -> list[str]:
    """Items beside each other, as many a line as fit; none is broken."""
    lines: list[str] = []
    for item in items:
        if lines and cell_len(lines[-1]) + cell_len(item) + 3 <= width:
            lines[-1] = f"{lines[-1]} · {item}"
        else:
            lines.append(item)
    return lines
