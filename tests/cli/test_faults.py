"""Whole runs in processes of their own, on disks that fill up or turn read-only, ended by signals, two at once."""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from waiting import PATIENCE_SECONDS, wait_until

from capsbench.record.codec import encode
from capsbench.store.run import RunStore
from capsbench.store.runs import all_runs, create

LINEAR = Path(__file__).parents[1] / "fake" / "linear.yaml"
SUITE = """\
name: tests
dataset: {name: mnist, train_limit: 40}
networks: [linear.yaml]
backends: [MODES]
batch: [8]
seeds: [0, 1]
device: cpu
threads: 1
measure: [parity, accuracy]
"""
_IN_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


def can_mount():
    """Whether this system lets anybody mount a file system of their own."""
    if shutil.which("unshare") is None:
        return False
    command = [*_IN_NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


needs_mount = pytest.mark.skipif(not can_mount(), reason="no file system can be mounted here without rights")


@pytest.fixture
def gate(tmp_path, capsbench_environment):
    """The file that the mode `gated` waits for in its training."""
    capsbench_environment["FAKE_GATE"] = str(tmp_path / "gate")
    return tmp_path / "gate"


@pytest.fixture
def start(mnist_root, tmp_path, capsbench_environment):
    """A function that starts `capsbench run` of some modes of the fake backend; results are in `results`."""
    started = []

    def start(modes="fast", *more, before=()):
        folder = tmp_path / "suite"
        folder.mkdir(exist_ok=True)
        shutil.copy(LINEAR, folder)
        (folder / "suite.yaml").write_text(
            SUITE.replace("MODES", ", ".join(f"fake:{mode}" for mode in modes.split())), encoding="utf-8"
        )
        run = [sys.executable, "-P", "-m", "capsbench", "run", str(folder / "suite.yaml"), "--no-figures"]
        where = ["--data", str(mnist_root), "--results", str(tmp_path / "results")]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([*before, *run, *where, *more], env=capsbench_environment, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def end(process):
    """How a process ended, and what it said on stderr, unwrapped."""
    try:
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
    return process.returncode, " ".join(err.split())


def wait_for_records(results, count):
    """The only run, once it has so many records."""
    assert wait_until(lambda: any(len(list(run.records())) >= count for run in all_runs(results))), "no record came"
    return all_runs(results)[-1]


def statuses(store):
    """How often each case has ended in which way."""
    return Counter((record.case.seed, record.status) for record in store.records())


ALL_OK = Counter({(0, "ok"): 1, (1, "ok"): 1})
# Where one case does as well as two.
ONE, ONE_OK = ("--only", "*.s0-*"), Counter({(0, "ok"): 1})
# One case that ends, and one that waits in its training until there is a gate.
TWO_MODES, BOTH_OK = ("fast gated", *ONE), Counter({(0, "ok"): 2})

FULL = """
mount -t tmpfs -o size={size}k tmpfs "$RESULTS"
"$@"; echo "code $?" >&2
cp -a "$RESULTS" "$KEPT"
mount -t tmpfs -o remount,size=64m tmpfs "$RESULTS"
"$@" --resume latest; code=$?
cp -a "$RESULTS/." "$KEPT/after"
exit $code
"""


@needs_mount
@pytest.mark.parametrize(
    ("size", "code_when_full"),
    [
        pytest.param(4096 + 64, 2, marks=pytest.mark.exhaustive, id="no files"),
        pytest.param(4096 + 96 + 40, 74, id="no record"),
    ],
)
def test_a_full_disk(start, tmp_path, size, code_when_full):
    """On a disk that fills up the run ends in words and keeps every record that it has; with room, it goes on."""
    (tmp_path / "results").mkdir()
    code, err = _inside(start, tmp_path, FULL.format(size=size))
    assert code == 0, err
    (before,) = all_runs(tmp_path / "kept")
    (after,) = all_runs(tmp_path / "kept" / "after")
    kept = [record for record in before.records() if record.status != "crash"]
    assert set(map(encode, kept)) <= set(map(encode, after.records()))
    assert f"code {code_when_full}" in err
    held = "No space left on device; the last record went into room held for it; what has ended is in"
    assert (held in err) == (code_when_full == 74)
    crashed = [record.reason for record in before.records() if record.status == "crash"]
    assert crashed or code_when_full == 74
    assert all("No space left on device" in reason for reason in crashed)
    assert sum(statuses(before).values()) >= 1
    assert Counter({case: n for case, n in statuses(after).items() if case[1] != "crash"}) == ALL_OK
    assert before.damaged_lines == after.damaged_lines == ()
    assert "Traceback" not in err


READ_ONLY = r"""
"$@" & run=$!
until grep -q '\.s[0-9]-' "$RESULTS"/runs/*/run.sqlite 2>/dev/null; do sleep 0.02; done
mount --bind "$RESULTS" "$RESULTS"
mount -o remount,bind,ro "$RESULTS"
touch "$FAKE_GATE"
wait $run
"""


@needs_mount
@pytest.mark.usefixtures("gate")
def test_results_that_turn_read_only(start, tmp_path):
    """A folder that turns read-only under a run ends it in words; what was recorded stays, the rest runs later."""
    (tmp_path / "results").mkdir()
    code, err = _inside(start, tmp_path, READ_ONLY, *TWO_MODES)
    assert code == 74
    assert "Read-only file system; what has ended is in" in err
    assert "Traceback" not in err
    (run,) = all_runs(tmp_path / "results")
    kept = list(run.records())
    assert kept
    assert end(start(*TWO_MODES, "--resume", run.run_id))[0] == 0
    assert list(run.records())[: len(kept)] == kept
    assert statuses(run) == BOTH_OK


def _inside(start, tmp_path, script, *what):
    """Run a script in a mount namespace of its own, with the run's command as its arguments and `$RESULTS`."""
    head = f'RESULTS="{tmp_path / "results"}" KEPT="{tmp_path / "kept"}"\n'
    return end(start(*what, before=[*_IN_NAMESPACE, "sh", "-c", head + script, "sh"]))


def test_a_disk_that_is_full_from_the_start(tmp_path):
    """Where not even the held room fits, the run does not begin."""
    store = create(tmp_path, {})
    (store.folder / ".reserve").symlink_to("/dev/full")
    with pytest.raises(Exception, match=r"cannot write to .*"), store.writing():
        pass


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.exhaustive, id="INT"),
        pytest.param(signal.SIGTERM, 143, id="TERM"),
        pytest.param(signal.SIGHUP, 129, id="HUP"),
    ],
)
@pytest.mark.usefixtures("default_signals")
def test_a_signal_ends_a_run_in_order(start, gate, tmp_path, number, code):
    """Whoever asks for the end gets it at once, with a sentence that resumes; the resumed run is whole."""
    process = start(*TWO_MODES)
    run = wait_for_records(tmp_path / "results", 1)
    process.send_signal(number)
    ended, err = end(process)
    assert ended == code
    assert f"go on with --resume {run.run_id}" in err
    assert "Traceback" not in err
    assert statuses(run) == ONE_OK
    if number == signal.SIGTERM:
        gate.touch()
        assert end(start(*TWO_MODES, "--resume", run.run_id))[0] == 0
        assert statuses(run) == BOTH_OK


@pytest.mark.usefixtures("gate")
def test_what_was_ignored_before_stays_ignored(start, tmp_path):
    """As `nohup` and `&` in a script start it, a run goes on after SIGHUP and Ctrl-C; SIGTERM ends it."""
    process = start(*TWO_MODES, before=["sh", "-c", 'trap "" HUP INT; exec "$@"', "sh"])
    run = wait_for_records(tmp_path / "results", 1)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
    assert end(process)[0] == 143
    assert statuses(run) == ONE_OK


def test_two_runs_at_once(start, tmp_path):
    """Two runs in one results folder do not meet, and a run that is being written cannot be taken up."""
    first, second = start("fast", *ONE), start("fast", *ONE)
    assert end(first)[0] == end(second)[0] == 0
    one, other = all_runs(tmp_path / "results")
    assert statuses(one) == statuses(other) == ONE_OK
    with one.writing():
        code, err = end(start("steady", "--resume", one.run_id))
    assert code == 64
    message = "is being written by another process; wait for its end, or begin a run of its own"
    assert err == f"capsbench: run {one.run_id} {message}"
    assert statuses(one) == ONE_OK


BACKWARDS = """
import os, time
class Backwards:
    shift = int(os.environ["SET_BACK_SECONDS"])
    def __call__(self):
        self.shift += 100
        return 1_900_000_000.0 - self.shift
time.time = Backwards()
time.time_ns = lambda: int(time.time() * 1e9)
import datetime
class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None): return cls.fromtimestamp(time.time(), tz)
datetime.datetime = Clock
"""


def test_a_clock_that_goes_backwards(start, tmp_path, capsbench_environment):
    """Wherever the clock jumps, no duration is negative, no limit strikes, and the newest run stays the latest."""
    (tmp_path / "sitecustomize.py").write_text(BACKWARDS, encoding="ascii")
    capsbench_environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), capsbench_environment["PYTHONPATH"]])
    names = []
    for shift in ("0", "7200"):
        capsbench_environment["SET_BACK_SECONDS"] = shift
        code, err = end(start("fast", *ONE))
        assert code == 0, err
        names.append(*({run.run_id for run in all_runs(tmp_path / "results")} - set(names)))
    assert [run.run_id for run in all_runs(tmp_path / "results")] == names
    for run in all_runs(tmp_path / "results"):
        assert statuses(run) == ONE_OK
        for record in run.records():
            assert all(metric.value >= 0 for name, metric in record.metrics.items() if name.endswith("seconds"))


def test_an_older_run_is_not_thrown_away(start, tmp_path):
    """A run that cannot go on for want of data keeps what it has, checkpoints too, though no case has ended."""
    store = create(tmp_path / "results", {})
    (store.artifacts("some.case") / "checkpoint.safetensors").write_bytes(b"a day's work")
    code, err = end(start("fast", "--resume", store.run_id, "--data", str(tmp_path / "nowhere")))
    assert code == 64, err
    assert (RunStore(store.folder).artifacts("some.case") / "checkpoint.safetensors").read_bytes() == b"a day's work"
