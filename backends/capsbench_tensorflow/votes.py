"""Votes V_ij = P_i W_ij of capsules for their parents, in either layout (see `moments`)."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from capsbench.network.layers import ConvCapsules
from capsbench.network.patches import patch_places
from capsbench.network.routing import MatrixRouting
from capsbench.network.shapes import POSE, BoundLayer, BoundNetwork, coordinates
from capsbench_tensorflow.mixed import narrow, wide
from capsbench_tensorflow.moments import FactoredVotes, TiledVotes, Votes
from capsbench_tensorflow.products import patches, products
from capsbench_tensorflow.routing import Feeding


@dataclass(frozen=True, slots=True)
class Capsules:
    """Poses [b, height, width, capsules, 16] and activations [b, height, width, capsules]."""

    poses: tf.Tensor
    activations: tf.Tensor

    @property
    def batch(self) -> int:
        """Images."""
        return int(self.poses.shape[0])


def conv_votes(below: Capsules, transforms: tf.Tensor, spec: ConvCapsules, *, tiled: bool) -> tuple[Votes, tf.Tensor]:
    """Votes of every patch and the activations [n, i] of its children, i = (row, column, capsule)."""
    children = transforms.shape[0]
    if tiled:
        activations = tf.stack(_slots(below.activations, spec), 3)
        poses = tf.stack(_slots(below.poses, spec), 3)
        votes: Votes = TiledVotes(_tiled_votes(tf.reshape(poses, (-1, children, 4, 4)), transforms))
    else:
        activations = patches(below.activations, spec)
        by_type = tf.transpose(patches(below.poses, spec), (2, 3, 0, 1, 4))
        poses = tf.reshape(by_type, (children, -1, POSE))
        votes = FactoredVotes(tf.transpose(products(poses, transforms), (1, 2, 0, 3)))
    return votes, tf.reshape(activations, (-1, children))


def class_votes(
    bound: BoundNetwork, layer: BoundLayer, below: Capsules, transforms: tf.Tensor, *, joint: bool, tiled: bool
) -> tuple[Votes, tf.Tensor]:
    """Votes of all places together (`joint`) or place by place, coordinates included, and activations [n, i]."""
    types, parents = transforms.shape[:2]
    batch, places = below.batch, int(np.prod(below.poses.shape[1:3]))
    if tiled:
        votes = _tiled_votes(tf.reshape(below.poses, (batch * places, types, 4, 4)), transforms)
        votes = tf.reshape(votes, (batch, places, types, parents, POSE))
        votes = _with_coordinates(votes, bound, layer, 1)
    else:
        by_type = tf.transpose(tf.reshape(below.poses, (batch * places, types, POSE)), (1, 0, 2))
        votes = tf.reshape(products(by_type, transforms), (types, batch, places, parents, POSE))
        votes = _with_coordinates(votes, bound, layer, 2)
        axes = (1, 3, 2, 0, 4) if joint else (1, 2, 3, 0, 4)
        votes = tf.transpose(votes, axes)
    n = batch if joint else batch * places
    children = types * places if joint else types
    shape = (n, children, parents) if tiled else (n, parents, children)
    votes = tf.reshape(votes, (*shape, votes.shape[-1]))
    return (TiledVotes if tiled else FactoredVotes)(votes), tf.reshape(below.activations, (n, children))


def feeding(below: Capsules, spec: ConvCapsules) -> Feeding:
    """Which place each patch slot looks at."""
    _, height, width, *_ = below.poses.shape
    looks = patch_places(height, width, spec.kernel, spec.stride)
    _, places, counts = np.unique(looks.ravel(), return_inverse=True, return_counts=True)
    places = places.ravel()
    return Feeding(places.astype(np.int32), counts[places].astype(np.float64), below.batch, looks.shape[1])


def _slots(maps: tf.Tensor, spec: ConvCapsules) -> list[tf.Tensor]:
    """What each of the kernel * kernel patch slots of maps [b, height, width, ..] sees at every position."""
    height, width = ((side - spec.kernel) // spec.stride + 1 for side in maps.shape[1:3])
    return [
        maps[
            :,
            y : y + (height - 1) * spec.stride + 1 : spec.stride,
            x : x + (width - 1) * spec.stride + 1 : spec.stride,
        ]
        for y in range(spec.kernel)
        for x in range(spec.kernel)
    ]


def _tiled_votes(poses: tf.Tensor, transforms: tf.Tensor) -> tf.Tensor:
    """Votes [n, i, j, 16] of poses [n, i, 4, 4]: both sides tiled to one 4x4 product a vote, as in 2018."""
    n, children = poses.shape[:2]
    parents = transforms.shape[1]
    left = tf.tile(narrow(poses)[:, :, None], (1, 1, parents, 1, 1))
    right = tf.tile(narrow(transforms)[None], (n, 1, 1, 1, 1))
    return tf.reshape(wide(tf.matmul(left, right)), (n, children, parents, POSE))


def _with_coordinates(votes: tf.Tensor, bound: BoundNetwork, layer: BoundLayer, places: int) -> tf.Tensor:
    """Votes [.., 16] of five axes with each place's (row, column) added or appended; `places` is the places' axis."""
    routing = bound.network.routing
    assert isinstance(routing, MatrixRouting)  # noqa: S101 - check_structure has seen to it
    shape = [1] * 4
    shape[places] = votes.shape[places]
    where = np.array(coordinates(bound, layer)).reshape(*shape, 2)
    if routing.coordinates == "appended":
        return tf.concat((votes, tf.broadcast_to(tf.constant(where, votes.dtype), (*votes.shape[:4], 2))), 4)
    elements = routing.coordinate_elements()
    if elements is None:
        return votes
    offset = np.zeros((*shape, POSE))
    offset[..., elements] = where
    return votes + tf.constant(offset, votes.dtype)
