"""Variational Bayes routing as it is defined: Ribeiro, Leontidis, Kollias, AAAI 2020, with the fields of `VBRouting`.

With r_ij = R_ij a_i, what child i assigns to parent j, R_j their sum, m_j = sum_i r_ij V_ij / kappa_j and d an element
of the pose, counted from 0, the posteriors of the M-step are

    alpha_j = alpha_0 + R_j,  kappa_j = kappa_0 + R_j,  nu_j = nu_0 + R_j,
    Psi_jd = Psi_0 + sum_i r_ij (V_ijd - m_jd)^2 + kappa_0 m_jd^2

which is Bishop's update (Pattern Recognition and Machine Learning, equations 10.58 to 10.63) with a prior mean of 0 and
a diagonal, completed to squares about m_j: that way nothing is divided by R_j. From psi, the digamma function, follow

    ln pi_j = psi(alpha_j) - psi(sum_j alpha_j),
    ln Lambda_j = sum_d psi((nu_j - d) / 2) + 16 ln 2 - sum_d ln Psi_jd,
    ln p_ij = (ln Lambda_j - 16 ln 2 pi - 16 / kappa_j - nu_j sum_d (V_ijd - m_jd)^2 / Psi_jd) / 2 + ln pi_j,

the E-step's assignments p_ij over their sum, and at the end the entropy H_j = 8 ln 2 pi e - ln Lambda_j / 2.

Everything here also runs on complex numbers (see `routing`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capsbench.network.routing import VBRouting
from capsbench.network.shapes import POSE
from capsbench_numpy.routing import Array, Observer

# From this argument on, eight terms of digamma's asymptotic series are exact to rounding.
_ASYMPTOTIC_FROM = 10
# Bernoulli numbers B_2k over 2k, of the terms -B_2k / (2k x^2k).
_SERIES = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12, -3617 / 8160)


@dataclass(frozen=True, slots=True)
class _Posterior:
    """What an M-step has found, [b, p, j] and its moments [b, p, j, 16]; the squared deviations are [b, p, i, j, 16].

    `log_weight` is ln pi, `log_precision` ln Lambda, `spread` the squares' sum as they are assigned.
    """

    mass: Array
    kappa: Array
    nu: Array
    mean: Array
    spread: Array
    inverse_scale: Array
    squares: Array
    log_weight: Array
    log_precision: Array


def route(
    votes: Array,
    activations: Array,
    own: Mapping[str, Array],
    routing: VBRouting,
    owner: NDArray[np.int64],
    observe: Observer | None = None,
) -> tuple[Array, Array]:
    """Route children to parents.

    Args:
        votes: [b, p, i, j, 16], of child i at position p for parent j there.
        activations: [b, p, i], of the children.
        own: the layer's `beta_u` and `beta_a`, [j].
        routing: the variant.
        owner: [p, i], which child of the layer below stands at (p, i); a child may stand at several positions.
        observe: is shown every M-step.

    Returns:
        The parents' means [b, p, j, 16] and logits [b, p, j], neither of them normalised.
    """
    assignments: Array = np.full(votes.shape[:4], 1.0 / votes.shape[3])
    for iteration in range(routing.iterations):
        found = _m_step(votes, assignments * activations[..., None], routing)
        if observe is not None:
            observe(assignments, found.mass, _variance(found))
        if iteration < routing.iterations - 1:
            assignments = _e_step(found, routing, owner)
    entropy = 0.5 * (POSE * np.log(2.0 * np.pi * np.e) - found.log_precision)
    return found.mean, own["beta_a"] - own["beta_u"] - np.exp(found.log_weight) * entropy


def _m_step(votes: Array, assigned: Array, routing: VBRouting) -> _Posterior:
    """Posteriors of the parents from what is assigned to them [b, p, i, j]."""
    mass = assigned.sum(2)
    alpha, kappa, nu = routing.prior_alpha + mass, routing.prior_kappa + mass, routing.prior_nu + mass
    mean = (assigned[..., None] * votes).sum(2) / kappa[..., None]
    squares = (votes - mean[:, :, None]) ** 2
    spread = (assigned[..., None] * squares).sum(2)
    inverse_scale = routing.prior_psi + spread + routing.prior_kappa * mean**2
    log_weight = digamma(alpha) - digamma(alpha.sum(2, keepdims=True))
    by_element = digamma(0.5 * (nu[..., None] - np.arange(POSE))) + np.log(2.0) - np.log(inverse_scale)
    return _Posterior(mass, kappa, nu, mean, spread, inverse_scale, squares, log_weight, by_element.sum(3))


def _e_step(found: _Posterior, routing: VBRouting, owner: NDArray[np.int64]) -> Array:
    """What each child assigns to its parents [b, p, i, j]."""
    distance = found.nu[:, :, None] * (found.squares / found.inverse_scale[:, :, None]).sum(4)
    constant = found.log_precision - POSE * np.log(2.0 * np.pi) - POSE / found.kappa
    log_densities = 0.5 * (constant[:, :, None] - distance) + found.log_weight[:, :, None]
    total = _log_totals(log_densities, routing, owner)
    if routing.density_floor > 0.0:
        total = np.where(total.real < np.log(routing.density_floor), np.log(routing.density_floor), total)
    assignments: Array = np.exp(log_densities - total[..., None])
    return assignments


def _log_totals(logits: Array, routing: VBRouting, owner: NDArray[np.int64]) -> Array:
    """Log of the summed exponentials of [b, p, i, j] over the parents that compete for a child: [b, p, i]."""
    if routing.competition == "position":
        peak = logits.real.max(3)
        here: Array = peak + np.log(np.exp(logits - peak[..., None]).sum(3))
        return here
    count = int(owner.max()) + 1
    everywhere: Any = (slice(None), owner)
    highest = np.full((logits.shape[0], count), -np.inf)
    np.maximum.at(highest, everywhere, logits.real.max(3))
    peak = highest[:, owner]
    total = np.zeros(highest.shape, logits.dtype)
    np.add.at(total, everywhere, np.exp(logits - peak[..., None]).sum(3))
    return peak + np.log(total[:, owner])


def _variance(found: _Posterior) -> Array:
    """Mean squared deviation of the votes from the pose, [b, p, j, 16]; 0 for a parent without any mass."""
    mass = found.mass[..., None]
    return np.where(mass > 0.0, found.spread / np.where(mass > 0.0, mass, 1.0), 0.0)


def digamma(values: Array) -> Array:
    """The derivative of ln Gamma, for real parts above 0, by its recurrence and its asymptotic series.

    Source: Abramowitz, Stegun, "Handbook of mathematical functions", 6.3.5 and 6.3.18. Correct to 1e-14 of its value or
    of 1, whichever is larger.
    """
    below = sum(1.0 / (values + step) for step in range(_ASYMPTOTIC_FROM))
    large = values + _ASYMPTOTIC_FROM
    square = 1.0 / large**2
    tail: Array = np.zeros_like(square)
    for coefficient in reversed(_SERIES):
        tail = square * (coefficient + tail)
    result: Array = np.log(large) - 0.5 / large - tail - below
    return result
