# ruff: noqa: D102 - the methods of a test double say nothing new
from dataclasses import replace

import numpy as np
import pytest
from capsbench_fake import BACKEND

from capsbench.backend import Setting
from capsbench.network import zoo
from capsbench.network.parameters import draw_parameters
from capsbench.network.shapes import bind
from capsbench.worker import parity
from capsbench.worker.parity import batch_size, check_parity, describe_failure


class Softened:
    """The fake backend with its gradients changed."""

    name = "fake"

    def __init__(self, change):
        self._change = change

    def realize(self, bound, parameters, setting):
        realization = BACKEND.realize(bound, parameters, setting)
        right = realization.loss_and_gradients
        realization.loss_and_gradients = lambda placed, step: self._change(*right(placed, step))
        return realization


@pytest.fixture
def check(make_case):
    """A function that checks a backend on the linear network."""
    bound = bind(make_case().network, (28, 28, 1), 10)
    images = np.random.default_rng(1).random((2, 28, 28, 1), dtype=np.float32)
    labels = np.array([3, 7])

    def run(backend, mode="fast", precision="float32", seed=0):
        setting = Setting(mode, precision=precision)
        parameters = draw_parameters(bound, 0)
        return check_parity(backend, bound, setting, parameters, images, labels=labels, seed=seed)

    return run


def test_the_right_thing_passes(check):
    """A correct realization lies within the limits, in float32 and far closer in float64."""
    assert check(BACKEND).passed
    double = check(BACKEND, precision="float64")
    assert double.passed
    assert max(double.forward_max_relative_error, double.gradient_relative_error) < 1e-12


def test_wrong_scores_fail(check):
    """Scores that are a thousandth off are found out, by that much."""
    found = check(BACKEND, "wrong")
    assert not found.passed
    assert found.forward_max_relative_error == pytest.approx(1e-3, rel=0.01)
    assert "forward error 0.001 (limit 1e-05)" in describe_failure(found)


@pytest.mark.parametrize("seed", range(5))
def test_one_wrong_tensor_fails(check, seed):
    """A small tensor a hundredth off shows beside a large one, whatever the directions."""
    found = check(BACKEND, "wrong-gradient", seed=seed)
    assert not found.passed
    assert found.gradient_relative_error > 1e-4
    assert found.forward_max_relative_error < 1e-5


def test_error_estimates_the_relative_error_of_the_tensor(check):
    """Over many directions the root mean square of the error is the wrong tensor's relative error."""
    factor = 1.05

    def change(loss, gradients):
        return loss, {name: g * (factor if name.endswith("biases") else 1.0) for name, g in gradients.items()}

    # Each check reports the worse of two draws: the mean of the larger of two squares exceeds the mean square.
    errors = [check(Softened(change), precision="float64", seed=seed).gradient_relative_error for seed in range(60)]
    relative = (factor - 1.0) / factor
    assert relative < np.sqrt(np.mean(np.square(errors))) < 2.0 * relative


@pytest.mark.parametrize(
    "change",
    [
        lambda loss, g: (loss, {name: value for name, value in g.items() if name.endswith("weights")}),
        lambda loss, g: (loss, {name: value.T for name, value in g.items()}),
        lambda loss, g: (loss, {name: value * np.nan for name, value in g.items()}),
        lambda loss, g: (loss, {name: value * 0.0 for name, value in g.items()}),
        lambda _, g: (np.nan, g),
        lambda loss, g: (loss * 1.001, g),
    ],
    ids=["missing", "transposed", "nan", "zero", "nan-loss", "loss"],
)
def test_other_mistakes_fail(check, change):
    """Missing, misshapen, non-finite and vanished gradients fail, and so does a wrong loss."""
    assert not check(Softened(change)).passed


def test_a_gradient_of_rounding_noise_passes(check):
    """A tensor whose gradient is noise, far below the others, is not held to a relative error of its own."""

    def change(loss, gradients):
        noise = 1e-9 * np.random.default_rng(0).standard_normal(10)
        return loss, {name: g + noise if name.endswith("biases") else g for name, g in gradients.items()}

    assert check(Softened(change)).passed


def test_large_networks_are_checked_on_one_image():
    """The oracle works on one image where votes run into the millions."""
    small = bind(zoo.load("em-tiny"), (28, 28, 1), 10)
    large = replace(small, layers=tuple(small.layers) * 50)
    assert batch_size(small) == 2
    assert sum(layer.routing.votes for layer in large.layers if layer.routing) > parity.LARGE_VOTE_ELEMENTS
    assert batch_size(large) == 1


def test_normalised_class_capsules_are_checked_on_four_images():
    """Of two, their normalisation would make 1 and -1 whatever they are."""
    bound = bind(zoo.load("vb"), (28, 28, 1), 10)
    assert batch_size(bound) == 4
    plain = replace(bound.network, routing=replace(bound.network.routing, normalisation=None))
    assert batch_size(replace(bound, network=plain)) == 2
