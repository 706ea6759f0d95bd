"""IDX, the file format of MNIST: a magic number, big-endian dimensions, then the elements.

The format is described on the MNIST page of LeCun, Cortes and Burges: two zero bytes, one byte for the element type,
one for the number of dimensions, each dimension as a big-endian 32-bit integer, then the elements in C order.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capsbench.dataset.elements import MAX_DIMENSIONS, Source, open_source, read_elements, write_elements
from capsbench.errors import BadInput

_ELEMENTS = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path) -> NDArray[Any]:
    """Read one IDX file, compressed with gzip or not; the first bytes decide, not the name.

    Memory grows with the bytes that are really there: the header's promise is checked against the size of the file
    before anything is allocated, and decompression stops one byte after it.

    Returns:
        The array in C order and native byte order, with the file's own element type and shape.

    Raises:
        BadInput: the file is missing, unreadable, no IDX file, of an unknown element type, truncated, corrupt, or
            holds more or fewer bytes than its header promises.
    """
    with open_source(path, "an IDX file") as source:
        return read_elements(source, *_read_header(source))


def _read_header(source: Source) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Read the element type and the shape."""
    path, stream = source.path, source.stream
    magic = stream.read(4)
    if not magic:
        raise BadInput(f"{path} is empty; expected an IDX file")
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise BadInput(f"{path} is no IDX file: it begins with {magic.hex(' ')}, expected 00 00, a type and a rank")
    code, rank = magic[2], magic[3]
    if code not in _ELEMENTS:
        legal = ", ".join(f"{known:02x}" for known in _ELEMENTS)
        raise BadInput(f"{path} has the unknown IDX element type {code:02x}, legal are {legal}")
    if not 1 <= rank <= MAX_DIMENSIONS:
        raise BadInput(f"{path} claims {rank} dimensions, legal are 1 to {MAX_DIMENSIONS}")
    dimensions = stream.read(4 * rank)
    if len(dimensions) < 4 * rank:
        raise BadInput(f"{path} ends inside its header: {rank} dimensions promised, {len(dimensions) // 4} there")
    shape = struct.unpack(f">{rank}I", dimensions)
    if 0 in shape:
        raise BadInput(f"{path} has the shape {shape}; every dimension must be at least 1")
    return np.dtype(_ELEMENTS[code]), shape


def write_idx(path: Path, array: NDArray[Any]) -> None:
    """Write `array` as IDX, atomically; with gzip if the name ends in `.gz`, and then the same bytes every time.

    Raises:
        BadInput: IDX has no such element type or shape, or the file cannot be written.
    """
    big_endian = array.dtype.newbyteorder(">")
    codes = {np.dtype(name): code for code, name in _ELEMENTS.items()}
    if big_endian not in codes:
        legal = ", ".join(dtype.name for dtype in codes)
        raise BadInput(f"cannot write {path}: IDX holds no {array.dtype.name}, legal are {legal}")
    if not 1 <= array.ndim <= MAX_DIMENSIONS or array.size == 0 or max(array.shape) >= 1 << 32:
        raise BadInput(f"cannot write {path}: IDX holds no array of shape {array.shape}")
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, codes[big_endian], array.ndim, *array.shape)
    write_elements(path, header, (array.astype(big_endian, copy=False),))
