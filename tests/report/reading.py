"""Reading tables back: cells by row name and header, columns that add up."""

from decimal import Decimal

from capsbench.report.format import NOTHING


def number(text):
    """What a printed cell is worth."""
    return Decimal(0) if text == NOTHING else Decimal(text.replace(",", ""))


def column(table, header, group=None):
    """The cells below a header, of one group of columns where that is said."""
    index = [
        i for i, each in enumerate(table.columns) if each.header == header and (group is None or each.group == group)
    ]
    return [row[index[0]] for row in table.rows]


def by_name(table, header, group=None):
    """Those cells by the text of the first column."""
    return {row[0].text: cell for row, cell in zip(table.rows, column(table, header, group), strict=True)}


def assert_adds_up(table, headers=None):
    """The printed parts of each value column sum to its printed total."""
    for index, each in enumerate(table.columns):
        if each.role == "value" and (headers is None or each.header.splitlines()[-1] in headers):
            *parts, total = (number(row[index].text) for row in table.rows)
            assert sum(parts) == total, each.header
