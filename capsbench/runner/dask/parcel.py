"""What travels between the machine that keeps a run and the Dask workers that run its groups: JSON text, and bytes.

A parcel goes out, news come back. Nothing of ours is pickled: Dask is given text, bytes and numbers.
"""

import json
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from capsbench.measure.environment import Machine
from capsbench.network.text import plain
from capsbench.runner.assemble import DataFacts
from capsbench.suite.cases import Case
from capsbench.worker.messages import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A group on its way to a station.

    Attributes:
        token: names this attempt at the group.
        run: id of the run.
        cases: the group, without what has a record already.
        place: where the data sets lie on the station; its artifacts are the station's own business.
        rounds: timing rounds a case, in place of the suite's.
        machine: that keeps the run.
        alone: it is one case of what was a group, and takes no turns.
        data: facts on the group's data set; None where the station is to find them out.
    """

    token: str
    run: str
    cases: tuple[Case, ...]
    place: Place
    rounds: int | None
    machine: Machine
    alone: bool = False
    data: DataFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A case is at `done` of `total` in its stage."""

    kind: Literal["stage"] = "stage"
    case: str
    stage: str
    done: int
    total: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """The next bytes of one of a case's files travel beside this; `last` are its last."""

    kind: Literal["chunk"] = "chunk"
    case: str
    name: str
    last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A case has ended; its record travels beside this, as a line of records.jsonl, and its files came before."""

    kind: Literal["ended"] = "ended"
    case: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Over:
    """The group has ended; always the last of its news.

    Attributes:
        reason: why cases are left without a record; empty where none is.
        data: whether that is because the data set cannot be used on this station.
    """

    kind: Literal["over"] = "over"
    reason: str = ""
    data: bool = False


News = Stage | Chunk | Ended | Over
Delivery = list[tuple[int, str, bytes]]
"""News with their numbers, growing, and what travels beside them."""


def encode(value: Parcel | News) -> str:
    """The value as JSON text."""
    return json.dumps(plain(value, defaults=True), separators=(",", ":"))


def decode_parcel(text: str) -> Parcel:
    """The parcel in a text.

    Raises:
        pydantic.ValidationError: there is none.
    """
    parcel: Parcel = _parcels().validate_json(text)
    return parcel


def decode_news(text: str) -> News:
    """The news in a text.

    Raises:
        pydantic.ValidationError: there are none.
    """
    news: News = _news().validate_json(text)
    return news


@cache
def _parcels() -> TypeAdapter[Any]:
    return TypeAdapter(Parcel)


@cache
def _news() -> TypeAdapter[Any]:
    return TypeAdapter(Annotated[News, Field(discriminator="kind")])
