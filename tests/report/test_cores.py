"""Work that several processes do comes back whole and in order, whatever becomes of them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import wait_until

from capsbench.errors import BadInput
from capsbench.report.export.cores import on_all_cores

ITEMS = range(200)
MINE = os.getpid()
needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")


@pytest.fixture(autouse=True)
def three_processes(monkeypatch):
    """As on a machine with three cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)


def numbered(item):
    """What was made, and whether another process made it."""
    return item, os.getpid() != MINE


@needs_fork
def test_all_comes_back_in_order_and_from_others():
    """Every item's result comes once, at its place, and this process made none of them."""
    with on_all_cores(numbered, ITEMS) as made:
        assert list(made) == [(item, True) for item in ITEMS]


def test_little_work_starts_nothing():
    """A few items are worked on where they are asked for."""
    with on_all_cores(numbered, ITEMS[:5]) as made:
        assert list(made) == [(item, False) for item in ITEMS[:5]]


@needs_fork
def test_much_may_be_made_before_anybody_asks(tmp_path):
    """Processes go on while nobody takes what they made, however much that is."""

    def large(item):
        (tmp_path / str(item)).touch()
        return "x" * 100_000

    with on_all_cores(large, ITEMS) as made:
        assert wait_until(lambda: len(list(tmp_path.iterdir())) == len(ITEMS))
        assert len(list(made)) == len(ITEMS)


@needs_fork
def test_what_a_killed_process_left_is_done_here():
    """Each item comes once and in order, though one of three processes is killed; the others' work stays done."""

    def deadly(item):
        if item == 100 and os.getpid() != MINE:
            os.kill(os.getpid(), signal.SIGKILL)
        return numbered(item)

    with on_all_cores(deadly, ITEMS) as made:
        found = list(made)
    assert [item for item, _ in found] == list(ITEMS)
    assert not found[100][1]
    assert all(elsewhere for item, elsewhere in found if item % 3 != 100 % 3)


@needs_fork
def test_an_error_is_raised_where_the_result_was_asked_for():
    """What came before it comes; then the error, as if this process had done the work."""

    def wrong(item):
        if item == 7:
            raise BadInput("seven", "there")
        return item

    with on_all_cores(wrong, ITEMS) as made:
        assert [next(made) for _ in range(7)] == list(range(7))
        with pytest.raises(BadInput, match="seven"):
            next(made)


@needs_fork
@pytest.mark.parametrize("ended", ["left", "killed"])
def test_nobody_is_left_behind(ended):
    """Processes end when nobody asks any more, or when the process that asked was killed."""
    script = f"""
import os
os.sched_getaffinity = lambda _: {{0, 1, 2}}
from capsbench.report.export.cores import on_all_cores
def work(item):
    return os.getpid(), "x" * 100_000
with on_all_cores(work, range(100_000)) as made:
    print(*{{next(made)[0] for _ in range(9)}}, flush=True)
    if {ended!r} == "killed":
        os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=False)
    others = list(map(int, done.stdout.split()))
    assert len(others) == 3
    assert wait_until(lambda: not any(map(is_alive, others)))


def is_alive(process):
    """Whether a process runs; one that has ended and that nobody waits for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_as_many_as_are_of_use(monkeypatch):
    """One core does the work itself."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    with on_all_cores(numbered, ITEMS) as made:
        assert not any(elsewhere for _, elsewhere in made)
