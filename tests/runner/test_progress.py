import io

import pytest
from conftest import make_case
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from capsbench.measure.environment import describe_machine
from capsbench.record.schema import SplitFacts
from capsbench.runner.assemble import DataFacts, Draft, assemble
from capsbench.runner.progress import ConsoleProgress, Estimate, describe_seconds
from capsbench.worker.messages import Done, Received


def record_of(case, done):
    draft = Draft(case, DataFacts({"train": SplitFacts(count=1, full_count=1, sha256="")}, ()))
    draft.take(Received((), done))
    return assemble(draft, "run", describe_machine())


@pytest.mark.parametrize("terminal", [True, False])
def test_every_end_stays_on_the_console(terminal):
    """Status, id and reason of every case are printed, whether or not the console is a terminal."""
    text = io.StringIO()
    case, other = make_case(), make_case("slow")
    with ConsoleProgress(Console(file=text, force_terminal=terminal, width=200)) as progress:
        progress.started(2)
        progress.case_stage(case, "check", 1, 4, "parity")
        progress.finished(record_of(case, Done(status="ok")))
        progress.case_stage(other, "accuracy", 1, 2, "epoch 1/2 [loss]")
        progress.finished(record_of(other, Done(status="oom", reason="stopped at [red]900 MiB")))
    assert case.id in text.getvalue()
    assert "oom" in text.getvalue()
    assert "stopped at [red]900 MiB" in text.getvalue()
    assert "2/2" in text.getvalue()


def test_each_worker_has_its_line():
    """On a terminal two workers show two cases at once, a line each, which goes when the worker is free."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=160)
    case, other = make_case(), make_case("slow")
    with ConsoleProgress(console) as progress:
        progress.started(2)
        progress.waiting("waiting for the first worker of tcp://[::1]:8786")
        progress.worker_stage("0", case, "check", 1, 4, "parity")
        progress.worker_stage("tcp://[::1]:41", other, "time", 1, 4, "round 1 of 2")
        lines = [task.description for task in progress._live.tasks]
        counts = [task.fields["count"] for task in progress._live.tasks]
        assert f"{case.id}  check: parity" in lines
        assert f"{other.id}  time: round 1 of 2" in lines
        assert counts[2] == "worker 0"
        progress._live.refresh()
        assert "worker tcp://[::1]:41" in text.getvalue()
        for worker in ("0", "tcp://[::1]:41", "never seen"):
            progress.worker_free(worker)
        assert len(progress._live.tasks) == 2


def test_a_log_says_once_what_is_waited_for(monkeypatch):
    """Where nobody looks, the reason for waiting is a line, not a line a second; what runs says where."""
    text = io.StringIO()
    with ConsoleProgress(Console(file=text, width=200)) as progress:
        progress.started(1)
        for _ in range(3):
            progress.waiting("waiting for the first worker of tcp://there:1")
        monkeypatch.setattr(progress, "_last_line", -1e9)
        progress.worker_stage("3", make_case(), "time", 1, 4, "round 1 of 2")
        progress.worker_free("3")
    first, waits, runs = text.getvalue().splitlines()
    assert (first, waits) == ("1 case", "waiting for the first worker of tcp://there:1")
    assert "time: round 1 of 2 on worker 3" in runs


STAGES = st.lists(
    st.tuples(st.sampled_from(["data", "check", "time", "accuracy"]), st.integers(0, 10), st.integers(0, 10))
)


@given(STAGES)
def test_shares_only_grow(stages):
    """Whatever a case reports, its share lies between 0 and 1 and never shrinks."""
    estimate, case, before = Estimate(2), make_case(), 0.0
    for stage, done, total in stages:
        estimate.advance(case, stage, done, total)
        assert before <= estimate.share() <= 0.5
        before = estimate.share()
    estimate.end(case.id)
    assert estimate.share() == 0.5


def test_time_left_is_the_pace_so_far():
    """Half of the work in ten seconds leaves ten; nothing done leaves nothing to say."""
    estimate = Estimate(2)
    assert estimate.seconds_left(10.0) is None
    estimate.end(make_case().id)
    assert estimate.seconds_left(10.0) == 10.0
    estimate.end("another")
    assert estimate.seconds_left(10.0) == 0.0


def test_durations_are_readable():
    """Durations come in the two largest units."""
    assert [describe_seconds(s) for s in (0.4, 59.6, 61, 3725)] == ["0 s", "1 min 0 s", "1 min 1 s", "1 h 2 min"]
