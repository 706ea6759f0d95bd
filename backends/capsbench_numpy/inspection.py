"""What the layers give out and how routing went, as `capsbench.backend` defines it: read off while a network runs."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from capsbench.backend import LayerState, RoutingState
from capsbench.network.layers import AveragePool, BatchNorm, Dropout, Layer, MaxPool
from capsbench_numpy.routing import Array

_NOT_SHOWN = (BatchNorm, Dropout, MaxPool, AveragePool)
_STARVED_BELOW = 0.01


@dataclass(slots=True)
class Inspector:
    """Follows one evaluation through the layers.

    Attributes:
        keeps_votes: whether the states hold the votes.
        states: of the layers so far, by name.
    """

    keeps_votes: bool
    states: dict[str, LayerState] = field(default_factory=dict)
    _votes: Array | None = None
    _iterations: list[NDArray[np.float64]] = field(default_factory=list)

    def see_votes(self, votes: Array) -> None:
        """A layer begins to route; votes [b, p, i, j, elements]."""
        if self.keeps_votes:
            self._votes = votes

    def see_iteration(self, couplings: Array, mass: Array, variances: Array) -> None:
        """An M-step has been made: see `routing_numbers`."""
        self._iterations.append(routing_numbers(couplings, mass, variances))

    def see_layer(self, layer: Layer, values: Array, activations: Array | None) -> None:
        """A layer has ended: with maps, or with poses [b, .., elements] and activations [b, ..].

        Classes that have no poses have their activations [b, classes] in the poses' place.
        """
        if isinstance(layer, _NOT_SHOWN):
            return
        batch = len(values)
        if activations is None:
            self.states[layer.name] = LayerState(values.reshape(batch, -1))
            return
        poses = None if values.ndim == activations.ndim else values.reshape(batch, -1, values.shape[-1])
        routing = RoutingState(*np.stack(self._iterations, -1)) if self._iterations else None
        self.states[layer.name] = LayerState(activations.reshape(batch, -1), poses, self._votes, routing)
        self._votes, self._iterations = None, []


def routing_numbers(couplings: Array, mass: Array, variances: Array) -> NDArray[np.float64]:
    """Coupling entropy, vote distance and starved share of each image [3, b] in one iteration.

    A child whose couplings have all vanished at a position counts as decided there. Where no parent has any mass,
    votes are at no distance.

    Args:
        couplings: [b, p, i, j], of child i at position p to parent j there.
        mass: [b, p, j], what is assigned to the parents.
        variances: [b, p, j, elements], without the floor.
    """
    total = mass.sum((1, 2))
    spread = (mass * variances.sum(-1)).sum((1, 2))
    distance = spread / np.where(total > 0.0, total, 1.0)
    starved = mass < _STARVED_BELOW * mass.mean(2, keepdims=True)
    return np.stack([_entropy(couplings).mean((1, 2)), distance, starved.mean((1, 2))])


def _entropy(couplings: Array) -> Array:
    """Entropy over the last axis, scaled to sum one there, of the most that it can be; 0 with a single parent."""
    parents = couplings.shape[-1]
    total = couplings.sum(-1, keepdims=True)
    shares = couplings / np.where(total > 0.0, total, 1.0)
    entropy: Array = -(shares * np.log(np.where(shares > 0.0, shares, 1.0))).sum(-1)
    return entropy / np.log(parents) if parents > 1 else np.zeros_like(entropy)
