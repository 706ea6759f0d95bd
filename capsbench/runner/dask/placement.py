"""Which group of cases goes to which Dask worker: one group a worker, where its cases fit.

Dask's scheduler would start a group wherever a thread is free, also beside another one that is being timed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from capsbench.dataset.protocol import DataUse
from capsbench.suite.cases import Case

GPU = "GPU"
"""The Dask resource that a worker declares for its GPUs."""
_MAX_NAMED = 3

Refusals = Mapping[tuple[str, DataUse | None], str]
"""Why a worker, by address, takes no group on a data set, or (None) none at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaskWorker:
    """A Dask worker.

    Attributes:
        name: in Dask; it stays when a nanny restarts the worker.
        address: of the process that now has that name.
        threads: that it was started with.
        gpus: amount of the resource `GPU` that it declares.
        is_idle: whether nothing runs there.
    """

    name: str
    address: str
    threads: int
    gpus: float = 0.0
    is_idle: bool = True

    @property
    def label(self) -> str:
        """Name and address, as a reader of a reason wants them."""
        return self.name if self.name == self.address else f"{self.name} at {self.address}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PendingGroup:
    """A group of comparable cases that waits for a worker.

    Attributes:
        cases: of the group that have no record yet.
        losses: (worker's name, what happened) of each attempt at the group that was lost.
        is_split: whether it is one case of a group that was lost too often to be tried as a whole again.
    """

    cases: tuple[Case, ...]
    losses: tuple[tuple[str, str], ...] = ()
    is_split: bool = False

    @property
    def threads(self) -> int:
        """Threads that a worker must have."""
        return max(threads_of(case) for case in self.cases)

    @property
    def gpus(self) -> int:
        """Amount of the resource `GPU` that a worker must have."""
        return max(case.devices if case.device.startswith("cuda") else 0 for case in self.cases)


def threads_of(case: Case) -> int:
    """Return the threads that a case keeps busy; replicas on processors count once each."""
    return case.threads * (case.devices if case.device == "cpu" else 1)


def reason_against(group: PendingGroup, worker: DaskWorker, refusals: Refusals) -> str | None:
    """Return why a worker cannot take a group, to be read after its name; None where it can."""
    if (refusal := refusals.get((worker.address, None))) is not None:
        return refusal
    if group.threads > worker.threads:
        has = "1 thread" if worker.threads == 1 else f"{worker.threads} threads"
        return f"has {has}, and {group.threads} are asked for"
    if group.gpus > worker.gpus:
        return f"does not declare the resource {GPU}={group.gpus}"
    return refusals.get((worker.address, group.cases[0].dataset))


def place(
    waiting: Sequence[PendingGroup], workers: Sequence[DaskWorker], refusals: Refusals
) -> list[tuple[PendingGroup, DaskWorker]]:
    """Pair waiting groups, in their order, with idle workers; each gets the smallest one that fits.

    A group that was lost returns to the same worker only where no other can ever take it.
    """
    placed: list[tuple[PendingGroup, DaskWorker]] = []
    idle = [worker for worker in workers if worker.is_idle]
    for group in waiting:
        fit = [worker for worker in workers if reason_against(group, worker, refusals) is None]
        lost_on = {name for name, _ in group.losses}
        fresh = [worker for worker in fit if worker.name not in lost_on] or fit
        free = [worker for worker in fresh if worker in idle]
        if free:
            worker = min(free, key=lambda worker: (worker.gpus, worker.threads))
            idle.remove(worker)
            placed.append((group, worker))
    return placed


def unplaceable_reason(group: PendingGroup, workers: Sequence[DaskWorker], refusals: Refusals) -> str | None:
    """Return why none of the workers can ever take a group; None where one can."""
    reasons = {worker.name: reason_against(group, worker, refusals) for worker in workers}
    if None in reasons.values():
        return None
    named = [f"{name} {reason}" for name, reason in list(reasons.items())[:_MAX_NAMED]]
    rest = len(reasons) - len(named)
    return "no worker takes the case: " + "; ".join(named) + (f"; and {rest} more" if rest else "")
