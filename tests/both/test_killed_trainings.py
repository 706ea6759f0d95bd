"""Workers of both frameworks that are killed in the middle of a training, and `--resume` after that."""

import json
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import safetensors.numpy

pytest.importorskip("torch")
pytest.importorskip("tensorflow")

SUITE = """\
name: killed
dataset: {name: toys, train_limit: 120, test_limit: 30, transform: {resize: 28, brightness: 0.1, shift: 1}}
networks: [cnn-tiny]
backends: ["torch:eager", "tensorflow:graph"]
batch: [10]
device: cpu
threads: 2
measure: [accuracy]
train: {epochs: 3, optimizer: {name: adamw}, clip_norm: 1.0, validation: 0.1}
"""
COMMAND = (sys.executable, "-m", "capsbench", "run", "killed.yaml", "--no-figures", "--results")


def artifacts(results):
    """The folders of the only run's cases, by backend."""
    [run] = (results / "runs").iterdir()
    return {path.name.split(".")[2].split("-")[0]: path for path in (run / "artifacts").iterdir()}


def records(results):
    """The records of the only run in the order written."""
    [run] = (results / "runs").iterdir()
    return [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]


def kill_each_worker_once(run, results):
    """Kill the worker of each case as soon as its first checkpoint is there; which backends' were."""
    killed = set()
    while run.poll() is None:
        checkpoints = {path.parent.name: path for path in results.glob("runs/*/artifacts/*/checkpoint.safetensors")}
        for case in checkpoints.keys() - killed:
            for child in psutil.Process(run.pid).children():
                if "capsbench.worker" in child.cmdline():
                    child.kill()
                    killed.add(case)
        time.sleep(0.01)
    return {case.split(".")[2].split("-")[0] for case in killed}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run whose workers were killed and that was resumed, and one that was left alone."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "killed.yaml").write_text(SUITE)
    run = subprocess.Popen([*COMMAND, "killed"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert kill_each_worker_once(run, folder / "killed") == {"torch", "tensorflow"}
    assert run.returncode == 2
    for more in (["killed", "--resume", "latest"], ["whole"]):
        done = subprocess.run([*COMMAND, *more], cwd=folder, capture_output=True, text=True, check=False, timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "killed", folder / "whole"


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_resumed_cases_are_bit_equal(finished, backend):
    """Parameters, losses and accuracies are those of the run that was left alone."""
    killed, whole = (artifacts(results)[backend] for results in finished)
    assert killed.name == whole.name
    parameters, others = (safetensors.numpy.load_file(path / "parameters.safetensors") for path in (killed, whole))
    for name, value in others.items():
        np.testing.assert_array_equal(parameters[name], value)
    history, other = (json.loads((path / "history.json").read_text())["epochs"] for path in (killed, whole))
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3]
    for what in ("losses", "test_accuracy", "validation_accuracy", "learning_rate", "margin"):
        assert [epoch[what] for epoch in history] == [epoch[what] for epoch in other]


def test_records_say_what_happened(finished):
    """The kill is a record of its own, and the last record of each case tells where it went on."""
    killed, whole = map(records, finished)
    assert [record["status"] for record in killed] == ["crash", "crash", "ok", "ok"]
    for record in killed[2:]:
        [note] = [note for note in record["notes"] if "resumed" in note]
        assert note.startswith(("training resumed after epoch 1:", "training resumed after epoch 2:"))
        assert record["metrics"]["epochs"]["value"] == 3
    accuracy = {record["case"]["id"]: record["metrics"]["accuracy"] for record in whole}
    assert {record["case"]["id"]: record["metrics"]["accuracy"] for record in killed[2:]} == accuracy
    assert not [note for record in whole for note in record["notes"] if "resumed" in note]
    assert all("12 of the 120 training images were held out for validation" in record["notes"] for record in whole)
