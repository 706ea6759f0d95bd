"""Self-routing in TensorFlow (`capsbench_numpy.selfrouting` is the definition).

Votes come in the two layouts of `moments`: tiled [n, i, j, h], cast by one product a child and position and summed
element by element, and factored [n, j, i, h], cast by one product a child and summed by batched matrix products.

Shapes: n positions of all images, i children, j parents, k elements of a child, h elements of a parent.
"""

import tensorflow as tf

from capsbench.measure.steptrace import VOTES
from capsbench.network.layers import BatchNorm, MapCapsules, SelfRoutedCapsules
from capsbench.network.patches import margins
from capsbench.network.routing import SelfRouting
from capsbench.network.shapes import BoundLayer
from capsbench_tensorflow.inspection import Watch
from capsbench_tensorflow.maps import Moments, Variables, batch_norm
from capsbench_tensorflow.mixed import narrow, wide
from capsbench_tensorflow.moments import FactoredVotes, TiledVotes
from capsbench_tensorflow.products import patches
from capsbench_tensorflow.routing import Observer
from capsbench_tensorflow.votes import Capsules


def of_maps(spec: MapCapsules, maps: tf.Tensor) -> Capsules:
    """Capsules that lie in maps [b, h, w, channels]."""
    grid = (*maps.shape[:3], spec.capsules)
    poses, logits = tf.split(wide(maps), (maps.shape[3] - spec.capsules, spec.capsules), 3)
    return Capsules(tf.reshape(poses, (*grid, spec.elements)), tf.sigmoid(logits))


def normal_poses(spec: BatchNorm, own: Variables, below: Capsules, moments: Moments | None) -> Capsules:
    """Capsules whose poses a batch normalisation has gone over; for `moments` see `maps.batch_norm`."""
    flat = tf.reshape(below.poses, (*below.poses.shape[:3], -1))
    maps = batch_norm(own, flat, spec.epsilon, moments, spec.name, activation=spec.activation)
    return Capsules(tf.reshape(maps, below.poses.shape), below.activations)


def conv_capsules(
    layer: BoundLayer,
    spec: SelfRoutedCapsules,
    own: Variables,
    below: Capsules,
    routing: SelfRouting,
    tiled: bool,
    watch: Watch | None,
) -> Capsules:
    """The capsules of a layer, from those below."""
    children, activations = _patches(below, spec)
    with tf.name_scope(VOTES):
        votes = _vote(children, own["transforms"], tiled=tiled)
    couplings = tf.nn.softmax(_products(children, own["routing_weights"], tiled=tiled) + own["routing_biases"])
    assigned = couplings * tf.expand_dims(activations, 2)
    mass = tf.reduce_sum(assigned, 1, keepdims=True)
    weights = assigned / (mass + routing.epsilon)
    if tiled:
        poses = tf.reduce_sum(tf.expand_dims(weights, 3) * votes, 1)
    else:
        poses = tf.matmul(tf.expand_dims(tf.transpose(weights, (0, 2, 1)), 2), votes)
    if watch is not None:
        _show(watch.observer(spec.name), votes, couplings, mass, weights, tiled=tiled)
    total = tf.reduce_sum(activations, 1, keepdims=True)
    active = tf.squeeze(mass, 1) / (total + routing.epsilon)
    grid = (below.batch, layer.output.height, layer.output.width, spec.capsules)
    return Capsules(tf.reshape(poses, (*grid, spec.elements)), tf.reshape(active, grid))


def classify(own: Variables, below: Capsules, tiled: bool, observer: Observer | None) -> tf.Tensor:
    """Logarithms of the activations [b, classes] of classes that the capsules below choose among.

    The largest coupling of each class is taken out of its sum, which then cannot underflow.
    """
    children = tf.reshape(below.poses, (below.batch, -1, below.poses.shape[-1]))
    activations = tf.reshape(below.activations, (below.batch, -1, 1))
    logs = tf.nn.log_softmax(_products(children, own["routing_weights"], tiled=tiled) + own["routing_biases"])
    largest = tf.stop_gradient(tf.reduce_max(logs, 1, keepdims=True))
    total = tf.reduce_sum(tf.exp(logs - largest) * activations, 1)
    if observer is not None:
        couplings = tf.exp(logs)
        mass = tf.reduce_sum(couplings * activations, 1, keepdims=True)
        no_votes = tf.zeros((*couplings.shape, 0), logs.dtype)
        _show(observer, no_votes, couplings, mass, couplings, tiled=True)
    return tf.math.log(total) + tf.squeeze(largest, 1) - tf.math.log(tf.reduce_sum(activations, 1))


def _patches(below: Capsules, spec: SelfRoutedCapsules) -> tuple[tf.Tensor, tf.Tensor]:
    """Children [n, i, k] of every window, i = (row, column, capsule), and their activations [n, i]."""
    edges = [margins(spec.padding, side, spec.kernel, spec.stride) for side in below.poses.shape[1:3]]
    poses, activations = below.poses, below.activations
    if any(map(any, edges)):
        poses = tf.pad(poses, ((0, 0), *edges, (0, 0), (0, 0)))
        activations = tf.pad(activations, ((0, 0), *edges, (0, 0)))
    children, elements = spec.kernel**2 * poses.shape[3], poses.shape[4]
    seen = tf.reshape(patches(poses, spec), (-1, children, elements))
    return seen, tf.reshape(patches(activations, spec), (-1, children))


def _products(children: tf.Tensor, matrices: tf.Tensor, *, tiled: bool) -> tf.Tensor:
    """Products [n, i, m] of children [n, i, k] with matrices [i, k, m]."""
    if tiled:
        right = tf.tile(tf.expand_dims(matrices, 0), (children.shape[0], 1, 1, 1))
        return tf.squeeze(tf.matmul(tf.expand_dims(children, 2), right), 2)
    return tf.transpose(tf.matmul(tf.transpose(children, (1, 0, 2)), matrices), (1, 0, 2))


def _vote(children: tf.Tensor, transforms: tf.Tensor, *, tiled: bool) -> tf.Tensor:
    """Votes of children [n, i, k] by transforms [i, j, k, h], in the layout of their formulation."""
    i, j, k, h = transforms.shape
    children, transforms = narrow(children), narrow(transforms)
    matrices = tf.reshape(tf.transpose(transforms, (0, 2, 1, 3)), (i, k, j * h))
    if tiled:
        return tf.reshape(wide(_products(children, matrices, tiled=True)), (-1, i, j, h))
    votes = wide(tf.matmul(tf.transpose(children, (1, 0, 2)), matrices))
    return tf.transpose(tf.reshape(votes, (i, -1, j, h)), (1, 2, 0, 3))


def _show(
    observer: Observer, votes: tf.Tensor, couplings: tf.Tensor, mass: tf.Tensor, weights: tf.Tensor, *, tiled: bool
) -> None:
    """Votes in their layout; couplings and weights [n, i, j], and mass [n, 1, j]."""
    own = (TiledVotes if tiled else FactoredVotes)(votes)
    couplings, mass, weights = (
        tf.expand_dims(each if tiled else tf.transpose(each, (0, 2, 1)), 3) for each in (couplings, mass, weights)
    )
    observer(own, couplings, mass, own.fit(weights))
