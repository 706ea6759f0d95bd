"""The binary matrix format of smallNORB: a magic number, little-endian dimensions, then the elements.

The format is described on the smallNORB page of Huang and LeCun (http://www.cs.nyu.edu/~ylclab/data/norb-v1.0-small/):
the element type as a 32-bit magic number, the number of dimensions, each dimension, at least three of them, missing
ones as 1, then the elements in C order; every number is little-endian.
"""

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capsbench.dataset.elements import (
    MAX_DIMENSIONS,
    Source,
    check_promise,
    open_source,
    promised_bytes,
    read_elements,
    write_elements,
)
from capsbench.errors import BadInput

_ELEMENTS = {0x1E3D4C55: "u1", 0x1E3D4C54: "<i4", 0x1E3D4C56: "<i2", 0x1E3D4C51: "<f4", 0x1E3D4C53: "<f8"}
_PACKED = 0x1E3D4C52
_LEAST_DIMENSIONS = 3  # that a header holds, however few the matrix has
_MAX_DIMENSION = (1 << 31) - 1


def read_matrix(path: Path) -> NDArray[Any]:
    """Read one matrix, compressed with gzip or not; the first bytes decide, not the name.

    Returns:
        The array with the file's element type and shape. Over a plain file it is an `np.memmap`: nothing is read
        until it is used, and it cannot be written. From a compressed file it lies in memory, which grows with the
        bytes that are really there.

    Raises:
        BadInput: the file is missing, unreadable, no such matrix, big-endian, packed, truncated, corrupt, or holds
            more or fewer bytes than its header promises.
    """
    with open_source(path, "a smallNORB matrix") as source:
        element, shape = _read_header(source)
        if source.compressed:
            return read_elements(source, element, shape)
        begin = source.stream.tell()
        check_promise(path, shape, promised_bytes(source, element, shape), source.most_bytes - begin)
        return np.memmap(path, element, "r", begin, shape)


def is_mapped(array: NDArray[Any]) -> bool:
    """Tell whether an array is a memory map or a view of one."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        if isinstance(owner, np.memmap):
            return True
        owner = owner.base
    return False


def _read_header(source: Source) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Read the element type and the shape."""
    path = source.path
    element = _element(path, source.stream.read(4))
    (rank,) = _read_integers(source, 1)
    if not 1 <= rank <= MAX_DIMENSIONS:
        raise BadInput(f"{path} claims {rank} dimensions, legal are 1 to {MAX_DIMENSIONS}")
    written = _read_integers(source, max(rank, _LEAST_DIMENSIONS))
    shape, rest = written[:rank], written[rank:]
    if min(shape) < 1:
        raise BadInput(f"{path} has the shape {shape}; every dimension must be at least 1")
    if any(dimension != 1 for dimension in rest):
        raise BadInput(f"{path} has {rank} dimensions but {rest} after them in its header, which must be 1")
    return element, shape


def _element(path: Path, begin: bytes) -> np.dtype[Any]:
    """Tell the element type from the first four bytes of a file."""
    if not begin:
        raise BadInput(f"{path} is empty; expected a smallNORB matrix")
    magic = int.from_bytes(begin, "little")
    if magic in _ELEMENTS:
        return np.dtype(_ELEMENTS[magic])
    if magic == _PACKED:
        raise BadInput(f"{path} is a packed matrix (magic number 1e3d4c52), legal are {_legal()}")
    if int.from_bytes(begin, "big") in {*_ELEMENTS, _PACKED}:
        raise BadInput(f"{path} is a big-endian matrix; smallNORB's are little-endian, and only those are read")
    raise BadInput(
        f"{path} is no smallNORB matrix: it begins with {begin.hex(' ')}, expected 51, 53, 54, 55 or 56, then 4c 3d 1e"
    )


def _read_integers(source: Source, count: int) -> tuple[int, ...]:
    content = source.stream.read(4 * count)
    if len(content) < 4 * count:
        raise BadInput(f"{source.path} ends inside its header")
    return struct.unpack(f"<{count}i", content)


def write_matrix(path: Path, array: NDArray[Any]) -> None:
    """Write `array`, atomically; with gzip if the name ends in `.gz`, and then the same bytes every time.

    Raises:
        BadInput: the format has no such element type or shape, or the file cannot be written.
    """
    write_chunks(path, array.dtype, array.shape, (array,))


def write_chunks(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], chunks: Iterable[NDArray[Any]]) -> None:
    """Write a matrix of which only one piece at a time need be in memory, as `write_matrix` does.

    Args:
        path: of the file.
        dtype: of the elements.
        shape: of the whole matrix.
        chunks: arrays that make the matrix when joined along its first dimension; what raises while it makes them
            leaves no file.

    Raises:
        BadInput: as `write_matrix`.
    """
    element = dtype.newbyteorder("<")
    magics = {np.dtype(name): magic for magic, name in _ELEMENTS.items()}
    if element not in magics:
        raise BadInput(f"cannot write {path}: the format holds no {dtype.name}, legal are {_legal()}")
    if not 1 <= len(shape) <= MAX_DIMENSIONS or not 1 <= min(shape) <= max(shape) <= _MAX_DIMENSION:
        raise BadInput(f"cannot write {path}: the format holds no array of shape {shape}")
    written = (*shape, *(1,) * (_LEAST_DIMENSIONS - len(shape)))
    header = struct.pack(f"<Ii{len(written)}i", magics[element], len(shape), *written)
    write_elements(path, header, (chunk.astype(element, copy=False) for chunk in chunks))


def _legal() -> str:
    return ", ".join(np.dtype(name).name for name in _ELEMENTS.values())
