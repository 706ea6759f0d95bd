"""The catalog of a large records.jsonl, kept in a file beside it, so that a hundred thousand records are read at once.

That file may be deleted at any time: it is made again. It is believed as long as records.jsonl has the size, times and
place on the disk that it had when the catalog was made, or else the bytes that it had then; lines added since are read.
"""

import os
import shutil
import sys
import zlib
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, reduce
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import pydantic_core
from pydantic import TypeAdapter

from capsbench.dataset.atomic import whole_file
from capsbench.record.catalog import Catalog, Covered
from capsbench.record.columns import Columns, Shared

_T = TypeVar("_T")

_VERSION: Final = 2
"""Raise it with every change of what is kept, or of how a line is read."""

_WORTH_KEEPING_BYTES: Final = 16 << 20
"""Of lines; fewer are read again in a moment."""

_ROOM: Final = 20
"""How many times a catalog's size must be free on the disk for it to be kept."""

_BUFFER_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What changes with a file."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class _Head:
    """The first line of the file: what the catalog was made of, and how much follows."""

    version: int
    byteorder: str
    stamp: _Stamp
    covered: Covered
    text_bytes: int
    row_count: int
    number_count: int
    checksum: int


def catalog_of(path: Path) -> Catalog:
    """What a records.jsonl says; of lines of which nothing is kept, by reading them.

    Where many lines had to be read or checked, the catalog is kept for the next time, if the folder can be written.

    Raises:
        OSError: the file cannot be read.
    """
    made = _catalog(path)
    assert made is not None  # noqa: S101 - it makes one
    return made


def kept_catalog(path: Path) -> Catalog | None:
    """As `catalog_of` where something is kept, to which at most the lines since are to be added; None elsewhere.

    Raises:
        OSError: the file cannot be read.
    """
    return _catalog(path, makes=False)


def _catalog(path: Path, *, makes: bool = True) -> Catalog | None:
    with path.open("rb", buffering=_BUFFER_BYTES) as file:
        stamp = _stamp(file)
        catalog, looked_at = _kept(_beside(path), file, stamp)
        if catalog is None:
            if not makes:
                return None
            catalog = Catalog()
        before = catalog.covered.bytes
        file.seek(before)
        rest = _add_whole_lines(catalog, file)
    if looked_at + catalog.covered.bytes - before >= _WORTH_KEEPING_BYTES:
        with suppress(OSError, ValueError):  # a folder that cannot be written, a text that is no Unicode
            _keep(catalog, _beside(path), stamp)
    if rest:
        catalog.add(rest)
    return catalog


def _add_whole_lines(catalog: Catalog, file: BinaryIO) -> bytes:
    """Add lines; what is returned is a last one that is torn, or being written."""
    for line in file:
        if not line.endswith(b"\n"):
            return line
        catalog.add(line)
    return b""


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.stem}.catalog")


def _stamp(file: BinaryIO) -> _Stamp:
    found = os.fstat(file.fileno())
    return _Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _keep(catalog: Catalog, path: Path, stamp: _Stamp) -> None:
    text = pydantic_core.to_json(catalog.shared, inf_nan_mode="strings")
    arrays = (*catalog.columns.each, catalog.numbers)
    # A run that is still going needs the room on its disk more.
    if shutil.disk_usage(path.parent).free > _ROOM * (len(text) + sum(len(each) * each.itemsize for each in arrays)):
        _write(path, stamp, catalog.covered, text, arrays)


def _write(path: Path, stamp: _Stamp, covered: Covered, text: bytes, arrays: "Sequence[array[Any]]") -> None:
    checksum = reduce(_add_checksum, arrays, zlib.crc32(text))
    head = _Head(_VERSION, sys.byteorder, stamp, covered, len(text), len(arrays[0]), len(arrays[-1]), checksum)
    with whole_file(path) as file:
        file.writelines((pydantic_core.to_json(head), b"\n", text, *arrays))


def _kept(path: Path, records: BinaryIO, stamp: _Stamp) -> tuple[Catalog | None, int]:
    """The catalog that is kept of records, and how many bytes of these had to be read to believe it."""
    try:
        with path.open("rb") as file:
            head: _Head = _adapter(_Head).validate_json(file.readline(_BUFFER_BYTES))
            covered = head.covered
            if (head.version, head.byteorder) != (_VERSION, sys.byteorder) or covered.bytes > stamp.size:
                return None, 0
            is_same = head.stamp == stamp
            if not is_same and _checksum(records, covered.bytes) != covered.checksum:
                return None, 0
            return _read(file, head), 0 if is_same else covered.bytes
    except (OSError, EOFError, ValueError, OverflowError):
        return None, 0


def _read(file: BinaryIO, head: _Head) -> Catalog:
    text = file.read(head.text_bytes)
    checksum, shared = zlib.crc32(text), _adapter(Shared).validate_json(text)
    del text  # as large as what is made of it
    columns, numbers = Columns(), array("d")
    for each, count in (*((column, head.row_count) for column in columns.each), (numbers, head.number_count)):
        each.fromfile(file, count)
        checksum = _add_checksum(checksum, each)
    if checksum != head.checksum or file.read(1):
        raise ValueError("damaged")
    return Catalog(head.covered, columns, shared, numbers)


def _add_checksum(checksum: int, numbers: "array[Any]") -> int:
    return zlib.crc32(numbers, checksum)


def _checksum(file: BinaryIO, size: int) -> int:
    file.seek(0)
    found = 0
    while size > 0 and (block := file.read(min(size, _BUFFER_BYTES))):
        found = zlib.crc32(block, found)
        size -= len(block)
    return found


@cache
def _adapter(kind: type[_T]) -> TypeAdapter[_T]:
    return TypeAdapter(kind)
