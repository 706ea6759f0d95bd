"""The oracle against loops written from the paper, and its derivative against differences."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsbench.backend import Setting, Step
from capsbench.network import zoo
from capsbench.network.parameters import draw_parameters, dropout_masks
from capsbench.network.routing import EMRouting, InverseTemperature
from capsbench.network.shapes import bind
from capsbench_numpy.backend import BACKEND
from capsbench_numpy.routing import log_sigmoid, log_softmax, route, vote

SETTING = Setting("float64", precision="float64")
STEP = Step(0, 1e-3, 0.5)


def em_by_loops(votes, activations, beta_u, beta_a, routing):
    """Procedure 1 of the paper for one position: votes [i, j, 16], scalar by scalar."""
    children, parents, elements = votes.shape
    r = [[1.0 / parents] * parents for _ in range(children)]
    for t in range(routing.iterations):
        lam = routing.inverse_temperature.at(t)
        mean, variance, logit = {}, {}, {}
        for j in range(parents):
            mass = sum(r[i][j] * activations[i] for i in range(children))
            cost = 0.0
            for h in range(elements):
                mean[j, h] = sum(r[i][j] * activations[i] * votes[i, j, h] for i in range(children)) / (
                    mass + routing.epsilon
                )
                spread = sum(r[i][j] * activations[i] * (votes[i, j, h] - mean[j, h]) ** 2 for i in range(children))
                variance[j, h] = spread / (mass + routing.epsilon) + routing.variance_floor
                cost += (beta_u[j] + 0.5 * math.log(variance[j, h])) * mass
            logit[j] = lam * (beta_a[j] - cost)
        for i in range(children):
            densities = []
            for j in range(parents):
                density = 1.0 / (1.0 + math.exp(-logit[j]))
                for h in range(elements):
                    gap = (votes[i, j, h] - mean[j, h]) ** 2
                    density *= math.exp(-gap / (2 * variance[j, h])) / math.sqrt(variance[j, h])
                densities.append(density)
            r[i] = [density / sum(densities) for density in densities]
    poses = np.array([[mean[j, h] for h in range(elements)] for j in range(parents)])
    return poses, np.array([logit[j] for j in range(parents)])


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_routing_is_procedure_1(iterations):
    """Vectorised routing equals the paper's procedure written as loops over scalars."""
    generator = np.random.default_rng(iterations)
    children, parents = 5, 3
    votes = generator.standard_normal((1, 1, children, parents, 16))
    activations = generator.random((1, 1, children))
    beta_u, beta_a = generator.standard_normal(parents), generator.standard_normal(parents)
    routing = EMRouting(iterations=iterations, inverse_temperature=InverseTemperature(final=0.2))
    routed = route(votes, activations, beta_u, beta_a, routing, np.arange(children)[None])
    poses, logits = em_by_loops(votes[0, 0], activations[0, 0], beta_u, beta_a, routing)
    np.testing.assert_allclose(routed.poses[0, 0], poses, rtol=1e-12)
    np.testing.assert_allclose(routed.logits[0, 0], logits, rtol=1e-12)
    np.testing.assert_allclose(routed.activations[0, 0], 1 / (1 + np.exp(-logits)), rtol=1e-12)


def test_votes_are_matrix_products():
    """A vote is the child's 4x4 pose times the 4x4 transform, in this order."""
    generator = np.random.default_rng(0)
    poses, transforms = generator.standard_normal((1, 2, 3, 16)), generator.standard_normal((3, 2, 4, 4))
    expected = poses[0, 1, 2].reshape(4, 4) @ transforms[2, 1]
    np.testing.assert_allclose(vote(poses, transforms)[0, 1, 2, 1].reshape(4, 4), expected)


def test_competition_over_all_positions():
    """A child that stands at two positions shares itself out over the parents of both together."""
    generator = np.random.default_rng(0)
    votes = generator.standard_normal((1, 2, 2, 3, 16))
    activations = generator.random((1, 2, 2))
    owner = np.array([[0, 1], [1, 2]])  # child 1 stands at both positions
    routing = EMRouting(iterations=2, competition="all_positions", inverse_temperature=InverseTemperature(final=1e-9))
    routed = route(votes, activations, np.zeros(3), np.zeros(3), routing, owner)
    # With a lambda of nearly zero all activations are 1/2; the M-step before gives mean and variance by hand.
    start = np.array([[1 / 3, 1 / 6], [1 / 6, 1 / 3]])[None, :, :, None] * activations[..., None]
    weights = start / (start.sum(2, keepdims=True) + 1e-8)
    mean = (weights[..., None] * votes).sum(2, keepdims=True)
    variance = (weights[..., None] * (votes - mean) ** 2).sum(2, keepdims=True) + routing.variance_floor
    density = np.exp((-0.5 * np.log(variance) - (votes - mean) ** 2 / (2 * variance)).sum(-1))
    total = np.array([density[0, 0, 0].sum(), density[0, 0, 1].sum() + density[0, 1, 0].sum(), density[0, 1, 1].sum()])
    shares = density / total[owner][None, :, :, None]
    rho = shares * activations[..., None]
    expected = (rho[..., None] * votes).sum(2) / (rho.sum(2)[..., None] + 1e-8)
    np.testing.assert_allclose(routed.poses, expected, rtol=1e-6)


@pytest.mark.parametrize("name", zoo.names())
def test_derivative_is_the_slope(name):
    """The complex step agrees with central differences of the loss along a random direction."""
    image = (28, 28, 1) if name in {"efficient", "em-tiny", "cnn-tiny"} else (22, 22, 1)  # the others are large
    bound = bind(zoo.load(name), image, 10)
    parameters = draw_parameters(bound, 0)
    generator = np.random.default_rng(0)
    images = generator.random((2, *image), dtype=np.float32)
    oracle = BACKEND.realize(bound, parameters, SETTING)
    placed = oracle.place(images, np.array([3, 7]), dropout_masks(bound, 2, 0, 0))
    direction = {
        key: generator.standard_normal(value.shape) / np.sqrt(value.size)
        for key, value in parameters.items()
        if "moving" not in key
    }
    exact = oracle.directional_derivative(placed, STEP, direction)

    def loss(shift):
        moved = {key: value + shift * direction.get(key, 0.0) for key, value in parameters.items()}
        return BACKEND.realize(bound, moved, SETTING).loss(placed, STEP)

    h = 1e-6
    # Kinks of ReLU and max pooling lie nowhere near at this step; curvature is what is left.
    assert exact == pytest.approx((loss(h) - loss(-h)) / (2 * h), rel=2e-3, abs=1e-7)


def input_activation_effect(name):
    """How much the scores move, relatively, when primary activations change and poses do not."""
    bound = bind(zoo.load(name), (28, 28, 1), 10)
    parameters = draw_parameters(bound, 0)
    images = np.random.default_rng(0).random((1, 28, 28, 1), dtype=np.float32)
    oracle = BACKEND.realize(bound, parameters, SETTING)
    placed = oracle.place(images, np.array([3]), {})
    direction = {"primary.activation_biases": np.linspace(-1, 1, parameters["primary.activation_biases"].size)}
    return abs(oracle.directional_derivative(placed, STEP, direction))


@pytest.mark.parametrize("name", ["em-paper", "em-68k"])
def test_input_activations_matter(name):
    """The loss depends on the activations of the capsules below."""
    assert input_activation_effect(name) > 1e-4


def test_the_seed_cancels_input_activations():
    """In the seed they cancel: r * a / sum_j(r * a) = r, because the assignments r sum to one over the parents.

    What is left is the epsilon in the denominator.
    """
    assert zoo.load("em-seed").routing.renormalise_input
    assert input_activation_effect("em-seed") < 1e-7


@given(st.lists(st.floats(-800, 800), min_size=1, max_size=8))
def test_log_functions_never_overflow(values):
    """Log-sigmoid and log-softmax are finite, at most zero, and add up to one where they must."""
    logits = np.array(values)
    assert np.isfinite(log_sigmoid(logits)).all()
    assert (log_sigmoid(logits) <= 0).all()
    assert np.exp(log_softmax(logits)).sum() == pytest.approx(1.0)
