"""Resident memory of processes: what limits are held against, and a footnote in records.

How much a network needs is said by the framework's allocator (`Realization.peak_bytes`); resident memory also holds the
interpreter, the framework's code, caches and freed pages.
"""

import multiprocessing
import re
import resource
import sys
from pathlib import Path

import psutil


def resident_bytes(pid: int) -> int | None:
    """Resident memory of a process now; None once it has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


def whole_resident_bytes(pid: int) -> int | None:
    """Resident memory of a process and of all that it has started; None once it has ended.

    What those share with others, such as the code of libraries, is counted for the first one only.
    """
    own = resident_bytes(pid)
    if own is None:
        return None
    try:
        started = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return own
    return own + sum(_unshared_bytes(process) for process in started)


def available_bytes() -> int:
    """What new processes can have without anything being written to disk for it."""
    return int(psutil.virtual_memory().available)


def peak_resident_bytes() -> int:
    """The most resident memory this process has had, and each replica that it has started and that still runs."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    own = peak if sys.platform == "darwin" else peak * 1024
    return own + sum(_peak_of(child.pid) for child in multiprocessing.active_children() if child.pid is not None)


def _unshared_bytes(process: psutil.Process) -> int:
    try:
        held = process.memory_info()
    except psutil.Error:  # it has ended
        return 0
    return int(held.rss - getattr(held, "shared", 0))


def _peak_of(pid: int) -> int:
    """Of another process; what it has now where the system does not keep the most."""
    try:
        told = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return resident_bytes(pid) or 0
    found = re.search(r"^VmHWM:\s+(\d+) kB$", told, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
