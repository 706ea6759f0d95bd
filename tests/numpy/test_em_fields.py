"""Routing fields of single implementations against loops and hand-scaled parameters, in the oracle."""

import math
from dataclasses import replace

import numpy as np
import pytest

from capsbench.backend import Setting, Step
from capsbench.network import zoo
from capsbench.network.initial import Filled
from capsbench.network.layers import BatchNorm, ClassCapsules, Conv, ConvCapsules, PrimaryCapsules
from capsbench.network.network import Network
from capsbench.network.objective import Objective, SpreadLoss
from capsbench.network.parameters import draw_parameters
from capsbench.network.routing import EMRouting, InverseTemperature
from capsbench.network.shapes import bind
from capsbench_numpy.backend import BACKEND
from capsbench_numpy.layers import run
from capsbench_numpy.routing import route

SETTING = Setting("float64", precision="float64")
STEP = Step(0, 1e-3, 0.5)
LOG_2_PI = math.log(2 * math.pi)


def authors_routing(votes, activations, sigma_bias, activation_bias, owner, final):
    """Three iterations as the authors' code writes them, in its own terms, with loops over parents and children.

    Votes [p, i, j, 16], activations [p, i], biases one number. Parents of all positions and types compete.
    """
    positions, children, parents, elements = votes.shape
    slots = [(p, i) for p in range(positions) for i in range(children)]
    posterior = {(p, i, j): 1.0 / parents for p, i in slots for j in range(parents)}
    centre = np.zeros((positions, parents, elements))
    for t in range(3):
        beta = final * (1 - 0.95 ** (t + 1))
        logit, density = np.zeros((positions, parents)), {}
        for p in range(positions):
            for j in range(parents):
                weight = [posterior[p, i, j] * activations[p, i] for i in range(children)]
                mass = sum(weight) + 1e-7
                new = sum(w * votes[p, i, j] for i, w in enumerate(weight)) / mass
                centre[p, j] = 0.9 * new + 0.1 * centre[p, j]
                noise = (votes[p, :, j] - centre[p, j]) ** 2
                variance = 5e-4 + sum(w * noise[i] for i, w in enumerate(weight)) / mass
                win = mass * (-np.log(variance).sum() - sigma_bias * 16 * (LOG_2_PI + 1.0))
                logit[p, j] = beta * (win - activation_bias * 5000)
                active = -math.log1p(math.exp(-logit[p, j]))
                for i in range(children):
                    constant = (16 * LOG_2_PI + np.log(variance).sum()) / 2
                    density[p, i, j] = math.exp(active - constant - (noise[i] / (2 * variance)).sum())
        for child in set(owner.ravel().tolist()):
            own = [(p, i, j) for p, i in slots if owner[p, i] == child for j in range(parents)]
            total = sum(density[key] for key in own)
            for key in own:
                posterior[key] = density[key] / total
    return centre, logit


def test_the_official_formulation_is_the_authors():
    """em-official's routing fields make of the authors' biases what their own terms make of them.

    Their mass carries its 1e-7 into the cost too, which is all that separates the two.
    """
    generator = np.random.default_rng(0)
    votes = generator.normal(0.0, 0.4, (2, 4, 3, 16))
    activations = generator.random((2, 4))
    owner = np.array([[0, 1, 2, 3], [2, 3, 4, 5]])
    routing = zoo.load("em-official").routing
    poses, logits = authors_routing(votes, activations, 0.5, 0.02, owner, 0.01)
    own = routing.scaled({"beta_u": np.full(3, 0.5), "beta_a": np.full(3, 0.02)})
    routed = route(votes[None], activations[None], own["beta_u"], own["beta_a"], routing, owner)
    np.testing.assert_allclose(routed.poses[0], poses, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(routed.logits[0], logits, rtol=1e-6)
    # In the class layer the temperature, and with it every logit of the first iteration, is a quarter.
    once = replace(routing, iterations=1)
    conv, last = (
        route(votes[None], activations[None], own["beta_u"], own["beta_a"], once.of(layer), owner).logits
        for layer in (ConvCapsules(name="c", capsules=3, kernel=1), ClassCapsules(name="k"))
    )
    np.testing.assert_allclose(last, conv / 4, rtol=1e-12)


def test_damping_by_hand():
    """Each mean keeps a share of the one before, of 0 at first, and the variance is about the damped mean."""
    generator = np.random.default_rng(1)
    votes, activations = generator.standard_normal((1, 1, 5, 2, 16)), generator.random((1, 1, 5))
    # With next to no temperature all activations are 1/2, and only densities shift assignments.
    routing = EMRouting(iterations=2, damping=0.3, inverse_temperature=InverseTemperature(final=1e-12))
    routed = route(votes, activations, np.zeros(2), np.zeros(2), routing, np.arange(5)[None])
    v, shares, centre = votes[0, 0], np.full((5, 2), 0.5), np.zeros((2, 16))
    for _ in range(2):
        weights = shares * activations[0, 0][:, None]
        weights = weights / weights.sum(0)
        centre = 0.7 * np.einsum("ij,ijh->jh", weights, v) + 0.3 * centre
        variance = np.einsum("ij,ijh->jh", weights, (v - centre) ** 2) + routing.variance_floor
        density = np.exp(-((v - centre) ** 2 / (2 * variance)).sum(-1)) / np.sqrt(variance.prod(-1))
        shares = density / density.sum(1, keepdims=True)
    np.testing.assert_allclose(routed.poses[0, 0], centre, rtol=1e-6)


@pytest.mark.parametrize(("first", "mass"), [("competitors", 1 / 6), ("position", 1 / 3)])
def test_first_assignments(first, mass):
    """A child at two positions starts with one share for all, or with a full one at each of them."""
    votes, owner = np.zeros((1, 2, 1, 3, 16)), np.array([[0], [0]])
    routing = EMRouting(iterations=1, competition="all_positions", first_assignments=first)
    shown = []
    route(votes, np.ones((1, 2, 1)), np.zeros(3), np.zeros(3), routing, owner, lambda *seen: shown.append(seen))
    np.testing.assert_allclose(shown[0][0], mass)
    np.testing.assert_allclose(shown[0][1], mass)


def realized(network, changed=None, image=(12, 12, 1), classes=3):
    bound = bind(network, image, classes)
    parameters = draw_parameters(bound, 0) if changed is None else changed
    oracle = BACKEND.realize(bound, parameters, SETTING)
    images = np.random.default_rng(0).random((2, *image), dtype=np.float32)
    return oracle, oracle.place(images, np.array([0, 1]), {}), parameters


def capsules(primary=None, **routing):
    start = {"initial_beta_u": Filled(value=0.25), "initial_beta_a": Filled(value=0.5)}
    layers = (
        Conv(name="conv", channels=3, kernel=5, stride=2),
        primary or PrimaryCapsules(name="primary", capsules=2),
        ConvCapsules(name="caps", capsules=3, kernel=3, **start),
        ClassCapsules(name="classes", **start),
    )
    return Network(name="n", layers=layers, routing=EMRouting(**routing), objective=Objective(loss=SpreadLoss()))


def test_scaled_offsets_are_rescaled_parameters():
    """A scale in the routing is the same as parameters that are larger by it, and scales their gradients."""
    scales = {"beta_u": 1.5, "beta_a": -40.0}
    scaled = capsules(beta_u_scale=scales["beta_u"], beta_a_scale=scales["beta_a"])
    ours, placed, parameters = realized(scaled)
    by_hand = {name: value * scales.get(name.rpartition(".")[2], 1.0) for name, value in parameters.items()}
    plain, there, _ = realized(capsules(), by_hand)
    np.testing.assert_allclose(ours.forward(placed).scores, plain.forward(there).scores, rtol=1e-12)
    for offset, scale in scales.items():
        along = {f"caps.{offset}": np.array([1.0, -2.0, 0.5])}
        slope = ours.directional_derivative(placed, STEP, along)
        assert slope == pytest.approx(scale * plain.directional_derivative(there, STEP, along), rel=1e-9)
        assert abs(slope) > 0


def test_an_offset_of_the_primary_logits_is_a_bias():
    """Without biases, an offset does what biases of that value do."""
    bare = capsules(PrimaryCapsules(name="primary", capsules=2, biases=False, activation_offset=-1.0))
    ours, placed, parameters = realized(bare)
    by_hand = parameters | {
        "primary.pose_biases": np.zeros(32, np.float32),
        "primary.activation_biases": np.full(2, -1.0, np.float32),
    }
    plain, there, _ = realized(capsules(), by_hand)
    np.testing.assert_allclose(ours.forward(placed).scores, plain.forward(there).scores, rtol=1e-12)


def by_loops(image, weights, biases, stride, before, after):
    """A convolution of [h, w, c] by loops over everything, in an image with zeros around it."""
    h, w, channels = image.shape
    kernel = len(weights)
    around = np.zeros((h + before + after, w + before + after, channels))
    around[before : before + h, before : before + w] = image
    rows = range(0, len(around) - kernel + 1, stride)
    return np.array(
        [
            [(around[y : y + kernel, x : x + kernel, :, None] * weights).sum((0, 1, 2)) + biases for x in rows]
            for y in rows
        ]
    )


@pytest.mark.parametrize(
    ("side", "padding", "before", "after"), [(8, "same", 1, 2), (9, "same", 2, 2), (8, 2, 2, 2), (9, "valid", 0, 0)]
)
def test_padded_convolution(side, padding, before, after):
    """A 5x5 convolution of stride 2 sees zeros where TensorFlow's rule, or the number, puts them."""
    network = replace(
        zoo.load("cnn-tiny"),
        layers=(
            Conv(name="c", channels=2, kernel=5, stride=2, padding=padding, activation="linear"),
            *zoo.load("cnn-tiny").layers[-1:],
        ),
    )
    bound = bind(network, (side, side, 2), 2)
    image = np.random.default_rng(0).standard_normal((1, side, side, 2))
    parameters = {name: value.astype(np.float64) for name, value in draw_parameters(bound, 0).items()}
    parameters["c.biases"] = np.array([0.5, -1.0])
    maps = by_loops(image[0], parameters["c.weights"], parameters["c.biases"], 2, before, after)
    assert bound.layers[0].output.height == len(maps)
    expected = maps.ravel() @ parameters["logits.weights"] + parameters["logits.biases"]
    np.testing.assert_allclose(run(bound, parameters, image).scores[0], expected, rtol=1e-12)


def test_batch_norm_activates():
    """A normalisation with an activation passes on what is positive, and nothing else."""
    layers = (
        BatchNorm(name="norm", center=False, scale=False, activation="relu"),
        *zoo.load("cnn-tiny").layers[-1:],
    )
    bound = bind(replace(zoo.load("cnn-tiny"), layers=layers), (1, 2, 1), 2)
    parameters = draw_parameters(bound, 0) | {"logits.weights": np.eye(2, dtype=np.float32)}
    scores = run(bound, parameters, np.array([[[[4.0], [-4.0]]]])).scores
    np.testing.assert_allclose(scores, [[4.0 / np.sqrt(1.001), 0.0]], rtol=1e-6)


def slopes(name):
    """Derivatives of the loss along the weights of the primary activations and of the primary poses."""
    bound = bind(zoo.load(name), (28, 28, 1), 10)
    parameters = draw_parameters(bound, 0)
    oracle = BACKEND.realize(bound, parameters, SETTING)
    image = np.random.default_rng(0).random((1, 28, 28, 1), dtype=np.float32)
    placed = oracle.place(image, np.array([3]), {})
    generator = np.random.default_rng(1)
    found = []
    for tensor in ("primary.activation_weights", "primary.pose_weights"):
        direction = generator.standard_normal(parameters[tensor].shape) * parameters[tensor].std()
        found.append(abs(oracle.directional_derivative(placed, STEP, {tensor: direction})))
    return found


@pytest.mark.parametrize("name", ["em-official", "em-ibm", "em-tuned"])
def test_input_activations_matter(name):
    """Where rho is not renormalised, the activations of primary capsules move the loss."""
    activations, poses = slopes(name)
    assert activations > 1e-3 * poses > 0


def test_yl_cancels_input_activations():
    """yl-1993 divides assignment times activation by its sum over the parents, as the seed does."""
    activations, poses = slopes("em-yl")
    assert activations < 1e-6 * poses
