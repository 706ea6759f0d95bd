"""The fused formulation on processors, compiled by Numba: which arrays its kernels get, and which thread does what."""

from functools import partial
from itertools import repeat
from typing import Any

import numba
import numpy as np
from numpy.typing import DTypeLike, NDArray

from capsbench_fused import backward as backwards
from capsbench_fused import forward as forwards
from capsbench_fused import threads
from capsbench_fused.memory import Allocate, page
from capsbench_fused.position import Inputs, Sizes, Variant, bench_numbers, fit_numbers
from capsbench_fused.task import Arrays, Parents, Task, first_shares, look_table
from capsbench_fused.vec import LANES

NAME = f"Numba {numba.__version__}, {LANES} float32 lanes a register"


def saved_numbers(task: Task, batch: int) -> int:
    """See `engine.Kernel`: the parents' fits, and what the children's densities sum up to."""
    return batch * (_fit_numbers(task) + _normaliser_numbers(task))


def forward(
    task: Task, arrays: Arrays, parents: Parents, saved: NDArray[Any] | None, *, count: int, allocate: Allocate
) -> None:
    """See `engine.Kernel`; threads share the images out."""
    batch, dtype = len(arrays.poses), arrays.poses.dtype
    ranges = threads.split(batch, count)
    slots = len(ranges) if saved is None else batch
    kept = allocate(saved_numbers(task, slots), dtype) if saved is None else saved
    sizes, variant = _sizes(task), _variant(task)
    layer = slots, dtype.itemsize, sizes, variant, _inputs(task, arrays, allocate), *_parts(task, kept, slots)
    outputs = parents.poses.reshape(-1), parents.logits.reshape(-1)

    def route(images: tuple[int, int], slot: int, bench: NDArray[Any], work: NDArray[Any]) -> None:
        if not task.everywhere:
            forwards.forward(images, (0, task.iterations), slot, *layer, bench, *outputs)
            return
        peaks, totals = np.split(work, 2)
        for image in range(*images):
            for t in range(task.iterations):
                if t:
                    forwards.normalise(image, t, image if slot < 0 else slot, *layer, bench, peaks, totals)
                forwards.forward((image, image + 1), (t, t + 1), slot, *layer, bench, *outputs)

    numbers = range(len(ranges)) if saved is None else repeat(-1)
    threads.run(
        [
            partial(route, images, slot, _bench(sizes, dtype, allocate), _work(task, 2, dtype, allocate))
            for images, slot in zip(ranges, numbers, strict=False)
        ]
    )


def backward(
    task: Task,
    arrays: Arrays,
    saved: NDArray[Any],
    to_parents: Parents,
    to_arrays: Arrays,
    *,
    count: int,
    allocate: Allocate,
) -> None:
    """See `engine.Kernel`; threads share the images out, and their parts of the parameters' gradients are added up."""
    batch, dtype = len(arrays.poses), arrays.poses.dtype
    ranges = threads.split(batch, count)
    sizes, variant = _sizes(task), _variant(task)
    kept = _parts(task, _flat(saved), batch)
    layer = dtype.itemsize, batch, sizes, variant, _inputs(task, arrays, allocate), *kept
    upstream = _flat(to_parents.poses), _flat(to_parents.logits)
    row = sizes.groups * LANES
    parts = allocate(len(ranges) * row * (16 * task.transforms + 2), dtype).reshape(len(ranges), -1)
    for array in (to_arrays.poses, to_arrays.activations, parts):
        array.fill(0)

    def retrace(
        images: tuple[int, int], part: NDArray[Any], bench: NDArray[Any], state: NDArray[Any], dots: NDArray[Any]
    ) -> None:
        offsets = part[: -2 * row], part[-2 * row : -row], part[-row:]
        gradients = to_arrays.poses.reshape(-1), to_arrays.activations.reshape(-1), *offsets
        if not task.everywhere:
            backwards.backward(images, (0, task.iterations), *layer, bench, state, dots, *upstream, *gradients)
            return
        for image in range(*images):
            for t in range(task.iterations - 1, -1, -1):
                if t:
                    backwards.balance(image, t, *layer, bench, state, dots, *upstream)
                backwards.backward((image, image + 1), (t, t + 1), *layer, bench, state, dots, *upstream, *gradients)

    threads.run(
        [
            partial(
                retrace,
                images,
                part,
                _bench(sizes, dtype, allocate),
                allocate(task.positions * fit_numbers(sizes.groups, task.elements), dtype),
                _work(task, 1, dtype, allocate),
            )
            for images, part in zip(ranges, parts, strict=True)
        ]
    )
    for part in parts[1:]:
        parts[0] += part
    _unpack(parts[0, : -2 * row], to_arrays.transforms)
    to_arrays.beta_u[:] = parts[0, -2 * row : -row][: task.parents]
    to_arrays.beta_a[:] = parts[0, -row:][: task.parents]


def _sizes(task: Task) -> Sizes:
    row, column = task.coordinate_elements if task.coordinates else (-1, -1)
    return Sizes(
        below=task.below,
        types=task.types,
        positions=task.positions,
        looks=len(task.looks[0]),
        transforms=task.transforms,
        parents=task.parents,
        groups=-(-task.parents // LANES),
        elements=task.elements,
        row=row,
        column=column,
    )


def _variant(task: Task) -> Variant:
    return Variant(
        iterations=task.iterations,
        cost_factor=task.cost_factor,
        floor=task.variance_floor,
        epsilon=task.epsilon,
        softmax=task.softmax,
        by_mass=task.by_mass,
        everywhere=task.everywhere,
    )


def _inputs(task: Task, arrays: Arrays, allocate: Allocate) -> Inputs:
    dtype, row = arrays.poses.dtype, -(-task.parents // LANES) * LANES
    padding = np.zeros(row, dtype)
    padding[task.parents :] = 1
    return Inputs(
        poses=_flat(arrays.poses),
        activations=_flat(arrays.activations),
        weights=_pack(arrays.transforms, allocate),
        beta_u=np.pad(arrays.beta_u, (0, row - task.parents)),
        beta_a=np.pad(arrays.beta_a, (0, row - task.parents)),
        padding=padding,
        looks=look_table(task).reshape(-1),
        shares=first_shares(task).astype(dtype).reshape(-1),
        coordinates=np.array(task.coordinates or ((0.0, 0.0),), dtype).reshape(-1),
        temperatures=np.array(task.temperatures),
    )


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    """A flat view that cannot be written, as some frameworks hand out arrays: Numba compiles for each kind anew."""
    view = array.reshape(-1)
    view.flags.writeable = False
    return view


def _pack(transforms: NDArray[Any], allocate: Allocate) -> NDArray[Any]:
    """Transforms [w, j, 4, 4] as [w, groups, 16, LANES], flat; 0 where there is no parent."""
    count, parents = transforms.shape[:2]
    groups = -(-parents // LANES)
    packed = allocate(count * groups * 16 * LANES, transforms.dtype)
    lanes = packed.reshape(count, groups, 16, LANES)
    lanes[:, -1] = 0
    for g in range(groups):
        some = transforms[:, g * LANES : (g + 1) * LANES].reshape(count, -1, 16)
        lanes[:, g, :, : some.shape[1]] = some.transpose(0, 2, 1)
    return packed


def _unpack(packed: NDArray[Any], transforms: NDArray[Any]) -> None:
    """Put such weights back into transforms."""
    rows = transforms.reshape(*transforms.shape[:2], 16)
    lanes = packed.reshape(len(transforms), -1, 16, LANES)
    for g in range(lanes.shape[1]):
        some = rows[:, g * LANES : (g + 1) * LANES]
        some[:] = lanes[:, g, :, : some.shape[1]].transpose(0, 2, 1)


def _fit_numbers(task: Task) -> int:
    """Numbers of an image's fits in all iterations."""
    return task.iterations * task.positions * fit_numbers(_sizes(task).groups, task.elements)


def _normaliser_numbers(task: Task) -> int:
    """Numbers of an image's normalisers."""
    return (task.iterations - 1) * task.below * task.types if task.everywhere else 0


def _parts(task: Task, saved: NDArray[Any], slots: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Fits and normalisers."""
    return saved[: slots * _fit_numbers(task)], saved[slots * _fit_numbers(task) :]


def _bench(sizes: Sizes, dtype: DTypeLike, allocate: Allocate) -> NDArray[Any]:
    return page(bench_numbers(sizes.groups, sizes.elements, np.dtype(dtype).itemsize), dtype, allocate)


def _work(task: Task, rows: int, dtype: DTypeLike, allocate: Allocate) -> NDArray[Any]:
    """Room for numbers of an image's children, where they compete everywhere."""
    return allocate(rows * task.below * task.types if task.everywhere else 0, dtype)
