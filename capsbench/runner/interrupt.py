"""SIGTERM ends a run as Ctrl-C does: the worker is stopped, and what was recorded stays."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into `SystemExit` while the block runs, so that context managers do their work.

    Only the main thread can take signals; in any other, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - what signal handlers are passed
    raise SystemExit(128 + number)
