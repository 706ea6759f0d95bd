"""What a network must cost, from its equations: floating-point operations, least bytes, size of the votes.

These are the same for every backend: one denominator for what the backends measure. Conventions:

* A multiplication, addition, division, comparison or transcendental function counts as one operation.
* The backward pass of a layer costs twice its forward pass (one gradient for the input, one for the parameters); the
  first layer with parameters needs no gradient for its input.
* Least bytes assume that every layer reads its input and parameters once, writes its output once and keeps all else on
  chip; votes are never stored. Backward, it reads input, parameters and the output's gradient, and writes both
  gradients. The optimizer reads and writes parameter and state and reads the gradient.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from capsbench.network.layers import (
    AveragePool,
    BatchNorm,
    ClassCapsules,
    ClassVectors,
    Conv,
    ConvCapsules,
    Dense,
    Dropout,
    MapCapsules,
    MaxPool,
    PrimaryCapsules,
    Residual,
    SelfRoutedCapsules,
    SelfRoutedClasses,
    VectorCapsules,
)
from capsbench.network.objective import SpreadLoss
from capsbench.network.parameters import decoder_sizes, parameter_specs
from capsbench.network.routing import AgreementRouting, EMRouting, Routing, SelfAttentionRouting, VBRouting
from capsbench.network.shapes import POSE, BoundLayer, BoundNetwork, Capsules, Features, RoutingShape
from capsbench.network.training import Adam, AdamW

_SIGMOID = 4
_M_STEP_PER_VOTE = 6  # weigh, sum; subtract the mean, square, weigh, sum
_E_STEP_PER_VOTE = 5  # subtract the mean, square, divide, add the log of the deviation, sum
_M_STEP_PER_COUPLING = 3  # times the child's activation, sum, divide
_E_STEP_PER_COUPLING = 5  # add the log activation, subtract the largest, exponentiate, sum, divide
# Of variational Bayes: the deviations of its M-step are its E-step's too.
_VB_E_STEP_PER_VOTE = 2  # divide, sum
_VB_M_STEP_PER_COUPLING = 3  # times the child's activation, sum, divide
_VB_E_STEP_PER_COUPLING = 6  # add the parent's expectations, subtract the largest, exponentiate, sum; subtract, exp.
# Of a parent's element: digamma of half its degrees of freedom (2, 1), scale the squares, add the prior and the mean's
# square (2, 2), logarithm (2 with its sum), precision.
_VB_PER_ELEMENT = 10
_VB_PER_PARENT = 9  # three posterior counts, two digammas, expected weight and its logarithm, halve, add
_VB_LOGIT = 6  # entropy (2), times the expected weight (2 with its exponential), both offsets
_SOFTMAX = 4  # subtract the largest, exponentiate, sum, divide
_ADAM = 12
_SGD = 4


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One layer's cost for a whole batch; the rows of a network add up to its `Cost`.

    `train_step_*` hold forward, backward and this layer's share of the optimizer.
    """

    layer: str
    output: str
    parameters: int
    forward_flops: int
    train_step_flops: int
    forward_least_bytes: int
    train_step_least_bytes: int
    vote_bytes: int


@dataclass(frozen=True, slots=True)
class Cost:
    """A network's cost for a whole batch: operations, bytes, and the bytes its votes would take if stored."""

    forward_flops: int
    train_step_flops: int
    forward_least_bytes: int
    train_step_least_bytes: int
    vote_bytes: int


def cost(bound: BoundNetwork, batch: int, item_bytes: int = 4) -> Cost:
    """The cost of `batch` images; `item_bytes` is 4 for float32, 8 for float64, 2 for a bound in mixed precision."""
    layers = layer_costs(bound, batch, item_bytes)
    return Cost(
        sum(layer.forward_flops for layer in layers),
        sum(layer.train_step_flops for layer in layers),
        sum(layer.forward_least_bytes for layer in layers),
        sum(layer.train_step_least_bytes for layer in layers),
        sum(layer.vote_bytes for layer in layers),
    )


def layer_costs(bound: BoundNetwork, batch: int, item_bytes: int = 4) -> tuple[LayerCost, ...]:
    """The cost of every layer for `batch` images, then that of the loss and the decoder."""
    counts: dict[str, int] = {}
    for spec in parameter_specs(bound):
        if spec.trainable:
            owner = spec.owner
            counts[owner] = counts.get(owner, 0) + spec.size
    made, seen_parameters = [], False
    for layer in bound.layers:
        name, parameters = layer.layer.name, counts.get(layer.layer.name, 0)
        flops = forward_flops(bound, layer)
        sizes = (layer.input.values, layer.output.values)
        votes = 0 if layer.routing is None else layer.routing.votes
        backward = flops if parameters and not seen_parameters else 2 * flops
        seen_parameters = seen_parameters or bool(parameters)
        made.append(
            _layer(bound, name, str(layer.output), parameters, (flops, backward), sizes, votes, batch, item_bytes)
        )
    return (*made, *_tail(bound, counts.get("decoder", 0), batch, item_bytes))


def _layer(
    bound: BoundNetwork,
    name: str,
    output: str,
    parameters: int,
    flops: tuple[int, int],
    values: tuple[int, int],
    votes: int,
    batch: int,
    item_bytes: int,
) -> LayerCost:
    forward, backward = flops
    flow = batch * sum(values)
    optimizer = _ADAM if isinstance(bound.network.recipe.optimizer, Adam | AdamW) else _SGD
    state = len(bound.network.recipe.optimizer.state)
    forward_bytes = (flow + parameters) * item_bytes
    backward_bytes = (flow + batch * values[0] + 2 * parameters) * item_bytes
    optimizer_bytes = (2 * (1 + state) + 1) * parameters * item_bytes
    return LayerCost(
        name,
        output,
        parameters,
        batch * forward,
        batch * (forward + backward) + optimizer * parameters,
        forward_bytes,
        forward_bytes + backward_bytes + optimizer_bytes,
        batch * votes * item_bytes,
    )


def _tail(bound: BoundNetwork, decoder_parameters: int, batch: int, item_bytes: int) -> Iterator[LayerCost]:
    classes = bound.classes
    # Cross entropy: subtract the largest, exponentiate, sum, log, subtract; margin: difference, clip, square, weigh,
    # sum; spread, of the wrong classes: two differences, clip, square, sum.
    flops = 5 * (classes - isinstance(bound.network.objective.loss, SpreadLoss))
    yield _layer(bound, "loss", "1", 0, (flops, 2 * flops), (classes, 0), 0, batch, item_bytes)
    sizes = decoder_sizes(bound)
    if sizes:
        dense = sum(2 * a * b + b for a, b in pairwise(sizes))
        flops = dense + sum(sizes[1:-1]) + (_SIGMOID + 3) * sizes[-1]
        flow = (sum(sizes[:-1]) + sizes[-1], sum(sizes[1:]))
        yield _layer(
            bound, "decoder", str(bound.image), decoder_parameters, (flops, 2 * flops), flow, 0, batch, item_bytes
        )


def forward_flops(bound: BoundNetwork, layer: BoundLayer) -> int:
    """Floating-point operations of one layer's forward pass for one image."""
    spec, below, above = layer.layer, layer.input, layer.output
    match spec:
        case BatchNorm():
            values = below.pose_values if isinstance(below, Capsules) else below.values
            return (2 + spec.center + spec.scale + (spec.activation == "relu")) * values
        case Conv():
            return _conv(spec.kernel, below, above.values) + above.values * (
                (spec.activation == "relu") - (not spec.biases)
            )
        case MaxPool():
            return (spec.size**2 - 1) * above.values
        case AveragePool():
            return below.values if spec.size == "all" else spec.size**2 * above.values
        case Residual():
            return _residual(layer)
        case Dense():
            return (2 * below.values + 1 + (spec.activation == "relu")) * above.values
        case Dropout():
            return below.values
        case _:
            return _capsules(bound, layer)


def _capsules(bound: BoundNetwork, layer: BoundLayer) -> int:
    spec, below, above = layer.layer, layer.input, layer.output
    match spec:
        case PrimaryCapsules():
            activations = above.values // (POSE + 1)
            products = _conv(spec.kernel, below, above.values) - above.values * (not spec.biases)
            logits = (_SIGMOID + (spec.activation_offset != 0.0)) * activations
            return products + logits + (4 * above.values if spec.normalisation is not None else 0)
        case ConvCapsules() | ClassCapsules():
            return _routed(bound.network.routing, layer)
        case VectorCapsules():
            capsules = above.values // spec.elements
            maps = Features(1, 1, 1) if spec.depthwise else below
            return _conv(spec.kernel, maps, above.values) + _squashed(capsules, spec.elements)
        case ClassVectors():
            return _routed_vectors(bound.network.routing, layer)
        case MapCapsules():
            return _SIGMOID * (above.values // (spec.elements + 1))
        case SelfRoutedCapsules() | SelfRoutedClasses():
            return _self_routed(layer)
    raise AssertionError(spec)


def vote_flops(shape: RoutingShape) -> int:
    """Operations of casting one image's votes: multiplications, 64 for a 4x4 product, and as many additions."""
    return 2 * shape.multiplications * shape.positions * shape.children * shape.parents


def _conv(kernel: int, below: object, outputs: int) -> int:
    assert isinstance(below, Features)  # noqa: S101 - convolutions stand on maps only
    return (2 * kernel**2 * below.channels + 1) * outputs


def _residual(layer: BoundLayer) -> int:
    """Convolutions without biases, normalisations (4 each value), two ReLUs and the sum."""
    below, above = layer.input, layer.output
    assert isinstance(below, Features)  # noqa: S101 - convolutions stand on maps only
    assert isinstance(above, Features)  # noqa: S101 - likewise
    shortcut = 2 * below.channels + 4 if below != above else 0
    return (2 * 9 * (below.channels + above.channels) + 2 * 4 + 3 + shortcut) * above.values


def _squashed(vectors: int, elements: int) -> int:
    """Square, sum and scale every element; of each vector the root and four more for either squash."""
    return vectors * (3 * elements + 5)


def _routed_vectors(routing: Routing | None, layer: BoundLayer) -> int:
    shape = layer.routing
    assert shape is not None  # noqa: S101 - bind gives every routed layer its sizes
    couplings = shape.children * shape.parents
    parent = _squashed(shape.parents, shape.elements)
    length = shape.parents * (2 * shape.elements + 1)
    if isinstance(routing, SelfAttentionRouting):
        # Sum the votes, take every vote's product with the sum, scale it, softmax, add the prior, weigh and sum.
        return vote_flops(shape) + 5 * shape.votes + (_SOFTMAX + 2) * couplings + parent + length
    assert isinstance(routing, AgreementRouting)  # noqa: S101 - check_structure has seen to it
    sums = routing.iterations * (2 * shape.votes + parent)
    agreements = (routing.iterations - 1) * (2 * shape.votes + (1 + _SOFTMAX) * couplings)
    return vote_flops(shape) + sums + agreements + length


def _self_routed(layer: BoundLayer) -> int:
    shape, below = layer.routing, layer.input
    assert shape is not None  # noqa: S101 - bind gives every routed layer its sizes
    assert isinstance(below, Capsules)  # noqa: S101 - check_structure has seen to it
    children = shape.positions * shape.children
    couplings, parents = children * shape.parents, shape.positions * shape.parents
    # A product with the pose and a bias, softmax, times the child's activation, sum.
    routed = (2 * below.pose_elements + _SOFTMAX + 2) * couplings
    # The children's activations summed, and every parent's mass divided by that; of a class the logarithm too.
    activations = children + parents * (2 if shape.elements == 0 else 1)
    # Weights are divided by the mass; votes weighed and summed.
    poses = vote_flops(shape) + 2 * shape.votes + (couplings if shape.elements else 0)
    return routed + activations + poses


def _routed(routing: Routing | None, layer: BoundLayer) -> int:
    shape = layer.routing
    assert shape is not None  # noqa: S101 - bind gives every routed layer its sizes
    if isinstance(routing, VBRouting):
        return _routed_by_bayes(routing, layer, shape)
    assert isinstance(routing, EMRouting)  # noqa: S101 - check_structure has seen to it
    couplings = shape.positions * shape.children * shape.parents
    parents = shape.positions * shape.parents
    steps, between = routing.iterations, routing.iterations - 1
    votes = vote_flops(shape) + _coordinate_flops(routing, layer, couplings)
    m_steps = steps * (_M_STEP_PER_VOTE * shape.votes + _M_STEP_PER_COUPLING * couplings)
    e_steps = between * (_E_STEP_PER_VOTE * shape.votes + _E_STEP_PER_COUPLING * couplings)
    # Per parent and iteration: log, halve and offset each element, sum them; cost, logit and activation; and where
    # means are damped, two products and a sum.
    elements = 4 + 3 * (routing.damping > 0.0)
    activations = steps * parents * (elements * shape.elements + 3 + _SIGMOID)
    return votes + m_steps + e_steps + activations


def _coordinate_flops(routing: EMRouting | VBRouting, layer: BoundLayer, couplings: int) -> int:
    """Add the child's row and column to its votes, which class capsules alone do."""
    adds = isinstance(layer.layer, ClassCapsules) and routing.coordinate_elements() is not None
    return 2 * couplings * adds


def _routed_by_bayes(routing: VBRouting, layer: BoundLayer, shape: RoutingShape) -> int:
    couplings = shape.positions * shape.children * shape.parents
    parents = shape.positions * shape.parents
    steps, between = routing.iterations, routing.iterations - 1
    votes = vote_flops(shape) + _coordinate_flops(routing, layer, couplings)
    m_steps = steps * (_M_STEP_PER_VOTE * shape.votes + _VB_M_STEP_PER_COUPLING * couplings)
    e_steps = between * (_VB_E_STEP_PER_VOTE * shape.votes + _VB_E_STEP_PER_COUPLING * couplings)
    posteriors = steps * parents * (_VB_PER_ELEMENT * shape.elements + _VB_PER_PARENT)
    normal = 2 * (shape.elements + 1) * parents if routing.normalisation is not None else 0
    return votes + m_steps + e_steps + posteriors + parents * (_VB_LOGIT + _SIGMOID) + normal
