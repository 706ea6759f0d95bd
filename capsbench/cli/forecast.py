"""`capsbench forecast`: estimate what cases cost, from their equations alone, without running them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from capsbench import plugins
from capsbench.backend import Backend, PeakForecast, Setting
from capsbench.cli.options import modes, read_suites
from capsbench.measure.environment import describe_machine
from capsbench.network.cost import cost
from capsbench.network.shapes import BoundNetwork
from capsbench.report import format as fmt
from capsbench.report.console import console, print_table
from capsbench.report.table import Cell, Column, Table, cell, share, text_cell
from capsbench.suite.cases import Case, expand
from capsbench.suite.schema import memory_bytes

EXAMPLE = "capsbench forecast suites/mnist.yaml --memory 12GiB"
_LARGEST_BATCH = 1 << 20
_PEAK_COLUMN = 9
_SEVERAL = (
    "×N: on N devices. The peak is that of one GPU with its share of the batch, or of all replicas on the CPU, without "
    "the buffers in which gradients travel (about the parameters once more on each)."
)
_RANGE = (
    "A range: convolutions take scratch memory that depends on the processor's vector width and caches; the upper end "
    "is the most that any algorithm of the library takes."
)


def forecast(
    suite: Annotated[Path, typer.Argument(metavar="SUITE", help="A suite file.", show_default=False)],
    memory: Annotated[
        str | None,
        typer.Option(help="Memory for the largest batch; default: the suite's limit, or all memory."),
    ] = None,
) -> None:
    """Estimate FLOPs and memory of a suite without running it.

    Prints FLOPs, bytes, votes and peak memory of every case, and the largest batch that fits into memory.
    No framework is imported.
    """
    installed = plugins.discover()
    [(path, loaded)] = read_suites([suite], installed, framework=False)
    asked = memory or loaded.limits.memory
    available = describe_machine().memory_bytes if asked is None else memory_bytes(asked, "--memory")
    known = modes(installed)
    devices = dict.fromkeys(known, "cpu") if loaded.device == "auto" else None
    backends = {name: found.backend for name, found in installed.items() if found.backend is not None}
    print_table(forecast_table(expand(loaded, path, known, devices), backends, available), console())


def forecast_table(cases: Sequence[Case], backends: dict[str, Backend], memory: int) -> Table:
    """Estimate the cost of each case, and the largest batch whose forecast peak fits into `memory` bytes."""
    columns = (
        Column("network", "key", "left"),
        Column("backend:mode", "key", "left"),
        Column("batch", "key"),
        Column("iters", "key", shared="routing iterations {}"),
        Column("seed", "key", shared="seed {}"),
        Column("data set", "key", "left", shared="{}"),
        Column("train\nFLOPs"),
        Column("least\nbytes"),
        Column("votes"),
        Column("forecast\npeak"),
        Column("largest\nbatch"),
    )
    mixed = any(case.setting.mixed for case in cases)
    rows = tuple(_row(case, backends[case.backend], memory) for case in cases)
    ranged = any("–" in row[_PEAK_COLUMN].text for row in rows)
    notes = (
        f"largest batch: the forecast peak fits into {fmt.size(memory)}; — where the mode has no forecast.",
        "least bytes: what a train step must at least read and write; votes: of all capsule layers, for the batch.",
        *([_RANGE] if ranged else []),
        *([_SEVERAL] if any(case.devices > 1 for case in cases) else []),
        *(["mixed_bfloat16: least bytes are those of a network that is all in bfloat16."] if mixed else []),
    )
    return share(Table("Forecast, per train step", columns, rows, notes=notes))


def _row(case: Case, backend: Backend, memory: int) -> tuple[Cell, ...]:
    bound = case.bind()
    spent = cost(bound, case.batch)
    # In mixed precision a number may take two bytes.
    least_bytes = cost(bound, case.batch, 2 if case.setting.mixed else 4).train_step_least_bytes

    def most_bytes(batch: int) -> int | None:
        forecast = _peak(backend, bound, case.setting, batch)
        return None if forecast is None else forecast.high_bytes

    peak, largest = _peak(backend, bound, case.setting, case.batch), largest_batch(most_bytes, memory)
    return (
        text_cell(case.network.name),
        text_cell(case.key().realization),
        cell(case.batch, fmt.count),
        text_cell(case.routing_iterations),
        cell(case.seed, fmt.count),
        text_cell(case.dataset.name),
        cell(spent.train_step_flops, fmt.flops),
        cell(least_bytes, fmt.size),
        cell(spent.vote_bytes, fmt.size) if case.network.routing else text_cell(None),
        text_cell(None if peak is None else fmt.bounds(peak.low_bytes, peak.high_bytes, fmt.BYTES)),
        cell(largest, fmt.count),
    )


def _peak(backend: Backend, bound: BoundNetwork, setting: Setting, batch: int) -> PeakForecast | None:
    """Estimate the peak of one GPU with its share of the batch, or of all replicas on the CPU together."""
    share = -(-batch // setting.devices)
    peak = backend.forecast_peak(bound, replace(setting, devices=1), share)
    if peak is None or setting.device != "cpu":
        return peak
    return replace(peak, low_bytes=peak.low_bytes * setting.devices, high_bytes=peak.high_bytes * setting.devices)


def largest_batch(peak_bytes: Callable[[int], int | None], memory: int) -> int | None:
    """Find the largest batch whose peak fits into `memory` bytes, by bisection: peaks grow with the batch.

    Returns:
        0 where not even one image fits, at most 2^20; None where there is no forecast.
    """

    def fits(batch: int) -> bool:
        peak = peak_bytes(batch)
        return peak is not None and peak <= memory

    if peak_bytes(1) is None:
        return None
    fitting, beyond = 0, 1
    while beyond <= _LARGEST_BATCH and fits(beyond):
        fitting, beyond = beyond, 2 * beyond
    if beyond > _LARGEST_BATCH:
        return _LARGEST_BATCH
    while beyond - fitting > 1:
        middle = (fitting + beyond) // 2
        fitting, beyond = (middle, beyond) if fits(middle) else (fitting, middle)
    return fitting
