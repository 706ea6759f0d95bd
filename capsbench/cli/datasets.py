"""`capsbench data list`, `make` and `verify`: what data sets are here, what is sound, what can be made."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from rich.console import Console
from rich.status import Status

from capsbench.cli.options import EXIT_SOME_FAILED, DataOption, unique
from capsbench.dataset import protocols
from capsbench.dataset.catalog import DATASETS, SYSTEM_ROOT, folder_of, locate
from capsbench.dataset.contactsheet import draw_sheet
from capsbench.dataset.loading import load, split_sha256
from capsbench.dataset.protocol import Protocol
from capsbench.dataset.verify import verify as find_problems
from capsbench.errors import unknown_name
from capsbench.report.console import console, print_table
from capsbench.report.format import count
from capsbench.report.table import Column, Table, text_cell

EXAMPLES = {
    "list": "capsbench data list --data ~/datasets",
    "make": "capsbench data make toys --limit 5000",
    "verify": "capsbench data verify mnist --data ~/datasets",
}

_SPLITS: Final[tuple[Literal["train", "test"], ...]] = ("train", "test")


def list_(data: DataOption = Path("data")) -> None:
    """List known data sets, where they are searched for and which files are missing."""
    rows = []
    for name, about in DATASETS.items():
        files = locate(name, data)
        missing = [path.name for path, here in files if not here]
        state = "here" if not missing else f"{len(missing)} files missing"
        images = "×".join(map(str, about.image_shape))
        counts = [count(about.full_counts[split]) for split in _SPLITS]
        folder = "made when first used" if about.synthetic else str(folder_of(name, data))
        rows.append(tuple(map(text_cell, (name, images, *counts, folder, state))))
    columns = (
        Column("data set", "key", "left"),
        Column("images"),
        Column("train"),
        Column("test"),
        Column("folder", align="left"),
        Column("state", "status", "left"),
    )
    notes = (
        f"data sets are looked for in {data}, then in {SYSTEM_ROOT}; `capsbench data fetch NAME` downloads one.",
        "a folder holds the four IDX files of its data set, or smallNORB's six .mat files, plain or .gz.",
        "train and test are the full counts; toys are synthetic.",
    )
    screen = console()
    print_table(Table("Data sets", columns, tuple(rows), notes=notes), screen)
    print_table(_protocol_table([protocols.load(name) for name in protocols.names()]), screen)


def _protocol_table(found: Sequence[Protocol]) -> Table:
    columns = (
        Column("protocol", "key", "left"),
        Column("data set", align="left"),
        Column("image"),
        Column("parts", align="left"),
        Column("what is asked", align="left"),
    )
    rows = tuple(
        tuple(
            map(
                text_cell,
                (
                    each.name,
                    each.data,
                    "×".join(map(str, each.image_shape())),
                    ", ".join(each.parts()),
                    each.description,
                ),
            )
        )
        for each in found
    )
    notes = ("`dataset:` in a suite names a protocol; images are given as a network sees them.",)
    return Table("Protocols", columns, rows, notes=notes)


def make(
    name: Annotated[str, typer.Argument(help="Synthetic data set: toys.")],
    limit: Annotated[
        int | None, typer.Option(min=1, help="Images per split; default: all.", show_default=False)
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Write a contact sheet to this PNG instead.", show_default=False),
    ] = None,
) -> None:
    """Generate a synthetic data set into the user's cache folder, or a contact sheet of it."""
    made = [known for known, about in DATASETS.items() if about.synthetic]
    if name not in made:
        raise unknown_name("generated data set", name, made)
    if sheet is not None:
        typer.echo(f"{sheet}: {draw_sheet(sheet)}")
        return
    for split in _SPLITS:
        with Console(stderr=True).status("") as status:
            progress = partial(_show, status, f"{name} {split}")
            found = load(name, None, split=split, limit=limit, progress=progress)
        typer.echo(f"{name} {split}: {count(len(found.labels))} synthetic images, SHA-256 {split_sha256(found)}")


def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Data sets; default: all that are present.")
    ] = None,
    data: DataOption = Path("data"),
) -> None:
    """Read data sets completely and report problems.

    2 is the exit code where there is one.
    """
    here = [name for name in DATASETS if any(found for _, found in locate(name, data))]
    problems = {name: find_problems(name, data) for name in unique(names or here)}
    for name, found in problems.items():
        typer.echo(f"{name}: {_verdict(found)}")
        for problem in found:
            typer.echo(f"  {problem}")
    if not problems:
        typer.echo(f"no data set in {data} or {SYSTEM_ROOT}")
    if any(problems.values()):
        raise typer.Exit(EXIT_SOME_FAILED)


def _show(status: Status, what: str, done: int, total: int) -> None:
    status.update(f"{what}: {done:,} of {total:,}")


def _verdict(problems: list[str]) -> str:
    return f"{len(problems)} problem{'s' if len(problems) > 1 else ''}" if problems else "sound"
