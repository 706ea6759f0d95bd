"""A group of comparable cases, from their checks to their records; every case in processes of its own.

Cases that will be compared take their timing rounds in turns, forwards in even rounds and backwards in odd ones
(A B B A), so that a machine that drifts treats them alike. So a group stays on one machine, whoever runs it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from capsbench import plugins
from capsbench.dataset.atomic import remove_unfinished, whole_file
from capsbench.dataset.protocol import DataUse
from capsbench.errors import BadInput, Unwritten
from capsbench.measure.environment import Machine
from capsbench.network.text import plain
from capsbench.record.schema import Record
from capsbench.runner.assemble import DataFacts, Draft, assemble
from capsbench.runner.launch import Worker, receive, worker_environment
from capsbench.suite.cases import Case, comparable_group
from capsbench.worker.limits import limits_of
from capsbench.worker.messages import (
    AccuracyJob,
    CheckJob,
    DataJob,
    DataPart,
    Done,
    Job,
    NotesPart,
    Outcome,
    Place,
    Progress,
    Received,
    TimeJob,
)


class Keeper(Protocol):
    """Where records and larger files go."""

    run_id: str

    def append(self, record: Record) -> None:
        """Keep a record, so that it outlives this process."""

    def artifacts(self, case_id: str) -> Path:
        """The folder for a case's larger files."""


class Watcher(Protocol):
    """Who wants to know how far a group is."""

    def case_stage(self, case: Case, stage: str, done: int, total: int, detail: str) -> None:
        """A case is at `done` of `total` in its stage: `check`, `time`, `accuracy` or `histograms`."""

    def finished(self, record: Record) -> None:
        """A case has its record."""


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class GroupRun:
    """What all cases of a group share.

    Attributes:
        place: where data sets lie.
        keeper: takes each record as soon as its case has ended.
        watcher: hears how far the group is.
        machine: that runs it.
        rounds: timing rounds a case, in place of the suite's.
        abandoned: whether nobody waits for the group any more; `Abandoned` is raised then.
        timing_turn: entered for each timing round, so that groups on one machine can be timed one after the other.
    """

    place: Place
    keeper: Keeper
    watcher: Watcher
    machine: Machine
    rounds: int | None = None
    abandoned: Callable[[], bool] = _never
    timing_turn: Callable[[], AbstractContextManager[object]] = nullcontext


def turns(drafts: Sequence[Draft], rounds: int) -> Iterator[tuple[int, Draft]]:
    """Who is timed when: (round, case), forwards in even rounds, backwards in odd ones; failed cases drop out."""
    for number in range(rounds):
        for draft in drafts if number % 2 == 0 else reversed(drafts):
            if not draft.failed:
                yield number, draft


def sides(case: Case, number: int) -> tuple[Case, ...]:
    """What is timed of a case in a round: several devices take turns with one, A B in even rounds, B A in odd ones."""
    if case.devices == 1:
        return (case,)
    return (case, case.on_one_device())[:: 1 if number % 2 == 0 else -1]


def comparable_groups(cases: Iterable[Case]) -> list[list[Case]]:
    """The cases by what they are compared in, in the order in which each group first comes."""
    groups: dict[tuple[object, ...], list[Case]] = {}
    for case in cases:
        groups.setdefault(comparable_group(case), []).append(case)
    return list(groups.values())


def run_group(run: GroupRun, drafts: Sequence[Draft]) -> Iterator[Record]:
    """Check, time and train the cases of a group; a case that fails is a record like the others.

    Args:
        run: what they share.
        drafts: of fresh cases.

    Yields:
        Each record when its case has ended and the keeper has it.

    Raises:
        Abandoned: nobody waits for the group any more.
        Unwritten: the keeper takes no more records.
    """
    yield from _check(run, drafts)
    yield from _time(run, [draft for draft in drafts if "time" in draft.case.measure and not draft.failed])
    for draft in [draft for draft in drafts if not draft.failed]:
        if {"accuracy", "histograms"} & set(draft.case.measure):
            _perform(run, draft, AccuracyJob(case=draft.case, place=_place(run, draft)))
        yield _finish(run, draft)


def _check(run: GroupRun, drafts: Iterable[Draft]) -> Iterator[Record]:
    """Check the cases; the records of those that fail."""
    for draft in drafts:
        remove_unfinished(run.keeper.artifacts(draft.case.id))
        if draft.data.failure is not None:
            draft.end = draft.data.failure
        elif draft.data.violations:
            # A score on images that trained would be worse than none.
            draft.end = Done(
                status="unsupported", reason=f"the split may not be used: {'; '.join(draft.data.violations)}"
            )
        else:
            _perform(run, draft, CheckJob(case=draft.case, place=_place(run, draft)))
        if draft.failed:
            yield _finish(run, draft)


def _time(run: GroupRun, drafts: Sequence[Draft]) -> Iterator[Record]:
    """Time the cases in turns; the records of those that fail."""
    rounds = run.rounds or (drafts[0].case.time.rounds if drafts else 0)
    for number, draft in turns(drafts, rounds):
        for case in sides(draft.case, number):
            if not draft.failed:
                with run.timing_turn():
                    _perform(run, draft, TimeJob(case=case, place=_place(run, draft)), number, rounds)
        if draft.failed:
            yield _finish(run, draft)


def _perform(
    run: GroupRun, draft: Draft, job: CheckJob | TimeJob | AccuracyJob, number: int = 0, rounds: int = 1
) -> None:
    """Give a job to a worker of its own and take what it sends."""
    case = draft.case
    alone = ", one device" if job.case.devices < case.devices else ""

    def tell(progress: Progress) -> None:
        prefix = f"round {number + 1} of {rounds}{alone}, " if isinstance(job, TimeJob) else ""
        done = number * progress.total + progress.done
        run.watcher.case_stage(case, progress.stage, done, rounds * progress.total, f"{prefix}{progress.detail}")

    run.watcher.case_stage(case, job.kind, number, rounds, f"starting {case.backend}")
    try:
        environment = worker_environment(plugins.load(case.backend), job.case.setting, case.allocator)
    except Exception as error:  # noqa: BLE001 - a broken backend fails its own cases only
        status: Outcome = "bad_input" if isinstance(error, BadInput) else "crash"
        draft.take(Received((), Done(status=status, reason=" ".join(str(error).split()))))
        return
    try:
        started = Worker(job, environment, limits_of(case.limits, case.devices), run.abandoned)
    except OSError as error:
        reason = f"no worker could be started: {error.strerror or error}"
        draft.take(Received((), Done(status="crash", reason=reason)))
        return
    with started as worker:
        draft.take(receive(worker, tell))


def _finish(run: GroupRun, draft: Draft) -> Record:
    record = assemble(draft, run.keeper.run_id, run.machine)
    try:
        _keep_files(run.keeper.artifacts(draft.case.id), draft)
    except (OSError, Unwritten) as error:  # the record may find room where they did not
        record = replace(record, notes=(*record.notes, f"files of the case are missing: {error}"))
    run.keeper.append(record)
    run.watcher.finished(record)
    return record


def _keep_files(folder: Path, draft: Draft) -> None:
    if draft.rounds():
        alone = {"one_device": plain(draft.rounds_alone(), defaults=True)} if draft.case.devices > 1 else {}
        _write(folder / "timing.json", json.dumps({"rounds": plain(draft.rounds(), defaults=True), **alone}))
    if draft.failed and draft.stderr:
        _write(folder / "stderr.txt", draft.stderr)


def _write(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text.encode("utf-8", "replace"))


def describe_data(place: Place, cases: Iterable[Case], watcher: Watcher) -> dict[DataUse, DataFacts]:
    """Load every data set that the cases use, each once and in a worker.

    A worker that was killed at it says nothing about the data: it costs the cases that use them, and no others.

    Raises:
        BadInput: of the first that cannot be used.
    """
    first = {case.dataset: case for case in reversed(list(cases))}
    facts = {}
    for choice, case in first.items():
        received = _one_off(DataJob(dataset=choice, place=place), _teller(watcher, case))
        data = next((part for part in received.parts if isinstance(part, DataPart)), None)
        if data is None:
            if received.done.status == "bad_input":
                raise BadInput(received.done.reason)
            reason = f"the data could not be read: {received.done.reason}"
            facts[choice] = DataFacts(failure=Done(status=received.done.status, reason=reason))
            continue
        notes = tuple(note for part in received.parts if isinstance(part, NotesPart) for note in part.notes)
        facts[choice] = DataFacts(data.data, notes, data.violations)
    return facts


def _one_off(job: Job, tell: Callable[[Progress], object]) -> Received:
    with Worker(job, {}) as worker:
        return receive(worker, tell)


def _teller(watcher: Watcher, case: Case) -> Callable[[Progress], object]:
    return lambda progress: watcher.case_stage(case, "data", progress.done, progress.total, progress.detail)


def _place(run: GroupRun, draft: Draft) -> Place:
    return Place(
        data_root=run.place.data_root,
        cache=run.place.cache,
        artifacts=str(run.keeper.artifacts(draft.case.id).resolve()),
    )
