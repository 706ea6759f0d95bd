"""SIGTERM and SIGHUP end a run as Ctrl-C does: the worker is stopped, and what was recorded stays."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Turn a scheduler's SIGTERM, and the SIGHUP of a terminal that closes, into `SystemExit` while the block runs.

    So context managers do their work. A signal that was ignored when the program was started stays ignored, as Unix
    has it: SIGHUP under `nohup`; SIGINT, which Python leaves alone then, after `&` in a script. Workers are ended by
    SIGKILL, whatever they inherit. Only the main thread can take signals; in any other, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - what signal handlers are passed
    raise SystemExit(128 + number)
