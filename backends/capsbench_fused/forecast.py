"""Estimate the memory that kernels ask for, without importing them: the parent process asks."""

from dataclasses import dataclass
from importlib.util import find_spec

from capsbench_fused.engine import Engine
from capsbench_fused.lanes import lanes
from capsbench_fused.task import Task

_PAGE_NUMBERS = 1024
_BLOCK = 4  # children, as in `votes`
_CHUNK_NUMBERS = 1 << 18  # of votes, as in `chunked`


@dataclass(frozen=True, slots=True)
class Held:
    """Numbers (not bytes) of one layer.

    Attributes:
        kept: from the forward pass to the backward one.
        working: the most that the backward pass asks for beside, the gradients it hands over included.
    """

    kept: int
    working: int


def held(task: Task, batch: int, engine: Engine, threads: int) -> Held:
    """What a layer holds for `batch` images."""
    count = min(threads, batch)
    inputs = batch * task.below * task.types * 17
    transforms = task.transforms * task.parents * 16
    if engine == "chunked" or find_spec("numba") is None:
        packed = task.children * task.parents * 16
        return Held(0, inputs + transforms + packed + count * (packed + _chunk(task)))
    width = lanes()
    row = -(-task.parents // width) * width
    fit, packed = (3 * task.elements + 2) * row, 16 * task.transforms * row
    normalisers = (task.iterations - 1) * task.below * task.types if task.everywhere else 0
    full = task.elements * row
    pages = 8 * (full // _PAGE_NUMBERS + 2) + 3
    bench = pages * _PAGE_NUMBERS + _BLOCK * full + (4 + 2 * _BLOCK) * row
    own = packed + bench + task.positions * fit
    kept = batch * (task.iterations * task.positions * fit + normalisers)
    return Held(kept, inputs + transforms + packed + count * own)


def _chunk(task: Task) -> int:
    """A thread's chunk: votes twice, poses four times, couplings of all iterations and their coefficients."""
    i, j, h, traces = task.children, task.parents, task.elements, 2 * task.iterations - 1
    votes = i * j * h
    most = task.positions if task.everywhere else max(1, round(_CHUNK_NUMBERS / votes))
    chunks = -(-task.positions // most)
    positions = -(-task.positions // chunks)
    return positions * (2 * votes + 65 * i + (traces + 2) * i * j + 2 * j * h * traces)
