"""Capsules that are vectors, and routing between them, as they are defined, on real or complex arrays (see `routing`).

Shapes: b images, i children, j parents, k elements of a child, h elements of a parent.
"""

import numpy as np

from capsbench.network.layers import LENGTH_EPSILON, Squash
from capsbench.network.routing import AgreementRouting
from capsbench_numpy.routing import Array, Observer, log_softmax


def length(vectors: Array) -> Array:
    """sqrt(|s|^2 + epsilon) of vectors [.., elements]: [..]."""
    lengths: Array = np.sqrt((vectors**2).sum(-1) + LENGTH_EPSILON)
    return lengths


def squash(vectors: Array, how: Squash) -> Array:
    """Vectors [.., elements] of the same direction, shorter than 1; smooth at zero."""
    square = (vectors**2).sum(-1, keepdims=True)
    root = np.sqrt(square + LENGTH_EPSILON)
    short: Array = vectors * ((-np.expm1(-root) if how == "exponential" else square / (1.0 + square)) / root)
    return short


def vote(children: Array, transforms: Array) -> Array:
    """Votes u_i W_ij [b, i, j, h] of children [b, i, k] by transforms [i, j, k, h]."""
    votes: Array = np.einsum("bik,ijkh->bijh", children, transforms)
    return votes


def agree(votes: Array, routing: AgreementRouting, how: Squash, observe: Observer | None = None) -> Array:
    """Sums [b, j, h] of votes [b, i, j, h] by couplings that favour agreement (Sabour et al. 2017, procedure 1).

    The parents are these sums, squashed. Where the gradient flows through the last iteration only, those before it
    see the real part of the votes, which carries none.
    """
    quiet = votes if routing.gradient == "all" else votes.real
    logits = np.zeros(votes.shape[:3])
    for iteration in range(routing.iterations):
        last = iteration == routing.iterations - 1
        couplings = np.exp(log_softmax(logits))
        sums: Array = (couplings[..., None] * (votes if last else quiet)).sum(1)
        if observe is not None:
            observe(couplings[:, None], *_moments(votes, couplings))
        if not last:
            logits = logits + (quiet * squash(sums, how)[:, None]).sum(-1)
    return sums


def attend(votes: Array, priors: Array) -> Array:
    """Sums [b, j, h] of votes [b, i, j, h] by self-attention and priors [i, j] (Mazzia et al. 2021)."""
    attention = np.einsum("bijh,bkjh->bikj", votes, votes) / np.sqrt(votes.shape[3])
    couplings = np.exp(log_softmax(attention.sum(2))) + priors
    sums: Array = (couplings[..., None] * votes).sum(1)
    return sums


def _moments(votes: Array, couplings: Array) -> tuple[Array, Array]:
    """Mass [b, 1, j] and the variance of the votes so weighted [b, 1, j, h]."""
    mass = couplings.sum(1, keepdims=True)
    weights = (couplings / mass)[..., None]
    mean = (weights * votes).sum(1, keepdims=True)
    return mass, (weights * (votes - mean) ** 2).sum(1, keepdims=True)
