"""EM routing by the kernels of `capsbench_fused`: no votes are stored, and the gradient is derived by hand.

TensorFlow has no way to call a kernel of ours but through Python, so the op is a `numpy_function`, and its gradient
another. Such a graph runs in the process that made it only, on the CPU, and XLA cannot compile it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from capsbench.network.routing import EMRouting
from capsbench.network.shapes import BoundNetwork
from capsbench_fused.engine import Engine, kernel
from capsbench_fused.memory import allocate
from capsbench_fused.task import Arrays, Parents, Task, task_of
from capsbench_tensorflow.moments import backward_scope


@dataclass(frozen=True, slots=True)
class Fused:
    """How a network is routed by kernels: the tasks of its routed layers by name, the engine, and its threads."""

    tasks: Mapping[str, Task]
    engine: Engine
    threads: int


def fused(bound: BoundNetwork, engine: Engine, threads: int) -> Fused:
    """Routing of a network that `uncovered` has nothing to say against."""
    tasks = {layer.layer.name: task_of(bound, layer) for layer in bound.layers if layer.routing is not None}
    return Fused(tasks, engine, threads)


def route(
    how: Fused,
    layer: str,
    variant: EMRouting,
    poses: tf.Tensor,
    activations: tf.Tensor,
    own: Mapping[str, tf.Tensor],
    *,
    keep: bool,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Route the children of a layer to their parents.

    Args:
        how: by which kernel.
        layer: its name.
        variant: of routing.
        poses: [b, h, w, n, 16], of the layer below.
        activations: [b, h, w, n].
        own: the layer's parameters.
        keep: whether there will be a backward pass.

    Returns:
        The parents' poses [b, positions, j, elements] and logits [b, positions, j].
    """
    task = how.tasks[layer]
    if variant.renormalise_input:
        # A child's couplings sum to one, so what is left of their product with its activation is this.
        activations = activations / (activations + variant.epsilon)
    own = variant.scaled(own)
    beta_u = tf.convert_to_tensor(own["beta_u"])
    beta_u = tf.reduce_sum(beta_u, 1) if beta_u.shape.rank == 2 else beta_u * task.elements
    batch = poses.shape[0]
    inputs = (
        tf.reshape(poses, (batch, task.below, task.types, 16)),
        tf.reshape(activations, (batch, task.below, task.types)),
        tf.convert_to_tensor(own["transforms"]),
        beta_u,
        tf.convert_to_tensor(own["beta_a"]),
    )
    scope = backward_scope()

    @tf.custom_gradient
    def routed(*inputs: tf.Tensor) -> Any:  # noqa: ANN401 - tensors and their gradient
        parents, logits, saved = tf.numpy_function(
            partial(_forward, how, task, keep), inputs, [poses.dtype] * 3, stateful=False
        )
        parents.set_shape((batch, task.positions, task.parents, task.elements))
        logits.set_shape((batch, task.positions, task.parents))

        def gradient(to_parents: tf.Tensor, to_logits: tf.Tensor) -> list[tf.Tensor]:
            with tf.name_scope(scope):
                gradients: list[tf.Tensor] = tf.numpy_function(
                    partial(_backward, how, task),
                    (*inputs, saved, to_parents, to_logits),
                    [poses.dtype] * len(inputs),
                    stateful=False,
                )
            for made, given in zip(gradients, inputs, strict=True):
                made.set_shape(given.shape)
            return gradients

        return (parents, logits), gradient

    parents, logits = routed(*inputs)
    return parents, logits


def _forward(how: Fused, task: Task, keep: bool, *inputs: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    engine, dtype, batch = kernel(how.engine), inputs[0].dtype, len(inputs[0])
    shape = (batch, task.positions, task.parents)
    parents = Parents(_empty((*shape, task.elements), dtype), _empty(shape, dtype))
    saved = allocate(engine.saved_numbers(task, batch) if keep else 0, dtype)
    engine.forward(task, Arrays(*inputs), parents, saved if keep else None, count=how.threads, allocate=allocate)
    return parents.poses, parents.logits, saved


def _backward(how: Fused, task: Task, *inputs: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    *arrays, saved, to_poses, to_logits = inputs
    gradients = tuple(_empty(array.shape, array.dtype) for array in arrays)
    upstream = Parents(to_poses, to_logits)
    kernel(how.engine).backward(
        task, Arrays(*arrays), saved, upstream, Arrays(*gradients), count=how.threads, allocate=allocate
    )
    return gradients


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    return allocate(int(np.prod(shape)), dtype).reshape(shape)
