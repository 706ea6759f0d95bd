"""Run cases on a Dask cluster: place their groups on workers, and try again elsewhere what is lost with a worker.

A record is kept as soon as its case has ended, so a worker that dies costs only the cases that had not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from capsbench import __version__
from capsbench.dataset.protocol import DataUse
from capsbench.errors import BadInput, Unavailable, Unwritten
from capsbench.measure.environment import Machine, describe_machine
from capsbench.runner.assemble import DataFacts, Draft, assemble
from capsbench.runner.dask.attempt import (
    ANSWER_SECONDS,
    Attempt,
    DaskListener,
    Event,
    LostError,
    RefusedError,
    call,
)
from capsbench.runner.dask.clusters import Cluster, connect, one_line
from capsbench.runner.dask.group_task import GroupTask, check_worker
from capsbench.runner.dask.placement import GPU, DaskWorker, PendingGroup, place, unplaceable_reason
from capsbench.runner.group import comparable_groups, describe_data
from capsbench.runner.interrupt import ending_on_signals
from capsbench.runner.schedule import Store, still_to_run
from capsbench.suite.cases import Case
from capsbench.worker.messages import Done, Outcome, Place

if TYPE_CHECKING:
    from distributed import Client

MAX_LOSSES: Final = 3
"""Lost attempts at a group after which its cases are recorded as crashed."""
JOIN_SECONDS: Final = 15.0
"""How long a cluster none of whose workers will do is given for another worker to join."""
_SECONDS_BETWEEN_LOOKS: Final = 1.0
_MAX_FAILURES: Final = 3


def run_on_dask(
    cases: Iterable[Case],
    *,
    cluster: Cluster,
    data_root: Path | None,
    cache: Path | None,
    store: Store,
    listener: DaskListener,
    rounds: int | None = None,
    machine: Machine | None = None,
) -> None:
    """Run every case that the store does not know as finished on a Dask cluster.

    Args:
        cases: with devices resolved.
        cluster: whose scheduler answers.
        data_root: root directory of the data sets, on the workers.
        cache: directory of generated data sets, on the workers; None for each machine's default.
        store: takes each record as soon as its case has ended.
        listener: hears how far the run is.
        rounds: timing rounds a case, in place of the suite's.
        machine: this one, as precisely as records may describe it; detected by default.

    Raises:
        BadInput: the cluster is local, and a data set is missing or broken; nothing has run then.
        Unavailable: the cluster's scheduler has gone.
        Unwritten: the store takes no more records.
        SystemExit: a signal asked for the end.
    """
    waiting, machine = still_to_run(cases, store), machine or describe_machine()
    where = Place(data_root=_absolute(data_root), cache=_absolute(cache))
    listener.started(len(waiting))
    with ending_on_signals():
        # Local workers all see the same files, so those are hashed once; other workers describe their own.
        facts = describe_data(where, waiting, listener) if cluster.is_local else {}
        with connect(cluster) as client:
            task = partial(GroupTask, run=store.run_id, place=where, rounds=rounds, machine=machine)
            _Dispatcher(client, cluster, store, listener, machine, facts, task).run(waiting)


class _Dispatcher:
    """Sends the groups of a run to a cluster and takes in what comes of them, all in the calling thread."""

    def __init__(
        self,
        client: Client,
        cluster: Cluster,
        store: Store,
        listener: DaskListener,
        machine: Machine,
        facts: Mapping[DataUse, DataFacts],
        task: Callable[..., GroupTask],
    ) -> None:
        self._client, self._cluster, self._store, self._listener = client, cluster, store, listener
        self._machine, self._facts, self._task = machine, facts, task
        self._waiting: list[PendingGroup] = []
        self._attempts: dict[str, Attempt] = {}
        self._keys: set[str] = set()
        self._refusals: dict[tuple[str, DataUse | None], str] = {}
        self._checked: set[str] = set()
        self._joined = time.monotonic()
        self._events: SimpleQueue[Event] = SimpleQueue()  # filled by threads of Dask's client

    def run(self, cases: Iterable[Case]) -> None:
        """Run the cases until each has a record.

        Raises:
            Unavailable: the scheduler has gone.
            Unwritten: the store takes no more records.
        """
        self._waiting = [PendingGroup(cases=tuple(group)) for group in comparable_groups(cases)]
        failures = 0
        while self._waiting or self._attempts:
            try:
                self._step()
                failures = 0
            except (BadInput, Unwritten):
                raise
            except Exception as error:
                # Without a scheduler, Dask's client raises whatever comes to hand.
                failures += 1
                if failures == _MAX_FAILURES or not self._is_connected():
                    raise Unavailable(f"the Dask scheduler at {self._cluster.address} has gone") from error
                if not isinstance(error, OSError):
                    raise

    def _step(self) -> None:
        workers = self._look()
        self._lose_departed(workers)
        self._check_new(workers)
        self._submit(workers)
        self._handle_idleness(workers)
        self._handle_events()

    def _is_connected(self) -> bool:
        """Return whether Dask's client has a scheduler, after it has tried for some seconds to reach it again."""
        time.sleep(_SECONDS_BETWEEN_LOOKS)  # until it has noticed
        while self._client.status == "connecting":
            time.sleep(0.1)
        return bool(self._client.status == "running")

    def _look(self) -> list[DaskWorker]:
        """Return the workers that are connected to the scheduler now."""

        async def ask() -> tuple[dict[str, Any], dict[str, Any]]:
            return (await self._client.scheduler.identity())["workers"], await self._client.processing()

        workers, processing = self._client.sync(ask, callback_timeout=ANSWER_SECONDS)
        ours = {attempt.worker.address for attempt in self._attempts.values()}
        busy = {address for address, keys in processing.items() if set(map(str, keys)) - self._keys}
        found = [
            DaskWorker(
                name=str(facts["name"]),
                address=address,
                threads=facts["nthreads"],
                gpus=facts["resources"].get(GPU, 0.0),
                is_idle=facts["status"] == "running" and address not in ours | busy,
            )
            for address, facts in workers.items()
        ]
        return sorted(found, key=lambda worker: (len(worker.name), worker.name))

    def _lose_departed(self, workers: Iterable[DaskWorker]) -> None:
        addresses = {worker.address for worker in workers}
        for attempt in list(self._attempts.values()):
            if attempt.worker.address not in addresses:
                self._lose(attempt, "left the cluster")

    def _check_new(self, workers: Iterable[DaskWorker]) -> None:
        """Find out which of the workers that have joined can run groups of this capsbench."""
        new = {worker.address for worker in workers} - self._checked
        if not new:
            return
        for address, answer in call(self._client, new, check_worker, __version__).items():
            if isinstance(answer, Exception):
                self._refusals[address, None] = f"cannot run capsbench ({one_line(answer)})"
            elif answer:
                self._refusals[address, None] = answer
        self._checked |= new
        self._joined = time.monotonic()

    def _submit(self, workers: list[DaskWorker]) -> None:
        for group, worker in place(self._waiting, workers, self._refusals):
            attempt = Attempt(self._client, group, worker, self._store, self._listener)
            data = self._facts.get(group.cases[0].dataset)
            attempt.start(self._task(cases=group.cases, is_split=group.is_split, data=data), self._events.put)
            self._waiting.remove(group)
            self._attempts[attempt.key] = attempt
            self._keys.add(attempt.key)

    def _handle_events(self) -> None:
        """Handle what comes within a second, or until a worker is free."""
        until = time.monotonic() + _SECONDS_BETWEEN_LOOKS
        attempts = len(self._attempts)
        while len(self._attempts) == attempts and (left := until - time.monotonic()) > 0:
            try:
                event = self._events.get(timeout=left)
            except Empty:
                return
            if (attempt := self._attempts.get(event["task"])) is None:
                continue  # of another run, or of an attempt that was given up
            try:
                if attempt.handle(event):
                    self._end(attempt)
            except RefusedError as error:
                self._refusals[attempt.worker.address, attempt.group.cases[0].dataset] = str(error)
                self._end(attempt)
                self._waiting.insert(0, attempt.group)
            except LostError as error:
                self._lose(attempt, str(error))

    def _end(self, attempt: Attempt) -> None:
        del self._attempts[attempt.key]
        attempt.release()

    def _lose(self, attempt: Attempt, how: str) -> None:
        """Have what is left of a group tried again, or record it as crashed where that was done often enough."""
        self._end(attempt)
        losses = (*attempt.group.losses, (attempt.worker.name, f"{attempt.worker.label} {how}"))
        left = tuple(attempt.left.values())
        if not left:
            return
        if len(losses) == MAX_LOSSES:
            reasons = "; ".join(reason for _, reason in losses)
            self._record_unrun(left, "crash", f"no worker finished the case: {reasons}")
        elif len(losses) == MAX_LOSSES - 1 and len(left) > 1:
            # One of the cases may be what kills workers; alone, it takes no other one along.
            self._waiting[:0] = [PendingGroup(cases=(case,), losses=losses, is_split=True) for case in left]
        else:
            self._waiting.insert(0, replace(attempt.group, cases=left, losses=losses))

    def _handle_idleness(self, workers: list[DaskWorker]) -> None:
        """Where nothing runs, say what is waited for, or record that no worker will ever do."""
        if self._attempts or not self._waiting:
            return
        reasons = [unplaceable_reason(group, workers, self._refusals) for group in self._waiting]
        if not workers:
            self._listener.waiting(f"waiting for a worker to join the cluster {self._cluster.address}")
        elif None in reasons:
            self._listener.waiting("waiting for a worker that is not running other tasks")
        elif not self._cluster.is_local and time.monotonic() - self._joined < JOIN_SECONDS:
            self._listener.waiting(f"waiting for another worker: {reasons[0]}")
        else:
            for group, reason in zip(self._waiting, reasons, strict=True):
                # What a worker refuses, it may accept the next time; what the case asks for stays.
                status: Outcome = "crash" if unplaceable_reason(group, workers, {}) is None else "unsupported"
                self._record_unrun(group.cases, status, str(reason))
            self._waiting.clear()

    def _record_unrun(self, cases: Iterable[Case], status: Outcome, reason: str) -> None:
        for case in cases:
            draft = Draft(case, DataFacts(), end=Done(status=status, reason=reason))
            record = assemble(draft, self._store.run_id, self._machine)
            self._store.append(record)
            self._listener.finished(record)


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())
