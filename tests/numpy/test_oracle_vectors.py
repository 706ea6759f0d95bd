"""Vectors, their routings, the margin loss and residual blocks in the oracle, against loops and numbers by hand."""

import math

import numpy as np
import pytest

from capsbench.backend import Setting, Step
from capsbench.network import zoo
from capsbench.network.layers import LENGTH_EPSILON, Residual
from capsbench.network.objective import MarginLoss
from capsbench.network.parameters import draw_parameters
from capsbench.network.routing import AgreementRouting
from capsbench.network.shapes import bind
from capsbench_numpy.backend import BACKEND
from capsbench_numpy.inspection import Inspector
from capsbench_numpy.maps import Seen, average_pool, conv, depthwise_conv, residual
from capsbench_numpy.objective import _margin
from capsbench_numpy.vectors import agree, attend, length, squash, vote

SETTING = Setting("float64", precision="float64")
SQUASHES = ["rational", "exponential"]


def squash_by_loops(vector, how):
    """The squash of one vector, number by number, without an epsilon."""
    norm = math.sqrt(sum(value * value for value in vector))
    short = 1.0 - math.exp(-norm) if how == "exponential" else norm**2 / (1.0 + norm**2)
    return [short * value / norm for value in vector]


def agree_by_loops(votes, iterations, how):
    """Procedure 1 of Sabour et al. for votes [i][j][h] of one image; the parents."""
    children, parents, elements = votes.shape
    logits = [[0.0] * parents for _ in range(children)]
    for _ in range(iterations):
        couplings = [[math.exp(b) / sum(map(math.exp, row)) for b in row] for row in logits]
        sums = [
            [sum(couplings[i][j] * votes[i, j, h] for i in range(children)) for h in range(elements)]
            for j in range(parents)
        ]
        poses = [squash_by_loops(each, how) for each in sums]
        for i in range(children):
            for j in range(parents):
                logits[i][j] += sum(votes[i, j, h] * poses[j][h] for h in range(elements))
    return np.array(poses)


@pytest.mark.parametrize("how", SQUASHES)
@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_agreement_is_procedure_1(iterations, how):
    """Vectorised routing by agreement equals the paper's procedure written as loops over scalars."""
    votes = np.random.default_rng(iterations).standard_normal((2, 5, 3, 4))
    sums = agree(votes, AgreementRouting(iterations=iterations), how)
    for image in range(2):
        expected = agree_by_loops(votes[image], iterations, how)
        np.testing.assert_allclose(squash(sums, how)[image], expected, rtol=1e-6, atol=1e-8)


def test_self_attention_by_loops():
    """Couplings are a softmax over the parents of each vote's products with all votes for its parent, plus priors."""
    generator = np.random.default_rng(0)
    children, parents, elements = 4, 3, 5
    votes, priors = generator.standard_normal((children, parents, elements)), generator.standard_normal((4, 3))
    scores = [
        [sum(votes[i, j] @ votes[k, j] for k in range(children)) / math.sqrt(elements) for j in range(parents)]
        for i in range(children)
    ]
    expected = np.zeros((parents, elements))
    for i in range(children):
        for j in range(parents):
            share = math.exp(scores[i][j]) / sum(map(math.exp, scores[i]))
            expected[j] += (share + priors[i, j]) * votes[i, j]
    np.testing.assert_allclose(attend(votes[None], priors)[0], expected, rtol=1e-12)


def test_votes_are_products_of_vectors():
    """A vote is the child's vector times the transform of its own for that parent."""
    generator = np.random.default_rng(0)
    children, transforms = generator.standard_normal((2, 3, 4)), generator.standard_normal((3, 2, 4, 5))
    np.testing.assert_allclose(vote(children, transforms)[1, 2, 0], children[1, 2] @ transforms[2, 0])


@pytest.mark.parametrize("how", SQUASHES)
def test_squash_by_hand(how):
    """The vector (3, 4) keeps its direction and becomes 25/26 or 1 - e^-5 long."""
    expected = {"rational": 25 / 26, "exponential": 1 - math.exp(-5)}[how]
    vector = np.array([[3.0, 4.0]])
    np.testing.assert_allclose(squash(vector, how), expected * np.array([[0.6, 0.8]]), rtol=1e-9)
    np.testing.assert_allclose(length(squash(vector, how)), [expected], rtol=1e-7)
    np.testing.assert_allclose(squash(vector, how)[0], squash_by_loops([3.0, 4.0], how), rtol=1e-9)


@pytest.mark.parametrize("how", SQUASHES)
def test_the_slope_of_the_squash_at_zero(how):
    """At zero a vector stays zero and has the slope of its formula's limit, 0 or 1; its length has slope 0."""
    step = np.zeros((1, 8), complex)
    step[0, 0] = 1e-30j
    slope = {"rational": 0.0, "exponential": 1.0}[how]
    assert squash(step, how)[0, 0].imag / 1e-30 == pytest.approx(slope, abs=1e-4)
    assert length(step)[0].imag == 0.0
    assert length(np.zeros((1, 8))) == pytest.approx(math.sqrt(LENGTH_EPSILON))


def test_gradients_through_the_last_iteration_only():
    """`gradient: last` leaves the values alone, and differentiates the last sum with its couplings held."""
    generator = np.random.default_rng(0)
    votes, direction = generator.standard_normal((2, 1, 6, 3, 4))
    everything, last = (AgreementRouting(gradient=gradient) for gradient in ("all", "last"))
    np.testing.assert_array_equal(agree(votes, everything, "rational"), agree(votes, last, "rational"))
    slopes = [agree(votes + 1e-30j * direction, each, "rational").imag / 1e-30 for each in (everything, last)]
    seen = []
    agree(votes, last, "rational", lambda couplings, _mass, _variances: seen.append(couplings))
    np.testing.assert_allclose(slopes[1], (seen[-1][:, 0, ..., None] * direction).sum(1), rtol=1e-12)
    assert np.abs(slopes[0] - slopes[1]).max() > 1e-2


def test_margin_loss_by_hand():
    """Equation 4: the true class short of 0.9, the others beyond 0.1 at half weight; summed, mean over the batch."""
    activations = np.array([[0.6, 0.3, 0.05], [0.95, 0.0, 0.1]])
    truth = np.eye(3)[[0, 0]]
    first = 0.3**2 + 0.5 * (0.2**2 + 0.0)
    assert _margin(activations, truth, MarginLoss()) == pytest.approx((first + 0.0) / 2)
    mild = MarginLoss(positive=0.7, negative=0.2, down_weight=2.0)
    assert _margin(activations, truth, mild) == pytest.approx((0.1**2 + 2.0 * 0.1**2) / 2)


def test_agreement_as_the_inspector_sees_it():
    """Votes that agree with each other draw their children: entropy falls, and so does their distance."""
    votes = np.zeros((1, 4, 2, 2))
    votes[0, :, 0] = [3.0, 0.0]  # all agree on parent 0
    votes[0, :, 1] = [[3.0, 0.0], [-3.0, 0.0], [0.0, 3.0], [0.0, -3.0]]  # and cancel on parent 1
    inspector = Inspector(keeps_votes=False)
    agree(votes, AgreementRouting(iterations=3), "rational", inspector.see_iteration)
    entropy, distance, starved = np.stack(inspector._iterations)[..., 0].T
    # Undecided at first: half the mass is at parent 1, whose votes are at a squared distance of 9 from their mean.
    np.testing.assert_allclose((entropy[0], distance[0]), (1.0, 4.5))
    assert entropy[0] > entropy[1] > entropy[2]
    assert distance[0] > distance[1] > distance[2]
    assert (starved[:2] == 0.0).all()


def test_average_pools_by_hand():
    """All places, or windows side by side, of which those that stick out are dropped."""
    maps = np.arange(15.0).reshape(1, 3, 5, 1)
    assert average_pool(maps, "all").ravel().tolist() == [7.0]
    assert average_pool(maps, 2).ravel().tolist() == [3.0, 5.0]


def test_depthwise_is_a_convolution_with_a_diagonal_filter():
    """A filter a channel equals an ordinary convolution whose filters see one channel each."""
    generator = np.random.default_rng(0)
    maps, weights, biases = generator.random((2, 5, 6, 3)), generator.random((2, 2, 1, 3)), generator.random(3)
    expected = conv(maps, weights * np.eye(3), biases, 2)
    np.testing.assert_allclose(depthwise_conv(maps, weights, biases, 2), expected, rtol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_by_hand(stride):
    """With filters that pass the middle on, a block is its shortcut plus the input normalised twice, cut off at 0."""
    generator = np.random.default_rng(0)
    maps = generator.standard_normal((2, 4, 5, 2))
    middle = np.zeros((3, 3, 2, 2))
    middle[1, 1] = np.eye(2)
    own = {"conv1_weights": middle, "conv2_weights": middle}
    if stride == 2:
        own["shortcut_weights"] = np.eye(2)[None, None]

    def normal(values):
        return (values - values.mean((0, 1, 2))) / np.sqrt(values.var((0, 1, 2)) + 1e-3)

    seen = maps[:, ::stride, ::stride]
    expected = np.maximum(normal(np.maximum(normal(seen), 0.0)) + (seen if stride == 1 else normal(seen)), 0.0)
    got = residual(Residual(name="b", channels=2, stride=stride), own, maps, seen=Seen())
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["dynamic-small", "efficient"])
def test_gradients_reach_every_layer(name):
    """The loss moves with the parameters of every layer, and with the images; scores rank as activations do."""
    bound = bind(zoo.load(name), (28, 28, 1), 10)
    parameters = draw_parameters(bound, 0)
    oracle = BACKEND.realize(bound, parameters, SETTING)
    generator = np.random.default_rng(0)
    images = generator.random((1, 28, 28, 1), dtype=np.float32)
    placed, step = oracle.place(images, np.array([3]), {}), Step(0, 1e-3, 0.0)
    for tensor, value in parameters.items():
        if tensor.endswith(("weights", "transforms", "priors", "scale")):
            direction = {tensor: generator.standard_normal(value.shape)}
            assert abs(oracle.directional_derivative(placed, step, direction)) > 1e-6, tensor
    assert abs(oracle.input_derivative(placed, step, generator.standard_normal(images.shape))) > 1e-6
    output = oracle.forward(placed)
    assert (np.argsort(output.scores) == np.argsort(output.activations)).all()
    np.testing.assert_allclose(np.linalg.norm(output.poses, axis=-1), output.activations, rtol=1e-3)
