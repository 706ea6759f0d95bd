"""A record as one line of strict JSON, and back; what is not finite is a word there, as JSON has no number for it."""

import json
import math
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from capsbench.errors import BadInput
from capsbench.network.text import json_schema, plain
from capsbench.record.schema import SCHEMA, Record

_NOT_FINITE = ("NaN", "Infinity", "-Infinity")


def encode(record: Record) -> bytes:
    """The record as one line of strict JSON; what is not finite is written as the text NaN, Infinity, -Infinity."""
    return json.dumps(strict(plain(record, defaults=True)), separators=(",", ":"), allow_nan=False).encode() + b"\n"


def decode(line: bytes, where: str) -> Record | None:
    """The record of a line, or None where the line is damaged; what an older schema did not know of is empty.

    Raises:
        BadInput: a newer capsbench wrote it.
    """
    try:
        # One without a schema is none of ours, though the class has a default.
        found = _adapter().validate_json(line) if b'"schema"' in line else None
        schema = found.schema if found else 0
    except ValidationError:
        found, schema = None, _schema(line)
    if schema > SCHEMA:
        raise BadInput(f"a newer capsbench wrote this (schema {schema}, this one knows up to {SCHEMA})", where)
    return found


def _schema(line: bytes) -> int:
    """Of a line that is no record of ours; 0 where it says none."""
    try:
        schema = json.loads(line)["schema"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return 0
    return schema if isinstance(schema, int) else 0


def record_schema() -> dict[str, Any]:
    """The JSON Schema of a line, which also takes the texts that stand for numbers that are not finite."""
    schema: dict[str, Any] = _with_not_finite(json_schema(Record))
    return schema


def strict(value: object) -> Any:  # noqa: ANN401 - plain data of any shape
    """Plain data that strict JSON and UTF-8 can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else _NOT_FINITE[1 if value > 0 else 2]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {strict(str(key)): strict(item) for key, item in value.items()}
    return [strict(item) for item in value] if isinstance(value, list | tuple) else value


def _with_not_finite(spot: object) -> Any:  # noqa: ANN401 - plain data of any shape
    if isinstance(spot, dict):
        changed = {key: _with_not_finite(value) for key, value in spot.items()}
        if changed.get("type") == "number":
            del changed["type"]
            changed["anyOf"] = [{"type": "number"}, {"enum": list(_NOT_FINITE)}]
        return changed
    return [_with_not_finite(item) for item in spot] if isinstance(spot, list) else spot


@cache
def _adapter() -> TypeAdapter[Record]:
    return TypeAdapter(Record)
