"""EM routing as one operator, `capsbench::em_route`, with a backward pass of its own: votes are never stored.

On processors the kernel is that of `capsbench_fused`, on CUDA that of `fused_cuda`. It is a custom operator, so that
autograd, the profiler and torch.compile take it for one of PyTorch's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from capsbench.network.routing import EMRouting
from capsbench.network.shapes import BoundNetwork
from capsbench_fused.engine import Engine, kernel
from capsbench_fused.task import Arrays, Parents, Task, parse, task_of

_DTYPES = {"float32": torch.float32, "float64": torch.float64}
Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Fused:
    """How a routed layer is routed by a kernel; all of it is known before the first image.

    Attributes:
        task: the layer, as `Task.text` writes it.
        elements: of its parents' poses.
        engine: of processors.
        threads: likewise.
        kept: numbers per image that the forward pass keeps for the backward one.
    """

    task: str
    elements: int
    engine: Engine
    threads: int
    kept: int


def fused(bound: BoundNetwork, engine: Engine, threads: int, device: torch.device) -> dict[str, Fused]:
    """Routing of a network that `uncovered` has nothing to say against, by layer."""
    tasks = {layer.layer.name: task_of(bound, layer) for layer in bound.layers if layer.routing is not None}
    count = kernel(engine).saved_numbers
    if device.type == "cuda":
        from capsbench_torch import fused_cuda  # noqa: PLC0415 - Triton comes with PyTorch's CUDA builds only

        count = fused_cuda.saved_numbers
    return {name: Fused(task.text(), task.elements, engine, threads, count(task, 1)) for name, task in tasks.items()}


def route(
    how: Fused, variant: EMRouting, poses: Tensor, activations: Tensor, own: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Route the children of a layer to their parents; torch.compile takes it whole.

    Args:
        how: by which kernel.
        variant: of routing.
        poses: [b, h, w, n, 16], of the layer below.
        activations: [b, h, w, n].
        own: the layer's parameters.

    Returns:
        The parents' poses [b, positions, j, elements] and logits [b, positions, j].
    """
    if variant.renormalise_input:
        # A child's couplings sum to one, so what is left of their product with its activation is this.
        activations = activations / (activations + variant.epsilon)
    own = variant.scaled(own)
    beta_u = own["beta_u"]
    beta_u = beta_u.sum(1) if beta_u.ndim == 2 else beta_u * how.elements
    inputs = (
        poses.reshape(len(poses), -1, *poses.shape[3:]).contiguous(),
        activations.reshape(len(activations), -1, activations.shape[3]).contiguous(),
        own["transforms"].contiguous(),
        beta_u,
        own["beta_a"],
    )
    keep = torch.is_grad_enabled() and any(each.requires_grad for each in inputs)
    parents, logits, _ = em_route(*inputs, how.task, how.engine, how.threads, how.kept if keep else 0)
    return parents, logits


@torch.library.custom_op("capsbench::em_route", mutates_args=(), device_types="cpu")
def em_route(
    poses: Tensor,
    activations: Tensor,
    transforms: Tensor,
    beta_u: Tensor,
    beta_a: Tensor,
    task: str,
    engine: str,
    threads: int,
    kept: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Parents' poses [b, p, j, h], their logits [b, p, j], and what the backward pass needs [b * kept].

    The inputs are those of `capsbench_fused.task.Arrays`, contiguous; `kept` is that of `Fused`, or 0 where there will
    be no backward pass. It is an argument because the compiler keeps on disk what it made of a function, and finds it
    by the function's arguments: what was made for another version of the kernels must not be found.
    """
    layer = parse(task)
    outputs = _empty_outputs(poses, layer, kept)
    kernel(cast("Engine", engine)).forward(
        layer,
        _arrays(poses, activations, transforms, beta_u, beta_a),
        Parents(outputs[0].numpy(), outputs[1].numpy()),
        outputs[2].numpy() if kept else None,
        count=threads,
        allocate=_allocate,
    )
    return outputs


@torch.library.custom_op("capsbench::em_route_backward", mutates_args=(), device_types="cpu")
def em_route_backward(
    poses: Tensor,
    activations: Tensor,
    transforms: Tensor,
    beta_u: Tensor,
    beta_a: Tensor,
    saved: Tensor,
    to_parents: Tensor,
    to_logits: Tensor,
    task: str,
    engine: str,
    threads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the first five inputs from those of poses and logits, both contiguous."""
    inputs = (poses, activations, transforms, beta_u, beta_a)
    gradients: Gradients = tuple(torch.empty_like(each) for each in inputs)
    kernel(cast("Engine", engine)).backward(
        parse(task),
        _arrays(*inputs),
        saved.numpy(),
        Parents(to_parents.numpy(), to_logits.numpy()),
        _arrays(*gradients),
        count=threads,
        allocate=_allocate,
    )
    return gradients


@em_route.register_kernel("cuda")
def _route_on_cuda(
    poses: Tensor,
    activations: Tensor,
    transforms: Tensor,
    beta_u: Tensor,
    beta_a: Tensor,
    task: str,
    engine: str,  # noqa: ARG001 - of processors
    threads: int,  # noqa: ARG001 - likewise
    kept: int,
) -> tuple[Tensor, Tensor, Tensor]:
    from capsbench_torch import fused_cuda  # noqa: PLC0415 - as above

    return fused_cuda.forward(parse(task), poses, activations, transforms, beta_u, beta_a, kept > 0)


@em_route_backward.register_kernel("cuda")
def _backward_on_cuda(
    poses: Tensor,
    activations: Tensor,
    transforms: Tensor,
    beta_u: Tensor,
    beta_a: Tensor,
    saved: Tensor,
    to_parents: Tensor,
    to_logits: Tensor,
    task: str,
    engine: str,  # noqa: ARG001 - of processors
    threads: int,  # noqa: ARG001 - likewise
) -> Gradients:
    from capsbench_torch import fused_cuda  # noqa: PLC0415 - as above

    inputs = (poses, activations, transforms, beta_u, beta_a)
    return fused_cuda.backward(parse(task), *inputs, saved, to_parents, to_logits)


@em_route.register_fake
def _shapes(
    poses: Tensor,
    activations: Tensor,  # noqa: ARG001 - the operator's signature
    transforms: Tensor,  # noqa: ARG001 - as above
    beta_u: Tensor,  # noqa: ARG001 - as above
    beta_a: Tensor,  # noqa: ARG001 - as above
    task: str,
    engine: str,  # noqa: ARG001 - as above
    threads: int,  # noqa: ARG001 - as above
    kept: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_outputs(poses, parse(task), kept)


@em_route_backward.register_fake
def _gradient_shapes(*inputs: Any) -> Gradients:  # noqa: ANN401 - the operator's signature
    gradients: Gradients = tuple(torch.empty_like(each) for each in inputs[:5])
    return gradients


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401 - torch's own
    ctx.save_for_backward(*inputs[:5], output[2])
    ctx.task, ctx.engine, ctx.threads, _ = inputs[5:]
    ctx.set_materialize_grads(False)  # zeros for what is saved would be as large as that


def _differentiate(
    ctx: Any,  # noqa: ANN401 - torch's own
    to_parents: Tensor | None,
    to_logits: Tensor | None,
    _: Tensor | None,
) -> tuple[Tensor | None, ...]:
    poses, task = ctx.saved_tensors[0], parse(ctx.task)
    shape = (len(poses), task.positions, task.parents)
    upstream = _or_zeros(to_parents, poses, (*shape, task.elements)), _or_zeros(to_logits, poses, shape)
    gradients = em_route_backward(*ctx.saved_tensors, *upstream, ctx.task, ctx.engine, ctx.threads)
    return (*gradients, None, None, None, None)


def _or_zeros(gradient: Tensor | None, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    return like.new_zeros(shape) if gradient is None else gradient.contiguous()


torch.library.register_autograd("capsbench::em_route", _differentiate, setup_context=_keep_inputs)


def _empty_outputs(like: Tensor, task: Task, kept: int) -> tuple[Tensor, Tensor, Tensor]:
    shape = (len(like), task.positions, task.parents)
    return like.new_empty(*shape, task.elements), like.new_empty(shape), like.new_empty(len(like) * kept)


def _arrays(*tensors: Tensor) -> Arrays:
    return Arrays(*(tensor.detach().numpy() for tensor in tensors))


def _allocate(numbers: int, dtype: DTypeLike) -> NDArray[Any]:
    """Memory from PyTorch's allocator, so that its profiler counts what kernels take; it is aligned to 64 bytes."""
    array: NDArray[Any] = torch.empty(numbers, dtype=_DTYPES[str(dtype)]).numpy()
    return array
