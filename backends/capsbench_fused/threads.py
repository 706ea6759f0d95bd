"""A few threads that outlive a call. The kernels release the interpreter's lock, so plain threads run side by side.

No OpenMP: a second runtime beside the framework's own fights it for the cores, and a forked child that inherits one is
killed at its first parallel loop.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Lock

_MOST = 256
_lock = Lock()
_pool: ThreadPoolExecutor | None = None


def run(calls: Sequence[Callable[[], object]]) -> None:
    """Make all calls side by side, the first in this thread, and wait for all; then raise what the first of them did.

    Two threads may call this at once; a call must not call it itself.
    """
    if len(calls) == 1:
        calls[0]()
        return
    waiting = [_executor().submit(call) for call in calls[1:]]
    try:
        calls[0]()
    finally:
        errors = [future.exception() for future in waiting]
    for error in errors:
        if error is not None:
            raise error


def split(count: int, parts: int) -> list[tuple[int, int]]:
    """Consecutive ranges that cover range(count): `parts`, or fewer lest one be empty, as even as can be."""
    parts = max(1, min(parts, count))
    bounds = [count * part // parts for part in range(parts + 1)]
    return list(pairwise(bounds))


def _executor() -> ThreadPoolExecutor:
    global _pool  # noqa: PLW0603 - one pool a process, which a forked child must not inherit
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(_MOST, thread_name_prefix="capsbench-fused")
        return _pool


def _forget() -> None:
    """In a forked child: the parent's threads are not there, and its lock may be held by one of them."""
    global _lock, _pool
    _lock, _pool = Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
