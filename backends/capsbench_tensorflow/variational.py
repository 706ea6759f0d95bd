"""Variational Bayes routing in TensorFlow operators (`capsbench_numpy.variational` is the definition).

An E-step's expected log-density is that of a Gaussian with the variance Psi / nu, but for a constant of the parent that
its half logarithms can carry. So the sums over the votes are those of EM routing, in either layout (see `moments`);
only what happens to the parents is new.
"""

from dataclasses import dataclass, replace
from math import e, log, pi

import numpy as np
import tensorflow as tf

from capsbench.network.routing import VBRouting
from capsbench.network.shapes import POSE
from capsbench_tensorflow.moments import Gaussian, Votes
from capsbench_tensorflow.routing import Feeding, Observer, log_sum_over_rivals


@dataclass(frozen=True, slots=True)
class _Posterior:
    """What an M-step has found about the parents, with the axes of `moments`.

    Attributes:
        gaussian: their votes' expected one.
        log_weight: the expected logarithm of their weight in the mixture.
        log_precision: that of their precision's determinant.
    """

    gaussian: Gaussian
    log_weight: tf.Tensor
    log_precision: tf.Tensor


def route(
    votes: Votes,
    activations: tf.Tensor,
    offset: tf.Tensor,
    routing: VBRouting,
    feeding: Feeding | None,
    observer: Observer | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Route votes to their parents.

    Args:
        votes: of every child for every parent at every position.
        activations: of the children, [n, i].
        offset: beta_a - beta_u, [j].
        routing: the variant.
        feeding: for competition over all positions, None otherwise.
        observer: handed the votes, the couplings, the mass and the fit of every M-step.

    Returns:
        The parents' means [n, j, h] and logits [n, j], neither of them normalised.
    """
    inputs = votes.child_values(activations)
    shape = (*votes.values.shape[:3], 1)
    couplings = tf.fill(shape, tf.constant(1.0 / shape[votes.parents], votes.values.dtype))
    for iteration in range(routing.iterations):
        with tf.name_scope(f"iteration{iteration}"):
            found = _m_step(votes, couplings, inputs, routing, observer)
            if iteration < routing.iterations - 1:
                couplings = _e_step(votes, found, routing, feeding)
    entropy = 0.5 * (POSE * log(2.0 * pi * e) - found.log_precision)
    logits = votes.parent_values(offset) - tf.exp(found.log_weight) * entropy
    mean, logits = (tf.squeeze(tensor, votes.children) for tensor in (found.gaussian.fit.mean, logits))
    return mean, logits[..., 0]


def _m_step(
    votes: Votes, couplings: tf.Tensor, inputs: tf.Tensor, routing: VBRouting, observer: Observer | None
) -> _Posterior:
    assigned = couplings * inputs
    mass = tf.reduce_sum(assigned, votes.children, keepdims=True)
    alpha, kappa, nu = routing.prior_alpha + mass, routing.prior_kappa + mass, routing.prior_nu + mass
    # The prior's votes are for 0 and need no sum, so that the weights sum to less than one.
    fit = votes.fit(assigned / kappa)
    spread = kappa * fit.variance
    if observer is not None:
        observer(votes, couplings, mass, replace(fit, variance=tf.math.divide_no_nan(spread, mass)))
    inverse_scale = routing.prior_psi + spread + routing.prior_kappa * tf.square(fit.mean)
    degrees = 0.5 * (nu - tf.constant(np.arange(POSE).reshape(1, 1, 1, POSE), nu.dtype))
    by_element = tf.math.digamma(degrees) + log(2.0) - tf.math.log(inverse_scale)
    total = tf.reduce_sum(alpha, votes.parents, keepdims=True)
    half_logs = 0.5 * (log(2.0 * pi) + 1.0 / kappa - by_element)
    return _Posterior(
        Gaussian(fit, inverse_scale / nu, half_logs),
        tf.math.digamma(alpha) - tf.math.digamma(total),
        tf.reduce_sum(by_element, 3, keepdims=True),
    )


def _e_step(votes: Votes, found: _Posterior, routing: VBRouting, feeding: Feeding | None) -> tf.Tensor:
    """What each child assigns to its parents."""
    logits = votes.log_densities(found.gaussian) + found.log_weight
    if feeding is None:
        total = tf.reduce_logsumexp(logits, votes.parents, keepdims=True)
    else:
        total = log_sum_over_rivals(logits, votes, feeding)
    if routing.density_floor > 0.0:
        total = tf.maximum(total, tf.constant(log(routing.density_floor), total.dtype))
    return tf.exp(logits - total)
