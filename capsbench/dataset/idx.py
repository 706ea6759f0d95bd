"""IDX, the file format of MNIST: a magic number, big-endian dimensions, then the elements.

The format is described on the MNIST page of LeCun, Cortes and Burges: two zero bytes, one byte for the element type,
one for the number of dimensions, each dimension as a big-endian 32-bit integer, then the elements in C order.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from capsbench.dataset.atomic import whole_file
from capsbench.errors import BadInput

_ELEMENTS = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 20
_MAX_DIMENSIONS = 32  # what the oldest supported NumPy can hold
# Deflate's shortest code for its longest match: 258 bytes from a length bit and a distance bit.
_MAX_DEFLATE_RATIO = 1032


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
    if not path.is_file():
        raise BadInput(f"no file {path}; expected an IDX file, plain or gzip")
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            file_bytes = path.stat().st_size
            if not compressed:
                return _read(file, path, file_bytes)
            with gzip.open(file) as stream:
                return _read(stream, path, file_bytes * _MAX_DEFLATE_RATIO)
    except EOFError as error:
        raise BadInput(f"{path} is truncated: its gzip stream ends early; fetch or copy it again") from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(f"{path} is corrupt: {error}; fetch or copy it again") from error
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from error


def _read(stream: BinaryIO | gzip.GzipFile, path: Path, most_bytes: int) -> NDArray[Any]:
    """Read header and elements from `stream`, which cannot hold more than `most_bytes`."""
    element, shape = _read_header(stream, path)
    expected_bytes = math.prod(shape) * element.itemsize
    if expected_bytes > most_bytes:
        raise BadInput(
            f"{path} promises {expected_bytes:,} bytes of elements (shape {shape}), more than its size can hold"
        )
    content = bytearray()
    while len(content) <= expected_bytes:
        chunk = stream.read(min(_CHUNK_BYTES, expected_bytes + 1 - len(content)))
        if not chunk:
            break
        content += chunk
    if len(content) != expected_bytes:
        there = f"only {len(content):,}" if len(content) < expected_bytes else "more"
        raise BadInput(f"{path} promises {expected_bytes:,} bytes of elements (shape {shape}) but holds {there}")
    array = np.frombuffer(content, element).reshape(shape)
    return array.astype(element.newbyteorder("="), copy=False)


def _read_header(stream: BinaryIO | gzip.GzipFile, path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Read the element type and the shape."""
    magic = stream.read(4)
    if not magic:
        raise BadInput(f"{path} is empty; expected an IDX file")
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise BadInput(f"{path} is no IDX file: it begins with {magic.hex(' ')}, expected 00 00, a type and a rank")
    code, rank = magic[2], magic[3]
    if code not in _ELEMENTS:
        legal = ", ".join(f"{known:02x}" for known in _ELEMENTS)
        raise BadInput(f"{path} has the unknown IDX element type {code:02x}, legal are {legal}")
    if not 1 <= rank <= _MAX_DIMENSIONS:
        raise BadInput(f"{path} claims {rank} dimensions, legal are 1 to {_MAX_DIMENSIONS}")
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
    if not 1 <= array.ndim <= _MAX_DIMENSIONS or array.size == 0 or max(array.shape) >= 1 << 32:
        raise BadInput(f"cannot write {path}: IDX holds no array of shape {array.shape}")
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, codes[big_endian], array.ndim, *array.shape)
    elements = np.ascontiguousarray(array, big_endian).reshape(-1).view(np.uint8)
    try:
        with whole_file(path) as file:
            if path.suffix != ".gz":
                file.write(header)
                file.write(elements.data)
                return
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as stream:
                stream.write(header)
                stream.write(elements.data)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from error
