"""The ceilings of a device as a backend finds them, in a worker of their own."""

from dataclasses import dataclass

from capsbench import plugins
from capsbench.backend import FullPrecision, Setting
from capsbench.measure.ceilings import Ceilings
from capsbench.runner.launch import Worker, receive, worker_environment
from capsbench.worker.limits import Limits
from capsbench.worker.messages import CeilingsJob, CeilingsPart, Received

_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Found:
    """The ceilings, or why there are none."""

    ceilings: Ceilings | None
    problem: str


def measure_ceilings(name: str, device: str, threads: int, precision: FullPrecision) -> Found:
    """Have a backend measure a device; one that cannot has its problem said, nothing is raised.

    The worker's surroundings are those of a case: its threads, and an allocator that keeps what it has.
    """
    try:
        backend = plugins.load(name)
        setting = Setting(next(iter(backend.modes)), device, precision, threads)
        environment = worker_environment(backend, setting, "heap")
    except Exception as error:  # noqa: BLE001 - a broken backend is reported
        return Found(None, " ".join(str(error).split()))
    with Worker(CeilingsJob(backend=name, setting=setting), environment, Limits(_SECONDS)) as worker:
        return _found(receive(worker))


def _found(received: Received) -> Found:
    part = next((part for part in received.parts if isinstance(part, CeilingsPart)), None)
    if part is None:
        return Found(None, received.done.reason or f"the measurement ended as {received.done.status} without a word")
    return Found(part.ceilings, "" if part.ceilings is not None else "it does not say")
