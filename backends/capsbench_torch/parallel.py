"""A network trained by several ranks at once: the contract of a realization, kept by rank 0 for all of them."""

import itertools
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NoReturn, SupportsFloat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from capsbench.backend import Floats, LayerState, Output, Setting, Step
from capsbench.network.shapes import BoundNetwork
from capsbench.network.shards import shards
from capsbench_torch.ranks import Ranks, ranks
from capsbench_torch.shard import Shard
from capsbench_torch.training import Placed

_NUMBERS: Final = itertools.count()


@dataclass(slots=True, weakref_slot=True)
class PlacedShards:
    """A batch in shards at all ranks: rank 0's, its weight and how many of its images count; whole, in NumPy.

    `number` is what the other ranks know theirs by, which they drop with this.
    """

    own: Placed
    weight: float
    counted: int
    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    number: int


class ParallelRealization:
    """A replica at each rank, which together do what one would; `capsbench.backend.Realization` says what that is."""

    def __init__(self, bound: BoundNetwork, parameters: Mapping[str, NDArray[np.float32]], setting: Setting) -> None:
        self._ranks: Ranks = ranks(setting)
        self._number = next(_NUMBERS)
        own = [replace(setting, device=device) for device in setting.replicas]
        with self._ranks.guarding():
            given = [("realize", self._number, bound, dict(parameters), each) for each in own[1:]]
            self._ranks.tell_each(given)
            self._own = Shard(bound, parameters, own[0])
        weakref.finalize(self, _drop, self._ranks, "networks", self._number)

    def place(
        self, images: NDArray[np.float32], labels: NDArray[np.int64], masks: Mapping[str, NDArray[np.float32]]
    ) -> PlacedShards:
        """Give each rank its images with their rows of the masks, which are those of the whole batch."""
        own, *others = shards(len(labels), self._ranks.count)
        number = next(_NUMBERS)
        with self._ranks.guarding():
            self._ranks.tell_each([
                ("place", self._number, number, _cut(images, labels, masks, each.images), each.weight, each.counted)
                for each in others
            ])  # fmt: skip
            placed = self._own.place(*_cut(images, labels, masks, own.images))
        found = PlacedShards(placed, own.weight, own.counted, images, labels, number)
        weakref.finalize(found, _drop, self._ranks, "batches", number)
        return found

    def forward(self, placed: PlacedShards) -> Output:
        """Evaluate the batch, each rank its images."""
        with self._ranks.guarding():
            self._ranks.tell("forward", self._number, placed.number)
            own = self._own.forward(placed.own)
            return _joined([own, *(each for each in self._ranks.answers() if each is not None)])

    def loss_and_gradients(self, placed: PlacedShards, step: Step) -> tuple[float, dict[str, Floats]]:
        """Training loss and its gradient, of the whole batch; changes nothing."""
        with self._ranks.guarding():
            self._ranks.tell("gradients", self._number, placed.number, step)
            self._own.weight = placed.weight
            return self._own.gradients(placed.own, step)

    def train_step(self, placed: PlacedShards, step: Step) -> SupportsFloat:
        """One optimizer step of all ranks; the loss before it of the whole batch, still on the device."""
        with self._ranks.guarding():
            self._ranks.tell("step", self._number, placed.number, step)
            self._own.weight = placed.weight
            return _Loss(self, self._own.step(placed.own, step))

    def synchronize(self) -> None:
        """Wait for the device of rank 0, which has then heard of all others; raises where one of them is gone."""
        with self._ranks.guarding():
            self._wait()

    def parameters(self) -> dict[str, Floats]:
        """Every parameter and moving statistic, the same at every rank."""
        self.synchronize()
        return self._own.parameters()

    def optimizer_state(self) -> dict[str, Floats]:
        """What the optimizer remembers, the same at every rank."""
        self.synchronize()
        return self._own.optimizer_state()

    def restore(self, parameters: Mapping[str, Floats], optimizer_state: Mapping[str, Floats]) -> None:
        """Go on where another realization stood, at every rank."""
        with self._ranks.guarding():
            self._ranks.tell("restore", self._number, dict(parameters), dict(optimizer_state))
            self._own.restore(parameters, optimizer_state)

    def inspect(self, placed: PlacedShards, *, votes: bool = False) -> dict[str, LayerState]:
        """What each layer gives out at evaluation, by the replica of rank 0 for the whole batch."""
        self.synchronize()
        return self._own.inspect(self._own.place(placed.images, placed.labels, {}), votes=votes)

    def memory(self, placed: PlacedShards, step: Step) -> NoReturn:
        """Not counted across processes; the contract does not ask for it."""
        raise NotImplementedError("memory is counted on one device")

    def profile(self, placed: PlacedShards, step: Step | None) -> NoReturn:
        """Not profiled across processes; the contract does not ask for it."""
        raise NotImplementedError("a step is profiled on one device")

    def _wait(self) -> None:
        """Wait for a GPU without going deaf: a collective whose other end is gone never ends."""
        if not self._own.on_gpu:
            return
        done = torch.cuda.Event()
        done.record()
        while not done.query():
            self._ranks.check()
            time.sleep(0)  # lets the next batch be made meanwhile; a longer sleep would be timed


class _Loss:
    """A loss that may still be on its way."""

    def __init__(self, realization: ParallelRealization, value: Tensor) -> None:
        self._realization, self._value = realization, value

    def __float__(self) -> float:
        self._realization.synchronize()
        return float(self._value)


def _drop(ranks: Ranks, kind: str, number: int) -> None:
    ranks.forget(kind, number)


def _cut(
    images: NDArray[np.float32], labels: NDArray[np.int64], masks: Mapping[str, NDArray[np.float32]], rows: slice
) -> tuple[NDArray[np.float32], NDArray[np.int64], dict[str, NDArray[np.float32]]]:
    return images[rows], labels[rows], {name: mask[rows] for name, mask in masks.items()}


def _joined(outputs: list[Output]) -> Output:
    poses = [each.poses for each in outputs if each.poses is not None]
    return Output(
        np.concatenate([each.scores for each in outputs]),
        np.concatenate([each.activations for each in outputs]),
        np.concatenate(poses) if poses else None,
    )
