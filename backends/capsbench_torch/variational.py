"""Variational Bayes routing in PyTorch, in two formulations of the same definition (`capsbench_numpy.variational`).

An E-step's expected log-density is that of a Gaussian with the variance Psi / nu, but for a constant of the parent. So
the votes are dealt with as in EM routing: `tiled` operator by operator, `grouped` with its matrix products and with the
sums that derive their own gradients; only what happens to the parents is new. Shapes are those of `routing`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from capsbench.network.routing import VBRouting
from capsbench.network.shapes import POSE
from capsbench_torch.maps import Statistics, normal_capsules
from capsbench_torch.routing import Distance, Moments, Observer, Parents, Scope


@dataclass(frozen=True, slots=True)
class Routing:
    """What one layer routes with: the variant, the parents' offset beta_a - beta_u, its sizes, which child is where.

    `owner` [p * i] numbers the child of the layer below at each place of a patch, of which there are `below` in an
    image. `normal` normalises poses [n, j, h] and logits [n, j]. `observe` sees how routing goes, where anybody wants
    to know.
    """

    variant: VBRouting
    offset: Tensor
    children: int
    parents: int
    owner: Tensor
    below: int
    normal: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    scope: Scope
    observe: Observer | None = None

    def parents_of(self, poses: Tensor, posterior: "Posterior") -> Parents:
        """The routed parents, from their means [n, j, h] and what the last M-step found."""
        entropy = 0.5 * (POSE * math.log(2.0 * math.pi * math.e) - posterior.log_precision)
        poses, logits = self.normal(poses, self.offset - posterior.log_weight.exp() * entropy)
        return Parents(poses, logits.sigmoid(), logits)


@dataclass(frozen=True, slots=True)
class Posterior:
    """What an M-step has found about the parents: inverse scales [n, j, h], the rest [n, j].

    `log_weight` is their expected log-weight, `log_precision` the expected log-determinant of their precision.
    """

    kappa: Tensor
    nu: Tensor
    inverse_scale: Tensor
    log_weight: Tensor
    log_precision: Tensor

    def constants(self) -> Tensor:
        """What a log-density has beside the distance, [n, j]."""
        return 0.5 * (self.log_precision - POSE * math.log(2.0 * math.pi) - POSE / self.kappa) + self.log_weight


def route_tiled(votes: Tensor, activations: Tensor, routing: Routing) -> Parents:
    """Route votes [n, i, j, h] of children [n, i] operator by operator, as the authors' code does."""
    variant = routing.variant
    assignments = torch.full_like(votes[..., 0], 1.0 / routing.parents, requires_grad=False)
    for iteration in range(variant.iterations):
        with routing.scope(f"iteration::{iteration}"):
            assigned = assignments * activations[..., None]
            mass = assigned.sum(1)
            mean = (assigned[..., None] * votes).sum(1) / (variant.prior_kappa + mass)[..., None]
            spread = (assigned[..., None] * (votes - mean[:, None]).square()).sum(1)
            if routing.observe is not None:
                routing.observe(assignments, mass, _per_mass(spread, mass))
            posterior = _posterior(variant, mass, mean, spread)
            if iteration < variant.iterations - 1:
                scaled = (votes - mean[:, None]).square() / posterior.inverse_scale[:, None]
                distance = 0.5 * posterior.nu[:, None] * scaled.sum(3)
                assignments = _assign(posterior.constants()[:, None] - distance, routing, parents=2)
    return routing.parents_of(mean, posterior)


def route_grouped(votes: Tensor, activations: Tensor, routing: Routing) -> Parents:
    """Route votes [n, j, i, h] of children [n, i] with matrix products for the sums."""
    variant = routing.variant
    n, j, i, h = votes.shape
    matrices = votes.reshape(n * j, i, h)
    assignments = torch.full_like(votes[..., 0], 1.0 / routing.parents, requires_grad=False)
    for iteration in range(variant.iterations):
        with routing.scope(f"iteration::{iteration}"):
            assigned = assignments * activations[:, None]
            mass = assigned.sum(2)
            kappa = variant.prior_kappa + mass
            weights = (assigned / kappa[..., None]).reshape(n * j, 1, i)
            rows, variances, squares = Moments.apply(matrices, weights, None, 0.0)
            mean, spread = rows.view(n, j, h), variances.view(n, j, h) * kappa[..., None]
            if routing.observe is not None:
                routing.observe(assignments.transpose(1, 2), mass, _per_mass(spread, mass))
            posterior = _posterior(variant, mass, mean, spread)
            if iteration < variant.iterations - 1:
                precision = 0.5 * posterior.nu[..., None] / posterior.inverse_scale
                distance, _ = Distance.apply(squares, precision.reshape(n * j, 1, h), None)
                assignments = _assign(posterior.constants()[..., None] - distance.view(n, j, i), routing, parents=1)
    return routing.parents_of(mean, posterior)


class Digamma(torch.autograd.Function):
    """The derivative of ln Gamma, whose own derivative is taken to rounding.

    PyTorch's own takes it by a series of three terms, which is off by 1e-8: that is no matter in float32. Hurwitz's
    zeta(2, x) is the same function to rounding, but takes thirty times as long.
    """

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        """Of arguments above 0."""
        return torch.digamma(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ANN401, ARG004 - torch's own
        """Keep the arguments."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:  # noqa: ANN401, D102 - torch's own
        (values,) = ctx.saved_tensors
        exact = values.dtype == torch.float64
        return upstream * (torch.special.zeta(2.0, values) if exact else torch.polygamma(1, values))


def normal_parents(
    own: Mapping[str, Tensor],
    variant: VBRouting,
    name: str,
    statistics: Statistics | None,
    poses: Tensor,
    logits: Tensor,
) -> tuple[Tensor, Tensor]:
    """Poses [n, j, h] and logits [n, j], normalised where the variant asks for it; `statistics` as for `batch_norm`."""
    if variant.normalisation is None:
        return poses, logits
    epsilon = variant.normalisation.epsilon
    poses, logits = normal_capsules(own, poses[..., None], logits[..., None, None], epsilon, statistics, name)
    return poses[..., 0], logits[..., 0, 0]


def _posterior(variant: VBRouting, mass: Tensor, mean: Tensor, spread: Tensor) -> Posterior:
    """From the parents' mass [n, j], their means and the assigned squares' sums about those [n, j, h]."""
    alpha, kappa, nu = variant.prior_alpha + mass, variant.prior_kappa + mass, variant.prior_nu + mass
    inverse_scale = variant.prior_psi + spread + variant.prior_kappa * mean.square()
    degrees = 0.5 * (nu[..., None] - torch.arange(POSE, dtype=nu.dtype, device=nu.device))
    log_precision = (Digamma.apply(degrees) - inverse_scale.log()).sum(2) + POSE * math.log(2.0)
    log_weight = Digamma.apply(alpha) - Digamma.apply(alpha.sum(1, keepdim=True))
    return Posterior(kappa, nu, inverse_scale, log_weight, log_precision)


def _assign(log_densities: Tensor, routing: Routing, parents: int) -> Tensor:
    """Shares of the parents that compete for one child; `parents` is the axis that they lie on."""
    total = log_densities.logsumexp(parents)
    if routing.variant.competition == "all_positions":
        total = _over_positions(total, routing)
    if routing.variant.density_floor > 0.0:
        total = total.clamp(min=math.log(routing.variant.density_floor))
    return (log_densities - total.unsqueeze(parents)).exp()


def _over_positions(here: Tensor, routing: Routing) -> Tensor:
    """From logs of sums at one position [n, i] those over all positions that the child feeds."""
    places = here.reshape(-1, routing.owner.numel())
    with torch.no_grad():
        lowest = places.new_full((len(places), routing.below), -math.inf)
        peak = lowest.scatter_reduce(1, routing.owner.expand(len(places), -1), places, "amax")
        peak = peak.index_select(1, routing.owner)
    total = places.new_zeros(len(places), routing.below).index_add(1, routing.owner, (places - peak).exp())
    return (peak + total.index_select(1, routing.owner).log()).view_as(here)


def _per_mass(spread: Tensor, mass: Tensor) -> Tensor:
    """Mean squared deviations [n, j, h]; 0 for a parent without any mass."""
    mass = mass[..., None]
    return torch.where(mass > 0.0, spread / torch.where(mass > 0.0, mass, 1.0), 0.0)
