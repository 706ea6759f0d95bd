"""A network trained on several devices by `tf.distribute.MirroredStrategy`: a replica on each, in one process.

Every replica takes its shard of the batch, and before the optimizer's step all of them add up their gradients, each
weighted by its share of the batch; what each then does to its copy of the parameters is the same. On the CPU the
devices are logical ones, and share the threads of all.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, SupportsFloat

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from capsbench.backend import Floats, LayerState, Output, Setting, Step
from capsbench.network.shapes import BoundNetwork
from capsbench.network.shards import Shard, shards
from capsbench_tensorflow.device import configure, device_name
from capsbench_tensorflow.layers import Result
from capsbench_tensorflow.sharing import sharing, summed
from capsbench_tensorflow.training import Placed, TensorFlowRealization


@dataclass(frozen=True, slots=True)
class PlacedShards:
    """A batch in shards: images, labels, masks and weights on each replica's device; whole, in NumPy.

    Attributes:
        shards: where each replica's images lie in the whole.
        shared: the arguments of a replica.
    """

    shards: tuple[Shard, ...]
    shared: tuple[Any, Any, dict[str, Any], Any]
    images: NDArray[np.float32]


def _sums(setting: Setting) -> tf.distribute.CrossDeviceOps:
    """How gradients are added up; not by collective ops, whose numbering two strategies of a process would share."""
    return tf.distribute.ReductionToOneDevice() if setting.device == "cpu" else tf.distribute.NcclAllReduce()


class ParallelRealization(TensorFlowRealization):
    """Mirrored variables and functions that run on all replicas; `capsbench.backend.Realization` says what they do."""

    def __init__(self, bound: BoundNetwork, parameters: Mapping[str, NDArray[np.float32]], setting: Setting) -> None:
        configure(setting)
        cpus = [f"/CPU:{number}" for number in range(setting.devices)]
        self._devices = cpus if setting.device == "cpu" else list(map(device_name, setting.replicas))
        self._strategy = tf.distribute.MirroredStrategy(self._devices, _sums(setting))
        with self._strategy.scope():
            super().__init__(bound, parameters, setting)

    def place(
        self, images: NDArray[np.float32], labels: NDArray[np.int64], masks: Mapping[str, NDArray[np.float32]]
    ) -> Any:  # noqa: ANN401 - not what one device takes
        """Copy each replica's shard of a batch to its device."""
        cuts = shards(len(labels), len(self._devices))

        def share(copied: Callable[[slice], tf.Tensor]) -> Any:  # noqa: ANN401 - a value for each replica
            return self._spread(lambda number: copied(cuts[number].images))

        def rows_of(values: Floats) -> Any:  # noqa: ANN401 - see above
            return share(lambda rows: self._own_copy(values[rows]))

        return PlacedShards(
            cuts,
            (
                rows_of(images),
                share(lambda rows: tf.raw_ops.DeepCopy(x=tf.constant(labels[rows], tf.int64))),
                {name: rows_of(mask) for name, mask in masks.items()},
                self._spread(lambda number: self._scalar(cuts[number].weight)),
            ),
            images,
        )

    def forward(self, placed: Any) -> Output:  # noqa: ANN401 - see place
        """Evaluate the batch, each replica its images."""
        with self._on_device():
            replicas = self._forward(placed.shared[0])
        counted = [replica for replica, shard in zip(replicas, placed.shards, strict=True) if shard.counted]
        whole = [np.concatenate([part.numpy() for part in parts]) for parts in zip(*counted, strict=True)]
        return Output(whole[0], whole[1], whole[2] if len(whole) > 2 else None)

    def loss_and_gradients(self, placed: Any, step: Step) -> tuple[float, dict[str, Floats]]:  # noqa: ANN401
        """Training loss and gradients of the whole batch; nothing changes."""
        with self._on_device():
            total, gradients = self._gradients(*placed.shared, self._scalar(step.margin))[0]
            return float(total), {name: gradient.numpy() for name, gradient in gradients.items()}

    def train_step(self, placed: Any, step: Step) -> SupportsFloat:  # noqa: ANN401 - see place
        """One optimizer step on every replica; the loss of the whole batch may still be on its way."""
        with self._on_device():
            scalars = [self._scalar(value) for value in self._optimizer.next_scalars(step.learning_rate)]
            total: SupportsFloat = self._train(*placed.shared, self._scalar(step.margin), scalars)[0]
            return total

    def inspect(self, placed: Any, *, votes: bool = False) -> dict[str, LayerState]:  # noqa: ANN401 - see place
        """What each layer gives out at evaluation, by the first replica for the whole batch."""
        with tf.device(self._devices[0]):
            return super().inspect(Placed(self._own_copy(placed.images), None, {}), votes=votes)

    def memory(self, placed: Any, step: Step) -> NoReturn:  # noqa: ANN401 - see place
        """Not counted; the contract does not ask for it."""
        raise NotImplementedError("memory is counted on one device")

    def profile(self, placed: Any, step: Step | None) -> NoReturn:  # noqa: ANN401 - see place
        """Not profiled; the contract does not ask for it."""
        raise NotImplementedError("a step is profiled on one device")

    def _spread(self, value: Callable[[int], tf.Tensor]) -> Any:  # noqa: ANN401 - TensorFlow's own type
        """A value for each replica, on its device."""
        with self._on_device():
            return self._strategy.experimental_distribute_values_from_function(
                lambda context: self._at(context.replica_id_in_sync_group, value)
            )

    def _at(self, number: int, value: Callable[[int], tf.Tensor]) -> tf.Tensor:
        with tf.device(self._devices[number]):
            return value(number)

    def _forward_graph(self, images: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return tuple(each for each in super()._forward_graph(images) if each is not None)

    def _gradients_graph(self, *arguments: Any) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:  # noqa: ANN401 - see _shared
        return self._shared(super()._gradients_graph, *arguments)

    def _train_graph(self, *arguments: Any) -> tf.Tensor:  # noqa: ANN401 - see _shared
        return self._shared(super()._train_graph, *arguments)

    def _shared(self, function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401 - as the function
        """Run on one replica, whose weight comes after the arguments that `PlacedShards.shared` begins with."""
        images, labels, masks, weight, *others = arguments
        with sharing(weight):
            return function(images, labels, masks, *others)

    def _loss_graph(
        self, images: tf.Tensor, labels: tf.Tensor, masks: Mapping[str, tf.Tensor], margin: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], Result]:
        total, gradients, result = super()._loss_graph(images, labels, masks, margin)
        return *summed((total, gradients)), result

    def _traced(self, function: Callable[..., Any], compiled: bool) -> Any:  # noqa: ANN401 - see the base
        if function == self._inspect_graph:
            return super()._traced(function, compiled)
        return super()._traced(partial(self._everywhere, function), compiled)

    def _everywhere(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:  # noqa: ANN401 - of any function
        """What a function gives on each replica."""
        results = self._strategy.run(function, arguments)
        parts = [self._strategy.experimental_local_results(each) for each in tf.nest.flatten(results)]
        return [tf.nest.pack_sequence_as(results, replica) for replica in zip(*parts, strict=True)]

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """Where a device is not named, the strategy places."""
        try:
            yield
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError(str(error).partition("\n")[0]) from error
