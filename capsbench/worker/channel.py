"""The worker's two pipes, taken into safety before anything else is imported: standard library only.

Frameworks print from native code. So what was stdout becomes the message pipe under another descriptor, which children
do not inherit, and stdout from then on means stderr. The job comes on stdin, which stays open as long as the parent
lives: its end ends the worker and everything it has started.
"""

import fcntl
import os
import signal
import sys
import threading
from typing import BinaryIO


class Channel:
    """The job in, messages out."""

    def __init__(self, jobs: BinaryIO, messages: BinaryIO) -> None:
        self._jobs = jobs
        self._messages = messages

    def read_job(self) -> bytes:
        """The one line of the job."""
        return self._jobs.readline()

    def end_with_parent(self) -> None:
        """From now on, end this process and its children when the parent is gone.

        Only in a process group of its own, as the runner starts it; by hand, in a pipeline, it would end the shell's.
        """
        if os.getpgrp() == os.getpid():
            _kill_group_at_end_of(self._jobs.fileno())
            threading.Thread(target=self._wait_for_the_end, daemon=True).start()

    def write(self, line: bytes) -> None:
        """Send one line at once."""
        self._messages.write(line)
        self._messages.flush()

    def _wait_for_the_end(self) -> None:
        while self._jobs.read(1):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)


def _kill_group_at_end_of(pipe: int) -> None:
    """Have Linux kill the process group when a pipe closes: no thread runs while native code holds the interpreter."""
    if not hasattr(fcntl, "F_SETSIG"):
        return
    fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | fcntl.FASYNC)


def open_channel() -> Channel:
    """Take stdin and stdout for the channel; point stdin at nothing and stdout at stderr."""
    jobs = os.fdopen(os.dup(0), "rb", buffering=0)
    messages = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdout.flush()
    os.dup2(2, 1)
    return Channel(jobs, messages)
