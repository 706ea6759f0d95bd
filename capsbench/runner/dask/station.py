"""What happens in a Dask worker: groups are run as on any machine, in processes of their own, one group at a time.

Dask calls these functions by name: `work` as a task, the others in its event loop. No framework is imported here.
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from capsbench import __version__
from capsbench.dataset.protocol import DataUse
from capsbench.errors import BadInput
from capsbench.measure.environment import Machine, describe_machine, told_as
from capsbench.record.codec import encode
from capsbench.record.schema import Record
from capsbench.record.store import RunStore
from capsbench.runner.assemble import DataFacts, Draft
from capsbench.runner.dask.desk import Desk
from capsbench.runner.dask.parcel import Chunk, Delivery, Ended, Over, Parcel, Stage, decode_parcel
from capsbench.runner.group import GroupRun, describe_data, run_group
from capsbench.runner.launch import Abandoned
from capsbench.suite.cases import Case
from capsbench.worker.checkpoint import CHECKPOINT
from capsbench.worker.messages import Place

CHUNK_BYTES = 4 << 20

_desks: dict[str, Desk] = {}
_one_at_a_time = threading.Lock()
_facts: dict[tuple[DataUse, Place], DataFacts] = {}


def open_desk(text: str, version: str, dask_worker: Any = None) -> str:  # noqa: ANN401 - Dask's own, where it is there
    """Take a parcel in; what keeps this station from doing so, or an empty text.

    Args:
        text: the parcel.
        version: of the capsbench that sends it.
        dask_worker: given by Dask; files are kept in its folder, which Dask clears up after a worker that was killed.
    """
    if version != __version__:
        return f"has capsbench {__version__}, and the run is kept by {version}"
    try:
        parcel = decode_parcel(text)
    except ValidationError:
        return "has another capsbench, which does not understand the cases"
    folder = Path(tempfile.mkdtemp(prefix="capsbench-", dir=getattr(dask_worker, "local_directory", None)))
    for token in [token for token, desk in _desks.items() if desk.abandoned()]:
        close_desk(token)
    _desks[parcel.token] = Desk(parcel, folder)
    return ""


def hand(token: str, case_id: str, data: bytes) -> None:
    """Take more of a case's checkpoint.

    Raises:
        KeyError: there is no such desk.
    """
    with (RunStore(_desks[token].folder).artifacts(case_id) / CHECKPOINT).open("ab") as file:
        file.write(data)


async def fetch(token: str, seen: int) -> Delivery | None:
    """The news after number `seen`; None where there is no such desk."""
    desk = _desks.get(token)
    return None if desk is None else await desk.fetch(seen)


def close_desk(token: str) -> None:
    """Forget a group, and end it where it still runs."""
    desk = _desks.pop(token, None)
    if desk is not None:
        desk.drop()
        shutil.rmtree(desk.folder, ignore_errors=True)


def work(token: str) -> None:
    """Run the group of a desk, unless nobody waits for it any more."""
    desk = _desks.get(token)
    if desk is None:
        return
    try:
        with _one_at_a_time:
            _run(desk)
    except Abandoned:
        close_desk(token)
    finally:
        if token not in _desks:
            shutil.rmtree(desk.folder, ignore_errors=True)  # what was written after it was closed


def _run(desk: Desk) -> None:
    parcel = desk.parcel
    machine = told_as(describe_machine(), parcel.machine)
    watcher = _Reporter(desk)
    try:
        data = parcel.data or _describe(parcel.place, parcel.cases[0], watcher)
    except BadInput as error:
        desk.put(Over(reason=str(error), data=True))
        return
    data = replace(data, notes=(*data.notes, *_notes(parcel, machine)))
    run = GroupRun(parcel.place, watcher, watcher, machine, parcel.rounds, desk.abandoned)
    try:
        for _record in run_group(run, [Draft(case, data) for case in parcel.cases]):
            pass
        desk.put(Over())
    except Abandoned:
        raise
    except Exception as error:  # noqa: BLE001 - a full disk, say: another station may have room
        desk.put(Over(reason=" ".join(f"{type(error).__name__}: {error}".split())))


def _notes(parcel: Parcel, machine: Machine) -> Iterator[str]:
    """What a reader must know who takes a record for one of this run's first machine, in turns with others."""
    if machine != parcel.machine:
        memory = f"{machine.memory_bytes / 2**30:.0f} GiB"
        yield f"measured on another machine: {machine.processor}, {machine.cores} cores, {memory}, {machine.system}"
    if parcel.alone and any("time" in case.measure for case in parcel.cases):
        yield "timed alone: the cases that it would have taken turns with were lost with their workers"


def _describe(place: Place, case: Case, watcher: "_Reporter") -> DataFacts:
    """Facts on a case's data set, found out once in the life of a Dask worker: these are the images that it has."""
    key = case.dataset, place
    if key not in _facts:
        [found] = describe_data(place, [case], watcher).values()
        if found.failure is not None:
            return found
        _facts[key] = found
    return _facts[key]


class _Reporter:
    """Keeper and watcher of a group: lays everything on its desk."""

    def __init__(self, desk: Desk) -> None:
        self.run_id = desk.parcel.run
        self._desk = desk
        self._sent: dict[Path, tuple[int, int]] = {}

    def case_stage(self, case: Case, stage: str, done: int, total: int, detail: str) -> None:
        self._desk.put(Stage(case=case.id, stage=stage, done=done, total=total, detail=detail))
        if stage == "accuracy":
            self._send(case.id, self.artifacts(case.id) / CHECKPOINT)  # what a training goes on from elsewhere

    def artifacts(self, case_id: str) -> Path:
        return RunStore(self._desk.folder).artifacts(case_id)

    def append(self, record: Record) -> None:
        for path in sorted(self.artifacts(record.case.id).iterdir()):
            if not path.name.startswith("."):
                self._send(record.case.id, path)
        self._desk.put(Ended(case=record.case.id), encode(record))

    def finished(self, record: Record) -> None:
        pass  # said by `append`

    def _send(self, case_id: str, path: Path) -> None:
        """Send a file, unless it was sent as it is now."""
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return
        with file:
            stat = os.fstat(file.fileno())
            if self._sent.get(path) == (stat.st_ino, stat.st_mtime_ns):
                return
            data = file.read(CHUNK_BYTES)
            while following := file.read(CHUNK_BYTES):
                self._desk.put(Chunk(case=case_id, name=path.name, last=False), data)
                data = following
            self._desk.put(Chunk(case=case_id, name=path.name, last=True), data)
        self._sent[path] = stat.st_ino, stat.st_mtime_ns
