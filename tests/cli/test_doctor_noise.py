"""`capsbench doctor --noise`: equal code against itself, kept as the machine's floor, said, and used by comparisons."""

import json
import sys
from dataclasses import replace
from itertools import pairwise
from math import log
from pathlib import Path

import pytest

from capsbench import plugins
from capsbench.cli import doctor, main, noise
from capsbench.measure import disturbance
from capsbench.measure.environment import describe_machine
from capsbench.record.noise import Process, floors_of, from_header, kept_noise, noise_path
from capsbench.runner import noise as runner
from capsbench.store.runs import open_run
from capsbench.suite.schema import TimeChoice

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from sample_records import noise_recording

LINEAR = Path(__file__).parents[1] / "fake" / "linear.yaml"
NOISE = ("doctor", "--noise", "--pairs", "4", "--threads", "1")


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run a command in an empty folder where only the fake backend is installed: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(runner, "NETWORK", str(LINEAR))
    monkeypatch.setattr(runner, "_TIME", TimeChoice(rounds=1, min_samples=3, max_seconds=0.1))
    fake = plugins.discover()["fake"]
    monkeypatch.setattr(plugins, "discover", lambda: {"fake": fake})

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["capsbench", *map(str, arguments)])
        code = main()
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def few(monkeypatch):
    """The command with two pairs, fewer than it takes for its floors to mean something."""
    monkeypatch.setattr(noise, "FEWEST_PAIRS", 2)
    return ("doctor", "--noise", "--pairs", "2", "--threads", "1")


def test_equal_code_is_timed_in_turns_kept_and_said(call, tmp_path):
    """Eight fresh processes A B B A A B B A, all medians in the file, floors that follow from them, and a table."""
    code, out, err = call(*NOISE, "--backend", "fake:steady")
    assert code == 0, err
    [recording] = kept_noise(tmp_path / "results").recordings
    assert "".join(process.side for process in recording.processes) == "ABBAABBA"
    starts = [process.started_seconds for process in recording.processes]
    pairs = list(zip(starts[::2], starts[1::2], strict=True))
    assert all(max(pair) < min(later) for pair, later in pairwise(pairs))
    assert recording.setting == ("fake", "steady", "cpu", 1, "heap")
    assert recording.versions == {"fake": "1.0"}
    assert recording.floors == floors_of(recording.processes)
    for process in recording.processes:
        assert process.medians["train_step_seconds"] >= 0.020
        assert process.medians["forward_seconds"] >= 0.020
    assert "train_step_seconds" in out
    assert "ratio of a pair: by how much B over A scatters for two processes that ran at the same time" in " ".join(
        out.split()
    )
    assert "fake:steady: 8 of 8 processes" in err


def test_the_table_says_the_scatter_of_pairs_beside_that_of_processes():
    """What pairs have in common is in the scatter between processes alone, and rounds follow from that of pairs."""
    times = [moment * (1.03 if place == "A" else 1.0) for moment in (1.0,) * 5 + (2.0,) * 3 for place in "AB"]
    processes = tuple(
        Process(side=side, started_seconds=0.0, load=None, contended=0, medians={"train_step_seconds": seconds})
        for side, seconds in zip("ABBA" * 4, times, strict=True)
    )
    recording = replace(noise_recording(0.0, 0.0), processes=processes, floors=floors_of(processes))
    table = noise.noise_table(recording)
    [row] = table.rows
    shown = dict(zip((column.header for column in table.columns), row, strict=True))
    assert shown["between\nprocesses"].value == pytest.approx(0.347, abs=0.01)
    assert shown["ratio of\na pair"].value == pytest.approx(log(1.03))
    assert shown["rounds for\n+10 %"].value == 8
    assert shown["in turns\n5 a side"].value < 0.05 < shown["in a row\n5 a side"].value


def test_on_a_gpu_nobody_takes_turns(call, few, monkeypatch, tmp_path):
    """The two processes of a pair run one after the other there, as rounds do that are held to this floor."""
    monkeypatch.setenv("FAKE_DEVICES", "cpu,cuda:0")
    monkeypatch.setattr(runner, "in_turns", lambda *_works: pytest.fail("two at once"))
    code, _, err = call(*few, "--backend", "fake:fast", "--device", "cuda:0")
    assert code == 0, err
    [recording] = kept_noise(tmp_path / "results").recordings
    starts = [process.started_seconds for process in recording.processes]
    assert starts == sorted(set(starts))


def test_what_cannot_be_timed_is_said_and_nothing_kept(call, tmp_path):
    """A process that dies ends the experiment with its reason; so does a backend that is broken."""
    code, out, err = call(*NOISE, "--backend", "fake:killed")
    assert code == 2
    assert "fake:killed: killed by signal 9" in err
    assert "Noise floor" not in out
    assert not (tmp_path / "results").exists()


def test_none_that_can_is_bad_input(call, monkeypatch):
    """Where no installed backend can be timed, a sentence says so."""
    monkeypatch.setenv("FAKE_BROKEN", "1")
    code, _, err = call(*NOISE)
    assert code == 64
    assert "no installed backend can be timed here" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--noise", "--pairs", "5"], "--pairs: 5 pairs are not possible, legal is an even number from 4"),
        (["--noise", "--pairs", "2"], "--pairs: 2 pairs"),
        (["--noise", "--backend", "fak"], "--backend: unknown backend 'fak'"),
        (["--noise", "--backend", "fake:stedy"], "did you mean 'steady'"),
        (["--pairs", "8"], "--pairs: it says how noise is recorded"),
        (["--backend", "fake"], "--backend: it says how noise is recorded"),
    ],
)
def test_bad_input_is_one_sentence(call, arguments, says, tmp_path):
    """What is not possible is refused before anything runs."""
    code, _, err = call("doctor", *arguments)
    assert code == 64
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_a_broken_file_is_said_before_minutes_are_spent(call, tmp_path):
    """Nothing is recorded beside a file that cannot be read; it is named."""
    path = noise_path(tmp_path / "results", describe_machine())
    path.parent.mkdir(parents=True)
    path.write_text("{", encoding="ascii")
    code, _, err = call(*NOISE)
    assert code == 64
    assert f"{path.relative_to(tmp_path)}: this does not hold the noise of this machine; remove it" in err


def test_what_makes_times_noisy_is_said(call, monkeypatch):
    """The doctor says each cause with what to do, with --noise and without."""
    seen = disturbance.Disturbance("clock", "the governor is powersave", "cpupower")
    monkeypatch.setattr(doctor, "disturbances", lambda **_keywords: (seen,))
    monkeypatch.setattr(noise, "record", lambda *_arguments, **_keywords: ())
    for arguments in (("doctor",), NOISE):
        out = call(*arguments)[1]
        assert "clock  the governor is powersave  cpupower" in out
    monkeypatch.setattr(doctor, "disturbances", lambda **_keywords: ())
    assert "nothing that this system tells of" in call("doctor")[1]


def test_a_run_says_the_floor_that_was_known_and_comparisons_use_it(call, few, tmp_path, mnist_root):
    """run.json holds the floors without processes, and `compare` says them; a run before them has those kept since."""
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        f"name: t\ndataset: mnist\nnetworks: [{LINEAR}]\nbackends: ['fake:fast']\nbatch: [8]\nmeasure: [time]\n"
        "time: {rounds: 2, min_samples: 3, max_seconds: 0.1}\n"
    )
    arguments = ["run", suite, "--data", mnist_root, "--no-figures"]
    assert call(*arguments)[0] == 0
    before = open_run(tmp_path / "results", "latest")
    assert before.header()["noise"] is None
    code, out, _ = call("compare", before.run_id, before.run_id)
    assert code == 0
    assert "noise floor: none is known of this machine" in out
    assert call(*few)[0] == 0  # of the first installed backend that can
    [recording] = kept_noise(tmp_path / "results").recordings
    assert (recording.backend, recording.mode) == ("fake", "fast")
    assert call(*arguments)[0] == 0
    after = open_run(tmp_path / "results", "latest")
    known = from_header(after.header())
    assert known.floor == kept_noise(tmp_path / "results").floor
    assert known.recordings[0].processes == ()
    for base in (before, after):
        out = " ".join(call("compare", base.run_id, after.run_id)[1].split())
        assert "of train_step_seconds with 2 processes a side" in out
        assert "one after the other (recorded" in out
    path = noise_path(tmp_path / "results", describe_machine())
    path.write_text(json.dumps({"schema": 99}), encoding="ascii")
    assert call(*arguments)[0] == 64
