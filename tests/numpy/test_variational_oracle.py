"""Variational Bayes routing in the oracle: digamma, the authors' terms as loops, floors, and normalised capsules."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsbench.backend import Setting, Step
from capsbench.network import zoo
from capsbench.network.initial import Normal
from capsbench.network.layers import ClassCapsules, Conv, ConvCapsules, Normalisation, PrimaryCapsules
from capsbench.network.network import Network
from capsbench.network.objective import CrossEntropy, Objective
from capsbench.network.parameters import cancelled_biases, draw_parameters
from capsbench.network.routing import VBRouting
from capsbench.network.shapes import bind
from capsbench_numpy.backend import BACKEND
from capsbench_numpy.layers import run
from capsbench_numpy.variational import digamma, route

EULER = 0.57721566490153286061
STEP = Step(0, 0.0, 0.5)
OWNER = np.array([[0, 1, 2], [1, 2, 3]])


def authors_routing(votes, activations, variant, owner, beta_u, beta_a):
    """Routing as the authors' code writes it, in its own terms, with loops over positions, parents and children.

    Votes [p, i, j, 16], activations [p, i]. Means and squares are weighted ones of the votes, which the prior joins.
    """
    positions, children, parents, _ = votes.shape
    share = {(p, i, j): 1.0 / parents for p in range(positions) for i in range(children) for j in range(parents)}
    for iteration in range(variant.iterations):
        means, logits, density, alpha = np.zeros((positions, parents, 16)), np.zeros((positions, parents)), {}, {}
        for p in range(positions):
            for j in range(parents):
                alpha[p, j] = variant.prior_alpha + sum(share[p, i, j] * activations[p, i] for i in range(children))
        for p in range(positions):
            expected_weight = {
                j: digamma(alpha[p, j]) - digamma(sum(alpha[p, k] for k in range(parents))) for j in range(parents)
            }
            for j in range(parents):
                weight = [share[p, i, j] * activations[p, i] for i in range(children)]
                mass = sum(weight)
                kappa, nu = variant.prior_kappa + mass, variant.prior_nu + mass
                mu = sum(w * votes[p, i, j] for i, w in enumerate(weight)) / mass
                sigma = sum(w * (votes[p, i, j] - mu) ** 2 for i, w in enumerate(weight))
                means[p, j] = mass * mu / kappa
                inverse = variant.prior_psi + sigma + variant.prior_kappa * mass / kappa * mu**2
                log_lambda = sum(digamma((nu - d) / 2) for d in range(16)) + 16 * math.log(2) - np.log(inverse).sum()
                entropy = 8 * math.log(2 * math.pi * math.e) - log_lambda / 2
                logits[p, j] = beta_a[j] - (math.exp(expected_weight[j]) * entropy + beta_u[j])
                for i in range(children):
                    square = 16 / kappa + nu * ((votes[p, i, j] - means[p, j]) ** 2 / inverse).sum()
                    log_p = log_lambda / 2 - 8 * math.log(2 * math.pi) - square / 2
                    density[p, i, j] = math.exp(expected_weight[j] + log_p)
        if iteration == variant.iterations - 1:
            return means, logits
        everywhere = variant.competition == "all_positions"
        for p, i, j in share:
            rivals = [key for key in density if owner[key[0], key[1]] == owner[p, i] and (everywhere or key[0] == p)]
            share[p, i, j] = density[p, i, j] / max(sum(density[key] for key in rivals), variant.density_floor)
    raise AssertionError


@pytest.mark.parametrize("competition", ["position", "all_positions"])
@pytest.mark.parametrize("spread", [0.3, 2.0])
def test_routing_is_the_authors(competition, spread):
    """Squares completed about the pose give what the authors' weighted means do, for any priors; so do all floors.

    Votes that spread widely have densities below the floor, so that it decides.
    """
    generator = np.random.default_rng(0)
    votes, activations = spread * generator.standard_normal((2, 3, 4, 16)), generator.random((2, 3))
    beta_u, beta_a = generator.standard_normal((2, 4))
    for variant in (
        VBRouting(competition=competition),
        VBRouting(
            competition=competition,
            iterations=2,
            prior_alpha=0.3,
            prior_kappa=2.0,
            prior_nu=15.5,
            prior_psi=0.4,
            density_floor=1e-12,
        ),
    ):
        own = {"beta_u": beta_u, "beta_a": beta_a}
        poses, logits = route(votes[None], activations[None], own, variant, OWNER)
        expected = authors_routing(votes, activations, variant, OWNER, beta_u, beta_a)
        np.testing.assert_allclose(poses[0], expected[0], rtol=1e-10)
        np.testing.assert_allclose(logits[0], expected[1], rtol=1e-10)


def test_digamma_at_known_values():
    """Gauss's values at 1, 1/2 and 1/4, and a large one, to 1e-13."""
    known = {
        1.0: -EULER,
        0.5: -EULER - 2 * math.log(2),
        0.25: -EULER - math.pi / 2 - 3 * math.log(2),
        2.0: 1 - EULER,
        100.0: 4.60016185273808740,
    }
    np.testing.assert_allclose(digamma(np.array([*known])), [*known.values()], rtol=1e-13)


def test_digamma_differentiates():
    """The complex step gives the trigamma function: pi^2 / 6 at 1, pi^2 / 2 at 1/2, and the recurrence's at 3."""
    slopes = digamma(np.array([1.0, 0.5, 3.0]) + 1e-30j).imag / 1e-30
    np.testing.assert_allclose(slopes, [math.pi**2 / 6, math.pi**2 / 2, math.pi**2 / 6 - 1.25], rtol=1e-13)


@given(st.floats(0.05, 1e6), st.floats(-10.0, 10.0))
def test_digamma_has_its_recurrence(real, imaginary):
    """psi(z + 1) = psi(z) + 1 / z wherever the real part is positive."""
    z = np.array([complex(real, imaginary)])
    np.testing.assert_allclose(digamma(z + 1.0), digamma(z) + 1.0 / z, rtol=1e-12)


def test_a_child_that_is_far_from_everybody_is_nobodys():
    """Below the floor of the densities a child's assignments vanish, and without a floor they sum to one."""
    votes = 0.1 * np.random.default_rng(0).standard_normal((1, 1, 5, 2, 16))
    votes[0, 0, 0] += 40.0
    own = {"beta_u": np.zeros(2), "beta_a": np.zeros(2)}
    sums = []
    for floor in (1e-8, 0.0):
        seen = []
        variant = VBRouting(density_floor=floor)
        route(votes, np.full((1, 1, 5), 0.2), own, variant, np.arange(5)[None], lambda r, _m, _v, to=seen: to.append(r))
        sums.append(seen[-1][0, 0].sum(-1))
    assert sums[0][0] < 1e-3
    np.testing.assert_allclose(sums[0][1:], 1.0, rtol=1e-9)
    np.testing.assert_allclose(sums[1], 1.0, rtol=1e-12)


def test_parents_of_nobody():
    """Where all children are inactive the posterior is the prior: poses of zero, and no division by the mass."""
    votes = np.random.default_rng(0).standard_normal((1, 1, 3, 2, 16))
    own = {"beta_u": np.zeros(2), "beta_a": np.zeros(2)}
    seen = []
    poses, logits = route(
        votes, np.zeros((1, 1, 3)), own, VBRouting(), np.arange(3)[None], lambda *each: seen.append(each[2])
    )
    assert not poses.any()
    assert not np.any(seen)
    log_lambda = sum(digamma(np.array((17 - d) / 2)) for d in range(16)) + 16 * math.log(2)
    weight = math.exp(digamma(np.array(1.0)) - digamma(np.array(2.0)))
    np.testing.assert_allclose(logits, -weight * (8 * math.log(2 * math.pi * math.e) - log_lambda / 2), rtol=1e-12)


def small(normalisation):
    """A small network, normalised or not."""
    layers = (
        Conv(name="conv", channels=3, kernel=3, stride=2),
        PrimaryCapsules(name="primary", capsules=2, normalisation=normalisation),
        ConvCapsules(name="caps", capsules=3, kernel=2, initial_beta_a=Normal(std=0.1)),
        ClassCapsules(name="classes", initial_beta_u=Normal(std=0.1)),
    )
    objective = Objective(loss=CrossEntropy())
    return Network(name="small", layers=layers, routing=VBRouting(normalisation=normalisation), objective=objective)


def test_capsules_are_normalised_type_by_type():
    """In training each type's poses have mean 0 and variance 1 over batch, places and elements; so have its logits.

    The logits' are seen through the activations. At evaluation the moving statistics stand in.
    """
    bound = bind(small(Normalisation(epsilon=1e-12)), (11, 12, 2), 3)
    parameters = draw_parameters(bound, 0)
    images = np.random.default_rng(0).random((4, 11, 12, 2))
    output = run(bound, parameters, images, {})
    np.testing.assert_allclose(output.values.mean((0, 2)), 0.0, atol=1e-8)
    np.testing.assert_allclose(output.values.var((0, 2)), 1.0, rtol=1e-4)
    logits = np.log(output.activations / (1.0 - output.activations))
    np.testing.assert_allclose([logits.mean(0), logits.var(0)], [[0.0] * 3, [1.0] * 3], atol=1e-5)
    assert output.scores is output.activations
    plain = run(bound, parameters, images)
    means = np.array([1.0, 2.0, 3.0])
    moved = run(bound, {**parameters, "classes.pose_moving_mean": means}, images)
    np.testing.assert_allclose(plain.values - moved.values, np.tile(means[:, None], (4, 1, 16)))


@pytest.mark.parametrize("normalisation", [None, Normalisation()])
def test_offsets_that_are_normalised_move_nothing(normalisation):
    """beta_u, beta_a and the biases of primary logits have a gradient if and only if nothing is normalised."""
    bound = bind(small(normalisation), (11, 12, 2), 3)
    cancelled = {"caps.beta_u", "caps.beta_a", "classes.beta_u", "classes.beta_a", "primary.activation_biases"}
    assert cancelled_biases(bound).keys() == (cancelled if normalisation else set())
    parameters = draw_parameters(bound, 0)
    oracle = BACKEND.realize(bound, parameters, Setting("float64"))
    placed = oracle.place(np.random.default_rng(0).random((4, 11, 12, 2), dtype=np.float32), np.arange(4) % 3, {})
    for name in cancelled:
        direction = {name: np.random.default_rng(1).standard_normal(parameters[name].shape)}
        slope = oracle.directional_derivative(placed, STEP, direction)
        assert (abs(slope) < 1e-12) == (normalisation is not None), name


def test_class_capsules_compete_at_their_position():
    """Of class capsules a child has no others, so the published competition is that at a position."""
    routing = zoo.load("vb").routing
    layers = zoo.load("vb").layers
    assert routing.of(layers[-1]) == replace(routing, competition="position")
    assert routing.of(layers[-2]) is routing


def test_routing_draws_votes_together():
    """Children begin undecided, and end nearer to the poses of parents that they chose."""
    bound = bind(small(None), (11, 12, 2), 3)
    parameters = {key: 3.0 * value for key, value in draw_parameters(bound, 0).items()}
    oracle = BACKEND.realize(bound, parameters, Setting("float64"))
    placed = oracle.place(np.random.default_rng(0).random((2, 11, 12, 2), dtype=np.float32), np.arange(2), {})
    state = oracle.inspect(placed)["caps"].routing
    np.testing.assert_allclose(state.coupling_entropy[:, 0], 1.0)
    assert (state.coupling_entropy[:, -1] < 0.99).all()
    assert (state.vote_distance[:, -1] < state.vote_distance[:, 0]).all()
