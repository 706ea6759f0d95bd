"""A run's folder while it is written: locked for one process, with disk space held back for its last record."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from capsbench.errors import BadInput, Unwritten

RESERVED_BYTES: Final = 4 << 20
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system says where a disk or a quota is full."""

_RESERVE: Final = ".reserve"
_LOCK: Final = ".lock"
_LOCKED: Final = frozenset({errno.EAGAIN, errno.EACCES})


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing a run while the block runs: two would measure every case twice.

    A file system without locks keeps nobody out.

    Raises:
        BadInput: another process writes the run.
        Unwritten: the folder cannot be written.
    """
    try:
        lock = (folder / _LOCK).open("ab")
    except OSError as error:
        raise Unwritten(folder, error) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _LOCKED:
                message = "is being written by another process; wait for its end, or begin a run of its own"
                raise BadInput(f"run {folder.name} {message}") from None
        yield


@contextmanager
def space_reserved(folder: Path) -> Iterator[None]:
    """Hold back disk space for the last record while the block runs; `release_space` gives it away.

    Raises:
        Unwritten: there is not even that much, or the folder cannot be written.
    """
    reserve = folder / _RESERVE
    try:
        with reserve.open("wb") as file:
            _fill(file)
    except OSError as error:
        with suppress(OSError):
            reserve.unlink()
        raise Unwritten(folder, error) from None
    try:
        yield
    finally:
        with suppress(OSError):
            reserve.unlink()


def release_space(folder: Path) -> bool:
    """Give the space that was held back to whoever writes next; whether there was any."""
    try:
        (folder / _RESERVE).unlink()
    except OSError:
        return False
    return True


def _fill(file: BinaryIO) -> None:
    try:
        os.posix_fallocate(file.fileno(), 0, RESERVED_BYTES)
    except OSError as error:
        if error.errno in FULL:
            raise
        file.write(bytes(RESERVED_BYTES))  # a file system that cannot promise space: take it
        file.flush()
        os.fsync(file.fileno())
