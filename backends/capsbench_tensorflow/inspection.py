"""What a network's layers give out, and how routing goes in them; definitions in `capsbench.backend`."""

from dataclasses import dataclass, field
from functools import partial
from math import log

import tensorflow as tf

from capsbench_tensorflow.moments import Fit, Votes
from capsbench_tensorflow.routing import Observer

# A parent with less than this share of the mean mass at its position is starved.
_STARVED = 0.01


@dataclass(slots=True)
class Watched:
    """One layer.

    Attributes:
        activations: [b, n].
        poses: [b, n, 16 or 18].
        votes: [b, n]; None for parents without poses, whose votes have no elements.
        iterations: coupling entropy, vote distance and share of starved parents, each [b], by routing iteration.
    """

    activations: tf.Tensor | None = None
    poses: tf.Tensor | None = None
    votes: tf.Tensor | None = None
    iterations: list[tuple[tf.Tensor, tf.Tensor, tf.Tensor]] = field(default_factory=list)


class Watch:
    """Gathers what layers give out while the network's graph is made.

    Args:
        batch: images.
        votes: whether to gather votes too.
    """

    def __init__(self, batch: int, *, votes: bool) -> None:
        self.layers: dict[str, Watched] = {}
        self._batch, self._votes = batch, votes

    def outputs(self, name: str, activations: tf.Tensor, poses: tf.Tensor | None = None) -> None:
        """What a layer gives out: activations [b, ..] and poses [b, .., elements]."""
        layer = self.layers.setdefault(name, Watched())
        layer.activations = tf.reshape(activations, (self._batch, -1))
        if poses is not None:
            layer.poses = tf.reshape(poses, (self._batch, -1, poses.shape[-1]))

    def votes(self, name: str, votes: Votes) -> None:
        """The votes of a layer, where its routing has nobody to show them to."""
        if self._votes:
            self.layers.setdefault(name, Watched()).votes = self._of_images(votes.values)

    def observer(self, name: str) -> Observer:
        """For the routing of a layer."""
        return partial(self._observe, self.layers.setdefault(name, Watched()))

    def _observe(self, layer: Watched, votes: Votes, couplings: tf.Tensor, mass: tf.Tensor, fit: Fit) -> None:
        if self._votes and layer.votes is None and votes.values.shape[3]:
            layer.votes = self._of_images(votes.values)
        spread = mass * tf.reduce_sum(fit.variance, 3, keepdims=True)
        starved = mass < _STARVED * tf.reduce_mean(mass, votes.parents, keepdims=True)
        layer.iterations.append(
            (
                tf.reduce_mean(self._of_images(_entropy(couplings, votes.parents)), 1),
                tf.math.divide_no_nan(*(tf.reduce_sum(self._of_images(part), 1) for part in (spread, mass))),
                tf.reduce_mean(self._of_images(tf.cast(starved, mass.dtype)), 1),
            )
        )

    def _of_images(self, values: tf.Tensor) -> tf.Tensor:
        """Values [n, ..] of the positions of all images, [b, values]."""
        return tf.reshape(values, (self._batch, -1))


def _entropy(couplings: tf.Tensor, parents: int) -> tf.Tensor:
    """Entropy of couplings over the axis of the parents, of the most there can be; 0 where couplings vanish."""
    count = int(couplings.shape[parents])
    shares = tf.math.divide_no_nan(couplings, tf.reduce_sum(couplings, parents, keepdims=True))
    entropy = -tf.reduce_sum(tf.math.xlogy(shares, shares), parents)
    return entropy / log(count) if count > 1 else tf.zeros_like(entropy)
