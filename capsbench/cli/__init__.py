"""The command line: one file a command, everything heavy imported inside the command that needs it.

Exit codes: 0 fine, 1 worse (`--fail-on worse`), 2 some case failed, 64 bad input, 69 Dask, its cluster or every mirror
of a data set fails, 74 results or data could not be written, 130 interrupted (129: the terminal closed, 143: a
scheduler's SIGTERM).
"""

import gc
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from capsbench import __version__
from capsbench.cli import (
    backends,
    bisect,
    compare,
    continuous,
    data,
    doctor,
    export,
    fetch,
    figures,
    forecast,
    import_,
    networks,
    parity,
    query,
    run,
    schema,
    show,
)
from capsbench.cli.options import EXIT_INTERRUPTED
from capsbench.errors import (
    EXIT_BAD_INPUT,
    EXIT_UNAVAILABLE,
    EXIT_UNWRITTEN,
    BadInput,
    Unavailable,
    Unwritten,
    unknown_name,
)

_COLLECTION_THRESHOLDS = (200_000, 20, 20)  # of Python's garbage collector
# typer brings its own copy of click or uses the one installed; this is its ClickException, wherever that lives.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[2]


class _Commands(TyperGroup):
    """Commands whose unknown name is answered with the legal ones and the nearest."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - typer's own class or click's
        command = super().get_command(ctx, cmd_name)
        if command is None and not cmd_name.startswith("-"):
            raise unknown_name("command", cmd_name, self.list_commands(ctx))
        return command


def _typer(help_text: str, example: str) -> typer.Typer:
    return typer.Typer(
        cls=_Commands,
        help=help_text,
        epilog=f"Example: {example}",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def _add(to: typer.Typer, function: Callable[..., None], example: str) -> None:
    to.command(function.__name__.rstrip("_"), epilog=f"Example: {example}")(function)


app = _typer("What a capsule network really costs and really reaches, on any framework.", run.EXAMPLE)
_add(app, run.run, run.EXAMPLE)
_add(app, show.show, show.EXAMPLE)
_add(app, compare.compare, compare.EXAMPLE)
_add(app, continuous.continuous, continuous.EXAMPLE)
_add(app, bisect.bisect, bisect.EXAMPLE)
_add(app, query.query, query.EXAMPLE)
_add(app, export.export, export.EXAMPLE)
_add(app, import_.import_, import_.EXAMPLE)
_add(app, figures.figures, figures.EXAMPLE)
_add(app, parity.parity, parity.EXAMPLE)
_add(app, forecast.forecast, forecast.EXAMPLE)
_add(app, networks.networks, networks.EXAMPLE)
_add(app, backends.backends, backends.EXAMPLE)
_add(app, doctor.doctor, doctor.EXAMPLE)
_add(app, schema.schema, schema.EXAMPLE)

_data = _typer("What data sets are here, are sound, can be fetched or made.", data.EXAMPLES["list"])
_add(_data, data.list_, data.EXAMPLES["list"])
_add(_data, fetch.fetch, fetch.EXAMPLE)
_add(_data, data.make, data.EXAMPLES["make"])
_add(_data, data.verify, data.EXAMPLES["verify"])
app.add_typer(_data, name="data")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"capsbench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


def main() -> int:
    """Run the command that stands in `sys.argv`; the exit code."""
    # What a command reads stays until it ends: a hundred thousand records are not looked through again and again.
    gc.set_threshold(*_COLLECTION_THRESHOLDS)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without × gets a question mark, not a traceback
    try:
        code = app(prog_name="capsbench", standalone_mode=False)
    except BadInput as error:
        return _refuse(str(error))
    except Unavailable as error:
        return _refuse(str(error), EXIT_UNAVAILABLE)
    except Unwritten as error:
        return _refuse(str(error), EXIT_UNWRITTEN)
    except _USAGE_ERROR as error:
        return _refuse(_sentence(error))
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    return code if isinstance(code, int) else 0


def _sentence(error: Any) -> str:  # noqa: ANN401 - see _USAGE_ERROR
    """What typer has to say, in one sentence, and which help says more."""
    message = error.format_message().strip().rstrip(".").replace(": Value error, ", ": ")
    path = error.ctx.command_path if getattr(error, "ctx", None) else "capsbench"
    return f"{message[:1].lower()}{message[1:]}; see {path} --help"


def _refuse(sentence: str, code: int = EXIT_BAD_INPUT) -> int:
    from capsbench.report.format import label

    sys.stderr.write(f"capsbench: {label(sentence)}\n")
    return code
