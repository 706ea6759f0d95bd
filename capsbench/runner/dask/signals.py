"""A signal that ends a run ends the work of an event loop first, so that workers are told before this process goes."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Signals:
    """Signals that somebody handles: they end the event loop's work first, and are handled then."""

    def __init__(self) -> None:
        self.handlers: dict[int, Callable[..., object]] = {}
        self.came: list[int] = []

    @contextmanager
    def cancelling(self) -> Iterator[None]:
        """While the block runs, a signal cancels the task that runs it."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        for number in self.handlers:
            loop.add_signal_handler(number, self._cancel, number, task)
        try:
            yield
        except asyncio.CancelledError:
            if not self.came:
                raise
        finally:
            for number in self.handlers:
                loop.remove_signal_handler(number)

    def _cancel(self, number: int, task: asyncio.Task[None] | None) -> None:
        self.came.append(number)
        if task is not None:
            task.cancel()


@contextmanager
def signals_after() -> Iterator[Signals]:
    """What `ending_on_signals` does to a signal waits for the end of the block."""
    signals = Signals()
    for number in (signal.SIGTERM, signal.SIGHUP):
        handler = signal.getsignal(number)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signals.handlers[number] = handler
    try:
        yield signals
    finally:
        for taken, handler in signals.handlers.items():
            signal.signal(taken, handler)
    for came in signals.came:
        signals.handlers[came](came, None)
