"""Patches of maps and their products with transforms, both with a gradient faster than TensorFlow's own."""

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from capsbench.network.layers import ConvCapsules, SelfRoutedCapsules
from capsbench.network.patches import patch_places
from capsbench.network.shapes import POSE
from capsbench_tensorflow.mixed import narrow, wide
from capsbench_tensorflow.moments import backward_scope

# A product over fewer rows than this gains nothing from being split; over many more, it runs at half the speed.
_ROWS = 64


def patches(maps: tf.Tensor, spec: ConvCapsules | SelfRoutedCapsules) -> tf.Tensor:
    """What a layer's windows see of maps [b, height, width, ..]: [b, positions, kernel * kernel, ..].

    Windows are gathered, and so is their gradient: at each place from all windows that look at it.
    """
    scope = backward_scope()
    batch, height, width, *rest = maps.shape
    looks = patch_places(height, width, spec.kernel, spec.stride)
    lookers = _lookers(looks.ravel(), height * width)

    @tf.custom_gradient
    def gathered(places: tf.Tensor) -> Any:  # noqa: ANN401 - a tensor and its gradient
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            with tf.name_scope(scope):
                # One more row, of zeros, for places that fewer windows look at than at others.
                padded = tf.pad(upstream, ((0, 0), (0, 1), (0, 0)))
                return tf.reduce_sum(tf.gather(padded, lookers, axis=1), 2)

        return tf.gather(places, looks.ravel(), axis=1), gradient

    seen = gathered(tf.reshape(maps, (batch, height * width, int(np.prod(rest)))))
    return tf.reshape(seen, (batch, *looks.shape, *rest))


def _lookers(looks: NDArray[np.int64], places: int) -> NDArray[np.int64]:
    """Indices [places, most] of the `looks` at each place, filled up with the number of all looks."""
    counts = np.bincount(looks, minlength=places)
    order = np.argsort(looks, kind="stable")
    table = np.full((places, counts.max()), len(looks))
    table[np.arange(counts.max()) < counts[:, None]] = order
    return table


def products(poses: tf.Tensor, transforms: tf.Tensor) -> tf.Tensor:
    """Votes [i, m, j, 16] of poses [i, m, 16] by one matrix product a child.

    W acts on every row of a pose alike, so a whole pose is multiplied by the block-diagonal matrix of four W. Three
    quarters of its products are by zero; but votes come out with their 16 elements together, and a product with an
    inner dimension of 4 would be bound by writing its result anyway.
    """
    scope = backward_scope()
    children, parents = transforms.shape[:2]
    poses, transforms = narrow(poses), narrow(transforms)
    rows = tf.eye(4, dtype=transforms.dtype)[None, :, None, None, :, None]
    diagonal = rows * tf.transpose(transforms, (0, 2, 1, 3))[:, None, :, :, None, :]

    @tf.custom_gradient
    def product(left: tf.Tensor, right: tf.Tensor) -> Any:  # noqa: ANN401 - a tensor and its gradient
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.name_scope(scope):
                parts = (children, _parts(left.shape[1]), -1)
                split = (tf.reshape(side, (*parts, side.shape[2])) for side in (left, upstream))
                to_right = tf.reduce_sum(tf.matmul(*split, transpose_a=True), 1)
                # Transposed by itself, and reshaped lest the graph's optimizer undo that: half the product's time.
                turned = tf.transpose(tf.reshape(right, (children, POSE, parents, POSE)), (0, 2, 3, 1))
                return tf.matmul(upstream, tf.reshape(turned, (children, parents * POSE, POSE))), to_right

        return tf.matmul(left, right), gradient

    votes = product(poses, tf.reshape(diagonal, (children, POSE, parents * POSE)))
    return tf.reshape(wide(votes), (children, poses.shape[1], parents, POSE))


def _parts(rows: int) -> int:
    """Equal parts that a sum over so many rows is best taken in."""
    return max(parts for parts in range(1, rows // _ROWS + 2) if rows % parts == 0)
