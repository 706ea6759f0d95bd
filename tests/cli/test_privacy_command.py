"""Nothing that a run leaves names a person, a host or a secret: canaries are planted, and every byte is searched."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from capsbench.measure.environment import describe_machine, machine_class
from capsbench.store.runs import all_runs

LINEAR = Path(__file__).parents[1] / "fake" / "linear.yaml"
CANARIES = {
    "USER": "canaryuser",
    "LOGNAME": "canarylogin",
    "HOSTNAME": "canaryhost.lab.example.org",
    "HF_TOKEN": "hf_canarytoken0123456789",
    "WANDB_API_KEY": "canarykey0123456789abcdef",
    "AWS_SECRET_ACCESS_KEY": "canary/secret+0123456789",
    "DB_PASSWORD": "canarypassword",
    "HTTPS_PROXY": "http://canaryproxy:canaryproxypass@proxy.example.org:3128",
}
SUITE = """\
name: tests
description: a suite of canaryuser on canaryhost, see https://canaryproxy:canaryproxypass@example.org/suite.git
dataset: {{name: mnist, train_limit: 40}}
networks: [{network}]
backends: ["fake:fast", "fake:telling"]
batch: [8]
device: cpu
threads: 1
measure: [memory, time, ops, histograms, accuracy]
time: {{rounds: 1, min_samples: 1, max_seconds: 0.1}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory, mnist_root):
    """A home folder with a suite, data, and all that is written."""
    path = tmp_path_factory.mktemp("people") / "canaryhome"
    path.mkdir()
    (path / "data").symlink_to(mnist_root)
    shutil.copy(LINEAR, path)
    (path / "suite.yaml").write_text(SUITE.format(network=path / "linear.yaml"), encoding="utf-8")
    return path


def run(home, *arguments):
    """The command line in a process of its own, in that home."""
    paths = os.pathsep.join(path for path in sys.path if path)
    variables = {**os.environ, **CANARIES, "HOME": str(home), "PYTHONPATH": paths}
    command = [sys.executable, "-P", "-m", "capsbench", *arguments]
    return subprocess.run(command, cwd=home, env=variables, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module", params=[(), ("--anonymous",)], ids=["as it is", "anonymous"])
def results(request, home):
    """What a run leaves, one case of which tells all it knows as it fails."""
    folder = home / ("results" + "-".join(request.param))
    where = ("--data", "data", "--results", folder.name, "--no-figures")
    done = run(home, "run", "suite.yaml", *where, *request.param)
    assert done.returncode == 2, done.stderr
    return folder


def test_no_byte_that_is_written_names_anybody(results):
    """Not in a file, nor in its name: neither run.json nor records, nor what the worker wrote as it failed."""
    secrets = [*CANARIES.values(), "canary", "canaryhost", "canaryproxypass"]
    files = [path for path in results.rglob("*") if path.is_file()]
    assert {"run.json", "run.sqlite", "stderr.txt", "trace.json"} <= {path.name for path in files}
    for path in files:
        text = path.read_bytes()
        for secret in secrets:
            assert secret.encode() not in text, (path.name, secret)
            assert secret not in str(path.relative_to(results))


def test_what_went_wrong_is_still_told(results):
    """With what stands in the place of names."""
    reasons = [record.reason for run in all_runs(results) for record in run.records()]
    assert any("no kernel in ~/kernels on <host> for <user>, <HF_TOKEN>" in reason for reason in reasons)
    [told] = results.glob("runs/*/artifacts/*/stderr.txt")
    assert "Traceback" in told.read_text()


def test_an_anonymous_run_tells_the_kind_of_machine_only(results, home):
    """No commit, no kernel release, memory as a power of two; another run cannot be made anonymous afterwards."""
    [path] = results.glob("runs/*/run.json")
    header = json.loads(path.read_bytes())
    machine, here = header["environment"]["machine"], describe_machine()
    again = ("suite.yaml", "--data", "data", "--results", results.name, "--no-figures", "--resume", "latest")
    if "anonymous" in results.name:
        assert header["anonymous"] is True
        assert header["environment"]["commit"] is None
        assert machine["memory_bytes"] == machine_class(here).memory_bytes
        assert machine["system"] == here.system.partition(" ")[0]
        assert machine["processor"] == here.processor
    else:
        assert machine["system"] == here.system
        done = run(home, "run", *again, "--anonymous")
        assert done.returncode == 64
        assert "--anonymous" in done.stderr
