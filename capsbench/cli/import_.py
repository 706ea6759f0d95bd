"""`capsbench import`: turn the records of an older run into a SQLite file."""

from pathlib import Path
from typing import Annotated

import typer

from capsbench.cli.options import ResultsOption
from capsbench.errors import BadInput
from capsbench.store.legacy import LINES
from capsbench.store.run import DATABASE
from capsbench.store.runs import open_run

EXAMPLE = "capsbench import results/runs/20261126T081500Z-3f9a1c"


def import_(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder, run id or its beginning, or latest.")],
    *,
    results: ResultsOption = Path("results"),
) -> None:
    """Convert the records.jsonl of an older run to run.sqlite.

    Other commands read older runs without this: they import them into the user's cache.
    """
    store = open_run(results, run)
    database = store.folder / DATABASE
    if database.exists():
        raise BadInput("the run has its records in SQLite already", str(database))
    if not (store.folder / LINES).is_file():
        raise BadInput(f"the run has no {LINES} to import", str(store.folder))
    with store.locked():
        store.import_lines()
    typer.echo(str(database))
