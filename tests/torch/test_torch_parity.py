"""PyTorch against the oracle: forward, loss and gradients, for the zoo and for every routing variant."""

import numpy as np
import pytest
from exhaustive import in_short
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from networks_for_torch import (
    MODES,
    PLAIN_MODES,
    STEP,
    ZOO,
    bayes_variants,
    image_of,
    pair,
    relative,
    residual_variants,
    self_routed_variants,
    variants,
    vector_variants,
)
from small_networks import two_batches

torch = pytest.importorskip("torch")

from capsbench.backend import Setting  # noqa: E402 - after the check that torch is there
from capsbench.network import zoo  # noqa: E402 - likewise
from capsbench.network.parameters import draw_parameters  # noqa: E402 - likewise
from capsbench.network.routing import EMRouting, InverseTemperature, SelfRouting, VBRouting  # noqa: E402 - likewise
from capsbench.network.shapes import bind  # noqa: E402 - likewise
from capsbench.worker.gate import judge  # noqa: E402 - likewise
from capsbench.worker.parity import batch_size, describe_failure  # noqa: E402 - likewise
from capsbench_torch.backend import BACKEND  # noqa: E402 - likewise

pytestmark = pytest.mark.torch


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


# Each stays in eager mode; the tiled one is the same for small networks of their formulations, and for drawn ones.
SLOW_TILED = {"em-official", "em-paper", "em-yl", "dynamic", "self-routing", "vb"}


def covered(name, mode):
    """Skip what a mode says itself that it cannot realize."""
    if (reason := BACKEND.unsupported(bind(zoo.load(name), (28, 28, 1), 10), Setting(mode))) is not None:
        pytest.skip(reason)


@pytest.mark.parametrize(("name", "mode"), in_short(ZOO, lambda name, mode: mode != "tiled" or name not in SLOW_TILED))
def test_networks_equal_the_oracle(name, mode):
    """Every network of the zoo agrees with the oracle to 1e-10 in float64, and passes the gate in float32.

    How much float32 may err differs between processors, whose libraries add in other orders. The gate takes it from
    float64's own error on the same images (`capsbench.worker.rounding`), not from what one processor was seen to do.
    """
    covered(name, mode)
    bound, double, oracle = pair(zoo.load(name), mode, "float64")
    assert forward_error(double, oracle) <= 1e-10
    assert directional_error(double[0].loss_and_gradients(double[1], STEP)[1], oracle) <= 1e-10
    batch = batch_size(bound)
    found = judge(
        BACKEND,
        bound,
        Setting(mode, threads=2),
        parameters=draw_parameters(bound, 0),
        images=np.random.default_rng(0).random((batch, *image_of(bound)), dtype=np.float32),
        labels=np.arange(batch) % bound.classes,
        drawn=True,
        seed=0,
        training=two_batches(bound),
    )
    assert found.passed, describe_failure(found)


@given(variants(), st.sampled_from(MODES))
@settings(max_examples=30)
def test_every_variant_equals_the_oracle(network, mode):
    """Any combination of routing fields agrees with the oracle in float64: values, loss and gradients."""
    assume(BACKEND.unsupported(bind(network, (11, 12, 2), 3), Setting(mode)) is None)
    _, ours, oracle = pair(network, mode, "float64", image=(11, 12, 2), classes=3, batch=3)
    assert forward_error(ours, oracle) <= 1e-9
    if network.routing.densities == "shifted":
        # Where a parent's votes coincide all elements of a density tie, and whose gradient counts is anybody's choice.
        routed = [state.routing for state in oracle[0].inspect(oracle[1]).values() if state.routing is not None]
        assume(min(routing.vote_distance.min() for routing in routed) > 1e-9)
    _, gradients = ours[0].loss_and_gradients(ours[1], STEP)
    assert directional_error(gradients, oracle) <= 1e-8


@given(bayes_variants(), st.sampled_from(PLAIN_MODES))
@settings(max_examples=15)
def test_every_variational_variant_equals_the_oracle(network, mode):
    """Any priors, floors and normalisations of variational Bayes agree with the oracle in float64."""
    _, ours, oracle = pair(network, mode, "float64", image=(11, 12, 2), classes=3, batch=4)
    assert forward_error(ours, oracle) <= 1e-10
    _, gradients = ours[0].loss_and_gradients(ours[1], STEP)
    assert directional_error(gradients, oracle) <= 1e-8


@given(vector_variants(), st.sampled_from(PLAIN_MODES))
@settings(max_examples=15)
def test_every_vector_variant_equals_the_oracle(network, mode):
    """Any combination of vector layers and their routings agrees with the oracle in float64."""
    _, ours, oracle = pair(network, mode, "float64", image=(9, 10, 2), classes=3, batch=3)
    assert forward_error(ours, oracle) <= 1e-10
    _, gradients = ours[0].loss_and_gradients(ours[1], STEP)
    assert directional_error(gradients, oracle) <= 1e-9


@given(self_routed_variants(), st.sampled_from(PLAIN_MODES))
@settings(max_examples=25)
def test_every_self_routed_variant_equals_the_oracle(network, mode):
    """Any network that routes itself agrees with the oracle in float64, away from its undecided start."""
    _, ours, oracle = pair(network, mode, "float64", image=(9, 10, 2), classes=3, batch=3, moved=True)
    assert forward_error(ours, oracle) <= 1e-10
    _, gradients = ours[0].loss_and_gradients(ours[1], STEP)
    assert directional_error(gradients, oracle) <= 1e-9


@pytest.mark.parametrize("mode", PLAIN_MODES)
def test_self_routing_equals_the_oracle_when_children_have_chosen(mode):
    """The network of the zoo agrees in every tensor's gradient once its routing weights are not all zero."""
    _, ours, oracle = pair(zoo.load("self-routing"), mode, "float64", image=(20, 20, 1), batch=2, moved=True)
    _, gradients = ours[0].loss_and_gradients(ours[1], STEP)
    assert min(np.abs(gradient).max() for gradient in gradients.values()) > 1e-6
    assert forward_error(ours, oracle) <= 1e-10
    assert directional_error(gradients, oracle) <= 1e-10


@given(residual_variants())
@settings(max_examples=10)
def test_every_residual_network_equals_the_oracle(network):
    """Blocks of every stride, with and without a shortcut of their own, agree with the oracle in float64."""
    _, ours, oracle = pair(network, "eager", "float64", image=(9, 10, 2), classes=3, batch=3)
    assert forward_error(ours, oracle) <= 1e-10
    _, gradients = ours[0].loss_and_gradients(ours[1], STEP)
    assert directional_error(gradients, oracle) <= 1e-8


@pytest.mark.parametrize("how", ["rational", "exponential"])
def test_the_squash_has_a_gradient_at_zero(how):
    """A capsule of zeros has a finite gradient in float32, and so has its length."""
    from capsbench_torch.vectors import length, squash

    dead = torch.zeros(2, 8, requires_grad=True)
    (squash(dead, how).sum() + length(squash(dead, how)).sum()).backward()
    assert dead.grad.isfinite().all()
    assert (squash(dead, how) == 0.0).all()


@pytest.mark.parametrize("mode", PLAIN_MODES)
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


@pytest.mark.parametrize("mode", PLAIN_MODES)
def test_gradcheck_of_self_routing(mode):
    """Self-routing passes gradcheck, and so do classes that children choose."""
    from capsbench_torch import selfrouting as own

    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    tiled = mode == "tiled"
    products = own.products_tiled if tiled else own.products_grouped
    vote, gather = (own.vote_tiled, own.gather_tiled) if tiled else (own.vote_grouped, own.gather_grouped)

    def run(children, transforms, activations, weights, biases):
        logits = products(children, weights) + biases
        parents = gather(vote(children, transforms), logits, activations, SelfRouting())
        return *parents, own.classify(logits, activations)

    arguments = (draw(2, 3, 4), draw(3, 2, 4, 5), draw(2, 3), draw(3, 4, 2), draw(3, 2))
    assert torch.autograd.gradcheck(run, arguments)


@pytest.mark.parametrize("mode", PLAIN_MODES)
def test_gradcheck_of_variational_routing(mode):
    """So does variational Bayes routing, where children compete over positions and a floor is in the way of one."""
    from capsbench_torch import variational
    from capsbench_torch.layers import null_scope
    from capsbench_torch.routing import vote_grouped, vote_tiled

    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    tiled = mode == "tiled"
    vote, route = (vote_tiled, variational.route_tiled) if tiled else (vote_grouped, variational.route_grouped)
    variant = VBRouting(iterations=3, prior_nu=15.5, density_floor=2e-4)

    def run(poses, transforms, activations, offset):
        # Two positions of one image see three children each, two of them both.
        owner = torch.tensor([0, 1, 2, 1, 2, 3])
        sizes = {"children": 3, "parents": 2, "owner": owner, "below": 4, "scope": null_scope}
        routing = variational.Routing(variant=variant, offset=offset, normal=lambda *parents: parents, **sizes)
        parents = route(vote(poses, transforms), activations, routing)
        return parents.poses, parents.activations

    arguments = (draw(2, 3, 16), draw(3, 2, 4, 4), draw(2, 3), draw(2))
    assert torch.autograd.gradcheck(run, arguments, atol=1e-6, fast_mode=True)


def test_the_slope_of_digamma():
    """It is the trigamma function, to rounding, where PyTorch's own is off by 1e-8."""
    from capsbench_torch.variational import Digamma

    values = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64, requires_grad=True)
    Digamma.apply(values).sum().backward()
    expected = [np.pi**2 / 2, np.pi**2 / 6, np.pi**2 / 6 - 1.25]
    np.testing.assert_allclose(values.grad.numpy(), expected, rtol=1e-14)


@pytest.mark.parametrize("mode", MODES)
def test_input_activations(mode):
    """The primary activations get a gradient, and only noise in the seed and in yl-1993, where they cancel."""
    expected = {"em-68k": True, "em-official": True, "em-ibm": True, "em-seed": False, "em-yl": False, "vb": True}
    for name, matters in expected.items():
        if BACKEND.unsupported(bind(zoo.load(name), (28, 28, 1), 10), Setting(mode)) is not None:
            continue
        _, ours, _ = pair(zoo.load(name), mode, "float64")
        _, gradients = ours[0].loss_and_gradients(ours[1], STEP)
        ratio = np.abs(gradients["primary.activation_weights"]).max() / np.abs(gradients["primary.pose_weights"]).max()
        assert (ratio > 1e-3) == matters
