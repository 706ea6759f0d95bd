"""Capsules that are vectors, and routing between them, in TensorFlow (`capsbench_numpy.vectors` is the definition).

Votes come in the two layouts of `moments`: tiled [b, i, j, h], cast by one product a vote and summed element by
element, and factored [b, j, i, h], cast by one product a child and summed by batched matrix products. Tensors have the
votes' four axes, of length 1 where they lack one.

Shapes: b images, i children, j parents, k elements of a child, h elements of a parent.
"""

from math import sqrt

import tensorflow as tf

from capsbench.network.layers import LENGTH_EPSILON, Squash
from capsbench.network.routing import AgreementRouting
from capsbench_tensorflow.mixed import narrow, wide
from capsbench_tensorflow.moments import FactoredVotes, TiledVotes, Votes
from capsbench_tensorflow.routing import Observer


def length(vectors: tf.Tensor) -> tf.Tensor:
    """sqrt(|s|^2 + epsilon) of vectors [.., elements]: [..]."""
    return tf.sqrt(tf.reduce_sum(tf.square(vectors), -1) + LENGTH_EPSILON)


def squash(vectors: tf.Tensor, how: Squash) -> tf.Tensor:
    """Vectors [.., elements] of the same direction, shorter than 1; smooth at zero."""
    square = tf.reduce_sum(tf.square(vectors), -1, keepdims=True)
    root = tf.sqrt(square + LENGTH_EPSILON)
    if how == "exponential":
        # A negation would be run together with its neighbours, into an op that has their names no more.
        negative = root * -1.0
        return vectors * (tf.math.expm1(negative) / negative)
    return vectors * (square / ((1.0 + square) * root))


def vote(children: tf.Tensor, transforms: tf.Tensor, *, tiled: bool) -> Votes:
    """Votes of children [b, i, k] by transforms [i, j, k, h]."""
    i, j, k, h = transforms.shape
    children, transforms = narrow(children), narrow(transforms)
    if tiled:
        left = tf.tile(children[:, :, None, None], (1, 1, j, 1, 1))
        right = tf.tile(transforms[None], (children.shape[0], 1, 1, 1, 1))
        return TiledVotes(tf.reshape(wide(tf.matmul(left, right)), (-1, i, j, h)))
    matrices = tf.reshape(tf.transpose(transforms, (0, 2, 1, 3)), (i, k, j * h))
    votes = wide(tf.matmul(tf.transpose(children, (1, 0, 2)), matrices))
    return FactoredVotes(tf.transpose(tf.reshape(votes, (i, -1, j, h)), (1, 2, 0, 3)))


def agree(votes: Votes, routing: AgreementRouting, how: Squash, observer: Observer | None = None) -> tf.Tensor:
    """Sums [b, j, h] of the votes by couplings that favour agreement (Sabour et al. 2017, procedure 1)."""
    loud = votes.values
    quiet = loud if routing.gradient == "all" else tf.stop_gradient(loud)
    shape = (*loud.shape[:3], 1)
    logits = tf.zeros(shape, loud.dtype)
    couplings = tf.fill(shape, tf.constant(1.0 / shape[votes.parents], loud.dtype))
    for iteration in range(routing.iterations):
        with tf.name_scope(f"iteration{iteration}"):
            last = iteration == routing.iterations - 1
            sums = _sum(votes, loud if last else quiet, couplings)
            if observer is not None:
                _show(observer, votes, couplings)
            if not last:
                logits += _products(votes, quiet, squash(sums, how))
                couplings = _shares(votes, logits)
    return tf.squeeze(sums, votes.children)


def attend(votes: Votes, priors: tf.Tensor) -> tf.Tensor:
    """Sums [b, j, h] of the votes by self-attention and priors [i, j] (Mazzia et al. 2021).

    The tiled formulation stores every attention [b, j, i, i]; a row of U U^T sums to the row of U times the sum of all
    rows, and the factored one takes that.
    """
    values = votes.values
    scale = 1.0 / sqrt(values.shape[3])
    if isinstance(votes, TiledVotes):
        by_parent = tf.transpose(values, (0, 2, 1, 3))
        attention = tf.matmul(by_parent, by_parent, transpose_b=True) * scale
        attention = tf.transpose(tf.reduce_sum(attention, 3), (0, 2, 1))[..., None]
    else:
        attention = _products(votes, values, tf.reduce_sum(values, votes.children, keepdims=True)) * scale
    couplings = _shares(votes, attention)
    priors = priors if votes.children < votes.parents else tf.transpose(priors)
    return tf.squeeze(_sum(votes, values, couplings + priors[None, :, :, None]), votes.children)


def _sum(votes: Votes, values: tf.Tensor, couplings: tf.Tensor) -> tf.Tensor:
    """Of votes times couplings, over the children."""
    if isinstance(votes, TiledVotes):
        return tf.reduce_sum(couplings * values, votes.children, keepdims=True)
    return tf.matmul(couplings, values, transpose_a=True)


def _products(votes: Votes, values: tf.Tensor, parents: tf.Tensor) -> tf.Tensor:
    """Inner product of every vote with its parent's vector."""
    if isinstance(votes, TiledVotes):
        return tf.reduce_sum(values * parents, 3, keepdims=True)
    return tf.matmul(values, parents, transpose_b=True)


def _shares(votes: Votes, logits: tf.Tensor) -> tf.Tensor:
    return votes.shares(logits, votes.parents)


def _show(observer: Observer, votes: Votes, couplings: tf.Tensor) -> None:
    mass = tf.reduce_sum(couplings, votes.children, keepdims=True)
    observer(votes, couplings, mass, type(votes)(votes.values).fit(couplings / mass))
