"""`capsbench figures`: figures and TensorBoard's files of a stored run."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from capsbench.cli.options import HistoryOption, ResultsOption, RunArgument, unique
from capsbench.errors import BadInput, unknown_name
from capsbench.record.history import read_history
from capsbench.record.schema import Record
from capsbench.store.run import RunStore
from capsbench.store.runs import open_run

EXAMPLE = "capsbench figures latest --case 'em-*' --format svg"

Format = Literal["png", "svg"]
_FORMATS: dict[str, Format] = {"png": "png", "svg": "svg"}
_NEEDED = ("matplotlib", "tensorboard")


def figures(
    run: RunArgument = None,
    *,
    history: HistoryOption = None,
    case: Annotated[
        str | None,
        typer.Option(metavar="GLOB", help="Only cases whose id, network or backend:mode matches.", show_default=False),
    ] = None,
    format_: Annotated[
        list[str] | None,
        typer.Option("--format", metavar="png|svg", help="Figure format; repeatable; default: both."),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard/--no-tensorboard", help="Also write event files for TensorBoard.")
    ] = True,
    results: ResultsOption = Path("results"),
) -> None:
    """Draw the figures of a stored run and write TensorBoard event files.

    Figures of a case are written to its folder in artifacts/, figures that compare cases to figures/. TensorBoard
    shows figures in PNG format. With --history METRIC, draw one metric over all stored runs to history/ in the results
    folder.
    """
    if (run is None) == (history is None):
        raise BadInput("missing argument 'RUN', or --history METRIC, not both; see capsbench figures --help")
    for name in format_ or ():
        if name not in _FORMATS:
            raise unknown_name("format", name, _FORMATS, "--format")
    if (missing := missing_plots()) is not None:
        raise BadInput(missing)
    chosen = [_FORMATS[name] for name in unique(format_ or _FORMATS)]
    if run is None:
        paths = _draw_history(results, history or "", case, chosen)
        typer.echo("\n".join(map(str, paths)))
        return

    store = open_run(results, run)
    records = list(store.latest_records(case))
    if not records:
        raise BadInput(f"no case of {store.run_id} has ended yet, so there is nothing to draw")
    for path in draw(store, records, chosen, tensorboard=tensorboard):
        typer.echo(str(path))
    if tensorboard:
        typer.echo(f"tensorboard --logdir {store.folder}")


def draw(
    store: RunStore, records: list[Record], formats: list[Format], *, tensorboard: bool = True
) -> tuple[Path, ...]:
    """Draw the figures, write the event files if asked for; the files.

    Raises:
        BadInput: a file that is to be shown is damaged, or the folder cannot be written.
    """
    from capsbench.report.figures import draw_run
    from capsbench.report.tensorboard import write_events

    try:
        drawn = draw_run(store, records, formats)
        return (*drawn, *(write_events(store, records) if tensorboard else ()))
    except OSError as error:
        raise BadInput(f"cannot write figures there: {error.strerror or error}", str(store.folder)) from None


def _draw_history(results: Path, metric: str, case: str | None, formats: list[Format]) -> tuple[Path, ...]:
    from capsbench.report.figures.trends import draw_history

    folder = results / "history"
    try:
        return draw_history(read_history(results, metric, case), folder, formats)
    except OSError as error:
        raise BadInput(f"cannot write figures there: {error.strerror or error}", str(folder)) from None


def missing_plots() -> str | None:
    """What must be installed before anything can be drawn, in a sentence; None where everything is here."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if not missing:
        return None
    verb = "is" if len(missing) == 1 else "are"
    return f"figures need {' and '.join(missing)}, which {verb} not installed; pip install 'capsbench[plots]'"
