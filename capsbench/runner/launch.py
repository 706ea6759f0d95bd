"""Start a worker, listen to it, hold it to its limits, and leave nothing of it behind.

A worker leads a session and process group of its own: Ctrl-C reaches the parent only, and whatever a framework starts
(compilers, pools) goes down with it. Between messages the parent sleeps in a selector.
"""

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import IO, Self

import psutil

from capsbench.backend import Backend, Setting
from capsbench.worker import turns
from capsbench.worker.limits import SECONDS_BETWEEN_LOOKS, Limits, passed
from capsbench.worker.messages import Done, Job, Message, Part, Progress, Received, decode_message, encode

STDERR_BYTES = 64 * 1024
_CHUNK_BYTES = 256 * 1024
_EXIT_SECONDS = 5.0
_MOST_MESSAGE_BYTES = 64 << 20
_MOST_DRAINED_CHUNKS = 8  # more than a pipe holds, and an end even if something goes on writing
_HEAP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(8 << 30), "MALLOC_TOP_PAD_": str(64 << 20)}
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def worker_environment(backend: Backend, setting: Setting, allocator: str) -> dict[str, str]:
    """What stands in the worker's environment beside, or in place of, the parent's.

    Args:
        backend: whose own variables win.
        setting: its threads count for every library that has threads.
        allocator: `heap` keeps the C library from giving memory back to the system between steps.
    """
    threads = dict.fromkeys(_THREAD_VARIABLES, str(setting.threads))
    heap = _HEAP if allocator == "heap" else {}
    return {"PYTHONHASHSEED": "0", **threads, **heap, **backend.environment(setting)}


class Abandoned(Exception):  # noqa: N818 - not an error but how a worker ends that nobody waits for any more
    """Raised by a worker's messages when its caller says that nobody will ask for what is left."""


class Worker:
    """A running worker; a context manager, after which neither it nor its children run.

    `abandoned` is asked between messages, about twice a second; once it says yes, `messages` raises `Abandoned`.
    """

    def __init__(
        self,
        job: Job,
        environment: Mapping[str, str],
        limits: Limits | None = None,
        abandoned: Callable[[], bool] = lambda: False,
    ) -> None:
        inherited = {name: value for name, value in os.environ.items() if name not in _HEAP}
        whole = {**inherited, **environment}
        asks = turns.descriptors(whole)
        self._limits = replace(limits or Limits(), waits=bool(asks))
        self._abandoned = abandoned
        self._start = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "capsbench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=whole,
            bufsize=0,
            start_new_session=True,
            pass_fds=asks,
        )
        self._unread = bytearray()
        self._stderr = b""
        self._give(encode(job))

    @property
    def pid(self) -> int:
        """Of the worker, and of its process group."""
        return self._process.pid

    @property
    def stderr(self) -> str:
        """The end of what the worker wrote to stdout and stderr, and of what stood on the pipe but was no message."""
        return self._stderr.decode("utf-8", "replace")

    def messages(self) -> Iterator[Message]:
        """Every message as it comes; the last one is always a `Done`, the worker's own or ours in its place."""
        pipes = self._pipe(self._process.stdout), self._pipe(self._process.stderr)
        with selectors.DefaultSelector() as selector:
            for pipe in pipes:
                os.set_blocking(pipe, False)
                selector.register(pipe, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select(SECONDS_BETWEEN_LOOKS)}
                ended = not ready and self._has_ended()
                for message in self._read(pipes, ready, selector):
                    if isinstance(message, Done):
                        self._drain(pipes[1])
                    yield message
                    if isinstance(message, Done):
                        return
                if ended or pipes[0] not in selector.get_map():
                    self._drain(pipes[1])
                    yield self._how_it_ended()
                    return
                end = passed(self._limits, time.monotonic() - self._start, self.pid)
                if end is not None:
                    yield end
                    return
                if self._abandoned():
                    raise Abandoned

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _kill(self) -> int:
        """End the whole process group; how the worker ended, if it had before."""
        if self._process.returncode is None:  # once it has been waited for, its number may be somebody else's
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()

    def _give(self, line: bytes) -> None:
        pipe = self._pipe(self._process.stdin)
        with suppress(BrokenPipeError):  # it may have ended already, and `messages` will say how
            while line:
                line = line[os.write(pipe, line) :]

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> int:
        assert pipe is not None  # noqa: S101 - all three were asked for
        return pipe.fileno()

    def _read(self, pipes: tuple[int, int], ready: set[int], selector: selectors.BaseSelector) -> Iterator[Message]:
        for pipe in pipes:
            if pipe not in ready:
                continue
            data = _read_ready(pipe)
            if data == b"":
                selector.unregister(pipe)
            elif pipe == pipes[1]:
                self._keep(data or b"")
            else:
                yield from self._split(data or b"")

    def _split(self, data: bytes) -> Iterator[Message]:
        self._unread += data
        if b"\n" not in data:
            if len(self._unread) > _MOST_MESSAGE_BYTES:
                size = _MOST_MESSAGE_BYTES >> 20
                yield Done(status="crash", reason=f"the worker sent {size} MiB without an end of line")
            return
        *lines, rest = bytes(self._unread).split(b"\n")
        self._unread = bytearray(rest)
        for line in lines:
            message = decode_message(line)
            if message is None:
                self._keep(line + b"\n")
            else:
                yield message

    def _keep(self, noise: bytes) -> None:
        self._stderr = (self._stderr + noise)[-STDERR_BYTES:]

    def _drain(self, pipe: int) -> None:
        for _ in range(_MOST_DRAINED_CHUNKS):
            self._keep(_read_ready(pipe) or b"")

    def _has_ended(self) -> bool:
        try:
            return psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def _how_it_ended(self) -> Done:
        until = time.monotonic() + _EXIT_SECONDS
        while not self._has_ended() and time.monotonic() < until:
            time.sleep(0.01)
        if not self._has_ended():
            return Done(status="crash", reason="the worker closed its pipe but went on running")
        code = self._kill()
        return Done(status="crash", reason=describe_signal(-code) if code < 0 else f"ended with exit code {code}")


def receive(worker: Worker, on_progress: Callable[[Progress], object] = lambda _progress: None) -> Received:
    """Listen until the worker is done."""
    parts: list[Part] = []
    for message in worker.messages():
        match message:
            case Done():
                return Received(tuple(parts), message, worker.stderr)
            case Progress():
                on_progress(message)
            case _:
                parts.append(message)
    raise AssertionError("messages end with a Done")


def describe_signal(number: int) -> str:
    """How a process ended that a signal killed, in words."""
    name = signal.Signals(number).name if number in set(signal.Signals) else "unknown"
    hint = "; the system may have run out of memory" if number == signal.SIGKILL else ""
    return f"killed by signal {number} ({name}{hint})"


def _read_ready(pipe: int) -> bytes | None:
    """What stands in a pipe: b"" at its end, None while it is empty."""
    try:
        return os.read(pipe, _CHUNK_BYTES)
    except BlockingIOError:
        return None
