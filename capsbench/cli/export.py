"""`capsbench export`: the tables of a stored run for papers, pages and spreadsheets."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer

from capsbench.cli.options import ResultsOption
from capsbench.cli.show import known_ceilings, whole_report
from capsbench.dataset.atomic import whole_file
from capsbench.errors import BadInput
from capsbench.measure.privacy import scrub
from capsbench.record.ceilings import DeviceCeilings
from capsbench.record.claims import Ledger, ledger_path, read_ledger
from capsbench.record.codec import encode
from capsbench.record.schema import Record
from capsbench.report.export import WRITERS
from capsbench.report.export.cores import on_all_cores
from capsbench.report.groups import Group, Wanted, groups, tables_of, title
from capsbench.report.nameless import nameless
from capsbench.report.sections import Sections, closing_tables, group_makers, section_tables
from capsbench.report.table import Column, Table, text_cell
from capsbench.report.tables import Report
from capsbench.store.runs import open_run

EXAMPLE = "capsbench export latest --format latex --table Accuracy --output accuracy.tex"


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder, run id or its beginning, or latest.")],
    *,
    format_: Annotated[
        Literal["csv", "json", "md", "latex", "jsonl"],
        typer.Option("--format", help="Output format; jsonl writes the records, one JSON object per line."),
    ] = "csv",
    table: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Only tables whose title matches.", show_default=False)
    ] = None,
    case: Annotated[
        str | None,
        typer.Option(metavar="GLOB", help="Only cases whose id, network or backend:mode matches.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Output file; default: standard output.", show_default=False)
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows of ops, layers and tensors before the rest is summed.")] = 10,
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="Remove paths and the names of users and hosts.")
    ] = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Export the tables of a stored run as CSV, JSON, Markdown or LaTeX."""
    if format_ == "jsonl":
        if table is not None:
            raise BadInput("jsonl has records, not tables", "--table")
        _write_records(run, case, results, output, anonymous=anonymous)
        return
    writer, stored = WRITERS[format_], _read(run, case, results, top)

    def text(each: Table) -> Iterator[str]:
        return writer.pieces(nameless(each) if anonymous else each)

    tables = _Counted(_texts(stored, lambda title: table is None or fnmatchcase(title, table), text))
    if not tables.any:
        raise BadInput(f"no table is called {table!r}; there are {', '.join(_titles(stored))}", "--table")
    if output is None:
        sys.stdout.writelines(writer.together(tables))
        return
    _write(writer.together(tables), output)
    typer.echo(f"{output}: {tables.count} table{'s' * (tables.count != 1)}")


def _write_records(run: str, case: str | None, results: Path, output: Path | None, *, anonymous: bool) -> None:
    """Write each record as a line of JSON, as `capsbench schema record` describes it."""
    records = open_run(results, run).records()
    chosen = (record for record in records if case is None or record.case.is_like(case))
    lines = (encode(record).decode() for record in chosen)
    pieces = map(scrub, lines) if anonymous else lines
    if output is None:
        sys.stdout.writelines(pieces)
        return
    _write(pieces, output)
    typer.echo(str(output))


def _write(pieces: Iterator[str], output: Path) -> None:
    try:
        with whole_file(output) as file:
            for piece in pieces:
                file.write(piece.encode())
    except OSError as error:
        raise BadInput(f"cannot write there: {error.strerror or error}", str(output)) from None


class _Counted:
    """The texts of tables, and how many there were; whether there are any is known before anything is written."""

    def __init__(self, texts: Iterator[Iterable[str]]) -> None:
        self.count = 0
        self._first = list(islice(texts, 1))
        self._others = texts

    @property
    def any(self) -> bool:
        return bool(self._first)

    def __iter__(self) -> Iterator[Iterable[str]]:
        for each in chain(self._first, self._others):
            self.count += 1
            yield each


class _Stored(NamedTuple):
    """A run, and what its tables need to know besides."""

    records: Sequence[Record]
    asked: Sections
    ceilings: Sequence[DeviceCeilings]
    ledger: Ledger
    whole: Report


def _read(run: str, case: str | None, results: Path, top: int) -> _Stored:
    store, ledger = open_run(results, run), read_ledger(ledger_path(results))
    records, ceilings = store.stored_records(case), known_ceilings(store, results)
    if not records:
        raise BadInput(f"no case of {store.run_id} has ended yet")
    # The ops come with the other tables of the same steps, so that no step is read twice.
    asked = Sections(ops="op", layers=True, iterations=True, peak=True, histograms=True, top=top)
    whole = whole_report(records, asked, store, ceilings, ledger, with_ops=False)
    return _Stored(records, asked, ceilings, ledger, whole)


def _texts(stored: _Stored, wanted: Wanted, text: Callable[[Table], Iterable[str]]) -> Iterator[Iterable[str]]:
    """The texts of all tables that `show` can print of a run, as far as their title is wanted.

    Tables of profiled steps take by far the longest: only those wanted are made, by all cores.
    """

    def texts_of(records: Sequence[Record]) -> list[list[str]]:
        return [[*text(table)] for table in tables_of(Group(records), makers, wanted)]

    makers = group_makers(stored.records, stored.asked, stored.ceilings)
    of_steps = [each.records for each in groups(stored.records) if any(wanted(title(name, each)) for name in makers)]
    with on_all_cores(texts_of, of_steps) as of_groups:
        yield from (text(table) for table in _of_all(stored.whole) if wanted(table.title))
        yield from chain.from_iterable(of_groups)
    closing = closing_tables(stored.records, stored.asked, stored.ledger)
    yield from (text(table) for table in closing if wanted(table.title))


def _titles(stored: _Stored) -> dict[str, None]:
    """Of all tables, in their order."""
    sections = section_tables(stored.records, stored.asked, stored.ceilings, stored.ledger)
    return dict.fromkeys(table.title for table in chain(_of_all(stored.whole), sections))


def _of_all(whole: Report) -> Iterator[Table]:
    """The tables of all cases, and what is said of some under the numbers that stand beside their status."""
    yield from whole.each()
    rows = [(str(number), note) for number, note in enumerate(whole.notes, 1)]
    rows += [("every case", note) for note in whole.general]
    columns = (Column("case", "key", "left"), Column("note", align="left"))
    if rows:
        yield Table("Notes", columns, tuple(tuple(map(text_cell, row)) for row in rows))
