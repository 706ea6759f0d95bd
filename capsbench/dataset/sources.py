"""The published files of each data set: names, sizes, hashes and mirrors, from `sources.yaml`."""

import gzip
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field

from capsbench.errors import BadInput
from capsbench.network.layers import STRICT
from capsbench.network.text import parse, read_text

LIST = Path(__file__).with_name("sources.yaml")

# Neither a separator nor a dot in front: what has such a name stays in its folder, and is no hidden file.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Mirror = Annotated[str, Field(pattern=r"^https://[^\s/@?#\\]+/([^\s?#\\]+/)?$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file as it was published.

    Attributes:
        name: at the mirrors, and in the data set's folder.
        bytes: size of the compressed file.
        sha256: of the compressed file, in hexadecimal.
        content_sha256: of the decompressed content, where it is known; any file with this content is accepted.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Name
    bytes: Annotated[int, Field(ge=1)]
    sha256: Sha256
    content_sha256: Sha256 | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The files of a data set, and the folders on the web that hold them, the first to ask first."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    mirrors: Annotated[tuple[Mirror, ...], Field(min_length=1)]
    files: Annotated[tuple[SourceFile, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _List:
    """The content of `sources.yaml`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    datasets: dict[Name, Source]


def read_sources(path: Path = LIST) -> Mapping[str, Source]:
    """Return the published data sets by name.

    Raises:
        BadInput: at file:line:key, also for a name that could lead out of its folder and where a file comes twice.
    """
    datasets = parse(read_text(path), _List, str(path)).datasets
    for name, source in datasets.items():
        names = [file.name for file in source.files]
        if len(set(names)) < len(names):
            raise BadInput("a file comes twice", f"{path}:datasets.{name}.files")
    return datasets


def find_published(file: SourceFile, folder: Path) -> Path | None:
    """Return where a folder holds a file with its published content, plain or compressed; None if it does not."""
    paths = (folder / file.name.removesuffix(".gz"), folder / file.name)
    return next((path for path in paths if path.is_file() and is_published(path, file)), None)


def is_published(path: Path, file: SourceFile) -> bool:
    """Return whether a file has the published bytes, or the published content in another packing.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as packed:
        if file_digest(packed, "sha256").hexdigest() in {file.sha256, file.content_sha256}:
            return True
    if file.content_sha256 is None:
        return False
    try:
        with gzip.open(path) as content:
            return file_digest(content, "sha256").hexdigest() == file.content_sha256
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return False


def check_mirror(url: str, where: str) -> str:
    """Return the address of a folder on the web with a slash at its end.

    Raises:
        BadInput: it is not https (on this machine, http will do), or is no folder's.
    """
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme, parts.hostname
    except ValueError:
        scheme, host = "", None
    is_safe = scheme == "https" or (scheme == "http" and host in {"localhost", "127.0.0.1", "::1"})
    if not host or not is_safe or re.search(r"[\s?#]", url):
        raise BadInput(f"{shown(url)!r} is no mirror, legal is the https:// address of a folder with the files", where)
    return url.rstrip("/") + "/"


def shown(url: str) -> str:
    """Return an address without the password that may stand in it."""
    return re.sub(r"//[^/]*@", "//", url)
