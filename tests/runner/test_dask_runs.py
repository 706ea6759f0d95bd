"""Runs on Dask clusters of real processes; most tests share one of two workers."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress

import psutil
import pytest
from conftest import FAKE, make_case, write_mnist
from dask_board import MemoryBoard
from waiting import wait_until

from capsbench.cli import main
from capsbench.runner.dask import dispatch
from capsbench.runner.dask.clusters import Cluster, open_cluster
from capsbench.runner.dask.dispatch import run_on_dask
from capsbench.store.runs import create, open_run
from capsbench.worker.checkpoint import CHECKPOINT

pytest.importorskip("distributed")

SUITE = """\
name: tests
dataset: {{name: mnist, train_limit: 40}}
networks: [linear.yaml]
backends: [{backends}]
batch: [{batch}]
device: cpu
threads: 1
measure: [{measure}]
"""


@pytest.fixture(scope="module")
def pid_file(tmp_path_factory):
    """Where cases of the cluster that hang write their process ids."""
    return tmp_path_factory.mktemp("hanging") / "pids"


@pytest.fixture(scope="module")
def cluster(pid_file):
    """Two workers of one thread each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_PID_FILE", str(pid_file))
        with open_cluster("local:2", [make_case()]) as found:
            yield found


@pytest.fixture
def run(cluster, mnist_root, tmp_path):
    """A function that runs cases on the cluster; (run's folder, board)."""

    def run(*cases, at=cluster, board=None, root=mnist_root, store=None):
        store, board = store or create(tmp_path / "results", {}), board or MemoryBoard()
        run_on_dask(cases, cluster=at, data_root=root, cache=tmp_path, store=store, listener=board)
        return store, board

    return run


@pytest.fixture
def suite(tmp_path):
    """A function that writes a suite, with its network beside it; its path."""

    def write(backend, measure="memory", batch=8):
        shutil.copy(FAKE / "linear.yaml", tmp_path)
        path = tmp_path / f"b{batch}.yaml"
        path.write_text(SUITE.format(backends=json.dumps(backend), measure=measure, batch=batch), encoding="utf-8")
        return path

    return write


@pytest.fixture
def start(capsbench_environment, default_signals):
    """A function that starts `python -m MODULE ARGUMENTS` in a process group of its own, as a terminal does.

    Its standard error is a pipe; the group is killed at the end.
    """
    with ExitStack() as stack:

        def start(*arguments, **environment):
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", *map(str, arguments)],
                    stderr=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    text=True,
                    env={**capsbench_environment, **environment},
                    start_new_session=True,
                )
            )
            stack.callback(_kill_group, process.pid)
            return process

        yield start


def _kill_group(number):
    with suppress(ProcessLookupError):
        os.killpg(number, signal.SIGKILL)


def lines_until(process, pattern):
    """Read what a process writes to standard error up to a line with the pattern; all of it."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if re.search(pattern, line):
            return "".join(lines)
    raise AssertionError(f"ended without {pattern!r}: {''.join(lines)}")


def processes_with(name, value):
    """The processes of cases that have a value in their environment."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(name) == value and "capsbench.worker" in " ".join(process.cmdline()):
                yield process


def once_it_runs(act):
    """A listener's function that acts on the process of a case as soon as there is one, from another thread."""

    def wait(case):
        if wait_until(lambda: any(processes_with("FAKE_MODE", case.mode))):
            act(next(processes_with("FAKE_MODE", case.mode)))

    return lambda _worker, case: threading.Thread(target=wait, args=(case,)).start()


def timeless(record):
    """What of a record must not depend on where and when it was measured."""
    exact = {name: metric for name, metric in record.metrics.items() if metric.kind == "exact"}
    ops = [(event.op, event.layer, event.phase, event.calls, event.allocated_bytes) for event in record.ops]
    return (record.case, record.status, record.reason, record.parity, exact, ops, record.data, record.fingerprint)


def test_a_whole_run_equals_that_of_this_machine(cluster, suite, mnist_root, tmp_path, monkeypatch, capsys):
    """From the command line to the tables: same records in all that is exact, same notes, same files."""
    path = suite("fake:fast", measure="parity, memory, ops, accuracy")
    found = []
    for options in ((), ("--executor", "dask", "--cluster", cluster.address)):
        folder = tmp_path / f"results{len(options)}"
        arguments = ["run", path, "--no-figures", "--data", mnist_root, "--results", folder]
        monkeypatch.setattr(sys, "argv", ["capsbench", *map(str, arguments), *options])
        assert main() == 0
        out, err = capsys.readouterr()
        assert "Accuracy" in out
        assert "distributed" not in err
        store = open_run(folder, "latest")
        records = sorted(store.records(), key=lambda record: record.case.id)
        files = {
            record.case.id: sorted(path.name for path in store.artifacts(record.case.id).iterdir())
            for record in records
        }
        history = [json.loads(path.read_text()) for path in store.folder.glob("artifacts/*/history.json")]
        losses = [[epoch["losses"] for epoch in each["epochs"]] for each in history]
        found.append(([timeless(record) for record in records], [set(r.notes) for r in records], files, losses))
    assert found[0] == found[1]
    assert [status for _, status, *_ in found[0][0]] == ["ok"]
    assert "parameters.safetensors" in str(found[0][2])


def test_lost_workers_cost_no_record(run):
    """A case that kills three workers is a crash that names them; what was compared with it ends as if it were not."""
    early, doomed, late = (make_case(mode, measure=("memory",)) for mode in ("oom", "hang", "steady"))
    board = MemoryBoard(on={(doomed.id, "check"): once_it_runs(lambda process: process.parent().kill())})
    gpu = make_case(device="cuda:1", id="gpu", measure=("memory",))
    store, _ = run(early, doomed, late, gpu, board=board)
    outcomes = [(record.case.id, record.status) for record in store.records()]
    assert sorted(outcomes) == sorted(
        [(early.id, "oom"), (late.id, "ok"), (doomed.id, "crash"), (gpu.id, "unsupported")]
    )
    assert board.workers[gpu.id] == {"0"}  # the first of the workers here declares the resource GPU
    assert sorted(board.ended) == sorted(case for case, _ in outcomes)
    reason = next(record.reason for record in store.records() if record.case.id == doomed.id)
    assert reason.startswith("no worker finished the case: ")
    assert reason.count(" at tcp://") == 3
    assert store.finished() == {early.id, late.id, gpu.id}


def test_a_checkpoint_goes_to_the_worker_and_comes_back(run, tmp_path):
    """A training is resumed wherever its group is sent, and its checkpoint is kept while it goes on there."""
    case, store = make_case(measure=("accuracy",)), create(tmp_path / "results", {})
    kept = store.artifacts(case.id) / CHECKPOINT
    kept.write_bytes(b"how far it was")
    board = MemoryBoard(on={(case.id, "check"): lambda *_: kept.unlink(missing_ok=True)})
    run(case, board=board, store=store)
    assert kept.read_bytes() == b"how far it was"


def test_a_worker_that_lives_on_describes_changed_data_anew(run, cluster, tmp_path):
    """What a worker knows of a data set is forgotten when a file of it changes."""
    root, hashes = write_mnist(tmp_path / "data"), []
    labels = root / "mnist" / "t10k-labels-idx1-ubyte"
    for flip in (0, 1):
        content = labels.read_bytes()
        labels.write_bytes(content[:-1] + bytes([content[-1] ^ flip]))
        for _ in range(2):  # two workers
            store, _ = run(make_case(measure=("memory",)), at=Cluster(cluster.address), root=root)
            [record] = store.records()
            hashes.append(record.data["test"].sha256)
    assert hashes[0] == hashes[1]
    assert hashes[2] == hashes[3]
    assert hashes[0] != hashes[2]


@pytest.mark.parametrize(
    ("where", "kill", "number", "code"),
    [
        ("local:1", os.killpg, signal.SIGINT, 130),  # a terminal sends Ctrl-C to the workers, too
        ("running", os.kill, signal.SIGTERM, 143),
        ("running", os.kill, signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_a_run_that_ends_early_keeps_what_has_ended(
    start, suite, cluster, pid_file, mnist_root, tmp_path, where, kill, number, code
):
    """Its first record came while it ran, no case of it runs on, and it says how to resume where it still can."""
    results, pid_file = tmp_path / "results", pid_file if where == "running" else tmp_path / "pids"
    pid_file.unlink(missing_ok=True)
    options = ["--executor", "dask", "--cluster", cluster.address if where == "running" else where]
    options += ["--data", mnist_root, "--results", results]
    suites = suite("fake:fast"), suite("fake:hang", batch=4)
    run = start("capsbench", "run", *suites, *options, FAKE_PID_FILE=str(pid_file))
    lines_until(run, " ok .*fake-fast")
    assert wait_until(pid_file.exists)
    kill(run.pid, number)
    _, err = run.communicate()
    assert run.returncode == code
    store = open_run(results, "latest")
    assert [record.status for record in store.records()] == ["ok"]
    if number != signal.SIGKILL:
        assert err.endswith(f"what has ended is in {store.folder}, go on with --resume {store.run_id}\n")
        assert "Traceback" not in err
    assert wait_until(lambda: not any(processes_with("FAKE_PID_FILE", str(pid_file))))


def test_a_run_waits_for_workers_and_ends_with_its_scheduler(start, suite, mnist_root, tmp_path):
    """It says that it waits for a worker; when the scheduler is killed, it says so, and the worker stops its case."""
    results, pid_file, quiet = tmp_path / "results", tmp_path / "pids", "--no-dashboard"
    scheduler = start("distributed.cli.dask_scheduler", "--port", 0, "--host", "127.0.0.1", quiet)
    address = re.search(r"tcp://\S+", lines_until(scheduler, "Scheduler at:")).group()
    options = ["--data", mnist_root, "--results", results, "--executor", "dask", "--cluster", address]
    run = start("capsbench", "run", suite("fake:fast"), suite("fake:hang", batch=4), *options)
    lines_until(run, f"waiting for a worker to join the cluster {address}")
    options = ["--nthreads", 1, "--local-directory", tmp_path, quiet]
    start("distributed.cli.dask_worker", address, *options, FAKE_PID_FILE=str(pid_file))
    lines_until(run, " ok .*fake-fast")
    assert wait_until(pid_file.exists)
    scheduler.kill()
    _, err = run.communicate()
    assert run.returncode == 69
    store = open_run(results, "latest")
    assert err.endswith(
        f"capsbench: the Dask scheduler at {address} has gone; what has ended is in {store.folder}, "
        f"go on with --resume {store.run_id}\n"
    )
    assert "Traceback" not in err
    assert [record.status for record in store.records()] == ["ok"]
    assert wait_until(lambda: not any(processes_with("FAKE_PID_FILE", str(pid_file))))


class Relay:
    """A port of this machine that leads to another; what goes through it can be cut."""

    def __init__(self, address):
        self._there = address.removeprefix("tcp://").split(":")
        self._ends = []
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self):
        """Close every connection; new ones are taken."""
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener):
        while True:
            near, far = listener.accept()[0], socket.create_connection(self._there)
            self._ends += near, far
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source, sink):
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_a_run_outlives_its_connection_to_the_scheduler(run, cluster):
    """A group that runs while the connection breaks is lost and tried again, with its progress, over a new one."""
    case, relay = make_case(measure=("memory",)), Relay(cluster.address)
    cuts = iter([relay.cut])
    board = MemoryBoard(on={(case.id, "check"): lambda *_: next(cuts, lambda: None)()})
    store, _ = run(case, at=Cluster(relay.address), board=board)
    assert [record.status for record in store.records()] == ["ok"]
    assert board.workers[case.id] == {"0", "1"}  # the second attempt was at another worker


def test_what_no_worker_takes_is_a_record(run, cluster, tmp_path, monkeypatch):
    """Too many threads, no data: each case says what the workers lack, and one that could run elsewhere may."""
    monkeypatch.setattr(dispatch, "JOIN_SECONDS", 0.0)
    cases = make_case(threads=3, id="wide", measure=("memory",)), make_case(id="data", seed=1)
    store, _ = run(*cases, at=Cluster(cluster.address), root=tmp_path / "nowhere")
    ended = {record.case.id: (record.status, record.reason) for record in store.records()}
    assert ended["wide"] == (
        "unsupported",
        "no worker takes the case: 0 has 1 thread, and 3 are asked for; 1 has 1 thread, and 3 are asked for",
    )
    status, reason = ended["data"]
    assert status == "crash"
    assert re.fullmatch(r"no worker takes the case: (. cannot use the data set: no folder .*mnist.*){2}", reason)
    assert store.finished() == {"wide"}
