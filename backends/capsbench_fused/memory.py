"""Memory for kernels: a framework's allocator hands it out where it can; what NumPy hands out is written down here.

So that the peak of a train step holds what its kernels take, whoever it is taken from.
"""

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Makes an array of so many numbers of a kind, not filled, that begins at a multiple of ALIGNMENT_BYTES.
Allocate = Callable[[int, DTypeLike], NDArray[Any]]
ALIGNMENT_BYTES = 64
PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Block:
    """Memory asked for, or given back (`size` is None), at a time since the epoch."""

    nanoseconds: int
    address: int
    size: int | None


_blocks: list[Block] | None = None


@contextmanager
def recording() -> Iterator[list[Block]]:
    """The blocks that `allocate` hands out meanwhile, and those of them that are given back, in order."""
    global _blocks  # noqa: PLW0603 - whoever calls `allocate` deep in a framework cannot be handed a list
    _blocks = []
    try:
        yield _blocks
    finally:
        _blocks = None


def allocate(numbers: int, dtype: DTypeLike) -> NDArray[Any]:
    """Memory from NumPy."""
    size = numbers * np.dtype(dtype).itemsize
    memory = np.empty(size + ALIGNMENT_BYTES, np.uint8)
    if _blocks is not None:
        address = memory.ctypes.data
        _blocks.append(Block(time.time_ns(), address, memory.nbytes))
        weakref.finalize(memory, _give_back, _blocks, address)
    return _from(memory, ALIGNMENT_BYTES)[:size].view(dtype)


def page(numbers: int, dtype: DTypeLike, allocate: Allocate) -> NDArray[Any]:
    """Memory that begins with a page."""
    memory = allocate(numbers + PAGE_BYTES // np.dtype(dtype).itemsize, dtype)
    return _from(memory, PAGE_BYTES)[:numbers]


def _give_back(blocks: list[Block], address: int) -> None:
    blocks.append(Block(time.time_ns(), address, None))


def _from(memory: NDArray[Any], multiple: int) -> NDArray[Any]:
    """From the first element on whose address is a multiple."""
    return memory[-memory.ctypes.data % multiple // memory.itemsize :]
