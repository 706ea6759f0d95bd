"""Which group goes to which Dask worker: one a worker, where its cases fit, and not back to where it was lost.

Dask's own scheduler would put a group wherever a thread is free, also beside another that is being timed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from capsbench.dataset.protocol import DataUse
from capsbench.suite.cases import Case

GPU = "GPU"
_MOST_NAMED = 3

Refusals = Mapping[tuple[str, DataUse | None], str]
"""Why a station, by name, takes no group on a data set, or none at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """A Dask worker.

    Attributes:
        name: as Dask has it; it stays when a nanny starts the worker again.
        address: where it listens now.
        threads: that it was started with.
        gpus: of the resource GPU that it declares.
        idle: whether nothing runs there.
    """

    name: str
    address: str
    threads: int
    gpus: float = 0.0
    idle: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Errand:
    """A group that waits for a station.

    Attributes:
        cases: without those that have a record.
        lost: what happened to it so far, by the names of the stations that it was lost on.
        alone: one case of a group that was lost too often to be tried as a whole again.
    """

    cases: tuple[Case, ...]
    lost: tuple[tuple[str, str], ...] = ()
    alone: bool = False

    @property
    def threads(self) -> int:
        """That its cases ask for."""
        return max(threads_of(case) for case in self.cases)

    @property
    def gpus(self) -> int:
        """That its cases ask for."""
        return max(case.devices if case.device.startswith("cuda") else 0 for case in self.cases)


def threads_of(case: Case) -> int:
    """The threads that a case keeps busy: those of all its replicas where they share the processors."""
    return case.threads * (case.devices if case.device == "cpu" else 1)


def why_not(errand: Errand, station: Station, refusals: Refusals) -> str | None:
    """Why a station cannot take a group, after its name; None where it can."""
    if (refused := refusals.get((station.name, None))) is not None:
        return refused
    if errand.threads > station.threads:
        return f"has {_counted(station.threads)}, and {errand.threads} are asked for"
    if errand.gpus > station.gpus:
        return f"does not declare the resource {GPU}={errand.gpus}"
    return refusals.get((station.name, errand.cases[0].dataset))


def place(waiting: Sequence[Errand], stations: Sequence[Station], refusals: Refusals) -> list[tuple[Errand, Station]]:
    """Who goes where now: in the order of waiting, each to the least of the idle stations that will do.

    A group that was lost goes back to the same station only where no other can ever take it.
    """
    placed: list[tuple[Errand, Station]] = []
    idle = [station for station in stations if station.idle]
    for errand in waiting:
        fit = [station for station in stations if why_not(errand, station, refusals) is None]
        lost_on = {name for name, _ in errand.lost}
        fresh = [station for station in fit if station.name not in lost_on] or fit
        free = [station for station in fresh if station in idle]
        if free:
            station = min(free, key=lambda station: (station.gpus, station.threads))
            idle.remove(station)
            placed.append((errand, station))
    return placed


def hopeless(errand: Errand, stations: Sequence[Station], refusals: Refusals) -> str | None:
    """Why none of the stations can take a group; None where one can."""
    reasons = {station.name: why_not(errand, station, refusals) for station in stations}
    if None in reasons.values():
        return None
    named = [f"{name} {reason}" for name, reason in list(reasons.items())[:_MOST_NAMED]]
    rest = len(reasons) - len(named)
    return "no worker takes the case: " + "; ".join(named) + (f"; and {rest} more" if rest else "")


def _counted(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"
