"""The fused formulation on NVIDIA GPUs: which Triton kernels run over a layer, and in which order.

Sums over programs are taken in a fixed order, so the same inputs give the same bits. Triton's interpreter runs the same
kernels on processors, for tests.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from capsbench_fused.task import Task, uncovered_on_gpu
from capsbench_torch import triton_backward, triton_forward, triton_scatter
from capsbench_torch.triton_layer import Cut, Layer, ceil_div, layer_of, width_of

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]

_BLOCK = 256  # numbers that a program of `fold` adds up
_FOLDING = Cut(rows=1, vec=1, warps=4, resident=32, full=1.0)


def saved_numbers(task: Task, batch: int) -> int:
    """Numbers that the forward pass keeps for the backward one: the parents' fits, and the children's normalisers."""
    return _kept_numbers(task, batch, task.iterations)


def forward(
    task: Task,
    poses: Tensor,
    activations: Tensor,
    transforms: Tensor,
    beta_u: Tensor,
    beta_a: Tensor,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Route.

    Args:
        task: the layer.
        poses: [b, below, types, 16].
        activations: [b, below, types].
        transforms: [transforms, parents, 4, 4].
        beta_u: [parents], summed over the elements of a pose.
        beta_a: [parents].
        keep: whether the backward pass will follow.

    Returns:
        The parents' poses [b, positions, parents, elements], their logits [b, positions, parents], and what the
        backward pass needs, [saved_numbers]; nothing unless `keep`.

    Raises:
        ValueError: the kernels cannot route this layer.
    """
    reason = uncovered_on_gpu(task)
    if reason is not None:
        raise ValueError(reason)
    with torch.cuda.device_of(poses):
        layer = layer_of(task, poses, activations, transforms, beta_u, beta_a)
        # An iteration looks back at the one before and no further.
        slots = task.iterations if keep else min(task.iterations, 2)
        memory = poses.new_empty(_kept_numbers(task, len(poses), slots))
        fits, normalisers = _parts(layer, memory, slots)
        cut = layer.gathering
        layer.run(triton_forward.sample, cut, (cut.blocks(layer.rows), 1), found=fits[0])
        for t in range(task.iterations):
            known, children = fits[max(t - 1, 0) % slots], poses
            if t and task.everywhere:
                children = normalisers[(t - 1) % (slots - 1)]
                _normalise(layer, known, children)
            _iterate(layer, t, known, fits[t % slots], children)
        outputs = fits[(task.iterations - 1) % slots].view(len(poses), task.positions, -1, layer.width)
        parents = _copy(outputs[:, :, : task.elements, : task.parents].transpose(2, 3))
        return (
            parents,
            _copy(outputs[:, :, 2 * task.elements + 2, : task.parents]),
            memory if keep else poses.new_empty(0),
        )


def backward(
    task: Task,
    poses: Tensor,
    activations: Tensor,
    transforms: Tensor,
    beta_u: Tensor,
    beta_a: Tensor,
    saved: Tensor,
    to_poses: Tensor,
    to_logits: Tensor,
) -> Gradients:
    """Gradients of the five inputs of `forward`, in their order.

    Args:
        task: the layer.
        poses: see `forward`, as are the next four.
        activations: likewise.
        transforms: likewise.
        beta_u: likewise.
        beta_a: likewise.
        saved: what `forward` kept.
        to_poses: gradients of the parents' poses.
        to_logits: gradients of their logits.
    """
    with torch.cuda.device_of(poses):
        layer = layer_of(task, poses, activations, transforms, beta_u, beta_a)
        fits, normalisers = _parts(layer, saved, task.iterations)
        steps, last, rows = task.iterations, task.iterations - 1, layer.rows
        # Of the votes' gradients in each iteration, and the gradients of the parents' offsets.
        coefficients = poses.new_empty(steps, rows, 3 * task.elements + 1, layer.width)
        to_betas = poses.new_empty(steps, rows, 2, layer.width)
        log_sums, own_dots = poses.new_empty(last, rows, task.children), poses.new_empty(steps, rows, task.children)
        dots = torch.empty_like(normalisers)
        cut = layer.retracing
        upstream = {"to_poses": to_poses, "to_logits": to_logits, "fits": fits[last], "t": last}
        out = {"coefficients": coefficients[last], "to_betas": to_betas[last]}
        layer.run(triton_backward.turn_outputs, cut, (cut.blocks(rows), 1), **upstream, **out)
        for t in range(last, 0, -1):
            known = {"known": fits[t - 1], "found": fits[t], "coefficients": coefficients[t], "t": t}
            children = {"log_sums": log_sums[t - 1], "own_dots": own_dots[t], "normalisers": poses, "dots": poses}
            if task.everywhere:
                children.update(normalisers=normalisers[t - 1], dots=dots[t - 1])
            _retrace(layer, {**known, **children, "to": coefficients[t - 1], "to_betas": to_betas[t - 1]})
        children = {"log_sums": log_sums, "own_dots": own_dots, "normalisers": normalisers, "dots": dots}
        inputs = _scatter(layer, {"fits": fits, "coefficients": coefficients, **children})
        to_beta_u, to_beta_a = to_betas.sum((0, 1))[:, : task.parents]
        return *inputs, _copy(to_beta_u), _copy(to_beta_a)


def _iterate(layer: Layer, t: int, known: Tensor, found: Tensor, normalisers: Tensor) -> None:
    """One iteration; where a mean strayed from where it was looked for, the sums are taken again around it."""
    task, rows, cut = layer.task, layer.rows, layer.gathering
    splits, step = cut.split(rows, task.children)
    parts = found.new_empty(splits if splits > 1 else 0, rows, 2 * task.elements + 1, layer.width)
    strays = torch.empty(rows, dtype=torch.int32, device=found.device)
    arguments = {"found": found, "strays": strays, "parts": parts, "t": t, "last": int(t == task.iterations - 1)}
    gather = {"known": known, "normalisers": normalisers, "step": step, "RATED": t > 0, "SPLIT": splits > 1}
    for again in (False, True):
        shared = {**arguments, "AGAIN": again}
        layer.run(triton_forward.gather, cut, (cut.blocks(rows), splits), **shared, **gather)
        if splits > 1:
            around = {"known": found if again else known, "splits": splits}
            layer.run(triton_forward.settle, cut, (cut.blocks(rows), 1), **shared, **around)


def _normalise(layer: Layer, known: Tensor, normalisers: Tensor) -> None:
    """What the log-densities of each child sum up to at all the positions that see it, [images, below, types]."""
    task, cut = layer.task, layer.gathering
    splits, step = cut.split(layer.rows, task.children)
    sums = known.new_empty(layer.rows, task.children)
    layer.run(triton_forward.normalise, cut, (cut.blocks(layer.rows), splits), known=known, sums=sums, step=step)
    looks = sums.view(layer.images, -1, task.types)
    nobody = looks.new_full((layer.images, 1, task.types), -torch.inf)
    # Look number -1 is nobody's.
    normalisers.copy_(torch.cat((looks, nobody), 1)[:, layer.seen.long()].logsumexp(2))


def _retrace(layer: Layer, arguments: Mapping[str, Any]) -> None:
    """The coefficients of an iteration from those of the next."""
    task, rows, cut = layer.task, layer.rows, layer.retracing
    splits, step = cut.split(rows, task.children)
    parts = arguments["to"].new_empty(splits if splits > 1 else 0, rows, 2 * task.elements + 1, layer.width)
    shared = {**arguments, "parts": parts, "step": step, "SPLIT": splits > 1}
    if task.everywhere:
        layer.run(triton_backward.retrace, cut, (cut.blocks(rows), splits), **shared, BALANCE=True)
        _fold(layer, arguments["own_dots"], arguments["dots"])
    layer.run(triton_backward.retrace, cut, (cut.blocks(rows), splits), **shared, BALANCE=False)
    if splits > 1:
        layer.run(triton_backward.turn_parts, cut, (cut.blocks(rows), 1), **shared, splits=splits)


def _scatter(layer: Layer, arguments: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of poses, activations and transforms."""
    task, cut, like = layer.task, layer.scattering, arguments["fits"]
    splits, step = cut.split(task.children, layer.rows)
    patches = like.new_empty(layer.rows, task.children, 16)
    parts = like.new_empty(splits, task.children, 16, layer.width)
    out = {"to_poses": patches, "to_weights": parts, "step": step, "iterations": task.iterations}
    layer.run(triton_scatter.scatter, cut, (cut.blocks(task.children), splits), **arguments, **out)
    to_poses, to_activations = (
        torch.empty_like(layer.arguments["poses"]),
        torch.empty_like(layer.arguments["activations"]),
    )
    _fold(layer, patches, to_poses)
    # A child's sum of R grho is what its activation is given, too.
    _fold(layer, arguments["own_dots"].sum(0), to_activations)
    # Places that share transforms follow one another.
    to_weights = parts.view(-1, task.transforms, 16, layer.width).sum(0)[:, :, : task.parents]
    return to_poses, to_activations, _copy(to_weights.transpose(1, 2)).view(-1, task.parents, 4, 4)


def _fold(layer: Layer, patches: Tensor, folded: Tensor) -> None:
    """Add up, for each place of the layer below, what each look at it was given."""
    width, most = folded[0, 0].numel(), layer.seen.shape[1]
    grid = layer.images * layer.task.below, ceil_div(width, _BLOCK)
    sizes = {"width": width, "most": most, "BLOCK": _BLOCK}
    layer.run(triton_scatter.fold, _FOLDING, grid, patches=patches, folded=folded, **sizes)


def _kept_numbers(task: Task, batch: int, slots: int) -> int:
    """Numbers of the fits of so many iterations, and of what lies between them."""
    fit = task.positions * (3 * task.elements + 3) * width_of(task)
    return batch * (slots * fit + (slots - 1) * (task.below * task.types if task.everywhere else 0))


def _parts(layer: Layer, memory: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """Fits [slots, rows, numbers, width] and normalisers [slots - 1, images, below, types] in what is kept."""
    task, shape = layer.task, (slots, layer.rows, 3 * layer.task.elements + 3, layer.width)
    end = memory.numel() - (layer.images * (slots - 1) * task.below * task.types if task.everywhere else 0)
    between = (slots - 1 if task.everywhere else 0, layer.images, task.below, task.types)
    return memory[:end].view(shape), memory[end:].view(between)


def _copy(part: Tensor) -> Tensor:
    return part.clone(memory_format=torch.contiguous_format)
