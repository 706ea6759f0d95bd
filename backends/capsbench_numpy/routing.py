"""EM routing as it is defined: Hinton, Sabour, Frosst, ICLR 2018, procedure 1, with the fields of `EMRouting`.

Everything here also runs on complex numbers, because the oracle differentiates by the complex step: comparisons look at
real parts, and no absolute value is taken.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capsbench.network.routing import EMRouting

Array = NDArray[Any]  # float64, or complex128 while differentiating
# Looks at an iteration: assignments [b, p, i, j], parents' mass [b, p, j], variances [b, p, j, h] without the floor.
Observer = Callable[[Array, Array, Array], None]


@dataclass(frozen=True, slots=True)
class Routed:
    """What routing gives: poses [b, p, j, elements], activations [b, p, j], their logits [b, p, j]."""

    poses: Array
    activations: Array
    logits: Array


def vote(poses: Array, transforms: Array) -> Array:
    """Votes V_ij = P_i W_ij: poses [b, p, i, 16] and transforms [i, j, 4, 4] give [b, p, i, j, 16]."""
    matrices = poses.reshape(*poses.shape[:3], 1, 4, 4)
    votes = matrices @ transforms
    return votes.reshape(*votes.shape[:4], 16)


def route(
    votes: Array,
    activations: Array,
    beta_u: Array,
    beta_a: Array,
    routing: EMRouting,
    owner: NDArray[np.int64],
    observe: Observer | None = None,
) -> Routed:
    """Route children to parents.

    Args:
        votes: [b, p, i, j, h], of child i at position p for parent j there.
        activations: [b, p, i], of the children.
        beta_u: [j] or [j, h].
        beta_a: [j].
        routing: the variant.
        owner: [p, i], which child of the layer below stands at (p, i); a child may stand at several positions.
        observe: is shown every M-step.
    """
    children, parents = votes.shape[2:4]
    offsets = beta_u if beta_u.ndim == 2 else beta_u[:, None]
    previous, equal = np.zeros(1), np.zeros(votes.shape[:4])
    assignments = _compete(equal, routing, owner) if routing.starts_everywhere() else np.exp(log_softmax(equal))
    for iteration in range(routing.iterations):
        last = iteration == routing.iterations - 1
        # M-step: every parent fits a Gaussian to the votes assigned to it.
        mass = assignments * activations[..., None]
        if routing.renormalise_input:
            mass = mass / (mass.sum(3, keepdims=True) + routing.epsilon)
        total = mass.sum(2)
        weights = mass / (total[:, :, None] + routing.epsilon)
        mean = (1.0 - routing.damping) * (weights[..., None] * votes).sum(2) + routing.damping * previous
        previous = mean
        distance = (votes - mean[:, :, None]) ** 2
        spread = (weights[..., None] * distance).sum(2)
        if observe is not None:
            observe(assignments, total, spread)
        variance = spread + routing.variance_floor
        cost = total * (offsets + 0.5 * np.log(variance)).sum(-1) * routing.cost_factor(children, parents)
        logits = routing.inverse_temperature.at(iteration) * (beta_a - cost)
        # E-step: every child shares itself out among the parents that predict its votes.
        if not last:
            by_mass = routing.interim_activation == "softmax_of_mass"
            log_activation = log_softmax(total) if by_mass else _log_activation(logits, routing)
            log_densities = -0.5 * np.log(variance)[:, :, None] - distance / (2.0 * variance[:, :, None])
            if routing.densities == "shifted":
                assignments = _shifted(log_densities, log_activation, routing)
            else:
                assignments = _compete(log_densities.sum(-1) + log_activation[:, :, None], routing, owner)
    return Routed(mean, np.exp(_log_activation(logits, routing)), logits)


def _log_activation(logits: Array, routing: EMRouting) -> Array:
    return log_sigmoid(logits) if routing.activation == "sigmoid" else log_softmax(logits)


def _compete(logits: Array, routing: EMRouting, owner: NDArray[np.int64]) -> Array:
    """Softmax of [b, p, i, j] over the parents that compete for one child."""
    if routing.competition == "position":
        return np.exp(log_softmax(logits))
    count = int(owner.max()) + 1
    everywhere: Any = (slice(None), owner)
    peak = np.full((logits.shape[0], count), -np.inf)
    np.maximum.at(peak, everywhere, logits.real.max(3))
    weights = np.exp(logits - peak[:, owner][..., None])
    total = np.zeros((logits.shape[0], count), weights.dtype)
    np.add.at(total, everywhere, weights.sum(3))
    shares: Array = weights / total[:, owner][..., None]
    return shares


def _shifted(log_densities: Array, log_activation: Array, routing: EMRouting) -> Array:
    """The seed's normalisation: densities scaled by the largest single element, epsilon added to their sum."""
    flat = log_densities.reshape(*log_densities.shape[:3], -1)
    largest = np.take_along_axis(flat, flat.real.argmax(-1)[..., None], -1)[..., None]
    densities = np.exp((log_densities - largest + np.log(10.0)).sum(-1) + log_activation[:, :, None])
    shares: Array = densities / (densities.sum(3, keepdims=True) + routing.epsilon)
    return shares


def log_softmax(logits: Array) -> Array:
    """Log of the softmax over the last axis."""
    shifted = logits - logits.real.max(-1, keepdims=True)
    normal: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return normal


def log_sigmoid(logits: Array) -> Array:
    """log(1 / (1 + exp(-z))) without overflow on either side."""
    negative = logits.real < 0
    return np.where(negative, logits, 0.0) - np.log1p(np.exp(np.where(negative, logits, -logits)))
