import multiprocessing
import os
import subprocess
import sys

import pytest

from capsbench.measure.memory import peak_resident_bytes, resident_bytes, whole_resident_bytes
from capsbench.suite.schema import LimitChoice
from capsbench.worker.limits import Limits, limits_of, passed

MANY = 200 << 20


def test_resident_memory_of_this_process():
    """A running interpreter holds megabytes, and never more than its peak."""
    resident = resident_bytes(os.getpid())
    assert resident is not None
    assert 1 << 20 < resident <= peak_resident_bytes() * 1.01


def test_an_ended_process_holds_nothing():
    """The number of a process that has ended yields None."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert resident_bytes(process.pid) is None
    assert whole_resident_bytes(process.pid) is None


@pytest.fixture
def replica():
    """A process that has held 200 MiB and holds 100 of them still."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_hold, args=(theirs,), daemon=True)
    process.start()
    assert ours.recv() == "holds"
    yield process
    process.kill()
    process.join()


def _hold(pipe):
    held = bytearray(b"x") * MANY
    del held
    held = bytearray(b"x") * (MANY // 2)
    pipe.send("holds")
    pipe.recv()
    del held


def test_what_replicas_hold_counts(replica):
    """Now and at its most, beside what the process holds alone."""
    alone = resident_bytes(os.getpid())
    assert MANY / 2 < whole_resident_bytes(os.getpid()) - alone < MANY
    with_it = peak_resident_bytes()
    replica.kill()
    replica.join()
    assert with_it - peak_resident_bytes() > MANY
    assert whole_resident_bytes(os.getpid()) - resident_bytes(os.getpid()) < MANY / 2


@pytest.mark.usefixtures("replica")
def test_a_case_on_several_devices_is_held_to_its_limit_as_a_whole():
    """One on a single device is not charged with what else its process has started."""
    choice = LimitChoice(memory=f"{(resident_bytes(os.getpid()) + MANY // 4) >> 20}MiB")
    assert passed(limits_of(choice, devices=1), 0.0, os.getpid()) is None
    end = passed(limits_of(choice, devices=2), 0.0, os.getpid())
    assert end is not None
    assert (end.status, end.reason.startswith("stopped at ")) == ("oom", True)


def test_who_waits_for_others_has_twice_the_time():
    """Half of it is the other one's."""
    alone, in_turns = Limits(seconds=10.0), Limits(seconds=10.0, waits=True)
    assert [passed(alone, seconds, os.getpid()) is None for seconds in (9.0, 11.0, 21.0)] == [True, False, False]
    assert [passed(in_turns, seconds, os.getpid()) is None for seconds in (9.0, 11.0, 21.0)] == [True, True, False]
