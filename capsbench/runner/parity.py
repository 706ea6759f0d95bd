"""Parity of a backend over many networks, in one worker."""

from collections.abc import Callable, Sequence

from capsbench import plugins
from capsbench.backend import Setting
from capsbench.runner.launch import Worker, worker_environment
from capsbench.worker.messages import Done, ParityJob, ParityPart, Progress, SizedNetwork


def check_backend(
    backend: str,
    setting: Setting,
    networks: Sequence[SizedNetwork],
    on_part: Callable[[ParityPart], object] = lambda _part: None,
) -> tuple[ParityPart, ...]:
    """Compare networks with the oracle; one part a network, in order, whatever happens to the worker.

    Args:
        backend: name.
        setting: how it realizes the networks.
        networks: with the sizes they are to be realized for.
        on_part: hears of each network as soon as it is done.

    Raises:
        BadInput: the backend cannot be used.
    """
    environment = worker_environment(plugins.load(backend), setting, "default")
    job = ParityJob(backend=backend, setting=setting, networks=tuple(networks))
    parts: list[ParityPart] = []
    with Worker(job, environment) as worker:
        for message in worker.messages():
            match message:
                case ParityPart():
                    parts.append(message)
                    on_part(message)
                case Done():
                    parts.extend(_missing(networks[len(parts) :], message, on_part))
                case Progress() | _:
                    continue
    return tuple(parts)


def _missing(
    networks: Sequence[SizedNetwork], done: Done, on_part: Callable[[ParityPart], object]
) -> tuple[ParityPart, ...]:
    """What is said of the networks that the worker did not get to: the first one is where it ended."""
    reasons = [done.reason, *["not reached"] * len(networks)]
    parts = tuple(
        ParityPart(network=sized.network.name, parity=None, reason=reason)
        for sized, reason in zip(networks, reasons, strict=False)
    )
    for part in parts:
        on_part(part)
    return parts
