"""Every layer as it is defined, on real or complex arrays (see `routing`)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capsbench.network.layers import (
    AveragePool,
    BatchNorm,
    ClassCapsules,
    ClassVectors,
    Conv,
    ConvCapsules,
    Dense,
    Dropout,
    Layer,
    MapCapsules,
    MaxPool,
    PrimaryCapsules,
    Residual,
    SelfRoutedCapsules,
    SelfRoutedClasses,
    VectorCapsules,
)
from capsbench.network.patches import margins, patch_places
from capsbench.network.routing import AgreementRouting, EMRouting, MatrixRouting, SelfRouting, VBRouting
from capsbench.network.shapes import BoundLayer, BoundNetwork, coordinates
from capsbench_numpy import selfrouting, variational, vectors
from capsbench_numpy.inspection import Inspector
from capsbench_numpy.maps import (
    Seen,
    average_pool,
    batch_norm,
    conv,
    depthwise_conv,
    max_pool,
    normal_capsules,
    rectify,
    residual,
)
from capsbench_numpy.routing import Array, Routed, log_sigmoid, log_softmax, route, vote


@dataclass(frozen=True, slots=True)
class Signal:
    """What flows between layers: maps [b, h, w, c], or poses [b, h, w, n, elements] with activations [b, h, w, n].

    Classes without poses have their activations in both. `scores` [b, classes] is what the last layer ranks classes by.
    """

    values: Array
    activations: Array | None = None
    scores: Array | None = None


def run(
    bound: BoundNetwork,
    parameters: Mapping[str, Array],
    images: Array,
    masks: Mapping[str, Array] | None = None,
    inspector: Inspector | None = None,
    seen: Seen | None = None,
) -> Signal:
    """The network on images [b, h, w, c]: with `masks` (which may be empty) as in training, else as at evaluation.

    In training `seen` takes up what `Seen` says, under the names of parameters.
    """
    signal = Signal(images)
    for layer in bound.layers:
        prefix = f"{layer.layer.name}."
        own = {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}
        of_layer = None if masks is None else Seen(shifts=None if seen is None or seen.shifts is None else {})
        signal = _apply(bound, layer, own, signal, masks, of_layer, inspector)
        if seen is not None and of_layer is not None:
            seen.take(prefix, of_layer)
        if inspector is not None:
            inspector.see_layer(layer.layer, signal.values, signal.activations)
    if signal.activations is None:
        scores = signal.values.reshape(len(images), -1)
        return Signal(scores, np.exp(log_softmax(scores)), scores)
    return signal


def _apply(
    bound: BoundNetwork,
    layer: BoundLayer,
    own: Mapping[str, Array],
    below: Signal,
    masks: Mapping[str, Array] | None,
    seen: Seen | None,
    inspector: Inspector | None,
) -> Signal:
    match layer.layer:
        case PrimaryCapsules() as spec:
            return _primary(spec, own, below.values, seen=seen)
        case ConvCapsules() as spec:
            return _conv_capsules(bound, layer, spec, own, below, inspector, seen=seen)
        case ClassCapsules() as spec:
            return _class_capsules(bound, layer, spec, own, below, inspector, seen=seen)
        case VectorCapsules() as spec:
            if spec.depthwise:
                sums = depthwise_conv(below.values, own["weights"], own["biases"], spec.stride)
            else:
                sums = conv(below.values, own["weights"], own["biases"], spec.stride)
            poses = vectors.squash(sums.reshape(*sums.shape[:3], spec.capsules, spec.elements), spec.squash)
            return Signal(poses, vectors.length(poses))
        case ClassVectors() as spec:
            return _class_vectors(bound, spec, own, below, inspector)
        case MapCapsules() as spec:
            return Signal(*selfrouting.of_maps(below.values, spec.capsules))
        case SelfRoutedCapsules() | SelfRoutedClasses():
            return _self_routed(bound, layer, own, below, inspector)
        case BatchNorm() as spec if below.activations is not None:
            maps = below.values.reshape(*below.values.shape[:3], -1)
            return Signal(_on_maps(spec, own, maps, masks, seen).reshape(below.values.shape), below.activations)
        case spec:
            return Signal(_on_maps(spec, own, below.values, masks, seen))


def _on_maps(
    spec: Layer,
    own: Mapping[str, Array],
    maps: Array,
    masks: Mapping[str, Array] | None,
    seen: Seen | None,
) -> Array:
    match spec:
        case BatchNorm():
            return batch_norm(own, maps, spec.epsilon, seen=seen, activation=spec.activation)
        case Conv():
            edges = [margins(spec.padding, side, spec.kernel, spec.stride) for side in maps.shape[1:3]]
            maps = np.pad(maps, ((0, 0), *edges, (0, 0)))
            maps = conv(maps, own["weights"], own.get("biases"), spec.stride)
            return rectify(maps, spec.activation, seen if spec.biases else None, "biases")
        case MaxPool():
            return max_pool(maps, spec.size, spec.stride)
        case AveragePool():
            return average_pool(maps, spec.size)
        case Residual():
            return residual(spec, own, maps, seen=seen)
        case Dense():
            flat = maps.reshape(len(maps), -1)
            return rectify(flat @ own["weights"] + own["biases"], spec.activation, seen, "biases")
        case Dropout():
            return maps if masks is None else maps * masks[spec.name].reshape(maps.shape)
    raise AssertionError(spec)


def _primary(spec: PrimaryCapsules, own: Mapping[str, Array], maps: Array, *, seen: Seen | None) -> Signal:
    poses = conv(maps, own["pose_weights"], own.get("pose_biases"), spec.stride)
    logits = conv(maps, own["activation_weights"], own.get("activation_biases"), spec.stride)
    logits = logits + spec.activation_offset
    poses = poses.reshape(*poses.shape[:3], spec.capsules, 16)
    if spec.normalisation is not None:
        poses, logits = normal_capsules(own, poses, logits, spec.normalisation.epsilon, seen=seen)
    return Signal(poses, np.exp(log_sigmoid(logits)))


def _conv_capsules(
    bound: BoundNetwork,
    layer: BoundLayer,
    spec: ConvCapsules,
    own: Mapping[str, Array],
    below: Signal,
    inspector: Inspector | None,
    *,
    seen: Seen | None,
) -> Signal:
    routing = bound.network.routing
    assert isinstance(routing, MatrixRouting)  # noqa: S101 - check_structure has seen to it
    assert below.activations is not None  # noqa: S101 - likewise: capsules stand below
    batch, height, width, types = below.activations.shape
    places = patch_places(height, width, spec.kernel, spec.stride)
    poses = below.values.reshape(batch, height * width, types, 16)[:, places]
    activations = below.activations.reshape(batch, height * width, types)[:, places]
    owner = (places[..., None] * types + np.arange(types)).reshape(len(places), -1)
    votes = vote(poses.reshape(batch, len(places), -1, 16), own["transforms"])
    activations = activations.reshape(batch, len(places), -1)
    routed = _route(votes, activations, own, routing.of(spec), owner, inspector, seen=seen)
    grid = (batch, layer.output.height, layer.output.width, spec.capsules)
    return Signal(routed.poses.reshape(*grid, 16), routed.activations.reshape(grid))


def _class_capsules(
    bound: BoundNetwork,
    layer: BoundLayer,
    spec: ClassCapsules,
    own: Mapping[str, Array],
    below: Signal,
    inspector: Inspector | None,
    *,
    seen: Seen | None,
) -> Signal:
    routing = bound.network.routing
    assert isinstance(routing, MatrixRouting)  # noqa: S101 - check_structure has seen to it
    assert below.activations is not None  # noqa: S101 - likewise: capsules stand below
    batch, height, width, types = below.activations.shape
    # Children of one type share their transform over all places, so votes are cast place by place.
    votes = vote(below.values.reshape(batch, height * width, types, 16), own["transforms"])
    votes = _add_coordinates(votes, np.array(coordinates(bound, layer)), bound)
    activations = below.activations.reshape(batch, height * width, types)
    if spec.positions == "joint":
        votes = votes.reshape(batch, 1, -1, *votes.shape[3:])
        activations = activations.reshape(batch, 1, -1)
    owner = np.arange(height * width * types).reshape(activations.shape[1:])
    routed = _route(votes, activations, own, routing.of(spec), owner, inspector, seen=seen)
    mean = routed.activations.mean(1)
    by_logit = spec.positions == "joint" and isinstance(routing, EMRouting)
    scores = routed.logits[:, 0] if by_logit else mean
    return Signal(routed.poses.mean(1), mean, scores)


def _class_vectors(
    bound: BoundNetwork, spec: ClassVectors, own: Mapping[str, Array], below: Signal, inspector: Inspector | None
) -> Signal:
    children = below.values.reshape(len(below.values), -1, below.values.shape[-1])
    votes = vectors.vote(children, own["transforms"])
    observe = None
    if inspector is not None:
        inspector.see_votes(votes[:, None])
        observe = inspector.see_iteration
    routing = bound.network.routing
    if isinstance(routing, AgreementRouting):
        sums = vectors.agree(votes, routing, spec.squash, observe)
    else:
        sums = vectors.attend(votes, own["priors"])
    poses = vectors.squash(sums, spec.squash)
    return Signal(poses, vectors.length(poses), vectors.length(sums))


def _self_routed(
    bound: BoundNetwork, layer: BoundLayer, own: Mapping[str, Array], below: Signal, inspector: Inspector | None
) -> Signal:
    spec, routing = layer.layer, bound.network.routing
    assert isinstance(routing, SelfRouting)  # noqa: S101 - check_structure has seen to it
    assert below.activations is not None  # noqa: S101 - likewise: capsules stand below
    observe = None if inspector is None else inspector.see_iteration
    if isinstance(spec, SelfRoutedCapsules):
        children, activations = selfrouting.patches(below.values, below.activations, spec)
        votes = selfrouting.vote(children, own["transforms"])
        if inspector is not None:
            inspector.see_votes(votes)
        shares = selfrouting.choose(children, own["routing_weights"], own["routing_biases"])
        poses, active = selfrouting.gather(votes, shares, activations, routing, observe)
        grid = (len(poses), layer.output.height, layer.output.width, spec.capsules)
        return Signal(poses.reshape(*grid, -1), active.reshape(grid))
    children = below.values.reshape(len(below.values), 1, -1, below.values.shape[-1])
    shares = selfrouting.choose(children, own["routing_weights"], own["routing_biases"])
    scores = selfrouting.classify(shares, below.activations.reshape(children.shape[:3]), observe)[:, 0]
    return Signal(np.exp(scores), np.exp(scores), scores)


def _route(
    votes: Array,
    activations: Array,
    own: Mapping[str, Array],
    routing: MatrixRouting,
    owner: NDArray[np.int64],
    inspector: Inspector | None,
    *,
    seen: Seen | None,
) -> Routed:
    """Route with a layer's own parameters, under the eyes of the inspector."""
    observe = None
    if inspector is not None:
        inspector.see_votes(votes)
        observe = inspector.see_iteration
    if isinstance(routing, VBRouting):
        poses, logits = variational.route(votes, activations, own, routing, owner, observe)
        if routing.normalisation is not None:
            epsilon = routing.normalisation.epsilon
            poses, logits = normal_capsules(own, poses[:, :, None], logits[:, :, None], epsilon, seen=seen)
            poses, logits = poses[:, :, 0], logits[:, :, 0]
        return Routed(poses, np.exp(log_sigmoid(logits)), logits)
    own = routing.scaled(own)
    return route(votes, activations, own["beta_u"], own["beta_a"], routing, owner, observe)


def _add_coordinates(votes: Array, places: Array, bound: BoundNetwork) -> Array:
    """Votes [b, places, i, j, 16] with each place's (row, column) [places, 2] added or appended."""
    routing = bound.network.routing
    assert isinstance(routing, MatrixRouting)  # noqa: S101 - check_structure has seen to it
    shaped = places[None, :, None, None, :]
    if routing.coordinates == "appended":
        return np.concatenate([votes, np.broadcast_to(shaped, (*votes.shape[:4], 2))], -1)
    elements = routing.coordinate_elements()
    if elements is None:
        return votes
    offset = np.zeros((1, votes.shape[1], 1, 1, 16))
    offset[..., elements] = shaped
    return votes + offset
