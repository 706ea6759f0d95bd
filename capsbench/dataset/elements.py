"""What IDX and smallNORB's matrices share: elements that a header promises, plain or compressed with gzip.

Memory grows with the bytes that are really there: a header's promise is checked against the size of the file before
anything is allocated, and decompression stops one byte after it.
"""

import gzip
import math
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from capsbench.dataset.atomic import whole_file
from capsbench.errors import BadInput

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 20
# Deflate's shortest code for its longest match: 258 bytes from a length bit and a distance bit.
_MAX_DEFLATE_RATIO = 1032

MAX_DIMENSIONS = 32
"""What the oldest supported NumPy can hold."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file open at its beginning.

    Attributes:
        path: its name, for messages.
        stream: its bytes, unpacked.
        compressed: whether they are packed in the file.
        most_bytes: more than the stream can hold.
    """

    path: Path
    stream: BinaryIO | gzip.GzipFile
    compressed: bool
    most_bytes: int


@contextmanager
def open_source(path: Path, what: str) -> Iterator[Source]:
    """Open a file that may be compressed with gzip; the first bytes decide, not the name.

    Args:
        path: of the file.
        what: the format expected, for messages: `an IDX file`.

    Raises:
        BadInput: the file is missing or unreadable, or, while the block reads it, its gzip stream ends early or is
            corrupt.
    """
    if not path.is_file():
        raise BadInput(f"no file {path}; expected {what}, plain or gzip")
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            file_bytes = path.stat().st_size
            if not compressed:
                yield Source(path, file, False, file_bytes)
                return
            with gzip.open(file) as stream:
                yield Source(path, stream, True, file_bytes * _MAX_DEFLATE_RATIO)
    except EOFError as error:
        raise BadInput(f"{path} is truncated: its gzip stream ends early; fetch or copy it again") from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(f"{path} is corrupt: {error}; fetch or copy it again") from error
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from error


def read_elements(source: Source, element: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Read the elements that a header promised; they must be all that is left in the stream.

    Returns:
        The array [*shape] in C order and native byte order.

    Raises:
        BadInput: there are fewer or more.
    """
    expected_bytes = promised_bytes(source, element, shape)
    content = bytearray()
    while len(content) <= expected_bytes:
        chunk = source.stream.read(min(_CHUNK_BYTES, expected_bytes + 1 - len(content)))
        if not chunk:
            break
        content += chunk
    check_promise(source.path, shape, expected_bytes, len(content))
    array = np.frombuffer(content, element).reshape(shape)
    return array.astype(element.newbyteorder("="), copy=False)


def promised_bytes(source: Source, element: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Return how many bytes of elements a header promises.

    Raises:
        BadInput: more than the file can hold.
    """
    expected_bytes = math.prod(shape) * element.itemsize
    if expected_bytes > source.most_bytes:
        raise BadInput(
            f"{source.path} promises {expected_bytes:,} bytes of elements (shape {shape}), more than its size can hold"
        )
    return expected_bytes


def check_promise(path: Path, shape: tuple[int, ...], expected_bytes: int, there_bytes: int) -> None:
    """Refuse a file that holds fewer or more bytes of elements than its header promises."""
    if there_bytes != expected_bytes:
        there = f"only {there_bytes:,}" if there_bytes < expected_bytes else "more"
        raise BadInput(f"{path} promises {expected_bytes:,} bytes of elements (shape {shape}) but holds {there}")


def write_elements(path: Path, header: bytes, chunks: Iterable[NDArray[Any]]) -> None:
    """Write a header and arrays, atomically; with gzip if the name ends in `.gz`, and then the same bytes every time.

    The arrays are taken one at a time, in the byte order they have. What raises while it makes them leaves no file.

    Raises:
        BadInput: the file cannot be written.
    """
    try:
        with whole_file(path) as file:
            if path.suffix != ".gz":
                _write_all(file, header, chunks)
                return
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as stream:
                _write_all(stream, header, chunks)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from error


def _write_all(stream: BinaryIO | gzip.GzipFile, header: bytes, chunks: Iterable[NDArray[Any]]) -> None:
    stream.write(header)
    for chunk in chunks:
        stream.write(np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data)
