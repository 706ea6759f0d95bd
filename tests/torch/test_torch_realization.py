"""What the contract asks of a realization, beyond the numbers of one pass."""

from dataclasses import replace

import numpy as np
import pytest
from exhaustive import in_short
from forecasts import is_near
from networks_for_torch import CLASSES, IMAGE, MODES, PLAIN_MODES, SMALL, STEP, ZOO, realize

torch = pytest.importorskip("torch")

from capsbench.backend import Setting, Step  # noqa: E402 - after the check that torch is there
from capsbench.network import zoo  # noqa: E402 - likewise
from capsbench.network.parameters import draw_parameters, dropout_masks  # noqa: E402 - likewise
from capsbench.network.shapes import bind  # noqa: E402 - likewise
from capsbench.network.training import SGD  # noqa: E402 - likewise
from capsbench_torch.backend import BACKEND  # noqa: E402 - likewise

pytestmark = pytest.mark.torch

LEAST = {"em-tiny", "dynamic-small", "efficient", "cnn-tiny", "cnn-paper", "cnn-seed"}


def adam_by_hand(value, gradients, optimizer, rate):
    """Algorithm 1 of Kingma and Ba, written out."""
    m = v = np.zeros_like(value)
    for t, gradient in enumerate(gradients, 1):
        g = gradient + optimizer.weight_decay * value
        m = optimizer.beta1 * m + (1 - optimizer.beta1) * g
        v = optimizer.beta2 * v + (1 - optimizer.beta2) * g**2
        corrected = m / (1 - optimizer.beta1**t), v / (1 - optimizer.beta2**t)
        value = value - rate * corrected[0] / (np.sqrt(corrected[1]) + optimizer.epsilon)
    return value


@pytest.mark.parametrize("name", ["em-tiny", "cnn-tiny", pytest.param("em-paper", marks=pytest.mark.exhaustive)])
def test_adam(name):
    """Two train steps move the parameters as algorithm 1 of Adam says, with the learning rate they are handed."""
    ours, placed, bound = realize(name, batch=1, precision="float64")
    start, gradients = ours.parameters(), []
    for number in range(2):
        step = Step(number, 0.01, 0.5)
        gradients.append(ours.loss_and_gradients(placed, step)[1])
        ours.train_step(placed, step)
    after = ours.parameters()
    for tensor in gradients[0]:
        history = [g[tensor] for g in gradients]
        expected = adam_by_hand(start[tensor], history, bound.network.recipe.optimizer, 0.01)
        np.testing.assert_allclose(after[tensor], expected, rtol=1e-9, atol=1e-12)


def test_sgd_with_momentum():
    """SGD moves the parameters by learning rate times velocity."""
    network = zoo.load("cnn-tiny")
    network = replace(network, recipe=replace(network.recipe, optimizer=SGD(momentum=0.5)))
    bound = bind(network, IMAGE, CLASSES)
    ours = BACKEND.realize(bound, draw_parameters(bound, 0), Setting("eager", precision="float64", threads=2))
    placed = ours.place(np.ones((1, *IMAGE), np.float32), np.array([1]), dropout_masks(bound, 1, 0, 0))
    value, velocity = ours.parameters()["logits.weights"], 0.0
    for number in range(2):
        step = Step(number, 0.1, 0.5)
        velocity = 0.5 * velocity + ours.loss_and_gradients(placed, step)[1]["logits.weights"]
        value = value - 0.1 * velocity
        ours.train_step(placed, step)
    np.testing.assert_allclose(ours.parameters()["logits.weights"], value, rtol=1e-10)


def test_moving_statistics():
    """Train steps move the statistics of batch normalisation by its momentum; evaluation uses and keeps them."""
    ours, placed, _ = realize("cnn-seed", precision="float64")
    images = placed.images.numpy()
    ours.loss_and_gradients(placed, Step(0, 0.0, 0.5))
    assert ours.parameters()["norm.moving_mean"][0] == 0.0
    ours.train_step(placed, Step(0, 0.0, 0.5))
    assert ours.parameters()["norm.moving_mean"][0] == pytest.approx(0.01 * images.mean())
    assert ours.parameters()["norm.moving_variance"][0] == pytest.approx(0.99 + 0.01 * images.var())
    before = ours.parameters()
    ours.forward(placed)
    assert all(np.array_equal(before[name], value) for name, value in ours.parameters().items())


def test_moving_statistics_of_a_block():
    """A residual block's normalisations move by its momentum too, those of its shortcut among them."""
    ours, placed, _ = realize("cnn-residual", precision="float64")
    ours.train_step(placed, Step(0, 0.0, 0.5))
    moved = {name for name, value in ours.parameters().items() if name.endswith("moving_mean") and value.any()}
    blocks = {f"block{n}.{norm}_moving_mean" for n in range(1, 7) for norm in ("norm1", "norm2")}
    assert moved == blocks | {"norm1.moving_mean", "block3.shortcut_moving_mean", "block5.shortcut_moving_mean"}


@pytest.mark.parametrize("mode", MODES)
def test_two_realizations_are_the_same(mode):
    """Two realizations from the same bytes take the same steps, bit for bit."""
    losses = []
    for _ in range(2):
        ours, placed, _ = realize("em-tiny", mode)
        losses.append([float(ours.train_step(placed, Step(n, 0.01, 0.5))) for n in range(3)])
    assert losses[0] == losses[1]


def foretold_in_short(name, mode, batch):
    """Whether `make test` looks at it: every network in eager mode, small ones in all, several batches of the least."""
    return mode == "fused" or (batch == 1 and (mode == "eager" or name in SMALL)) or name in LEAST


@pytest.mark.parametrize(
    ("name", "mode", "batch"), in_short([(*each, batch) for each in ZOO for batch in (1, 7)], foretold_in_short)
)
def test_forecast(name, mode, batch):
    """The measured peak lies within 15 % of the forecast, or of its range where a library's scratch memory counts."""
    batch = batch if name in {"em-tiny", "cnn-tiny", "cnn-paper", "cnn-seed"} else min(batch, 2)
    ours, placed, bound = realize(name, mode, batch=batch)
    ours.train_step(placed, STEP)
    assert is_near(BACKEND.forecast_peak(bound, Setting(mode, threads=2), batch), ours.memory(placed, STEP).peak_bytes)


@pytest.mark.parametrize(
    ("name", "mode", "iterations"),
    in_short(
        [
            (name, mode, iterations)
            for name, modes in (("em-68k", MODES), ("dynamic-small", PLAIN_MODES))
            for mode in modes
            for iterations in (1, 3, 5)
        ],
        lambda name, mode, iterations: name != "em-68k" or mode == "fused" or iterations == 1,
    ),
)
def test_forecast_follows_iterations(name, mode, iterations):
    """It holds for other numbers of routing iterations as well."""
    ours, placed, bound = realize(name, mode, iterations=iterations)
    ours.train_step(placed, STEP)
    assert is_near(BACKEND.forecast_peak(bound, Setting(mode, threads=2), 2), ours.memory(placed, STEP).peak_bytes)


def test_memory_is_exact():
    """What a train step asks for repeats to the byte and grows with the batch."""
    used = []
    for batch in (2, 2, 4):
        ours, placed, _ = realize("em-tiny", batch=batch)
        ours.train_step(placed, STEP)
        used.append(ours.memory(placed, STEP))
    assert used[0] == used[1]
    assert used[1].peak_bytes < used[2].peak_bytes
    assert used[1].allocated_bytes < used[2].allocated_bytes


def test_ceilings(monkeypatch):
    """The product and the copy of the contract's sizes are carried out in the setting's precision."""
    from capsbench.measure import ceilings as timing
    from capsbench_torch import ceilings

    asked = []

    def measure(product, copy):
        with torch.profiler.profile(record_shapes=True) as profiler:
            product()
            copy()
        asked.extend((e.name, e.input_shapes) for e in profiler.events() if e.name in {"aten::mm", "aten::copy_"})
        return timing.Ceilings(1.0, 2.0)

    monkeypatch.setattr(ceilings, "measure", measure)
    assert BACKEND.ceilings(Setting("eager", precision="float64", threads=2)) == timing.Ceilings(1.0, 2.0)
    side, numbers = timing.SIDE, timing.COPIED_BYTES // 8
    shapes = dict(asked)
    assert shapes["aten::mm"][:2] == [[side, side], [side, side]]
    assert shapes["aten::copy_"][:2] == [[numbers], [numbers]]


def test_out_of_memory_is_a_memory_error():
    """Running out of memory is a MemoryError with one line, whatever PyTorch calls it."""
    from capsbench_torch.profiling import memory_errors

    with pytest.raises(MemoryError, match="memory") as error, memory_errors():
        torch.empty(2**46)
    assert "\n" not in str(error.value)


def test_discovery_imports_no_framework():
    """Importing the registered module does not import torch."""
    import subprocess
    import sys

    code = "import sys, capsbench_torch.backend as b; b.BACKEND.modes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
