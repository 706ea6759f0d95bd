"""Two ranks in PyTorch against one device: losses, checkpoints, and ranks that die or fall silent."""

import os
import signal
from dataclasses import replace

import numpy as np
import psutil
import pytest
import resuming

pytest.importorskip("torch")

from capsbench.backend import Setting, Step
from capsbench.network import zoo
from capsbench.network.layers import BatchNorm
from capsbench.network.parameters import draw_parameters, dropout_masks
from capsbench.network.shapes import bind
from capsbench.worker.parallel import relative_deviation
from capsbench_torch import ranks
from capsbench_torch.backend import BACKEND

pytestmark = pytest.mark.torch
TWO = Setting("eager", devices=2)
STEPS = 20


@pytest.fixture(autouse=True, scope="module")
def _nobody_is_left():
    """Ranks live as long as their process; that of the tests goes on."""
    yield
    ranks.end_all()
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def network(name):
    """A small network of the zoo on small images."""
    return bind(zoo.load(name), (16, 16, 1), 10)


def batches(bound, sizes):
    """Placeable batches with dropout masks, one a train step."""
    generator = np.random.default_rng(0)
    for number, size in enumerate(sizes):
        images = generator.random((size, 16, 16, 1), dtype=np.float32)
        yield images, generator.integers(0, 10, size), dropout_masks(bound, size, 0, number)


def train(bound, setting, sizes, rate=0.003):
    """The losses of a training, and what has been trained."""
    realization = BACKEND.realize(bound, draw_parameters(bound, 0), setting)
    return [
        float(realization.train_step(realization.place(*batch), Step(number, rate, 0.5)))
        for number, batch in enumerate(batches(bound, sizes))
    ], realization


def test_losses_of_an_em_network():
    """Twenty steps on two ranks are those on one device, with batches that do not divide and one of a single image."""
    bound, sizes = network("em-tiny"), [9] * (STEPS - 2) + [5, 1]
    (two, many), (one, alone) = train(bound, TWO, sizes), train(bound, replace(TWO, devices=1), sizes)
    assert relative_deviation(two, one) < 1e-4
    batch = next(batches(bound, [3]))
    ours, theirs = (each.forward(each.place(*batch)) for each in (many, alone))
    assert ours.scores.shape == theirs.scores.shape
    np.testing.assert_allclose(ours.poses, theirs.poses, atol=1e-3)
    state, looked = many.optimizer_state(), many.inspect(many.place(*batch))
    assert state["step_count"] == STEPS
    assert len(looked["class_caps"].activations) == 3
    again = BACKEND.realize(bound, draw_parameters(bound, 1), TWO)
    again.restore(many.parameters(), state)
    placed, step = again.place(*batch), Step(STEPS, 0.003, 0.5)
    assert float(again.train_step(placed, step)) == float(many.train_step(many.place(*batch), step))


def test_whole_batches_are_normalised_and_masked():
    """Moments of all images and rows of one mask, to rounding in float64; so are gradients, moving statistics too."""
    plain = zoo.load("cnn-tiny")
    layers = (BatchNorm(name="norm"), *plain.layers)
    bound = bind(replace(plain, layers=layers), (16, 16, 1), 10)
    exact = replace(TWO, precision="float64")
    (two, many), (one, alone) = train(bound, exact, [5, 4]), train(bound, replace(exact, devices=1), [5, 4])
    assert relative_deviation(two, one) < 1e-12
    for name, value in alone.parameters().items():
        np.testing.assert_allclose(many.parameters()[name], value, rtol=1e-9, atol=1e-12)
    images, labels, masks = next(batches(bound, [3]))
    (_, ours), (_, theirs) = (
        each.loss_and_gradients(each.place(images, labels, masks), Step(0, 0.0, 0.5)) for each in (many, alone)
    )
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-8, atol=1e-10 * abs(value).max())


def test_a_resumed_training_is_bit_equal(make_case, mnist_root, tmp_path):
    """Killed in the second of two epochs, two ranks go on from a checkpoint as if nothing had been."""
    case = make_case("eager", backend="torch", network=zoo.load("cnn-tiny"), devices=2)
    assert resuming.train(case, mnist_root, tmp_path / "whole") == []
    resuming.train(case, mnist_root, tmp_path / "killed", dies_at=8)
    [note] = resuming.train(case, mnist_root, tmp_path / "killed")
    assert note.startswith("training resumed after epoch 1:")
    resuming.assert_same(tmp_path / "whole", tmp_path / "killed")


def test_a_rank_that_is_killed(monkeypatch):
    """Rank 0 raises, saying who is gone; nobody is left, and a new realization starts with new ranks."""
    bound = network("cnn-tiny")
    _, realization = train(bound, TWO, [4])
    (victim,) = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
    os.kill(victim.pid, signal.SIGKILL)
    batch = next(batches(bound, [4]))
    with pytest.raises(RuntimeError, match=r"replica 1 of 2 was killed by signal 9 \(SIGKILL\)"):
        float(realization.train_step(realization.place(*batch), Step(0, 0.1, 0.5)))
    with pytest.raises(RuntimeError, match="replica 1 of 2 was killed"):
        realization.forward(None)
    losses, realization = train(bound, TWO, [4])
    assert np.isfinite(losses).all()
    monkeypatch.setattr(realization._ranks, "_seconds", 0.5)  # what gloo has been told cannot be changed
    (silent,) = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
    silent.suspend()
    with pytest.raises(RuntimeError, match=r"a replica of 2 did not answer within 0\.5 seconds"):
        realization.forward(realization.place(*batch))
    assert not psutil.pid_exists(silent.pid)


def test_who_trains_on_several_devices():
    """All modes but compile, where a batch is normalised."""
    normalised = network("cnn-residual")
    compiled = BACKEND.unsupported(normalised, replace(TWO, mode="compile"))
    assert compiled.startswith("compile cannot take a batch's statistics over several devices")
    assert BACKEND.unsupported(normalised, TWO) is None
    assert BACKEND.unsupported(network("cnn-tiny"), replace(TWO, mode="compile")) is None
    assert BACKEND.parallel_modes == set(BACKEND.modes)
