"""`capsbench doctor --noise`: by how much equal code differs on this machine."""

from collections.abc import Iterator, Mapping, Sequence
from math import log
from pathlib import Path
from statistics import stdev
from types import TracebackType
from typing import Self

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from capsbench.cli.options import EXIT_SOME_FAILED, check_backend, modes, unique
from capsbench.errors import BadInput
from capsbench.plugins import Installed
from capsbench.record.noise import Process, Recording, keep_noise, kept_noise
from capsbench.report import format as fmt
from capsbench.report.table import Cell, Column, Table, text_cell
from capsbench.runner.noise import NotTimed, noise_case, record_noise
from capsbench.runner.resolve import Probed, probe, resolve_device
from capsbench.stats.noise import floor_of, pair_scatter, rounds_to_find

PAIRS = 20
FEWEST_PAIRS = 4
_PREFERRED = ("torch:eager", "tensorflow:graph", "numpy")
_SHOWN = (5, 10, 20)
_GROWTHS = (1.1, 1.2)


def check_pairs(pairs: int) -> int:
    """Blocks A B B A that so many pairs are.

    Raises:
        BadInput: they are no whole blocks, or too few to say anything.
    """
    if pairs < FEWEST_PAIRS or pairs % 2:
        raise BadInput(f"{pairs} pairs are not possible, legal is an even number from {FEWEST_PAIRS}", "--pairs")
    return pairs // 2


def choose(asked: Sequence[str], installed: Mapping[str, Installed]) -> list[str]:
    """The realizations to record, as `name:mode`: those asked for, else all in the order in which one is tried.

    Raises:
        BadInput: an unknown name, or a backend that cannot be used.
    """
    if asked:
        return unique(check_backend(text, installed, "--backend")[0] for text in asked)
    usable = [name for name, found in installed.items() if found.problem is None]
    wanted = [use for use in _PREFERRED if use.partition(":")[0] in usable]
    return unique(check_backend(use, installed, "--backend")[0] for use in (*wanted, *usable))


def record(
    uses: Sequence[str],
    blocks: int,
    *,
    device: str,
    threads: int,
    installed: Mapping[str, Installed],
    results: Path,
    only_one: bool,
) -> Iterator[Recording]:
    """Record the realizations one after the other, and keep each at once.

    Args:
        uses: as `name:mode`.
        blocks: of four processes, each.
        device: as a suite says it.
        threads: CPU threads.
        installed: the registered backends.
        results: the folder above `runs`.
        only_one: whether the first that can be timed is enough.

    Raises:
        BadInput: a backend or device cannot be used.
        typer.Exit: a realization that was asked for failed, or none could be timed.
    """
    kept_noise(results)  # a broken file is said before minutes are spent
    known, screen = modes(installed), Console(stderr=True)
    probed = probe(use.partition(":")[0] for use in uses)
    for use in uses:
        name = use.partition(":")[0]
        if only_one and not _usable(probed[name], device):
            continue
        case = noise_case(use, known[name], resolve_device(device, {name: probed[name]})[name], threads)
        try:
            with _Progress(screen, use, 4 * blocks) as progress:
                recording = record_noise(case, blocks, each=progress.ended)
        except NotTimed as reason:
            screen.print(f"{use}: {reason}", markup=False, highlight=False, soft_wrap=True)
            if only_one:
                continue
            raise typer.Exit(EXIT_SOME_FAILED) from None
        keep_noise(results, recording)
        yield recording
        if only_one:
            return
    if only_one:
        raise BadInput("no installed backend can be timed here; `capsbench backends` says why")


def noise_table(recording: Recording) -> Table:
    """What was found: how processes scatter, the floors, and how many rounds find what."""
    counts = [count for count in _SHOWN if count <= len(recording.processes) // 2]
    metrics = list(dict.fromkeys(each.metric for each in recording.floors))

    def share(value: float | None) -> Cell:
        return Cell(fmt.NOTHING) if value is None else Cell(f"{fmt.percent(value)} %", value, "share")

    def cells(metric: str) -> Iterator[Cell]:
        yield text_cell(metric)
        yield share(scatter_of(recording, metric))
        yield share(ratio_scatter_of(recording, metric))
        for interleaved in (True, False):
            yield from (share(floor_of(recording.floors, metric, count, interleaved=interleaved)) for count in counts)
        yield from (_rounds(recording, metric, growth) for growth in _GROWTHS)

    columns = (
        Column("metric", "key", "left"),
        Column("between\nprocesses", group="scatter"),
        Column("ratio of\na pair", group="scatter"),
        *(Column(f"in turns\n{count} a side", group="turns") for count in counts),
        *(Column(f"in a row\n{count} a side", group="apart") for count in counts),
        *(Column(f"rounds for\n+{100 * growth - 100:.0f} %", group="rounds") for growth in _GROWTHS),
    )
    return Table(
        "Noise floor",
        columns,
        tuple(tuple(cells(metric)) for metric in metrics),
        context=(f"{recording.backend}:{recording.mode}", recording.device, f"threads {recording.threads}"),
        notes=tuple(_notes(recording)),
    )


def scatter_of(recording: Recording, metric: str) -> float:
    """Standard deviation of the processes' log medians, which is about that of the medians as a share."""
    return stdev(log(each.medians[metric]) for each in recording.processes)


def ratio_scatter_of(recording: Recording, metric: str) -> float:
    """Standard deviation of the log ratios of two processes that ran at the same time."""
    return pair_scatter(np.log([each.medians[metric] for each in recording.processes]))


def _rounds(recording: Recording, metric: str, growth: float) -> Cell:
    known = [each for each in recording.floors if each.metric == metric]
    needed = rounds_to_find(growth, ratio_scatter_of(recording, metric), known)
    return Cell(fmt.NOTHING) if needed is None else Cell(str(needed), needed)


def _notes(recording: Recording) -> Iterator[str]:
    loads = [each.load for each in recording.processes if each.load is not None]
    count = len(recording.processes)
    yield (
        "ratio of a pair: by how much B over A scatters for two processes that ran at the same time, in turns sample "
        "by sample; it would be 1.41 times the scatter between processes if they had nothing in common."
    )
    yield (
        f"floor: 99 % of comparisons of equal code stay within it, by resampling {count} processes of the same work "
        f"({recording.work}): in pairs that take turns, or all of A in a row before all of B, where the largest gap "
        "that was seen counts if it is more."
    )
    yield "rounds: so many pairs find such a slowdown of a lone time in 4 of 5 trials; —: no number would."
    disturbed = sum(each.contended > 0 for each in recording.processes)
    if loads:
        said = f"load {min(loads):.1f} to {max(loads):.1f} meanwhile"
        yield f"{said}; others disturbed {disturbed} of {count} processes."


def _usable(found: Probed, device: str) -> bool:
    try:
        resolve_device(device, {found.name: found})
    except BadInput:
        return False
    return True


class _Progress:
    """Tells how far an experiment is: a bar with the time left, or a line every block where there is no terminal."""

    def __init__(self, screen: Console, use: str, total: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._screen, self._use, self._total = screen, use, total
        self._bar = Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)
        self._task = self._bar.add_task(f"{use}: processes that all do the same", total=total)
        self._ended = 0

    def ended(self, process: Process) -> None:
        """A process has ended."""
        self._ended += 1
        self._bar.advance(self._task)
        if not self._screen.is_terminal and self._ended % 4 == 0:
            said = f"{self._use}: {self._ended} of {self._total} processes, load {process.load or 0.0:.1f}"
            self._screen.print(said, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
