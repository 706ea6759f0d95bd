"""Resident memory of processes: what limits are held against, and a footnote in records.

How much a network needs is said by the framework's allocator (`Realization.peak_bytes`); resident memory also holds the
interpreter, the framework's code, caches and freed pages.
"""

import resource
import sys

import psutil


def resident_bytes(pid: int) -> int | None:
    """Resident memory of a process now; None once it has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


def peak_resident_bytes() -> int:
    """The most resident memory this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
