"""Which files a data set is published as: names, sizes, SHA-256 and mirrors, from `sources.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from capsbench.errors import BadInput
from capsbench.network.layers import STRICT
from capsbench.network.text import parse, read_text

LIST = Path(__file__).with_name("sources.yaml")

# Neither a separator nor a dot in front: what has such a name stays in its folder, and is no hidden file.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Mirror = Annotated[str, Field(pattern=r"^https://[^\s/@?#\\]+/([^\s?#\\]+/)?$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file as it was published.

    Attributes:
        name: at the mirrors, and in the data set's folder.
        bytes: its size.
        sha256: of its bytes, in hexadecimal.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Name
    bytes: Annotated[int, Field(ge=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a data set consists of, and the folders on the web that hold its files, the first to ask first."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    mirrors: Annotated[tuple[Mirror, ...], Field(min_length=1)]
    files: Annotated[tuple[SourceFile, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _List:
    """The file."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    datasets: dict[Name, Source]


def read_sources(path: Path = LIST) -> Mapping[str, Source]:
    """The list, by the name of the data set.

    Raises:
        BadInput: at file:line:key, also for a name that could lead out of its folder and where a file comes twice.
    """
    datasets = parse(read_text(path), _List, str(path)).datasets
    for name, source in datasets.items():
        names = [file.name for file in source.files]
        if len(set(names)) < len(names):
            raise BadInput("a file comes twice", f"{path}:datasets.{name}.files")
    return datasets
