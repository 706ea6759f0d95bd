"""The command line: one file a command, everything heavy imported inside the command that needs it.

Exit codes: 0 fine, 1 worse (`--fail-on worse`), 2 some case failed, 64 bad input, 69 Dask, its cluster or every mirror
of a data set fails, 74 results or data could not be written, 130 interrupted (129: the terminal closed, 143: a
scheduler's SIGTERM).
"""

import gc
import sys
from typing import Annotated, Any

import typer

from capsbench import __version__
from capsbench.cli.groups import About, LazyGroup, group
from capsbench.cli.options import EXIT_INTERRUPTED
from capsbench.errors import EXIT_BAD_INPUT, EXIT_UNAVAILABLE, EXIT_UNWRITTEN, BadInput, Unavailable, Unwritten

_COLLECTION_THRESHOLDS = (2_000_000, 20, 20)  # of Python's garbage collector
# typer brings its own copy of click or uses the one installed; this is its ClickException, wherever that lives.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[2]


class _Commands(LazyGroup):
    """All commands."""

    sections = {  # noqa: RUF012 - a ClassVar of the base class
        "Measure": {
            "run": About("run", "Run every case of one or more suites and print the results."),
            "continuous": About(
                "continuous", "Compare two git revisions: run the same suites at both and explain regressions."
            ),
        },
        "Look": {
            "show": About("show", "Print the tables of a stored run."),
            "query": About("query", "Query a run's database with SQL (read-only)."),
            "export": About("export", "Export the tables of a stored run as CSV, JSON, Markdown or LaTeX."),
            "figures": About("figures", "Draw the figures of a stored run and write TensorBoard event files."),
            "import": About("import_", "Convert the records.jsonl of an older run to run.sqlite."),
        },
        "Compare": {
            "compare": About("compare", "Compare two runs: every metric they share, with ratio, interval and verdict."),
            "bisect": About(
                "bisect", "Classify the checked-out commit as BASE (exit 0) or HEAD (exit 1), for git bisect."
            ),
        },
        "Check": {
            "parity": About("parity", "Compare backends with the float64 oracle."),
            "backends": About("backends", "List the installed backends, and why others cannot be used."),
            "doctor": About("doctor", "Report what this machine can do and what makes its timings noisy."),
        },
        "Know": {
            "networks": About("networks", "List the networks of the zoo, or one's layers."),
            "data": About("data", "List, download, verify and generate data sets."),
            "forecast": About("forecast", "Estimate FLOPs and memory of a suite without running it."),
            "schema": About("schema", "Print a JSON Schema of suites, networks, records or claims."),
        },
    }


app = group(
    _Commands,
    "Measure what capsule networks cost and reach, in any framework.",
    "capsbench run suites/mnist.yaml --backend torch:eager",
)


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
