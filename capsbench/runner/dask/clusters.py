"""Where groups run: a cluster of this machine's own, a scheduler that is running, or what a user's factory gives."""

from __future__ import annotations

import asyncio
import importlib
import logging
import re
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from capsbench.errors import BadInput
from capsbench.measure.environment import usable_cores
from capsbench.runner.dask.placing import GPU, threads_of
from capsbench.runner.group import comparable_groups
from capsbench.suite.cases import Case

if TYPE_CHECKING:
    from distributed import Client, Security, SpecCluster

LOCAL = "local"
ANSWER_SECONDS = 5.0
_OPTION = "--cluster"
_LEGAL = "legal are local, local:N, tcp://HOST:PORT, tls://HOST:PORT and MODULE:FACTORY"
_LOGGERS = ("distributed", "tornado", "asyncio")


# What Dask does beside the work: it samples its own stacks a hundred times a second, looks after its event loop fifty
# times and at the machine twice, and moves tasks that we place ourselves.
_AT_REST: Final = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.system-monitor.disk": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
}


@dataclass(frozen=True, slots=True)
class Reached:
    """A cluster that answers.

    Attributes:
        address: of its scheduler.
        security: what a client must show there, as Dask has it; None for nothing.
        here: whether it was started here, for this run: then this machine's files are its files, and no worker joins.
    """

    address: str
    security: Security | None
    here: bool


def check_cluster(where: str) -> str:
    """The text as it is.

    Raises:
        BadInput: it is nothing that a cluster can be meant by, or Dask is not installed.
    """
    legal = (r"local(:[1-9][0-9]{0,3})?", r"(tcp|tls)://[^\s/:]+:[0-9]{1,5}", r"(tcp|tls)://\[[^\s\]]+\]:[0-9]{1,5}")
    factory = re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", where)
    if not any(re.fullmatch(pattern, where) for pattern in legal) and (factory is None or where.startswith("local:")):
        raise BadInput(f"{where!r} is no cluster, {_LEGAL}", _OPTION)
    if find_spec("distributed") is None:
        raise BadInput("Dask is not installed; pip install 'capsbench[dask]' brings it", "--executor")
    return where


@contextmanager
def reached(where: str, cases: Sequence[Case]) -> Iterator[Reached]:
    """A cluster that answers, while the block runs; what was started for it is stopped then.

    Args:
        where: `local`, `local:N`, the address of a scheduler, or `module:factory`.
        cases: that will run there.

    Raises:
        BadInput: there is none.
    """
    check_cluster(where)
    with _quiet():
        if "://" in where:
            yield _answering(Reached(where, None, here=False))
            return
        kind, _, rest = where.partition(":")
        cluster = _deaf(cases, int(rest) if rest else None) if kind == LOCAL else _made(kind, rest)
        with closing(cluster):
            yield _answering(Reached(cluster.scheduler_address, cluster.security, here=kind == LOCAL))


def _deaf(cases: Sequence[Case], count: int | None) -> SpecCluster:
    """Workers of this machine that do not hear Ctrl-C, which a terminal sends to all: this process ends them itself."""
    resource_tracker.ensure_running()  # Python's; who starts it hears Ctrl-C from then on
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # for what starts now, or from that later
    try:
        return _local(cases, count)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _local(cases: Sequence[Case], count: int | None) -> SpecCluster:
    """Workers of this machine, each with as many threads as a case asks for; the first of them has its GPUs.

    Without a number there are as many as have cores of their own, and not more than groups.
    """
    from distributed import Nanny, Scheduler, SpecCluster  # noqa: PLC0415 - only who asks for Dask imports it

    threads = max((threads_of(case) for case in cases), default=1)
    gpus = max(
        (case.devices for case in cases), default=1
    )  # as many as are asked for; a case says if they are not there
    cores = min(psutil.cpu_count(logical=False) or 1, usable_cores())
    count = count or max(1, min(cores // threads, len(comparable_groups(cases))))
    server = {"host": "127.0.0.1", "dashboard": False}
    options = {**server, "nthreads": threads, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    workers = {
        n: {"cls": Nanny, "options": {**options, "resources": {GPU: gpus if n == 0 else 0}}} for n in range(count)
    }
    scheduler = {"cls": Scheduler, "options": {**server, "port": 0}}
    try:
        return SpecCluster(workers=workers, scheduler=scheduler, silence_logs=False)
    except Exception as error:  # noqa: BLE001 - no port, no process: it is said
        raise BadInput(f"no cluster could be started here: {_one_line(error)}", _OPTION) from None


def _made(module: str, name: str) -> Any:  # noqa: ANN401 - whatever a user's module holds
    """What a user's factory gives, or the object that stands in its place."""
    where = f"{_OPTION} {module}:{name}"
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        cluster = found() if callable(found) and not hasattr(found, "scheduler_address") else found
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's code may fail in any way
        raise BadInput(_one_line(error), where) from None
    if not all(hasattr(cluster, name) for name in ("scheduler_address", "security", "close")):
        raise BadInput(f"{type(cluster).__name__!r} is no Dask cluster", where)
    return cluster


def _answering(cluster: Reached) -> Reached:
    async def ask() -> None:
        # Not by a client: its own limit knows no silence, and one that did not start cannot be closed.
        security = cluster.security or Security()
        async with asyncio.timeout(ANSWER_SECONDS):
            async with rpc(cluster.address, connection_args=security.get_connection_args("client")) as scheduler:
                kind = (await scheduler.identity())["type"]
        if kind != "Scheduler":
            raise ValueError(f"it is a Dask {kind}")

    from distributed import Security, rpc  # noqa: PLC0415 - see above

    try:
        asyncio.run(ask())
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - nor is it known what listens there
        said = f"no Dask scheduler answers there within {ANSWER_SECONDS:g} seconds: {_one_line(error)}"
        raise BadInput(said, f"{_OPTION} {cluster.address}") from None
    return cluster


def client_of(cluster: Reached) -> Client:
    """A client for the event loop that runs; to be entered."""
    from distributed import Client  # noqa: PLC0415 - see above

    return Client(
        cluster.address, security=cluster.security, asynchronous=True, set_as_default=False, timeout=ANSWER_SECONDS
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Dask logs and warns of from the screen: what concerns a run is in its records and its progress.

    What is started meanwhile leaves the processors to what is timed: see `_AT_REST`.
    """
    import dask  # noqa: PLC0415 - see above
    import distributed  # noqa: F401, PLC0415 - sets up its loggers, which are silenced next

    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in _LOGGERS]
    before = {name: logging.getLogger(name).level for name in (*_LOGGERS, *names)}
    for name in before:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        with dask.config.set(_AT_REST), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(distributed|tornado)\b")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
