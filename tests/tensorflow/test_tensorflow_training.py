"""Train steps, optimizers, batch normalisation."""

from dataclasses import replace

import pytest

pytest.importorskip("tensorflow")

import numpy as np
import tensorflow as tf
from networks_for_tensorflow import STEP, case_of, zoo_network

from capsbench.backend import Step
from capsbench.network.layers import BatchNorm
from capsbench.network.training import SGD, Adam, Recipe

pytestmark = pytest.mark.tensorflow

ADAM = Adam(learning_rate=0.01, weight_decay=0.02, epsilon=1e-3)
MOMENTUM = SGD(learning_rate=0.01, momentum=0.8, weight_decay=0.02)


def _small(optimizer=ADAM):
    """A network without routing, which is soon traced; what is tested knows nothing of layers."""
    network = zoo_network("cnn-tiny")
    norm = BatchNorm(name="norm", momentum=0.75)
    layers = (network.layers[0], norm, *network.layers[1:])
    return case_of(replace(network, layers=layers, recipe=Recipe(optimizer=optimizer)), 2, (20, 20, 1), 4)


def _adam(spec, gradients, values, rate):
    first, second = np.zeros_like(values), np.zeros_like(values)
    for t, gradient_of in enumerate(gradients, start=1):
        gradient = gradient_of(values) + spec.weight_decay * values
        first = spec.beta1 * first + (1 - spec.beta1) * gradient
        second = spec.beta2 * second + (1 - spec.beta2) * gradient**2
        root = np.sqrt(second / (1 - spec.beta2**t)) + spec.epsilon
        values = values - rate * first / (1 - spec.beta1**t) / root
    return values


def _sgd(spec, gradients, values, rate):
    velocity = np.zeros_like(values)
    for gradient_of in gradients:
        velocity = spec.momentum * velocity + gradient_of(values) + spec.weight_decay * values
        values = values - rate * velocity
    return values


@pytest.mark.parametrize(
    ("optimizer", "follow"),
    [(ADAM, _adam), (MOMENTUM, _sgd), (SGD(learning_rate=0.1), _sgd)],
    ids=["adam", "momentum", "sgd"],
)
def test_optimizers_follow_their_equations(optimizer, follow):
    """Three steps change every parameter as the optimizer's equations in NumPy say, from the same gradients."""
    realization, placed = _small(optimizer).realize(precision="float64")
    before = realization.parameters()
    seen = []
    for number in range(3):
        _, gradients = realization.loss_and_gradients(placed, STEP)
        seen.append(gradients)
        realization.train_step(placed, Step(number, 0.02, STEP.margin))
    after = realization.parameters()
    for name in seen[0]:
        expected = follow(optimizer, [lambda _, g=g[name]: g for g in seen], before[name], 0.02)
        np.testing.assert_allclose(after[name], expected, rtol=1e-9, atol=1e-12)
        assert not np.array_equal(after[name], before[name])


def test_only_train_steps_move_the_statistics():
    """Batch statistics enter the moving ones in train_step, by the layer's momentum, and nowhere else."""
    case = _small()
    realization, placed = case.realize(precision="float64")
    realization.forward(placed)
    realization.loss_and_gradients(placed, STEP)
    np.testing.assert_array_equal(realization.parameters()["norm.moving_mean"], case.parameters["norm.moving_mean"])
    weights, biases = case.parameters["conv1.weights"], case.parameters["conv1.biases"]
    maps = tf.nn.relu(tf.nn.conv2d(case.images, weights, 2, "VALID") + biases).numpy().astype(np.float64)
    realization.train_step(placed, STEP)
    moved = realization.parameters()
    for name, batch in (("mean", maps.mean((0, 1, 2))), ("variance", maps.var((0, 1, 2)))):
        expected = 0.75 * case.parameters[f"norm.moving_{name}"] + 0.25 * batch
        np.testing.assert_allclose(moved[f"norm.moving_{name}"], expected, rtol=1e-5)


def test_a_train_step_returns_the_loss_before_it_and_lowers_the_next():
    """The loss handed back is that of loss_and_gradients before the step, and training on one batch reduces it."""
    realization, placed = _small(Adam()).realize()
    before, _ = realization.loss_and_gradients(placed, STEP)
    assert float(realization.train_step(placed, STEP)) == pytest.approx(before, rel=1e-5)
    for number in range(1, 8):
        last = float(realization.train_step(placed, Step(number, 5e-3, STEP.margin)))
    assert last < before


def test_schedules_do_not_retrace():
    """Other learning rates and margins run the same trace."""
    realization, placed = _small().realize()
    for number in range(3):
        realization.train_step(placed, Step(number, 1e-3 * (number + 1), 0.1 * (number + 1)))
    assert realization._train.experimental_get_tracing_count() == 1


def test_two_realizations_share_nothing():
    """Training one realization leaves another, and the arrays both started from, as they were."""
    case = _small()
    first = {name: value.copy() for name, value in case.parameters.items()}
    (trained, placed), (idle, _) = case.realize(), case.realize()
    trained.train_step(placed, STEP)
    for name, value in idle.parameters().items():
        np.testing.assert_array_equal(value, first[name])
        np.testing.assert_array_equal(case.parameters[name], first[name])
