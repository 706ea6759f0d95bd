"""A profiled step as a trace that chrome://tracing and Perfetto open.

The format is the JSON of Chrome's Trace Event Format: complete events (`X`) for what ran, counter events (`C`) for the
bytes alive, metadata events (`M`) for the names. Each track of the step becomes a row that tells phase, layer and
routing iteration, nested, and below it as many rows of ops as it takes for slices to nest.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, zip_longest
from typing import Any

from capsbench.measure.optable import VIEW
from capsbench.measure.steptrace import HeapEvent, Span, StepTrace, update_alive

LIVE_BYTES = "live bytes"
_PROCESS = 1
# Perfetto takes row 0, and the row of the process's own number, for one and the same.
_FIRST_ROW = 10
_LEVELS = ("phase", "layer", "iteration")

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Slice:
    """Something that took from `start` to `end`, in whole nanoseconds: rounded so, children stay in their parents."""

    start: int
    end: int
    span: Span
    asked_bytes: int


def chrome_trace(trace: StepTrace, name: str) -> bytes:
    """The step as JSON.

    Args:
        trace: of one step; its spans may overlap as they like, those that do not nest go to different rows.
        name: of the process in the viewer, such as the case's id.

    Returns:
        UTF-8 JSON; times are in microseconds since the step began. The counter's highest value is the step's peak.
    """
    events: list[Event] = [_metadata("process_name", 0, name=name)]
    row = _FIRST_ROW
    tracks: dict[str, list[_Slice]] = defaultdict(list)
    for piece in _slices(trace):
        tracks[piece.span.track].append(piece)
    for track, slices in tracks.items():
        events += _row(row, f"{track}: {', '.join(_LEVELS)}", _structure(slices, row))
        for number, lane in enumerate(_lanes(slices), 1):
            row += 1
            title = f"{track}: ops" if number == 1 else f"{track}: ops, beside ({number})"
            events += _row(row, title, (_op_event(piece, row) for piece in lane))
        row += 1
    events += _counters(trace)
    resident = {key: int(size) for key, size in trace.resident.items()}
    document = {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"resident bytes": resident}}
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def _slices(trace: StepTrace) -> list[_Slice]:
    """The spans by start, those that hold others before the ones they hold."""
    asked: dict[int, int] = defaultdict(int)
    for event in trace.heap:
        if event.span is not None:
            asked[event.span] += event.size or 0
    slices = [
        _Slice(_nanoseconds(span.start_seconds), _nanoseconds(span.start_seconds + span.seconds), span, asked[number])
        for number, span in enumerate(trace.spans)
    ]
    return sorted(slices, key=lambda piece: (piece.start, -piece.end))


def _lanes(slices: Sequence[_Slice]) -> list[list[_Slice]]:
    """Spread slices over as few rows as the first fit finds, so that in each they nest or do not touch."""
    lanes: list[list[_Slice]] = []
    opened: list[list[int]] = []  # of each lane, the ends of the slices that are not over, the innermost last
    for piece in slices:
        for lane, ends in zip(lanes, opened, strict=True):
            while ends and ends[-1] <= piece.start:
                ends.pop()
            if not ends or piece.end <= ends[-1]:
                lane.append(piece)
                ends.append(piece.end)
                break
        else:
            lanes.append([piece])
            opened.append([piece.end])
    return lanes


def _structure(slices: Sequence[_Slice], row: int, depth: int = 0) -> Iterator[Event]:
    """What the ops of a track were for: a slice for each stretch of a phase, in it of a layer, in it of an iteration.

    An op of no layer ends no layer's stretch, and one that only hands its work to others counts for nothing.
    """
    known = [piece for piece in slices if piece.span.calls and _purpose(piece.span)[depth] is not None]
    stretches = [tuple(stretch) for _, stretch in groupby(known, key=lambda piece: _purpose(piece.span)[depth])]
    nothing: tuple[_Slice, ...] = ()
    for stretch, after in zip_longest(stretches, stretches[1:], fillvalue=nothing):
        start, end = stretch[0].start, max(piece.end for piece in stretch)
        end = min([end, *(piece.start for piece in after[:1])])
        purpose = _purpose(stretch[0].span)
        tags = dict(zip(_LEVELS[: depth + 1], purpose, strict=False))
        yield _complete(str(purpose[depth]), _LEVELS[depth], row, start, end, tags)
        if depth + 1 < len(_LEVELS):
            yield from _structure([replace(piece, end=min(piece.end, end)) for piece in stretch], row, depth + 1)


def _purpose(span: Span) -> tuple[str | None, str | None, str | None]:
    """What a span was for, level by level."""
    iteration = None if span.routing_iteration is None else f"iteration {span.routing_iteration}"
    return span.phase, span.layer, iteration


def _op_event(piece: _Slice, row: int) -> Event:
    span = piece.span
    arguments = {
        "op": span.op,
        "native": span.native,
        "layer": span.layer,
        "phase": span.phase,
        "iteration": span.routing_iteration,
        "bytes asked": piece.asked_bytes,
        "self µs": _nanoseconds(span.self_seconds) / 1e3,
    }
    category = "view" if span.op == VIEW else "op"
    name = span.op if span.calls else span.native  # what only hands on its work is best known by who it is
    return _complete(name, category, row, piece.start, piece.end, arguments)


def _counters(trace: StepTrace) -> Iterator[Event]:
    """The bytes alive, after each event of the heap."""
    total = sum(trace.resident.values())
    alive: dict[int, HeapEvent] = {}
    yield _counter(0.0, total)
    for event in trace.heap:
        total += update_alive(event, alive)
        yield _counter(event.seconds, total)


def _counter(seconds: float, size: int) -> Event:
    return {
        "name": LIVE_BYTES,
        "ph": "C",
        "ts": _nanoseconds(seconds) / 1e3,
        "pid": _PROCESS,
        "tid": 0,
        "args": {"bytes": size},
    }


def _row(row: int, title: str, events: Iterable[Event]) -> Iterator[Event]:
    yield _metadata("thread_name", row, name=title)
    yield _metadata("thread_sort_index", row, sort_index=row)
    yield from events


def _metadata(kind: str, row: int, **arguments: str | int) -> Event:
    return {"name": kind, "ph": "M", "pid": _PROCESS, "tid": row, "args": arguments}


def _complete(name: str, category: str, row: int, start: int, end: int, arguments: Event) -> Event:
    return {
        "name": name,
        "cat": category,
        "ph": "X",
        "ts": start / 1e3,
        "dur": (end - start) / 1e3,
        "pid": _PROCESS,
        "tid": row,
        "args": arguments,
    }


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
