"""Capsules that are vectors, and routing between them, in PyTorch (`capsbench_numpy.vectors` is the definition).

`tiled` is what published code does: transforms tiled over the images and children over the parents, one product a
vote, and every sum an operator on a tensor of the votes' size. `grouped` multiplies once per child and keeps the votes
as [b, j, i, h], so that sums over children and over elements are batched matrix products.

Shapes: b images, i children, j parents, k elements of a child, h elements of a parent.
"""

import math

import torch
from torch import Tensor

from capsbench.network.layers import LENGTH_EPSILON, Squash
from capsbench.network.routing import AgreementRouting
from capsbench_torch.routing import Observer, Scope


def length(vectors: Tensor) -> Tensor:
    """sqrt(|s|^2 + epsilon) of vectors [.., elements]: [..]."""
    return (vectors.square().sum(-1) + LENGTH_EPSILON).sqrt()


def squash(vectors: Tensor, how: Squash) -> Tensor:
    """Vectors [.., elements] of the same direction, shorter than 1; smooth at zero."""
    square = vectors.square().sum(-1, keepdim=True)
    root = (square + LENGTH_EPSILON).sqrt()
    if how == "exponential":
        negative = root * -1.0
        return vectors * (torch.expm1(negative) / negative)
    return vectors * (square / ((1.0 + square) * root))


def vote_tiled(children: Tensor, transforms: Tensor) -> Tensor:
    """Votes [b, i, j, h] of children [b, i, k] by transforms [i, j, k, h], everything tiled to one product a vote."""
    tiled_transforms = transforms.repeat(len(children), 1, 1, 1, 1)
    tiled_children = children[:, :, None, None].repeat(1, 1, transforms.shape[1], 1, 1)
    return torch.matmul(tiled_children, tiled_transforms)[:, :, :, 0]


def vote_grouped(children: Tensor, transforms: Tensor) -> Tensor:
    """Votes [b, j, i, h] of children [b, i, k] by transforms [i, j, k, h]: one matrix product per child."""
    i, j, k, h = transforms.shape
    matrices = transforms.transpose(1, 2).reshape(i, k, j * h)
    votes = torch.bmm(children.transpose(0, 1), matrices)
    return votes.view(i, -1, j, h).permute(1, 2, 0, 3).contiguous()


def agree_tiled(
    votes: Tensor, routing: AgreementRouting, how: Squash, scope: Scope, observe: Observer | None = None
) -> Tensor:
    """Sums [b, j, h] of votes [b, i, j, h] by couplings that favour agreement, operator by operator."""
    quiet = votes if routing.gradient == "all" else votes.detach()
    logits = votes.new_zeros(votes.shape[:3])
    for iteration in range(routing.iterations):
        with scope(f"iteration::{iteration}"):
            last = iteration == routing.iterations - 1
            couplings = logits.softmax(2)
            sums = (couplings[..., None] * (votes if last else quiet)).sum(1)
            if observe is not None:
                _show(observe, votes, couplings)
            if not last:
                logits = logits + (quiet * squash(sums, how)[:, None]).sum(-1)
    return sums


def agree_grouped(
    votes: Tensor, routing: AgreementRouting, how: Squash, scope: Scope, observe: Observer | None = None
) -> Tensor:
    """Sums [b, j, h] of votes [b, j, i, h] by couplings that favour agreement, with matrix products for the sums."""
    b, j, i, h = votes.shape
    matrices = votes.view(b * j, i, h)
    quiet = matrices if routing.gradient == "all" else matrices.detach()
    logits = votes.new_zeros(b, j, i)
    couplings = torch.full_like(logits, 1.0 / j)
    for iteration in range(routing.iterations):
        with scope(f"iteration::{iteration}"):
            last = iteration == routing.iterations - 1
            sums = torch.bmm(couplings.view(b * j, 1, i), matrices if last else quiet)
            if observe is not None:
                _show(observe, votes.transpose(1, 2), couplings.transpose(1, 2))
            if not last:
                logits = logits + torch.bmm(quiet, squash(sums, how).transpose(1, 2)).view(b, j, i)
                couplings = logits.softmax(1)
    return sums.view(b, j, h)


def attend_tiled(votes: Tensor, priors: Tensor) -> Tensor:
    """Sums [b, j, h] of votes [b, i, j, h] by self-attention and priors [i, j], with every attention [b, j, i, i]."""
    by_parent = votes.transpose(1, 2)
    attention = torch.matmul(by_parent, by_parent.transpose(2, 3)) * (1.0 / math.sqrt(votes.shape[3]))
    couplings = attention.sum(3).transpose(1, 2).softmax(2) + priors
    return (couplings[..., None] * votes).sum(1)


def attend_grouped(votes: Tensor, priors: Tensor) -> Tensor:
    """Sums [b, j, h] of votes [b, j, i, h] by self-attention and priors [i, j].

    A row of U U^T sums to the row of U times the sum of all rows, so that no attention is stored.
    """
    total = votes.sum(2, keepdim=True)
    attention = torch.matmul(votes, total.transpose(2, 3))[..., 0] * (1.0 / math.sqrt(votes.shape[3]))
    couplings = attention.softmax(1) + priors.t()
    return torch.matmul(couplings[:, :, None], votes)[:, :, 0]


def _show(observe: Observer, votes: Tensor, couplings: Tensor) -> None:
    """Couplings [b, i, j], the parents' mass and the variance of the votes [b, i, j, h] so weighted."""
    mass = couplings.sum(1)
    weights = (couplings / mass[:, None])[..., None]
    mean = (weights * votes).sum(1, keepdim=True)
    observe(couplings, mass, (weights * (votes - mean).square()).sum(1))
