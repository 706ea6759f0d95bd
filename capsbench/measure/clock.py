"""The clock: how long a call takes in a warm process, and whether others held the processors meanwhile."""

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from math import ceil
from pathlib import Path
from statistics import median

from capsbench.stats.settle import is_warm

CONTENDED_SHARE = 0.05
FEWEST_SAMPLES = 3
_SHORTEST_SAMPLE_SECONDS = 0.05  # reading the waits of a framework's thirty threads takes about a millisecond
_MOST_WARMUP_CALLS = 50
_WARMUP_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Load:
    """What this process has suffered so far: seconds its threads waited for a core, and involuntary switches."""

    wait_seconds: float
    involuntary_switches: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One timing sample.

    Attributes:
        seconds: wall time of one call; the mean over `calls`.
        calls: calls in the sample, more than one where a single call is too short to be watched.
        wait_seconds: time the process's threads stood in the run queue meanwhile, summed over threads; None where
            the system does not say.
        involuntary_switches: how often a thread was put off its core; None likewise.
        contended: waits were more than 5 % of the wall time; None likewise.
    """

    seconds: float
    calls: int
    wait_seconds: float | None
    involuntary_switches: int | None
    contended: bool | None


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a call takes.

    Attributes:
        first_seconds: the first call of the process, which compiles and allocates.
        warmup_calls: calls thrown away after it.
        samples: the measured ones, in the order taken.
        called_seconds: time inside calls, over the whole pass.
        pass_seconds: time of the whole pass.
    """

    first_seconds: float
    warmup_calls: int
    samples: tuple[Sample, ...]
    called_seconds: float
    pass_seconds: float


@dataclass(slots=True)
class _Stopwatch:
    """Times calls and adds up the time spent in them."""

    call: Callable[[], object]
    clock: Callable[[], int]
    called_ns: int = 0

    def seconds(self, calls: int = 1) -> float:
        """Wall seconds of one call, the mean over `calls`."""
        start = self.clock()
        for _ in range(calls):
            self.call()
        elapsed = self.clock() - start
        self.called_ns += elapsed
        return elapsed / calls / 1e9


def time_calls(
    call: Callable[[], object],
    *,
    min_samples: int,
    max_seconds: float,
    clock: Callable[[], int] = time.perf_counter_ns,
    load: Callable[[], Load | None] | None = None,
    each: Callable[[int], object] = lambda _taken: None,
) -> Timing:
    """Time `call` until `min_samples` samples are free of contention or the time is up.

    The first call is kept apart; then warm-up calls until they settle, at most a quarter of the time; then samples,
    never fewer than three, however long they take.

    Args:
        call: what is measured; it returns when the device has finished.
        min_samples: uncontended samples wanted.
        max_seconds: for the whole pass.
        clock: nanoseconds.
        load: reads what the process has suffered so far.
        each: is told, after each sample, how many were taken.
    """
    load = load or read_load
    start = clock()
    stopwatch = _Stopwatch(call, clock)
    first = stopwatch.seconds()
    warmup = list(_warm_up(stopwatch, max_seconds * _WARMUP_SHARE))
    calls = max(1, ceil(_SHORTEST_SAMPLE_SECONDS / max(median(warmup[-3:]), 1e-9)))
    samples: list[Sample] = []
    clean = 0
    while len(samples) < FEWEST_SAMPLES or (clean < min_samples and (clock() - start) / 1e9 < max_seconds):
        samples.append(_sample(stopwatch, calls, load))
        clean += not samples[-1].contended
        each(len(samples))
    return Timing(first, len(warmup), tuple(samples), stopwatch.called_ns / 1e9, (clock() - start) / 1e9)


def kept(samples: tuple[Sample, ...]) -> tuple[float, ...]:
    """Seconds of the samples that count: the uncontended ones, or all where others never let go of the cores."""
    clean = tuple(sample.seconds for sample in samples if not sample.contended)
    return clean or tuple(sample.seconds for sample in samples)


def read_load() -> Load | None:
    """Read the waits of all threads of this process; None where the kernel does not publish them.

    Threads of the process that wait for each other count too: `threads` should not exceed the cores.
    """
    waits = list(_waits_ns())
    if not waits:
        return None
    return Load(sum(waits) / 1e9, resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw)


def _warm_up(stopwatch: _Stopwatch, max_seconds: float) -> Iterator[float]:
    taken: list[float] = []
    for _ in count():
        taken.append(stopwatch.seconds())
        yield taken[-1]
        if is_warm(taken, max_samples=_MOST_WARMUP_CALLS, max_seconds=max_seconds):
            return


def _sample(stopwatch: _Stopwatch, calls: int, load: Callable[[], Load | None]) -> Sample:
    before = load()
    seconds = stopwatch.seconds(calls)
    after = load()
    if before is None or after is None:
        return Sample(seconds, calls, None, None, None)
    wait = max(0.0, after.wait_seconds - before.wait_seconds)  # a thread that ended takes its waits with it
    switches = max(0, after.involuntary_switches - before.involuntary_switches)
    return Sample(seconds, calls, wait, switches, wait > CONTENDED_SHARE * seconds * calls)


def _waits_ns() -> Iterator[int]:
    """Run-queue wait of each thread: the second number of its schedstat (Linux, Documentation/scheduler)."""
    for path in Path("/proc/self/task").glob("*/schedstat"):
        try:
            yield int(path.read_bytes().split()[1])
        except (OSError, IndexError, ValueError):
            continue  # the thread has ended
