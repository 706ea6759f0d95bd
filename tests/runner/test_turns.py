"""Two works go on one at a time, in turns: nothing of one runs while the other is timed."""

import os
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from waiting import PATIENCE_SECONDS, wait_until

from capsbench import plugins
from capsbench.runner.launch import Worker, receive, worker_environment
from capsbench.runner.turns import in_turns
from capsbench.suite.schema import TimeChoice
from capsbench.worker.limits import Limits
from capsbench.worker.messages import Place, RoundPart, TimeJob
from capsbench.worker.turns import ASKS, VARIABLE, descriptors, wait_for_turn


class Log:
    """What two works did, in the order in which they did it; and whether both ever did something at once."""

    def __init__(self):
        self.done = []
        self.clashed = False
        self._busy = threading.Lock()

    def work(self, name, samples):
        """Take so many samples, each in a turn of its own."""

        def do(descriptor, _given_up):
            for number in range(samples):
                os.write(descriptor, ASKS)
                assert os.read(descriptor, 1)
                self._step(f"{name}{number}")
            return f"{name} ended"

        return do

    def _step(self, what):
        if not self._busy.acquire(blocking=False):
            self.clashed = True
            return
        self.done.append(what)
        time.sleep(0.01)
        self._busy.release()


def test_samples_alternate():
    """Once both are there, one sample of each, the first one's first; who has more goes on alone."""
    log = Log()
    assert in_turns(log.work("a", 2), log.work("b", 4)) == ("a ended", "b ended")
    assert log.done == ["a0", "b0", "a1", "b1", "b2", "b3"]
    assert not log.clashed


def test_both_start_at_the_same_time():
    """No sample is taken while the other one is still on its way to its first."""
    barrier, log = threading.Barrier(2, timeout=PATIENCE_SECONDS), Log()

    def late(name):
        work = log.work(name, 2)

        def do(descriptor, given_up):
            barrier.wait()
            if name == "b":
                time.sleep(0.2)
                assert log.done == []
            return work(descriptor, given_up)

        return do

    in_turns(late("a"), late("b"))
    assert log.done == ["a0", "b0", "a1", "b1"]


def test_a_work_that_never_asks_keeps_nobody_waiting():
    """The other one goes on when it has ended."""
    for samples in ((0, 3), (3, 0)):
        log = Log()
        in_turns(log.work("a", samples[0]), log.work("b", samples[1]))
        assert len(log.done) == 3


def test_what_a_work_raises_is_raised_when_both_have_ended():
    """The other one is not cut off."""

    def fails(_descriptor, _given_up):
        raise OSError("so it is")

    log = Log()
    with pytest.raises(OSError, match="so it is"):
        in_turns(fails, log.work("b", 2))
    assert log.done == ["b0", "b1"]


def test_who_has_no_turns_does_not_wait(monkeypatch):
    """Nor does a process whose variable names something else, or a socket that nobody listens at."""
    monkeypatch.delenv(VARIABLE, raising=False)
    wait_for_turn()
    with Path(os.devnull).open("rb") as file:
        for told in ("", "x", "-1", "99999999999999999999", str(file.fileno()), "1000000"):
            assert descriptors({VARIABLE: told}) == ()
    read, write = os.pipe()
    assert descriptors({VARIABLE: str(read)}) == ()
    os.close(read)
    os.close(write)


@pytest.fixture
def timed(make_case, mnist_root):
    """A function that returns a work which times a case of the fake backend in a worker."""

    def timed(mode):
        case = make_case(mode, measure=("time",), time=TimeChoice(rounds=1, min_samples=4, max_seconds=5.0))
        environment = worker_environment(plugins.load(case.backend), case.setting, case.allocator)
        job = TimeJob(case=case, place=Place(data_root=str(mnist_root)))

        def do(descriptor, given_up):
            with Worker(job, {**environment, VARIABLE: str(descriptor)}, Limits(PATIENCE_SECONDS), given_up) as worker:
                return receive(worker)

        return do

    return timed


def _samples(part):
    return len(part.forward.samples) + len(part.train_step.samples) if isinstance(part, RoundPart) else 0


def test_workers_take_turns(timed, tmp_path, monkeypatch):
    """Once both have warmed up, no step of one overlaps with a step of the other, and samples alternate."""
    log = tmp_path / "steps"
    monkeypatch.setenv("FAKE_LOG", str(log))
    found = in_turns(timed("steady"), timed("steady"))
    assert [each.done.status for each in found] == ["ok", "ok"]
    steps = [line.split() for line in log.read_text(encoding="ascii").splitlines()]
    steps.sort(key=lambda step: float(step[1]))
    apart = [float(end) <= float(begin) for (_, _, end), (_, begin, _) in pairwise(steps)]
    last_overlap = max((place for place, is_apart in enumerate(apart) if not is_apart), default=0)
    changes = [place for place, ((a, *_), (b, *_)) in enumerate(pairwise(steps)) if a != b and place > last_overlap]
    samples = [sum(map(_samples, each.parts)) for each in found]
    assert len(changes) >= 2 * min(samples) - 4


def test_a_worker_that_dies_leaves_the_other_its_turns(timed):
    """One fails, one is timed."""
    dead, alive = in_turns(timed("killed"), timed("fast"))
    assert (dead.done.status, alive.done.status) == ("crash", "ok")


@pytest.mark.usefixtures("default_signals")
def test_an_interrupt_leaves_no_worker(timed, tmp_path, monkeypatch):
    """Neither the one that waits nor the one that works, which had not come to its end."""
    monkeypatch.setenv("FAKE_PID_FILE", str(tmp_path / "pids"))
    ended = []

    def hang(descriptor, given_up):
        ended.append(timed("hang")(descriptor, given_up))

    def interrupt():
        if wait_until((tmp_path / "pids").exists):
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        in_turns(timed("steady"), hang)
    assert ended == []
    assert not [child for child in psutil.Process().children() if "capsbench.worker" in child.cmdline()]
