"""A worker that is killed in the middle of a training, and `--resume` after that, through the command line."""

import json
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import safetensors.numpy

pytest.importorskip("tensorflow")

from capsbench import plugins
from capsbench.record.codec import encode
from capsbench.runner.launch import Worker, receive, worker_environment
from capsbench.store.runs import all_runs
from capsbench.suite.cases import expand
from capsbench.suite.schema import load_suite
from capsbench.worker.messages import AccuracyJob, Place

# In short: test_tensorflow_resume.py, in one process, and tests/runner/test_kills.py, in runs of the fake backend.
pytestmark = [pytest.mark.tensorflow, pytest.mark.exhaustive]

SUITE = """\
name: killed
dataset: {name: mnist, transform: {brightness: 0.1, shift: 1}}
networks: [cnn-tiny]
backends: ["tensorflow:graph"]
batch: [6]
device: cpu
threads: 2
measure: [accuracy]
train: {epochs: 3, optimizer: {name: adamw}, clip_norm: 1.0, validation: 0.1}
"""
RUN = (sys.executable, "-m", "capsbench", "run", "killed.yaml", "--no-figures")


def kill_worker(run, results):
    """Kill the worker as soon as its first checkpoint is there."""
    while run.poll() is None:
        if list(results.glob("runs/*/artifacts/*/checkpoint.safetensors")):
            for child in psutil.Process(run.pid).children():
                child.kill()
            return
        time.sleep(0.01)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, mnist_root):
    """The records of a run that was killed and resumed, its case's folder, and that of a training left alone."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "killed.yaml").write_text(SUITE)
    command = [*RUN, "--data", mnist_root]
    run = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kill_worker(run, folder / "results")
    assert run.wait(timeout=600) == 2
    done = subprocess.run(
        [*command, "--resume", "latest"], cwd=folder, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [store] = all_runs(folder / "results")
    [artifacts] = (store.folder / "artifacts").iterdir()

    suite, path = load_suite(folder / "killed.yaml"), folder / "killed.yaml"
    [case] = expand(suite, path, {"tensorflow": ("graph",)})
    assert case.id == artifacts.name
    (folder / "whole").mkdir()
    job = AccuracyJob(case=case, place=Place(data_root=str(mnist_root), artifacts=str(folder / "whole")))
    environment = worker_environment(plugins.load("tensorflow"), case.setting, case.allocator)
    with Worker(job, environment) as worker:
        received = receive(worker)
    assert received.done.status == "ok", received.stderr
    return [json.loads(encode(record)) for record in store.records()], artifacts, folder / "whole"


def test_a_resumed_case_is_bit_equal(finished):
    """Parameters, losses and accuracies are those of the training that was left alone."""
    _, killed, whole = finished
    parameters, others = (safetensors.numpy.load_file(path / "parameters.safetensors") for path in (killed, whole))
    for name, value in others.items():
        np.testing.assert_array_equal(parameters[name], value)
    history, other = (json.loads((path / "history.json").read_text())["epochs"] for path in (killed, whole))
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3]
    for what in ("losses", "test_accuracy", "validation_accuracy", "learning_rate", "margin"):
        assert [epoch[what] for epoch in history] == [epoch[what] for epoch in other]


def test_records_say_what_happened(finished):
    """The kill is a record of its own, and the last record tells where the case went on."""
    killed, resumed = finished[0]
    assert (killed["status"], resumed["status"]) == ("crash", "ok")
    assert killed["reason"].startswith("killed by signal 9")
    [note] = [note for note in resumed["notes"] if "resumed" in note]
    assert note.startswith(("training resumed after epoch 1:", "training resumed after epoch 2:"))
    assert "5 of the 48 training images were held out for validation" in resumed["notes"]
    assert resumed["metrics"]["epochs"]["value"] == 3
