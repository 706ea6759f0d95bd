"""Every layer in TensorFlow operators, one name scope a layer so that the profiler can tell them apart."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from capsbench.measure.steptrace import VOTES
from capsbench.network.layers import (
    ROUTED,
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
from capsbench.network.routing import AgreementRouting, EMRouting, MatrixRouting, SelfRouting
from capsbench.network.shapes import POSE, BoundLayer, BoundNetwork
from capsbench_tensorflow import fused, selfrouting, variational, vectors
from capsbench_tensorflow.inspection import Watch
from capsbench_tensorflow.maps import (
    Moments,
    Variables,
    activate,
    average_pool,
    batch_norm,
    conv,
    depthwise_conv,
    normal_capsules,
    primary,
    residual,
)
from capsbench_tensorflow.mixed import bias_add, narrow, wide
from capsbench_tensorflow.moments import Votes
from capsbench_tensorflow.routing import Feeding, Observer, Parents, route
from capsbench_tensorflow.votes import Capsules, class_votes, conv_votes, feeding


@dataclass(frozen=True, slots=True)
class Result:
    """What a network says of a batch, and what its batch normalisations saw in training.

    Attributes:
        scores: [b, classes].
        activations: [b, classes].
        poses: [b, classes, 16 or 18], or class vectors; None for a CNN and for classes without poses.
        moments: batch mean and biased variance [channels] by layer and normalisation; empty at evaluation.
    """

    scores: tf.Tensor
    activations: tf.Tensor
    poses: tf.Tensor | None
    moments: Moments


def forward(
    bound: BoundNetwork,
    variables: Variables,
    images: tf.Tensor,
    tiled: bool,
    masks: Mapping[str, tf.Tensor] | None,
    watch: Watch | None = None,
    kernels: fused.Fused | None = None,
) -> Result:
    """Run the network on images [b, height, width, channels].

    Args:
        bound: the network.
        variables: by name.
        images: in the precision of the variables.
        tiled: whether votes are cast and summed as in 2018.
        masks: dropout masks [b, units] by layer in training; None at evaluation.
        watch: gathers what layers give out, where that is wanted.
        kernels: route in place of plain operators, where the mode has any.
    """
    moments: Moments = {}
    maps, capsules = images, None
    for layer in bound.layers:
        own = _own(variables, layer.layer.name)
        with tf.name_scope(layer.layer.name):
            match layer.layer:
                case BatchNorm() as spec if capsules is not None:
                    capsules = selfrouting.normal_poses(spec, own, capsules, moments if masks is not None else None)
                case BatchNorm() | Residual():
                    maps = _normal(layer.layer, own, maps, moments if masks is not None else None)
                case Dropout() as spec:
                    maps = maps if masks is None else wide(maps) * tf.reshape(masks[spec.name], maps.shape)
                case PrimaryCapsules() | VectorCapsules() | MapCapsules():
                    capsules = _first_capsules(layer.layer, own, maps, moments if masks is not None else None)
                case spec if isinstance(spec, ROUTED) and capsules is not None:
                    routed = _route(bound, layer, own, capsules, tiled, moments, watch, kernels, keep=masks is not None)
                    if isinstance(routed, Result):
                        if watch is not None:
                            watch.outputs(layer.layer.name, routed.activations, routed.poses)
                        return routed
                    capsules = routed
                case _:
                    maps = _plain(layer, own, maps)
        if watch is not None:
            _show(watch, layer.layer, maps, capsules)
    with tf.name_scope(f"{bound.layers[-1].layer.name}/"):
        scores = tf.reshape(wide(maps), (maps.shape[0], bound.classes))
        return Result(scores, tf.nn.softmax(scores), None, moments)


def _show(watch: Watch, layer: Layer, maps: tf.Tensor, capsules: Capsules | None) -> None:
    holders = PrimaryCapsules | ConvCapsules | VectorCapsules | MapCapsules | SelfRoutedCapsules
    if isinstance(layer, holders) and capsules is not None:
        watch.outputs(layer.name, capsules.activations, capsules.poses)
    elif isinstance(layer, Conv | Dense | Residual):
        watch.outputs(layer.name, wide(maps))


def _own(variables: Variables, layer: str) -> dict[str, tf.Variable]:
    return {name.split(".", 1)[1]: value for name, value in variables.items() if name.split(".", 1)[0] == layer}


def _routing(bound: BoundNetwork) -> MatrixRouting:
    assert isinstance(bound.network.routing, MatrixRouting)  # noqa: S101 - check_structure has seen to it
    return bound.network.routing


def _self(bound: BoundNetwork) -> SelfRouting:
    assert isinstance(bound.network.routing, SelfRouting)  # noqa: S101 - check_structure has seen to it
    return bound.network.routing


def _plain(layer: BoundLayer, own: Variables, maps: tf.Tensor) -> tf.Tensor:
    match layer.layer:
        case Conv() as spec:
            values = conv(maps, own["weights"], own.get("biases"), spec.stride, spec.padding)
            return activate(values, spec.activation)
        case MaxPool() as spec:
            return tf.nn.max_pool2d(maps, spec.size, spec.stride, "VALID")
        case AveragePool() as spec:
            return average_pool(maps, spec.size)
        case Dense() as spec:
            flat = tf.reshape(maps, (maps.shape[0], layer.input.values))
            values = bias_add(tf.matmul(narrow(flat), narrow(own["weights"])), own["biases"])
            return tf.reshape(activate(values, spec.activation), (maps.shape[0], 1, 1, layer.output.values))
    raise AssertionError(layer.layer)


def _normal(layer: Layer, own: Variables, maps: tf.Tensor, moments: Moments | None) -> tf.Tensor:
    """A layer that normalises by the batch in training."""
    if isinstance(layer, Residual):
        return residual(layer, own, maps, moments)
    assert isinstance(layer, BatchNorm)  # noqa: S101 - nothing else does
    return batch_norm(own, maps, layer.epsilon, moments, layer.name, activation=layer.activation)


def _first_capsules(
    spec: PrimaryCapsules | VectorCapsules | MapCapsules, own: Variables, maps: tf.Tensor, moments: Moments | None
) -> Capsules:
    if isinstance(spec, PrimaryCapsules):
        return Capsules(*primary(spec, own, maps, moments))
    return _vectors(spec, own, maps) if isinstance(spec, VectorCapsules) else selfrouting.of_maps(spec, maps)


def _vectors(spec: VectorCapsules, own: Variables, maps: tf.Tensor) -> Capsules:
    if spec.depthwise:
        sums = depthwise_conv(maps, own["weights"], own["biases"], spec.stride)
    else:
        sums = conv(maps, own["weights"], own["biases"], spec.stride, "valid")
    poses = vectors.squash(tf.reshape(wide(sums), (*sums.shape[:3], spec.capsules, spec.elements)), spec.squash)
    return Capsules(poses, vectors.length(poses))


def _conv_capsules(
    layer: BoundLayer,
    spec: ConvCapsules,
    own: Variables,
    below: Capsules,
    routing: MatrixRouting,
    tiled: bool,
    watch: Watch | None,
    seen: Moments | None,
) -> Capsules:
    with tf.name_scope(VOTES):
        votes, activations = conv_votes(below, own["transforms"], spec, tiled=tiled)
    rivals = feeding(below, spec) if routing.competition == "all_positions" else None
    observer = None if watch is None else watch.observer(spec.name)
    routed = _parents(spec.name, own, votes, activations, routing, rivals, observer, seen)
    grid = (below.batch, layer.output.height, layer.output.width, spec.capsules)
    return Capsules(tf.reshape(routed.poses, (*grid, POSE)), tf.reshape(routed.activations, grid))


def _parents(
    name: str,
    own: Variables,
    votes: Votes,
    activations: tf.Tensor,
    routing: MatrixRouting,
    rivals: Feeding | None,
    observer: Observer | None,
    seen: Moments | None,
) -> Parents:
    """The routed parents of a layer; `seen` gathers what is normalised by in training, and is None at evaluation."""
    if isinstance(routing, EMRouting):
        own = routing.scaled(own)
        return route(votes, activations, own["beta_u"], own["beta_a"], routing, rivals, observer)
    offset = own["beta_a"] - own["beta_u"]
    poses, logits = variational.route(votes, activations, offset, routing, rivals, observer)
    if routing.normalisation is not None:
        poses, logits = normal_capsules(own, poses, logits, routing.normalisation.epsilon, seen, name)
    return Parents(poses, tf.sigmoid(logits), logits)


def _route(
    bound: BoundNetwork,
    layer: BoundLayer,
    own: Variables,
    below: Capsules,
    tiled: bool,
    moments: Moments,
    watch: Watch | None,
    kernels: fused.Fused | None,
    *,
    keep: bool,
) -> Capsules | Result:
    """Capsules, or of class capsules the network's result; `keep` says whether a backward pass will follow."""
    spec = layer.layer
    if isinstance(spec, ClassVectors):
        return _class_vectors(bound, spec, own, below, tiled, moments, watch)
    if isinstance(spec, SelfRoutedCapsules):
        return selfrouting.conv_capsules(layer, spec, own, below, _self(bound), tiled, watch)
    if isinstance(spec, SelfRoutedClasses):
        scores = selfrouting.classify(own, below, tiled, None if watch is None else watch.observer(spec.name))
        return Result(scores, tf.exp(scores), None, moments)
    routing, seen = _routing(bound).of(spec), moments if keep else None
    if kernels is not None and isinstance(routing, EMRouting):
        if watch is not None:  # kernels have no votes and couplings to show
            _route(bound, layer, own, below, tiled, moments, watch, None, keep=keep)
        routed = fused.route(kernels, spec.name, routing, below.poses, below.activations, own, keep=keep)
        return _of_parents(layer, routing, below.batch, *routed, moments)
    if isinstance(spec, ConvCapsules):
        return _conv_capsules(layer, spec, own, below, routing, tiled, watch, seen)
    assert isinstance(spec, ClassCapsules)  # noqa: S101 - nothing else routes
    return _class_capsules(bound, layer, spec, own, below, tiled, moments, watch, seen)


def _of_parents(
    layer: BoundLayer,
    routing: EMRouting,
    batch: int,
    poses: tf.Tensor,
    logits: tf.Tensor,
    moments: Moments,
) -> Capsules | Result:
    """What a layer gives out, from its parents' poses [b, p, j, h] and logits [b, p, j]."""
    spec = layer.layer
    activations = tf.sigmoid(logits) if routing.activation == "sigmoid" else tf.nn.softmax(logits)
    if isinstance(spec, ConvCapsules):
        grid = (batch, layer.output.height, layer.output.width, spec.capsules)
        return Capsules(tf.reshape(poses, (*grid, POSE)), tf.reshape(activations, grid))
    mean = tf.reduce_mean(activations, 1)
    joint = isinstance(spec, ClassCapsules) and spec.positions == "joint"
    return Result(tf.squeeze(logits, 1) if joint else mean, mean, tf.reduce_mean(poses, 1), moments)


def _class_capsules(
    bound: BoundNetwork,
    layer: BoundLayer,
    spec: ClassCapsules,
    own: Variables,
    below: Capsules,
    tiled: bool,
    moments: Moments,
    watch: Watch | None,
    seen: Moments | None,
) -> Result:
    joint = spec.positions == "joint"
    with tf.name_scope(VOTES):
        votes, activations = class_votes(bound, layer, below, own["transforms"], joint=joint, tiled=tiled)
    # Each child feeds one position only, so the competition over all positions is the one at its own.
    observer = None if watch is None else watch.observer(spec.name)
    routing = _routing(bound).of(spec)
    routed = _parents(spec.name, own, votes, activations, routing, None, observer, seen)
    if joint:
        scores = routed.logits if isinstance(routing, EMRouting) else routed.activations
        return Result(scores, routed.activations, routed.poses, moments)
    places = (below.batch, int(np.prod(below.activations.shape[1:3])))
    mean = tf.reduce_mean(tf.reshape(routed.activations, (*places, bound.classes)), 1)
    poses = tf.reduce_mean(tf.reshape(routed.poses, (*places, *routed.poses.shape[1:])), 1)
    return Result(mean, mean, poses, moments)


def _class_vectors(
    bound: BoundNetwork,
    spec: ClassVectors,
    own: Variables,
    below: Capsules,
    tiled: bool,
    moments: Moments,
    watch: Watch | None,
) -> Result:
    """Class capsules that are vectors; their scores are lengths before the squash, which does not let them tie."""
    routing = bound.network.routing
    with tf.name_scope(VOTES):
        children = tf.reshape(below.poses, (below.batch, -1, below.poses.shape[-1]))
        votes = vectors.vote(children, own["transforms"], tiled=tiled)
    if watch is not None:
        watch.votes(spec.name, votes)
    if isinstance(routing, AgreementRouting):
        sums = vectors.agree(votes, routing, spec.squash, None if watch is None else watch.observer(spec.name))
    else:
        sums = vectors.attend(votes, own["priors"])
    poses = vectors.squash(sums, spec.squash)
    return Result(vectors.length(sums), vectors.length(poses), poses, moments)
