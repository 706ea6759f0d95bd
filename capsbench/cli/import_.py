"""`capsbench import`: turn the records of an older run into a SQLite file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capsbench.cli.options import ResultsOption
from capsbench.errors import BadInput

EXAMPLE = "capsbench import results/runs/20261126T081500Z-3f9a1c"


def import_(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder, run id or the beginning of one, or latest.")],
    *,
    results: ResultsOption = Path("results"),
) -> None:
    """Import the records.jsonl of an older run into a run.sqlite beside it.

    Other commands read older runs without it, through an import in the user's cache.
    """
    from capsbench.store.legacy import LINES
    from capsbench.store.run import DATABASE
    from capsbench.store.runs import open_run

    store = open_run(results, run)
    database = store.folder / DATABASE
    if database.exists():
        raise BadInput("the run has its records in SQLite already", str(database))
    if not (store.folder / LINES).is_file():
        raise BadInput(f"the run has no {LINES} to import", str(store.folder))
    with store.locked():
        store.import_lines()
    typer.echo(str(database))
