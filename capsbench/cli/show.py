"""`capsbench show`: the tables of a stored run."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from capsbench.cli.options import ResultsOption
from capsbench.errors import BadInput

if TYPE_CHECKING:
    from capsbench.record.schema import Record

EXAMPLE = "capsbench show latest --case 'em-*' --ops"


def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder, run id or the beginning of one, or latest.")],
    *,
    ops: Annotated[bool, typer.Option("--ops", help="Also show the ops by phase of the train step.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Also show the layers.")] = False,
    case: Annotated[str | None, typer.Option(metavar="GLOB", help="Only cases like this.", show_default=False)] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows of an op table before the others are summed up.")] = 10,
    results: ResultsOption = Path("results"),
) -> None:
    """Print the tables of a stored run."""
    from capsbench.record.store import open_run
    from capsbench.report.console import console, print_notes, print_report, print_table
    from capsbench.report.ops import op_tables
    from capsbench.report.tables import report

    store = open_run(results, run)
    records = store.latest_records()
    chosen = [record for record in records if case is None or _is_like(record, case)]
    if records and not chosen:
        raise BadInput(f"no case of {store.run_id} is like {case!r}; the first is {records[0].case.id!r}", "--case")
    screen = console()
    if not chosen:
        print_notes([f"no case of {store.run_id} has ended yet."], screen)
    else:
        print_report(report(chosen, top=top), screen)
    if ops:
        for table in op_tables(chosen, by="phase", top=top):
            print_table(table, screen)
    if layers:
        for table in op_tables(chosen, by="layer", top=top):
            print_table(table, screen)
    if store.damaged_lines:
        numbers = ", ".join(map(str, store.damaged_lines))
        print_notes([f"damaged lines of records.jsonl were skipped: {numbers}"], screen)
    screen.print(str(store.folder), soft_wrap=True)


def _is_like(record: Record, glob: str) -> bool:
    """As `run --only` means it: case id, network, or backend:mode."""
    key = record.case
    return any(fnmatchcase(text, glob) for text in (key.id, key.network, f"{key.backend}:{key.mode}"))
