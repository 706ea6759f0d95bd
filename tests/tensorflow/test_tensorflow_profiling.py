"""Profiles: every byte and second has an owner, every op a layer, and all of it repeats."""

from collections import Counter
from dataclasses import replace
from functools import cache

import pytest

pytest.importorskip("tensorflow")

import tensorflow as tf
from exhaustive import in_short
from networks_for_tensorflow import SMALL, SMALLER, STEP, VARIANTS, ZOO, case_of, variant, zoo_network
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from capsbench.backend import Setting
from capsbench.measure.steptrace import summarise
from capsbench.network.network import with_routing_iterations
from capsbench.network.parameters import parameter_specs
from capsbench.network.shapes import bind
from capsbench_tensorflow import profiling
from capsbench_tensorflow.backend import BACKEND
from capsbench_tensorflow.origins import Origin, Origins

pytestmark = pytest.mark.tensorflow

CALLS = ("tf.function", "python")


def _vote_bytes(case, batch):
    return {layer.layer.name: 4 * batch * layer.routing.votes for layer in case.bound.layers if layer.routing}


@cache
def _traced(name, mode, batch=1):
    """Case, realization, and traces of a train step and of an evaluation after warm-up."""
    image = SMALLER.get(name, (28, 28, 1))
    network = variant(name) if name in VARIANTS else zoo_network(name)
    # Of one iteration, because what XLA takes grows with each.
    case = case_of(with_routing_iterations(network, 1) if mode == "xla" else network, batch, image)
    realization, placed = case.realize(mode)
    realization.train_step(placed, STEP)
    realization.forward(placed)
    return case, realization, placed, realization.profile(placed, STEP), realization.profile(placed, None)


PROFILED = [
    (mode, name)
    for mode in ("graph", "tiled", "fused")
    for name in ZOO
    if BACKEND.unsupported(bind(zoo_network(name), (28, 28, 1), 10), Setting(mode)) is None
]


def profiled_in_short(mode, name):
    """Whether `make test` looks at it: small ones in plain modes, which without routing are one, and two by kernel."""
    if mode == "fused":
        return name in {"em-tiny", "em-68k"}
    return name in SMALL | {"em-seed"} and (mode == "graph" or not name.startswith("cnn"))


# The densities of em-official in a small network: kernels cover none of them.
@pytest.mark.parametrize(("mode", "name"), [*in_short(PROFILED, profiled_in_short), ("graph", "shifted")])
def test_rows_add_up_and_every_op_has_a_name_and_a_layer(mode, name):
    """In every network, mode and pass: bytes sum exactly, next to nothing is without a name, an owner or a layer."""
    case, _, _, *traces = _traced(name, mode)
    for trace in traces:
        profile = summarise(trace, _vote_bytes(case, 1))
        assert sum(event.size or 0 for event in trace.heap) == profile.allocated_bytes > 0
        assert 0 <= profile.unattributed_bytes <= 0.05 * profile.allocated_bytes
        assert abs(profile.unattributed_seconds) <= 0.1 * profile.step_seconds
        unmapped = [event.self_seconds for event in profile.events if event.op.startswith("Other:")]
        assert sum(unmapped) <= 0.02 * profile.step_seconds
        passes = [e for e in profile.events if e.phase != "optimizer" and e.native not in CALLS]
        lost = [event for event in passes if event.layer is None]
        assert sum(e.allocated_bytes for e in lost) <= 0.01 * sum(e.allocated_bytes for e in passes)
        assert sum(e.self_seconds for e in lost) <= 0.01 * sum(e.self_seconds for e in passes)


def test_a_profile_knows_layers_phases_and_iterations():
    """Each routed layer shows both phases and iterations, loss and decoder stand beside them, Adam runs once each."""
    case, _, _, step, _ = _traced("em-seed", "graph")
    events = summarise(step, {}).events
    seen = {(event.layer, event.phase, event.routing_iteration) for event in events}
    for layer in ("conv_caps1", "conv_caps2", "class_caps"):
        for phase in ("forward", "backward"):
            assert {(layer, phase, None), (layer, phase, 0), (layer, phase, 1)} <= seen
    for part in ("loss", "decoder"):
        assert {(part, "forward", None), (part, "backward", None)} <= seen
    trainable = sum(spec.trainable for spec in parameter_specs(case.bound))
    assert sum(event.calls for event in events if event.op == "Adam") == trainable
    assert {event.phase for event in events if event.op == "Adam"} == {"optimizer"}


@pytest.mark.parametrize("mode", ["graph", "tiled"])
def test_an_evaluation_has_one_phase_and_every_layers_votes(mode):
    """Nothing but the forward pass runs, and each routed layer makes a block of its votes' size while casting them."""
    case, _, _, _, evaluation = _traced("em-seed", mode)
    assert {span.phase for span in evaluation.spans} == {"forward"}
    for layer, size in _vote_bytes(case, 1).items():
        blocks = [
            event
            for event in evaluation.heap
            if event.span is not None and event.size == size and evaluation.spans[event.span].layer == layer
        ]
        assert any(evaluation.spans[block.span].votes for block in blocks), layer
    alive = summarise(evaluation, _vote_bytes(case, 1)).alive_at_peak
    assert [tensor.layer for tensor in alive if tensor.name == "votes"] == ["conv_caps1"]


def test_spans_fill_the_step_without_overlap():
    """Kernels, executor and Python follow one another from the step's begin to its end."""
    _, _, _, step, _ = _traced("em-tiny", "graph")
    starts = [span.start_seconds for span in step.spans]
    assert starts == sorted(starts)
    end = 0.0
    for span in step.spans:
        assert span.start_seconds >= end - 1e-9
        end = span.start_seconds + span.seconds
    assert end == pytest.approx(step.seconds)
    assert all(event.span is None or step.spans[event.span].start_seconds <= event.seconds for event in step.heap)


def test_memory_and_profiles_repeat_to_the_byte():
    """Two profiles ask for the same, op by op; the memory of a step is what its profile sums to."""
    _, realization, placed, *_ = _traced("em-seed", "graph")
    first, second = (summarise(realization.profile(placed, STEP), {}) for _ in "ab")
    assert {replace(event, self_seconds=0.0) for event in first.events} == {
        replace(event, self_seconds=0.0) for event in second.events
    }
    use = realization.memory(placed, STEP)
    assert use.peak_bytes == first.peak_bytes
    assert use.allocated_bytes == first.allocated_bytes


def test_what_is_resident_is_counted_by_name():
    """Parameters, two moments each and the batch stand in the peak."""
    case, _, _, step, _ = _traced("em-seed", "graph")
    specs = parameter_specs(case.bound)
    batch = case.images.nbytes + case.labels.nbytes + sum(mask.nbytes for mask in case.masks.values())
    trainable = sum(spec.size for spec in specs if spec.trainable)
    expected = {
        "parameters": 4 * sum(spec.size for spec in specs),
        "optimizer state": 8 * trainable,
        "batch": batch,
    }
    assert dict(step.resident) == expected
    alive = {tensor.name: tensor.bytes for tensor in summarise(step, {}).alive_at_peak if tensor.op is None}
    assert expected.items() <= alive.items()


def test_a_compiled_step_is_one_row_under_one_name():
    """XLA's kernel holds all ops and all memory, and is called the same for a step and an evaluation."""
    _, _, _, *traces = _traced("em-tiny", "xla")
    for trace in traces:
        profile = summarise(trace, {})
        (compiled,) = (event for event in profile.events if event.op == "Compiled")
        assert (compiled.native, compiled.calls) == ("XlaFunction", 1)
        assert compiled.allocated_bytes == profile.allocated_bytes > 0


@pytest.mark.parametrize("name", ["em-seed", "em-seed-literal"])
def test_the_tiled_mode_allocates_what_the_seed_did(name):
    """An evaluation shows the 2018 profile (batch 50 there): Tile twice the votes, Sub the votes once, Mul and Sum."""
    case, _, _, _, evaluation = _traced(name, "tiled", 2)
    table = Counter()
    for event in summarise(evaluation, {}).events:
        table[event.op] += event.allocated_bytes / 1e6 * 50 / 2
    assert table["Tile"] == pytest.approx(326.25, rel=0.01)
    assert table["Sub"] == pytest.approx(163.70, rel=0.01)
    assert table["Mul"] == pytest.approx(513.12, rel=0.03)
    assert table["Sum"] == pytest.approx(21.48, rel=0.05)
    # Its products and convolutions held workspace of a GPU besides; here they ask for their outputs alone.
    shapes = [layer.routing for layer in case.bound.layers if layer.routing]
    assert table["BatchMatMul"] == pytest.approx(
        50 * 4 * sum(shape.votes // shape.elements * 16 for shape in shapes) / 1e6
    )
    outputs = [layer.output.values for layer in case.bound.layers if layer.layer.name in ("conv1", "primary")]
    assert table["Conv2D"] == pytest.approx(50 * 4 * sum(outputs) / 1e6)


def test_origins_follow_sums_of_gradients_and_the_optimizers_names():
    """An op without scopes belongs to the layer of what it sums, one made by the graph's optimizer to its scopes."""
    with tf.Graph().as_default() as graph:
        with tf.name_scope("gradient_tape/caps/iteration1"):
            terms = [tf.zeros(3, name="a"), tf.zeros(3, name="b")]
        tf.identity(tf.add_n(terms, name="AddN_3"), name="free")
        with tf.name_scope("caps/votes"):
            tf.zeros(3, name="v")
        tf.zeros(3, name="nowhere")
    origins = Origins(graph, {"caps", "loss"})
    backward = Origin("backward", "caps", 1)
    for name in ("AddN_3", "free", "AddN_3/tmp_var", "gradient_tape/caps/iteration1/ArithmeticOptimizer/AddOpsRewrite"):
        assert origins.of(name) == backward, name
    assert origins.of("caps/votes/v") == Origin("forward", "caps", None, votes=True)
    assert origins.of("caps_1/votes_2/v") == Origin("forward", "caps", None, votes=True)
    assert origins.of("optimizer/caps/mul") == Origin("optimizer", "caps")
    assert origins.of("nowhere") == Origin() == origins.of("made/up")
    assert origins.type_of("AddN_3") == "AddN"
    assert origins.type_of("AddN_3/tmp_var") is None


class _Plane:
    """An XPlane under construction; times in nanoseconds."""

    def __init__(self, name, line):
        self.plane = xplane_pb2.XPlane(name=name)
        self.line = self.plane.lines.add(name=line)

    def add(self, name, start, end, **stats):
        number = len(self.plane.event_metadata) + 1
        self.plane.event_metadata[number].name = name
        event = self.line.events.add(metadata_id=number, offset_ps=start * 1000, duration_ps=(end - start) * 1000)
        for key, value in stats.items():
            which = len(self.plane.stat_metadata) + 1
            self.plane.stat_metadata[which].name = key
            stat = event.stats.add(metadata_id=which)
            if isinstance(value, int):
                stat.int64_value = value
            else:
                stat.str_value = value


def test_on_a_gpu_time_is_its_kernels_and_memory_its_own():
    """Launches hand their work to kernels on the GPU's track, whose time counts; the host's memory does not."""
    host, device = _Plane("/host:CPU", "python"), _Plane("/device:GPU:0", "Stream #7(Compute)")
    host.add("capsbench step", 0, 100)
    host.add("_train_graph", 10, 60, tf_function_call="notTraced-nonXla")
    host.add("conv1/Conv2D:Conv2D", 20, 30)
    host.add("loss/Sum:Sum", 30, 40)
    host.add("MemoryAllocation", 21, 21, allocator_name="GPU_0_bfc", requested_bytes=64, addr=1, tf_op="conv1/Conv2D")
    host.add("MemoryAllocation", 22, 22, allocator_name="bfc_cpu", requested_bytes=8, addr=2, tf_op="conv1/Conv2D")
    host.add("MemoryAllocation", 50, 50, allocator_name="GPU_0_bfc", requested_bytes=16, addr=3, tf_op="loss/Reshape")
    device.add("void winograd()", 25, 45, tf_op="conv1/Conv2D:Conv2D")
    device.add("void reduce()", 55, 80, tf_op="loss/Sum:Sum")
    with tf.Graph().as_default() as graph, tf.name_scope("loss"):
        tf.reshape(tf.zeros(3, name="z"), (1, 3), name="Reshape")
    seen = profiling._Seen("cuda:0")
    for plane in (host, device):
        seen.add(plane.plane)
    trace = profiling._step_trace(seen, Origins(graph, {"conv1", "loss"}), {})
    events = {(e.op, e.native, e.layer): e for e in summarise(trace, {}).events}
    convolution = events["Conv2D", "Conv2D", "conv1"]
    assert (convolution.calls, convolution.allocated_bytes) == (1, 64)
    assert convolution.self_seconds == pytest.approx(20e-9)
    assert events["View", "Reshape", "loss"].allocated_bytes == 16
    assert events["Dispatch", "executor", "loss"].self_seconds == pytest.approx(10e-9)
    assert events["Dispatch", "tf.function", None].self_seconds == pytest.approx(15e-9)
    assert sum(event.self_seconds for event in events.values()) == pytest.approx(trace.seconds)
    assert {span.track for span in trace.spans if span.op == "Sum"} == {"cpu", "cuda:0"}
