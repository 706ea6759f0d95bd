"""The two frameworks in whole runs: same start, same data, same losses; tables and records of both."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorflow")

SUITE = """\
name: agreement
dataset:
  name: toys
  train_limit: 300
  test_limit: 60
  transform: {resize: 28, brightness: 0.1, contrast: 0.2, shift: 1}
networks: [em-tiny, cnn-tiny]
backends: ["torch:eager", "tensorflow:graph"]
batch: [15]
device: cpu
threads: 2
measure: [parity, memory, time, ops, accuracy]
train: {epochs: 1}
time: {rounds: 1, min_samples: 3, max_seconds: 0.3}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of both networks in both frameworks: its standard output, its folder, its records."""
    folder = tmp_path_factory.mktemp("agreement")
    (folder / "agreement.yaml").write_text(SUITE)
    command = [sys.executable, "-m", "capsbench", "run", "agreement.yaml", "--results", "results", "--no-figures"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    run = folder / done.stdout.strip().splitlines()[-1]
    records = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    return done.stdout, run, {(r["case"]["network"], r["case"]["backend"]): r for r in records}


@pytest.mark.parametrize("network", ["em-tiny", "cnn-tiny"])
def test_losses_agree(finished, network):
    """Over 20 train steps in float32, augmentation and dropout included, losses agree to 1e-3 relative."""
    _, run, records = finished
    losses = {}
    for backend in ("torch", "tensorflow"):
        case = records[network, backend]["case"]["id"]
        losses[backend] = json.loads((run / "artifacts" / case / "history.json").read_text())["epochs"][0]["losses"]
    assert len(losses["torch"]) == 20
    assert losses["torch"] == pytest.approx(losses["tensorflow"], rel=1e-3)
    assert len(set(losses["torch"])) > 10


def test_same_data(finished):
    """Both frameworks saw the same images: equal hashes and counts for both splits."""
    _, _, records = finished
    assert records["em-tiny", "torch"]["data"] == records["em-tiny", "tensorflow"]["data"]
    assert records["em-tiny", "torch"]["data"]["train"]["count"] == 300


def test_records_are_whole(finished):
    """Every case ended well, passed parity, and has exact counts, memory, times, ops and accuracy."""
    _, _, records = finished
    assert len(records) == 4
    for record in records.values():
        assert record["status"] == "ok"
        assert record["parity"]["passed"]
        assert {"accuracy", "peak_bytes", "allocated_bytes", "train_step_seconds", "forward_seconds"} <= set(
            record["metrics"]
        )
        assert sum(op["allocated_bytes"] for op in record["ops"]) <= record["step_profile_bytes"]
        assert {op["phase"] for op in record["ops"]} == {"forward", "backward", "optimizer"}


def test_tables_set_the_frameworks_side_by_side(finished):
    """The op table has a column for each framework, and the tables name every case."""
    output, _, _ = finished
    for title in ("Accuracy", "Cost", "Most expensive ops: em-tiny"):
        assert title in output
    assert "tensorflow:graph" in output
    assert "torch:eager" in output
    assert "300 of 24,300" in output
