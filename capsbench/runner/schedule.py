"""Which case runs when: check, interleaved timing rounds, training; every case in processes of its own.

Cases that will be compared take their timing rounds in turns, forwards in even rounds and backwards in odd ones
(A B B A), so that a machine that drifts treats them alike.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from capsbench import plugins
from capsbench.dataset.atomic import whole_file
from capsbench.dataset.protocol import DataUse
from capsbench.errors import BadInput
from capsbench.measure.environment import Machine, describe_machine
from capsbench.network.text import plain
from capsbench.record.schema import Record
from capsbench.runner.assemble import DataFacts, Draft, assemble
from capsbench.runner.interrupt import ending_on_sigterm
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


class Store(Protocol):
    """Where records and larger files go."""

    run_id: str

    def append(self, record: Record) -> None:
        """Keep a record, so that it outlives this process."""

    def artifacts(self, case_id: str) -> Path:
        """The folder for a case's larger files."""

    def finished(self) -> set[str]:
        """Ids of the cases that need not run again."""


class Listener(Protocol):
    """Who wants to know how far the run is."""

    def started(self, total: int) -> None:
        """So many cases will run."""

    def case_stage(self, case: Case, stage: str, done: int, total: int, detail: str) -> None:
        """A case is at `done` of `total` in its stage: `check`, `time`, `accuracy` or `histograms`."""

    def finished(self, record: Record) -> None:
        """A case has its record."""


@dataclass(frozen=True, slots=True)
class _Run:
    """What all cases of a run share."""

    place: Place
    store: Store
    listener: Listener
    machine: Machine
    rounds: int | None


def run_cases(
    cases: Iterable[Case],
    *,
    data_root: Path | None,
    cache: Path | None,
    store: Store,
    listener: Listener,
    rounds: int | None = None,
    machine: Machine | None = None,
) -> tuple[Record, ...]:
    """Run every case that the store does not know as finished; a case that fails is a record like the others.

    Args:
        cases: with devices resolved.
        data_root: the folder that holds the data sets; None for the default.
        cache: where generated data sets are kept; None for the default.
        store: takes each record as soon as its case has ended.
        listener: hears how far the run is.
        rounds: timing rounds a case, in place of the suite's.
        machine: what fingerprints are taken of; this one by default.

    Returns:
        The records of the cases that ran, in the order in which they ended.

    Raises:
        BadInput: a data set is missing or broken; nothing has run then.
    """
    done = store.finished()
    waiting = {case.id: case for case in cases if case.id not in done}
    place = Place(data_root=_text(data_root), cache=_text(cache))
    run = _Run(place, store, listener, machine or describe_machine(), rounds)
    listener.started(len(waiting))
    records: list[Record] = []
    with ending_on_sigterm():
        facts = _describe_data(run, waiting.values())
        for group in _groups(waiting.values()):
            drafts = [Draft(case, facts[case.dataset]) for case in group]
            records.extend(_run_group(run, drafts))
    return tuple(records)


def turns(drafts: Sequence[Draft], rounds: int) -> Iterator[tuple[int, Draft]]:
    """Who is timed when: (round, case), forwards in even rounds, backwards in odd ones; failed cases drop out."""
    for number in range(rounds):
        for draft in drafts if number % 2 == 0 else reversed(drafts):
            if not draft.failed:
                yield number, draft


def _groups(cases: Iterable[Case]) -> list[list[Case]]:
    groups: dict[tuple[object, ...], list[Case]] = {}
    for case in cases:
        groups.setdefault(comparable_group(case), []).append(case)
    return list(groups.values())


def _run_group(run: _Run, drafts: list[Draft]) -> Iterator[Record]:
    for draft in drafts:
        if draft.data.violations:
            # A score on images that trained would be worse than none.
            draft.end = Done(
                status="unsupported", reason=f"the split may not be used: {'; '.join(draft.data.violations)}"
            )
        else:
            _perform(run, draft, CheckJob(case=draft.case, place=_place(run, draft)))
        if draft.failed:
            yield _finish(run, draft)
    timed = [draft for draft in drafts if "time" in draft.case.measure and not draft.failed]
    rounds = run.rounds or (timed[0].case.time.rounds if timed else 0)
    for number, draft in turns(timed, rounds):
        _perform(run, draft, TimeJob(case=draft.case, place=_place(run, draft)), number, rounds)
        if draft.failed:
            yield _finish(run, draft)
    for draft in [draft for draft in drafts if not draft.failed]:
        if {"accuracy", "histograms"} & set(draft.case.measure):
            _perform(run, draft, AccuracyJob(case=draft.case, place=_place(run, draft)))
        yield _finish(run, draft)


def _perform(run: _Run, draft: Draft, job: CheckJob | TimeJob | AccuracyJob, number: int = 0, rounds: int = 1) -> None:
    """Give a job to a worker of its own and take what it sends."""
    case = draft.case

    def tell(progress: Progress) -> None:
        prefix = f"round {number + 1} of {rounds}, " if isinstance(job, TimeJob) else ""
        done = number * progress.total + progress.done
        run.listener.case_stage(case, progress.stage, done, rounds * progress.total, f"{prefix}{progress.detail}")

    run.listener.case_stage(case, job.kind, number, rounds, f"starting {case.backend}")
    try:
        environment = worker_environment(plugins.load(case.backend), case.setting, case.allocator)
    except Exception as error:  # noqa: BLE001 - a broken backend fails its own cases only
        status: Outcome = "bad_input" if isinstance(error, BadInput) else "crash"
        draft.take(Received((), Done(status=status, reason=" ".join(str(error).split()))))
        return
    with Worker(job, environment, limits_of(case.limits)) as worker:
        draft.take(receive(worker, tell))


def _finish(run: _Run, draft: Draft) -> Record:
    record = assemble(draft, run.store.run_id, run.machine)
    folder = run.store.artifacts(draft.case.id)
    if draft.rounds():
        _write(folder / "timing.json", json.dumps({"rounds": plain(draft.rounds(), defaults=True)}))
    if draft.failed and draft.stderr:
        _write(folder / "stderr.txt", draft.stderr)
    run.store.append(record)
    run.listener.finished(record)
    return record


def _write(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text.encode("utf-8", "replace"))


def _describe_data(run: _Run, cases: Iterable[Case]) -> dict[DataUse, DataFacts]:
    """Load every data set that the cases use, each once and in a worker; the first that cannot be used ends the run."""
    first = {case.dataset: case for case in reversed(list(cases))}
    facts = {}
    for choice, case in first.items():
        received = _one_off(DataJob(dataset=choice, place=run.place), _teller(run, case))
        data = next((part for part in received.parts if isinstance(part, DataPart)), None)
        if data is None:
            raise BadInput(received.done.reason)
        notes = tuple(note for part in received.parts if isinstance(part, NotesPart) for note in part.notes)
        facts[choice] = DataFacts(data.data, notes, data.violations)
    return facts


def _one_off(job: Job, tell: Callable[[Progress], object]) -> Received:
    with Worker(job, {}) as worker:
        return receive(worker, tell)


def _teller(run: _Run, case: Case) -> Callable[[Progress], object]:
    return lambda progress: run.listener.case_stage(case, "data", progress.done, progress.total, progress.detail)


def _place(run: _Run, draft: Draft) -> Place:
    return Place(
        data_root=run.place.data_root,
        cache=run.place.cache,
        artifacts=str(run.store.artifacts(draft.case.id).resolve()),
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
