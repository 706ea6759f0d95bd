"""Runs of both frameworks through the command line, for the tests beside this file."""

import json
import subprocess
import sys

from capsbench.record.codec import encode
from capsbench.store.run import RunStore

AGREEMENT = """\
name: agreement
dataset:
  name: toys
  train_limit: 300
  test_limit: 60
  transform: {resize: 28, brightness: 0.1, contrast: 0.2, shift: 1}
backends: ["torch:eager", "tensorflow:graph"]
batch: [15]
device: cpu
threads: 2
train: {epochs: 1}
"""
"""Twenty augmented train steps in both frameworks; which networks, and what is measured, is to be added."""


def run(folder, suite):
    """Run a suite in a folder: what it printed, its records, and each record's losses, one a train step."""
    (folder / "suite.yaml").write_text(suite)
    command = [sys.executable, "-m", "capsbench", "run", "suite.yaml", "--results", "results", "--no-figures"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    found = folder / done.stdout.strip().splitlines()[-1]
    records = [json.loads(encode(record)) for record in RunStore(found).records()]
    for record in records:
        history = json.loads((found / "artifacts" / record["case"]["id"] / "history.json").read_text())
        record["losses"] = [loss for epoch in history["epochs"] for loss in epoch["losses"]]
    return done.stdout, records
