from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsbench.measure.steptrace import VOTES, HeapEvent, Span, StepTrace, peak_growth_bytes, summarise

SPAN = Span(
    op="Mul",
    native="fake.mul",
    layer="caps",
    phase="forward",
    routing_iteration=0,
    start_seconds=0.0,
    seconds=0.5,
    self_seconds=0.25,
)
SPANS = st.builds(
    Span,
    op=st.sampled_from(["Mul", "Sum", "View"]),
    native=st.sampled_from(["mul", "sum"]),
    layer=st.sampled_from([None, "conv1", "caps"]),
    phase=st.sampled_from(["forward", "backward", "optimizer"]),
    routing_iteration=st.sampled_from([None, 0, 1]),
    start_seconds=st.just(0.0),
    seconds=st.just(1.0),
    self_seconds=st.floats(0.0, 1.0),
    calls=st.integers(0, 1),
    votes=st.booleans(),
)


@st.composite
def traces(draw):
    """Blocks that are asked for and given back at a few addresses, in any order, also ones that nobody asked for."""
    spans = draw(st.lists(SPANS, max_size=5))
    span = st.none() | st.integers(0, len(spans) - 1) if spans else st.none()
    taken = st.builds(HeapEvent, st.just(0.0), st.integers(1, 4), st.integers(0, 4096), span)
    given_back = st.builds(HeapEvent, st.just(0.0), st.integers(1, 4), st.none())
    resident = draw(st.dictionaries(st.sampled_from(["parameters", "batch"]), st.integers(0, 4096)))
    return StepTrace(tuple(spans), tuple(draw(st.lists(taken | given_back, max_size=30))), 9.0, resident)


def alive_after(heap):
    """The blocks that stand when all of `heap` has happened."""
    blocks = {}
    for event in heap:
        blocks.pop(event.address, None)
        if event.size is not None:
            blocks[event.address] = event
    return list(blocks.values())


def first_peak(heap):
    """The most bytes alive after any event, and the blocks where that is first reached, by trying every event."""
    moments = [alive_after(heap[:number]) for number in range(len(heap) + 1)]
    totals = [sum(block.size for block in moment) for moment in moments]
    return max(totals), moments[totals.index(max(totals))]


@given(traces())
def test_nothing_is_lost(trace):
    """Calls, seconds and bytes of the events are those of the spans; unattributed is the rest of the step."""
    profile = summarise(trace, {})
    assert sum(event.calls for event in profile.events) == sum(span.calls for span in trace.spans)
    assert sum(event.self_seconds for event in profile.events) == pytest.approx(
        sum(span.self_seconds for span in trace.spans)
    )
    taken = [event for event in trace.heap if event.size is not None]
    known = sum(event.size for event in taken if event.span is not None)
    assert sum(event.allocated_bytes for event in profile.events) == known
    assert profile.allocated_bytes == sum(event.size for event in taken)
    assert profile.unattributed_bytes == sum(event.size for event in taken if event.span is None)
    assert profile.unattributed_seconds + sum(span.self_seconds for span in trace.spans) == pytest.approx(trace.seconds)


@given(traces())
def test_the_peak_is_that_of_a_simulation(trace):
    """Peak and what is alive there equal a simulation that replays the step up to every event."""
    peak, alive = first_peak(trace.heap)
    profile = summarise(trace, {})
    assert profile.peak_bytes == peak + sum(trace.resident.values())
    assert peak_growth_bytes(trace.heap) == peak
    by_span = Counter()
    for block in alive:
        by_span[block.span] += block.size
    assert sum(event.live_bytes_at_peak for event in profile.events) == peak - by_span[None]
    for event in profile.events:
        key = event.op, event.native, event.layer, event.phase, event.routing_iteration
        same = [
            number
            for number, span in enumerate(trace.spans)
            if (span.op, span.native, span.layer, span.phase, span.routing_iteration) == key
        ]
        assert event.live_bytes_at_peak == sum(by_span[number] for number in same)


@given(traces(), st.dictionaries(st.sampled_from(["conv1", "caps"]), st.integers(0, 4096)))
def test_what_is_alive_sums_to_the_peak(trace, vote_bytes):
    """The tensors at the peak sum to it, the largest first, each origin once, whatever is taken for votes."""
    profile = summarise(trace, vote_bytes)
    alive = profile.alive_at_peak
    assert sum(tensor.bytes for tensor in alive) == profile.peak_bytes
    assert [tensor.bytes for tensor in alive] == sorted((tensor.bytes for tensor in alive), reverse=True)
    origins = [replace(tensor, count=0, bytes=0) for tensor in alive]
    assert len(set(origins)) == len(origins)
    blocks = sum(tensor.count for tensor in alive) - len(trace.resident)
    assert blocks == len(first_peak(trace.heap)[1])
    assert {name: size for name, size in trace.resident.items() if size} == {
        tensor.name: tensor.bytes for tensor in alive if tensor.op is None and tensor.name and tensor.bytes
    }


def votes_of(trace, **vote_bytes):
    """Bytes of what is called votes at the peak, by layer."""
    alive = summarise(trace, vote_bytes).alive_at_peak
    return {tensor.layer: tensor.bytes for tensor in alive if tensor.name == VOTES}


def step(*blocks):
    """A step that takes blocks (layer, votes, phase, bytes) and keeps them all."""
    spans = tuple(replace(SPAN, layer=layer, votes=votes, phase=phase) for layer, votes, phase, _ in blocks)
    heap = tuple(HeapEvent(float(i), i + 1, size, i) for i, (*_, size) in enumerate(blocks))
    return StepTrace(spans, heap, 1.0, {})


@pytest.mark.parametrize("size", [4000, 4001, 4511])
def test_votes_are_found_by_their_size(size):
    """Of the tensors made while votes are cast, the one of the votes' size is the votes, rounded up or not."""
    trace = step(("caps", True, "forward", 800), ("caps", True, "forward", size), ("caps", False, "forward", 4000))
    assert votes_of(trace, caps=4000) == {"caps": size}


def test_the_last_of_that_size_is_the_votes():
    """Where tiled poses are as large as the votes that they are multiplied to, the later tensor is the votes."""
    trace = step(("caps", True, "forward", 4000), ("caps", True, "forward", 4000), ("class", True, "forward", 900))
    gone = HeapEvent(9.0, 1, None)  # the tiled poses go, and another block of the same size comes, in the same place
    again = HeapEvent(9.5, 1, 9000, 0)
    trace = replace(trace, heap=(*trace.heap, gone, again))
    assert votes_of(trace, caps=4000, **{"class": 900}) == {"caps": 4000, "class": 900}


@pytest.mark.parametrize(
    "block",
    [
        ("caps", True, "forward", 3999),
        ("caps", True, "forward", 4512),
        ("caps", False, "forward", 4000),
        ("caps", True, "backward", 4000),
        ("other", True, "forward", 4000),
        (None, True, "forward", 4000),
    ],
    ids=["smaller", "larger", "not while casting", "a gradient", "another layer's", "no layer's"],
)
def test_what_only_looks_like_votes(block):
    """Other sizes, other ops, gradients and other layers' tensors are no votes."""
    assert votes_of(step(block), caps=4000) == {}


def test_votes_that_are_gone_at_the_peak_are_not_alive():
    """Votes freed before the peak are not listed there."""
    trace = step(("caps", True, "forward", 4000))
    heap = (*trace.heap, HeapEvent(1.0, 1, None), HeapEvent(2.0, 2, 9000, None))
    profile = summarise(replace(trace, heap=heap), {"caps": 4000})
    assert [tensor.name for tensor in profile.alive_at_peak] == [None]
    assert profile.peak_bytes == 9000


def test_a_step_that_asks_for_nothing():
    """Without heap events, the peak is what stood before, and the table is all unattributed time."""
    profile = summarise(StepTrace((), (), 2.0, {"parameters": 64}), {"caps": 4})
    assert (profile.peak_bytes, profile.allocated_bytes, profile.events) == (64, 0, ())
    assert [tensor.name for tensor in profile.alive_at_peak] == ["parameters"]


def test_the_new_value_of_a_parameter_takes_the_place_of_the_old():
    """A block of before the step that is released makes room: the newest block of its size is resident from then on."""
    parameter = [HeapEvent(1.0, 1, 100, 0), HeapEvent(2.0, 2, 100, 0), HeapEvent(3.0, 77, None, released_bytes=100)]
    later = HeapEvent(4.0, 3, 150, 0)
    assert peak_growth_bytes([*parameter, later]) == 250
    assert peak_growth_bytes([*parameter, HeapEvent(3.5, 1, None), later]) == 200
    trace = StepTrace((SPAN,), (*parameter, later), 1.0, {"parameters": 1000})
    assert summarise(trace, {}).peak_bytes == 1250


def test_a_release_that_nothing_replaces_is_not_guessed_at():
    """Without a block of its size, and where the profiler does not tell the size, nothing changes."""
    kept = HeapEvent(1.0, 1, 100, 0)
    for released in (0, 99):
        gone = HeapEvent(2.0, 77, None, released_bytes=released)
        assert peak_growth_bytes([kept, gone, HeapEvent(3.0, 2, 50, 0)]) == 150
