"""Self-routing in the oracle, against loops over scalars, and what follows from its equations."""

import math

import numpy as np
import pytest

from capsbench.backend import Setting, Step
from capsbench.network import zoo
from capsbench.network.layers import SelfRoutedCapsules
from capsbench.network.parameters import draw_parameters, parameter_specs
from capsbench.network.routing import SelfRouting
from capsbench.network.shapes import bind
from capsbench_numpy.backend import BACKEND
from capsbench_numpy.selfrouting import choose, classify, gather, of_maps, patches, vote

CHILDREN, PARENTS, ELEMENTS, UPPER = 4, 3, 5, 2


def draw():
    """One position of one image: poses [i, k], activations [i], and what a layer has learned."""
    generator = np.random.default_rng(0)
    return (
        generator.standard_normal((CHILDREN, ELEMENTS)),
        generator.random(CHILDREN),
        generator.standard_normal((CHILDREN, ELEMENTS, PARENTS)),
        generator.standard_normal((CHILDREN, PARENTS)),
        generator.standard_normal((CHILDREN, PARENTS, ELEMENTS, UPPER)),
    )


def couplings_by_loops(poses, weights, biases):
    """Each child's softmax over the parents of a product with its pose, number by number."""
    made = []
    for i in range(CHILDREN):
        logits = [biases[i, j] + sum(weights[i, k, j] * poses[i, k] for k in range(ELEMENTS)) for j in range(PARENTS)]
        made.append([math.exp(logit) / sum(map(math.exp, logits)) for logit in logits])
    return made


def test_routing_by_loops():
    """Activations are means of couplings, poses means of votes, each weighted as the paper says."""
    poses, active, weights, biases, transforms = draw()
    r = couplings_by_loops(poses, weights, biases)
    mass = [sum(active[i] * r[i][j] for i in range(CHILDREN)) for j in range(PARENTS)]
    expected = [
        [
            sum(active[i] * r[i][j] * (poses[i] @ transforms[i, j, :, h]) for i in range(CHILDREN)) / mass[j]
            for h in (0, 1)
        ]
        for j in range(PARENTS)
    ]
    log_couplings = choose(poses[None, None], weights, biases)
    votes = vote(poses[None, None], transforms)
    found, activations = gather(votes, log_couplings, active[None, None], SelfRouting())
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-10)
    np.testing.assert_allclose(activations[0, 0], np.array(mass) / active.sum(), rtol=1e-10)
    classes = classify(log_couplings, active[None, None])
    np.testing.assert_allclose(np.exp(classes[0, 0]), np.array(mass) / active.sum(), rtol=1e-12)
    assert activations.sum() == pytest.approx(1.0)


def test_classes_that_nobody_chooses_are_ranked():
    """Couplings far below the smallest number leave finite, ordered scores, where a sum of them would be zero."""
    log_couplings = np.array([[[[-1e-9, -2000.0, -3000.0], [-1e-9, -2001.0, -3000.0]]]])
    scores = classify(log_couplings, np.array([[[0.5, 0.25]]]))[0, 0]
    assert scores[1] == pytest.approx(-2000.0 + math.log((0.5 + 0.25 * math.exp(-1.0)) / 0.75))
    assert scores[2] == pytest.approx(-3000.0)


def test_padding_is_of_silent_children():
    """Children around the maps weigh nothing: what is routed at the edge is what those inside say."""
    generator = np.random.default_rng(1)
    poses, active = generator.standard_normal((1, 2, 2, 1, 3)), generator.random((1, 2, 2, 1))
    spec = SelfRoutedCapsules(name="c", capsules=2, elements=2, kernel=2, stride=2, padding=1)
    children, activations = patches(poses, active, spec)
    assert children.shape == (1, 4, 4, 3)
    np.testing.assert_array_equal(activations[0, 0], [0.0, 0.0, 0.0, active[0, 0, 0, 0]])  # the top left window
    log_couplings = choose(children, generator.standard_normal((4, 3, 2)), generator.standard_normal((4, 2)))
    votes = vote(children, generator.standard_normal((4, 2, 3, 2)))
    found, parents = gather(votes, log_couplings, activations, SelfRouting())
    np.testing.assert_allclose(found[0, 0], votes[0, 0, 3], rtol=1e-9)
    np.testing.assert_allclose(parents[0, 0], np.exp(log_couplings[0, 0, 3]), rtol=1e-9)


def test_maps_hold_poses_first():
    """Channels are the poses, capsule by capsule, then a logit a capsule."""
    maps = np.arange(6.0).reshape(1, 1, 1, 6)
    poses, activations = of_maps(maps, 2)
    np.testing.assert_array_equal(poses[0, 0, 0], [[0.0, 1.0], [2.0, 3.0]])
    np.testing.assert_allclose(activations[0, 0, 0], 1.0 / (1.0 + np.exp([-4.0, -5.0])))


def realize():
    """The network of the zoo on small images, and a batch."""
    bound = bind(zoo.load("self-routing"), (16, 16, 1), 3)
    generator = np.random.default_rng(2)
    parameters = draw_parameters(bound, 0)
    drawn = {name: generator.normal(0.0, 0.3, v.shape).astype(np.float32) for name, v in parameters.items()}
    parameters = {name: value if value.any() else drawn[name] for name, value in parameters.items()}
    oracle = BACKEND.realize(bound, parameters, Setting("float64", precision="float64"))
    return bound, parameters, oracle, oracle.place(generator.random((2, 16, 16, 1), np.float32), np.array([0, 2]), {})


def test_the_loss_is_the_negative_log_likelihood():
    """Activations sum to one, so the cross entropy of their logarithms is the NLL that the authors minimise."""
    _, _, oracle, placed = realize()
    output = oracle.forward(placed)
    np.testing.assert_allclose(output.activations.sum(1), 1.0, rtol=1e-12)
    assert output.poses is None


def test_the_complex_step_is_the_slope_of_the_loss():
    """The derivative agrees with a central difference; pixels reach the loss through all routing."""
    bound, parameters, oracle, placed = realize()
    step, generator, width = Step(0, 0.0, 0.5), np.random.default_rng(3), 1e-6
    direction = {
        spec.name: generator.standard_normal(spec.shape) for spec in parameter_specs(bound) if "caps" in spec.name
    }
    exact = oracle.directional_derivative(placed, step, direction)

    def loss(by):
        moved = {name: value + by * direction.get(name, 0.0) for name, value in parameters.items()}
        return BACKEND.realize(bound, moved, Setting("float64")).loss(placed, step)

    assert exact == pytest.approx((loss(width) - loss(-width)) / (2.0 * width), rel=1e-5)
    assert oracle.input_derivative(placed, step, generator.standard_normal(placed.images.shape)) != 0.0


def test_looking_on():
    """Couplings are shown once a layer; classes have no poses and cast no votes, so theirs are at no distance."""
    _, _, oracle, placed = realize()
    states = oracle.inspect(placed, votes=True)
    middle, classes = states["conv_caps"], states["class_caps"]
    assert middle.votes.shape == (2, 4, 144, 16, 16)
    assert middle.routing.vote_distance.min() > 0.0
    assert 0.0 < classes.routing.coupling_entropy.min() <= classes.routing.coupling_entropy.max() < 1.0
    assert classes.poses is classes.votes is None
    assert not classes.routing.vote_distance.any()
    assert classes.activations.shape == (2, 3)
