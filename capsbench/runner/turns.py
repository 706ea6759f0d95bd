"""Two works side by side: once both have asked for a turn one goes on at a time, until it asks again or ends.

Workers ask before each sample. So of two that time the same, one sample of one follows one of the other, and whatever
slows the machine down for a second or a minute is in both. Both start at the same time: of two that did so one after
the other, the first was some 5 % slower ever after.
"""

import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Generic, TypeVar

from capsbench.worker.turns import ASKS, GO_ON

T = TypeVar("T")

_ENDED: Final = b"."
_SECONDS_BETWEEN_LOOKS: Final = 0.5

Work = Callable[[int, Callable[[], bool]], T]
"""What is done: it is told the descriptor that its workers ask with, to be inherited and named to them in
`worker.turns.VARIABLE`, and a function that says whether nobody waits for it any more."""


@dataclass(slots=True)
class _Side(Generic[T]):
    """One work and how far it is.

    Attributes:
        work: see there.
        ours: the end that turns are handed out at.
        theirs: the end that workers ask at.
        thread: that does it, once it has started.
        waits: whether a worker of it asks for a turn.
        ended: whether it is done.
        result: what came of it.
        error: how it failed.
    """

    work: Work[T]
    ours: socket.socket
    theirs: socket.socket
    thread: threading.Thread | None = None
    waits: bool = False
    ended: bool = False
    result: list[T] = field(default_factory=list)
    error: BaseException | None = None

    def start(self, given_up: Callable[[], bool]) -> None:
        """Begin, in a thread."""
        self.thread = threading.Thread(target=self._do, args=(given_up,))
        self.thread.start()

    def _do(self, given_up: Callable[[], bool]) -> None:
        """All of it; the other end hears when it is done."""
        try:
            self.result.append(self.work(self.theirs.fileno(), given_up))
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
            self.error = error
        with suppress(OSError):  # nobody listens any more
            self.theirs.send(_ENDED)

    def hear(self) -> None:
        """Take note of what the other end says."""
        said = self.ours.recv(64)
        self.waits = self.waits or ASKS in said
        self.ended = self.ended or _ENDED in said

    def go_on(self) -> None:
        """Hand a turn to the worker that waits, if one does."""
        if self.waits:
            self.waits = False
            self.ours.send(GO_ON)


def in_turns(first: Work[T], second: Work[T]) -> tuple[T, T]:
    """Do two works, one at a time once both have asked for a turn, and say what came of them.

    Whatever goes wrong here, an interrupt for one, both are given up and have ended before it goes on.

    Raises:
        BaseException: what a work raised, the first one's before the second one's.
    """
    stop = threading.Event()
    with ExitStack() as stack:
        sides = (_side(first, stack), _side(second, stack))
        stack.callback(partial(_end, sides, stop))
        for side in sides:
            side.start(stop.is_set)
        _hand_out(*sides)
    for side in sides:
        if side.error is not None:
            raise side.error
    (a,), (b,) = (side.result for side in sides)
    return a, b


def _side(work: Work[T], stack: ExitStack) -> _Side[T]:
    ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
    return _Side(work, ours, theirs)


def _hand_out(running: _Side[T], other: _Side[T]) -> None:
    """Turns, until both have ended."""
    sides = running, other
    with selectors.DefaultSelector() as selector:
        for side in sides:
            selector.register(side.ours, selectors.EVENT_READ, side)
        while not all(side.waits or side.ended for side in sides):
            _hear(selector)
        running.go_on()
        while not all(side.ended for side in sides):
            _hear(selector)
            if running.waits or running.ended:
                if not other.ended:
                    running, other = other, running
                running.go_on()


def _hear(selector: selectors.BaseSelector) -> None:
    # Not for ever: a signal may reach another thread than this one, whose handlers run here.
    for key, _ in selector.select(_SECONDS_BETWEEN_LOOKS):
        key.data.hear()


def _end(sides: tuple[_Side[T], ...], stop: threading.Event) -> None:
    stop.set()
    for side in sides:
        side.ours.shutdown(socket.SHUT_RDWR)  # who waits for a turn need wait no more
        if side.thread is not None:
            side.thread.join()
