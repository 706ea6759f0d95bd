"""Two mirrored replicas in TensorFlow against one device, in a process that has two logical devices."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("tensorflow")

from capsbench.backend import Setting
from capsbench.network import zoo
from capsbench.network.shapes import bind
from capsbench_tensorflow.backend import BACKEND

pytestmark = pytest.mark.tensorflow

# TensorFlow takes logical devices before its first op only, which the process of the tests has long run.
CODE = """
from dataclasses import replace

import numpy as np

from capsbench.backend import Setting, Step
from capsbench.network import zoo
from capsbench.network.layers import BatchNorm
from capsbench.network.parameters import draw_parameters, dropout_masks
from capsbench.network.shapes import bind
from capsbench.network.training import AdamW, Recipe
from capsbench.worker.parallel import relative_deviation
from capsbench_tensorflow.backend import BACKEND

TWO = Setting("graph", devices=2)


def batches(bound, sizes):
    generator = np.random.default_rng(0)
    for number, size in enumerate(sizes):
        images = generator.random((size, 16, 16, 1), dtype=np.float32)
        yield images, generator.integers(0, 10, size), dropout_masks(bound, size, 0, number)


def train(bound, setting, sizes):
    realization = BACKEND.realize(bound, draw_parameters(bound, 0), setting)
    return [
        float(realization.train_step(realization.place(*batch), Step(number, 0.003, 0.5)))
        for number, batch in enumerate(batches(bound, sizes))
    ], realization


# Twenty steps of an EM network; the last batch does not divide.
bound, sizes = bind(zoo.load("em-tiny"), (16, 16, 1), 10), [8] * 19 + [5]
(two, many), (one, alone) = train(bound, TWO, sizes), train(bound, replace(TWO, devices=1), sizes)
print("em-tiny", relative_deviation(two, one))
assert relative_deviation(two, one) < 1e-4
batch = next(batches(bound, [5]))
ours, theirs = (each.forward(each.place(*batch)) for each in (many, alone))
assert ours.scores.shape == theirs.scores.shape
np.testing.assert_allclose(ours.poses, theirs.poses, atol=1e-3)

# Moments of all images and rows of one mask, to rounding in float64; AdamW writes into each replica's copy.
plain = zoo.load("cnn-tiny")
layers = (BatchNorm(name="norm"), *plain.layers)
recipe = Recipe(optimizer=AdamW(weight_decay=0.1), clip_norm=1.0)
bound = bind(replace(plain, layers=layers, recipe=recipe), (16, 16, 1), 10)
exact = replace(TWO, precision="float64")
(two, many), (one, alone) = train(bound, exact, [5, 5]), train(bound, replace(exact, devices=1), [5, 5])
assert relative_deviation(two, one) < 1e-12
mine = many.parameters()
for name, value in alone.parameters().items():
    np.testing.assert_allclose(mine[name], value, rtol=1e-9, atol=1e-12)
assert len(many.inspect(many.place(*batch))["conv1"].activations) == 5
again = BACKEND.realize(bound, draw_parameters(bound, 1), exact)
again.restore(many.parameters(), many.optimizer_state())
batch, step = next(batches(bound, [5])), Step(2, 0.003, 0.5)
assert float(again.train_step(again.place(*batch), step)) == float(many.train_step(many.place(*batch), step))
alone.train_step(alone.place(*batch), step)
(_, ours), (_, theirs) = (each.loss_and_gradients(each.place(*batch), Step(0, 0.0, 0.5)) for each in (many, alone))
for name, value in theirs.items():
    np.testing.assert_allclose(ours[name], value, rtol=1e-8, atol=1e-10 * abs(value).max())
print("done")
"""


def test_two_replicas_do_what_one_does(capsbench_environment):
    """Losses, outputs, parameters, gradients; state that another realization goes on from."""
    environment = {**os.environ, **capsbench_environment, **BACKEND.environment(Setting("graph", devices=2))}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("done\n")


def test_who_trains_on_several_devices():
    """All modes but XLA's, which compiles what one device does."""
    assert BACKEND.parallel_modes == set(BACKEND.modes) - {"xla"}
    bound = bind(zoo.load("cnn-residual"), (16, 16, 1), 10)
    assert BACKEND.unsupported(bound, Setting("graph", devices=2)) is None
