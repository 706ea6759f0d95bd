"""`capsbench bisect`: which side of a comparison the commit that is checked out is like, in git's exit codes."""

import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from capsbench.cli.options import DataOption, ResultsOption
from capsbench.errors import BadInput
from capsbench.store.runs import open_run
from capsbench.track.revisions import find_repository
from capsbench.track.search import answer, question

EXAMPLE = "capsbench bisect RUN_A RUN_B --case 'em-tiny*torch-eager*' --metric allocated_bytes"

# What `git bisect run` makes of exit codes: 0 good, 125 skip, others below 128 bad, and all above end the search.
_LIKE = {"base": 0, "head": 1, None: 125}
_STOP = 255


def bisect(
    a: Annotated[str, typer.Argument(metavar="A", help="Run of BASE, stored by `capsbench continuous`.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Run of HEAD, stored beside it.")],
    *,
    case: Annotated[str, typer.Option(metavar="GLOB", help="Case to measure.")],
    metric: Annotated[str, typer.Option(metavar="NAME", help="Metric to classify by, or status.")],
    rounds: Annotated[int, typer.Option(min=2, help="Timing rounds, in turns with BASE (for times only).")] = 7,
    data: DataOption = Path("data"),
    results: ResultsOption = Path("results"),
) -> None:
    """Classify the checked-out commit as BASE (exit 0) or HEAD (exit 1), for git bisect.

    For `git bisect run`: the exit code is 125 if the commit cannot be
    measured, and 255 if the search should stop. `capsbench continuous`
    prints the complete command.
    """
    try:
        repository = find_repository(Path.cwd())
        stores = open_run(results, a), open_run(results, b)
        asked = question(stores, case, metric, repository)
        like = answer(asked, repository, rounds, data)
    except BadInput as error:
        sys.stderr.write(f"capsbench: {error}\n")
        raise typer.Exit(_STOP) from None
    except Exception:  # noqa: BLE001 - Python's own exit code, 1, would call the commit bad
        traceback.print_exc()
        raise typer.Exit(_STOP) from None
    sys.stderr.write(f"capsbench: {'cannot be measured' if like is None else f'like {like}'}\n")
    raise typer.Exit(_LIKE[like])
