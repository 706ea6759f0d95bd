"""A line of records.jsonl read where it is asked, without parsing the ops and layers in it.

It is read as `codec.encode` writes it. What is looked for are keys: in a JSON text every quotation mark has a backslash
before it, so that `,"metrics":{` is one wherever it stands. A line of another make is told from these functions by
None, and must be parsed in full.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple, TypeVar, get_args

from pydantic import TypeAdapter

from capsbench.metrics import OP_CALLS
from capsbench.record.schema import SCHEMA, CaseKey, Fingerprint, Metric, Record, Status

_T = TypeVar("_T")

"""Not kept as a metric: the calls of all ops of the profiled step."""

_TEXT = rb'"([^"\\]*(?:\\.[^"\\]*)*)"'
_HEAD = re.compile(rb'\{"schema":(\d+),"run":' + _TEXT + rb',"case":(?=\{"id":' + _TEXT + rb",)")
_STATUS = re.compile(rb'"allocator":' + _TEXT + rb'\},"status":"(\w+)",')
_TAIL = re.compile(rb'"fingerprint":\{"network":%s,"protocol":%s,"environment":%s\}\}\n?\Z' % (_TEXT, _TEXT, _TEXT))
_HEAD_BYTES = 4096
_FINGERPRINT, _METRICS, _OPS, _OPS_END = b'"fingerprint":{', b',"metrics":{', b'},"ops":[', b'],"step_profile_seconds":'
_PARITY, _DATA = b',"parity":', b'],"data":{'
_ENDED, _REASON, _NO_FORWARD = b'},"status":"', b'","reason":', b',"forward_profile":null,'
_NONE_ALIVE = b',"alive_at_peak":[],"forward_profile":'
_NO_ROUTING, _NO_VALUES = b',"routing":[', b',"distributions":[],"routing":['
_ENDS: dict[bytes, Status] = {each.encode(): each for each in get_args(Status)}
_CALLS = re.compile(rb'"calls":(-?\d+)')
_OP = re.compile(rb'\{"op":' + _TEXT)
_KEY = re.compile(rb"[{,]" + _TEXT + rb"\Z")


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What a record says of one metric.

    Attributes:
        case: which case it is of.
        status: how that ended.
        fingerprint: the record's.
        metric: None where the record has no such metric.
    """

    case: CaseKey
    status: str
    fingerprint: Fingerprint
    metric: Metric | None


class Parts(NamedTuple):
    """A record but for its profiled steps and layers, cut out of its line; what is bytes is JSON.

    `lacks` names those of the fields left out that are empty.
    """

    schema: int
    run: str
    case: bytes
    status: Status
    reason: bytes
    checks: bytes
    metrics: bytes
    tail: bytes
    lacks: frozenset[str]


def parts(line: bytes) -> Parts | None:
    """The parts of a line, unread; None where it is of another make or of a newer schema.

    Raises:
        ValueError: the name of the run is no text of JSON.
    """
    head = _HEAD.match(line, 0, _HEAD_BYTES)
    if head is None or int(head[1]) > SCHEMA or _is_spliced(line):
        return None
    ended = line.find(_ENDED, head.end(), _HEAD_BYTES)
    begun = ended + len(_ENDED)
    status = _ENDS.get(line[begun : line.find(b'"', begun, begun + 64)])
    if ended < 0 or status is None:
        return None
    reason = begun + len(status) + len(_REASON)
    parity, metrics = line.find(_PARITY, reason), line.find(_METRICS, reason)
    ops, data = line.find(_OPS, metrics), line.rfind(_DATA)
    if not (reason < parity < metrics < ops < data) or not line.startswith(_REASON, reason - len(_REASON)):
        return None
    return Parts(
        int(head[1]),
        _run(head[2]),
        line[head.end() : ended + 1],
        status,
        line[reason:parity],
        b"{" + line[parity + 1 : metrics] + b"}",
        line[metrics + len(_METRICS) - 1 : ops + 1],
        b"{" + line[data + len(b"],") :],
        _lacks(line, ops, data),
    )


def _lacks(line: bytes, ops: int, data: int) -> frozenset[str]:
    found = []
    if line.startswith(b"]", ops + len(_OPS)):
        found += ["ops", *(["forward_profile"] if line.find(_NO_FORWARD, ops, data) >= 0 else [])]
    if line.find(_NONE_ALIVE, ops, data) >= 0:
        found.append("alive_at_peak")
    if line.endswith(_NO_ROUTING, ops, data):
        found += ["routing", *(["distributions"] if line.endswith(_NO_VALUES, ops, data) else [])]
    return _names(tuple(found))


def _is_spliced(line: bytes) -> bool:
    """Whether a line holds ends of two records; what such a line says is for the parser of whole lines to decide."""
    return line.count(b'"id":"') > 1 or line.count(b',"status":"') > 1


def outcome(line: bytes) -> tuple[str, str] | None:
    """Case id and status, from the two ends of a line."""
    head = _HEAD.match(line, 0, _HEAD_BYTES)
    status = _STATUS.search(line, head.end(), _HEAD_BYTES) if head else None
    if head is None or status is None or int(head[1]) > SCHEMA or _tail(line) is None or _is_spliced(line):
        return None
    try:
        return json.loads(b'"' + head[3] + b'"'), status[2].decode()
    except ValueError:
        return None


def glimpse(line: bytes, metric: str) -> Glimpse | None:
    """What a line says of a metric."""
    head = _HEAD.match(line, 0, _HEAD_BYTES)
    status = _STATUS.search(line, head.end(), _HEAD_BYTES) if head else None
    tail = _tail(line)
    if head is None or status is None or tail is None or int(head[1]) > SCHEMA or _is_spliced(line):
        return None
    begin = line.find(_METRICS, status.end())
    end = line.find(_OPS, begin) if begin >= 0 else -1
    if end < 0:
        return None
    try:
        case = _case(line[head.end() : status.end(1) + len(b'"}')])
        fingerprint = _fingerprint(*tail.groups())
        found = _calls(line, end) if metric == OP_CALLS else _metric(line, begin + len(_METRICS) - 1, end, metric)
    except ValueError:
        return None
    return Glimpse(case, status[2].decode(), fingerprint, found)


def op_calls(line: bytes) -> int | None:
    """The calls of all ops of the profiled step; None where it was not profiled, or the line is of another make."""
    begin = line.find(_METRICS)
    found = _calls(line, line.find(_OPS, begin)) if begin >= 0 else None
    return None if found is None else int(found.value)


def op_names(line: bytes) -> frozenset[str]:
    """The canonical ops of the profiled step; none where it was not profiled, or the line is of another make."""
    begin = line.find(_METRICS)
    start = line.find(_OPS, begin) if begin >= 0 else -1
    return _op_names(frozenset(_OP.findall(line, start, line.find(_OPS_END, start)))) if start >= 0 else frozenset()


def of_record(record: Record, metric: str) -> Glimpse:
    """What a whole record says of a metric."""
    found = record.metrics.get(metric)
    if metric == OP_CALLS and record.ops:
        found = _of_calls(sum(event.calls for event in record.ops))
    return Glimpse(record.case, record.status, record.fingerprint, found)


def metric_names(line: bytes) -> Iterator[str]:
    """What the metrics of a line are called; none where it is of another make."""
    begin = line.find(_METRICS)
    end = line.find(_OPS, begin) if begin >= 0 else -1
    if end >= 0:
        yield from _keys_of_objects(line[begin + len(_METRICS) - 1 : end])
        if line[end + len(_OPS) : end + len(_OPS) + 1] == b"{":
            yield OP_CALLS


def _keys_of_objects(text: bytes) -> Iterator[str]:
    for piece in text.split(b":{")[:-1]:
        found = _KEY.search(piece, max(piece.rfind(b"{"), piece.rfind(b",")))
        if found:
            with suppress(ValueError):  # a damaged line
                yield _text(found[1])


def _tail(line: bytes) -> re.Match[bytes] | None:
    begin = line.rfind(_FINGERPRINT)
    return _TAIL.match(line, begin) if begin >= 0 else None


def _metric(line: bytes, begin: int, end: int, name: str) -> Metric | None:
    key = _key(name)
    at = begin + 1 if line.startswith(key, begin + 1) else line.find(b"," + key, begin, end) + 1
    if at == 0:
        return None
    # No value in a metric is an object; a text with a brace in it makes this no JSON, and the line is parsed in full.
    metric: Metric = _adapter(Metric).validate_json(line[at + len(key) - 1 : line.index(b"}", at) + 1])
    return metric


def _calls(line: bytes, begin: int) -> Metric | None:
    end = line.find(_OPS_END, begin)
    counts = _CALLS.findall(line, begin, end)
    return _of_calls(sum(map(int, counts))) if counts else None


def _of_calls(calls: int) -> Metric:
    return Metric(value=calls, unit="1", direction="lower", kind="exact")


def _text(inside: bytes) -> str:
    return str(json.loads(b'"' + inside + b'"'))


@lru_cache(maxsize=1024)
def _op_names(names: frozenset[bytes]) -> frozenset[str]:
    return frozenset(map(_text, names))


@cache
def _names(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(names)


@lru_cache(maxsize=64)
def _run(inside: bytes) -> str:
    return _text(inside)


@lru_cache(maxsize=64)
def _key(metric: str) -> bytes:
    return json.dumps(metric).encode() + b":{"


@lru_cache(maxsize=20_000)
def _case(text: bytes) -> CaseKey:
    case: CaseKey = _adapter(CaseKey).validate_json(text)
    return case


@lru_cache(maxsize=20_000)
def _fingerprint(network: bytes, protocol: bytes, environment: bytes) -> Fingerprint:
    return Fingerprint(network=_text(network), protocol=_text(protocol), environment=_text(environment))


@cache
def _adapter(kind: type[_T]) -> TypeAdapter[_T]:
    return TypeAdapter(kind)
