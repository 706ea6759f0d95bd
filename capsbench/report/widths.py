"""How many characters wide the columns of a table are, on a screen or a page."""

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len

from capsbench.report.table import Column, Table

GAP: Final = 2
"""Characters between two columns."""
_SENTENCE: Final = 24


def may_fold(column: Column) -> bool:
    """Names and sentences may go on in a second line; numbers never."""
    return column.align == "left" and column.role != "status"


def column_widths(table: Table, screen_width: int) -> list[int]:
    """Characters of each column of a table, as `widths_of` has them."""
    rows = [[cell.text for cell in row] for row in table.rows]
    return widths_of(table.columns, list(zip(*rows, strict=True)) or [()] * len(table.columns), screen_width)


def widths_of(columns: Sequence[Column], texts: Sequence[Sequence[str]], screen_width: int) -> list[int]:
    """Characters of each column: names fold at a quarter of the screen, sentences at what is left for them.

    That is what all other columns leave, where it is enough to read; else what keys leave, in a block of its own.

    Args:
        columns: of a table.
        texts: of each column those of all rows.
        screen_width: characters.
    """
    widths = [
        max(cell_len(text) for text in [*column.header.split("\n"), *dict.fromkeys(told)])
        for column, told in zip(columns, texts, strict=True)
    ]
    for index, column in enumerate(columns):
        if may_fold(column) and column.role == "key":
            widths[index] = min(widths[index], max(16, screen_width // 4))
    sentences = [i for i, column in enumerate(columns) if _is_sentence(column, widths[i])]
    beside = sum(width + GAP for index, width in enumerate(widths) if index not in sentences)
    if screen_width - beside < _SENTENCE:
        beside = sum(widths[index] + GAP for index, column in enumerate(columns) if column.role != "value")
    for index in sentences:
        widths[index] = min(widths[index], max(_SENTENCE, screen_width - beside))
    return widths


def _is_sentence(column: Column, width: int) -> bool:
    return may_fold(column) and column.role == "value" and width > _SENTENCE
