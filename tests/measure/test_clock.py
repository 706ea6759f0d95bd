# ruff: noqa: D102 - the methods of a test double say nothing new
import time
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsbench.measure import clock
from capsbench.measure.clock import Load, Sample, kept, read_load, time_calls


class FakeMachine:
    """A clock that only calls and looks at the load move forward, and a load that grows as told."""

    def __init__(self, durations, waits=(), others=(), look_seconds=0.0):
        self.now = 0
        self.wait = self.other = 0.0
        self._durations, self._waits, self._others = iter(durations), iter(waits), iter(others)
        self._look_seconds = look_seconds

    def clock(self):
        return self.now

    def call(self):
        self.now += round(next(self._durations) * 1e9)
        self.wait += next(self._waits, 0.0)
        self.other += next(self._others, 0.0)

    def load(self):
        self.now += round(self._look_seconds * 1e9)
        return Load(self.wait, 0, self.other)


def forever(seconds):
    return (seconds for _ in count())


def time_on(machine, **wanted):
    return time_calls(machine.call, clock=machine.clock, load=machine.load, **wanted)


def test_first_call_and_warmup_are_kept_apart():
    """What the first call and the warm-up take shows in no sample."""
    machine = FakeMachine([9.0, 3.0, *[0.1] * 100])
    timing = time_on(machine, min_samples=4, max_seconds=60.0)
    assert timing.first_seconds == 9.0
    assert timing.warmup_calls >= 5
    assert [round(sample.seconds, 6) for sample in timing.samples] == [0.1] * 4


def test_never_fewer_than_three_samples():
    """A call that takes longer than the whole budget is sampled three times all the same."""
    timing = time_on(FakeMachine(forever(100.0)), min_samples=10, max_seconds=1.0)
    assert len(timing.samples) == 3
    assert timing.warmup_calls == 1


def test_time_ends_the_samples():
    """No sample begins after `max_seconds`."""
    timing = time_on(FakeMachine(forever(1.0)), min_samples=1000, max_seconds=30.0)
    assert timing.pass_seconds <= 31.0
    assert len(timing.samples) > 3


def test_contended_samples_are_repeated():
    """Samples during which others held the cores count neither towards those wanted nor for the median."""
    taken = [0.0] * 6 + [0.02, 0.0, 0.02]
    timing = time_on(FakeMachine(forever(0.1), taken, taken), min_samples=5, max_seconds=60.0)
    assert [sample.contended for sample in timing.samples] == [True, False, True, False, False, False, False]
    assert [round(sample.others_seconds, 6) for sample in timing.samples[:3]] == [0.02, 0.0, 0.02]
    assert len(kept(timing.samples)) == 5


@pytest.mark.parametrize(
    ("wait", "others", "contended"),
    [
        (0.5, 0.0, False),  # its own threads waited for each other
        (0.5, -0.3, False),
        (0.0, 0.5, False),  # others were on cores that it did not need
        (0.5, 0.04, False),
        (0.04, 0.5, False),
        (0.06, 0.06, True),
        (3.0, 2.0, True),
    ],
)
def test_only_others_contend(wait, others, contended):
    """Of a second, more than 5 % must have been waited, and others must have had more than 5 % on the cores."""
    machine = FakeMachine(forever(1.0), forever(wait), forever(others))
    timing = time_on(machine, min_samples=3, max_seconds=20.0)
    assert {sample.contended for sample in timing.samples} == {contended}
    assert all(sample.others_seconds >= 0.0 for sample in timing.samples)


def test_less_than_a_tick_is_nobody():
    """Where the cores' idle time is known to a tick only, others for less than that do not count."""
    tick = clock._TICK_SECONDS
    for others, contended in ((0.9 * tick, False), (1.1 * tick, True)):
        machine = FakeMachine(forever(0.06), forever(0.05), forever(others))
        timing = time_on(machine, min_samples=3, max_seconds=5.0)
        assert {sample.contended for sample in timing.samples} == {contended}


def test_all_contended_are_all_kept():
    """Where others never let go of the cores, the samples count, marked."""
    samples = tuple(Sample(float(i), 1, 1.0, 0, True) for i in range(1, 4))
    assert kept(samples) == (1.0, 2.0, 3.0)


def test_a_silent_system_is_said_so():
    """Without /proc nothing is known of contention, and nothing is claimed."""
    machine = FakeMachine(forever(0.1))
    timing = time_calls(machine.call, clock=machine.clock, load=lambda: None, min_samples=3, max_seconds=9.0)
    assert {sample.contended for sample in timing.samples} == {None}
    assert {sample.wait_seconds for sample in timing.samples} == {None}
    assert {sample.others_seconds for sample in timing.samples} == {None}


@given(st.floats(1e-5, 1.0))
def test_short_calls_are_taken_together(seconds):
    """However short a call, looking at the load costs little beside the sample."""
    machine = FakeMachine(forever(seconds), look_seconds=0.0005)
    timing = time_on(machine, min_samples=10, max_seconds=60.0)
    assert timing.pass_seconds - timing.called_seconds <= 0.05 * timing.pass_seconds
    assert all(sample.calls * sample.seconds >= 0.0499 for sample in timing.samples)


def test_load_only_grows():
    """What this process has waited for a core never shrinks while its threads live."""
    before = read_load()
    sum(range(100_000))
    after = read_load()
    assert (before is None) == (after is None)
    if before and after:
        assert after.wait_seconds >= before.wait_seconds
        assert after.involuntary_switches >= before.involuntary_switches


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """A /proc of two threads that waited 1 and 2 s, on cores 1 and 3 of four."""
    monkeypatch.setattr(clock, "_CORES", frozenset({1, 3}))
    for thread, wait in ((7, 10**9), (8, 2 * 10**9)):
        folder = tmp_path / "self" / "task" / str(thread)
        folder.mkdir(parents=True)
        (folder / "schedstat").write_text(f"5 {wait} 6\n")
    (tmp_path / "self" / "task" / "9").mkdir()
    return tmp_path


def write_stat(proc, *, idle, iowait):
    """Write a stat whose cores were idle for so many ticks each; the other numbers must not matter."""
    cores = "".join(f"cpu{core} 9 9 9 {idle * (core + 1)} {iowait} 9 9 9 0 0\n" for core in range(4))
    (proc / "stat").write_text(f"cpu  9 9 9 9 9 9 9 9 0 0\n{cores}intr 1 2 3\nctxt 4\n")


def test_what_others_had_is_neither_idle_nor_ours(proc, monkeypatch):
    """Cores times wall time, less what the cores were idle and what the process itself ran."""
    now, own = iter([100.0, 110.0]), iter([1.0, 6.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    monkeypatch.setattr(time, "process_time", lambda: next(own))
    write_stat(proc, idle=0, iowait=0)
    before = read_load(proc)
    idle_ticks = round(0.5 / clock._TICK_SECONDS)  # 2 + 4 halves of a second idle, 2 halves waiting for a disk
    write_stat(proc, idle=idle_ticks, iowait=idle_ticks)
    after = read_load(proc)
    assert after.others_seconds - before.others_seconds == pytest.approx(20.0 - 4.0 - 5.0)
    assert after.wait_seconds == 3.0


@pytest.mark.parametrize("broken", ["no stat", "no core 3", "no number", "no schedstat"])
def test_half_a_proc_is_none(proc, broken):
    """What the kernel publishes only in part, or in words, is not guessed at."""
    write_stat(proc, idle=1, iowait=1)
    assert read_load(proc) is not None
    stat = proc / "stat"
    match broken:
        case "no stat":
            stat.unlink()
        case "no core 3":
            stat.write_text(stat.read_text().replace("cpu3 ", "cpu4 "))
        case "no number":
            stat.write_text(stat.read_text().replace(" 1 ", " one "))
        case _:
            for path in proc.glob("self/task/*/schedstat"):
                path.unlink()
    assert read_load(proc) is None
