"""Metrics of a record from what was measured: names with metrics, whose units the table of metrics knows."""

from collections.abc import Sequence
from statistics import median

from capsbench.metrics import METRICS
from capsbench.record.schema import Metric
from capsbench.stats.interval import median_interval

Named = tuple[str, Metric]
"""An item of a record's metrics."""


def exact(name: str, value: float) -> Named:
    """Make a metric that repeats to the last digit."""
    known = METRICS[name]
    return name, Metric(value=value, unit=known.unit, direction=known.direction, kind="exact")


def once(name: str, value: float) -> Named:
    """Make a metric that was measured once and may differ the next time."""
    known, samples = METRICS[name], (float(value),)
    return name, Metric(value=value, unit=known.unit, direction=known.direction, kind="sampled", samples=samples)


def sampled(
    name: str, samples: Sequence[float], *, interval: tuple[float, float] | None = None, contended: int = 0
) -> Named:
    """Make a metric whose value is the median of samples.

    Args:
        name: of the metric.
        samples: at least one.
        interval: around the value; by default the 95 % interval of the median, whatever the distribution.
        contended: how many single timings behind the samples other programs disturbed.
    """
    known = METRICS[name]
    if interval is None:
        found = median_interval(samples)
        interval = found.low, found.high
    return name, Metric(
        value=median(samples),
        unit=known.unit,
        direction=known.direction,
        kind="sampled",
        samples=tuple(samples),
        interval=interval,
        contended=contended,
    )
