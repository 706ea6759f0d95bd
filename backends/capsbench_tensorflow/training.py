"""A network realized in TensorFlow: variables, traced functions, train steps."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, SupportsFloat

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from capsbench.backend import Floats, Output, Setting, Step
from capsbench.measure.optable import StepProfile
from capsbench.network.layers import BatchNorm
from capsbench.network.parameters import parameter_specs
from capsbench.network.shapes import BoundNetwork
from capsbench_tensorflow.layers import Result, forward
from capsbench_tensorflow.objective import loss
from capsbench_tensorflow.optimizer import create_optimizer
from capsbench_tensorflow.profiling import peak_growth_bytes, profile_step


@dataclass(frozen=True, slots=True)
class Placed:
    """A batch on the device: images [b, h, w, c], labels int64 [b], dropout masks [b, units] by layer."""

    images: tf.Tensor
    labels: tf.Tensor
    masks: dict[str, tf.Tensor]


class TensorFlowRealization:
    """A network as TensorFlow variables and functions; `capsbench.backend.Realization` says what the methods do."""

    def __init__(self, bound: BoundNetwork, parameters: Mapping[str, NDArray[np.float32]], setting: Setting) -> None:
        _set_threads(setting.threads)
        tf.config.experimental.enable_tensor_float_32_execution(False)
        self._bound, self._device = bound, _device_name(setting.device)
        self._dtype = tf.as_dtype(setting.precision)
        self._tiled = setting.mode == "tiled"
        specs = parameter_specs(bound)
        with self._on_device():
            self._variables = {
                spec.name: tf.Variable(self._own_copy(parameters[spec.name]), trainable=spec.trainable)
                for spec in specs
            }
            self._trainable = {spec.name: self._variables[spec.name] for spec in specs if spec.trainable}
            self._optimizer = create_optimizer(bound.network.recipe.optimizer, list(self._trainable.values()))
        compiled = setting.mode == "xla"
        self._forward = self._traced(self._forward_graph, compiled)
        self._gradients = self._traced(self._gradients_graph, compiled)
        self._train = self._traced(self._train_graph, compiled)

    def place(
        self, images: NDArray[np.float32], labels: NDArray[np.int64], masks: Mapping[str, NDArray[np.float32]]
    ) -> Placed:
        """Copy a batch to the device."""
        with self._on_device():
            copies = {name: self._own_copy(mask) for name, mask in masks.items()}
            return Placed(self._own_copy(images), tf.raw_ops.DeepCopy(x=tf.constant(labels, tf.int64)), copies)

    def forward(self, placed: Placed) -> Output:
        """Evaluate the batch."""
        with self._on_device():
            scores, activations, poses = self._forward(placed.images)
            return Output(scores.numpy(), activations.numpy(), None if poses is None else poses.numpy())

    def loss_and_gradients(self, placed: Placed, step: Step) -> tuple[float, dict[str, Floats]]:
        """Training loss and gradients; nothing changes."""
        with self._on_device():
            total, gradients = self._gradients(placed.images, placed.labels, placed.masks, self._scalar(step.margin))
            return float(total), {name: gradient.numpy() for name, gradient in gradients.items()}

    def train_step(self, placed: Placed, step: Step) -> SupportsFloat:
        """One optimizer step; the loss may still be on its way."""
        with self._on_device():
            scalars = [self._scalar(value) for value in self._optimizer.next_scalars(step.learning_rate)]
            total: SupportsFloat = self._train(
                placed.images, placed.labels, placed.masks, self._scalar(step.margin), scalars
            )
            return total

    def synchronize(self) -> None:
        """Wait until the device has finished everything."""
        tf.test.experimental.sync_devices()

    def parameters(self) -> dict[str, Floats]:
        """Copies of all variables of the network."""
        return {name: np.array(variable.numpy()) for name, variable in self._variables.items()}

    def peak_bytes(self, placed: Placed, step: Step) -> int:
        """Peak of one train step, after one that traces and warms up.

        On a GPU the allocator's own peak; on the CPU the bytes that were asked for, from the profiler's trace.
        """
        self.train_step(placed, step)
        self.synchronize()
        if self._device.startswith("/GPU"):
            device = self._device.lstrip("/")
            tf.config.experimental.reset_memory_stats(device)
            self._finish_step(placed, step)
            return int(tf.config.experimental.get_memory_info(device)["peak"])
        resident = [*self._variables.values(), *self._optimizer.state, placed.images, placed.labels]
        alive = sum(tensor.dtype.size * tensor.shape.num_elements() for tensor in (*resident, *placed.masks.values()))
        return alive + peak_growth_bytes(lambda: self._finish_step(placed, step))

    def profile(self, placed: Placed, step: Step) -> StepProfile:
        """One train step under TensorFlow's profiler, after one that traces and warms up."""
        self._finish_step(placed, step)
        return profile_step(lambda: self._finish_step(placed, step), self._layer_names())

    def profile_forward(self, placed: Placed) -> StepProfile:
        """As `profile`, but of an evaluation: nothing is kept for a backward pass, so that buffers are reused."""
        self.forward(placed)
        return profile_step(lambda: self.forward(placed), self._layer_names())

    def _finish_step(self, placed: Placed, step: Step) -> None:
        float(self.train_step(placed, step))
        self.synchronize()

    def _layer_names(self) -> list[str]:
        return [layer.layer.name for layer in self._bound.layers]

    def _forward_graph(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        result = forward(self._bound, self._variables, images, self._tiled, None)
        return result.scores, result.activations, result.poses

    def _loss_graph(
        self, images: tf.Tensor, labels: tf.Tensor, masks: Mapping[str, tf.Tensor], margin: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], Result]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(list(self._trainable.values()))
            result = forward(self._bound, self._variables, images, self._tiled, masks)
            total = loss(self._bound, self._variables, result, images, labels, margin)
        return total, tape.gradient(total, self._trainable, unconnected_gradients="zero"), result

    def _gradients_graph(
        self, images: tf.Tensor, labels: tf.Tensor, masks: Mapping[str, tf.Tensor], margin: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        total, gradients, _ = self._loss_graph(images, labels, masks, margin)
        return total, gradients

    def _train_graph(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        masks: Mapping[str, tf.Tensor],
        margin: tf.Tensor,
        scalars: list[tf.Tensor],
    ) -> tf.Tensor:
        total, gradients, result = self._loss_graph(images, labels, masks, margin)
        with tf.name_scope("optimizer"):
            self._optimizer.apply([gradients[name] for name in self._trainable], scalars)
        self._move_statistics(result)
        return total

    def _move_statistics(self, result: Result) -> None:
        for layer in self._bound.layers:
            if isinstance(layer.layer, BatchNorm):
                name, momentum = layer.layer.name, layer.layer.momentum
                with tf.name_scope(name):
                    for tensor, value in zip(("mean", "variance"), result.moments[name], strict=True):
                        moving = self._variables[f"{name}.moving_{tensor}"]
                        moving.assign(momentum * moving + (1.0 - momentum) * value)

    def _traced(self, function: Callable[..., Any], compiled: bool) -> Callable[..., Any]:
        return tf.function(function, autograph=False, jit_compile=True if compiled else None)

    def _own_copy(self, values: NDArray[np.float32]) -> tf.Tensor:
        """The values on the device; TensorFlow may otherwise share the memory of the NumPy array."""
        return tf.raw_ops.DeepCopy(x=tf.constant(values, self._dtype))

    def _scalar(self, value: float) -> tf.Tensor:
        return tf.constant(value, self._dtype)

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        try:
            with tf.device(self._device):
                yield
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError(str(error).partition("\n")[0]) from error


def _device_name(device: str) -> str:
    if device == "cpu":
        return "/CPU:0"
    _, _, index = device.partition(":")
    return f"/GPU:{index or 0}"


def _set_threads(threads: int) -> None:
    """Threads for one op, and one op at a time, so that op times add up; fixed once TensorFlow has started."""
    config = tf.config.threading
    wanted = ((threads, config.get_intra_op_parallelism_threads), (1, config.get_inter_op_parallelism_threads))
    if any(get() != count for count, get in wanted):
        config.set_intra_op_parallelism_threads(threads)
        config.set_inter_op_parallelism_threads(1)
