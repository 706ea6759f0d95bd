"""Runs on a Dask cluster of real processes, which all tests here share."""

import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from conftest import make_case
from dask_board import MemoryBoard
from test_isolation import wait_until

from capsbench.cli import main
from capsbench.errors import Unavailable
from capsbench.record.store import create, open_run
from capsbench.runner.dask import dispatch
from capsbench.runner.dask.clusters import Reached, reached
from capsbench.runner.dask.dispatch import run_on_dask

pytest.importorskip("distributed")

SUITE = """\
name: tests
dataset: {name: mnist, train_limit: 40}
networks: [linear.yaml]
backends: ["fake:fast"]
batch: [8]
device: cpu
threads: 1
measure: [parity, memory, ops, accuracy]
"""


@pytest.fixture(scope="module")
def cluster():
    """Two workers of one thread each."""
    with reached("local:2", [make_case()]) as found:
        yield found


@pytest.fixture
def run(cluster, mnist_root, tmp_path):
    """A function that runs cases on the cluster; (run's folder, board)."""

    def run(*cases, at=cluster, board=None, root=mnist_root, store=None):
        store, board = store or create(tmp_path / "results", {}), board or MemoryBoard()
        run_on_dask(cases, cluster=at, data_root=root, cache=tmp_path, store=store, listener=board)
        return store, board

    return run


def capsbench_workers():
    """The processes in which cases run, below this one."""
    below = psutil.Process().children(recursive=True)
    return [process for process in below if "capsbench.worker" in " ".join(_command(process))]


def _command(process):
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def worker_of(case):
    """The process in which a case runs, once it does."""
    for process in capsbench_workers():
        with suppress(psutil.Error):
            if process.environ().get("FAKE_MODE") == case.mode:
                return process
    return None


def once_it_runs(act):
    """A listener's function that acts on the process of a case as soon as there is one, from another thread."""

    def wait(case):
        if wait_until(lambda: worker_of(case) is not None):
            act(worker_of(case))

    return lambda _worker, case: threading.Thread(target=wait, args=(case,)).start()


def timeless(record):
    """What of a record must not depend on where and when it was measured."""
    exact = {name: metric for name, metric in record.metrics.items() if metric.kind == "exact"}
    ops = [(event.op, event.layer, event.phase, event.calls, event.allocated_bytes) for event in record.ops]
    return (record.case, record.status, record.reason, record.parity, exact, ops, record.data, record.fingerprint)


def test_a_whole_run_equals_that_of_this_machine(cluster, mnist_root, tmp_path, monkeypatch, capsys):
    """From the command line to the tables: same records in all that is exact, same notes, same files."""
    shutil.copy(Path(__file__).parents[1] / "fake" / "linear.yaml", tmp_path)
    (tmp_path / "suite.yaml").write_text(SUITE, encoding="utf-8")
    found = []
    for options in ((), ("--executor", "dask", "--cluster", cluster.address)):
        folder = tmp_path / f"results{len(options)}"
        arguments = ["run", tmp_path / "suite.yaml", "--no-figures", "--data", mnist_root, "--results", folder]
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupt_ends_what_runs(run, tmp_path, number):
    """Who interrupts the run has no worker of it left anywhere, and goes on with what has ended."""
    hung = make_case("hang", measure=("memory",))
    board = MemoryBoard(on={(hung.id, "check"): once_it_runs(lambda _process: os.kill(os.getpid(), number))})
    store = create(tmp_path / "results", {})
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as end:
        run(hung, board=board, store=store)
    assert number == signal.SIGINT or end.value.code == 128 + number
    assert wait_until(lambda: worker_of(hung) is None)
    assert store.finished() == set()


def test_workers_are_deaf_to_a_terminal(cluster):
    """Ctrl-C reaches the process that keeps the run only; Dask's workers would print a traceback each."""
    below = psutil.Process().children(recursive=True)
    stations = [process.pid for process in below if "spawn_main" in " ".join(_command(process))]
    assert len(stations) == 2
    for pid in stations:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert int(status["SigBlk"], 16) & 1 << signal.SIGINT - 1


def test_what_no_worker_takes_is_a_record(run, cluster, tmp_path, monkeypatch):
    """Too many threads, no data: each case says what the workers lack, and one that could run elsewhere may."""
    monkeypatch.setattr(dispatch, "JOIN_SECONDS", 0.0)
    cases = make_case(threads=3, id="wide", measure=("memory",)), make_case(id="data", seed=1)
    store, _ = run(*cases, at=Reached(cluster.address, None, here=False), root=tmp_path / "nowhere")
    ended = {record.case.id: (record.status, record.reason) for record in store.records()}
    assert ended["wide"] == (
        "unsupported",
        "no worker takes the case: 0 has 1 thread, and 3 are asked for; 1 has 1 thread, and 3 are asked for",
    )
    status, reason = ended["data"]
    assert status == "crash"
    assert re.fullmatch(r"no worker takes the case: (. cannot use the data set: no folder .*mnist.*){2}", reason)
    assert store.finished() == {"wide"}


class Wire:
    """A port of this machine that leads to another, until it is cut."""

    def __init__(self, address):
        self._there = address.removeprefix("tcp://").split(":")
        self._ends = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *_arguments):
        """Close everything."""
        self._close(self._listener)
        for end in self._ends:
            self._close(end)

    def _accept(self):
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._there)
                self._ends += near, far
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source, sink):
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        self._close(source)
        self._close(sink)

    @staticmethod
    def _close(end):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


def test_a_scheduler_that_goes_ends_the_run(run, cluster, tmp_path, monkeypatch):
    """The case that ran has no record, so that it is run again when the run is taken up."""
    monkeypatch.setattr(dispatch, "_SECONDS_BETWEEN_LOOKS", 0.1)
    monkeypatch.setattr(dispatch, "_ANSWER_SECONDS", 0.5)
    case = make_case("steady", measure=("accuracy",))
    wire, store = Wire(cluster.address), create(tmp_path / "results", {})
    board = MemoryBoard(on={(case.id, "accuracy"): wire.cut})
    with pytest.raises(Unavailable, match="has gone"):
        run(case, at=Reached(wire.address, None, here=False), board=board, store=store)
    assert list(store.records()) == []
