"""What one worker may use, and whether it has used more. The parent asks; the worker's own allocator is left alone.

Address space (RLIMIT_AS) is no measure of anything here: frameworks reserve far more of it than they touch.
"""

from dataclasses import dataclass

from capsbench.measure.memory import resident_bytes
from capsbench.suite.schema import LimitChoice, memory_bytes
from capsbench.worker.messages import Done

SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """Wall seconds and resident bytes; None where there is no limit."""

    seconds: float | None = None
    memory_bytes: int | None = None


def limits_of(choice: LimitChoice) -> Limits:
    """The limits that a suite file asks for."""
    return Limits(choice.seconds, None if choice.memory is None else memory_bytes(choice.memory))


def passed(limits: Limits, seconds: float, pid: int) -> Done | None:
    """How a worker must end that has run for `seconds` and now holds what it holds; None where it may go on."""
    if limits.seconds is not None and seconds > limits.seconds:
        return Done(status="timeout", reason=f"stopped after the limit of {limits.seconds:g} seconds")
    resident = None if limits.memory_bytes is None else resident_bytes(pid)
    if limits.memory_bytes is not None and resident is not None and resident > limits.memory_bytes:
        held, allowed = resident / 2**20, limits.memory_bytes / 2**20
        return Done(status="oom", reason=f"stopped at {held:,.0f} MiB resident; the limit is {allowed:,.0f} MiB")
    return None
