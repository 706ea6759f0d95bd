"""A worker that takes turns with another one, sample by sample, so that what the machine does to one it does to both.

The other end of its socket is held by `runner.turns`. Where nobody takes turns, nothing waits.
"""

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

VARIABLE: Final = "CAPSBENCH_TURNS"
"""In the environment: the number of the descriptor that turns are asked for with."""

ASKS: Final = b"?"
GO_ON: Final = b"!"


def wait_for_turn() -> None:
    """Wait until it is this process's turn; its turn lasts until it asks for the next one, or ends.

    Where whoever hands turns out is gone, it is always its turn.
    """
    for descriptor in descriptors(os.environ):
        with suppress(OSError):
            os.write(descriptor, ASKS)
            os.read(descriptor, len(GO_ON))


def descriptors(environment: Mapping[str, str]) -> tuple[int, ...]:
    """The descriptor that an environment names, which a worker started in it must inherit; none where there is none."""
    told = environment.get(VARIABLE, "")
    if not (told.isascii() and told.isdigit()):
        return ()
    try:
        is_socket = stat.S_ISSOCK(os.fstat(int(told)).st_mode)
    except (OSError, OverflowError):
        return ()  # the variable is older than this process
    return (int(told),) if is_socket else ()
