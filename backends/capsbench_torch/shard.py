"""One rank's part of data-parallel training: its own replica, its own images, gradients averaged by PyTorch's DDP.

DistributedDataParallel takes the mean of the ranks' gradients. Each rank therefore scales its loss by N n_r / n, which
is 1 where all shards are of one size, so that the mean is the gradient of the whole batch's loss.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from capsbench.backend import Floats, Setting, Step
from capsbench.network.shapes import BoundNetwork
from capsbench_torch.gathered import Gathered
from capsbench_torch.layers import null_scope
from capsbench_torch.maps import Statistics
from capsbench_torch.training import Placed, TorchRealization


class Shard(TorchRealization):
    """A replica at this rank of the process group; every rank must make the same calls in the same order.

    Attributes:
        weight: the share of the batch that the next call has at this rank.
    """

    def __init__(self, bound: BoundNetwork, parameters: Mapping[str, NDArray[np.float32]], setting: Setting) -> None:
        super().__init__(bound, parameters, setting)
        self.weight = 1.0 / setting.devices
        self._replicas = setting.devices
        self._averaged = DistributedDataParallel(_Loss(self._trained.values(), self._loss_of))
        self._loss_of = self._loss_of_share

    @property
    def on_gpu(self) -> bool:
        """Whether what it is told may still be running when it returns."""
        return self._device.type == "cuda"

    def step(self, placed: Placed, step: Step) -> Tensor:
        """One optimizer step of all ranks; the loss of the whole batch, still on the device."""
        return self._of_all(self._step(placed, step, null_scope))

    def gradients(self, placed: Placed, step: Step) -> tuple[float, dict[str, Floats]]:
        """Loss of the whole batch and its gradients; see the contract."""
        self._drop_gradients()
        total, _ = self._loss_of(placed.images, placed.labels, placed.masks, self._scalar(step.margin), null_scope)
        total.backward()
        found = {name: np.zeros(tuple(each.shape)) if each.grad is None else each.grad.cpu().numpy().copy()
                 for name, each in self._trained.items()}  # fmt: skip
        self._drop_gradients()
        return float(self._of_all(total.detach())), found

    def _of_all(self, scaled: Tensor) -> Tensor:
        distributed.all_reduce(scaled)
        return scaled / self._replicas

    def _loss_of_share(self, *arguments: Any) -> tuple[Tensor, Statistics]:  # noqa: ANN401 - those of `_loss`
        total, statistics = self._averaged(*arguments)
        scale = self.weight * self._replicas
        return total if abs(scale - 1.0) < 1e-12 else scale * total, statistics

    def _leaf(self, value: Tensor, *, trainable: bool) -> Tensor:
        return nn.Parameter(value) if trainable else value

    def _statistics(self) -> Statistics:
        return Gathered(self.weight)


class _Loss(nn.Module):
    """The loss as a function of a module's parameters, whose gradients DDP averages."""

    def __init__(self, parameters: Iterable[Tensor], loss: Callable[..., tuple[Tensor, Statistics]]) -> None:
        super().__init__()
        self._own = nn.ParameterList(parameters)
        self._loss = loss

    def forward(self, *arguments: Any) -> tuple[Tensor, Statistics]:  # noqa: ANN401 - those of the loss
        return self._loss(*arguments)
