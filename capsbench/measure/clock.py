"""The clock: how long a call takes in a warm process, and whether others held the processors meanwhile."""

import os
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
_PROC = Path("/proc")
_TICK_SECONDS = 1.0 / os.sysconf("SC_CLK_TCK")  # of /proc/stat
# Taken now, before a framework binds the threads that it finds here.
_CORES = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset[int]()


@dataclass(frozen=True, slots=True)
class Load:
    """What this process has suffered so far.

    Attributes:
        wait_seconds: that its threads stood in the run queue, summed over threads.
        involuntary_switches: how often a thread was put off its core.
        others_seconds: that its cores were busy with anything but this process, summed over cores, from an arbitrary
            origin: only differences mean something.
    """

    wait_seconds: float
    involuntary_switches: int
    others_seconds: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One timing sample.

    Attributes:
        seconds: wall time of one call; the mean over `calls`.
        calls: calls in the sample, more than one where a single call is too short to be watched.
        wait_seconds: time the process's threads stood in the run queue meanwhile, summed over threads; None where
            the system does not say.
        involuntary_switches: how often a thread was put off its core; None likewise.
        contended: the threads waited for more than 5 % of the wall time, and it was others who were on the cores, for
            more than 5 % of it too; None likewise.
        others_seconds: time that the process's cores were busy with anything else, summed over cores and never
            negative; None likewise.
    """

    seconds: float
    calls: int
    wait_seconds: float | None
    involuntary_switches: int | None
    contended: bool | None
    others_seconds: float | None = None


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
    turn: Callable[[], object] = lambda: None,
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
        turn: is called before each sample, and may wait; that time counts for nothing.
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
        asked = clock()
        turn()
        start += clock() - asked
        samples.append(_sample(stopwatch, calls, load))
        clean += not samples[-1].contended
        each(len(samples))
    return Timing(first, len(warmup), tuple(samples), stopwatch.called_ns / 1e9, (clock() - start) / 1e9)


def kept(samples: tuple[Sample, ...]) -> tuple[float, ...]:
    """Seconds of the samples that count: the uncontended ones, or all where others never let go of the cores."""
    clean = tuple(sample.seconds for sample in samples if not sample.contended)
    return clean or tuple(sample.seconds for sample in samples)


def read_load(proc: Path = _PROC) -> Load | None:
    """Read what this process has suffered; None where the kernel does not publish it.

    A framework's threads also wait for each other, so waits alone do not say that somebody else was there.
    """
    waits = list(_waits_ns(proc))
    idle = _idle_seconds(proc, _CORES)
    if not waits or idle is None:
        return None
    others = len(_CORES) * time.monotonic() - idle - time.process_time()
    return Load(sum(waits) / 1e9, resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw, others)


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
    others = max(0.0, after.others_seconds - before.others_seconds)
    switches = max(0, after.involuntary_switches - before.involuntary_switches)
    share = CONTENDED_SHARE * seconds * calls
    return Sample(seconds, calls, wait, switches, wait > share and others > max(share, _TICK_SECONDS), others)


def _waits_ns(proc: Path) -> Iterator[int]:
    """Run-queue wait of each thread: the second number of its schedstat (Linux, Documentation/scheduler)."""
    for path in (proc / "self/task").glob("*/schedstat"):
        try:
            yield int(path.read_bytes().split()[1])
        except (OSError, IndexError, ValueError):
            continue  # the thread has ended


def _idle_seconds(proc: Path, cores: frozenset[int]) -> float | None:
    """Time that the cores have been idle: the fourth and fifth number of their lines in stat (Linux, proc_stat(5)).

    Idle time is kept by the clock, while busy time is often estimated by who is seen at a tick; so what is busy is
    better found as what is not idle.
    """
    wanted = {f"cpu{core}" for core in cores}
    try:
        lines = (proc / "stat").read_text(encoding="ascii").splitlines()
        ticks = [sum(map(int, words[4:6])) for words in map(str.split, lines) if words and words[0] in wanted]
    except (OSError, ValueError):
        return None
    return sum(ticks) * _TICK_SECONDS if len(ticks) == len(wanted) > 0 else None
