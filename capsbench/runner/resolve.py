"""Ask the backends, each in a worker of its own and all at once, what is there; and give `auto` its meaning."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from capsbench import plugins
from capsbench.backend import Probe, Setting
from capsbench.errors import BadInput
from capsbench.runner.launch import Worker, receive, worker_environment
from capsbench.worker.limits import Limits
from capsbench.worker.messages import Done, ProbeJob, ProbePart, Received
from capsbench.worker.prepare import has_device

_PROBE_SECONDS = 300.0
_ANY_GPU = "cuda"  # a backend asked for the CPU may hide its GPUs


@dataclass(frozen=True, slots=True)
class Probed:
    """What a backend found when it imported its framework, or why it could not."""

    name: str
    versions: Mapping[str, str]
    devices: tuple[str, ...]
    problem: str | None


def probe(names: Iterable[str]) -> dict[str, Probed]:
    """Probe backends in parallel; one that cannot be used has its problem said, nothing is raised."""
    probed: dict[str, Probed] = {}
    workers: dict[str, Worker] = {}
    with ExitStack() as stack:
        for name in dict.fromkeys(names):
            try:
                backend = plugins.load(name)
                environment = worker_environment(backend, Setting(next(iter(backend.modes)), _ANY_GPU), "default")
            except Exception as error:  # noqa: BLE001 - a broken backend is reported
                probed[name] = Probed(name, {}, (), " ".join(str(error).split()))
                continue
            workers[name] = stack.enter_context(Worker(ProbeJob(backend=name), environment, Limits(_PROBE_SECONDS)))
        for name, worker in workers.items():
            probed[name] = _probed(name, receive(worker))
    return probed


def resolve_device(device: str, probed: Mapping[str, Probed]) -> dict[str, str]:
    """What a suite's device means for each backend: `auto` is its first GPU, else the CPU.

    Raises:
        BadInput: a backend cannot be used, or the device is not there.
    """
    return {name: _device(device, found) for name, found in probed.items()}


def _device(device: str, found: Probed) -> str:
    if found.problem is not None:
        raise BadInput(f"backend {found.name!r} cannot be used: {found.problem}")
    if device == "auto":
        return next((name for name in found.devices if name.startswith("cuda")), "cpu")
    if not has_device(Probe(found.versions, found.devices), device):
        raise BadInput(f"{found.name} has no device {device!r} here, only {', '.join(found.devices)}")
    return device


def _probed(name: str, received: Received) -> Probed:
    part = next((part for part in received.parts if isinstance(part, ProbePart)), None)
    if part is None:
        return Probed(name, {}, (), _problem(received.done))
    return Probed(name, part.versions, part.devices, None)


def _problem(done: Done) -> str:
    return done.reason or f"its probe ended as {done.status} without a word"
