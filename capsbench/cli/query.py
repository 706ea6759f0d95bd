"""`capsbench query`: read a run with SQL."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from capsbench.cli.options import ResultsOption
from capsbench.record.codec import strict
from capsbench.report.console import console, print_table
from capsbench.report.format import label
from capsbench.report.table import Cell, Column, Table
from capsbench.store.query import selected
from capsbench.store.runs import open_run

Rows = Iterator[Sequence[object]]

EXAMPLE = 'capsbench query latest "SELECT network, backend, mode, train_step_seconds FROM v_cost"'


def query(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder, run id or its beginning, or latest.")],
    sql: Annotated[str, typer.Argument(metavar="SQL", help="A single SELECT statement.")],
    *,
    format_: Annotated[Literal["table", "csv", "json"], typer.Option("--format", help="Output format.")] = "table",
    results: ResultsOption = Path("results"),
) -> None:
    """Query a run's database with SQL (read-only).

    docs/results-schema.md describes the tables. The views v_cost, v_accuracy, v_ops and v_metric join them.
    """
    printers: dict[str, Callable[[Sequence[str], Rows], None]] = {
        "table": _print_table,
        "csv": _print_csv,
        "json": _print_json,
    }
    with selected(open_run(results, run).database(), sql) as (names, rows):
        printers[format_](names, rows)


def _print_table(names: Sequence[str], rows: Rows) -> None:
    listed = list(rows)
    numbers = [all(isinstance(row[index], int | float | None) for row in listed) for index in range(len(names))]
    columns = tuple(
        Column(label(name), align="right" if is_number else "left")
        for name, is_number in zip(names, numbers, strict=True)
    )
    cells = tuple(tuple(Cell("" if value is None else label(str(value))) for value in row) for row in listed)
    print_table(Table(f"{len(listed):,} row{'s' * (len(listed) != 1)}", columns, cells), console(), None)


def _print_csv(names: Sequence[str], rows: Rows) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)


def _print_json(names: Sequence[str], rows: Rows) -> None:
    separator = "[\n"
    for row in rows:
        line = json.dumps(dict(zip(names, map(_plain, row), strict=True)), ensure_ascii=False)
        sys.stdout.write(f"{separator}{line}")
        separator = ",\n"
    sys.stdout.write("[]\n" if separator == "[\n" else "\n]\n")


def _plain(value: object) -> object:
    """A value as strict JSON can hold it."""
    return value.hex() if isinstance(value, bytes) else strict(value)
