"""The trace file: what chrome://tracing and Perfetto need, and that it tells the step."""

import json
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsbench.measure.chrome import LIVE_BYTES, chrome_trace
from capsbench.measure.steptrace import HeapEvent, Span, StepTrace, summarise

MICROSECOND = 1e-6


def span(op, start, end, *, layer="conv_caps1", phase="forward", iteration=None, track="cpu", calls=1):
    """A span from and to a time in microseconds."""
    seconds = (end - start) * MICROSECOND
    return Span(
        op=op,
        native=f"aten::{op.lower()}",
        layer=layer,
        phase=phase,
        routing_iteration=iteration,
        start_seconds=start * MICROSECOND,
        seconds=seconds,
        self_seconds=seconds,
        calls=calls,
        track=track,
    )


STEP = StepTrace(
    spans=(
        span("Call", 0, 100, layer=None, calls=0),
        span("Conv2D", 1, 20.5, layer="conv1"),
        span("View", 21, 21.25),
        span("BatchMatMul", 22, 40),
        span("Mul", 41, 50, iteration=0),
        span("Sum", 51, 60, iteration=0),
        span("Mul", 61, 70, iteration=1),
        span("Add", 90, 95, layer=None),
        span("Mul", 110, 150, phase="backward"),
        span("Adam", 160, 170, phase="optimizer", layer=None),
        span("Kernel", 165, 199, layer="conv1", track="cuda:0"),
    ),
    heap=(
        HeapEvent(1 * MICROSECOND, 7, 400, 1),
        HeapEvent(22 * MICROSECOND, 8, 1000, 3),
        HeapEvent(23 * MICROSECOND, 9, 50, 3),
        HeapEvent(42 * MICROSECOND, 7, None),
        HeapEvent(43 * MICROSECOND, 7, 300, 4),
        HeapEvent(44 * MICROSECOND, 99, None),
        HeapEvent(112 * MICROSECOND, 8, None),
    ),
    seconds=200 * MICROSECOND,
    resident={"parameters": 64, "batch": 36},
)


def events_of(trace, phase):
    """The events of one kind (`ph`) in the file."""
    return [e for e in json.loads(chrome_trace(trace, "case"))["traceEvents"] if e["ph"] == phase]


def rows_of(trace):
    """Complete events by the name of their row."""
    names = {e["tid"]: e["args"]["name"] for e in events_of(trace, "M") if e["name"] == "thread_name"}
    rows = defaultdict(list)
    for event in events_of(trace, "X"):
        rows[names[event["tid"]]].append(event)
    return rows


def assert_nested(events):
    """Slices of one row lie in one another or apart, to the nanosecond."""
    opened = []
    for event in sorted(events, key=lambda e: (e["ts"], -e["dur"])):
        start, end = round(event["ts"] * 1e3), round((event["ts"] + event["dur"]) * 1e3)
        while opened and opened[-1] <= start:
            opened.pop()
        assert not opened or end <= opened[-1]
        opened.append(end)


def test_every_event_has_what_the_format_asks_for():
    """Names, phases, times and ids of the right types; a name for the process and for every row that is used."""
    document = json.loads(chrome_trace(STEP, "em-seed · “torch”"))
    for event in document["traceEvents"]:
        assert event["ph"] in {"X", "C", "M"}
        assert isinstance(event["name"], str)
        assert type(event["pid"]) is int
        assert type(event["tid"]) is int
        assert isinstance(event["args"], dict)
        assert event["ph"] == "M" or event["ts"] >= 0
        assert event["ph"] != "X" or event["dur"] >= 0
        assert event["ph"] != "C" or all(type(value) is int for value in event["args"].values())
    named = [e for e in document["traceEvents"] if e["name"] == "thread_name"]
    assert len({e["tid"] for e in named}) == len(named)
    assert {e["tid"] for e in document["traceEvents"] if e["ph"] == "X"} == {e["tid"] for e in named}
    assert not {e["tid"] for e in named} & {0, *(e["pid"] for e in named)}
    process = next(e for e in document["traceEvents"] if e["name"] == "process_name")
    assert process["args"]["name"] == "em-seed · “torch”"
    assert document["otherData"]["resident bytes"] == {"parameters": 64, "batch": 36}


def test_every_span_is_there_with_what_is_known_of_it():
    """As many op slices as spans, as long together as these, with op, native name, layer, phase, iteration, bytes."""
    rows = rows_of(STEP)
    ops = [event for name, events in rows.items() if "ops" in name for event in events]
    assert len(ops) == len(STEP.spans)
    assert sum(e["dur"] for e in ops) == pytest.approx(sum(s.seconds for s in STEP.spans) / MICROSECOND)
    product = next(e for e in ops if e["name"] == "BatchMatMul")
    assert (product["ts"], product["dur"]) == (22, 18)
    assert product["args"] == {
        "op": "BatchMatMul",
        "native": "aten::batchmatmul",
        "layer": "conv_caps1",
        "phase": "forward",
        "iteration": None,
        "bytes asked": 1050,
        "self µs": 18,
    }
    assert next(e for e in ops if e["name"] == "View")["cat"] == "view"
    assert next(e for e in ops if e["args"]["op"] == "Call")["name"] == "aten::call"


def test_phases_layers_and_iterations_are_nested_slices():
    """A reader sees which phase, layer and iteration ran when; ops of no layer do not tear a layer apart."""
    structure = rows_of(STEP)["cpu: phase, layer, iteration"]
    told = [(e["cat"], e["name"], e["ts"], e["ts"] + e["dur"]) for e in structure]
    assert told == [
        ("phase", "forward", 1, 95),
        ("layer", "conv1", 1, 20.5),
        ("layer", "conv_caps1", 21, 70),
        ("iteration", "iteration 0", 41, 60),
        ("iteration", "iteration 1", 61, 70),
        ("phase", "backward", 110, 150),
        ("layer", "conv_caps1", 110, 150),
        ("phase", "optimizer", 160, 170),
    ]
    assert_nested(structure)
    assert [e["name"] for e in rows_of(STEP)["cuda:0: phase, layer, iteration"]] == ["forward", "conv1"]


def test_the_counter_follows_the_heap():
    """What is resident at the start, then after every event; freeing what is not known changes nothing."""
    counters = events_of(STEP, "C")
    assert {e["name"] for e in counters} == {LIVE_BYTES}
    assert [e["args"]["bytes"] for e in counters] == [100, 500, 1500, 1550, 1150, 1450, 1450, 450]
    assert max(e["args"]["bytes"] for e in counters) == summarise(STEP, {}).peak_bytes


def test_a_step_without_ops_is_a_valid_trace():
    """A backend that saw nothing leaves a file that opens, with the resident bytes."""
    empty = StepTrace((), (), 0.0, {})
    assert [e["name"] for e in json.loads(chrome_trace(empty, ""))["traceEvents"]] == ["process_name", LIVE_BYTES]


TIMES = st.floats(0, 1e-2, allow_nan=False)
SPANS = st.builds(
    lambda op, start, seconds, layer, phase, iteration, calls: Span(
        op=op,
        native=op,
        layer=layer,
        phase=phase,
        routing_iteration=iteration,
        start_seconds=start,
        seconds=seconds,
        self_seconds=seconds,
        calls=calls,
    ),
    st.sampled_from(["Mul", "Sum", "View"]),
    TIMES,
    TIMES,
    st.sampled_from([None, "a", "b"]),
    st.sampled_from(["forward", "backward", "optimizer"]),
    st.sampled_from([None, 0, 1]),
    st.integers(0, 2),
)


@given(st.lists(SPANS, max_size=30))
def test_slices_of_any_row_nest(spans):
    """Whatever ran side by side, no two slices of a row overlap in part, and no span is lost."""
    spans.sort(key=lambda s: s.start_seconds)
    rows = rows_of(StepTrace(tuple(spans), (), 0.02, {}))
    for events in rows.values():
        assert_nested(events)
    assert sum(len(events) for name, events in rows.items() if "ops" in name) == len(spans)


HEAP = st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 1000)), max_size=40)


@given(HEAP, st.integers(0, 500))
def test_the_counter_peaks_where_the_profile_says(heap, resident):
    """Whatever is asked for and given back, the counter's maximum is the peak of the summary."""
    events = tuple(HeapEvent(i * MICROSECOND, address, size) for i, (address, size) in enumerate(heap))
    trace = StepTrace((), events, 1.0, {"parameters": resident})
    assert max(e["args"]["bytes"] for e in events_of(trace, "C")) == summarise(trace, {}).peak_bytes
