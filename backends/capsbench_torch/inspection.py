"""What the layers give out at evaluation, and how routing goes there: see `capsbench.backend.LayerState`."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from capsbench.backend import Floats, LayerState, RoutingState
from capsbench.network.layers import AveragePool, BatchNorm, Dropout, MaxPool
from capsbench.network.shapes import BoundLayer, BoundNetwork
from capsbench_torch.fused import Fused
from capsbench_torch.layers import Context, Signal, null_scope, run
from capsbench_torch.maps import Parameters
from capsbench_torch.mixed import wide

_STARVED_BELOW = 0.01


def inspect(
    bound: BoundNetwork,
    parameters: Parameters,
    indices: Mapping[str, Tensor],
    images: Tensor,
    *,
    tiled: bool,
    kernels: Mapping[str, Fused],
    votes: bool,
    mixed: bool = False,
) -> dict[str, LayerState]:
    """The states of an evaluation of images [b, c, h, w], in one formulation; for `indices` see `layers.constants`."""
    watcher = _Watcher(len(images), votes)
    run(Context(bound, tiled, indices, null_scope, kernels, watcher, mixed), parameters, images, None)
    return watcher.states


@dataclass(slots=True)
class _Watcher:
    """Gathers the states of the layers as they go by; what is measured is moved off the device at once."""

    batch: int
    keep_votes: bool
    states: dict[str, LayerState] = field(default_factory=dict)
    _votes: dict[str, Floats] = field(default_factory=dict)
    _routing: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))

    def votes(self, layer: str, votes: Tensor) -> None:
        """Keep the votes, where they were asked for."""
        if self.keep_votes:
            self._votes[layer] = _array(votes)

    def m_step(self, layer: str, couplings: Tensor, mass: Tensor, variance: Tensor) -> None:
        """Keep the three numbers of every image."""
        self._routing[layer].append(_routing_numbers(couplings, mass, variance, self.batch))

    def output(self, layer: BoundLayer, signal: Signal) -> None:
        """Keep a layer's output, in the canonical order [h, w, c]."""
        if isinstance(layer.layer, BatchNorm | Dropout | MaxPool | AveragePool):
            return
        name, values = layer.layer.name, signal.values
        if signal.activations is None or (values.ndim == 2 and name not in self._routing):
            maps = values.permute(0, 2, 3, 1) if values.ndim == 4 else values
            self.states[name] = LayerState(_array(maps.reshape(self.batch, -1)))
            return
        routing = None
        if name in self._routing:
            routing = RoutingState(*(_array(numbers) for numbers in torch.stack(self._routing[name], -1)))
        self.states[name] = LayerState(
            _array(signal.activations.reshape(self.batch, -1)),
            None if values.ndim == 2 else _array(values.reshape(self.batch, -1, values.shape[-1])),
            self._votes.get(name),
            routing,
        )


def _routing_numbers(couplings: Tensor, mass: Tensor, variance: Tensor, batch: int) -> Tensor:
    """Coupling entropy, vote distance and starved share of every image [3, b].

    Couplings that have all vanished have no entropy, and votes that nobody weighs no distance.

    Args:
        couplings: [n, i, j], of n positions of all images.
        mass: [n, j].
        variance: [n, j, h], without the floor.
        batch: b.
    """
    parents = couplings.shape[2]
    total = couplings.sum(2, keepdim=True)
    shares = couplings / torch.where(total > 0.0, total, 1.0)
    entropy = torch.special.entr(shares).sum(2) / (math.log(parents) if parents > 1 else 1.0)
    weight = mass.reshape(batch, -1).sum(1)
    weighted = (mass * variance.sum(2)).view(batch, -1).sum(1)
    starved = mass < _STARVED_BELOW * mass.mean(1, keepdim=True)
    return torch.stack(
        (
            entropy.view(batch, -1).mean(1),
            weighted / torch.where(weight > 0.0, weight, 1.0),
            starved.reshape(batch, -1).to(mass.dtype).mean(1),
        )
    )


def _array(value: Tensor) -> Floats:
    array: Floats = wide(value).cpu().numpy()
    return array
