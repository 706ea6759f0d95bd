"""One group to one Dask worker, and what comes of it back: over Dask's own connections, in its client's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsbench import __version__
from capsbench.runner.dask.inbox import Garbled, Inbox
from capsbench.runner.dask.parcel import Delivery, Over, Parcel, encode
from capsbench.runner.dask.placing import GPU, Errand, Station
from capsbench.runner.dask.station import CHUNK_BYTES, close_desk, fetch, hand, open_desk, work
from capsbench.worker.checkpoint import CHECKPOINT

if TYPE_CHECKING:
    from distributed import Client, Future

_TRIES = 3
_SECONDS_BETWEEN_TRIES = 1.0
_GOODBYE_SECONDS = 3.0
_ENDED = ("error", "cancelled", "lost")


class Lost(Exception):  # noqa: N818 - how an errand ends that another station may take
    """A group did not come to its end; the text says why, after the station's name."""


class Refused(Exception):  # noqa: N818 - likewise
    """A station takes no group, or, with `data`, none on this data set; the text says why, after its name."""

    def __init__(self, reason: str, *, data: bool = False) -> None:
        super().__init__(reason)
        self.data = data


def key_of(parcel: Parcel) -> str:
    """What Dask calls the task."""
    return f"capsbench-{parcel.token}"


async def carry(
    client: Client, errand: Errand, station: Station, parcel: Parcel, inbox: Inbox, files: Callable[[str], Path]
) -> None:
    """Have a group run; every record is in the inbox when this ends.

    Args:
        client: of Dask, asynchronous.
        errand: the group.
        station: where it is to run.
        parcel: the group once more, as it travels.
        inbox: takes what comes back.
        files: the folder of a case, from which a training is gone on with.

    Raises:
        Lost: some case has no record.
        Refused: the station does not run such groups.
        Unwritten: the run could not keep what came.
    """
    future = None
    try:
        await _open(client, station, parcel)
        for case in errand.cases:
            await _hand_over(client, station, parcel.token, case.id, files(case.id) / CHECKPOINT)
        future = client.submit(
            work,
            parcel.token,
            key=key_of(parcel),
            workers=[station.address],
            allow_other_workers=False,
            pure=False,
            retries=0,
            resources={GPU: errand.gpus} if errand.gpus else None,
        )
        over = await _listen(client, station, parcel.token, inbox, future)
    except Garbled as error:
        raise Lost(str(error)) from None
    finally:
        await _take_leave(client, station, parcel.token, future)
    if over.data:
        raise Refused(f"cannot use the data set: {over.reason}", data=True)
    if over.reason or inbox.left():
        raise Lost(f"failed: {over.reason}" if over.reason else "ended without a word on some case")


async def _open(client: Client, station: Station, parcel: Parcel) -> None:
    try:
        refused = await _ask(client, station, open_desk, encode(parcel), __version__)
    except OSError as error:
        raise Lost(f"does not answer ({_one_line(error)})") from None
    except Exception as error:  # noqa: BLE001 - whatever keeps capsbench from being imported there
        raise Refused(f"cannot run capsbench ({_one_line(error)})") from None
    if refused:
        raise Refused(refused)


async def _hand_over(client: Client, station: Station, token: str, case_id: str, path: Path) -> None:
    """Give a station the checkpoint of a case, where there is one."""
    for data in _chunks(path):
        try:
            await _ask(client, station, hand, token, case_id, data)
        except Exception as error:  # noqa: BLE001 - its disk may be full
            raise Lost(f"did not take {CHECKPOINT} ({_one_line(error)})") from None


def _chunks(path: Path) -> Iterator[bytes]:
    if path.is_file():
        with path.open("rb") as file:
            while data := file.read(CHUNK_BYTES):
                yield data


async def _listen(client: Client, station: Station, token: str, inbox: Inbox, future: Future) -> Over:
    seen = 0
    while True:
        for number, text, payload in (delivery := await _fetch(client, station, token, seen)):
            if number > seen and (over := inbox.take(text, payload)) is not None:
                return over
            seen = max(seen, number)
        if not delivery and future.status in _ENDED:
            raise Lost(f"ended its task as {future.status}")


async def _fetch(client: Client, station: Station, token: str, seen: int) -> Delivery:
    """What is new; a connection that breaks is tried again: the desk forgets only what it was told has come."""
    for tried in range(_TRIES):
        try:
            delivery: Delivery | None = await _ask(client, station, fetch, token, seen)
        except OSError as error:
            if tried == _TRIES - 1:
                raise Lost(f"does not answer ({_one_line(error)})") from None
            await asyncio.sleep(_SECONDS_BETWEEN_TRIES)
        except Exception as error:  # noqa: BLE001 - whatever it is, the group is not coming
            raise Lost(f"failed ({_one_line(error)})") from None
        else:
            if delivery is None:
                raise Lost("has forgotten the group")
            return delivery
    raise AssertionError("the last try returns or raises")


async def _take_leave(client: Client, station: Station, token: str, future: Future) -> None:
    """Tell the station, if it still hears, that nobody waits any more; it ends what still runs."""
    if client.status != "running":
        return
    with suppress(Exception):
        async with asyncio.timeout(_GOODBYE_SECONDS):
            await _ask(client, station, close_desk, token)
    with suppress(Exception):
        if future is not None:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await client.cancel([future])


async def _ask(client: Client, station: Station, function: Callable[..., object], *arguments: object) -> Any:  # noqa: ANN401 - whatever it gives
    answers = await client.run(function, *arguments, workers=[station.address])
    return answers[station.address]


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
