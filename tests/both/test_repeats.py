"""What is called exact is the same in every process; what is not is not called so."""

import json
import os
import subprocess
import sys

import pytest

from capsbench import plugins
from capsbench.backend import Setting
from capsbench.runner.launch import worker_environment

pytest.importorskip("torch")
pytest.importorskip("tensorflow")

SCRIPT = """\
import json, sys
import numpy as np
from capsbench import plugins
from capsbench.backend import Setting, Step
from capsbench.measure.steptrace import summarise
from capsbench.network import zoo
from capsbench.network.parameters import draw_parameters, dropout_masks
from capsbench.network.shapes import bind

backend, mode = sys.argv[1:]
bound = bind(zoo.load("em-tiny"), (28, 28, 1), 10)
ours = plugins.load(backend).realize(bound, draw_parameters(bound, 0), Setting(mode, threads=2))
images = np.random.default_rng(0).random((8, 28, 28, 1), dtype=np.float32)
placed, step = ours.place(images, np.arange(8), dropout_masks(bound, 8, 0, 0)), Step(0, 0.0, 0.5)
for _ in range(2):
    ours.train_step(placed, step)
    ours.forward(placed)
used = ours.memory(placed, step)
told = {"repeats": used.repeats, "memory": [used.peak_bytes, used.allocated_bytes]}
for name, what in (("step", step), ("evaluation", None)):
    events = summarise(ours.profile(placed, what), {}).events
    key = lambda e: [e.op, e.native, str(e.layer), e.phase, str(e.routing_iteration), e.calls]
    told[f"{name} calls"] = sorted(key(e) for e in events if e.op != "View")
    told[f"{name} bytes"] = sorted([*key(e), e.allocated_bytes] for e in events)
json.dump(told, sys.stdout)
"""


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(("backend", "mode"), [("torch", "tiled"), ("tensorflow", "graph")])
def test_fresh_processes_agree(backend, mode, processes):
    """Calls, and the bytes of what repeats, are identical in all processes; other bytes within five percent."""
    environment = {**os.environ, **worker_environment(plugins.load(backend), Setting(mode, threads=2), "heap")}
    told = []
    for _ in range(processes):
        done = subprocess.run(
            [sys.executable, "-P", "-c", SCRIPT, backend, mode],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        )
        told.append(json.loads(done.stdout.splitlines()[-1]))
    first = told[0]
    assert first["repeats"] == (backend == "torch")
    for other in told[1:]:
        for what in ("step calls", "evaluation calls"):
            assert other[what] == first[what]
        if first["repeats"]:
            assert other == first
        else:
            assert total(other, "step") == pytest.approx(total(first, "step"), rel=0.05)
            assert total(other, "evaluation") == pytest.approx(total(first, "evaluation"), rel=0.05)


def total(told, what):
    """Allocated bytes of a pass."""
    return sum(size for *_, size in told[f"{what} bytes"])
