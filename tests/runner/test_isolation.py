import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from recorder import MemoryStore, Recorder
from waiting import PATIENCE_SECONDS, wait_until

from capsbench.runner import launch
from capsbench.runner.launch import Worker, describe_signal, receive
from capsbench.runner.schedule import run_cases
from capsbench.store.run import RunStore
from capsbench.store.runs import create
from capsbench.suite.schema import LimitChoice
from capsbench.worker.limits import Limits
from capsbench.worker.messages import CheckJob, Place, ProbeJob


def is_running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def pid_file(tmp_path, monkeypatch):
    """Where a hanging worker writes its own process id and its child's."""
    monkeypatch.setenv("FAKE_PID_FILE", str(tmp_path / "pids"))
    return tmp_path / "pids"


@pytest.fixture
def hours_pass(pid_file, monkeypatch):
    """To whoever looks at a worker's time, hours have passed once it hangs."""

    def monotonic():
        return time.monotonic() + (10_000.0 if pid_file.exists() else 0.0)

    monkeypatch.setattr(launch, "time", SimpleNamespace(monotonic=monotonic, sleep=time.sleep))


def run_one(case, root, tmp_path):
    store = MemoryStore(tmp_path / "artifacts")
    run_cases([case], data_root=root, cache=tmp_path, store=store, listener=Recorder())
    (record,) = store.records
    return record


@pytest.mark.usefixtures("hours_pass")
def test_a_hanging_case_times_out(make_case, mnist_root, tmp_path, pid_file):
    """A case over its time is stopped with all it has started; what it sent before stays."""
    case = make_case("hang", measure=("parity", "memory"))
    record = run_one(case, mnist_root, tmp_path)
    assert (record.status, record.reason) == ("timeout", "stopped after the limit of 600 seconds")
    assert record.metrics["parameters"].value > 0
    pids = [int(pid) for pid in pid_file.read_text(encoding="ascii").split()]
    assert len(pids) == 2
    assert wait_until(lambda: not any(is_running(pid) for pid in pids))


@pytest.mark.usefixtures("hours_pass")
def test_a_case_that_hangs_in_native_code_times_out(make_case, mnist_root, tmp_path, pid_file):
    """The limit holds for code that never comes back to the interpreter."""
    case = make_case("native-hang", measure=("memory",))
    record = run_one(case, mnist_root, tmp_path)
    assert (record.status, record.reason) == ("timeout", "stopped after the limit of 600 seconds")
    assert wait_until(lambda: not is_running(int(pid_file.read_text(encoding="ascii"))))


def test_garbage_on_the_message_pipe_is_no_message(make_case, mnist_root, tmp_path):
    """What a broken framework writes between messages is kept for whoever looks, and changes nothing."""
    assert run_one(make_case("garbage", measure=("memory",)), mnist_root, tmp_path).status == "ok"


def test_a_message_without_an_end_is_cut_off(make_case, mnist_root, tmp_path):
    """A worker that sends for ever ends its case, not the parent's memory."""
    record = run_one(make_case("endless", measure=("memory",)), mnist_root, tmp_path)
    assert (record.status, record.reason) == ("crash", "the worker sent 64 MiB without an end of line")


def test_a_worker_that_cannot_start_fails_its_case(make_case, mnist_root, tmp_path, monkeypatch):
    """A system that has no room for one more process costs the case, not the run."""
    store = MemoryStore(tmp_path / "artifacts")
    cases = [make_case(measure=("memory",)), make_case(batch=4, measure=("memory",))]
    real, calls = launch.subprocess.Popen, []

    def fork(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real(*arguments, **options)

    monkeypatch.setattr(launch.subprocess, "Popen", fork)
    run_cases(cases, data_root=mnist_root, cache=tmp_path, store=store, listener=Recorder())
    first, second = store.records
    assert (first.status, first.reason) == (
        "crash",
        "no worker could be started: Resource temporarily unavailable",
    )
    assert second.status == "ok"


def test_a_worker_killed_at_the_data_costs_their_cases(make_case, mnist_root, tmp_path, monkeypatch):
    """The system kills whoever reads the data: their cases crash, to be run again; nobody says the data were bad."""
    real = launch.Worker.messages

    def messages(self):
        os.kill(self.pid, signal.SIGKILL)
        return real(self)

    monkeypatch.setattr(launch.Worker, "messages", messages)
    record = run_one(make_case(measure=("memory",)), mnist_root, tmp_path)
    assert record.status == "crash"
    assert record.reason.startswith("the data could not be read: killed by signal 9")


def test_a_worker_in_native_code_does_not_outlive_its_parent(make_case, mnist_root, pid_file):
    """When the parent is gone, so is a worker that holds the interpreter and never looks."""
    job = CheckJob(case=make_case("native-hang", measure=("memory",)), place=Place(data_root=str(mnist_root)))
    with Worker(job, {}, Limits()) as worker:
        assert wait_until(pid_file.exists)
        worker._process.stdin.close()  # as the kernel does when the parent is killed
        assert wait_until(lambda: not is_running(worker.pid))


def test_a_case_over_its_memory_is_stopped(make_case, mnist_root, tmp_path):
    """Resident memory over the limit ends the case as out of memory, with both figures."""
    case = make_case("hog", limits=LimitChoice(seconds=600.0, memory="250MiB"), measure=("memory",))
    record = run_one(case, mnist_root, tmp_path)
    assert record.status == "oom"
    assert record.reason.endswith("MiB resident; the limit is 250 MiB")


def test_stderr_is_bounded(make_case, mnist_root, tmp_path):
    """However much a worker prints, the parent keeps the end of it only, and hears every message."""
    (tmp_path / "sitecustomize.py").write_text("import os; os.write(2, b'x' * 300_000 + b'the end')", encoding="ascii")
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    with Worker(ProbeJob(backend="fake"), environment) as worker:
        received = receive(worker)
    assert received.done.status == "ok"
    assert len(received.stderr) == 64 * 1024
    assert received.stderr.endswith("the end")


def test_leaving_the_worker_ends_it(make_case, mnist_root, pid_file):
    """A parent that stops listening, for whatever reason, leaves neither worker nor grandchild behind."""
    job = CheckJob(case=make_case("hang", measure=("memory",)), place=Place(data_root=str(mnist_root)))
    with Worker(job, {}, Limits()) as worker:
        assert wait_until(pid_file.exists)
    pids = [int(pid) for pid in pid_file.read_text(encoding="ascii").split()]
    assert worker.pid in pids
    assert wait_until(lambda: not any(is_running(pid) for pid in pids))


def test_lines_are_put_together(make_case, mnist_root, monkeypatch):
    """However the pipe cuts them, messages arrive whole."""
    job = CheckJob(case=make_case("noisy", measure=("memory",)), place=Place(data_root=str(mnist_root)))
    with Worker(job, {}) as worker:
        whole = receive(worker)
    monkeypatch.setattr(launch, "_CHUNK_BYTES", 7)
    with Worker(job, {}) as worker:
        assert receive(worker) == whole
    assert whole.done.status == "ok"
    assert {type(part).__name__ for part in whole.parts} == {"ProbePart", "MetricsPart", "EquationsPart"}
    assert any("peak_bytes" in getattr(part, "metrics", ()) for part in whole.parts)


def test_signals_have_names():
    """A killing signal is named, and the usual suspect for number 9 too."""
    assert describe_signal(signal.SIGSEGV) == "killed by signal 11 (SIGSEGV)"
    assert "out of memory" in describe_signal(signal.SIGKILL)
    assert describe_signal(200) == "killed by signal 200 (unknown)"


PARENT = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {runner!r}]
from conftest import make_case
from recorder import Recorder
from capsbench.store.run import RunStore
from capsbench.runner.schedule import run_cases

cases = [make_case("fast", measure=("parity",)), make_case("hang", measure=("memory",), batch=4)]
store = RunStore(Path({folder!r}))
run_cases(cases, data_root=Path({root!r}), cache=None, store=store, listener=Recorder())
"""


@pytest.fixture
def parent(mnist_root, tmp_path, pid_file, capsbench_environment, default_signals):
    """A parent process that has finished one case and hangs in the next: (process, store, worker's process ids)."""
    store = create(tmp_path / "results", {})
    tests = Path(__file__).parent.parent
    code = PARENT.format(tests=str(tests), runner=str(tests / "runner"), folder=str(store.folder), root=str(mnist_root))
    environment = {**capsbench_environment, "FAKE_PID_FILE": str(pid_file)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE) as process:
        try:
            assert wait_until(pid_file.exists), "it never hung"
            yield process, store, [int(pid) for pid in pid_file.read_text(encoding="ascii").split()]
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_an_interrupted_run_is_a_valid_run(parent, number):
    """However the parent ends, no worker outlives it, the finished case is on disk, and the other is still to run."""
    process, store, pids = parent
    process.send_signal(number)
    code = process.wait(PATIENCE_SECONDS)
    assert code == {signal.SIGINT: -signal.SIGINT, signal.SIGTERM: 128 + 15, signal.SIGKILL: -9}[number]
    assert wait_until(lambda: not any(is_running(pid) for pid in pids))
    stored = RunStore(store.folder)
    (record,) = stored.records()
    assert (record.case.mode, record.status) == ("fast", "ok")
    assert stored.damaged_lines == ()
    assert stored.finished() == {record.case.id}
