"""Which case runs when on this machine: group by group, in the order in which the suites name them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from capsbench.measure.environment import Machine, describe_machine
from capsbench.runner.assemble import Draft
from capsbench.runner.group import GroupRun, Keeper, Watcher, comparable_groups, describe_data, run_group
from capsbench.runner.interrupt import ending_on_signals
from capsbench.suite.cases import Case
from capsbench.worker.messages import Place


class Store(Keeper, Protocol):
    """Where records and larger files go, and what is there."""

    def finished(self) -> set[str]:
        """Ids of the cases that need not run again."""


class Listener(Watcher, Protocol):
    """Who wants to know how far the run is."""

    def started(self, total: int) -> None:
        """So many cases will run."""


def run_cases(
    cases: Iterable[Case],
    *,
    data_root: Path | None,
    cache: Path | None,
    store: Store,
    listener: Listener,
    rounds: int | None = None,
    machine: Machine | None = None,
) -> None:
    """Run every case that the store does not know as finished; a case that fails is a record like the others.

    Args:
        cases: with devices resolved.
        data_root: the folder that holds the data sets; None for the default.
        cache: where generated data sets are kept; None for the default.
        store: takes each record as soon as its case has ended.
        listener: hears how far the run is.
        rounds: timing rounds a case, in place of the suite's.
        machine: what fingerprints are taken of; this one by default.

    Raises:
        BadInput: a data set is missing or broken; nothing has run then.
        Unwritten: the store takes no more records.
        SystemExit: a signal asked for the end.
    """
    waiting = still_to_run(cases, store)
    place = Place(data_root=_text(data_root), cache=_text(cache))
    run = GroupRun(place, store, listener, machine or describe_machine(), rounds)
    listener.started(len(waiting))
    with ending_on_signals():
        facts = describe_data(place, waiting, listener)
        for group in comparable_groups(waiting):
            for _record in run_group(run, [Draft(case, facts[case.dataset]) for case in group]):
                pass  # the store has it; a sweep may have more of them than memory holds


def still_to_run(cases: Iterable[Case], store: Store) -> list[Case]:
    """The cases that the store does not know as finished, each once."""
    done = store.finished()
    return list({case.id: case for case in cases if case.id not in done}.values())


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
