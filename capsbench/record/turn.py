"""One process at a time writes a run: two that took up the same one would measure every case twice."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from capsbench.errors import BadInput, Unwritten

_LOCK = ".lock"
_TAKEN = frozenset({errno.EAGAIN, errno.EACCES})


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep every other process that asks out of a run's folder while the block runs, or until this one is gone.

    A file system that knows no locks keeps nobody out.

    Raises:
        BadInput: another process is in there.
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
            if error.errno in _TAKEN:
                message = "is being written by another process; wait for its end, or begin a run of its own"
                raise BadInput(f"run {folder.name} {message}") from None
        yield
