"""EM routing in PyTorch, in two formulations of the same definition (`capsbench_numpy.routing`).

`tiled` is what most published code does: transforms tiled over positions and poses over parents, one 4x4 product a
vote, and every step an operator on tensors of votes' size. `grouped` multiplies once per child type and keeps votes as
[n, j, i, h], so that the weighted sums over children and over pose elements are batched matrix products, which read the
votes once and write nothing of their size.

Shapes: n positions of all images, i children, j parents, h pose elements, b images, p positions of one image.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from capsbench.network.routing import EMRouting

Scope = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Parents:
    """Poses [n, j, h], activations [n, j] and their logits [n, j]."""

    poses: Tensor
    activations: Tensor
    logits: Tensor


@dataclass(frozen=True, slots=True)
class Routing:
    """What one layer routes with: the variant, its offsets, its sizes, and which child stands where.

    `owner` [p * i] numbers the child of the layer below at each place of a patch; only competition over all positions
    looks at it.
    """

    variant: EMRouting
    beta_u: Tensor
    beta_a: Tensor
    children: int
    parents: int
    owner: Tensor
    scope: Scope

    def logits(self, iteration: int, mass: Tensor, variance: Tensor) -> Tensor:
        """lambda_t * (beta_a - cost) [n, j] from mass [n, j] and variance [n, j, h]."""
        offsets = self.beta_u if self.beta_u.ndim == 2 else self.beta_u[:, None]
        cost = mass * (offsets + 0.5 * variance.log()).sum(-1)
        factor = self.variant.cost_factor(self.children, self.parents)
        return self.variant.inverse_temperature.at(iteration) * (self.beta_a - factor * cost)

    def log_activations(self, logits: Tensor) -> Tensor:
        """Log of the parents' activations [n, j]."""
        return functional.logsigmoid(logits) if self.variant.activation == "sigmoid" else logits.log_softmax(-1)

    def parents_of(self, poses: Tensor, logits: Tensor) -> Parents:
        """The routed parents."""
        activations = logits.sigmoid() if self.variant.activation == "sigmoid" else logits.softmax(-1)
        return Parents(poses, activations, logits)

    def interim(self, mass: Tensor, logits: Tensor) -> Tensor:
        """Log of the activations that the next E-step uses [n, j]."""
        if self.variant.interim_activation == "softmax_of_mass":
            return mass.log_softmax(-1)
        return self.log_activations(logits)


def vote_tiled(poses: Tensor, transforms: Tensor) -> Tensor:
    """Votes [n, i, j, 16] from poses [n, i, 16] and transforms [i, j, 4, 4], everything tiled to the votes' size."""
    n, i = poses.shape[:2]
    j = transforms.shape[1]
    tiled_transforms = transforms.repeat(n, 1, 1, 1, 1)
    tiled_poses = poses.view(n, i, 1, 4, 4).repeat(1, 1, j, 1, 1)
    return torch.matmul(tiled_poses, tiled_transforms).view(n, i, j, 16)


def vote_grouped(poses: Tensor, transforms: Tensor) -> Tensor:
    """Votes [n, j, i, 16] from poses [n, i, 16] and transforms [i, j, 4, 4]: one matrix product per child type."""
    n, i = poses.shape[:2]
    j = transforms.shape[1]
    by_type = poses.view(n, i, 4, 4).permute(1, 0, 2, 3).reshape(i, n * 4, 4)
    votes = torch.bmm(by_type, transforms.permute(0, 2, 1, 3).reshape(i, 4, j * 4))
    return votes.view(i, n, 4, j, 4).permute(1, 3, 0, 2, 4).reshape(n, j, i, 16)


def route_tiled(votes: Tensor, activations: Tensor, routing: Routing) -> Parents:
    """Route votes [n, i, j, h] of children [n, i] operator by operator, as the seed does."""
    variant = routing.variant
    assignments = _first_assignments(votes[..., 0], routing, parents=2)
    for iteration in range(variant.iterations):
        with routing.scope(f"iteration::{iteration}"):
            rho = _rho(assignments, activations[..., None], variant, 2)
            mass = rho.sum(1, keepdim=True)
            weights = (rho / (mass + variant.epsilon))[..., None]
            mean = (votes * weights).sum(1, keepdim=True)
            variance = ((votes - mean).square() * weights).sum(1, keepdim=True) + variant.variance_floor
            logits = routing.logits(iteration, mass[:, 0], variance[:, 0])
            if iteration < variant.iterations - 1:
                log_densities = -variance.sqrt().log() - (votes - mean).square() / (2.0 * variance)
                interim = routing.interim(mass[:, 0], logits)[:, None]
                if variant.densities == "shifted":
                    largest = log_densities.amax((2, 3), keepdim=True)
                    log_densities = log_densities - (largest - math.log(10.0))
                    assignments = _normalise(log_densities.sum(3).exp() * interim.exp(), variant, 2)
                else:
                    assignments = _compete(log_densities.sum(3) + interim, routing, parents=2)
    return routing.parents_of(mean[:, 0], logits)


def route_grouped(votes: Tensor, activations: Tensor, routing: Routing) -> Parents:
    """Route votes [n, j, i, h] of children [n, i] with matrix products for the sums."""
    variant = routing.variant
    n, j, i, h = votes.shape
    matrices = votes.reshape(n * j, i, h)
    assignments = _first_assignments(votes[..., 0], routing, parents=1)
    for iteration in range(variant.iterations):
        with routing.scope(f"iteration::{iteration}"):
            rho = _rho(assignments, activations[:, None], variant, 1)
            mass = rho.sum(2)
            weights = (rho / (mass[..., None] + variant.epsilon)).reshape(n * j, 1, i)
            mean = torch.bmm(weights, matrices)
            distance = SquaredDistance.apply(matrices, mean)
            variance = torch.bmm(weights, distance) + variant.variance_floor
            logits = routing.logits(iteration, mass, variance.reshape(n, j, h))
            if iteration < variant.iterations - 1:
                half_inverse = 0.5 / variance
                log_scale = -0.5 * variance.log()
                exponent = torch.bmm(distance, half_inverse.transpose(1, 2)).reshape(n, j, i)
                log_densities = log_scale.sum(2).reshape(n, j, 1) - exponent
                interim = routing.interim(mass, logits)[..., None]
                if variant.densities == "shifted":
                    largest = _largest_element(distance, half_inverse, log_scale, (n, j, i, h))
                    log_densities = log_densities - h * (largest - math.log(10.0))
                    assignments = _normalise((log_densities + interim).exp(), variant, 1)
                else:
                    assignments = _compete(log_densities + interim, routing, parents=1)
    return routing.parents_of(mean.reshape(n, j, h), logits)


class SquaredDistance(torch.autograd.Function):
    """(votes - mean)^2 for votes [m, i, h] and mean [m, 1, h]; keeps neither the difference nor its double."""

    @staticmethod
    def forward(votes: Tensor, mean: Tensor) -> Tensor:
        """Square of the difference [m, i, h]."""
        return (votes - mean).square_()

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004 - torch passes it
        """Keep the arguments."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """2 (votes - mean) * gradient, and its negative sum over the children."""
        votes, mean = ctx.saved_tensors
        zero = votes.new_zeros(())
        by_votes = torch.addcmul(zero, votes - mean, gradient, value=2.0)
        return by_votes, -by_votes.sum(1, keepdim=True)


def _largest_element(distance: Tensor, half_inverse: Tensor, log_scale: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The largest log-density of a single pose element, over parents and elements [n, 1, i].

    Found without a graph, then taken again with one, so that only the winners carry gradients.
    """
    n, j, i, h = shape
    with torch.no_grad():
        elements = torch.addcmul(log_scale, distance, half_inverse, value=-1.0).view(n, j, i, h)
        best, element = elements.max(3)
        parent = best.argmax(1, keepdim=True)
        element = element.gather(1, parent)
        child = torch.arange(i, device=distance.device)
        row = torch.arange(n, device=distance.device)[:, None, None] * j + parent
    return log_scale[row, 0, element] - distance[row, child, element] * half_inverse[row, 0, element]


def _first_assignments(like: Tensor, routing: Routing, parents: int) -> Tensor:
    """Equal shares among the competitors, in the layout of `like`; `parents` is the axis that they lie on."""
    if routing.variant.competition == "position":
        return torch.full_like(like, 1.0 / routing.parents, requires_grad=False)
    return _compete(torch.zeros_like(like, requires_grad=False), routing, parents=parents)


def _rho(assignments: Tensor, activations: Tensor, variant: EMRouting, parents: int) -> Tensor:
    rho = assignments * activations
    return _normalise(rho, variant, parents) if variant.renormalise_input else rho


def _normalise(values: Tensor, variant: EMRouting, parents: int) -> Tensor:
    return values / (values.sum(parents, keepdim=True) + variant.epsilon)


def _compete(logits: Tensor, routing: Routing, parents: int) -> Tensor:
    """Softmax over the parents that compete for one child; `parents` is the axis that they lie on."""
    if routing.variant.competition == "position":
        return logits.softmax(parents)
    by_child = logits if parents == 2 else logits.transpose(1, 2)
    places = by_child.reshape(-1, routing.owner.numel(), routing.parents)
    count = int(routing.owner.max()) + 1
    with torch.no_grad():
        index = routing.owner.expand(places.shape[0], -1)
        lowest = places.new_full((places.shape[0], count), -math.inf)
        peak = lowest.scatter_reduce(1, index, places.amax(2), "amax").index_select(1, routing.owner)
    weights = (places - peak[..., None]).exp()
    total = weights.new_zeros(places.shape[0], count).index_add(1, routing.owner, weights.sum(2))
    shares = (weights / total.index_select(1, routing.owner)[..., None]).reshape(by_child.shape)
    return shares if parents == 2 else shares.transpose(1, 2)
