"""What each metric is: the one table that whatever measures, compares, explains or prints a metric reads.

A new metric is the stage that measures it and one entry here. A metric that is not in the table, from a record of
another version, is what the record says of it: see `metric_type`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Direction = Literal["lower", "higher", "none"]
Comparison = Literal["exact", "bytes", "time", "rate", "error", "not"]
OpQuantity = Literal["calls", "bytes", "live bytes", "seconds"]

_UNKNOWN_BYTES_MARGIN: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricType:
    """What one metric is.

    Attributes:
        name: as in records; carries the unit where there is one.
        header: above its column, lines separated by a newline; empty where no table has one.
        unit: `s`, `B`, `FLOP`, `images/s`, or `1`.
        direction: whether lower or higher is better.
        comparison: how two runs are compared where the metric is sampled. One that repeats to the last digit is
            compared exactly, unless this says `not` or `error`.
            `bytes`: by value, beyond a margin. `time`, `rate`: by the samples of processes, with a rank test; lower is
            better in a time and whatever else is compared as one, higher in a rate.
            `error`: over seeds that were trained alike. `not`: only shown.
        margin: of `bytes`, the share by which two runs of the same work were seen to differ.
        measure: what a suite must measure to have it (`suite.schema.Measure`).
        op_quantity: the quantity of the op tables that explains a difference, where one does.
        same_test_as: the metric whose test decides over this one, which is computed from it.
        is_replicated: whether its samples are of several processes; else they are one sample for a test.
        is_outcome: whether it is what training came to, which depends on the training protocol.
        is_noise_floor: whether it is one of the times that a machine's noise floor is stated for.
    """

    name: str
    header: str = ""
    unit: str = "1"
    direction: Direction = "lower"
    comparison: Comparison
    margin: float = 0.0
    measure: str = ""
    op_quantity: OpQuantity | None = None
    same_test_as: str = ""
    is_replicated: bool = True
    is_outcome: bool = False
    is_noise_floor: bool = False

    @property
    def has_own_test(self) -> bool:
        """Whether a rank test of several processes decides over it, and over no other metric that it follows from."""
        return self.comparison in {"time", "rate"} and self.is_replicated and not self.same_test_as


def _size(name: str, unit: str, header: str = "") -> MetricType:
    """Make a size of the network: the same in every run of it, neither good nor bad."""
    return MetricType(name=name, header=header, unit=unit, direction="none", comparison="exact")


def _outcome(name: str, header: str = "", **fields: object) -> MetricType:
    """Make what training comes to."""
    given = {"comparison": "not", "measure": "accuracy", "is_outcome": True, **fields}
    return MetricType(name=name, header=header, **given)  # type: ignore[arg-type]


def _time(name: str, header: str = "", **fields: object) -> MetricType:
    """Make a time, one sample a timing process unless `fields` say otherwise."""
    given = {"unit": "s", "comparison": "time", "measure": "time", **fields}
    return MetricType(name=name, header=header, **given)  # type: ignore[arg-type]


def _rate(name: str, header: str, unit: str = "images/s", **fields: object) -> MetricType:
    """Make a rate, of which more is better."""
    given = {"unit": unit, "direction": "higher", "comparison": "rate", "measure": "time", **fields}
    return MetricType(name=name, header=header, **given)  # type: ignore[arg-type]


OP_CALLS: Final = "op_calls"

METRICS: Final[Mapping[str, MetricType]] = MappingProxyType(
    {
        each.name: each
        for each in (
            _size("parameters", "1", "params"),
            _size("forward_flops", "FLOP"),
            _size("train_step_flops", "FLOP", "train\nFLOPs"),
            _size("forward_least_bytes", "B"),
            _size("train_step_least_bytes", "B"),
            MetricType(name=OP_CALLS, comparison="exact", measure="ops", op_quantity="calls"),
            MetricType(
                name="peak_bytes",
                header="peak",
                unit="B",
                comparison="bytes",
                margin=0.2,
                measure="memory",
                op_quantity="live bytes",
            ),
            MetricType(
                name="allocated_bytes",
                header="allocated",
                unit="B",
                comparison="bytes",
                margin=0.005,
                measure="memory",
                op_quantity="bytes",
            ),
            MetricType(name="peak_rss_bytes", unit="B", comparison="bytes", margin=0.2, measure="time"),
            _time("forward_seconds", "forward", op_quantity="seconds", is_noise_floor=True),
            _time("train_step_seconds", "train\nstep", op_quantity="seconds", is_noise_floor=True),
            _rate("images_per_second", "images\n/s", same_test_as="train_step_seconds"),
            _time("compile_seconds", "compile"),
            _time("first_step_seconds", "first\nstep"),
            _rate("one_device_images_per_second", "on one\ndevice"),
            _rate("scaling_efficiency", "efficiency\n%", "1"),
            MetricType(
                name="mixed_forward_relative_error", header="mixed\nforward", comparison="not", measure="parity"
            ),
            MetricType(
                name="mixed_gradient_relative_error", header="mixed\ngradient", comparison="not", measure="parity"
            ),
            _outcome("accuracy", "accuracy %", direction="higher"),
            _outcome("error_rate", "error %", comparison="error"),
            _outcome("validation_accuracy", "validation %", direction="higher"),
            _outcome("familiar_accuracy", "familiar %", direction="higher"),
            _outcome("train_loss"),
            _outcome("epochs", direction="none"),
            _time("epoch_seconds", "epoch", measure="accuracy", is_replicated=False),
            _outcome("steps_to_target", "steps"),
            _outcome("images_to_target", "images"),
            _outcome("seconds_to_target", "time", unit="s", comparison="time", is_replicated=False),
            _outcome("evaluation_seconds_to_target", "of it\nevaluation", unit="s"),
        )
    }
)
"""By name."""


def metric_type(name: str, unit: str = "", direction: Direction = "none") -> MetricType:
    """Return what a metric is.

    Args:
        name: of the metric.
        unit: of one that the table does not know, as its record has it; empty where no record is at hand, and then
            the name decides, as names carry their unit.
        direction: likewise.
    """
    known = METRICS.get(name)
    if known is not None:
        return known
    if unit == "B":
        return MetricType(name=name, unit=unit, direction=direction, comparison="bytes", margin=_UNKNOWN_BYTES_MARGIN)
    if unit:
        how: dict[Direction, Comparison] = {"lower": "time", "higher": "rate", "none": "not"}
        return MetricType(name=name, unit=unit, direction=direction, comparison=how[direction])
    if name.endswith("per_second"):
        return _rate(name, "")
    if "seconds" in name:
        return _time(name)
    if name.endswith("bytes"):
        return MetricType(name=name, unit="B", comparison="bytes", margin=_UNKNOWN_BYTES_MARGIN)
    return MetricType(name=name, comparison="not")


def comparison_of(known: MetricType, *, is_exact: bool) -> Comparison:
    """Return how two runs are compared; `is_exact` says whether the metric repeats to the last digit in both."""
    return "exact" if is_exact and not known.is_outcome else known.comparison


def depends_on_machine(name: str) -> bool:
    """Whether a metric's numbers say something of the machine: times and rates."""
    known = metric_type(name)
    return known.unit == "s" or known.comparison in {"time", "rate"}
