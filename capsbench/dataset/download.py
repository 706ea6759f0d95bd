"""Fetch the files of a data set from its mirrors, by pooch's HTTP downloader.

What has come of a file lies beside its place as `.NAME.part`, and gets its name once its hash is right. The next call
and the next mirror continue it: the hash finds out what does not fit together, and then the file is fetched once more
from its beginning. One process at a time writes into a folder.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path
from typing import Any, BinaryIO, Final

import pooch  # type: ignore[import-untyped]
import requests

from capsbench import __version__
from capsbench.dataset import catalog
from capsbench.dataset.sources import Source, SourceFile, find_published, is_published, shown
from capsbench.errors import BadInput, Unavailable, Unwritten

_HEADERS: Final = {"User-Agent": f"capsbench/{__version__}", "Accept-Encoding": "identity"}
_PIECE_BYTES: Final = 1 << 13  # of which the last may be lost when a mirror breaks off
_TRIES: Final = 5  # of one mirror, as long as each brings something


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A file that is here and right, and the mirror that sent the end of it; None where nothing had to be sent."""

    path: Path
    mirror: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How files are fetched.

    Attributes:
        mirrors: to be asked in place of the listed ones, each with a slash at its end.
        progress: is called with the name of a file, the bytes of it that are here, and all its bytes.
        waiting: is called before another process is waited for that is fetching into the same folder.
        timeout: seconds until a mirror accepts the connection, and between two pieces.
    """

    mirrors: Sequence[str] = ()
    progress: Callable[[str, int, int], None] = lambda _name, _done, _total: None
    waiting: Callable[[], None] = lambda: None
    timeout: tuple[float, float] = (10.0, 30.0)


class _Undelivered(Exception):  # noqa: N818 - an outcome of asking a mirror, always caught here
    """A mirror does not deliver a file; the text continues its address."""


def fetch(name: str, source: Source, root: Path, manner: Manner) -> Iterator[Fetched]:
    """Bring the files of data set `name` into the folder `root`/`name`, one after the other.

    Nothing is fetched or written where that folder, or else the system's, has all of them.

    Raises:
        BadInput: another file lies in the place of one.
        Unavailable: no mirror delivers a file. The files before it stay, and so does what came of this one.
        Unwritten: the disk has no room for them, or a file cannot be written.
    """
    folder = root / name
    try:
        for place in (folder, catalog.SYSTEM_ROOT / name):
            here = [path for file in source.files if (path := find_published(file, place))]
            if len(here) == len(source.files):
                yield from (Fetched(path=path, mirror=None) for path in here)
                return
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, manner.waiting):
            _check_space(source, folder)
            for file in source.files:
                yield _fetch(file, folder, manner.mirrors or source.mirrors, manner)
    except _Undelivered as error:
        missing = [each.name for each in source.files if not find_published(each, folder)]
        raise Unavailable(
            f"cannot fetch {missing[0]} of {name}: {error}; try again later, name another mirror with --from URL, "
            f"or put {', '.join(missing)} into {folder} by hand"
        ) from None
    except OSError as error:
        raise Unwritten(Path(error.filename or folder), error) from None


@contextmanager
def _locked(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Let one process at a time into the block; the lock ends with the process, however that ends."""
    with (folder / ".lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _check_space(source: Source, folder: Path) -> None:
    """Refuse to begin where the disk has no room for what is missing."""
    missing = [file for file in source.files if not find_published(file, folder)]
    parts = [path for file in missing if (path := _part_path(file, folder)).is_file()]
    needed = sum(file.bytes for file in missing) - sum(path.stat().st_size for path in parts)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(ENOSPC, f"{needed:,} bytes are needed, {free:,} are free", str(folder))


def _part_path(file: SourceFile, folder: Path) -> Path:
    return folder / f".{file.name}.part"


def _fetch(file: SourceFile, folder: Path, mirrors: Sequence[str], manner: Manner) -> Fetched:
    """Bring one file; another one in its place is the user's, and is not touched."""
    if here := find_published(file, folder):
        return Fetched(path=here, mirror=None)
    path, hidden = folder / file.name, _part_path(file, folder)
    if path.exists():
        raise BadInput(f"{path} is there but is not the published file, whose SHA-256 is {file.sha256}; move it away")
    with os.fdopen(os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b") as part:
        try:
            mirror = _complete(file, part, hidden, mirrors, manner)
            os.fsync(part.fileno())
        finally:
            if not _size(part):
                hidden.unlink()
    hidden.replace(path)
    return Fetched(path=path, mirror=mirror)


def _size(part: BinaryIO) -> int:
    return os.fstat(part.fileno()).st_size


def _complete(file: SourceFile, part: BinaryIO, hidden: Path, mirrors: Sequence[str], manner: Manner) -> str | None:
    """Bring a partial file to the published content; the mirror that did, None if it was all there."""
    if is_published(hidden, file):
        return None
    failures = []
    for mirror in mirrors:
        try:
            _ask(mirror, file, part, hidden, manner)
        except _Undelivered as error:
            failures.append(f"{shown(mirror)} {error}")
        else:
            return shown(mirror)
    raise _Undelivered(", ".join(failures))


def _ask(mirror: str, file: SourceFile, part: BinaryIO, hidden: Path, manner: Manner) -> None:
    """Have one mirror complete a partial file, as often as it breaks off having sent something."""
    for attempt in range(1, _TRIES + 1):
        before = _size(part)
        try:
            _receive(mirror + file.name, file, part, manner)
        except requests.RequestException as error:
            if attempt == _TRIES or _size(part) == before:
                raise _Undelivered(_reason(error, file, _size(part))) from None
            continue
        if is_published(hidden, file):
            return
        part.truncate(0)
        if not before:  # else what was there before may be what is wrong
            break
    raise _Undelivered(f"sends other bytes than the published ones, whose SHA-256 is {file.sha256}")


def _receive(url: str, file: SourceFile, part: BinaryIO, manner: Manner) -> None:
    """Append what is missing of a file, or write all of it where the mirror cannot send a part."""
    begin = part.seek(0, os.SEEK_END)
    with ExitStack() as responses:

        def begin_response(response: requests.Response, **_options: object) -> None:
            responses.callback(response.close)
            response.raw.headers.pop("Content-Encoding", None)  # a .gz that is called an encoding stays compressed
            if response.status_code in {200, 416}:  # the whole file, or no such part of it
                part.truncate(part.seek(0))

        headers = _HEADERS | ({"Range": f"bytes={begin}-"} if begin else {})
        options: dict[str, Any] = {"headers": headers, "timeout": manner.timeout, "hooks": {"response": begin_response}}
        progress = _Progress(file, part, manner.progress)
        pooch.HTTPDownloader(progressbar=progress, chunk_size=_PIECE_BYTES, **options)(url, part, None)


@dataclass
class _Progress:
    """A progress bar as pooch calls it; it also ends a download that is far too long."""

    file: SourceFile
    part: BinaryIO
    report: Callable[[str, int, int], None]
    total: int = 0  # set by pooch to what the mirror sends this time

    def update(self, _bytes: int) -> None:
        done, total = self.part.tell(), self.file.bytes
        if done > 2 * total:  # more than another packing of the same content can have
            self.part.truncate(0)
            raise _Undelivered(f"sends more than twice the {total:,} bytes of the file")
        self.report(self.file.name, min(done, total), total)

    def reset(self) -> None:
        pass

    def close(self) -> None:
        pass


def _reason(error: requests.RequestException, file: SourceFile, size: int) -> str:
    match error:
        case requests.HTTPError(response=requests.Response() as response):
            return f"answers {response.status_code} {response.reason}"
        case requests.exceptions.SSLError():
            return "has no TLS connection that can be trusted"
        case requests.Timeout():
            return "does not answer"
        case requests.TooManyRedirects():
            return "redirects without end"
        case requests.RequestException(request=None):  # requests names none once the answer has begun
            return f"broke off after {size:,} of {file.bytes:,} bytes"
        case _:
            return "cannot be reached"
