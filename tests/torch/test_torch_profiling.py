"""The spans and heap events of profiled steps: they add up, and belong to the right layers and iterations."""

from collections import Counter
from dataclasses import replace

import pytest
from exhaustive import in_short
from networks_for_torch import MODES, PLAIN_MODES, SMALL, STEP, ZOO, realize, vote_bytes

torch = pytest.importorskip("torch")

from capsbench.measure.optable import VIEW  # noqa: E402 - after the check that torch is there
from capsbench.measure.steptrace import VOTES, summarise  # noqa: E402 - likewise
from capsbench.network import zoo  # noqa: E402 - likewise
from capsbench.network.parameters import parameter_specs  # noqa: E402 - likewise
from capsbench_torch import profiling  # noqa: E402 - likewise
from capsbench_torch.opnames import DISPATCH, canonical, holds_all, shortened  # noqa: E402 - likewise

pytestmark = pytest.mark.torch


def warm(name, mode="eager", **options):
    """A realization that has taken two steps, its batch and its bound network."""
    ours, placed, bound = realize(name, mode, **options)
    for _ in range(2):
        ours.train_step(placed, STEP)
    return ours, placed, bound


def rest(profile):
    """Share of a step's time that no event accounts for, or that two do."""
    return abs(profile.unattributed_seconds) / profile.step_seconds


def check_steps(name, mode):
    """Train step and evaluation of a network: see the tests that follow."""
    ours, placed, bound = warm(name, mode, batch=1)
    used = ours.memory(placed, STEP)
    for step in (STEP, None):
        for attempt in range(3):  # another program may take time between two events
            trace = ours.profile(placed, step)
            profile = summarise(trace, vote_bytes(bound, 1))
            assert sum(event.size or 0 for event in trace.heap) == profile.allocated_bytes > 0
            assert 0 <= profile.unattributed_bytes <= 0.05 * profile.allocated_bytes
            no_op = sum(event.allocated_bytes for event in profile.events if event.op == DISPATCH)
            assert no_op <= 1e-3 * profile.allocated_bytes
            unknown = sum(event.self_seconds for event in profile.events if event.op.startswith("Other:"))
            assert unknown <= 0.02 * profile.step_seconds
            if step is not None:
                assert (used.peak_bytes, used.allocated_bytes) == (profile.peak_bytes, profile.allocated_bytes)
            if rest(profile) <= 0.1:
                break
            assert attempt < 2, f"{rest(profile):.0%} of the time belongs to no event"


@pytest.mark.parametrize(("name", "mode"), in_short(ZOO, lambda name, mode: name in SMALL or mode == "fused"))
def test_steps_add_up(name, mode):
    """Train step and evaluation of the whole zoo: rows hold all bytes, nearly all time, and no unknown op of note.

    Counted by itself or op by op, a train step asks for the same bytes and has the same peak.
    """
    check_steps(name, mode)


def test_steps_of_shifted_densities_add_up():
    """So do those of em-official's densities, which no kernel covers, in a small network."""
    network = zoo.load("em-tiny")
    check_steps(replace(network, routing=replace(network.routing, densities="shifted")), "eager")


@pytest.mark.parametrize("mode", MODES)
def test_a_larger_step(mode):
    """In a step of 20 images, no more than a tenth of the time is unattributed, and no more in views."""
    ours, placed, bound = warm("em-tiny", mode, batch=20)
    profiles = [summarise(ours.profile(placed, STEP), vote_bytes(bound, 20)) for _ in range(3)]
    views = min(sum(e.self_seconds for e in p.events if e.op == VIEW) / p.step_seconds for p in profiles)
    assert min(map(rest, profiles)) <= 0.1
    assert views <= 0.1


@pytest.mark.parametrize("mode", MODES)
def test_traces_repeat(mode):
    """Ops, calls and bytes of two traces are the same."""

    def counted(trace):
        profile = summarise(trace, vote_bytes(bound, 2))
        return {
            (e.op, e.native, e.layer, e.phase, e.routing_iteration, e.calls, e.allocated_bytes) for e in profile.events
        }

    ours, placed, bound = warm("em-seed", mode)
    assert counted(ours.profile(placed, STEP)) == counted(ours.profile(placed, STEP))
    assert counted(ours.profile(placed, None)) == counted(ours.profile(placed, None))


@pytest.mark.parametrize(
    ("name", "mode"),
    in_short(
        [each for each in ZOO if each[0] in {"em-68k", "em-seed", "cnn-seed", "dynamic-small", "efficient", "vb"}],
        lambda name, mode: name != "em-68k" or mode == "fused",
    ),
)
def test_layers(name, mode):
    """Every layer is seen in both directions, loss and decoder too; what has no layer is next to nothing."""
    ours, placed, bound = warm(name, mode)
    trace = ours.profile(placed, STEP)
    profile = summarise(trace, {})
    assert {event.phase for event in profile.events} == {"forward", "backward", "optimizer"}
    layers = {layer.layer.name for layer in bound.layers} | {"loss"}
    if bound.network.objective.reconstruction is not None:
        layers.add("decoder")
    assert {event.layer for event in profile.events if event.phase == "forward"} - {None} == layers
    # Images have no gradient, so a normalisation without parameters that stands on them has none either.
    backward = {event.layer for event in profile.events if event.phase == "backward"} - {None}
    assert layers - backward <= {"norm"}
    stray = [event for event in profile.events if event.layer is None and event.phase != "optimizer"]
    assert sum(event.allocated_bytes for event in stray) <= 1e-4 * profile.allocated_bytes
    evaluation = summarise(ours.profile(placed, None), {})
    assert {event.phase for event in evaluation.events} == {"forward"}
    assert {event.layer for event in evaluation.events} - {None} == layers - {"loss", "decoder", "dropout"}


def test_backward_of_iterations():
    """Each iteration's statistics and distances are differentiated once, in their own layer and iteration."""
    ours, placed, _ = warm("em-68k", "eager", batch=1)
    spans = ours.profile(placed, STEP).spans
    routed = ("conv_caps1", "conv_caps2", "class_caps")
    for node, count in (("Moments", 3), ("Distance", 2)):
        places = Counter((s.layer, s.routing_iteration) for s in spans if s.native == node)
        assert places == {(layer, iteration): 1 for layer in routed for iteration in range(count)}
        # The engine's work at a node is one event, the node's own within it another.
        nodes = Counter((s.layer, s.routing_iteration) for s in spans if s.native == f"{node}Backward")
        assert nodes == dict.fromkeys(places, 2)
    products = Counter(
        (s.layer, s.routing_iteration) for s in spans if s.native == "aten::bmm" and s.phase == "backward"
    )
    # The gradient of the distance takes one such product, that of the moments one, that of the votes two.
    assert [products[routed[0], place] for place in (0, 1, 2, None)] == [2, 2, 1, 2]


@pytest.mark.parametrize(
    ("name", "mode"),
    in_short(
        [(name, mode) for name in ("em-seed", "em-tiny", "cnn-tiny") for mode in MODES],
        lambda name, mode: name != "em-seed" or mode == "fused",
    ),
)
def test_gradients_belong_to_their_parameters(name, mode):
    """A layer stores as many gradients as it has parameters, in no iteration."""
    ours, placed, bound = warm(name, mode)
    spans = ours.profile(placed, STEP).spans
    stored = Counter(span.layer for span in spans if span.native == "AccumulateGrad")
    owners = Counter(spec.name.partition(".")[0] for spec in parameter_specs(bound) if spec.trainable)
    assert stored == {layer: 2 * count for layer, count in owners.items()}
    assert {span.routing_iteration for span in spans if span.native == "AccumulateGrad"} == {None}


@pytest.mark.parametrize("mode", PLAIN_MODES)
def test_votes_are_found(mode):
    """At the peak, the first routed layer's votes are alive and known by name; all votes are cast inside `votes`."""
    ours, placed, bound = warm("em-seed", mode)
    sizes = vote_bytes(bound, 2)
    trace = ours.profile(placed, STEP)
    found = {t.layer: t.bytes for t in summarise(trace, sizes).alive_at_peak if t.name == VOTES}
    assert found["conv_caps1"] == sizes["conv_caps1"]
    assert all(sizes[layer] == size for layer, size in found.items())
    cast = {span.layer for span in trace.spans if span.votes and span.phase == "forward"}
    assert cast == set(sizes)
    assert not any(span.votes for span in trace.spans if span.phase != "forward")


@pytest.mark.parametrize("mode", MODES)
def test_spans_lie_in_the_step(mode):
    """Spans come in the order of their start, lie within the step, and take no longer themselves than as a whole."""
    ours, placed, _ = warm("em-tiny", mode)
    trace = ours.profile(placed, STEP)
    starts = [span.start_seconds for span in trace.spans]
    assert starts == sorted(starts)
    assert starts[0] >= 0.0
    assert all(span.start_seconds + span.seconds <= trace.seconds + 1e-9 for span in trace.spans)
    assert all(-1e-9 <= span.self_seconds <= span.seconds + 1e-9 for span in trace.spans)
    assert {span.track for span in trace.spans} == {"cpu"}
    moments = [event.seconds for event in trace.heap]
    assert moments == sorted(moments)
    for event in trace.heap:
        assert (event.span is None) or event.size is not None
        if event.span is not None:
            span = trace.spans[event.span]
            assert span.start_seconds - 1e-9 <= event.seconds <= span.start_seconds + span.seconds + 1e-9


def test_resident_bytes():
    """What is there before a step is counted by what it is, every storage once, gradients where there are any."""
    ours, placed, bound = warm("em-tiny")
    before, step = ours.profile(placed, None).resident, ours.profile(placed, STEP).resident
    numbers = sum(spec.size for spec in parameter_specs(bound))
    assert before["parameters"] == before["gradients"] == 4 * numbers
    tensors = len(parameter_specs(bound))
    assert before["optimizer state"] == 2 * 4 * numbers + 4 * tensors
    assert before["batch"] == 2 * (28 * 28 * 4 + 8)
    assert "gradients" not in step
    one = torch.ones(10)
    assert profiling.resident_bytes({"a": [one, one[2:]], "b": [one.view(2, 5)], "c": [torch.ones(3)]}) == {
        "a": 40,
        "c": 12,
    }


def test_a_step_written_by_hand():
    """Bytes, calls and names of a few ops are what they are known to be, unknown ops included."""

    def step(scope):
        with scope("phase::forward"), scope("layer::a"):
            square = torch.ones(100, 100).repeat(2, 1, 1).mean(0)
            with scope("iteration::1"):
                torch.linalg.cross(square[:, :3], square[:, :3])
            del square

    trace = profiling.trace(step, torch.device("cpu"), {"batch": 7})
    profile = summarise(trace, {})
    by_native = {event.native: event for event in profile.events}
    assert (by_native["aten::repeat"].op, by_native["aten::repeat"].calls) == ("Tile", 1)
    assert by_native["aten::repeat"].allocated_bytes >= 80_000
    assert (by_native["aten::mean"].op, by_native["aten::mean"].calls) == ("Mean", 1)
    assert by_native["aten::ones"].allocated_bytes == 40_000
    unknown = by_native["aten::linalg_cross"]
    assert (unknown.op, unknown.layer, unknown.routing_iteration) == ("Other:aten::linalg_cross", "a", 1)
    assert unknown.allocated_bytes == 1200
    assert trace.resident == {"batch": 7}
    assert profile.peak_bytes == pytest.approx(7 + 40_000 + 80_000, abs=200)  # and the bookkeeping of a repeat


def test_tiled_tiles():
    """The tiled formulation tiles transforms and poses to the votes' size, once each; eager tiles nothing."""
    for mode, times in (("tiled", 2), ("eager", 0)):
        ours, placed, bound = warm("em-tiny", mode)
        profile = summarise(ours.profile(placed, STEP), {})
        tiles = [e for e in profile.events if e.op == "Tile" and e.phase == "forward"]
        small = 1e-3 * sum(vote_bytes(bound, 2).values())  # the bookkeeping of a repeat
        assert sum(e.allocated_bytes for e in tiles) == pytest.approx(
            times * sum(vote_bytes(bound, 2).values()), abs=small
        )
        assert sum(e.calls for e in tiles) == 2 * times


@pytest.mark.parametrize(
    ("event", "op"),
    [
        ("aten::bmm", "BatchMatMul"),
        ("aten::div_", "RealDiv"),
        ("aten::as_strided", VIEW),
        ("aten::nothing_of_the_kind", "Other:aten::nothing_of_the_kind"),
        ("mkldnn::_linear_pointwise", "Other:mkldnn::_linear_pointwise"),
        ("autograd::engine::evaluate_function: MulBackward0", "Dispatch"),
        ("autograd::engine::evaluate_function: torch::autograd::AccumulateGrad", "Dispatch"),
        ("layer::conv1", "Dispatch"),
        ("Optimizer.step#Adam.step", "Dispatch"),
        ("## Call CompiledFxGraph fgbd4tpk3vnkszld ##", "Compiled"),
        ("CompiledFunctionBackward", "Compiled"),
    ],
)
def test_names(event, op):
    """Events of every kind have the name that they should; only ops hold what they call."""
    assert canonical(shortened(event)) == op
    assert holds_all(shortened(event)) == ("::" in shortened(event) and not event.startswith("layer::"))
