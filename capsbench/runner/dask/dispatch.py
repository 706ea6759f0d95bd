"""The machine that keeps a run whose groups run on Dask: sends them out, takes records and files in, and tries again.

A group goes to an idle worker that is chosen here (`placing`) and stays there. What it has to say is fetched from the
worker's desk, so a record is on this disk as soon as its case has ended, whatever becomes of the worker then. A group
that was lost with its worker is tried on others; what has a record is not run again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from capsbench.dataset.protocol import DataUse
from capsbench.errors import Unavailable
from capsbench.measure.environment import Machine, describe_machine
from capsbench.runner.assemble import DataFacts, Draft, assemble
from capsbench.runner.dask.clusters import Reached, client_of
from capsbench.runner.dask.courier import Lost, Refused, carry, key_of
from capsbench.runner.dask.inbox import Board, Inbox
from capsbench.runner.dask.parcel import Parcel
from capsbench.runner.dask.placing import GPU, Errand, Station, hopeless, place
from capsbench.runner.dask.signals import Signals, signals_after
from capsbench.runner.group import comparable_groups, describe_data
from capsbench.runner.interrupt import ending_on_signals
from capsbench.runner.schedule import Store, still_to_run
from capsbench.suite.cases import Case
from capsbench.worker.messages import Done, Outcome, Place

if TYPE_CHECKING:
    from distributed import Client

MOST_LOST = 3  # times that a group is lost, after which its cases are recorded as crashed
JOIN_SECONDS = 15.0  # that a worker which would do is waited for, where others are there and idle
_ANSWER_SECONDS = 10.0
_SECONDS_BETWEEN_LOOKS = 1.0
_LOOKS = 3


def run_on_dask(
    cases: Iterable[Case],
    *,
    cluster: Reached,
    data_root: Path | None,
    cache: Path | None,
    store: Store,
    listener: Board,
    rounds: int | None = None,
    machine: Machine | None = None,
) -> None:
    """Run every case that the store does not know as finished on a Dask cluster.

    Args:
        cases: with devices resolved.
        cluster: that answers.
        data_root: the folder that holds the data sets, on this machine where the cluster is here, else on the workers.
        cache: where generated data sets are kept, likewise; None for each machine's default.
        store: takes each record as soon as its case has ended.
        listener: hears how far the run is.
        rounds: timing rounds a case, in place of the suite's.
        machine: this one, as precisely as any may be told; described by default.

    Raises:
        BadInput: the cluster is here, and a data set is missing or broken; nothing has run then.
        Unavailable: the cluster's scheduler has gone.
        Unwritten: the store takes no more records.
        SystemExit: a signal asked for the end.
    """
    waiting = still_to_run(cases, store)
    where = Place(data_root=_absolute(data_root), cache=_absolute(cache))
    listener.started(len(waiting))
    with ending_on_signals():
        # Hashed once where all workers see the same files; elsewhere each worker says which images it has itself.
        facts = describe_data(where, waiting, listener) if cluster.here else {}
        sweep = _Sweep(cluster, where, store, listener, rounds, facts, waiting, machine or describe_machine())
        with signals_after() as come:
            asyncio.run(sweep.run(come))


@dataclass(frozen=True, slots=True)
class _Errand:
    """A group that is on its way."""

    errand: Errand
    station: Station
    inbox: Inbox
    task: asyncio.Task[None]


class _Sweep:
    """A run on a cluster."""

    def __init__(
        self,
        cluster: Reached,
        where: Place,
        store: Store,
        board: Board,
        rounds: int | None,
        facts: Mapping[DataUse, DataFacts],
        cases: Iterable[Case],
        machine: Machine,
    ) -> None:
        self._cluster, self._where, self._store, self._board = cluster, where, store, board
        self._rounds, self._facts = rounds, facts
        self._machine = machine
        self._waiting = [Errand(cases=tuple(group)) for group in comparable_groups(cases)]
        self._running: dict[str, _Errand] = {}
        self._keys: set[str] = set()
        self._refusals: dict[tuple[str, DataUse | None], str] = {}
        self._known: set[str] = set()
        self._seen = False
        self._joined = time.monotonic()

    async def run(self, come: Signals) -> None:
        """Until no group is left.

        Raises:
            Unavailable: the scheduler has gone.
        """
        with come.cancelling():
            async with client_of(self._cluster) as client:
                try:
                    while self._waiting or self._running:
                        self._settle()  # first: whose group has ended is seen as idle then
                        stations = await self._look(client)
                        self._cancel_lost(stations)
                        self._send_out(client, stations)
                        self._consider(stations)
                        await self._pause()
                finally:
                    for sent in self._running.values():
                        sent.task.cancel()
                    await asyncio.gather(*(sent.task for sent in self._running.values()), return_exceptions=True)

    async def _look(self, client: Client) -> list[Station]:
        """The workers that are there now."""
        for tried in range(_LOOKS):
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    identity = await client.scheduler.identity()
                    processing = await client.processing()
                break
            except (OSError, RuntimeError, ValueError, asyncio.CancelledError) as error:
                # Dask cancels, or raises what comes to hand, where its client has closed for want of a scheduler.
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
                if tried == _LOOKS - 1 or client.status == "closed":
                    raise Unavailable(f"the Dask scheduler at {self._cluster.address} has gone") from error
                await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
        foreign = {address for address, keys in processing.items() if set(map(str, keys)) - self._keys}
        stations = [
            Station(
                name=str(facts["name"]),
                address=address,
                threads=facts["nthreads"],
                gpus=facts["resources"].get(GPU, 0.0),
                idle=facts["status"] == "running"
                and str(facts["name"]) not in self._running
                and address not in foreign,
            )
            for address, facts in identity["workers"].items()
        ]
        if (names := {station.name for station in stations}) != self._known:
            self._known, self._joined = names, time.monotonic()
        self._seen = self._seen or bool(stations)
        return sorted(stations, key=lambda station: (len(station.name), station.name))

    def _settle(self) -> None:
        """See to the groups that have ended."""
        for name, sent in list(self._running.items()):
            if sent.task.done():
                del self._running[name]
                self._board.worker_free(name)
                self._take_back(sent)

    def _cancel_lost(self, stations: list[Station]) -> None:
        """End the errands whose worker has left."""
        addresses = {station.address for station in stations}
        for sent in self._running.values():
            if sent.station.address not in addresses:
                sent.task.cancel()

    def _take_back(self, sent: _Errand) -> None:
        left, lost = sent.inbox.left(), sent.errand.lost
        try:
            sent.task.result()
        except asyncio.CancelledError:
            lost = (*lost, (sent.station.name, _named(sent.station, "left the cluster")))
        except Lost as error:
            lost = (*lost, (sent.station.name, _named(sent.station, str(error))))
        except Refused as error:
            self._refusals[sent.station.name, sent.errand.cases[0].dataset if error.data else None] = str(error)
        if left and len(lost) == MOST_LOST:
            reasons = "; ".join(reason for _, reason in lost)
            self._give_up(left, "crash", f"no worker finished the case: {reasons}")
        elif left and len(lost) == MOST_LOST - 1 and len(left) > 1:
            # One of them may be what kills workers; the others shall not go down with it again.
            self._waiting[:0] = [Errand(cases=(case,), lost=lost, alone=True) for case in left]
        elif left:
            self._waiting.insert(0, replace(sent.errand, cases=left, lost=lost))

    def _send_out(self, client: Client, stations: list[Station]) -> None:
        for errand, station in place(self._waiting, stations, self._refusals):
            self._waiting.remove(errand)
            parcel = Parcel(
                token=uuid4().hex,
                run=self._store.run_id,
                cases=errand.cases,
                place=self._where,
                rounds=self._rounds,
                machine=self._machine,
                alone=errand.alone,
                data=self._facts.get(errand.cases[0].dataset),
            )
            self._keys.add(key_of(parcel))
            inbox = Inbox(errand, station, self._store, self._board)
            task = asyncio.create_task(carry(client, errand, station, parcel, inbox, self._store.artifacts))
            self._running[station.name] = _Errand(errand, station, inbox, task)

    def _consider(self, stations: list[Station]) -> None:
        """Where nothing runs: say what is waited for, or that nothing will come of waiting."""
        if self._running or not self._waiting:
            return
        reasons = [hopeless(errand, stations, self._refusals) for errand in self._waiting]
        if not stations:
            self._board.waiting(f"waiting for {'a' if self._seen else 'the first'} worker of {self._cluster.address}")
        elif None in reasons:
            self._board.waiting("waiting for a worker that does nothing else")
        elif not self._cluster.here and time.monotonic() - self._joined < JOIN_SECONDS:
            self._board.waiting(f"waiting for another worker: {reasons[0]}")
        else:
            for errand, reason in zip(self._waiting, reasons, strict=True):
                # What a worker lacks may be there the next time; what a case asks for is what this cluster is not.
                status: Outcome = "crash" if hopeless(errand, stations, {}) is None else "unsupported"
                self._give_up(errand.cases, status, str(reason))
            self._waiting.clear()

    def _give_up(self, cases: Iterable[Case], status: Outcome, reason: str) -> None:
        for case in cases:
            draft = Draft(case, DataFacts(), end=Done(status=status, reason=reason))
            record = assemble(draft, self._store.run_id, self._machine)
            self._store.append(record)
            self._board.finished(record)

    async def _pause(self) -> None:
        if self._running:
            tasks = [sent.task for sent in self._running.values()]
            await asyncio.wait(tasks, timeout=_SECONDS_BETWEEN_LOOKS, return_when=asyncio.FIRST_COMPLETED)
        elif self._waiting:
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)


def _named(station: Station, reason: str) -> str:
    return (
        f"{station.name} {reason}"
        if station.name == station.address
        else f"{station.name} at {station.address} {reason}"
    )


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())
