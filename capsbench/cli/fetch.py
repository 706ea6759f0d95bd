"""`capsbench data fetch`: download published data sets, check them, and continue after an interruption."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from capsbench.cli.options import DataOption, unique
from capsbench.dataset import download
from capsbench.dataset.download import Fetched
from capsbench.dataset.sources import check_mirror, read_sources
from capsbench.errors import BadInput, Unavailable, unknown_name
from capsbench.report.format import size

EXAMPLE = "capsbench data fetch mnist smallnorb --data ~/datasets"


def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Data sets: fashion-mnist, kmnist, mnist, smallnorb.", show_default=False),
    ] = None,
    data: DataOption = Path("data"),
    mirror: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="URL of a folder to download from instead.", show_default=False),
    ] = None,
) -> None:
    """Download published data sets and verify their SHA-256.

    Files are stored in DIR/NAME. Files that already exist there or in /usr/share/datasets/NAME are not downloaded
    again; an interrupted download is continued.
    """
    sources = read_sources()
    wanted = unique(names or ())
    for name in wanted:
        if name not in sources:
            raise unknown_name("published data set", name, sources)
    if not wanted:
        raise BadInput(f"name the data sets to fetch, legal are {', '.join(sorted(sources))}")
    if mirror is not None and len(wanted) > 1:
        raise BadInput("a mirror holds the files of one data set, name only that one", "--from")
    mirrors = () if mirror is None else (check_mirror(mirror, "--from"),)
    failures: list[BadInput | Unavailable] = []
    for name in wanted:
        fetched: list[Fetched] = []
        try:
            with _progress(name, [file.name for file in sources[name].files]) as (progress, say):
                manner = download.Manner(
                    mirrors=mirrors,
                    progress=progress,
                    waiting=lambda: say("another process is fetching it; waiting"),
                )
                fetched.extend(download.fetch(name, sources[name], data, manner))
        except (BadInput, Unavailable) as error:
            failures.append(error)
        except KeyboardInterrupt:
            typer.echo("what came so far is kept, and the same command goes on from there", err=True)
            raise
        finally:
            _report(name, fetched, len(sources[name].files))
    if failures:
        kind = BadInput if any(isinstance(error, BadInput) for error in failures) else Unavailable
        raise kind("; ".join(map(str, failures)))


def _report(name: str, fetched: list[Fetched], total: int) -> None:
    """Name each file and how it came, and last the folder, once all of them are there."""
    for each in fetched:
        how = "was there" if each.mirror is None else f"from {each.mirror}"
        plain = each.path.with_suffix("")
        shadow = f"; {plain.name} lies beside it and is read first" if plain != each.path and plain.exists() else ""
        typer.echo(f"{name}: {each.path.name}, {size(each.path.stat().st_size)}, {how}, SHA-256 right{shadow}")
    if len(fetched) == total:
        typer.echo(f"{name}: all {total} files are in {fetched[0].path.parent}")


@contextmanager
def _progress(name: str, files: list[str]) -> Iterator[tuple[Callable[[str, int, int], None], Callable[[str], None]]]:
    """A bar a file on a terminal's standard error, else a line when it begins; and what says a sentence there."""
    console = Console(stderr=True, markup=False, highlight=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(20), DownloadColumn(), TimeRemainingColumn())
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:

        def say(sentence: str) -> None:
            console.print(f"{name}: {sentence}", soft_wrap=True)

        def advance(file: str, done: int, total: int) -> None:
            if file not in bars:
                which = f"{name}, file {files.index(file) + 1} of {len(files)}"
                bars[file] = progress.add_task(which, total=total, completed=done)
                if not console.is_terminal:
                    say(f"fetching {file}, {total:,} bytes")
            progress.update(bars[file], completed=done)

        yield advance, say
