"""Estimate the peak memory of a train step from the shapes: what autograd keeps, layer by layer.

Walking backward, the peak is the largest over the layers of: what outlives the step, what the layers up to this one
have kept for their gradients, what this layer's backward pass works with, and the parameter gradients made so far. The
counts below are read off `routing` and `layers`: v is a tensor of the votes' size, c one of the couplings' (a vote has
16 or 18 elements, a coupling one). What convolutions take on top depends on the processor: see `scratch`.
"""

from dataclasses import dataclass
from typing import cast

from capsbench.backend import PeakForecast, Setting
from capsbench.network.layers import (
    BatchNorm,
    ClassVectors,
    Conv,
    Dropout,
    MaxPool,
    PrimaryCapsules,
    Residual,
    SelfRoutedCapsules,
    SelfRoutedClasses,
    VectorCapsules,
)
from capsbench.network.parameters import decoder_sizes, parameter_specs
from capsbench.network.routing import AgreementRouting, MatrixRouting, SelfAttentionRouting, VBRouting
from capsbench.network.shapes import BoundLayer, BoundNetwork, Capsules
from capsbench_fused.engine import KERNEL_MODES, Engine
from capsbench_fused.forecast import held
from capsbench_fused.task import task_of
from capsbench_torch.scratch import most_scratch_numbers


@dataclass(frozen=True, slots=True)
class _Layer:
    """What one layer holds, in numbers (not bytes).

    Attributes:
        kept: from the forward pass to the backward one.
        working: what the backward pass needs besides.
        gradients: of the layer's parameters.
    """

    kept: float
    working: float
    gradients: int


def forecast_peak(bound: BoundNetwork, setting: Setting, batch: int) -> PeakForecast | None:
    """Estimate the peak; None for compiled modes, for kernels on a GPU, and in mixed precision."""
    if setting.mixed or setting.mode == "compile" or (setting.mode in KERNEL_MODES and setting.device != "cpu"):
        return None
    layers = [*(_layer(bound, layer, setting, batch) for layer in bound.layers), _decoder(bound, batch)]
    scratch = [*(most_scratch_numbers(bound, layer, batch, setting.threads) for layer in bound.layers), 0]
    gradients = sum(layer.gradients for layer in layers)
    lasting = gradients * (1 + len(bound.network.recipe.optimizer.state)) + batch * bound.image.values
    low, high, kept, made = 0.0, 0.0, sum(layer.kept for layer in layers), 0
    for layer, most in zip(reversed(layers), reversed(scratch), strict=True):
        made += layer.gradients
        low = max(low, kept + layer.working + made)
        high = max(high, kept + layer.working + made + most)
        kept -= layer.kept
    number_bytes = 8 if setting.precision == "float64" else 4
    return PeakForecast(round((lasting + low) * number_bytes), round((lasting + high) * number_bytes))


def _layer(bound: BoundNetwork, layer: BoundLayer, setting: Setting, batch: int) -> _Layer:
    owned = [spec for spec in parameter_specs(bound) if spec.owner == layer.layer.name]
    gradients = sum(spec.size for spec in owned if spec.trainable)
    if layer.routing is None:
        return _unrouted(layer, batch, gradients)
    if setting.mode in KERNEL_MODES:
        return _by_kernels(bound, layer, setting, batch, gradients)
    if isinstance(layer.layer, ClassVectors):
        return _class_vectors(bound, layer, setting, batch, gradients)
    if isinstance(layer.layer, SelfRoutedCapsules | SelfRoutedClasses):
        return _self_routed(layer, setting, batch, gradients)
    return _matrices(bound, layer, setting, batch, gradients)


def _unrouted(layer: BoundLayer, batch: int, gradients: int) -> _Layer:
    below, above = batch * layer.input.values, batch * layer.output.values
    match layer.layer:
        case MaxPool():
            # The indices of the winners are 8-byte integers.
            return _Layer(3 * above, below + above, gradients)
        case PrimaryCapsules(normalisation=how) if how is not None:
            # As a convolution and a batch normalisation above it.
            return _Layer(4 * above, below + 3 * above, gradients)
        case Conv() | PrimaryCapsules():
            return _Layer(above, below + 2 * above, gradients)
        case VectorCapsules(elements=elements):
            # The sums, the children in the order of the products, and what scales them.
            scaled = 2 * above + 5 * above / elements
            return _Layer(scaled, below + 3 * above, gradients)
        case Residual():
            # Of either convolution its output, less its mean, normal and active.
            return _Layer(8 * above, below + 3 * above, gradients)
        case BatchNorm() | Dropout():
            tensors = 3 if isinstance(layer.layer, BatchNorm) and layer.layer.scale else 2
            return _Layer(tensors * above, 2 * above, gradients)
        case _:
            return _Layer(above, below + above, gradients)


def _matrices(bound: BoundNetwork, layer: BoundLayer, setting: Setting, batch: int, gradients: int) -> _Layer:
    shape, routing, eager = layer.routing, bound.network.routing, setting.mode == "eager"
    assert shape is not None  # noqa: S101 - bind gives every routed layer its sizes
    assert isinstance(routing, MatrixRouting)  # noqa: S101 - check_structure has seen to it
    votes = batch * shape.votes
    couplings = votes / shape.elements
    patches = batch * shape.positions * shape.children * 17
    kept, working = _grouped(routing) if eager else _tiled(routing)
    # Grouped votes spread each 4x4 transform along the diagonal of a 16x16 block, kept and given a gradient.
    blocks = 4 * 16 * shape.child_types * shape.parents if eager else 0
    return _Layer(
        kept[0] * votes + kept[1] * couplings + blocks + patches + batch * layer.output.values,
        working[0] * votes + working[1] * couplings + 2 * blocks + 2 * patches,
        gradients,
    )


def _class_vectors(bound: BoundNetwork, layer: BoundLayer, setting: Setting, batch: int, gradients: int) -> _Layer:
    """Where casting votes has its backward pass, what routing kept is gone."""
    shape, routing = layer.routing, bound.network.routing
    assert shape is not None  # noqa: S101 - bind gives every routed layer its sizes
    votes = float(batch * shape.votes)
    couplings = votes / shape.elements
    transforms = shape.multiplications * shape.children * shape.parents
    # Iterations that a gradient flows through; self-attention is as good as two.
    steps = 2 if isinstance(routing, SelfAttentionRouting) else 1
    if isinstance(routing, AgreementRouting) and routing.gradient == "all":
        steps = routing.iterations
    if setting.mode == "eager":
        # Kept are the votes and, in the order of the products, the transforms.
        routed = votes + couplings * steps
        return _Layer(transforms + routed, max(min(steps, 2) * votes, 2 * transforms + 2 * votes - routed), gradients)
    # Kept are both tiled factors, the votes and twice the couplings.
    tiled, children = batch * transforms, batch * transforms / shape.elements
    routed = votes + 2 * couplings * steps
    # Every attention of a child to another has a gradient, and one more where it is scaled.
    attention = 2 * couplings * shape.children if isinstance(routing, SelfAttentionRouting) else 0
    working = max(3 * votes + attention, tiled + children + votes - routed)
    return _Layer(tiled + children + routed, working, gradients)


def _self_routed(layer: BoundLayer, setting: Setting, batch: int, gradients: int) -> _Layer:
    """Where casting votes has its backward pass, what routing kept is gone."""
    shape, below = layer.routing, layer.input
    assert shape is not None  # noqa: S101 - bind gives every routed layer its sizes
    assert isinstance(below, Capsules)  # noqa: S101 - check_structure has seen to it
    votes = float(batch * shape.votes)
    couplings = float(batch * shape.positions * shape.children * shape.parents)
    # Patches overlap and are copies; classes see the capsules below where they are.
    children = batch * shape.positions * shape.children * below.pose_elements * (shape.votes > 0)
    transforms = shape.multiplications * shape.children * shape.parents
    # Of couplings: themselves, times the activations, and divided by the mass; of classes logarithms, exponentials.
    routed = votes + 3 * couplings
    if setting.mode == "eager":
        # The transforms in the order of the products, which their gradient has first.
        working = max(votes + 3 * couplings, 2 * votes + 2 * transforms + 2 * children - routed)
        return _Layer(transforms + children + routed, working, gradients)
    # Both matrices of every child tiled over the positions.
    tiled, choosing = votes * below.pose_elements, couplings * below.pose_elements
    working = max(3 * votes, choosing + votes, tiled + votes + children - routed - choosing)
    return _Layer(tiled + choosing + children + routed, working, gradients)


def _by_kernels(bound: BoundNetwork, layer: BoundLayer, setting: Setting, batch: int, gradients: int) -> _Layer:
    """Kernels keep no votes, and read the capsules below where they are."""
    needs = held(task_of(bound, layer), batch, cast("Engine", setting.mode), setting.threads)
    above = batch * layer.output.values
    return _Layer(needs.kept + above, needs.working + above, gradients)


def _grouped(routing: MatrixRouting) -> tuple[tuple[float, float], tuple[float, float]]:
    """(v, c) kept and (v, c) worked with, in the grouped formulation.

    Kept are the votes, and for every iteration the squared deviations, the assignments, their product with the child's
    activation, and the weights. The backward pass turns one tensor in place from the squares' gradient into the votes'.
    """
    steps, between = routing.iterations, routing.iterations - 1
    if isinstance(routing, VBRouting):
        # And the log-densities that were summed.
        return (1.0 + steps, 3.0 * steps + between), (1.0, 3.0)
    couplings = 3.0 * steps + 1.5 * steps * routing.renormalise_input
    if routing.densities == "shifted":
        couplings += 2.0 * between
    return (1.0 + steps, couplings), (1.0, 3.0)


def _tiled(routing: MatrixRouting) -> tuple[tuple[float, float], tuple[float, float]]:
    """(v, c) kept and (v, c) worked with, in the tiled formulation.

    Kept are the tiled transforms, the tiled poses and the votes; for every M-step the differences and their squares;
    for every E-step both once more, and with shifted densities the densities.
    """
    steps, between = routing.iterations, routing.iterations - 1
    votes = 3.0 + 2.0 * steps + 2.0 * between
    if isinstance(routing, VBRouting):
        return (votes, 2.0 * steps + between), (3.0, 3.0)
    couplings = 2.5 * steps + 1.5 * steps * routing.renormalise_input
    if routing.densities == "shifted":
        votes += between
        couplings += 2.0 * between
    return (votes, couplings), (3.0, 3.0)


def _decoder(bound: BoundNetwork, batch: int) -> _Layer:
    sizes = decoder_sizes(bound)
    gradients = sum(spec.size for spec in parameter_specs(bound) if spec.name.startswith("decoder."))
    return _Layer(batch * sum(sizes), batch * 2 * max(sizes, default=0), gradients)
