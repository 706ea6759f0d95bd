"""`capsbench export`: the tables of a stored run for papers, pages and spreadsheets."""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from capsbench.cli.options import ResultsOption
from capsbench.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from capsbench.report.groups import Wanted
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
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="Take out paths, names of users and hosts, whoever wrote them.")
    ] = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Write the tables of a stored run, with units, spread and exact values."""
    from capsbench.report.export import WRITERS
    from capsbench.report.nameless import nameless

    chosen = _Chosen(lambda wanted: _tables(run, case, results, top, wanted), table)
    pieces = WRITERS[format_].text(map(nameless, chosen) if anonymous else chosen)
    if output is None:
        sys.stdout.writelines(pieces)
        return
    _write(pieces, output)
    typer.echo(f"{output}: {chosen.count} table{'s' * (chosen.count != 1)}")


def _write(pieces: Iterator[str], output: Path) -> None:
    from capsbench.dataset.atomic import whole_file

    try:
        with whole_file(output) as file:
            for piece in pieces:
                file.write(piece.encode())
    except OSError as error:
        raise BadInput(f"cannot write there: {error.strerror or error}", str(output)) from None


class _Chosen:
    """The tables with a title like a glob, one after the other, and how many there were.

    Raises:
        BadInput: there is none, said before the first is asked for.
    """

    def __init__(self, make: Callable[[Wanted], Iterator[Table]], glob: str | None) -> None:
        self.count = 0

        def wanted(title: str) -> bool:
            return glob is None or fnmatchcase(title, glob)

        self._others = (table for table in make(wanted) if wanted(table.title))
        self._first = next(self._others, None)
        if glob is not None and self._first is None:
            titles = dict.fromkeys(table.title for table in make(lambda _: True))
            raise BadInput(f"no table is called {glob!r}; there are {', '.join(titles) or 'none'}", "--table")

    def __iter__(self) -> Iterator[Table]:
        for each in chain([self._first] if self._first else [], self._others):
            self.count += 1
            yield each


def _notes(whole: Report) -> Iterator[Table]:
    """What is said of cases below the tables, under the numbers that stand beside their status."""
    from capsbench.report.table import Column, Table, text_cell

    rows = [(str(number), note) for number, note in enumerate(whole.notes, 1)]
    rows += [("every case", note) for note in whole.general]
    columns = (Column("case", "key", "left"), Column("note", align="left"))
    if rows:
        yield Table("Notes", columns, tuple(tuple(map(text_cell, row)) for row in rows))


def _tables(run: str, case: str | None, results: Path, top: int, wanted: Wanted) -> Iterator[Table]:
    """All that `show` can print of a run; tables of profiled steps only with a wanted title, for these take long."""
    from capsbench.cli.show import known_ceilings, whole_report
    from capsbench.record.claims import ledger_path, read_ledger
    from capsbench.record.store import open_run
    from capsbench.report.sections import Sections, section_tables

    store, ledger = open_run(results, run), read_ledger(ledger_path(results))
    records, ceilings = store.stored_records(case), known_ceilings(store, results)
    if not records:
        raise BadInput(f"no case of {store.run_id} has ended yet")
    # The ops come with the other tables of the same steps, so that no step is read twice.
    asked = Sections(ops="op", layers=True, iterations=True, peak=True, histograms=True, top=top)
    whole = whole_report(records, asked, store, ceilings, ledger, with_ops=False)
    yield from whole.each()
    yield from _notes(whole)
    yield from section_tables(records, asked, ceilings, ledger, wanted)
