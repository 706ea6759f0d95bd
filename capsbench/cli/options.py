"""What several commands share: options, and what a person may name with them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from capsbench.errors import BadInput, unknown_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from capsbench.plugins import Installed
    from capsbench.suite.schema import Suite

ROWS = 40
"""Rows that a screen shows of a longer table unless it is told otherwise."""
EXIT_WORSE = 1
EXIT_SOME_FAILED = 2
EXIT_INTERRUPTED = 130

SuitesArgument = Annotated[list[Path], typer.Argument(metavar="SUITE", help="Suite files.", show_default=False)]
DataOption = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="Root directory of the data sets (one subdirectory each).")
]
ResultsOption = Annotated[Path, typer.Option("--results", metavar="DIR", help="Results directory (contains runs/).")]
RunArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="Run folder, run id or its beginning, or latest. Omit with --history.",
        show_default=False,
    ),
]
HistoryOption = Annotated[
    str | None,
    typer.Option(
        metavar="METRIC", help="Show this metric over all stored runs instead of one run.", show_default=False
    ),
]
RowsOption = Annotated[
    str,
    typer.Option(
        "--rows", metavar="N|all", help="Maximum rows per table (a quarter of it where tables repeat per group)."
    ),
]
AnonymousOption = Annotated[
    bool, typer.Option("--anonymous", help="Omit the commit and everything that identifies this machine.")
]
BackendOption = Annotated[
    list[str] | None,
    typer.Option(
        "--backend", metavar="NAME[:MODE]", help="Backend, or one of its modes; repeatable.", show_default=False
    ),
]


def rows_of(text: str) -> int | None:
    """How many rows are meant; None for all.

    Raises:
        BadInput: neither a number from 1 on nor `all`.
    """
    if text == "all":
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise BadInput(f"{text!r} is no number of rows, legal are all and whole numbers from 1 on", "--rows")
    return int(text)


def check_device(device: str) -> str:
    """The device as it is.

    Raises:
        BadInput: it is none of auto, cpu, cuda, cuda:N.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,2})?", device):
        raise BadInput(f"{device!r} is no device, legal are auto, cpu, cuda, cuda:N", "--device")
    return device


def check_backend(text: str, installed: Mapping[str, Installed], where: str, *, framework: bool = True) -> list[str]:
    """The realizations, as `name:mode`, that a person means by `name:mode`, or by `name`: all of its modes.

    Args:
        text: what was written.
        installed: the registered backends.
        where: it was written.
        framework: whether the backend's framework must be installed.

    Raises:
        BadInput: an unknown name, or a backend that cannot be used, with the reason.
    """
    name, colon, mode = text.partition(":")
    if name not in installed:
        raise unknown_name("backend", name, installed, where)
    backend, problem = installed[name].backend, installed[name].problem
    if backend is None or (framework and problem is not None):
        raise BadInput(f"backend {name!r} cannot be used: {problem}", where)
    if colon and mode not in backend.modes:
        raise unknown_name(f"mode of {name}", mode, backend.modes, where)
    return [text] if colon else [f"{name}:{mode}" for mode in backend.modes]


def read_suites(
    paths: Sequence[Path],
    installed: Mapping[str, Installed],
    *,
    backends: Sequence[str] = (),
    device: str | None = None,
    framework: bool = True,
) -> list[tuple[Path, Suite]]:
    """The suites, with what the command line says in place of what they say.

    Raises:
        BadInput: a file that is no suite, or backends that cannot be used.
    """
    from capsbench.suite.schema import load_suite

    for text in backends:
        check_backend(text, installed, "--backend", framework=framework)
    suites = []
    for path in paths:
        suite = load_suite(path)
        suite = suite.with_backends(unique(backends)) if backends else suite
        suites.append((path, suite if device is None else replace(suite, device=check_device(device))))
        for use in unique((*dict(suite.realizations()), *suite.uses())) if not backends else ():
            check_backend(use, installed, f"{path}:backends", framework=framework)
    return suites


def modes(installed: Mapping[str, Installed]) -> dict[str, tuple[str, ...]]:
    """The modes of every backend that could be imported, the default first."""
    return {name: tuple(found.backend.modes) for name, found in installed.items() if found.backend is not None}


def unique(names: Iterable[str]) -> list[str]:
    """The names, each once, in the order in which they first come."""
    return list(dict.fromkeys(names))
