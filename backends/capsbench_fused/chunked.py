"""The fused formulation in plain NumPy: for machines without Numba, and for readers.

Votes live for one chunk of positions at a time, about as many as a processor's cache holds: they are cast, routed
through all iterations, and overwritten by the next chunk's. The backward pass does so again, and then walks the
iterations back. `capsbench_numpy.routing` is the definition; docs/fused-routing.md derives the gradients.

Children come last. Sums over the children, and over the elements of a pose, are then products of a matrix and a vector,
which write nothing of the votes' size, and what is left to elementwise operators has long inner loops. Of the votes'
size a chunk keeps two arrays: the votes' deviations D from the mean of one iteration, moved along in place when the
mean moves, and the squares of these.

Shapes: n positions of a chunk, i children at a position, j parents, h elements of a vote; a vote is the product of a
pose [r, k] and a transform [k, c].
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from capsbench_fused import threads
from capsbench_fused.memory import Allocate
from capsbench_fused.task import Arrays, Parents, Task, first_shares, look_table

CHUNK_BYTES = 2**20
NAME = f"NumPy {np.__version__}, votes in chunks of {CHUNK_BYTES // 2**20} MiB"

Array = NDArray[Any]
At = tuple[int, slice]  # an image, and positions of it


def saved_numbers(task: Task, batch: int) -> int:
    """See `engine.Kernel`: none, since the backward pass routes again."""
    del task, batch
    return 0


def forward(
    task: Task, arrays: Arrays, parents: Parents, saved: Array | None, *, count: int, allocate: Allocate
) -> None:
    """See `engine.Kernel`; threads share the images out."""
    del saved
    transforms = _pack(task, arrays, allocate)

    def route(images: tuple[int, int], room: "_Chunk") -> None:
        for at, chunk in _chunks(task, images, room):
            _cast(task, arrays, transforms, at, chunk)
            last = _route(task, arrays, chunk)[-1]
            parents.poses[at], parents.logits[at] = last.mean, last.logits

    ranges = threads.split(len(arrays.poses), count)
    rooms = [_room(task, 1, arrays, allocate) for _ in ranges]
    threads.run([partial(route, *call) for call in zip(ranges, rooms, strict=True)])


def backward(
    task: Task,
    arrays: Arrays,
    saved: Array,
    to_parents: Parents,
    to_arrays: Arrays,
    *,
    count: int,
    allocate: Allocate,
) -> None:
    """See `engine.Kernel`; threads share the images out, and their parts of the parameters' gradients are added up."""
    del saved
    transforms = _pack(task, arrays, allocate)
    ranges = threads.split(len(arrays.poses), count)
    parts = allocate(len(ranges) * (transforms.size + 2 * task.parents), transforms.dtype).reshape(len(ranges), -1)
    for array in (to_arrays.poses, to_arrays.activations, parts):
        array.fill(0)

    def retrace(images: tuple[int, int], part: Array, room: "_Chunk") -> None:
        to_transforms, to_offsets = part[: transforms.size].reshape(transforms.shape), part[transforms.size :]
        for at, chunk in _chunks(task, images, room):
            _cast(task, arrays, transforms, at, chunk)
            fits = _route(task, arrays, chunk)
            to_last = _ToFit(to_parents.poses[at], to_parents.logits[at])
            to_activations = _retrace(task, chunk, fits, to_last, to_offsets.reshape(2, -1))
            to_poses = _cast_back(transforms, chunk, to_transforms)
            _meet(np.add, to_arrays.activations[at[0]], chunk.places, to_activations)
            _meet(np.add, to_arrays.poses[at[0]], chunk.places, to_poses)

    rooms = [_room(task, 2 * task.iterations - 1, arrays, allocate) for _ in ranges]
    threads.run([partial(retrace, *call) for call in zip(ranges, parts, rooms, strict=True)])
    for part in parts[1:]:
        parts[0] += part
    placed = parts[0, : transforms.size].reshape(task.parents, 4, 4, -1, task.transforms)
    np.add.reduce(placed, axis=3, out=to_arrays.transforms.transpose(1, 2, 3, 0))
    to_arrays.beta_u[:], to_arrays.beta_a[:] = parts[0, transforms.size :].reshape(2, -1)


class _Chunk(NamedTuple):
    """Some positions of an image, and memory for them.

    Attributes:
        places: [n, looks], that they see.
        poses: [n, r, k, c, i], the children's, the same for all columns c, so that inner loops are longer.
        activations: [n, 1, i], the children's.
        deviations: [n, j, h, i], of the votes from the mean of an iteration; at first the votes themselves.
        squares: [n, j, h, i], of the deviations; in the end the votes' gradients.
        traces: [n, j, traces, i], the couplings of each iteration, or, where nothing comes back, of the last. On the
            way back these become weights, and gradients of the log-densities after each iteration but the last follow.
        weights: [n, j, i], couplings times activations.
        blames: [n, j, i], gradients of the weights.
        tilt, lift: [n, j, h, traces], what takes the traces to the votes' gradients.
    """

    places: NDArray[np.int64]
    poses: Array
    activations: Array
    deviations: Array
    squares: Array
    traces: Array
    weights: Array
    blames: Array
    tilt: Array
    lift: Array


@dataclass(frozen=True, slots=True)
class _Fit:
    """Parents after an iteration.

    Attributes:
        mean: [n, j, h], of the votes.
        rest: [n, j, h], what the votes' weighted deviations from it sum up to; 0 but for epsilon and rounding.
        spread, variance: [n, j, h], of the votes; the variance is the spread and its floor.
        mass: [n, j], sum of the children's weights.
        price: [n, j], cost of a unit of mass.
        logits: [n, j], of the activation.
    """

    mean: Array
    rest: Array
    spread: Array
    variance: Array
    mass: Array
    price: Array
    logits: Array


@dataclass(frozen=True, slots=True)
class _ToFit:
    """Gradients of a fit."""

    mean: Array
    logits: Array
    variance: Array | float = 0.0
    mass: Array | float = 0.0


def _ranges(task: Task, itemsize: int) -> list[tuple[int, int]]:
    """The positions of each chunk of an image: all of them where children compete over all."""
    votes = task.children * task.parents * task.elements * itemsize
    most = task.positions if task.everywhere else max(1, round(CHUNK_BYTES / votes))
    return threads.split(task.positions, -(-task.positions // most))


def _room(task: Task, traces: int, arrays: Arrays, allocate: Allocate) -> _Chunk:
    """A thread's memory, for the largest chunk."""
    dtype, i, j = arrays.poses.dtype, task.children, task.parents
    n = max(last - first for first, last in _ranges(task, dtype.itemsize))
    votes, couplings, turns = (n, j, task.elements, i), (n, j, i), (n, j, task.elements, traces)
    shapes = (n, 4, 4, 4, i), (n, 1, i), votes, votes, (n, j, traces, i), couplings, couplings, turns, turns
    return _Chunk(look_table(task), *(allocate(math.prod(shape), dtype).reshape(shape) for shape in shapes))


def _chunks(task: Task, images: tuple[int, int], room: _Chunk) -> Iterator[tuple[At, _Chunk]]:
    """Every chunk of the images, and where it is; nothing of it is computed."""
    for image in range(*images):
        for first, last in _ranges(task, room.poses.itemsize):
            memory = (each[: last - first] for each in room[1:])
            yield (image, slice(first, last)), _Chunk(room.places[first:last], *memory)


def _pack(task: Task, arrays: Arrays, allocate: Allocate) -> Array:
    """Transforms as [j, k, c, i]; those that places share are there once for each."""
    packed = allocate(task.parents * 16 * task.children, arrays.transforms.dtype)
    placed = packed.reshape(task.parents, 4, 4, -1, task.transforms)
    placed[:] = arrays.transforms.transpose(1, 2, 3, 0)[:, :, :, None]
    return placed.reshape(task.parents, 4, 4, -1)


def _cast(task: Task, arrays: Arrays, transforms: Array, at: At, chunk: _Chunk) -> None:
    """Gather the children, and cast their votes V = P W."""
    for p, places in enumerate(chunk.places):
        chunk.poses[p] = arrays.poses[at[0], places].reshape(-1, 4, 4).transpose(1, 2, 0).copy()[:, :, None]
        chunk.activations[p, 0] = arrays.activations[at[0], places].reshape(-1)
    chunk.traces[:, :, 0] = np.repeat(first_shares(task)[at[1]], task.types, axis=1)[:, None]
    np.einsum("nrkci,jkci->njrci", chunk.poses, transforms, out=_matrices(chunk.deviations))
    if task.coordinates:
        chunk.deviations[:, :, 16:] = 0
        placed = np.repeat(np.array(task.coordinates, chunk.poses.dtype)[chunk.places], task.types, axis=1)
        for axis, element in enumerate(task.coordinate_elements):
            chunk.deviations[:, :, element] += placed[:, None, :, axis]


def _cast_back(transforms: Array, chunk: _Chunk, to_transforms: Array) -> Array:
    """Gradients of the poses [n, i, r, k] from those of the votes; the transforms' grow."""
    to_votes, spare, to_poses = _matrices(chunk.squares), _matrices(chunk.deviations)[0], chunk.poses[:, :, :, 0]
    to_transforms += np.einsum("nrkci,njrci->jkci", chunk.poses, to_votes, out=spare)
    np.einsum("njrci,jkci->nrki", to_votes, transforms, out=to_poses)  # the poses have done their work
    return np.moveaxis(to_poses, -1, 1)


def _matrices(votes: Array) -> Array:
    """The first 16 of the elements [n, j, h, i] as [n, j, r, c, i]."""
    return votes[:, :, :16].reshape(*votes.shape[:2], 4, 4, -1)


def _route(task: Task, arrays: Arrays, chunk: _Chunk) -> list[_Fit]:
    """All iterations; the votes become deviations from the last mean."""
    fits: list[_Fit] = []
    for t in range(task.iterations):
        couplings = chunk.traces[:, :, t % chunk.traces.shape[2]]
        if t:
            _expect(task, fits[-1], chunk, couplings)
        np.multiply(couplings, chunk.activations, out=chunk.weights)
        fits.append(_fit(task, arrays, t, fits[-1].mean if fits else 0.0, chunk))
    return fits


def _fit(task: Task, arrays: Arrays, t: int, expected: Array | float, chunk: _Chunk) -> _Fit:
    """M-step: the Gaussian of each parent, from deviations of the votes from where its mean was expected."""
    mass = chunk.weights.sum(axis=-1)
    scale = 1.0 / (mass + task.epsilon)[..., None]
    mean = (_over_children(chunk.deviations, chunk.weights) + expected * mass[..., None]) * scale
    _move(chunk, expected - mean)
    rest = _over_children(chunk.deviations, chunk.weights)
    spread = _over_children(chunk.squares, chunk.weights) * scale
    variance = spread + task.variance_floor
    price = (arrays.beta_u + 0.5 * np.log(variance).sum(axis=-1)) * task.cost_factor
    return _Fit(mean, rest, spread, variance, mass, price, task.temperatures[t] * (arrays.beta_a - mass * price))


def _move(chunk: _Chunk, distance: Array) -> None:
    """Measure the votes from where they stood less a distance [n, j, h], and square."""
    moved = np.add(chunk.deviations, distance[..., None], out=chunk.deviations)
    np.multiply(moved, moved, out=chunk.squares)


def _over_children(values: Array, weights: Array) -> Array:
    """Sum over the children of values [n, j, h, i] times weights [n, j, i]."""
    total: Array = np.matmul(values, weights[..., None])[..., 0]
    return total


def _over_elements(factors: Array, values: Array, out: Array) -> None:
    """Sum over the elements of factors [n, j, h] times values [n, j, h, i]."""
    np.matmul(factors[:, :, None], values, out=out[:, :, None])


def _expect(task: Task, fit: _Fit, chunk: _Chunk, couplings: Array) -> None:
    """E-step: each child shares itself out over its parents by the log-densities of its votes."""
    _over_elements(-0.5 / fit.variance, chunk.squares, couplings)
    couplings += (_log_activation(task, fit) - 0.5 * np.log(fit.variance).sum(axis=-1))[..., None]
    couplings -= _among_rivals(np.maximum, task, chunk.places, couplings)
    np.exp(couplings, out=couplings)
    couplings /= _among_rivals(np.add, task, chunk.places, couplings)


def _log_activation(task: Task, fit: _Fit) -> Array:
    """Of the parents, before the last iteration."""
    if not (task.softmax or task.by_mass):
        sigmoid: Array = np.minimum(fit.logits, 0.0) - np.log1p(np.exp(-np.abs(fit.logits)))
        return sigmoid
    logits = fit.mass if task.by_mass else fit.logits
    logits = logits - logits.max(axis=-1, keepdims=True)
    softmax: Array = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return softmax


def _among_rivals(ufunc: np.ufunc, task: Task, places: NDArray[np.int64], values: Array) -> Array:
    """Reduce [n, j, i] to [n, 1, i], over the parents that a child shares itself out over."""
    here: Array = ufunc.reduce(values, axis=1)
    if task.everywhere:
        image = np.full((task.below, task.types), -np.inf if ufunc is np.maximum else 0.0, values.dtype)
        _meet(ufunc, image, places, here)
        here = image[places].reshape(here.shape)
    return here[:, None]


def _meet(ufunc: np.ufunc, image: Array, places: NDArray[np.int64], values: Array) -> None:
    """Merge the children's values [n, i, ...] into those of an image [places, types, ...]; positions share places."""
    for seen, some in zip(places, values, strict=True):
        image[seen] = ufunc(image[seen], some.reshape(len(seen), *image.shape[1:]))


def _retrace(task: Task, chunk: _Chunk, fits: list[_Fit], to_fit: _ToFit, to_offsets: Array) -> Array:
    """All iterations backward, to the votes' gradients in `squares`; returns those of the activations [n, i].

    In every iteration a vote gets rho (slope + 2 curve D) through its weight, and -g D / variance through its
    log-density of gradient g. With D from the first mean all of these are (tilt D + lift) times the traces.
    """
    tilt, lift, blames, to_activations = chunk.tilt, chunk.lift, chunk.blames, np.zeros_like(chunk.activations)
    for t in range(task.iterations - 1, -1, -1):
        level, slope, curve = _onto_weights(task, t, fits[t], to_fit, to_offsets)
        _over_elements(slope, chunk.deviations, blames)
        _over_elements(curve, chunk.squares, chunk.weights)
        blames += chunk.weights
        blames += level[..., None]
        rho = chunk.traces[:, :, t]  # at first without the children's activations
        np.multiply(rho, blames, out=chunk.weights)
        to_activations += chunk.weights.sum(axis=1, keepdims=True)
        rho *= chunk.activations
        moved = fits[t].mean - fits[0].mean
        tilt[..., t], lift[..., t] = 2 * curve, slope - 2 * curve * moved
        if t:
            before, densities = fits[t - 1], chunk.traces[:, :, task.iterations + t - 1]
            blames -= _among_rivals(np.add, task, chunk.places, chunk.weights)
            np.multiply(rho, blames, out=densities)
            _move(chunk, fits[t].mean - before.mean)
            to_fit = _onto_fit(task, before, chunk, densities)
            tilt[..., task.iterations + t - 1] = -1 / before.variance
            lift[..., task.iterations + t - 1] = (before.mean - fits[0].mean) / before.variance
    to_votes = np.matmul(tilt, chunk.traces, out=chunk.squares)
    to_votes *= chunk.deviations
    to_votes += np.matmul(lift, chunk.traces, out=chunk.deviations)
    return to_activations[:, 0]


def _onto_weights(task: Task, t: int, fit: _Fit, to_fit: _ToFit, to_offsets: Array) -> tuple[Array, Array, Array]:
    """M-step backward: a weight's gradient is level + sum_h D (slope + curve D); those of the offsets grow."""
    upstream = to_fit.logits * task.temperatures[t]
    to_offsets[0] -= (upstream * fit.mass).sum(axis=0) * task.cost_factor
    to_offsets[1] += upstream.sum(axis=0)
    scale = 1.0 / (fit.mass + task.epsilon)[..., None]
    along = to_fit.variance - 0.5 * task.cost_factor * (upstream * fit.mass)[..., None] / fit.variance
    slope = (to_fit.mean - 2.0 * along * fit.rest * scale) * scale
    curve = along * scale
    level = to_fit.mass - upstream * fit.price - (curve * fit.spread).sum(axis=-1)
    return level, slope, curve


def _onto_fit(task: Task, fit: _Fit, chunk: _Chunk, densities: Array) -> _ToFit:
    """E-step backward: gradients of a fit from those of the log-densities [n, j, i] under it."""
    total = densities.sum(axis=-1)
    to_mean = _over_children(chunk.deviations, densities) / fit.variance
    to_variance = _over_children(chunk.squares, densities) / fit.variance
    to_variance = 0.5 * (to_variance - total[..., None]) / fit.variance
    active = _log_activation(task, fit)
    if task.softmax or task.by_mass:
        to_active = total - np.exp(active) * total.sum(axis=-1, keepdims=True)
    else:
        to_active = -total * np.expm1(active)
    if task.by_mass:
        return _ToFit(to_mean, np.zeros_like(total), to_variance, to_active)
    return _ToFit(to_mean, to_active, to_variance)
