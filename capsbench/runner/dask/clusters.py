"""The Dask cluster of `--cluster`: one started on this machine, a scheduler that is running, or a user's factory."""

from __future__ import annotations

import asyncio
import importlib
import logging
import re
import signal
import socket
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

from capsbench.errors import BadInput, Unavailable
from capsbench.measure.environment import usable_cores
from capsbench.runner.dask.placement import GPU, threads_of
from capsbench.runner.group import comparable_groups
from capsbench.suite.cases import Case

if TYPE_CHECKING:
    from distributed import Client, Security, SpecCluster

LOCAL: Final = "local"
CONNECT_SECONDS: Final = 5.0
_OPTION: Final = "--cluster"
_LEGAL: Final = "legal are local, local:N, tcp://HOST:PORT, tls://HOST:PORT and MODULE:FACTORY"
_ADDRESS: Final = re.compile(r"(?:tcp|tls)://(?:\[([^\s\]]+)\]|([^\s/:]+)):([0-9]{1,5})")
_FACTORY: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")

# Switches off what costs processor time beside the measurements (sampling of stacks, monitors), and work stealing,
# because groups are placed by us.
_QUIET_CONFIG: Final = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.system-monitor.disk": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster whose scheduler answers.

    Attributes:
        address: of the scheduler.
        security: certificates for connections to it, as Dask holds them; None for Dask's configuration.
        is_local: whether it was started on this machine for this run: its workers see the same files as this process,
            and no worker joins later.
    """

    address: str
    security: Security | None = None
    is_local: bool = False


def check_cluster(where: str) -> str:
    """Return the value of `--cluster` unchanged.

    Raises:
        BadInput: it has none of the legal forms, or Dask is not installed.
    """
    legal = re.fullmatch(r"local(:[1-9][0-9]{0,3})?", where) or _ADDRESS.fullmatch(where) or _FACTORY.fullmatch(where)
    if not legal or (where.startswith("local:") and not where[6:].isdigit()):
        raise BadInput(f"{where!r} is no cluster, {_LEGAL}", _OPTION)
    if find_spec("distributed") is None:
        raise BadInput("Dask is not installed; pip install 'capsbench[dask]' brings it", "--executor")
    return where


@contextmanager
def open_cluster(where: str, cases: Sequence[Case]) -> Iterator[Cluster]:
    """Reach or start a cluster for the duration of the block; what was started is stopped afterwards.

    Args:
        where: `local`, `local:N`, the address of a scheduler, or `module:factory`.
        cases: that will run there; the workers of `local` are sized for them.

    Raises:
        BadInput: there is no cluster at `where`.
        Unavailable: Dask is installed but cannot be imported.
    """
    check_cluster(where)
    if "://" in where:
        _check_port(where)  # before Dask is imported, which takes seconds
    with _silenced_dask():
        if "://" in where:
            yield _check_scheduler(Cluster(where))
            return
        kind, _, rest = where.partition(":")
        cluster = _start_local(cases, int(rest) if rest else None) if kind == LOCAL else _call_factory(kind, rest)
        with closing(cluster):
            yield _check_scheduler(Cluster(cluster.scheduler_address, cluster.security, is_local=kind == LOCAL))


@contextmanager
def connect(cluster: Cluster) -> Iterator[Client]:
    """Connect a client for the duration of the block; what it has submitted and not yet released is cancelled then.

    Raises:
        Unavailable: the scheduler has gone.
    """
    from distributed import Client  # noqa: PLC0415 - imported only where Dask is asked for

    try:
        client = Client(cluster.address, security=cluster.security, set_as_default=False, timeout=CONNECT_SECONDS)
    except OSError as error:
        raise Unavailable(f"the Dask scheduler at {cluster.address} has gone") from error
    with client:
        yield client


def one_line(error: BaseException) -> str:
    """Return an exception's type and message on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _start_local(cases: Sequence[Case], count: int | None) -> SpecCluster:
    """Start workers with as many threads as the largest case asks for; the first one owns the machine's GPUs.

    Without a count there are as many as there are cores for, and no more than groups. They ignore Ctrl-C, which a
    terminal sends to them too: this process stops them.
    """
    from distributed import Nanny, Scheduler, SpecCluster  # noqa: PLC0415 - imported only where Dask is asked for

    threads = max((threads_of(case) for case in cases), default=1)
    gpus = max((case.devices for case in cases), default=1)  # a case fails by itself where they do not exist
    cores = min(psutil.cpu_count(logical=False) or 1, usable_cores())
    count = count or max(1, min(cores // threads, len(comparable_groups(cases))))
    server = {"host": "127.0.0.1", "dashboard": False}
    options = {**server, "nthreads": threads, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    workers = {
        n: {"cls": Nanny, "options": {**options, "resources": {GPU: gpus if n == 0 else 0}}} for n in range(count)
    }
    scheduler = {"cls": Scheduler, "options": {**server, "port": 0}}
    resource_tracker.ensure_running()  # a process of Python's, which must not inherit the mask
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited by what is started here
    try:
        return SpecCluster(workers=workers, scheduler=scheduler, silence_logs=False)
    except Exception as error:  # noqa: BLE001 - no port, no process
        raise BadInput(f"no cluster could be started here: {one_line(error)}", _OPTION) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _call_factory(module: str, name: str) -> Any:  # noqa: ANN401 - whatever a user's module holds
    """Return the cluster that a user's factory makes, or the cluster object of that name."""
    where = f"{_OPTION} {module}:{name}"
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        cluster = found() if callable(found) and not hasattr(found, "scheduler_address") else found
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's code may fail in any way
        raise BadInput(one_line(error), where) from None
    if not all(hasattr(cluster, name) for name in ("scheduler_address", "security", "close")):
        raise BadInput(f"{type(cluster).__name__!r} is no Dask cluster", where)
    return cluster


def _check_port(address: str) -> None:
    """Refuse an address at which nothing listens."""
    [(bracketed, plain, port)] = _ADDRESS.findall(address)
    try:
        socket.create_connection((bracketed or plain, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"no Dask scheduler answers there: {reason}", f"{_OPTION} {address}") from None


def _check_scheduler(cluster: Cluster) -> Cluster:
    """Return the cluster if a Dask scheduler answers at its address within `CONNECT_SECONDS`."""

    async def identify() -> None:
        # A `Client` would wait for longer where something listens that never answers.
        security = cluster.security or Security()
        async with asyncio.timeout(CONNECT_SECONDS):
            async with rpc(cluster.address, connection_args=security.get_connection_args("client")) as scheduler:
                kind = (await scheduler.identity())["type"]
        if kind != "Scheduler":
            raise ValueError(f"it is a Dask {kind}")

    from distributed import Security, rpc  # noqa: PLC0415 - imported only where Dask is asked for

    try:
        asyncio.run(identify())
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - anything may listen there
        said = f"no Dask scheduler answers there within {CONNECT_SECONDS:g} seconds: {one_line(error)}"
        raise BadInput(said, f"{_OPTION} {cluster.address}") from None
    return cluster


@contextmanager
def _silenced_dask() -> Iterator[None]:
    """Import Dask with `_QUIET_CONFIG`, and keep its log messages and warnings off the screen during the block."""
    try:
        import dask  # noqa: PLC0415 - imported only where Dask is asked for
        import distributed  # noqa: F401, PLC0415 - sets up its loggers
    except Exception as error:  # noqa: BLE001 - a broken installation raises anything
        raise Unavailable(f"Dask is installed but cannot be imported: {one_line(error)}") from None
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"]
    before = {name: logging.getLogger(name).level for name in (*names, "tornado", "asyncio")}
    for name in before:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        with dask.config.set(_QUIET_CONFIG), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(distributed|tornado)\b")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
