"""A group's news on their way: kept in the Dask worker until they have been fetched and the fetcher has said so.

The machine that keeps the run asks, and waits at the desk until there is something: nothing is pushed through Dask's
scheduler, which would have to keep it, and nothing polls while a case is timed. Who has not asked for a minute is gone.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from capsbench.runner.dask.parcel import Delivery, News, Parcel, Stage, encode
from capsbench.runner.launch import Abandoned

FETCH_SECONDS = 10.0  # that a fetcher waits where there is nothing
LEASE_SECONDS = 60.0  # without a fetcher, after which nobody waits for the group
MOST_BYTES = 256 << 20  # that wait to be fetched
_DELIVERY_BYTES = 8 << 20


class Desk:
    """Where a group's news wait; written by the thread that runs the group, fetched in Dask's event loop.

    Attributes:
        parcel: the group.
        folder: for its files.
    """

    def __init__(self, parcel: Parcel, folder: Path) -> None:
        self.parcel = parcel
        self.folder = folder
        self._news: deque[tuple[int, News, bytes]] = deque()
        self._number = 0
        self._sent = 0
        self._bytes = 0
        self._asked = time.monotonic()
        self._dropped = False
        self._changed = threading.Condition()
        self._ring: Callable[[], object] = _nobody

    def abandoned(self) -> bool:
        """Whether nobody waits for the group any more."""
        return self._dropped or time.monotonic() - self._asked > LEASE_SECONDS

    def drop(self) -> None:
        """Nobody waits for the group any more."""
        with self._changed:
            self._dropped = True
            self._news.clear()
            self._changed.notify_all()

    def put(self, news: News, payload: bytes = b"") -> None:
        """Lay down news; waits while too much of it has not been fetched.

        Raises:
            Abandoned: nobody will fetch it.
        """
        with self._changed:
            while payload and self._bytes and self._bytes + len(payload) > MOST_BYTES and not self.abandoned():
                self._changed.wait(1.0)
            if self.abandoned():
                raise Abandoned
            if isinstance(news, Stage) and self._news and self._replaceable(*self._news[-1]):
                self._news[-1] = (self._news[-1][0], news, payload)
            else:
                self._number += 1
                self._bytes += len(payload)
                self._news.append((self._number, news, payload))
            self._ring()

    async def fetch(self, seen: int) -> Delivery:
        """What is new after number `seen`, all before which is forgotten; nothing if nothing comes for a while."""
        bell = asyncio.Event()
        with self._changed:
            self._forget(seen)
            if not self._news:
                self._ring = partial(_ring, asyncio.get_running_loop(), bell)
        if self._ring is not _nobody:
            with suppress(TimeoutError):
                await asyncio.wait_for(bell.wait(), FETCH_SECONDS)
        with self._changed:
            self._ring = _nobody
            self._asked = time.monotonic()
            return self._take()

    def _replaceable(self, number: int, news: News, _payload: bytes) -> bool:
        return isinstance(news, Stage) and number > self._sent

    def _forget(self, seen: int) -> None:
        self._asked = time.monotonic()
        while self._news and self._news[0][0] <= seen:
            self._bytes -= len(self._news.popleft()[2])
        self._changed.notify_all()

    def _take(self) -> Delivery:
        taken: Delivery = []
        size = 0
        for number, news, payload in self._news:
            if taken and size + len(payload) > _DELIVERY_BYTES:
                break
            taken.append((number, encode(news), payload))
            size += len(payload)
            self._sent = number
        return taken


def _nobody() -> None:
    pass


def _ring(loop: asyncio.AbstractEventLoop, bell: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop has closed: Dask's worker is ending
        loop.call_soon_threadsafe(bell.set)
