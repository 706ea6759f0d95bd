"""Records as a run leaves them, made by hand: two frameworks, a CNN, failures, hostile names."""

from dataclasses import replace

from capsbench.measure.distribution import Distribution, RoutingIteration
from capsbench.measure.optable import LiveTensor, OpEvent, StepProfile
from capsbench.network.cost import LayerCost
from capsbench.record.noise import Recording
from capsbench.record.schema import CaseKey, Fingerprint, Metric, Parity, Record, SplitFacts
from capsbench.stats.noise import Floor


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
        "allocated_bytes": exact(int(1_650_300_333 * scale), "B"),
        "forward_seconds": sampled([0.0611 * scale, 0.0605 * scale, 0.0634 * scale]),
        "train_step_seconds": sampled([0.2123 * scale, 0.2098 * scale, 0.2188 * scale], contended=int(scale > 1)),
        "images_per_second": sampled([50 / (0.2123 * scale)], "images/s", "higher"),
    }


def event(op, native, phase, *quantities, layer="conv_caps1", iteration=None, live=0):
    """One op event; its quantities are calls, seconds and bytes."""
    return OpEvent(op, native, layer, phase, iteration, *quantities, live)


EVENTS = (
    event("BatchMatMul", "aten::bmm", "forward", 12, 0.021_34, 401_234_567, live=92_160_000),
    event("BatchMatMul", "aten::bmm", "backward", 24, 0.043_21, 612_345_678),
    event("Mul", "aten::mul", "forward", 120, 0.011_11, 211_111_111, layer="conv_caps2", iteration=0, live=30_000_000),
    event("Mul", "aten::mul", "backward", 222, 0.019_99, 322_222_222, layer=None, iteration=1),
    event("Sum", "aten::sum", "forward", 44, 0.014_44, 44_444_444, iteration=1, live=20_000_000),
    event("Conv2D", "aten::convolution", "forward", 3, 0.008_76, 0, layer="conv1"),
    event("View", "aten::view", "forward", 321, 0.000_77, 0, iteration=0),
    event("Sub", "aten::sub", "backward", 51, 0.002_22, 55_555_555, layer="class_caps", iteration=0),
    event("Exp", "aten::exp", "forward", 6, 0.001_11, 3_333_333, layer="class_caps", iteration=1),
    event("Adam", "aten::_foreach_add_", "optimizer", 8, 0.000_66, 123, layer=None),
)
# All that is alive at the peak: 163,123,456 bytes, as the memory pass counts them.
ALIVE = (
    LiveTensor("votes", "BatchMatMul", "conv_caps1", "forward", None, 1, 92_160_000),
    LiveTensor(None, "Mul", "conv_caps2", "forward", 0, 3, 30_000_000),
    LiveTensor(None, "Sum", "conv_caps1", "forward", 1, 2, 20_000_000),
    LiveTensor("optimizer state", None, None, None, None, 1, 11_883_952),
    LiveTensor("parameters", None, None, None, None, 1, 5_941_976),
    LiveTensor(None, None, None, None, None, 7, 2_980_728),
    LiveTensor("batch", None, None, None, None, 1, 156_800),
)
FORWARD = StepProfile(
    events=tuple(
        replace(each, live_bytes_at_peak=92_160_000 if each.op == "BatchMatMul" else 0)
        for each in EVENTS
        if each.phase == "forward"
    ),
    step_seconds=0.0611,
    allocated_bytes=660_123_456,
    bare_seconds=0.0605,
    peak_bytes=92_160_000 + 5_941_976,
    alive_at_peak=(ALIVE[0], ALIVE[4]),
)
EQUATIONS = (
    LayerCost("conv1", "12 x 12 x 32", 832, 11_980_800, 23_961_600, 1_083_328, 2_180_000, 0),
    LayerCost("conv_caps1", "5 x 5 x 16", 18_704, 616_000_000, 1_848_224_448, 9_000_000, 22_000_000, 92_160_000),
    LayerCost("conv_caps2", "3 x 3 x 16", 37_136, 420_000_000, 1_260_445_632, 6_000_000, 15_000_000, 66_355_200),
    LayerCost("class_caps", "10", 2_740, 40_000_000, 120_032_880, 800_000, 2_100_000, 5_184_000),
    LayerCost("loss", "1", 0, 2_250, 6_750, 2_000, 6_000, 0),
)


def distribution(layer, quantity="activations", **changes):
    """Values of a layer as they might be."""
    fields = {
        "images": 1_000,
        "count": 400_000,
        "mean": 0.0612,
        "deviation": 0.0345,
        "least": 0.0,
        "greatest": 0.42,
        "quantiles": (0.001, 0.011, 0.04, 0.0598, 0.08, 0.123, 0.31),
        "sparse_share": 0.0432,
        "hoyer": 0.213,
        "dead_share": 0.0625 if quantity == "activations" else None,
    }
    return Distribution(layer=layer, quantity=quantity, **{**fields, **changes})


DISTRIBUTIONS = (
    distribution("conv_caps1"),
    distribution("conv_caps1", "poses", mean=-0.000_123, deviation=0.0312, sparse_share=0.41, hoyer=0.3),
    distribution("conv_caps2", hoyer=0.634, sparse_share=0.712),
)
ROUTING = tuple(
    RoutingIteration(
        layer=layer, iteration=i, coupling_entropy=1 - i / 4, agreement_gain=i / 8, starved_share=i / 100 + 0.001
    )
    for layer in ("conv_caps1", "conv_caps2")
    for i in range(2)
)
COMPILED_NOTE = "ops: compiled, so a kernel holds several ops, of several layers and iterations"
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
        "step_bare_seconds": 0.1262,
        "alive_at_peak": ALIVE,
        "forward_profile": FORWARD,
        "equations": EQUATIONS,
        "distributions": DISTRIBUTIONS,
        "routing": ROUTING,
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
    return record(key, status, reason=reason, parity=None, metrics={}, notes=(), data={}, **UNPROFILED)


UNPROFILED = {
    "ops": (),
    "step_profile_seconds": None,
    "step_profile_bytes": None,
    "step_bare_seconds": None,
    "alive_at_peak": (),
    "forward_profile": None,
    "equations": (),
    "distributions": (),
    "routing": (),
}


def schema_1(**changes):
    """A record as capsbench wrote it before there was anything but op events to see."""
    old = {name: UNPROFILED[name] for name in UNPROFILED if name not in {"ops", *_SCHEMA_1_FIELDS}}
    ops = tuple(replace(each, live_bytes_at_peak=0) for each in EVENTS)
    return record(**{**old, "schema": 1, "ops": ops, **changes})


_SCHEMA_1_FIELDS = {"step_profile_seconds", "step_profile_bytes"}


def scaled(events, factor):
    """The same ops in another framework: other times, other bytes, other names."""
    native = {"Sub": "SquaredDifference"}
    return tuple(
        replace(
            e,
            self_seconds=e.self_seconds * factor,
            allocated_bytes=int(e.allocated_bytes * factor),
            native=native.get(e.op, e.op),
        )
        for e in events
        if e.op != "Adam"
    )


def unrouted(events):
    """The same ops in a network that does not route."""
    return tuple(replace(each, routing_iteration=None) for each in events)


def timed(first, step):
    """What a compiled mode and its rivals are measured by."""
    return {**metrics(step / 0.2123), "first_step_seconds": sampled([first])}


def run():
    """A run of two networks and three backends, one case of which ran out of memory."""
    graph = scaled(EVENTS, 1.37)
    return (
        record(metrics=timed(0.45, 0.2123)),
        record(
            case(backend="tensorflow", mode="graph"),
            metrics=metrics(1.37, 0.9698),
            ops=graph,
            step_profile_seconds=0.183,
            step_profile_bytes=sum(e.allocated_bytes for e in graph) + 7,
            step_bare_seconds=0.19,
        ),
        record(
            case(mode="compile"),
            metrics=timed(41.5, 0.1),
            ops=(event("Compiled", "triton_poi_fused_exp_mul_0", "forward", 9, 0.0321, 123_456_789, layer=None),),
            step_profile_seconds=0.0511,
            step_profile_bytes=123_456_999,
            alive_at_peak=(),
            forward_profile=None,
            notes=("trained on 10,000 of 60,000 images", COMPILED_NOTE),
        ),
        record(
            case("cnn-seed", iterations=None),
            ops=unrouted(EVENTS),
            forward_profile=replace(FORWARD, events=unrouted(FORWARD.events)),
            routing=(),
        ),
        failed(case(batch=1000), "oom", "the worker asked for more than 12.0 GiB"),
    )


def iteration_run():
    """One network with one, two and three routing iterations, with two seeds for the last."""
    return tuple(
        record(
            case(iterations=iterations, seed=seed),
            metrics=metrics(0.5 + 0.25 * iterations),
            ops=tuple(each for each in EVENTS if (each.routing_iteration or 0) < iterations),
        )
        for iterations, seed in ((1, 0), (2, 0), (3, 0), (3, 1))
    )


def noise_recording(in_turns, in_a_row):
    """What was recorded of torch:eager: train steps differ by so much, with any number of processes."""
    return Recording(
        backend="torch",
        mode="eager",
        device="cpu",
        threads=2,
        allocator="heap",
        work="w",
        measured="2026-11-26T10:00:00+00:00",
        versions={},
        floors=(Floor(metric="train_step_seconds", processes=1, interleaved=in_turns, apart=in_a_row),),
    )
