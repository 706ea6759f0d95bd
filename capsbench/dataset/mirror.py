"""One file from one mirror, over HTTP: from where it broke off, never without TLS, and never waiting for ever."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError, ReadTimeoutError

from capsbench.errors import BadInput

_CHUNK_BYTES = 1 << 18
_REDIRECTS = 5
_THIS_MACHINE = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a mirror is waited for.

    Attributes:
        connect_seconds: until it takes the connection.
        silent_seconds: between two pieces of a file.
        slow_seconds: in which at least `slow_bytes` must come.
        slow_bytes: see there.
        tries: how often it may break off, having sent something each time.
    """

    connect_seconds: float = 10.0
    silent_seconds: float = 30.0
    slow_seconds: float = 60.0
    slow_bytes: int = 60_000
    tries: int = 5


class UndeliveredError(Exception):
    """A mirror does not deliver; the text goes on from its address."""


class BrokenOffError(UndeliveredError):
    """It has begun to deliver, and what came is worth keeping."""


def check_mirror(url: str, where: str) -> str:
    """The address of a folder on the web, with a slash at its end.

    Raises:
        BadInput: it is not https (on this machine, http will do), or is no folder's.
    """
    if not _is_allowed(url, plain=True) or re.search(r"[\s?#]", url):
        raise BadInput(f"{shown(url)!r} is no mirror, legal is the https:// address of a folder with the files", where)
    return url.rstrip("/") + "/"


def shown(url: str) -> str:
    """An address without the password that may stand in it."""
    return re.sub(r"//[^/]*@", "//", url)


def receive(
    session: requests.Session,
    url: str,
    part: FileIO,
    total: int,
    progress: Callable[[int], None],
    patience: Patience,
) -> int:
    """Write what is missing of a file to its end, or all of it where the mirror cannot send a part.

    Args:
        session: holds the connections.
        url: of the file.
        part: what there is of it, open for writing; it is never written beyond `total`.
        total: the size of the whole file in bytes.
        progress: hears how many bytes are there, after each piece.
        patience: with the mirror.

    Returns:
        How many bytes were kept of what was there.

    Raises:
        UndeliveredError: the mirror does not have the file, or not in this size, cannot be reached, or is too slow.
        BrokenOffError: it stopped before the end.
        OSError: the file cannot be written.
    """
    response, kept = _open(session, url, part.seek(0, 2), total, patience)
    with response:
        part.seek(kept)
        part.truncate()
        done = kept
        for chunk in _chunks(response, patience):
            done += len(chunk)
            if done > total:
                raise UndeliveredError(f"sends more than the {total:,} bytes of the file")
            rest = memoryview(chunk)
            while rest:
                rest = rest[part.write(rest) :]
            progress(done)
    if done < total:
        raise BrokenOffError(f"broke off after {done:,} of {total:,} bytes")
    return kept


def _open(
    session: requests.Session, url: str, there: int, total: int, patience: Patience
) -> tuple[requests.Response, int]:
    """Ask for a file from byte `there` on; the answer, and the byte with which it really begins."""
    for begin in (there, 0) if there else (0,):
        response = _get(session, url, {"Range": f"bytes={begin}-"} if begin else {}, patience)
        if response.status_code == 200:
            offered = response.headers.get("Content-Length", str(total))
            if offered != str(total):
                response.close()
                raise UndeliveredError(f"offers {offered} bytes where the file has {total}")
            return response, 0
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if begin and response.status_code == 206 and span and (int(span[1]), int(span[2])) == (begin, total):
            return response, begin
        response.close()
        if not (begin and response.status_code in {206, 416}):
            break
    raise UndeliveredError(f"answers {response.status_code} {response.reason}")


def _get(session: requests.Session, url: str, headers: dict[str, str], patience: Patience) -> requests.Response:
    """Get a response whose body is still to be read, along redirects that stay on TLS."""
    timeout = (patience.connect_seconds, patience.silent_seconds)
    plain = url.startswith("http://")
    for _ in range(_REDIRECTS + 1):
        if not _is_allowed(url, plain=plain):
            raise UndeliveredError(f"sends us on to {shown(url)}, which is not https")
        try:
            response = session.get(url, headers=headers, stream=True, allow_redirects=False, timeout=timeout)
        except (requests.RequestException, HTTPError, ValueError) as error:
            raise UndeliveredError(_reason(error)) from None
        if not response.is_redirect:
            return response
        response.close()
        url = urljoin(url, response.headers["Location"])
    raise UndeliveredError(f"sends us on more than {_REDIRECTS} times")


def _is_allowed(url: str, *, plain: bool) -> bool:
    """Whether an address has TLS, or (with `plain`) is on this machine."""
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme, parts.hostname
    except ValueError:
        return False
    return bool(host) and (scheme == "https" or (plain and scheme == "http" and host in _THIS_MACHINE))


def _reason(error: Exception) -> str:
    match error:
        case requests.exceptions.SSLError():
            return "has no TLS connection that can be trusted"
        case requests.Timeout():
            return "does not answer"
        case _:
            return "cannot be reached"


def _chunks(response: requests.Response, patience: Patience) -> Iterator[bytes]:
    """The bytes as they are sent, as soon as they come: a `.gz` that the server calls an encoding stays compressed."""
    start, came = time.monotonic(), 0
    while True:
        try:
            chunk: bytes = response.raw.read1(_CHUNK_BYTES, decode_content=False)
        except ReadTimeoutError:
            raise BrokenOffError(f"sent nothing for {patience.silent_seconds:g} s") from None
        except (HTTPError, OSError):
            return  # before the end; the bytes are counted by the caller
        if not chunk:
            return
        yield chunk
        came += len(chunk)
        if time.monotonic() - start >= patience.slow_seconds:
            if came < patience.slow_bytes:
                raise UndeliveredError(f"sent only {came:,} bytes in {patience.slow_seconds:g} s")
            start, came = time.monotonic(), 0
