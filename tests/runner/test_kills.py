"""A sweep that is killed again and again loses nothing, repeats nothing, and ends as if nobody had touched it."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
from conftest import make_case
from recorder import Recorder
from waiting import PATIENCE_SECONDS, wait_until

from capsbench.runner.schedule import run_cases
from capsbench.store.run import RunStore
from capsbench.store.runs import create
from capsbench.suite.schema import TimeChoice, TrainChoice

# The campaign of docs/reliability.md asks for more.
KILLS = int(os.environ.get("CAPSBENCH_KILLS", "4"))
SEED = int(os.environ.get("CAPSBENCH_KILLS_SEED", "0"))

PARENT = """
import sys
from pathlib import Path
sys.path[:0] = [{runner!r}, {tests!r}]
from test_kills import sweep
sweep(Path({folder!r}), Path({root!r}))
"""


def cases():
    """Enough of them that none but the last kill meets a finished sweep; two modes take turns."""
    cheap = {"time": TimeChoice(rounds=1, min_samples=1, max_seconds=0.1), "train": TrainChoice(epochs=2)}
    return [make_case(mode, seed=seed, **cheap) for seed in range(2 + KILLS // 10) for mode in ("fast", "noisy")]


def sweep(folder, root):
    """Run what a run's folder does not know as finished."""
    store = RunStore(folder)
    with store.writing():
        run_cases(cases(), data_root=root, cache=None, store=store, listener=Recorder())


class Sweeps:
    """Sweeps in processes of their own, one after the other in the same folder."""

    def __init__(self, folder, root, environment):
        runner = Path(__file__).parent
        names = {"runner": str(runner), "tests": str(runner.parent), "folder": str(folder), "root": str(root)}
        self._command = [sys.executable, "-c", PARENT.format(**names)]
        self._environment = environment
        self._errors = folder.parent / "stderr.txt"
        self.process = None

    def start(self):
        """A new one, unless one is running."""
        if self.process is None or self.process.poll() is not None:
            with self._errors.open("ab") as errors:
                self.process = subprocess.Popen(self._command, env=self._environment, stderr=errors)

    def finish(self):
        """Wait until one has ended by itself."""
        self.start()
        assert self.process.wait(PATIENCE_SECONDS) == 0, self._errors.read_text(encoding="utf-8")

    def workers(self):
        """Its workers that run now."""
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children()
            return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
        return []

    def kill(self, *, parent):
        """SIGKILL to the sweep, or to its worker; whether there was one."""
        if parent:
            found = self.process.poll() is None
            self.process.kill()
            self.process.wait(PATIENCE_SECONDS)
            return found
        for worker in self.workers():
            with suppress(psutil.NoSuchProcess):
                worker.kill()
                return True
        return False


def wait_for_moment(chance, sweeps, database):
    """Until a worker runs and some time has passed, or just when a record is being written."""
    assert wait_until(lambda: sweeps.workers() or sweeps.process.poll() is not None), "no worker came"
    until = time.monotonic() + chance.uniform(0.0, 0.8)
    size = _size(database)
    watching = chance.random() < 0.3
    while time.monotonic() < until and not (watching and _size(database) != size):
        time.sleep(0.0005 if watching else 0.01)


def _size(path):
    return path.stat().st_size if path.exists() else 0


def exact(record):
    """Everything of a record that repeats to the last digit."""
    metrics = {name: metric.value for name, metric in record.metrics.items() if metric.kind == "exact"}
    calls = Counter((event.op, event.layer, event.phase, event.allocated_bytes) for event in record.ops)
    return record.status, metrics, calls, record.parity, record.data, record.equations, record.fingerprint


def test_killed_again_and_again(mnist_root, tmp_path, capsbench_environment):
    """After any number of SIGKILLs to sweep and workers, each case has one record, as from an undisturbed sweep."""
    began, chance = time.monotonic(), random.Random(SEED)  # noqa: S311 - it guards no secret
    store = create(tmp_path / "results", {})
    sweeps, database = Sweeps(store.folder, mnist_root, capsbench_environment), store.folder / "run.sqlite"
    kills, written = Counter(), {}
    try:
        while kills.total() < KILLS:
            sweeps.start()
            wait_for_moment(chance, sweeps, database)
            parent = chance.random() < 0.5
            kills[parent] += sweeps.kill(parent=parent)
            now = {each.case.id: exact(each) for each in store.records() if each.status != "crash"}
            assert now | written == now, "what was recorded has changed"
            written = now
        until = time.monotonic() + PATIENCE_SECONDS
        while store.finished() != {case.id for case in cases()} and time.monotonic() < until:
            sweeps.finish()
    finally:
        sweeps.process.kill()
    ended = [record for record in store.records() if record.status != "crash"]
    assert Counter(record.case.id for record in ended) == Counter(case.id for case in cases())
    assert all(record.status == "ok" for record in ended)
    assert not [path for path in store.folder.rglob("*.tmp") if path.is_file()]
    undisturbed = create(tmp_path / "undisturbed", {})
    run_cases(cases(), data_root=mnist_root, cache=None, store=undisturbed, listener=Recorder())
    assert {record.case.id: exact(record) for record in ended} == {
        record.case.id: exact(record) for record in undisturbed.records()
    }
    told = f"{kills[True]} sweeps and {kills[False]} workers killed, damaged lines {store.damaged_lines}"
    print(f"{told}, {time.monotonic() - began:.0f} s")  # noqa: T201 - for who asks with -s
