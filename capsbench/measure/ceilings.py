"""What a device can do at best: a large matrix product for arithmetic, a large copy for memory."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

SIDE = 2048
COPIED_BYTES = 1 << 28
_WARMUP_CALLS = 3
_CALLS = 15


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The most a device was seen to do.

    Attributes:
        flops_per_second: multiplications and additions of a product of two SIDE x SIDE matrices.
        bytes_per_second: bytes read and bytes written by a copy of COPIED_BYTES.
        fma_flops_per_second: multiplications and additions of fused multiply-adds between registers, which no product
            of matrices quite reaches; None where nobody has looked.
    """

    flops_per_second: float
    bytes_per_second: float
    fma_flops_per_second: float | None = None


def measure(product: Callable[[], object], copy: Callable[[], object]) -> Ceilings:
    """Time a product of two SIDE x SIDE matrices and a copy of COPIED_BYTES; the best call of each counts.

    Args:
        product: multiplies, and returns when the device has finished.
        copy: copies, likewise.
    """
    return Ceilings(2 * SIDE**3 / least_seconds(product), 2 * COPIED_BYTES / least_seconds(copy))


def least_seconds(call: Callable[[], object]) -> float:
    """Wall seconds of the best of several calls, after some that do not count."""
    for _ in range(_WARMUP_CALLS):
        call()
    least = float("inf")
    for _ in range(_CALLS):
        start = perf_counter()
        call()
        least = min(least, perf_counter() - start)
    return least
