"""What the oracle says of layers and routing, against numbers worked out by hand and by loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from capsbench.backend import Setting, Step
from capsbench.network import zoo
from capsbench.network.parameters import draw_parameters
from capsbench.network.routing import EMRouting, InverseTemperature
from capsbench.network.shapes import Capsules, bind
from capsbench_numpy.backend import BACKEND
from capsbench_numpy.inspection import Inspector, routing_numbers
from capsbench_numpy.routing import route

SETTING = Setting("float64", precision="float64")
VARIANTS = {
    "paper": {},
    "all positions": {"competition": "all_positions"},
    "one iteration": {"iterations": 1},
    "softmax of mass": {"activation": "softmax", "interim_activation": "softmax_of_mass"},
    "seed": {
        "renormalise_input": True,
        "densities": "shifted",
        "beta_u": "element",
        "activation": "softmax",
        "interim_activation": "softmax_of_mass",
        "coordinates": "appended",
    },
    "IBM": {"cost_scale": 100.0, "coordinates": "first_row"},
}


def route_and_watch(votes, activations, **fields):
    """Route children at one position with costs of nought; the numbers of every iteration [iterations, 3]."""
    inspector = Inspector(keeps_votes=False)
    parents = votes.shape[1]
    routing = EMRouting(epsilon=1e-12, variance_floor=1e-9, **fields)
    owner = np.arange(len(votes))[None]
    nought = np.zeros(parents)
    route(votes[None, None], activations[None, None], nought, nought, routing, owner, inspector.see_iteration)
    return np.stack(inspector._iterations)[..., 0]


def test_the_first_iteration_by_hand():
    """Undecided children: entropy 1, and the distance is the mean of the parents' variances by their mass."""
    # To parent 0 the votes are (0, 0) with weight 2/3 and (3, 0) with 1/3: mean 1, variance 2. To parent 1 both agree.
    votes = np.array([[[0.0, 0.0], [1.0, 1.0]], [[3.0, 0.0], [1.0, 1.0]]])
    ((entropy, distance, starved),) = route_and_watch(votes, np.array([1.0, 0.5]), iterations=1)
    assert entropy == pytest.approx(1.0)
    assert distance == pytest.approx((0.75 * 2.0 + 0.75 * 0.0) / 1.5)
    assert starved == 0.0


def test_the_second_iteration_by_hand():
    """Children choose by their densities: two that agree on each parent's pose end up decided and near."""
    # Children 0 and 1 agree for parent 0, children 2 and 3 for parent 1; the other votes lie 10 to either side of it.
    votes = np.array([[[0.0], [10.0]], [[0.0], [-10.0]], [[10.0], [0.0]], [[-10.0], [0.0]]])
    numbers = route_and_watch(votes, np.ones(4), iterations=2, inverse_temperature=InverseTemperature(final=1e-12))
    # After the first M-step both means are 0, both variances 50; the odds of an agreeing vote are e^(100 / 100).
    share = math.e / (1.0 + math.e)
    entropy = -(share * math.log(share) + (1.0 - share) * math.log(1.0 - share)) / math.log(2.0)
    np.testing.assert_allclose(numbers[0], [1.0, 50.0, 0.0], rtol=1e-9)
    np.testing.assert_allclose(numbers[1], [entropy, 100.0 * (1.0 - share), 0.0], rtol=1e-6)


def test_numbers_by_hand():
    """Couplings are scaled to sum one; decided, undecided and vanished children; a starved parent; a dead position."""
    couplings = np.array([[[[0.3, 0.0], [0.2, 0.2]], [[0.0, 0.0], [0.0, 0.7]]]])  # 1 image, 2 positions, 2 children
    mass = np.array([[[0.001, 1.0], [0.0, 0.0]]])
    variances = np.array([[[[5.0, 7.0], [1.0, 1.0]], [[9.0, 9.0], [9.0, 9.0]]]])
    entropy, distance, starved = routing_numbers(couplings, mass, variances)[:, 0]
    assert entropy == pytest.approx((0.0 + 1.0 + 0.0 + 0.0) / 4)
    assert distance == pytest.approx((0.001 * 12.0 + 1.0 * 2.0) / 1.001)
    assert starved == 1 / 4


def test_a_single_parent_leaves_no_choice():
    """With one parent the entropy is nought, and without any mass so is the distance."""
    numbers = routing_numbers(np.ones((2, 3, 4, 1)), np.zeros((2, 3, 1)), np.ones((2, 3, 1, 16)))
    assert (numbers == 0.0).all()


@st.composite
def m_steps(draw):
    """Couplings, mass and variances of two images."""
    positions, children, parents = (draw(st.integers(1, 3)) for _ in range(3))
    number = st.sampled_from([0.0, 1.0]) | st.floats(1e-6, 1.0)
    return (
        draw(arrays(float, (2, positions, children, parents), elements=number)),
        draw(arrays(float, (2, positions, parents), elements=number)),
        draw(arrays(float, (2, positions, parents, 2), elements=number)),
    )


@given(m_steps())
def test_numbers_are_those_of_loops(step):
    """Entropy and starved share lie in [0, 1], and all three equal their definitions written as loops."""
    couplings, mass, variances = step
    numbers = routing_numbers(*step)
    assert (numbers[[0, 2]] >= -1e-12).all()
    assert (numbers[[0, 2]] <= 1.0 + 1e-12).all()
    positions, children, parents = couplings.shape[1:]
    for image in range(2):
        entropies, starved, spread = [], [], 0.0
        for p in range(positions):
            for i in range(children):
                total = sum(couplings[image, p, i])
                shares = [c / total for c in couplings[image, p, i] if c]
                most = math.log(parents) or 1.0
                entropies.append(-sum(share * math.log(share) for share in shares) / most)
            for j in range(parents):
                starved.append(mass[image, p, j] < 0.01 * sum(mass[image, p]) / parents)
                spread += mass[image, p, j] * sum(variances[image, p, j])
        whole = mass[image].sum()
        wanted = np.mean(entropies), spread / whole if whole else 0.0, np.mean(starved)
        np.testing.assert_allclose(numbers[:, image], wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("positions", ["joint", "each"])
def test_every_routing_variant(fields, positions):
    """Shapes, ranges and the first iteration are as the contract says, and the class layer is that of `forward`."""
    network = zoo.load("em-tiny")
    layers = (*network.layers[:-1], replace(network.layers[-1], positions=positions))
    routing = EMRouting(**{"iterations": 3, **fields})
    bound = bind(replace(network, layers=layers, routing=routing), (20, 20, 1), 4)
    oracle = BACKEND.realize(bound, draw_parameters(bound, 0), SETTING)
    images = np.random.default_rng(0).random((3, 20, 20, 1), dtype=np.float32)
    placed = oracle.place(images, np.arange(3), {})
    states = oracle.inspect(placed, votes=True)
    assert list(states) == ["conv1", "primary", "conv_caps1", "class_caps"]
    for layer in bound.layers:
        state = states[layer.layer.name]
        if isinstance(layer.output, Capsules):
            count = layer.output.height * layer.output.width * layer.output.capsules
            assert state.poses.shape == (3, count, layer.output.pose_elements)
        else:
            count = layer.output.values
            assert state.poses is None
        assert state.activations.shape == (3, count)
        assert (state.routing is None) == (state.votes is None) == (layer.routing is None)
        if layer.routing:
            check_routing(state, layer.routing, routing.iterations)
    wanted = first_distance(
        states["class_caps"],
        states["conv_caps1"],
        bound.layers[-1].routing,
        renormalised=routing.renormalise_input,
    )
    np.testing.assert_allclose(states["class_caps"].routing.vote_distance[:, 0], wanted, rtol=1e-5)
    output = oracle.forward(placed)
    np.testing.assert_array_equal(states["class_caps"].activations, output.activations)
    np.testing.assert_array_equal(states["class_caps"].poses, output.poses)
    assert all(state.votes is None for state in oracle.inspect(placed).values())


def check_routing(state, shape, iterations):
    """Sizes, ranges, and undecided children in the first iteration."""
    assert state.votes.size == 3 * shape.votes
    routing = state.routing
    for numbers in (routing.coupling_entropy, routing.vote_distance, routing.starved_share):
        assert numbers.shape == (3, iterations)
    np.testing.assert_allclose(routing.coupling_entropy[:, 0], 1.0)
    assert (routing.coupling_entropy >= 0.0).all()
    assert (routing.coupling_entropy <= 1.0 + 1e-12).all()
    assert (routing.vote_distance >= 0.0).all()
    assert (routing.starved_share >= 0.0).all()
    assert (routing.starved_share < 1.0).all()


def first_distance(state, below, shape, *, renormalised):
    """The vote distance of undecided children, of which each parent's share is the same, from votes and activations."""
    votes = state.votes.reshape(3, shape.positions, shape.children, shape.parents, shape.elements)
    mass = below.activations.reshape(3, shape.positions, shape.children, 1, 1)
    mass = np.ones_like(mass) if renormalised else mass
    mean = (mass * votes).sum(2, keepdims=True) / mass.sum(2, keepdims=True)
    return (mass * (votes - mean) ** 2).sum((1, 2, 3, 4)) / (mass.sum((1, 2, 3, 4)) * shape.parents)


def test_layers_without_capsules():
    """A CNN's convolutions and dense layers are shown after their nonlinearity, the last as logits, and no others."""
    bound = bind(zoo.load("cnn-tiny"), (28, 28, 1), 10)
    oracle = BACKEND.realize(bound, draw_parameters(bound, 0), SETTING)
    placed = oracle.place(np.random.default_rng(0).random((2, 28, 28, 1), dtype=np.float32), np.array([3, 7]), {})
    states = oracle.inspect(placed)
    assert list(states) == ["conv1", "conv2", "dense1", "logits"]
    assert (states["conv1"].activations >= 0.0).all()
    assert (states["conv1"].activations == 0.0).any()
    np.testing.assert_array_equal(states["logits"].activations, oracle.forward(placed).scores)
    assert {state.poses is state.votes is state.routing is None for state in states.values()} == {True}


def test_the_oracle_takes_no_steps():
    """What needs a train step or a profiler is refused in words, never made up."""
    bound = bind(zoo.load("cnn-tiny"), (28, 28, 1), 10)
    oracle = BACKEND.realize(bound, draw_parameters(bound, 0), SETTING)
    placed, step = oracle.place(np.zeros((1, 28, 28, 1), np.float32), np.array([0]), {}), Step(0, 0.1, 0.0)
    for refused in (oracle.memory, oracle.profile, oracle.train_step):
        with pytest.raises(NotImplementedError, match="takes no train steps"):
            refused(placed, step)
    with pytest.raises(NotImplementedError, match="has no profiler"):
        oracle.profile(placed, None)
