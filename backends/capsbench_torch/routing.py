"""EM routing in PyTorch, in two formulations of the same definition (`capsbench_numpy.routing`).

`tiled` is what most published code does: transforms tiled over positions and poses over parents, one 4x4 product a
vote, and every step an operator on tensors of the votes' size, kept for the backward pass.

`grouped` multiplies once per child type and keeps the votes as [n, j, i, h], so that sums over children and over
pose elements are batched matrix products, which write nothing of the votes' size. Of that size it keeps the votes and
one tensor of squared deviations an iteration.

Shapes: n positions of all images, i children, j parents, h pose elements, b images, p positions of one image, m = n j.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from capsbench.network.routing import EMRouting

Scope = Callable[[str], AbstractContextManager[object]]
# Called in every iteration with the couplings [n, i, j] that the M-step uses, the parents' mass [n, j] and their
# variance [n, j, h] before the floor is added.
Observer = Callable[[Tensor, Tensor, Tensor], None]


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
    looks at it. `observe` sees how routing goes, where anybody wants to know.
    """

    variant: EMRouting
    beta_u: Tensor
    beta_a: Tensor
    children: int
    parents: int
    owner: Tensor
    scope: Scope
    observe: Observer | None = None

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
    # A pose as one row of 16 meets its transform four times along the diagonal: three quarters of the products are
    # with zero, but votes come out in one piece and can be put in order cheaply.
    diagonal = torch.eye(4, dtype=transforms.dtype, device=transforms.device)
    blocks = torch.einsum("ab,ijkc->iakjbc", diagonal, transforms).reshape(i, 16, j * 16)
    votes = torch.bmm(poses.transpose(0, 1), blocks)
    return votes.view(i, n, j, 16).permute(1, 2, 0, 3).contiguous()


def route_tiled(votes: Tensor, activations: Tensor, routing: Routing) -> Parents:
    """Route votes [n, i, j, h] of children [n, i] operator by operator, as the seed does."""
    variant = routing.variant
    assignments, previous = _first_assignments(votes[..., 0], routing, parents=2), None
    for iteration in range(variant.iterations):
        with routing.scope(f"iteration::{iteration}"):
            rho = _rho(assignments, activations[..., None], variant, 2)
            mass = rho.sum(1, keepdim=True)
            weights = (rho / (mass + variant.epsilon))[..., None]
            mean = previous = _damped((votes * weights).sum(1, keepdim=True), previous, variant.damping)
            variance = ((votes - mean).square() * weights).sum(1, keepdim=True)
            if routing.observe is not None:
                routing.observe(assignments, mass[:, 0], variance[:, 0])
            variance = variance + variant.variance_floor
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
    assignments, previous = _first_assignments(votes[..., 0], routing, parents=1), None
    for iteration in range(variant.iterations):
        with routing.scope(f"iteration::{iteration}"):
            rho = _rho(assignments, activations[:, None], variant, 1)
            mass = rho.sum(2)
            weights = (rho / (mass[..., None] + variant.epsilon)).reshape(n * j, 1, i)
            mean, variance, squares = Moments.apply(matrices, weights, previous, variant.damping)
            previous = mean if variant.damping else None
            if routing.observe is not None:
                routing.observe(assignments.transpose(1, 2), mass, variance.view(n, j, h))
            variance = variance + variant.variance_floor
            logits = routing.logits(iteration, mass, variance.view(n, j, h))
            if iteration < variant.iterations - 1:
                precision = 0.5 / variance
                log_scale = -0.5 * variance.log()
                shifted = variant.densities == "shifted"
                winners = _winners(squares, precision, log_scale, j) if shifted else None
                exponent, picked = Distance.apply(squares, precision, winners)
                log_densities = log_scale.sum(2).view(n, j, 1) - exponent.view(n, j, i)
                interim = routing.interim(mass, logits)[..., None]
                if winners is not None:
                    largest = _at(log_scale, winners) - picked * _at(precision, winners)
                    log_densities = log_densities - h * (largest[:, None] - math.log(10.0))
                    assignments = _normalise((log_densities + interim).exp(), variant, 1)
                else:
                    assignments = _compete(log_densities + interim, routing, parents=1)
    return routing.parents_of(mean.view(n, j, h), logits)


class Moments(torch.autograd.Function):
    """Weighted mean and variance [m, 1, h] of votes [m, i, h] under weights [m, 1, i], and the squared deviations.

    The mean is damped by the one before it, `previous` [m, 1, h], where there is one.
    """

    @staticmethod
    def forward(
        votes: Tensor, weights: Tensor, previous: Tensor | None, damping: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The mean, the weighted sum of squared deviations from it, and those squares [m, i, h]."""
        mean = _damped(torch.bmm(weights, votes), previous, damping)
        squares = _squares(votes, mean)
        return mean, torch.bmm(weights, squares), squares

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401 - torch's own
        """Keep the arguments, the mean and the squares."""
        ctx.save_for_backward(*inputs[:2], output[0], output[2])
        ctx.damping, ctx.follows = inputs[3], inputs[2] is not None
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(  # noqa: D102 - torch's own
        ctx: Any,  # noqa: ANN401 - torch's own
        to_mean: Tensor | None,
        to_variance: Tensor | None,
        to_squares: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor | None, None]:
        votes, weights, mean, squares = ctx.saved_tensors
        to_mean, to_variance = (torch.zeros_like(mean) if g is None else g for g in (to_mean, to_variance))
        columns = weights.transpose(1, 2)
        # An outer product by broadcasting is three times as fast as a matrix product with one term.
        # The squares have one reader, `Distance`, whose gradient is nobody else's and may be written over.
        outer = columns * to_variance if to_squares is None else to_squares.addcmul_(columns, to_variance)
        to_votes = _squares_backward_(outer, votes, mean)
        to_mean = to_mean - to_votes.sum(1, keepdim=True)
        to_previous = ctx.damping * to_mean if ctx.follows else None
        if ctx.damping:
            to_mean = (1.0 - ctx.damping) * to_mean
        to_weights = torch.bmm(to_variance, squares.transpose(1, 2))
        to_weights.baddbmm_(to_mean, votes.transpose(1, 2))
        return to_votes.addcmul_(columns, to_mean), to_weights, to_previous, None


@dataclass(frozen=True, slots=True)
class Winners:
    """Which parent and element gives a child its largest log-density: rows of m, children, elements, each [n, i]."""

    row: Tensor
    child: Tensor
    element: Tensor

    @property
    def index(self) -> tuple[Tensor, Tensor, Tensor]:
        """Their places in a tensor [m, i, h]."""
        return self.row, self.child, self.element


class Distance(torch.autograd.Function):
    """Squares [m, i, h] summed with weights [m, 1, h], and the squares [n, i] that `winners` names (none without)."""

    @staticmethod
    def forward(squares: Tensor, precision: Tensor, winners: Winners | None) -> tuple[Tensor, Tensor]:
        """sum_h precision squares, [m, i, 1], and the winners' squares."""
        picked = squares[winners.index] if winners is not None else squares.new_zeros(0)
        return torch.bmm(squares, precision.transpose(1, 2)), picked

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:  # noqa: ANN401, ARG004 - torch's own
        """Keep the arguments."""
        ctx.winners = inputs[2]
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, to_picked: Tensor) -> tuple[Tensor, Tensor, None]:  # noqa: ANN401, D102 - torch's own
        squares, precision = ctx.saved_tensors
        to_squares = upstream * precision
        if ctx.winners is not None:
            to_squares.index_put_(ctx.winners.index, to_picked, accumulate=True)
        return to_squares, torch.bmm(upstream.transpose(1, 2), squares), None


def _at(statistics: Tensor, winners: Winners) -> Tensor:
    """The winners' own values of a parent's statistics [m, 1, h]."""
    return statistics[winners.row, 0, winners.element]


@torch.no_grad()
def _winners(squares: Tensor, precision: Tensor, log_scale: Tensor, parents: int) -> Winners:
    """Find the largest log-density of a single pose element for every child; ties go to the first."""
    i, h = squares.shape[1:]
    elements = torch.addcmul(log_scale, squares, precision, value=-1.0).view(-1, parents, i, h)
    parent = elements.amax(3).argmax(1)
    row = torch.arange(len(elements), device=squares.device)[:, None] * parents + parent
    child = torch.arange(i, device=squares.device).expand_as(row)
    return Winners(row, child, elements.view(-1, i, h)[row, child].argmax(2))


def _squares(votes: Tensor, mean: Tensor) -> Tensor:
    """(votes - mean)^2 in one pass; PyTorch's name for that is the squared error without a reduction."""
    return functional.mse_loss(votes, mean.expand_as(votes), reduction="none")


def _squares_backward_(gradient: Tensor, votes: Tensor, mean: Tensor) -> Tensor:
    """2 (votes - mean) * gradient in one pass, in the gradient's place."""
    return torch.ops.aten.mse_loss_backward.grad_input(gradient, votes, mean.expand_as(votes), 0, grad_input=gradient)


def _damped(mean: Tensor, previous: Tensor | None, damping: float) -> Tensor:
    """The mean, with its share of the one before; that is 0 before the first."""
    if not damping:
        return mean
    mean = (1.0 - damping) * mean
    return mean if previous is None else mean + damping * previous


def _first_assignments(like: Tensor, routing: Routing, parents: int) -> Tensor:
    """Equal shares among the competitors, in the layout of `like`; `parents` is the axis that they lie on."""
    if not routing.variant.starts_everywhere():
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
