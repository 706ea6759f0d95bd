"""Both frameworks call the canonical ops of the published formulation equally often, or the ledger says why not."""

import json
import os
import subprocess
import sys

import pytest

from capsbench import plugins
from capsbench.backend import Setting
from capsbench.network import zoo
from capsbench.report.deviations import differences, read_deviations
from capsbench.runner.launch import worker_environment

pytest.importorskip("torch")
pytest.importorskip("tensorflow")

IMAGE, SMALLER, CLASSES = (28, 28, 1), (22, 22, 1), 10  # how often an op is called does not depend on the size
SETTING = Setting("tiled", threads=2)
# The others are larger ones of the same formulations.
ONE_OF_EACH = (
    "em-tiny em-official em-ibm em-yl dynamic-small vb self-routing efficient cnn-tiny cnn-seed cnn-residual".split()
)
PROFILE = f"""
import json, sys
import numpy as np
from capsbench import plugins
from capsbench.backend import Setting
from capsbench.measure.steptrace import summarise
from capsbench.network import zoo
from capsbench.network.parameters import draw_parameters
from capsbench.network.shapes import bind
from capsbench.report.deviations import calls

counted = {{}}
for name in sys.argv[2:]:
    network = zoo.load(name)
    image = {SMALLER} if name.startswith("em-") else {IMAGE}
    bound = bind(network, image, network.classes or {CLASSES})
    realization = plugins.load(sys.argv[1]).realize(bound, draw_parameters(bound, 0), {SETTING})
    images = np.random.default_rng(0).random((2, *image), dtype=np.float32)
    placed = realization.place(images, np.zeros(2, np.int64), {{}})
    realization.forward(placed)
    realization.profile(placed, None)
    counted[name] = calls(summarise(realization.profile(placed, None), {{}}))
print(json.dumps(counted))
"""


def count(backend, networks, environment):
    """Calls by op, by network, of an evaluation of two images (one would not be tiled); in a process of its own."""
    own = worker_environment(plugins.load(backend), SETTING, "heap")
    command = [sys.executable, "-c", PROFILE, backend, *networks]
    done = subprocess.run(command, env={**environment, **own}, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(ONE_OF_EACH, id="one of each formulation"),
        pytest.param(zoo.names(), id="the whole zoo", marks=pytest.mark.exhaustive),
    ],
)
def found(request):
    """What differs, by network: pairs of op and the framework with more calls."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    torch, tensorflow = (count(backend, request.param, environment) for backend in ("torch", "tensorflow"))
    assert set(torch) == set(tensorflow) == set(request.param)
    assert all(torch[name]["Conv2D"] for name in torch)
    return {name: differences(torch[name], tensorflow[name]) for name in torch}


@pytest.fixture(scope="module")
def listed():
    """What the ledger lists."""
    return {(each.op, each.more) for each in read_deviations()}


def test_every_difference_has_a_reason(found, listed):
    """An op that is called more often in one framework is in the ledger, in that direction."""
    assert {name: differing - listed for name, differing in found.items() if differing - listed} == {}


def test_every_entry_is_needed(found, listed):
    """What no network needs any more leaves the ledger."""
    assert listed - set().union(*found.values()) == set()


def test_votes_cost_the_same(found):
    """The products, tiles and convolutions that the votes are made of are called equally often everywhere."""
    ops = {op for differing in found.values() for op, _ in differing}
    assert not ops & {"BatchMatMul", "Tile", "Conv2D", "MatMul", "MaxPool"}
