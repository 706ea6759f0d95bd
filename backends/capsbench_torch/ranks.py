"""The processes of data-parallel training: this one is rank 0, and starts ranks 1 to N - 1 beside it.

They find each other as `torchrun` lets them: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT stand in each
one's environment, the port being one that the system has picked, so that two runs cannot meet. They are of this
process's group, end when their pipe does, and are started once a process: a second realization finds them there.
"""

import atexit
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Final

from torch import distributed

from capsbench.backend import Setting
from capsbench_torch.replica import READY, VALUE, Command, join, serve

COLLECTIVE_SECONDS: Final = 300.0
"""Until a replica that does not answer is given up. Compiling, which one may do longer than another, is within it."""
_START_SECONDS: Final = 300.0
_MOURNING_SECONDS: Final = 2.0
_HOST: Final = "127.0.0.1"


class Ranks:
    """Ranks 1 to N - 1, and this process as rank 0.

    Args:
        setting: whose replicas they are.

    Attributes:
        count: N.
    """

    def __init__(self, setting: Setting) -> None:
        self.count = setting.devices
        self._key = _key(setting)
        self._seconds = COLLECTIVE_SECONDS
        self._broken: str | None = None
        self._connections: list[Connection] = []
        self._processes: list[SpawnProcess] = []
        self._store = distributed.TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)
        self._before = dict(os.environ)
        with self.guarding():
            self._start(setting)

    def fits(self, setting: Setting) -> bool:
        """Whether they are alive and those that a setting wants."""
        alive = all(process.is_alive() for process in self._processes)
        return self._broken is None and alive and self._key == _key(setting)

    def tell(self, *command: Any) -> None:  # noqa: ANN401 - see `replica.Command`
        """Give all other ranks the same command."""
        self.tell_each([command] * (self.count - 1))

    def tell_each(self, commands: Sequence[Command]) -> None:
        """Give each other rank its command."""
        for connection, command in zip(self._connections, commands, strict=True):
            connection.send(command)

    def answers(self) -> list[Any]:
        """What each other rank answers, by rank."""
        return [self._answer(number, VALUE, self._seconds) for number in range(self.count - 1)]

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Say what happened at another rank where this one fails; nobody is left then."""
        if self._broken is not None:
            raise RuntimeError(self._broken)
        try:
            yield
        except Exception as error:
            found = self._why(error)
            self._broken = str(found)
            self.end()
            raise found from error

    def forget(self, kind: str, number: int) -> None:
        """Let the other ranks drop one of their `networks` or `batches`, where they are still there."""
        if self._broken is None:
            with suppress(OSError):
                self.tell("drop", kind, number)

    def check(self) -> None:
        """Raise where a process has ended that is still needed, which a waiting GPU would not hear of."""
        if not all(process.is_alive() for process in self._processes):
            raise RuntimeError("a replica has ended")

    def end(self) -> None:
        """End the other ranks, and with them what this one is."""
        self._broken = self._broken or "the replicas were ended"
        for process in self._processes:
            process.kill()
        for process, connection in zip(self._processes, self._connections, strict=True):
            process.join(_MOURNING_SECONDS)
            connection.close()
        for name in (*_environment(0, 1, 0), "GLOO_SOCKET_IFNAME"):
            if name in self._before:
                os.environ[name] = self._before[name]
            else:
                os.environ.pop(name, None)
        if distributed.is_initialized() and distributed.get_backend() == "gloo":  # NCCL would wait for the dead
            with suppress(RuntimeError):
                distributed.destroy_process_group()

    def _start(self, setting: Setting) -> None:
        context = multiprocessing.get_context("spawn")
        for rank in range(1, self.count):
            ours, theirs = context.Pipe()
            environment = _environment(rank, self.count, self._store.port)
            process = context.Process(
                target=serve, args=(theirs, environment, setting.replicas[rank], self._seconds), daemon=True
            )
            process.start()
            theirs.close()
            self._processes.append(process)
            self._connections.append(ours)
        for number in range(self.count - 1):
            self._answer(number, READY, _START_SECONDS)
        os.environ |= _environment(0, self.count, self._store.port)
        join(self._store, 0, self.count, setting.replicas[0], self._seconds)

    def _answer(self, number: int, kind: str, seconds: float) -> Any:  # noqa: ANN401 - whatever the command gives
        connection, process = self._connections[number], self._processes[number]
        if not wait([connection, process.sentinel], seconds):
            raise TimeoutError("timed out")
        told, value = connection.recv()
        if told != kind:
            raise RuntimeError(value)
        return value

    def _why(self, error: Exception) -> Exception:
        """What happened: another rank's own error, its death, its silence, or what this one met itself."""
        ended = wait([process.sentinel for process in self._processes], _MOURNING_SECONDS)
        for process in self._processes:
            if process.sentinel in ended:
                process.join(_MOURNING_SECONDS)  # its pipe closes a moment before it is gone
        for rank, (process, connection) in enumerate(zip(self._processes, self._connections, strict=True), 1):
            name = f"replica {rank} of {self.count}"
            with suppress(EOFError, OSError):
                while connection.poll():
                    kind, value = connection.recv()
                    if kind == "memory":
                        return MemoryError(f"{name}: {value}")
                    if kind == "failed":
                        return RuntimeError(f"{name}: {value}")
            if not process.is_alive():
                return RuntimeError(f"{name} {_how(process.exitcode)}")
        if "timed out" in str(error).lower() or isinstance(error, TimeoutError):
            return RuntimeError(f"a replica of {self.count} did not answer within {self._seconds:g} seconds")
        return error


def ranks(setting: Setting) -> Ranks:
    """The ranks of this process, started where there are none that fit."""
    global _current  # noqa: PLW0603 - a process has one process group, as PyTorch has it
    if _current is None or not _current.fits(setting):
        if _current is not None:
            _current.end()
        _current = Ranks(setting)
    return _current


_current: Ranks | None = None


@atexit.register
def end_all() -> None:
    """End the ranks of this process, where there are any."""
    if _current is not None:
        _current.end()


def _key(setting: Setting) -> tuple[object, ...]:
    return setting.replicas, setting.threads


def _environment(rank: int, count: int, port: int) -> dict[str, str]:
    """What `torchrun` puts into a process's environment; all replicas are on this machine, whatever its name is."""
    loopback = {} if "GLOO_SOCKET_IFNAME" in os.environ else {"GLOO_SOCKET_IFNAME": _loopback()}
    numbers: Mapping[str, int] = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
    return {**{name: str(value) for name, value in numbers.items()}, "MASTER_ADDR": _HOST, **loopback}


def _loopback() -> str:
    return "lo0" if sys.platform == "darwin" else "lo"


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
        return f"was killed by signal {-code} ({name})"
    return f"ended with exit code {code}"
