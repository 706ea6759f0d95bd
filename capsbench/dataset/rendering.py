"""Rendering many viewpoints on all cores, in order, with few of them in memory."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait

import numpy as np
from numpy.typing import NDArray

from capsbench.dataset.toys import Viewpoint, render

_AT_ONCE = 10  # viewpoints a task, some 0.3 s
_AHEAD = 3  # tasks a process that may wait to be taken
_WORTH_PROCESSES = 100  # viewpoints; fewer are rendered before processes have started


def render_all(views: Sequence[Viewpoint], processes: int | None = None) -> Iterator[NDArray[np.uint8]]:
    """Render viewpoints under all lightings.

    Args:
        views: what to render.
        processes: how many work at it; by default one a core, or only this one where that is quicker.

    Yields:
        uint8 [6, 2, 96, 96] a viewpoint, in the order of `views`; the same whatever the processes.
    """
    if processes is None:
        processes = _cores() if len(views) >= _WORTH_PROCESSES else 1
    done = 0
    if processes > 1:
        try:
            for pairs in _in_processes(views, processes):
                yield pairs
                done += 1
        except BrokenProcessPool:
            pass  # a program whose main module cannot be imported twice, or no room for more processes: go on alone
    yield from _render(views[done:])


def _in_processes(views: Sequence[Viewpoint], processes: int) -> Iterator[NDArray[np.uint8]]:
    # A fork would copy the locks of whatever threads a framework has started here.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, _end_with_parent)
    waiting: deque[Future[list[NDArray[np.uint8]]]] = deque()
    try:
        for start in range(0, len(views), _AT_ONCE):
            waiting.append(pool.submit(_render_some, views[start : start + _AT_ONCE]))
            if len(waiting) >= _AHEAD * processes:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _render_some(views: Sequence[Viewpoint]) -> list[NDArray[np.uint8]]:
    return list(_render(views))


def _render(views: Sequence[Viewpoint]) -> Iterator[NDArray[np.uint8]]:
    return (render(view.category, view.instance, view.elevation, view.azimuth) for view in views)


def _end_with_parent() -> None:
    """Leave an interrupt to the parent, and end when it is gone: a pool's processes would wait for it for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
