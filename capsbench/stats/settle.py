"""When is a process warm? A pure decision on the samples so far, so that it can be tested without a clock."""

from collections.abc import Sequence
from statistics import median

WINDOW = 3
TOLERANCE = 0.05


def is_settled(samples: Sequence[float], *, tolerance: float = TOLERANCE) -> bool:
    """Whether the last three medians, each of three neighbouring samples, lie within `tolerance` of each other.

    Medians of neighbours shrug off a single outlier; so five samples are the fewest that can settle.

    Args:
        samples: in the order taken, positive.
        tolerance: largest spread of the three medians as a share of the smallest.
    """
    if len(samples) < 2 * WINDOW - 1:
        return False
    recent = samples[-(2 * WINDOW - 1) :]
    medians = [median(recent[i : i + WINDOW]) for i in range(WINDOW)]
    return max(medians) - min(medians) <= tolerance * min(medians)


def is_warm(samples: Sequence[float], *, max_samples: int, max_seconds: float) -> bool:
    """Whether warming up may end: settled, or as much of it done as is allowed.

    Args:
        samples: seconds of each warm-up call, in the order taken.
        max_samples: no more calls than these.
        max_seconds: no more time than this; the call that passes it is the last.
    """
    return is_settled(samples) or len(samples) >= max_samples or sum(samples) >= max_seconds
