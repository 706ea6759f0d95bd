"""EM routing in TensorFlow operators (Hinton et al. 2018, procedure 1), whatever the layout of the votes.

Tensors have the four axes of `moments`; those that lack one of them have length 1 there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from capsbench.network.routing import EMRouting
from capsbench_tensorflow.moments import Fit, Gaussian, Votes

Observer = Callable[[Votes, tf.Tensor, tf.Tensor, Fit], None]


@dataclass(frozen=True, slots=True)
class Feeding:
    """Which place below each (position, patch slot) looks at, for competition over all positions.

    Attributes:
        places: int32 [positions * slots], numbering only the places that are looked at.
        counts: how many positions each of the children [positions * slots] feeds.
        batch: images.
        slots: places a position looks at.
    """

    places: NDArray[np.int32]
    counts: NDArray[np.float64]
    batch: int
    slots: int


@dataclass(frozen=True, slots=True)
class Parents:
    """What routing yields: poses [n, j, h], activations [n, j] and the logits they came from [n, j]."""

    poses: tf.Tensor
    activations: tf.Tensor
    logits: tf.Tensor


def route(
    votes: Votes,
    activations: tf.Tensor,
    beta_u: tf.Tensor,
    beta_a: tf.Tensor,
    routing: EMRouting,
    feeding: Feeding | None,
    observer: Observer | None = None,
) -> Parents:
    """Route votes to their parents.

    Args:
        votes: of every child for every parent at every position.
        activations: of the children, [n, i].
        beta_u: [j] or [j, h].
        beta_a: [j].
        routing: the variant.
        feeding: for competition over all positions, None otherwise.
        observer: handed the votes, the couplings, the mass and the fit of every M-step.
    """
    inputs = votes.child_values(activations)
    offsets, thresholds = votes.parent_values(beta_u), votes.parent_values(beta_a)
    shape = votes.values.shape
    factor = routing.cost_factor(shape[votes.children], shape[votes.parents])
    softmax = routing.activation == "softmax"
    couplings = _first_couplings(votes, feeding if routing.starts_everywhere() else None)
    previous: Fit | None = None
    for iteration in range(routing.iterations):
        with tf.name_scope(f"iteration{iteration}"):
            mass, gaussian = _m_step(votes, couplings, inputs, routing, previous)
            previous = gaussian.fit if routing.damping else None
            if observer is not None:
                observer(votes, couplings, mass, gaussian.fit)
            cost = mass * tf.reduce_sum(offsets + gaussian.half_logs, 3, keepdims=True)
            logits = routing.inverse_temperature.at(iteration) * (thresholds - cost * factor)
            if iteration < routing.iterations - 1:
                by_mass = routing.interim_activation == "softmax_of_mass"
                interim = _Activation(mass, True) if by_mass else _Activation(logits, softmax)
                couplings = _e_step(votes, gaussian, interim, routing, feeding)
    active = _Activation(logits, softmax).values(votes)
    mean, active, logits = (tf.squeeze(tensor, votes.children) for tensor in (gaussian.fit.mean, active, logits))
    return Parents(mean, active[..., 0], logits[..., 0])


@dataclass(frozen=True, slots=True)
class _Activation:
    """Activations of the parents, as their logits [.., 1] and whether a softmax or a sigmoid is taken of them."""

    logits: tf.Tensor
    softmax: bool

    def values(self, votes: Votes) -> tf.Tensor:
        return _over_parents(tf.nn.softmax, self.logits, votes) if self.softmax else tf.sigmoid(self.logits)

    def logarithms(self, votes: Votes) -> tf.Tensor:
        if self.softmax:
            return _over_parents(tf.nn.log_softmax, self.logits, votes)
        return tf.math.log_sigmoid(self.logits)


def _over_parents(function: Callable[..., tf.Tensor], logits: tf.Tensor, votes: Votes) -> tf.Tensor:
    return tf.expand_dims(function(tf.squeeze(logits, 3), axis=votes.parents), 3)


def _first_couplings(votes: Votes, feeding: Feeding | None) -> tf.Tensor:
    """Equal shares for every competitor, [.., 1]."""
    values = votes.values
    shape = (*values.shape[:3], 1)
    share = tf.constant(1.0 / values.shape[votes.parents], values.dtype)
    if feeding is None:
        return tf.fill(shape, share)
    children = values.shape[votes.children] // feeding.slots
    counts = np.repeat(feeding.counts.reshape(-1, feeding.slots), children, axis=1)
    shares = share * tf.tile(tf.constant(1.0 / counts, values.dtype), (feeding.batch, 1))
    return tf.broadcast_to(votes.child_values(shares), shape)


def _m_step(
    votes: Votes, couplings: tf.Tensor, inputs: tf.Tensor, routing: EMRouting, previous: Fit | None
) -> tuple[tf.Tensor, Gaussian]:
    """The mass assigned to each parent and the Gaussian of its votes, damped by the `previous` one if there is one."""
    assigned = couplings * inputs
    if routing.renormalise_input:
        assigned = assigned / (tf.reduce_sum(assigned, votes.parents, keepdims=True) + routing.epsilon)
    mass = tf.reduce_sum(assigned, votes.children, keepdims=True)
    fit = votes.fit(assigned / (mass + routing.epsilon), routing.damping, previous)
    variance = fit.variance + routing.variance_floor
    return mass, Gaussian(fit, variance, 0.5 * tf.math.log(variance))


def _e_step(
    votes: Votes, gaussian: Gaussian, interim: _Activation, routing: EMRouting, feeding: Feeding | None
) -> tf.Tensor:
    """Couplings from the densities of the votes and the parents' activations."""
    if routing.densities == "shifted":
        weighted = votes.shifted_densities(gaussian) * interim.values(votes)
        return weighted / (tf.reduce_sum(weighted, votes.parents, keepdims=True) + routing.epsilon)
    logits = votes.log_densities(gaussian) + interim.logarithms(votes)
    if feeding is None:
        return _over_parents(votes.shares, logits, votes)
    return tf.exp(logits - log_sum_over_rivals(logits, votes, feeding))


def log_sum_over_rivals(logits: tf.Tensor, votes: Votes, feeding: Feeding) -> tf.Tensor:
    """For each child at each position: log of the summed exp(logits) over all parents at all positions it feeds."""
    here = tf.reduce_logsumexp(tf.squeeze(logits, 3), votes.parents)
    types = here.shape[1] // feeding.slots
    looks = len(feeding.places)
    by_look = tf.transpose(tf.reshape(here, (feeding.batch, looks, types)), (1, 0, 2))
    places, count = tf.constant(feeding.places), int(feeding.places.max()) + 1
    largest = tf.stop_gradient(tf.math.unsorted_segment_max(by_look, places, count))
    scaled = tf.exp(by_look - tf.gather(largest, places))
    total = largest + tf.math.log(tf.math.unsorted_segment_sum(scaled, places, count))
    of_look = tf.transpose(tf.gather(total, places), (1, 0, 2))
    return votes.child_values(tf.reshape(of_look, here.shape))
