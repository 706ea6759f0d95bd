"""Statistics of a batch that lies in shards at several ranks: of all its images, as on one device."""

from typing import Any

import torch
from torch import Tensor


class Gathered(dict[str, Tensor]):
    """Statistics of a batch by name, made of those of every rank's shard; differentiable across ranks.

    Args:
        weight: the share of the batch that lies at this rank.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self._weight = weight

    def var_mean(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Biased variance and mean [c] of maps [b, c, h, w] at all ranks; every rank must ask at the same time."""
        mean = self._sum(maps.mean((0, 2, 3)))
        return self._sum((maps - mean[:, None, None]).square().mean((0, 2, 3))), mean

    def _sum(self, own: Tensor) -> Tensor:
        total: Tensor = _SumOverRanks.apply(self._weight * own)
        return total


class _SumOverRanks(torch.autograd.Function):
    """What one rank adds, all ranks use: so the gradient with respect to it is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:  # noqa: ANN401, ARG004 - PyTorch's own type; nothing to keep
        return _summed(own)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401, ARG004 - see above
        return _summed(gradients[0])


def _summed(own: Tensor) -> Tensor:
    total = own.clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total)
    return total
