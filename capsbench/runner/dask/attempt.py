"""One attempt at a group: its task on a Dask worker, and what the task announces, taken into the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import uuid4

from capsbench.dataset.atomic import whole_file
from capsbench.errors import Unwritten
from capsbench.network.serialize import from_json, to_json
from capsbench.record.schema import Record
from capsbench.runner.dask.clusters import one_line
from capsbench.runner.dask.group_task import RECORD, TOPIC, GroupTask, read_files, run_group_task
from capsbench.runner.dask.placement import GPU, DaskWorker, PendingGroup
from capsbench.runner.schedule import Listener, Store
from capsbench.suite.cases import Case
from capsbench.worker.checkpoint import CHECKPOINT

if TYPE_CHECKING:
    from distributed import Client, Future

ANSWER_SECONDS: Final = 60.0
"""How long the cluster may take to answer, or to hand over the files of a case."""

Event = dict[str, Any]
"""What a task announces: the task's key, a kind, and what belongs to it; see `group_task`."""


class DaskListener(Listener, Protocol):
    """A listener that also hears what each worker does."""

    def waiting(self, what: str) -> None:
        """Nothing runs, for this reason."""

    def worker_stage(self, worker: str, case: Case, stage: str, done: int, total: int, detail: str) -> None:
        """As `case_stage`, on this worker."""

    def worker_free(self, worker: str) -> None:
        """Nothing runs on this worker now."""


class LostError(Exception):
    """An attempt ended before each of its cases had a record; the message says how, after the worker's name."""


class RefusedError(Exception):
    """The worker cannot use the group's data set; the message says why, after the worker's name."""


def call(client: Client, addresses: Iterable[str], function: Callable[..., Any], *arguments: object) -> dict[str, Any]:
    """Call a function in workers; return what it returned, or the exception that it raised, by address.

    Raises:
        Exception: the scheduler does not answer.
    """

    async def run() -> dict[str, Any]:
        answers: dict[str, Any] = await client.run(function, *arguments, workers=[*addresses], on_error="return")
        return answers

    answers: dict[str, Any] = client.sync(run, callback_timeout=ANSWER_SECONDS)
    return answers


class Attempt:
    """A group that runs on a worker.

    Attributes:
        group: as it was submitted.
        worker: where it runs.
        key: of its Dask task.
        left: the cases that have no record yet, by id.
    """

    def __init__(
        self, client: Client, group: PendingGroup, worker: DaskWorker, store: Store, listener: DaskListener
    ) -> None:
        self.group, self.worker = group, worker
        self.key = f"capsbench-{uuid4().hex}"
        self.left = {case.id: case for case in group.cases}
        self._client, self._store, self._listener = client, store, listener
        self._notes: dict[str, str] = {}

    def start(self, task: GroupTask, on_event: Callable[[Event], object]) -> None:
        """Submit the group; `on_event` is called, in a thread of Dask's client, for each event of any task."""
        kept = {case.id: self._store.artifacts(case.id) / CHECKPOINT for case in self.group.cases}
        self._client.subscribe_topic(TOPIC, lambda event: on_event(event[1]))  # Dask forgets it when it reconnects
        self._future = self._client.submit(
            run_group_task,
            to_json(task),
            {case_id: path.read_bytes() for case_id, path in kept.items() if path.is_file()},
            key=self.key,
            workers=[self.worker.address],
            allow_other_workers=False,
            pure=False,
            retries=0,
            resources={GPU: self.group.gpus} if self.group.gpus else None,
        )
        self._future.add_done_callback(partial(self._announce_end, on_event))

    def _announce_end(self, on_event: Callable[[Event], object], future: Future) -> None:
        how = f"failed: {one_line(future.exception())}" if future.status == "error" else f"was {future.status}"
        on_event({"task": self.key, "kind": "failed", "reason": f"could not go on: the Dask task {how}"})

    def release(self) -> None:
        """Tell Dask that the task is no longer wanted; if it still runs, its worker stops it."""
        self._future.release()
        self._listener.worker_free(self.worker.name)

    def handle(self, event: Event) -> bool:
        """Take in what the task announced; return whether the group has come to its end.

        Raises:
            LostError: it has not, and never will.
            RefusedError: likewise, for want of the data set.
            Unwritten: the store takes no more records.
        """
        case = self.left.get(event.get("case", ""))
        match event["kind"]:
            case "stage" if case:
                told = event["stage"], event["done"], event["total"], event["detail"]
                self._listener.worker_stage(self.worker.name, case, *told)
            case "files" if case:
                self._keep_files(case, self._read(case, event["files"]))
            case "record" if case:
                files = self._read(case, [*event["files"], RECORD])
                record = self._decode(case, files.pop(RECORD, b""))
                self._keep_files(case, files)
                self._keep_record(case, record)
            case "refused":
                raise RefusedError(event["reason"])
            case "failed":
                raise LostError(event["reason"])
            case "finished" if self.left:
                raise LostError("ended without a record of some case")
            case "finished":
                return True
        return False

    def _read(self, case: Case, names: list[str]) -> dict[str, bytes]:
        address = self.worker.address
        try:
            answer = call(self._client, [address], read_files, self.key, case.id, names)[address]
        except Exception as error:  # noqa: BLE001 - Dask raises anything where a worker or the scheduler goes
            answer = error
        if isinstance(answer, Exception):
            raise LostError(f"does not hand over the files of a case ({one_line(answer)})")
        files: dict[str, bytes] = answer
        return files

    def _decode(self, case: Case, text: bytes) -> Record:
        try:
            record = from_json(Record, text)
        except ValueError:
            raise LostError("sent a record that cannot be read") from None
        if record.case != case.key() or record.run != self._store.run_id:
            raise LostError("sent a record of another case")
        return record

    def _keep_files(self, case: Case, files: Mapping[str, bytes]) -> None:
        try:
            for name, data in files.items():
                with whole_file(self._store.artifacts(case.id) / Path(name).name) as file:
                    file.write(data)
        except (OSError, Unwritten) as error:  # the record may find room where its files did not
            self._notes[case.id] = f"files of the case are missing: {error}"

    def _keep_record(self, case: Case, record: Record) -> None:
        if case.id in self._notes:
            record = replace(record, notes=(*record.notes, self._notes[case.id]))
        self._store.append(record)
        del self.left[case.id]
        self._listener.finished(record)
