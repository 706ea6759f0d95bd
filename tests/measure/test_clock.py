# ruff: noqa: D102 - the methods of a test double say nothing new
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from capsbench.measure.clock import Load, Sample, kept, read_load, time_calls


class FakeMachine:
    """A clock that only calls and looks at the load move forward, and a load that grows as told."""

    def __init__(self, durations, waits=(), look_seconds=0.0):
        self.now = 0
        self.wait = 0.0
        self._durations, self._waits = iter(durations), iter(waits)
        self._look_seconds = look_seconds

    def clock(self):
        return self.now

    def call(self):
        self.now += round(next(self._durations) * 1e9)
        self.wait += next(self._waits, 0.0)

    def load(self):
        self.now += round(self._look_seconds * 1e9)
        return Load(self.wait, 0)


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
    waits = [0.0] * 6 + [0.02, 0.0, 0.02]
    timing = time_on(FakeMachine(forever(0.1), waits), min_samples=5, max_seconds=60.0)
    assert [sample.contended for sample in timing.samples] == [True, False, True, False, False, False, False]
    assert len(kept(timing.samples)) == 5


def test_all_contended_are_all_kept():
    """Where others never let go of the cores, the samples count, marked."""
    samples = tuple(Sample(float(i), 1, 1.0, 0, True) for i in range(1, 4))
    assert kept(samples) == (1.0, 2.0, 3.0)


def test_a_silent_system_is_said_so():
    """Without schedstat nothing is known of contention, and nothing is claimed."""
    machine = FakeMachine(forever(0.1))
    timing = time_calls(machine.call, clock=machine.clock, load=lambda: None, min_samples=3, max_seconds=9.0)
    assert {sample.contended for sample in timing.samples} == {None}
    assert {sample.wait_seconds for sample in timing.samples} == {None}


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
