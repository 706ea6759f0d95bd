"""A file of lines that only grows: each line is on the disk before anything else happens, whole or not at all.

While a run writes, a file of no content holds room beside its records. Once the disk is full, that room is given to the
record that no longer fits, so that what was measured last is not lost either.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from capsbench.dataset.atomic import sync_folder
from capsbench.errors import Unwritten

RESERVED_BYTES = 4 << 20
_RESERVE = ".reserve"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def append_line(path: Path, line: bytes) -> None:
    """Add a line, and wait until it is on the disk.

    A line that an earlier crash tore is ended first. Only one process may write at a time: what does not fit is cut off
    again.

    Args:
        path: of the file; made where it is missing.
        line: with its end of line.

    Raises:
        Unwritten: the disk is full and the room held for that case used up, or the file cannot be written.
    """
    try:
        _append(path, line)
    except OSError as error:
        if error.errno not in _FULL or not _give_room(path.parent):
            raise Unwritten(path, error) from None
        try:
            _append(path, line)
        except OSError as again:
            raise Unwritten(path, again) from None
        raise Unwritten(path, error, kept=True) from None


@contextmanager
def holding_room(folder: Path) -> Iterator[None]:
    """Hold room for the last lines in a folder while the block runs.

    Raises:
        Unwritten: there is not even that much, or the folder cannot be written.
    """
    reserve = folder / _RESERVE
    try:
        with reserve.open("wb") as file:
            _fill(file)
    except OSError as error:
        reserve.unlink(missing_ok=True)
        raise Unwritten(folder, error) from None
    try:
        yield
    finally:
        with suppress(OSError):
            reserve.unlink()


def is_torn(file: BinaryIO) -> bool:
    """Whether a file ends in the middle of a line; its position is the end then."""
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def _append(path: Path, line: bytes) -> None:
    is_new = not path.exists()
    with path.open("ab+", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            _write(file.fileno(), b"\n" + line if is_torn(file) else line)
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(end)
            raise
    if is_new:
        sync_folder(path.parent)


def _write(file: int, line: bytes) -> None:
    while line:
        line = line[os.write(file, line) :]


def _fill(file: BinaryIO) -> None:
    try:
        os.posix_fallocate(file.fileno(), 0, RESERVED_BYTES)
    except OSError as error:
        if error.errno in _FULL:
            raise
        file.write(bytes(RESERVED_BYTES))  # a file system that cannot promise room: take it
        file.flush()
        os.fsync(file.fileno())


def _give_room(folder: Path) -> bool:
    try:
        (folder / _RESERVE).unlink()
    except OSError:
        return False
    return True
