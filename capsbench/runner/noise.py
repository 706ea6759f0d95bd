"""Processes that all do the same, two at a time that take turns: by how much equal code differs on this machine."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from capsbench import plugins
from capsbench.dataset.transform import Transform
from capsbench.metrics import METRICS
from capsbench.record.noise import Process, Recording, floors_of
from capsbench.runner.assemble import timing_metrics
from capsbench.runner.interrupt import ending_on_signals
from capsbench.runner.launch import Worker, receive, worker_environment
from capsbench.runner.turns import in_turns
from capsbench.suite.cases import Case, expand
from capsbench.suite.schema import DatasetChoice, Suite, TimeChoice
from capsbench.worker.limits import Limits
from capsbench.worker.messages import Place, ProbePart, Received, RoundPart, TimeJob
from capsbench.worker.turns import VARIABLE

NETWORK: Final = "em-tiny"
_IMAGES = 60  # of which a batch is taken; they are made in a moment
_BATCH = 50
_MOST_SECONDS = 600.0  # for one process
_TIME = TimeChoice(rounds=1, min_samples=10, max_seconds=20.0)
_METRICS = tuple(each.name for each in METRICS.values() if (each.comparison, each.measure) == ("time", "time"))


_PAIRS: Final[tuple[tuple[Literal["A", "B"], Literal["A", "B"]], ...]] = (("A", "B"), ("B", "A"))
"""Of a block, in the order in which they begin."""


@dataclass(frozen=True, slots=True)
class _Timed:
    """A process: when it began, the machine's load then, what it said."""

    began_seconds: float
    load: float | None
    received: Received


class NotTimed(Exception):  # noqa: N818 - not an error of ours but how the experiment ended
    """A process did not come to its end; the text says why."""


def noise_case(use: str, modes: tuple[str, ...], device: str, threads: int) -> Case:
    """What every process does: a small EM network on toys, timed as in a run with the allocator of suites.

    Args:
        use: `name:mode` of a backend.
        modes: that it has.
        device: resolved.
        threads: CPU threads.

    Raises:
        BadInput: no such mode.
    """
    name = use.partition(":")[0]
    suite = Suite(
        name="noise",
        dataset=DatasetChoice(
            name="toys", train_limit=_IMAGES, test_limit=_IMAGES, transform=Transform(resize=32, standardise=True)
        ),
        networks=(NETWORK,),
        backends=(use,),
        batch=(_BATCH,),
        device=device,
        threads=threads,
        measure=("time",),
        time=_TIME,
    )
    [case] = expand(suite, Path("noise"), {name: modes}, {name: device})
    return case


def record_noise(
    case: Case, blocks: int, *, cache: Path | None = None, each: Callable[[Process], object] = lambda _process: None
) -> Recording:
    """Run blocks of two pairs, A B and B A, and work out the floors.

    Both processes of a pair are there at the same time and take turns, sample by sample; on a GPU they run one after
    the other, as the rounds of revisions do there.

    Args:
        case: what each process does.
        blocks: at least 1.
        cache: where the images are kept; None for the default.
        each: hears of every process as it ends.

    Raises:
        NotTimed: a process failed; nothing that came before it counts.
        BadInput: the backend cannot be used.
    """
    processes: list[Process] = []
    versions: dict[str, str] = {}
    with ending_on_signals():
        for process, found in _processes(case, blocks, cache):
            processes.append(process)
            versions = found
            each(process)
    return Recording(
        backend=case.backend,
        mode=case.mode,
        device=case.device,
        threads=case.threads,
        allocator=case.allocator,
        work=f"{case.network.name} on {case.dataset.name}, batch {case.batch}",
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions,
        floors=floors_of(processes),
        processes=tuple(processes),
    )


def _processes(case: Case, blocks: int, cache: Path | None) -> Iterator[tuple[Process, dict[str, str]]]:
    start = time.monotonic()

    def timed(descriptor: int | None = None, given_up: Callable[[], bool] = lambda: False) -> _Timed:
        began, load = time.monotonic() - start, _load()
        turns = {} if descriptor is None else {VARIABLE: str(descriptor)}
        with Worker(job, {**environment, **turns}, Limits(_MOST_SECONDS), given_up) as worker:
            return _Timed(began, load, receive(worker))

    environment = worker_environment(plugins.load(case.backend), case.setting, case.allocator)
    job = TimeJob(case=case, place=Place(cache=None if cache is None else str(cache)))
    for pair in _PAIRS * blocks:
        both = in_turns(timed, timed) if case.device == "cpu" else (timed(), timed())
        for side, each in zip(pair, both, strict=True):
            yield _process(side, each), _versions(each.received)


def _process(side: Literal["A", "B"], timed: _Timed) -> Process:
    received = timed.received
    rounds = tuple(part for part in received.parts if isinstance(part, RoundPart))
    if received.done.status != "ok" or not rounds:
        raise NotTimed(received.done.reason or f"its process ended as {received.done.status} without a word")
    metrics = timing_metrics(rounds, _BATCH)
    return Process(
        side=side,
        started_seconds=timed.began_seconds,
        load=timed.load,
        contended=sum(metrics[name].contended for name in _METRICS),
        medians={name: metrics[name].value for name in _METRICS},
    )


def _versions(received: Received) -> dict[str, str]:
    return next((part.versions for part in received.parts if isinstance(part, ProbePart)), {})


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None
