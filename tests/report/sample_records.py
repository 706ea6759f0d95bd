"""Records as a run leaves them, made by hand: two frameworks, a CNN, failures, hostile names."""

from dataclasses import replace

from capsbench.measure.optable import OpEvent
from capsbench.record.schema import CaseKey, Fingerprint, Metric, Parity, Record, SplitFacts


def case(network="em-seed", backend="torch", mode="eager", *, batch=50, iterations=2, seed=0, **other):
    """A case whose id is made of what it is."""
    key = {"dataset": "mnist", "device": "cpu", "threads": 2, "precision": "float32", "allocator": "heap", **other}
    name = f"{network}.{key['dataset']}.{backend}-{mode}.b{batch}.i{iterations}.s{seed}"
    return CaseKey(
        id=name,
        network=network,
        backend=backend,
        mode=mode,
        batch=batch,
        routing_iterations=iterations,
        seed=seed,
        **key,
    )


def sampled(samples, unit="s", direction="lower", contended=0):
    """A metric sampled in fresh processes."""
    ordered = sorted(samples)
    return Metric(
        value=ordered[len(ordered) // 2],
        unit=unit,
        direction=direction,
        kind="sampled",
        samples=tuple(samples),
        interval=(ordered[0], ordered[-1]),
        contended=contended,
    )


def exact(value, unit, direction="lower"):
    """A metric that repeats to the last digit."""
    return Metric(value=value, unit=unit, direction=direction, kind="exact")


def metrics(scale=1.0, accuracy=0.9731):
    """Everything the tables show, times growing with `scale`."""
    return {
        "accuracy": exact(accuracy, "1", "higher"),
        "error_rate": exact(1 - accuracy, "1"),
        "epoch_seconds": sampled([11.1, 10.9, 11.0, 11.2, 11.3]),
        "parameters": exact(319_568, "1", "none"),
        "train_step_flops": exact(12_345_678_901, "FLOP", "none"),
        "peak_bytes": exact(int(163_123_456 * scale), "B"),
        "allocated_bytes": exact(int(1_934_567_890 * scale), "B"),
        "forward_seconds": sampled([0.0611 * scale, 0.0605 * scale, 0.0634 * scale]),
        "train_step_seconds": sampled([0.2123 * scale, 0.2098 * scale, 0.2188 * scale], contended=int(scale > 1)),
        "images_per_second": sampled([50 / (0.2123 * scale)], "images/s", "higher"),
    }


def event(op, native, phase, *quantities, layer="conv_caps1"):
    """One op event; its quantities are calls, seconds and bytes."""
    return OpEvent(op, native, layer, phase, 0, *quantities)


EVENTS = (
    event("BatchMatMul", "aten::bmm", "forward", 12, 0.021_34, 401_234_567),
    event("BatchMatMul", "aten::bmm", "backward", 24, 0.043_21, 612_345_678),
    event("Mul", "aten::mul", "forward", 120, 0.011_11, 211_111_111, layer="conv_caps2"),
    event("Mul", "aten::mul", "backward", 222, 0.019_99, 322_222_222, layer=None),
    event("Sum", "aten::sum", "forward", 44, 0.014_44, 44_444_444),
    event("Conv2D", "aten::convolution", "forward", 3, 0.008_76, 0, layer="conv1"),
    event("View", "aten::view", "forward", 321, 0.000_77, 0, layer=None),
    event("Sub", "aten::sub", "backward", 51, 0.002_22, 55_555_555, layer="class_caps"),
    event("Exp", "aten::exp", "forward", 6, 0.001_11, 3_333_333, layer="class_caps"),
    event("Adam", "aten::_foreach_add_", "optimizer", 8, 0.000_66, 123, layer=None),
)
FINGERPRINT = Fingerprint(network="0123456789abcdef", protocol="fedcba9876543210", environment="00112233445566ff")


def record(key=None, status="ok", **changes):
    """A record with everything in it."""
    fields = {
        "run": "20261123T021348Z-3f9a2c",
        "case": key or case(),
        "status": status,
        "parity": Parity(
            oracle="numpy",
            forward_max_relative_error=1.23e-6,
            gradient_relative_error=4.5e-5,
            forward_limit=1e-3,
            gradient_limit=1e-2,
            passed=True,
        ),
        "metrics": metrics(),
        "ops": EVENTS,
        "step_profile_seconds": 0.131_313,
        "step_profile_bytes": 1_650_300_333,
        "data": {
            "train": SplitFacts(count=10_000, full_count=60_000, sha256="a" * 64),
            "test": SplitFacts(count=10_000, full_count=10_000, sha256="b" * 64),
        },
        "notes": ("trained on 10,000 of 60,000 images",),
        "fingerprint": FINGERPRINT,
    }
    return Record(**{**fields, **changes})


def failed(key, status, reason):
    """The record of a case that did not come to numbers."""
    nothing = {"step_profile_seconds": None, "step_profile_bytes": None, "data": {}}
    return record(key, status, reason=reason, parity=None, metrics={}, ops=(), notes=(), **nothing)


def scaled(events, factor):
    """The same ops in another framework: other times, other bytes."""
    return tuple(
        replace(e, self_seconds=e.self_seconds * factor, allocated_bytes=int(e.allocated_bytes * factor), native=e.op)
        for e in events
        if e.op != "Adam"
    )


def run():
    """A run of two networks and three backends, one case of which ran out of memory."""
    graph = scaled(EVENTS, 1.37)
    return (
        record(),
        record(
            case(backend="tensorflow", mode="graph"),
            metrics=metrics(1.37, 0.9698),
            ops=graph,
            step_profile_seconds=0.183,
            step_profile_bytes=sum(e.allocated_bytes for e in graph) + 7,
        ),
        record(
            case(mode="compile"),
            ops=(event("Other:fused", "triton_poi_fused_exp_mul_0", "forward", 9, 0.0321, 123_456_789, layer=None),),
            step_profile_seconds=0.0511,
            step_profile_bytes=123_456_999,
            notes=("trained on 10,000 of 60,000 images", "ops: compiled, so kernels hold several ops each"),
        ),
        record(case("cnn-seed", iterations=None)),
        failed(case(batch=1000), "oom", "the worker asked for more than 12.0 GiB"),
    )
