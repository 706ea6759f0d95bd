"""The layers in PyTorch. Maps are kept [b, c, h, w], as PyTorch wants them, capsules [b, h, w, n, 16]."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from capsbench.measure.steptrace import VOTES
from capsbench.network.layers import (
    MATRIX_ROUTED,
    ROUTED,
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
    VectorCapsules,
)
from capsbench.network.patches import margins, patch_places
from capsbench.network.routing import AgreementRouting, EMRouting, MatrixRouting, SelfRouting, VBRouting
from capsbench.network.shapes import BoundLayer, BoundNetwork, Capsules, coordinates
from capsbench_torch import fused, selfrouting, variational, vectors
from capsbench_torch.maps import Parameters, Statistics, activate, average_pool, batch_norm, conv, primary, residual
from capsbench_torch.mixed import Vote, casting, products, wide
from capsbench_torch.routing import (
    Parents,
    Routing,
    Scope,
    route_grouped,
    route_tiled,
    vote_grouped,
    vote_tiled,
)

OfMatrices = Routing | variational.Routing


@dataclass(frozen=True, slots=True)
class Signal:
    """What flows between layers: maps [b, c, h, w] (or [b, units]), or poses [b, h, w, n, h'] with activations.

    `scores` [b, classes] is what the last layer ranks classes by; `poses` is then [b, classes, elements], or where
    classes have no poses their activations once more.
    """

    values: Tensor
    activations: Tensor | None = None
    scores: Tensor | None = None


class Watcher(Protocol):
    """Somebody who looks at an evaluation while it runs."""

    def output(self, layer: BoundLayer, signal: Signal) -> None:
        """See what a layer gives out."""

    def votes(self, layer: str, votes: Tensor) -> None:
        """See a layer's votes, in the order of its formulation."""

    def m_step(self, layer: str, couplings: Tensor, mass: Tensor, variance: Tensor) -> None:
        """See an M-step of a layer's routing, as a `routing.Observer` does."""


@dataclass(frozen=True, slots=True)
class Context:
    """How a pass is run.

    Attributes:
        bound: the network.
        tiled: votes and routing in the tiled formulation instead of the grouped one.
        indices: index tensors by layer (patches and owners) and coordinates, on the device.
        scope: names a stretch of work for the profiler.
        kernels: route in place of plain operators, by layer; none but where the mode has them.
        watcher: looks at what goes by, where anybody does.
        mixed: whether products may be rounded to bfloat16; capsules and their routing are float32 all the same.
        statistics: makes what the statistics of a batch are put into.
    """

    bound: BoundNetwork
    tiled: bool
    indices: Mapping[str, Tensor]
    scope: Scope
    kernels: Mapping[str, fused.Fused]
    watcher: Watcher | None = None
    mixed: bool = False
    statistics: Callable[[], Statistics] = Statistics


def constants(bound: BoundNetwork, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Patch indices, owners and coordinates of every capsule layer, by `layer.what`, on the device."""
    made: dict[str, Tensor] = {}
    for layer in bound.layers:
        spec, below = layer.layer, layer.input
        if isinstance(spec, ConvCapsules) and isinstance(below, Capsules):
            places = patch_places(below.height, below.width, spec.kernel, spec.stride)
            owner = places[..., None] * below.capsules + np.arange(below.capsules)
            made[f"{spec.name}.places"] = torch.from_numpy(places.reshape(-1)).to(device)
            made[f"{spec.name}.owner"] = torch.from_numpy(owner.reshape(-1)).to(device)
        if isinstance(spec, SelfRoutedCapsules):
            left, right, top, bottom = selfrouting.padding(spec, below.height, below.width)
            whole = (below.height + top + bottom, below.width + left + right)
            places = patch_places(*whole, spec.kernel, spec.stride)
            made[f"{spec.name}.places"] = torch.from_numpy(places.reshape(-1)).to(device)
        if isinstance(spec, ClassCapsules):
            made[f"{spec.name}.coordinates"] = torch.tensor(coordinates(bound, layer), dtype=dtype, device=device)
            made[f"{spec.name}.owner"] = torch.arange(layer.input.height * layer.input.width, device=device)
    return made


def run(
    context: Context, parameters: Parameters, images: Tensor, masks: Parameters | None
) -> tuple[Signal, Statistics]:
    """The network on images [b, c, h, w]; with `masks` as in training, without as at evaluation.

    Returns:
        The last layer's signal, and the batch's statistics for every batch normalisation in training.
    """
    signal, statistics = Signal(images), context.statistics()
    for layer in context.bound.layers:
        prefix = f"{layer.layer.name}."
        own = {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}
        with context.scope(f"layer::{layer.layer.name}"):
            seen = statistics if masks is not None else None
            match layer.layer:
                case BatchNorm() as spec:
                    signal = _normal(spec, own, signal, seen)
                case Residual() as spec:
                    with products(images.device, mixed=context.mixed):
                        signal = Signal(residual(spec, own, signal.values, seen))
                case Dropout() as spec:
                    signal = signal if masks is None else Signal(signal.values.flatten(1) * masks[spec.name])
                case PrimaryCapsules() as spec:
                    with products(images.device, mixed=context.mixed):
                        signal = Signal(*primary(spec, own, signal.values, seen))
                case spec if isinstance(spec, ROUTED):
                    signal = _above(context, layer, own, signal, seen)
                case _:
                    with products(images.device, mixed=context.mixed):
                        signal = _plain(layer, own, signal.values)
            if layer is context.bound.layers[-1] and signal.scores is None:
                scores = wide(signal.values)
                signal = Signal(scores, scores.softmax(-1), scores)
        if context.watcher is not None:
            context.watcher.output(layer, signal)
    return signal, statistics


def _above(
    context: Context, layer: BoundLayer, own: Parameters, below: Signal, statistics: Statistics | None
) -> Signal:
    """Capsules above capsules."""
    if isinstance(layer.layer, ClassVectors):
        return _class_vectors(context, layer.layer, own, below.values)
    if isinstance(layer.layer, MATRIX_ROUTED):
        return _route(context, layer, own, below, statistics)
    return _self_routed(context, layer, own, below)


def _normal(spec: BatchNorm, own: Parameters, below: Signal, statistics: Statistics | None) -> Signal:
    """Maps, or the poses of capsules, whose elements are channels then."""
    capsules = below.activations is not None
    maps = below.values.flatten(3).permute(0, 3, 1, 2) if capsules else below.values
    maps = batch_norm(own, maps, spec.epsilon, statistics, spec.name, activation=spec.activation)
    return replace(below, values=maps.permute(0, 2, 3, 1).view(below.values.shape) if capsules else maps)


def _plain(layer: BoundLayer, own: Parameters, values: Tensor) -> Signal:
    match layer.layer:
        case MapCapsules() as spec:
            return Signal(*selfrouting.of_maps(values, spec.capsules))
        case Conv() as spec:
            before, after = margins(spec.padding, values.shape[2], spec.kernel, spec.stride)
            if before != after:
                values, before = functional.pad(values, (before, after, before, after)), 0
            maps = conv(values, own["weights"], own.get("biases"), spec.stride, before)
            return Signal(activate(maps, spec.activation))
        case AveragePool() as spec:
            return Signal(average_pool(values, spec.size))
        case VectorCapsules() as spec:
            maps = conv(values, own["weights"], own["biases"], spec.stride).permute(0, 2, 3, 1)
            poses = vectors.squash(wide(maps).reshape(*maps.shape[:3], spec.capsules, spec.elements), spec.squash)
            return Signal(poses, vectors.length(poses))
        case MaxPool() as spec:
            return Signal(functional.max_pool2d(values, spec.size, spec.stride))
        case Dense() as spec:
            # The canonical order flattens [h, w, c].
            flat = values.permute(0, 2, 3, 1).flatten(1) if values.ndim == 4 else values
            return Signal(activate(torch.addmm(own["biases"], flat, own["weights"]), spec.activation))
        case other:
            raise AssertionError(f"no plain layer: {other}")


def _route(
    context: Context, layer: BoundLayer, own: Parameters, below: Signal, statistics: Statistics | None
) -> Signal:
    variant, shape = context.bound.network.routing, layer.routing
    assert isinstance(variant, MatrixRouting)  # noqa: S101 - check_structure has seen to it
    assert shape is not None  # noqa: S101 - bind gives every routed layer its sizes
    assert below.activations is not None  # noqa: S101 - capsules stand below
    name, watcher, variant = layer.layer.name, context.watcher, variant.of(layer.layer)
    if context.kernels and isinstance(variant, EMRouting):
        if watcher is not None:  # kernels have no votes and couplings to show
            _route(replace(context, kernels={}), layer, own, below, statistics)
        return _upper(
            layer, variant, *fused.route(context.kernels[name], variant, below.values, below.activations, own)
        )
    owner, sizes = context.indices[f"{name}.owner"], (shape.children, shape.parents)
    observe = None if watcher is None else partial(watcher.m_step, name)
    routing: OfMatrices
    if isinstance(variant, EMRouting):
        own = variant.scaled(own)
        routing = Routing(variant, own["beta_u"], own["beta_a"], *sizes, owner, context.scope, observe)
    else:
        offset, places = own["beta_a"] - own["beta_u"], below.activations[0].numel()
        normal = partial(variational.normal_parents, own, variant, name, statistics)
        routing = variational.Routing(variant, offset, *sizes, owner, places, normal, context.scope, observe)
    if isinstance(layer.layer, ConvCapsules):
        return _conv_capsules(context, layer, own["transforms"], below.values, below.activations, routing)
    return _class_capsules(context, layer, own["transforms"], below.values, below.activations, routing)


def _upper(layer: BoundLayer, variant: EMRouting, poses: Tensor, logits: Tensor) -> Signal:
    """What a layer gives out, from its parents' poses [b, p, j, h] and logits [b, p, j]."""
    activations = logits.sigmoid() if variant.activation == "sigmoid" else logits.softmax(-1)
    if isinstance(layer.layer, ConvCapsules):
        grid = (len(poses), layer.output.height, layer.output.width, poses.shape[2])
        return Signal(poses.view(*grid, -1), activations.view(grid))
    mean = activations.mean(1)
    joint = isinstance(layer.layer, ClassCapsules) and layer.layer.positions == "joint"
    return Signal(poses.mean(1), mean, logits[:, 0] if joint else mean)


def _conv_capsules(
    context: Context, layer: BoundLayer, transforms: Tensor, poses: Tensor, activations: Tensor, routing: OfMatrices
) -> Signal:
    batch, height, width, types = activations.shape
    places = context.indices[f"{layer.layer.name}.places"]
    poses = poses.reshape(batch, height * width, types * 16).index_select(1, places)
    activations = activations.reshape(batch, height * width, types).index_select(1, places)
    poses = poses.view(-1, routing.children, 16)
    activations = activations.view(-1, routing.children)

    vote, route = _formulation(context, routing)
    with context.scope(VOTES):
        votes = vote(poses, transforms)
    if context.watcher is not None:
        context.watcher.votes(layer.layer.name, votes)
    parents = route(votes, activations, routing)
    grid = (batch, layer.output.height, layer.output.width, routing.parents)
    return Signal(parents.poses.view(*grid, 16), parents.activations.view(grid))


def _class_capsules(
    context: Context, layer: BoundLayer, transforms: Tensor, poses: Tensor, activations: Tensor, routing: OfMatrices
) -> Signal:
    spec, batch, classes = layer.layer, len(poses), routing.parents
    assert isinstance(spec, ClassCapsules)  # noqa: S101 - the caller has looked
    places, types = activations.shape[1] * activations.shape[2], activations.shape[3]
    coordinate = context.indices[f"{spec.name}.coordinates"]
    joint = spec.positions == "joint"
    vote, route = _formulation(context, routing)
    with context.scope(VOTES):
        # Votes are cast place by place, because a child type has one transform for all places.
        votes = vote(poses.reshape(batch * places, types, 16), transforms)
        votes = _add_coordinates(votes.view(batch, places, *votes.shape[1:]), coordinate, routing)
        if joint and not context.tiled:
            votes = votes.transpose(1, 2)
        n = batch if joint else batch * places
        order = (n, routing.children, classes, -1) if context.tiled else (n, classes, routing.children, -1)
        votes = votes.reshape(order)
    if context.watcher is not None:
        context.watcher.votes(spec.name, votes)
    parents = route(votes, activations.reshape(n, routing.children), routing)
    if joint:
        by_logit = isinstance(routing.variant, EMRouting)
        return Signal(parents.poses, parents.activations, parents.logits if by_logit else parents.activations)
    mean = parents.activations.view(batch, places, classes).mean(1)
    return Signal(parents.poses.view(batch, places, classes, -1).mean(1), mean, mean)


def _class_vectors(context: Context, spec: ClassVectors, own: Parameters, below: Tensor) -> Signal:
    """Class capsules that are vectors; their scores are lengths before the squash, which does not let them tie."""
    routing, watcher = context.bound.network.routing, context.watcher
    with context.scope(VOTES):
        vote = casting(vectors.vote_tiled if context.tiled else vectors.vote_grouped, mixed=context.mixed)
        votes = vote(below.reshape(len(below), -1, below.shape[-1]), own["transforms"])
    if watcher is not None:
        watcher.votes(spec.name, votes)
    if isinstance(routing, AgreementRouting):
        agree = vectors.agree_tiled if context.tiled else vectors.agree_grouped
        observe = None if watcher is None else partial(watcher.m_step, spec.name)
        sums = agree(votes, routing, spec.squash, context.scope, observe)
    else:
        sums = (vectors.attend_tiled if context.tiled else vectors.attend_grouped)(votes, own["priors"])
    poses = vectors.squash(sums, spec.squash)
    return Signal(poses, vectors.length(poses), vectors.length(sums))


def _self_routed(context: Context, layer: BoundLayer, own: Parameters, below: Signal) -> Signal:
    spec, variant, watcher = layer.layer, context.bound.network.routing, context.watcher
    assert isinstance(variant, SelfRouting)  # noqa: S101 - check_structure has seen to it
    assert below.activations is not None  # noqa: S101 - capsules stand below
    multiply = selfrouting.products_tiled if context.tiled else selfrouting.products_grouped
    observe = None if watcher is None else partial(watcher.m_step, spec.name)
    if not isinstance(spec, SelfRoutedCapsules):
        children = below.values.flatten(1, 3)
        logits = multiply(children, own["routing_weights"]) + own["routing_biases"]
        scores = selfrouting.classify(logits, below.activations.flatten(1), observe)
        active = scores.exp()
        return Signal(active, active, scores)
    places = context.indices[f"{spec.name}.places"]
    children, activations = selfrouting.patches(below.values, below.activations, places, spec)
    vote = casting(selfrouting.vote_tiled if context.tiled else selfrouting.vote_grouped, mixed=context.mixed)
    with context.scope(VOTES):
        votes = vote(children, own["transforms"])
    if watcher is not None:
        watcher.votes(spec.name, votes)
    logits = multiply(children, own["routing_weights"]) + own["routing_biases"]
    gather = selfrouting.gather_tiled if context.tiled else selfrouting.gather_grouped
    poses, active = gather(votes, logits, activations, variant, observe)
    grid = (len(below.values), layer.output.height, layer.output.width, spec.capsules)
    return Signal(poses.view(*grid, -1), active.view(grid))


def _formulation(context: Context, routing: OfMatrices) -> tuple[Vote, Callable[..., Parents]]:
    vote = casting(vote_tiled if context.tiled else vote_grouped, mixed=context.mixed)
    if isinstance(routing.variant, VBRouting):
        return vote, variational.route_tiled if context.tiled else variational.route_grouped
    return vote, route_tiled if context.tiled else route_grouped


def _add_coordinates(votes: Tensor, places: Tensor, routing: OfMatrices) -> Tensor:
    """Votes [b, places, ., ., 16] with each place's (row, column) [places, 2] added or appended."""
    shaped = places[None, :, None, None, :]
    if routing.variant.coordinates == "appended":
        return torch.cat([votes, shaped.expand(*votes.shape[:4], 2)], -1)
    elements = routing.variant.coordinate_elements()
    if elements is None:
        return votes
    offset = places.new_zeros(len(places), 16)
    offset[:, elements] = places
    return votes + offset[None, :, None, None, :]


def null_scope(name: str) -> AbstractContextManager[object]:
    """A scope that names nothing: what runs outside the profiler."""
    del name
    # torch.compile knows this context; one of our own would break its graph at every layer.
    return nullcontext()
