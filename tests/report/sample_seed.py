"""A run of the 2018 study's suite as it might end on a CPU: MNIST, toys, the tiled formulation profiled."""

from dataclasses import replace

from sample_records import case, distribution, event, exact, record

from capsbench.measure.optable import StepProfile
from capsbench.network.cost import LayerCost

EVENTS = (
    event("Tile", "Tile", "forward", 6, 0.0102, 326_250_000, layer="conv_caps1"),
    event("BatchMatMul", "BatchMatMulV2", "forward", 3, 0.0312, 163_120_000, layer="conv_caps1"),
    event("Sub", "SquaredDifference", "forward", 6, 0.0044, 163_690_000, layer="conv_caps2"),
    event("Mul", "Mul", "forward", 30, 0.0122, 520_100_000, layer="conv_caps1"),
    event("Sum", "Sum", "forward", 12, 0.0141, 24_400_000, layer="conv_caps2"),
    event("Conv2D", "_FusedConv2D", "forward", 2, 0.0031, 4_840_000, layer="conv1"),
    event("Sigmoid", "Sigmoid", "forward", 2, 0.0040, 230_000, layer="class_caps"),
)
PROFILE = StepProfile(EVENTS, 0.0833, sum(each.allocated_bytes for each in EVENTS) + 1_000, 0.0801, None, ())
EQUATIONS = tuple(
    LayerCost(layer, "", 0, 1, 2, 3, 4, votes)
    for layer, votes in (
        ("norm", 0),
        ("conv1", 0),
        ("primary", 0),
        ("conv_caps1", 92_160_000),
        ("conv_caps2", 66_355_200),
        ("class_caps", 5_184_000),
        ("loss", 0),
        ("decoder", 0),
    )
)
MNIST = (
    distribution("conv_caps1", hoyer=0.31, sparse_share=0.08),
    distribution("conv_caps1", "poses", deviation=0.021),
    distribution("conv_caps2", hoyer=0.52, sparse_share=0.34),
)
TOYS = (
    distribution("conv_caps1", hoyer=0.28, sparse_share=0.06),
    distribution("conv_caps1", "poses", deviation=0.184),
    distribution("conv_caps2", hoyer=0.61, sparse_share=0.47),
)


def profiled(**changes):
    """The study's case: em-seed on MNIST in the tiled formulation."""
    fields = {"forward_profile": PROFILE, "equations": EQUATIONS, "distributions": (), "metrics": {}}
    return record(case(backend="tensorflow", mode="tiled"), **{**fields, **changes})


def trained(dataset, distributions, accuracy, **changes):
    """A trained case of another formulation."""
    metrics = {"accuracy": exact(accuracy, "1", "higher")}
    return record(case(dataset=dataset), distributions=distributions, metrics=metrics, **changes)


def seed_run():
    """All that can be had on a machine without smallNORB and without a GPU."""
    return (profiled(), trained("mnist", MNIST, 0.9812), trained("toys", TOYS, 0.9034))


def on_device(found, device):
    """The same record from another device."""
    return replace(found, case=replace(found.case, device=device))
