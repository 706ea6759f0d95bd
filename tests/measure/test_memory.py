import os
import subprocess
import sys

from capsbench.measure.memory import peak_resident_bytes, resident_bytes


def test_resident_memory_of_this_process():
    """A running interpreter holds megabytes, and never more than its peak."""
    resident = resident_bytes(os.getpid())
    assert resident is not None
    assert 1 << 20 < resident <= peak_resident_bytes() * 1.01


def test_an_ended_process_holds_nothing():
    """The number of a process that has ended yields None."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert resident_bytes(process.pid) is None
