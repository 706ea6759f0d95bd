"""PyTorch against the oracle: forward, loss and gradients, for the zoo and for every routing variant."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from capsbench.backend import Setting, Step  # noqa: E402 - likewise
from capsbench.network import zoo  # noqa: E402 - likewise
from capsbench.network.layers import BatchNorm, ClassCapsules, Conv, ConvCapsules, PrimaryCapsules  # noqa: E402 - likewise
from capsbench.network.network import Network  # noqa: E402 - likewise
from capsbench.network.objective import LinearMargin, Objective, Reconstruction, SpreadLoss  # noqa: E402 - likewise
from capsbench.network.parameters import draw_parameters, dropout_masks, parameter_specs  # noqa: E402 - likewise
from capsbench.network.routing import EMRouting, InverseTemperature  # noqa: E402 - likewise
from capsbench.network.shapes import bind  # noqa: E402 - likewise
from capsbench_numpy.backend import BACKEND as ORACLE  # noqa: E402 - after the check that torch is there
from capsbench_torch.backend import BACKEND  # noqa: E402 - likewise

pytestmark = pytest.mark.torch

STEP = Step(0, 1e-3, 0.5)
MODES = ("tiled", "eager")


def relative(got, expected):
    """Largest difference over largest magnitude."""
    return float(np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-30))


def pair(network, mode, precision, *, image=(28, 28, 1), classes=10, batch=1):
    """The network in PyTorch and in the oracle, with the same batch placed in both."""
    bound = bind(network, image, classes)
    parameters = draw_parameters(bound, 0)
    generator = np.random.default_rng(0)
    images = generator.random((batch, *image), dtype=np.float32)
    labels = np.arange(batch) % classes
    masks = dropout_masks(bound, batch, 0, 0)
    ours = BACKEND.realize(bound, parameters, Setting(mode, precision=precision, threads=2))
    oracle = ORACLE.realize(bound, parameters, Setting("float64", precision="float64"))
    return bound, (ours, ours.place(images, labels, masks)), (oracle, oracle.place(images, labels, masks))


def forward_error(ours, oracle):
    """The worst relative error of scores, activations, poses and loss."""
    got, expected = ours[0].forward(ours[1]), oracle[0].forward(oracle[1])
    errors = [relative(got.scores, expected.scores), relative(got.activations, expected.activations)]
    if expected.poses is not None:
        errors.append(relative(got.poses, expected.poses))
    loss, truth = ours[0].loss_and_gradients(ours[1], STEP)[0], oracle[0].loss(oracle[1], STEP)
    return max(*errors, abs(loss - truth) / abs(truth))


def directional_error(gradients, oracle):
    """Error of <g, v> for a random v, scaled so that every tensor counts by its own size."""
    norms = {name: float(np.linalg.norm(g)) for name, g in gradients.items()}
    floor = max(1e-3 * max(norms.values()), 1e-3)  # where all gradients vanish, only noise is left
    generator = np.random.default_rng(1)
    directions = {
        name: generator.choice([-1.0, 1.0], g.shape) / max(norms[name], floor) for name, g in gradients.items()
    }
    along = sum(float((gradients[name] * v).sum()) for name, v in directions.items())
    return abs(along - oracle[0].directional_derivative(oracle[1], STEP, directions))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", zoo.names())
def test_float64_equals_the_oracle(name, mode):
    """In float64 every network of the zoo agrees with the oracle to 1e-10, gradients included."""
    _, ours, oracle = pair(zoo.load(name), mode, "float64")
    assert forward_error(ours, oracle) <= 1e-10
    _, gradients = ours[0].loss_and_gradients(ours[1], STEP)
    assert directional_error(gradients, oracle) <= 1e-10


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", zoo.names())
def test_float32_is_close(name, mode):
    """In float32 the forward pass errs by at most 1e-5 and every gradient tensor by at most 1e-4.

    A tensor whose exact gradient is smaller than a thousandth of the largest one's has nothing but rounding noise to
    show (the seed's cancelled activations), so errors are measured against at least that.
    """
    bound, single, oracle = pair(zoo.load(name), mode, "float32")
    _, double, _ = pair(zoo.load(name), mode, "float64")
    assert forward_error(single, oracle) <= 1e-5
    got, expected = (side[0].loss_and_gradients(side[1], STEP)[1] for side in (single, double))
    assert set(got) == {spec.name for spec in parameter_specs(bound) if spec.trainable}
    largest = max(float(np.abs(g).max()) for g in expected.values())
    for tensor, gradient in expected.items():
        scale = max(float(np.abs(gradient).max()), 1e-3 * largest)
        assert np.abs(got[tensor] - gradient).max() <= 1e-4 * scale, tensor


@st.composite
def variants(draw):
    """Small capsule networks with every routing field drawn."""
    densities = draw(st.sampled_from(["log", "shifted"]))
    routing = EMRouting(
        iterations=draw(st.integers(1, 4)),
        inverse_temperature=InverseTemperature(final=draw(st.sampled_from([0.01, 0.3])), decay=0.5),
        activation=draw(st.sampled_from(["sigmoid", "softmax"])),
        interim_activation=draw(st.sampled_from(["same", "softmax_of_mass"])),
        variance_floor=1e-3,
        cost_scale=draw(st.sampled_from([None, 10.0])),
        competition="position" if densities == "shifted" else draw(st.sampled_from(["position", "all_positions"])),
        renormalise_input=draw(st.booleans()),
        densities=densities,
        beta_u=draw(st.sampled_from(["parent", "element"])),
        coordinates=draw(st.sampled_from(["none", "right_column", "first_row", "appended"])),
        coordinate_unit=draw(st.sampled_from(["grid", "image"])),
    )
    # A single child has no variance: all elements of its density tie, and which of them is the largest is anybody's.
    fewest = 2 if densities == "shifted" else 1
    kernel, stride = draw(st.sampled_from([(1, 1), (2, 1), (3, 1), (3, 2)]))
    layers = (
        BatchNorm(name="norm"),
        Conv(name="conv", channels=draw(st.integers(1, 3)), kernel=3, stride=2),
        PrimaryCapsules(name="primary", capsules=draw(st.integers(fewest, 3))),
        ConvCapsules(name="caps", capsules=draw(st.integers(fewest, 4)), kernel=kernel, stride=stride),
        ClassCapsules(name="classes", positions=draw(st.sampled_from(["joint", "each"]))),
    )
    objective = Objective(
        loss=SpreadLoss(margin=LinearMargin()),
        reconstruction=draw(st.sampled_from([None, Reconstruction(hidden=(5,))])),
    )
    return Network(name="variant", layers=layers, routing=routing, objective=objective)


@given(variants(), st.sampled_from(MODES))
@settings(max_examples=60, deadline=None)
def test_every_variant_equals_the_oracle(network, mode):
    """Any combination of routing fields agrees with the oracle in float64: values, loss and gradients."""
    _, ours, oracle = pair(network, mode, "float64", image=(11, 12, 2), classes=3, batch=3)
    assert forward_error(ours, oracle) <= 1e-9
    _, gradients = ours[0].loss_and_gradients(ours[1], STEP)
    assert directional_error(gradients, oracle) <= 1e-8


@pytest.mark.parametrize("mode", MODES)
def test_gradcheck_of_routing(mode):
    """Routing passes gradcheck: its gradients are those of its values."""
    from capsbench_torch.layers import null_scope
    from capsbench_torch.routing import Routing, route_grouped, route_tiled, vote_grouped, vote_tiled

    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    vote, route = (vote_tiled, route_tiled) if mode == "tiled" else (vote_grouped, route_grouped)
    variant = EMRouting(iterations=2, variance_floor=1e-2, inverse_temperature=InverseTemperature(final=0.3))

    def run(poses, transforms, activations, beta_u, beta_a):
        routing = Routing(variant, beta_u, beta_a, 3, 2, torch.arange(3), null_scope)
        parents = route(vote(poses, transforms), activations, routing)
        return parents.poses, parents.activations

    arguments = (draw(2, 3, 16), draw(3, 2, 4, 4), draw(2, 3), draw(2), draw(2))
    assert torch.autograd.gradcheck(run, arguments, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_input_activations(mode):
    """The primary activations get a gradient in em-68k, and only noise in the seed, where they cancel."""
    for name, matters in (("em-68k", True), ("em-seed", False)):
        _, ours, _ = pair(zoo.load(name), mode, "float64")
        _, gradients = ours[0].loss_and_gradients(ours[1], STEP)
        ratio = np.abs(gradients["primary.activation_biases"]).max() / np.abs(gradients["primary.pose_biases"]).max()
        assert (ratio > 1e-3) == matters
