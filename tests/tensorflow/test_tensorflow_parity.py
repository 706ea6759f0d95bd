"""TensorFlow against the oracle, against itself in float64, and one mode against the other."""

import pytest
from exhaustive import in_short

pytest.importorskip("tensorflow")

import numpy as np
import tensorflow as tf
from networks_for_tensorflow import (
    BATCHES,
    BAYES,
    SELF_ROUTED,
    SMALLER,
    STEP,
    VARIANTS,
    VECTORS,
    ZOO,
    bayes_network,
    case_of,
    relative_error,
    residual_network,
    self_routed_network,
    tensors,
    variant,
    vector_network,
    zoo_network,
)

from capsbench.backend import Setting
from capsbench.worker.parity import describe_failure
from capsbench_numpy.backend import BACKEND as ORACLE
from capsbench_tensorflow.vectors import length, squash

pytestmark = pytest.mark.tensorflow


def _oracle(case):
    oracle = ORACLE.realize(case.bound, case.parameters, Setting("float64"))
    return oracle, oracle.place(case.images, case.labels, case.masks)


def _check_gradients(case, oracle, placed_there, gradients):
    """The gradient points the loss where the oracle's exact derivative along a random direction says."""
    generator = np.random.default_rng(11)
    direction = {name: generator.standard_normal(g.shape) * (g.std() + 1e-12) for name, g in gradients.items()}
    exact = oracle.directional_derivative(placed_there, STEP, direction)
    mine = sum(float((gradients[name] * direction[name]).sum()) for name in gradients)
    scale = sum(float(np.abs(gradients[name] * direction[name]).sum()) for name in gradients)
    assert abs(mine - exact) <= 1e-9 * scale
    assert scale > 0.0


def _check_float64(case, mode):
    oracle, there = _oracle(case)
    realization, placed = case.realize(mode, "float64")
    for mine, exact in zip(tensors(realization.forward(placed)), tensors(oracle.forward(there)), strict=True):
        assert relative_error(mine, exact) <= 1e-10
    loss, gradients = realization.loss_and_gradients(placed, STEP)
    assert loss == pytest.approx(oracle.loss(there, STEP), rel=1e-10)
    _check_gradients(case, oracle, there, gradients)
    return gradients


@pytest.mark.parametrize("name", VARIANTS)
def test_routing_variants_agree_with_the_oracle_in_both_formulations(name):
    """Every routing variant computes the oracle's numbers and derivatives, and both modes the same gradients."""
    case = case_of(variant(name), 2, image=(20, 20, 1), classes=4)
    graph, tiled = _check_float64(case, "graph"), _check_float64(case, "tiled")
    largest = max(np.abs(gradient).max() for gradient in graph.values())
    for tensor, gradient in graph.items():
        assert np.abs(gradient - tiled[tensor]).max() <= 1e-11 * largest, tensor


# Of their formulations, em-68k, em-tuned and the variants hold in short what they hold.
HEAVY = {"em-paper", "em-official", "em-ibm"}


@pytest.mark.parametrize("name", in_short(ZOO, lambda name: name not in HEAVY))
def test_zoo_networks_hold_in_float32(name):
    """Every network of the zoo agrees with the oracle in float64, and passes the gate in float32.

    How much float32 may err follows from float64's own error on the same images: `capsbench.worker.rounding`.
    """
    two_channels = name in {"cnn-paper", "em-68k"}
    image = SMALLER.get(name, (32, 32, 2) if two_channels else (28, 28, 1))
    case = case_of(zoo_network(name), BATCHES.get(name, 1), image=image)
    _check_float64(case, "graph")
    found = case.judged("graph")
    assert found.passed, describe_failure(found)


@pytest.mark.parametrize("name", BAYES)
def test_variational_bayes_agrees_with_the_oracle_in_both_formulations(name):
    """Any priors, floors and normalisations give the oracle's numbers and derivatives, and both modes the same ones."""
    case = case_of(bayes_network(name), 4, image=(10, 12, 2), classes=3)
    graph, tiled = _check_float64(case, "graph"), _check_float64(case, "tiled")
    largest = max(np.abs(gradient).max() for gradient in graph.values())
    for tensor, gradient in graph.items():
        assert np.abs(gradient - tiled[tensor]).max() <= 1e-11 * largest, tensor


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_agree_with_the_oracle_in_both_formulations(name):
    """Vector layers and their routings compute the oracle's numbers and derivatives, and both modes the same ones."""
    case = case_of(vector_network(name), 2, image=(10, 9, 2), classes=3)
    graph, tiled = _check_float64(case, "graph"), _check_float64(case, "tiled")
    largest = max(np.abs(gradient).max() for gradient in graph.values())
    for tensor, gradient in graph.items():
        assert np.abs(gradient - tiled[tensor]).max() <= 1e-11 * largest, tensor


@pytest.mark.parametrize("name", SELF_ROUTED)
def test_self_routing_agrees_with_the_oracle_in_both_formulations(name):
    """Layers that route themselves compute the oracle's numbers and derivatives, and both modes the same ones."""
    case = case_of(self_routed_network(name), 2, image=(10, 10, 2), classes=3)
    graph, tiled = _check_float64(case, "graph"), _check_float64(case, "tiled")
    largest = max(np.abs(gradient).max() for gradient in graph.values())
    for tensor, gradient in graph.items():
        assert np.abs(gradient - tiled[tensor]).max() <= 1e-11 * largest, tensor


@pytest.mark.parametrize(("stride", "size"), [(1, "all"), (2, 2), (3, "all")])
def test_blocks_agree_with_the_oracle(stride, size):
    """Residual blocks of every stride, and both kinds of pooling, compute the oracle's numbers and derivatives."""
    _check_float64(case_of(residual_network(stride, size), 2, image=(10, 9, 2), classes=3), "graph")


@pytest.mark.parametrize("how", ["rational", "exponential"])
def test_the_squash_has_a_gradient_at_zero(how):
    """A capsule of zeros has a finite gradient in float32, and so has its length."""
    dead = tf.zeros((2, 8))
    with tf.GradientTape() as tape:
        tape.watch(dead)
        short = squash(dead, how)
        total = tf.reduce_sum(short) + tf.reduce_sum(length(short))
    assert np.isfinite(tape.gradient(total, dead).numpy()).all()
    assert not short.numpy().any()


def test_the_seed_network_in_tiled_mode_agrees_with_the_oracle():
    """The 2018 formulation of the 2018 network computes the oracle's numbers and derivatives."""
    _check_float64(case_of(zoo_network("em-seed"), 1), "tiled")


def test_xla_agrees_with_the_oracle():
    """The compiled graph computes the oracle's numbers and derivatives, shifted densities included."""
    _check_float64(case_of(variant("shifted", iterations=2), 1, image=(20, 20, 1), classes=4), "xla")


@pytest.mark.parametrize(
    "network",
    [
        vector_network("agreement"),
        vector_network("attention"),
        self_routed_network("padded"),
        residual_network(2, "all"),
    ],
    ids=lambda each: each.name,
)
def test_xla_agrees_with_the_oracle_beyond_em(network):
    """So does that of vectors, depthwise convolutions, self-routing and residual blocks."""
    _check_float64(case_of(network, 1, image=(10, 9, 2), classes=3), "xla")
