"""The files of a data set from their mirrors, each under its own name only once its SHA-256 is right.

What came so far lies beside a file as `.NAME.part`, locked while it is written, and is taken up next time, by any
mirror: requests name no version (no `If-Range`, which one server's file only would match), because the SHA-256 decides
in the end, and a file that is wrong after it was taken up is fetched once more from its beginning.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

import pooch  # type: ignore[import-untyped]
import requests

from capsbench import __version__
from capsbench.dataset.mirror import BrokenOffError, Patience, UndeliveredError, receive, shown
from capsbench.dataset.sources import Source, SourceFile
from capsbench.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A file that is here and right, and the mirror that sent the end of it; None where nothing had to be sent."""

    path: Path
    bytes: int
    mirror: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How files are fetched.

    Attributes:
        mirrors: to be asked in place of the listed ones, each with a slash at its end.
        progress: is called with the name of a file, the bytes of it that are here, and all its bytes.
        waiting: is called with the name of a file that another process is fetching, before that is waited for.
        patience: with each mirror.
    """

    mirrors: Sequence[str] = ()
    progress: Callable[[str, int, int], None] = lambda _name, _done, _total: None
    waiting: Callable[[str], None] = lambda _name: None
    patience: Patience = field(default_factory=Patience)


def fetch(name: str, source: Source, root: Path, manner: Manner) -> Iterator[Fetched]:
    """Bring the files of data set `name` into the folder `root`/`name`, one after the other.

    Raises:
        BadInput: no mirror delivers a file, something else lies in its place, or it cannot be written. The files before
            it stay, and so does what came of this one.
    """
    folder = root / name
    with requests.Session() as session:
        session.headers.update({"User-Agent": f"capsbench/{__version__}", "Accept-Encoding": "identity"})
        for file in source.files:
            try:
                yield _fetch(session, file, folder / file.name, manner.mirrors or source.mirrors, manner)
            except UndeliveredError as error:
                missing = [each.name for each in source.files if not (folder / each.name).exists()]
                raise BadInput(
                    f"cannot fetch {file.name} of {name}: {error}; try again later, name another mirror with "
                    f"--from URL, or put {', '.join(missing)} into {folder} by hand"
                ) from None
            except OSError as error:
                raise _unwritten(error, folder / file.name) from None


def _fetch(session: requests.Session, file: SourceFile, path: Path, mirrors: Sequence[str], manner: Manner) -> Fetched:
    mirror = None
    if not _is_here(file, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.name}.part")
        with _locked(hidden, lambda: manner.waiting(file.name)) as part:
            if not _is_here(file, path):  # else whoever held the lock has brought it
                mirror = _complete(session, file, part, hidden, mirrors, manner)
                os.fsync(part.fileno())
                hidden.replace(path)
    return Fetched(path=path, bytes=file.bytes, mirror=mirror)


def _is_here(file: SourceFile, path: Path) -> bool:
    """Whether the published file is in its place; another file there is the user's, and is not touched."""
    if not path.exists():
        return False
    if pooch.file_hash(path) != file.sha256:
        raise BadInput(f"{path} is there but is not the published file, whose SHA-256 is {file.sha256}; move it away")
    return True


@contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[FileIO]:
    """Open a partial file for this process alone; the lock ends with the process, however that ends.

    While it is waited for, the file may be renamed or removed; then a new one is opened. An empty one is removed.
    """
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with FileIO(os.open(path, flags, 0o666), "r+") as part:
            try:
                fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(part, fcntl.LOCK_EX)
            if not _is_at(part, path):
                continue
            try:
                yield part
            finally:
                if not _size(part) and _is_at(part, path):
                    path.unlink()
            return


def _is_at(part: FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(part.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def _size(part: FileIO) -> int:
    return os.fstat(part.fileno()).st_size


def _complete(
    session: requests.Session, file: SourceFile, part: FileIO, hidden: Path, mirrors: Sequence[str], manner: Manner
) -> str | None:
    """Bring a partial file to the published bytes; the mirror that did, None if they were all there."""
    if _size(part) >= file.bytes:
        if pooch.file_hash(hidden) == file.sha256:
            return None
        part.truncate(0)
    failures = []
    for mirror in mirrors:
        try:
            _ask(session, file, part, hidden, mirror, manner)
        except UndeliveredError as error:
            failures.append(f"{shown(mirror)} {error}")
        else:
            return shown(mirror)
    raise UndeliveredError(", ".join(failures))


def _ask(session: requests.Session, file: SourceFile, part: FileIO, hidden: Path, mirror: str, manner: Manner) -> None:
    """Have one mirror complete a partial file, as often as it breaks off having sent something."""
    for attempt in range(1, manner.patience.tries + 1):
        before = _size(part)
        try:
            kept = receive(
                session,
                mirror + file.name,
                part,
                file.bytes,
                lambda done: manner.progress(file.name, done, file.bytes),
                manner.patience,
            )
        except BrokenOffError:
            if _size(part) <= before or attempt == manner.patience.tries:
                raise
            continue
        if pooch.file_hash(hidden) == file.sha256:
            return
        part.truncate(0)
        if not kept:  # else what was there before may be what is wrong
            break
    raise UndeliveredError(f"sends other bytes than the published ones, whose SHA-256 is {file.sha256}")


def _unwritten(error: OSError, path: Path) -> BadInput:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return BadInput(
            f"no space is left for {path.name} in {path.parent}; what came of it is kept, and the same command goes on "
            "from there when there is room"
        )
    return BadInput(f"cannot write {path}: {error.strerror or error}")
