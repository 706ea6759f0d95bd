"""`capsbench export`: the tables of a stored run for papers, pages and spreadsheets."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from capsbench.cli.options import ResultsOption
from capsbench.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capsbench.report.table import Table
    from capsbench.report.tables import Report

EXAMPLE = "capsbench export latest --format latex --table Accuracy --output accuracy.tex"


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder, run id or the beginning of one, or latest.")],
    *,
    format_: Annotated[Literal["csv", "json", "md", "latex"], typer.Option("--format", help="Of the tables.")] = "csv",
    table: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Only tables with such a title.", show_default=False)
    ] = None,
    case: Annotated[str | None, typer.Option(metavar="GLOB", help="Only cases like this.", show_default=False)] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write; else printed.", show_default=False)
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows of ops, layers, tensors before the others are summed up.")] = 10,
    results: ResultsOption = Path("results"),
) -> None:
    """Write the tables of a stored run, with units, spread and exact values."""
    from capsbench.dataset.atomic import whole_file
    from capsbench.report.export import WRITERS

    found = list(_tables(run, case, results, top))
    chosen = [each for each in found if table is None or fnmatchcase(each.title, table)]
    if table is not None and not chosen:
        titles = ", ".join(dict.fromkeys(each.title for each in found)) or "none"
        raise BadInput(f"no table is called {table!r}; there are {titles}", "--table")
    text = WRITERS[format_](chosen)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        with whole_file(output) as file:
            file.write(text.encode())
    except OSError as error:
        raise BadInput(f"cannot write there: {error.strerror or error}", str(output)) from None
    typer.echo(f"{output}: {len(chosen)} table{'s' * (len(chosen) != 1)}")


def _notes(whole: Report) -> Iterator[Table]:
    """What is said of cases below the tables, under the numbers that stand beside their status."""
    from capsbench.report.table import Column, Table, text_cell

    rows = [(str(number), note) for number, note in enumerate(whole.notes, 1)]
    rows += [("every case", note) for note in whole.general]
    columns = (Column("case", "key", "left"), Column("note", align="left"))
    if rows:
        yield Table("Notes", columns, tuple(tuple(map(text_cell, row)) for row in rows))


def _tables(run: str, case: str | None, results: Path, top: int) -> Iterator[Table]:
    """All that `show` can print of a run."""
    from capsbench.cli.show import known_ceilings, whole_report
    from capsbench.record.claims import ledger_path, read_ledger
    from capsbench.record.store import open_run
    from capsbench.report.sections import Sections, section_tables

    store, ledger = open_run(results, run), read_ledger(ledger_path(results))
    records, ceilings = store.latest_records(case), known_ceilings(store, results)
    if not records:
        raise BadInput(f"no case of {store.run_id} has ended yet")
    # The report has the ops already.
    asked = Sections(layers=True, iterations=True, peak=True, histograms=True, top=top)
    whole = whole_report(records, asked, store, ceilings, ledger)
    yield from whole.tables
    yield from _notes(whole)
    yield from section_tables(records, asked, ceilings, ledger)
