"""The same work on many items, done by as many processes as there are cores."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_LEAST: Final = 64
"""Items for which processes are worth their start."""
_MOST: Final = 8
"""Processes; each has what it touches of this one's memory for itself."""


@contextmanager
def on_all_cores(work: Callable[[T], R], items: Sequence[T]) -> Iterator[Iterator[R]]:
    """What is made of each item, in their order; begun at once, whatever this process does until it asks for it.

    The processes are forked, so that nothing must be handed to them; where there is no sound fork, or little to do,
    this process does it all. It also does whatever another one fails to do, so that errors are raised here.

    Args:
        work: must give the same in any process, and something that can be pickled.
        items: of the work.
    """
    workers = min(_MOST, len(os.sched_getaffinity(0))) if sys.platform == "linux" and len(items) >= _LEAST else 1
    if workers == 1:
        yield map(work, items)
        return
    context, readers, started = get_context("fork"), [], []
    for number in range(workers):
        reader, connection = context.Pipe(duplex=False)
        readers.append(reader)
        process = context.Process(target=_serve, args=(connection, readers, work, items[number::workers]), daemon=True)
        process.start()
        connection.close()
        started.append(process)
    try:
        yield _in_order(readers, work, items)
    finally:
        for process in started:
            process.kill()
            process.join()
        for reader in readers:
            reader.close()


def _in_order(readers: Sequence[Connection], work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    for place, item in enumerate(items):
        try:
            yield readers[place % len(readers)].recv()
        except (EOFError, OSError):  # the process has ended before its work was done
            yield work(item)


def _serve(
    connection: Connection, readers: Sequence[Connection], work: Callable[[T], object], items: Sequence[T]
) -> None:
    """In another process: do the work, and hand over what comes of it when it is asked for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # With the others' ends closed a pipe breaks when the process that asks ends, however it does.
    for reader in readers:
        reader.close()
    made: SimpleQueue[list[object]] = SimpleQueue()
    sender = Thread(target=_hand_over, args=(connection, made))
    sender.start()
    with suppress(Exception):  # whoever asks does it again, and sees what is wrong
        for item in items:
            made.put([work(item)])
    made.put([])
    sender.join()


def _hand_over(connection: Connection, made: "SimpleQueue[list[object]]") -> None:
    try:
        while found := made.get():
            connection.send(found[0])
    except OSError:  # nobody is there any more
        os._exit(1)
