"""The Dask task that runs a group of cases, and what the client calls in the worker beside it.

A task announces its progress as events on Dask's topic `TOPIC`: plain dicts with the task's key, a `kind`, and what
belongs to it. Files stay in the worker's folder until the client has read them: a task that has run its group says so
and waits until the client releases it. Dask also releases the task of a client that is gone, and closes a worker whose
scheduler is gone; the group is stopped then. No framework is imported here.
"""

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import gettempdir
from typing import Any, BinaryIO, Final

from capsbench import __version__
from capsbench.dataset import catalog
from capsbench.dataset.protocol import DataUse
from capsbench.errors import BadInput
from capsbench.measure.environment import Machine, describe_machine, told_as
from capsbench.network.serialize import from_json, to_json
from capsbench.record.schema import Record
from capsbench.runner.assemble import DataFacts, Draft
from capsbench.runner.dask.clusters import one_line
from capsbench.runner.group import GroupRun, describe_data, run_group
from capsbench.runner.launch import Abandoned
from capsbench.suite.cases import Case
from capsbench.worker.checkpoint import CHECKPOINT
from capsbench.worker.messages import Place

TOPIC: Final = "capsbench"
RECORD: Final = ".record.json"
"""Name of the file that holds a case's record, in the case's folder on the worker."""
_SECONDS_BETWEEN_LOOKS: Final = 0.1
_CLOSED: Final = frozenset({"closing", "closed", "failed"})

_one_at_a_time = threading.Lock()
_known_data: dict[tuple[DataUse, Place], tuple[object, DataFacts]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTask:
    """A group of comparable cases, as it is sent to a worker.

    Attributes:
        run: id of the run.
        cases: of the group that have no record yet.
        place: where the data sets lie on the worker.
        rounds: timing rounds a case, in place of the suite's.
        machine: that keeps the run.
        is_split: whether it is one case of a group that was lost too often to be tried as a whole again.
        data: facts on the group's data set; None where the worker describes it.
    """

    run: str
    cases: tuple[Case, ...]
    place: Place
    rounds: int | None
    machine: Machine
    is_split: bool = False
    data: DataFacts | None = None


def check_worker(version: str) -> str:
    """Return why this worker cannot run groups for a client with capsbench `version`; empty where it can."""
    return "" if version == __version__ else f"has capsbench {__version__}, and the run is kept by {version}"


def run_group_task(task: bytes, checkpoints: Mapping[str, bytes]) -> None:
    """Run a group in processes below this Dask worker, until its client has all of it or is gone.

    Args:
        task: the `GroupTask`, as JSON.
        checkpoints: contents of the checkpoints from which trainings are resumed, by case id.
    """
    from distributed import get_worker  # noqa: PLC0415 - imported only where Dask is asked for

    worker = get_worker()
    reporter = _Reporter(worker, worker.get_current_task(), from_json(GroupTask, task))
    try:
        with _one_at_a_time:  # the task before may still be stopping its processes
            for case_id, data in checkpoints.items():
                (reporter.artifacts(case_id) / CHECKPOINT).write_bytes(data)
            _run(reporter)
        while reporter.is_wanted():  # for the milliseconds that the client takes to read the last files
            time.sleep(0.01)
    except Abandoned:
        pass
    finally:
        shutil.rmtree(reporter.folder, ignore_errors=True)


def read_files(key: str, case_id: str, names: Sequence[str], dask_worker: Any = None) -> dict[str, bytes]:  # noqa: ANN401 - Dask's own class
    """Return the contents of a case's files by name; files that no longer exist are left out.

    Args:
        key: of the task.
        case_id: of the case.
        names: of the files.
        dask_worker: filled in by Dask.
    """
    paths = [_folder(dask_worker, key) / case_id / name for name in names]
    return {path.name: path.read_bytes() for path in paths if path.exists()}


def _folder(worker: Any, key: str) -> Path:  # noqa: ANN401 - Dask's own class
    return Path(worker.local_directory) / key  # Dask removes it if the worker is killed


def _run(reporter: "_Reporter") -> None:
    """Run the group, and announce how that ended.

    Raises:
        Abandoned: the task is no longer wanted.
    """
    task = reporter.task
    machine = told_as(describe_machine(), task.machine)
    try:
        data = task.data or _describe_data(task.place, task.cases[0], reporter)
        data = replace(data, notes=(*data.notes, *_notes(task, machine)))
        run = GroupRun(
            place=task.place,
            keeper=reporter,
            watcher=reporter,
            machine=machine,
            rounds=task.rounds,
            abandoned=lambda: not reporter.is_wanted(),
            timing_turn=lambda: timing_turn(reporter.is_wanted),
        )
        for _record in run_group(run, [Draft(case, data) for case in task.cases]):
            pass
        reporter.announce("finished")
    except Abandoned:
        raise
    except BadInput as error:
        reporter.announce("refused", reason=f"cannot use the data set: {error}")
    except Exception as error:  # noqa: BLE001 - a full disk, say: another worker may have room
        reporter.announce("failed", reason=f"failed: {one_line(error)}")


def _notes(task: GroupTask, machine: Machine) -> Iterator[str]:
    """Yield what tells a record from those that the run's own machine measured in turns."""
    if machine != task.machine:
        memory = f"{machine.memory_bytes / 2**30:.0f} GiB"
        yield f"measured on another machine: {machine.processor}, {machine.cores} cores, {memory}, {machine.system}"
    if task.is_split and any("time" in case.measure for case in task.cases):
        yield "timed alone: the cases that it would have taken turns with were lost with their workers"


def _describe_data(place: Place, case: Case, reporter: "_Reporter") -> DataFacts:
    """Describe a case's data set; what was found out is kept until one of its files changes.

    Raises:
        BadInput: files are missing or broken.
    """
    root = None if place.data_root is None else Path(place.data_root)
    files = [path.stat() for path, exists in catalog.locate(case.dataset.protocol.data, root) if exists]
    versions = [(file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns) for file in files]
    known = _known_data.get((case.dataset, place))
    if known is not None and known[0] == versions:
        return known[1]
    [found] = describe_data(place, [case], reporter).values()
    if found.failure is None:
        _known_data[case.dataset, place] = versions, found
    return found


@contextmanager
def timing_turn(is_wanted: Callable[[], bool]) -> Iterator[None]:
    """Let only one Dask worker of this user on this machine time a case during the block; others wait.

    Where there is no place for a lock file, nobody waits.

    Raises:
        Abandoned: the task is no longer wanted.
    """
    try:
        file = (Path(gettempdir()) / f"capsbench-timing-{os.getuid()}.lock").open("ab")
    except OSError:
        yield
        return
    with file:
        while not _try_lock(file):
            if not is_wanted():
                raise Abandoned
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        yield


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Reporter:
    """Keeps the files of a group on the worker, and announces them and the group's progress on Dask's topic."""

    def __init__(self, worker: Any, key: str, task: GroupTask) -> None:  # noqa: ANN401 - Dask's own class
        self.task = task
        self.run_id = task.run
        self.folder = _folder(worker, key)
        self._worker, self._key = worker, key
        self._announced: dict[Path, int] = {}

    def is_wanted(self) -> bool:
        """Return whether the client still waits for the task: Dask cancels tasks that it has released."""
        task = self._worker.state.tasks.get(self._key)
        return task is not None and task.state == "executing" and self._worker.status.name not in _CLOSED

    def announce(self, kind: str, **fields: object) -> None:
        """Send an event to the client."""
        self._worker.log_event(TOPIC, {"task": self._key, "kind": kind, **fields})

    def artifacts(self, case_id: str) -> Path:
        folder = self.folder / case_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def case_stage(self, case: Case, stage: str, done: int, total: int, detail: str) -> None:
        self.announce("stage", case=case.id, stage=stage, done=done, total=total, detail=detail)
        if stage == "accuracy" and (files := self._changed([self.artifacts(case.id) / CHECKPOINT])):
            self.announce("files", case=case.id, files=files)  # so that another worker can resume the training

    def append(self, record: Record) -> None:
        folder = self.artifacts(record.case.id)
        files = self._changed(sorted(path for path in folder.iterdir() if not path.name.startswith(".")))
        (folder / RECORD).write_bytes(to_json(record))
        self.announce("record", case=record.case.id, files=files)

    def finished(self, record: Record) -> None:
        """Do nothing: `append` has announced the record."""

    def _changed(self, paths: Iterable[Path]) -> list[str]:
        """Return the names of those files that exist and have not been announced as they are now."""
        versions = {path: path.stat().st_mtime_ns for path in paths if path.exists()}
        changed = [path.name for path, version in versions.items() if self._announced.get(path) != version]
        self._announced |= versions
        return changed
