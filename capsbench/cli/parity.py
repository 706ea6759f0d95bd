"""`capsbench parity`: every backend and mode against the float64 oracle, on drawn images."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import typer
from rich.console import Console

from capsbench import plugins
from capsbench.backend import Setting, unsupported
from capsbench.cli.options import EXIT_SOME_FAILED, BackendOption, check_backend, check_device, unique
from capsbench.errors import BadInput
from capsbench.network import zoo
from capsbench.network.shapes import bind
from capsbench.plugins import Installed
from capsbench.report.console import console, print_table
from capsbench.report.format import error
from capsbench.report.table import Cell, Column, Table, cell, text_cell
from capsbench.runner.parity import check_backend as compare
from capsbench.worker.messages import ParityPart, SizedNetwork
from capsbench.worker.oracle import ORACLE

EXAMPLE = "capsbench parity em-tiny --backend torch:eager"
_IMAGE, _CLASSES = (28, 28, 1), 10


def parity(
    networks: Annotated[
        list[str] | None,
        typer.Argument(metavar="NETWORK", help="Networks of the zoo, or YAML files; default: the whole zoo."),
    ] = None,
    backend: BackendOption = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Compare backends with the float64 oracle.

    Compares forward pass, loss and gradients on random images, the same on perturbed parameters, and three train steps.
    The exit code is 2 if one of them differs.
    """
    if check_device(device) == "auto":
        raise BadInput("name the device, legal are cpu, cuda, cuda:N", "--device")
    installed = plugins.discover()
    sized = _sized(networks)
    realizations, notes = _realizations(backend, installed)
    rows = []
    with Console(stderr=True).status("") as status:
        for text in realizations:
            status.update(f"{text} against the oracle, {len(sized)} networks")
            for part, outcome in _compare(text, sized, installed, device):
                rows.append(_row(text, part, outcome))
                notes += [f"{part.network}, {text}: {part.reason}."] if part.reason else []
    print_table(_table(rows, notes, device), console())
    if any(row[-1].value == "failed" for row in rows):
        raise typer.Exit(EXIT_SOME_FAILED)


def _sized(names: list[str] | None) -> list[SizedNetwork]:
    networks = [zoo.load(name) for name in unique(names or zoo.names())]
    sized = [SizedNetwork(network=each, image=_IMAGE, classes=each.classes or _CLASSES) for each in networks]
    for each in sized:
        bind(each.network, each.image, each.classes)
    return sized


def _realizations(asked: list[str] | None, installed: Mapping[str, Installed]) -> tuple[list[str], list[str]]:
    """What is to be checked as `name:mode`, and why an installed backend is not among it."""
    if asked:
        return unique(each for text in asked for each in check_backend(text, installed, "--backend")), []
    others = {name: found for name, found in installed.items() if name != ORACLE}
    notes = [f"{name}: {found.problem}." for name, found in others.items() if found.problem is not None]
    usable = [name for name, found in others.items() if found.problem is None]
    if not usable:
        raise BadInput(f"there is no backend to compare with the oracle; {' '.join(notes) or 'none is registered'}")
    return [each for name in usable for each in check_backend(name, installed, "--backend")], notes


def _compare(
    realization: str, sized: Sequence[SizedNetwork], installed: Mapping[str, Installed], device: str
) -> Iterator[tuple[ParityPart, str]]:
    """What was found of each network, and ok, rounding, failed or unsupported."""
    name, _, mode = realization.partition(":")
    setting, backend = Setting(mode, device), installed[name].backend
    able = []
    for each in sized:
        bound = bind(each.network, each.image, each.classes)
        reason = unsupported(backend, bound, setting) if backend else None
        if reason is None:
            able.append(each)
        else:
            yield ParityPart(network=each.network.name, parity=None, reason=reason), "unsupported"
    for part in compare(name, setting, able) if able else ():
        yield part, _outcome(part)


def _outcome(part: ParityPart) -> str:
    if part.parity is None or not part.parity.passed:
        return "failed"
    return "ok" if part.parity.rounding is None else "rounding"


def _row(realization: str, part: ParityPart, outcome: str) -> tuple[Cell, ...]:
    of = part.parity
    errors = {"forward": "forward_max_relative_error", "gradient": "gradient_relative_error"}
    values: list[float | None] = []
    for name, error_name in errors.items():
        values += [getattr(found, error_name, None) for found in (of, of and of.perturbed)]
        values.append(getattr(of, f"{name}_limit", None))
    values += [getattr(of and of.train_steps, name, None) for name in ("max_relative_error", "limit")]
    numbers = (cell(value, error) for value in values)
    return text_cell(part.network), text_cell(realization), *numbers, Cell(outcome, outcome)


def _table(rows: Sequence[tuple[Cell, ...]], notes: Sequence[str], device: str) -> Table:
    columns = (
        Column("network", "key", "left"),
        Column("backend:mode", "key", "left"),
        Column("forward\nuntrained", group="forward"),
        Column("forward\nperturbed", group="forward"),
        Column("limit", group="forward"),
        Column("gradient\nuntrained", group="gradient"),
        Column("gradient\nperturbed", group="gradient"),
        Column("limit", group="gradient"),
        Column("train\nsteps", group="steps"),
        Column("limit", group="steps"),
        Column("status", "status", "left"),
    )
    context = (f"images {'×'.join(map(str, _IMAGE))}, drawn", f"{_CLASSES} classes", "float32", device)
    return Table("Parity with the float64 oracle", columns, tuple(rows), context=context, notes=tuple(notes))
