"""What one worker may use, and whether it has used more. The parent asks; the worker's own allocator is left alone.

Address space (RLIMIT_AS) is no measure of anything here: frameworks reserve far more of it than they touch.
"""

from dataclasses import dataclass

from capsbench.measure.memory import resident_bytes, whole_resident_bytes
from capsbench.suite.schema import LimitChoice, memory_bytes
from capsbench.worker.messages import Done

SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """Wall seconds and resident bytes; None where there is no limit.

    Attributes:
        seconds: since the worker was started.
        memory_bytes: that it may hold.
        replicas: whether what the processes hold that it starts counts, too.
        waits: whether it takes turns with another one that does the same; then it has twice the time.
    """

    seconds: float | None = None
    memory_bytes: int | None = None
    replicas: bool = False
    waits: bool = False


def limits_of(choice: LimitChoice, devices: int) -> Limits:
    """The limits that a suite file asks for, of a case on so many devices, on which together they are."""
    memory = None if choice.memory is None else memory_bytes(choice.memory)
    return Limits(choice.seconds, memory, replicas=devices > 1)


def passed(limits: Limits, seconds: float, pid: int) -> Done | None:
    """How a worker must end that has run for `seconds` and now holds what it holds; None where it may go on."""
    if limits.seconds is not None and seconds > limits.seconds * (2 if limits.waits else 1):
        return Done(status="timeout", reason=f"stopped after the limit of {limits.seconds:g} seconds")
    # Looking for other processes takes a while: only where there are any.
    held = whole_resident_bytes if limits.replicas else resident_bytes
    resident = None if limits.memory_bytes is None else held(pid)
    if limits.memory_bytes is not None and resident is not None and resident > limits.memory_bytes:
        reason = f"stopped at {resident / 2**20:,.0f} MiB resident; the limit is {limits.memory_bytes / 2**20:,.0f} MiB"
        return Done(status="oom", reason=reason)
    return None
