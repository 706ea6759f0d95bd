"""A network realized in TensorFlow: variables, traced functions, train steps."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, SupportsFloat, cast

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from capsbench.backend import Floats, LayerState, MemoryUse, Output, RoutingState, Setting, Step
from capsbench.measure.steptrace import StepTrace, peak_growth_bytes
from capsbench.network.parameters import momenta, parameter_specs
from capsbench.network.shapes import BoundNetwork
from capsbench_fused.engine import KERNEL_MODES, Engine
from capsbench_tensorflow.device import configure, device_name
from capsbench_tensorflow.fused import fused
from capsbench_tensorflow.inspection import Watch
from capsbench_tensorflow.layers import Result, forward
from capsbench_tensorflow.mixed import products
from capsbench_tensorflow.objective import DECODER, LOSS, loss
from capsbench_tensorflow.optimizer import STEP_COUNT, assign, clip, create_optimizer
from capsbench_tensorflow.origins import Origins
from capsbench_tensorflow.profiling import trace_step
from capsbench_tensorflow.sharing import weighted


@dataclass(frozen=True, slots=True)
class Placed:
    """A batch on the device: images [b, h, w, c], labels int64 [b], dropout masks [b, units] by layer."""

    images: tf.Tensor
    labels: tf.Tensor
    masks: dict[str, tf.Tensor]


class TensorFlowRealization:
    """A network as TensorFlow variables and functions; `capsbench.backend.Realization` says what the methods do."""

    def __init__(self, bound: BoundNetwork, parameters: Mapping[str, NDArray[np.float32]], setting: Setting) -> None:
        configure(setting)
        self._bound, self._setting = bound, setting
        self._device = device_name(setting.device)
        self._dtype = tf.as_dtype(setting.kept)
        self._tiled = setting.mode == "tiled"
        by_kernels = setting.mode in KERNEL_MODES
        self._kernels = fused(bound, cast("Engine", setting.mode), setting.threads) if by_kernels else None
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
        self._inspect = self._traced(self._inspect_graph, False)

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

    def optimizer_state(self) -> dict[str, Floats]:
        """What the optimizer remembers; see the contract."""
        state = {name: np.array(variable.numpy()) for name, variable in self._optimizer_tensors()}
        count = {STEP_COUNT: np.array(float(self._optimizer.steps))} if self._optimizer.counts else {}
        return {**state, **count}

    def restore(self, parameters: Mapping[str, Floats], optimizer_state: Mapping[str, Floats]) -> None:
        """Go on where another realization stood; see the contract."""
        with self._on_device():
            for name, variable in self._variables.items():
                variable.assign(self._own_copy(parameters[name]))
            for name, variable in self._optimizer_tensors():
                variable.assign(self._own_copy(optimizer_state[name]))
        self._optimizer.steps = int(optimizer_state.get(STEP_COUNT, 0))

    def memory(self, placed: Placed, step: Step) -> MemoryUse:
        """What one train step asks of the allocator: bytes asked for, without the allocator's own rounding.

        On a GPU the peak is the allocator's, rounding included. The order in which TensorFlow's executor takes ops
        differs between realizations, though never between steps of one, and with it which buffers are reused: with
        em-seed at batch 50 bytes by 0.1 % and peaks by 12 %, with efficient at batch 16 peaks by 17 %.
        """
        if self._device.startswith("/GPU"):
            device = self._device.lstrip("/")
            tf.config.experimental.reset_memory_stats(device)
            self._finish_step(placed, step)
            peak = int(tf.config.experimental.get_memory_info(device)["peak"])
            trace = self.profile(placed, step)
        else:
            trace = self.profile(placed, step)
            peak = sum(trace.resident.values()) + peak_growth_bytes(trace.heap)
        return MemoryUse(peak, sum(event.size or 0 for event in trace.heap), repeats=False)

    def profile(self, placed: Placed, step: Step | None) -> StepTrace:
        """One train step, or one evaluation, under TensorFlow's profiler; either must have run once."""
        layers = {layer.layer.name for layer in self._bound.layers} | {LOSS, DECODER}
        with self._on_device():
            if step is None:
                graph = self._forward.get_concrete_function(placed.images).graph
            else:
                scalars = [self._scalar(0.0)] * self._optimizer.scalars
                arguments = (placed.images, placed.labels, placed.masks, self._scalar(step.margin), scalars)
                graph = self._train.get_concrete_function(*arguments).graph
        run = partial(self.forward, placed) if step is None else partial(self._finish_step, placed, step)
        return trace_step(run, Origins(graph, layers), self._setting.device, self._resident(placed))

    def inspect(self, placed: Placed, *, votes: bool = False) -> dict[str, LayerState]:
        """What each layer gives out at evaluation, by a function of its own that is traced at the first call.

        It is never compiled by XLA, in no mode: it runs a few times only. Beside a kernel, plain operators route the
        same children once more, to have votes and couplings to show.
        """
        with self._on_device():
            return {name: _layer_state(*parts) for name, parts in self._inspect(placed.images, votes=votes).items()}

    def _finish_step(self, placed: Placed, step: Step) -> None:
        float(self.train_step(placed, step))
        self.synchronize()

    def _optimizer_tensors(self) -> Iterator[tuple[str, tf.Variable]]:
        for tensor, variables in self._optimizer.state.items():
            yield from ((f"{tensor}/{name}", each) for name, each in zip(self._trainable, variables, strict=True))

    def _resident(self, placed: Placed) -> dict[str, int]:
        """Bytes that are alive before a step, by what they are."""
        alive = {
            "parameters": self._variables.values(),
            "optimizer state": [variable for _, variable in self._optimizer_tensors()],
            "batch": (placed.images, placed.labels, *placed.masks.values()),
        }
        return {
            name: sum(tensor.dtype.size * tensor.shape.num_elements() for tensor in tensors)
            for name, tensors in alive.items()
        }

    def _forward_graph(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        with products(mixed=self._setting.mixed):
            result = forward(self._bound, self._variables, images, self._tiled, None, kernels=self._kernels)
        return result.scores, result.activations, result.poses

    def _inspect_graph(self, images: tf.Tensor, *, votes: bool) -> dict[str, tuple[Any, ...]]:
        watch = Watch(images.shape[0], votes=votes)
        with products(mixed=self._setting.mixed):
            forward(self._bound, self._variables, images, self._tiled, None, watch, self._kernels)
        layers = watch.layers.items()
        return {name: (of.activations, of.poses, of.votes, list(map(tf.stack, of.iterations))) for name, of in layers}

    def _loss_graph(
        self, images: tf.Tensor, labels: tf.Tensor, masks: Mapping[str, tf.Tensor], margin: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], Result]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(list(self._trainable.values()))
            with products(mixed=self._setting.mixed):
                result = forward(self._bound, self._variables, images, self._tiled, masks, kernels=self._kernels)
                total = weighted(loss(self._bound, self._variables, result, images, labels, margin))
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
            ordered = [gradients[name] for name in self._trainable]
            norm = self._bound.network.recipe.clip_norm
            self._optimizer.apply(clip(ordered, norm) if norm else ordered, scalars)
            self._move_statistics(result)
        return total

    def _move_statistics(self, result: Result) -> None:
        kept = momenta(self._bound)
        for prefix, values in result.moments.items():
            name = prefix.partition(".")[0]
            momentum = kept[name]
            with tf.name_scope(name):
                for tensor, value in zip(("mean", "variance"), values, strict=True):
                    moving = self._variables[f"{prefix}moving_{tensor}"]
                    assign(moving, momentum * moving + (1.0 - momentum) * value)

    def _traced(self, function: Callable[..., Any], compiled: bool) -> Any:  # noqa: ANN401 - TensorFlow has no public type for it
        return tf.function(function, autograph=False, jit_compile=True if compiled else None)

    def _own_copy(self, values: Floats) -> tf.Tensor:
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


def _layer_state(
    activations: tf.Tensor, poses: tf.Tensor | None, votes: tf.Tensor | None, iterations: list[tf.Tensor]
) -> LayerState:
    """Arrays from what was watched; `iterations` are tensors [3, b]."""
    routing = RoutingState(*np.stack([each.numpy() for each in iterations], 2)) if iterations else None
    poses, votes = (None if tensor is None else tensor.numpy() for tensor in (poses, votes))
    return LayerState(activations.numpy(), poses, votes, routing)
