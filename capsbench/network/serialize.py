"""Frozen dataclasses as JSON, for what travels between processes of one installation.

Values that JSON has no number for (NaN, infinities) are written as Python's `json` writes them.
"""

import json
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter

from capsbench.network.text import plain

T = TypeVar("T")


def to_json(value: object) -> bytes:
    """Encode a dataclass, with all its fields, as one line of UTF-8; text that UTF-8 cannot hold becomes `?`."""
    text = json.dumps(plain(value, defaults=True), separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "replace")


def from_json(kind: type[T], data: bytes | str) -> T:
    """Decode a dataclass.

    Args:
        kind: the dataclass, or a union of dataclasses that pydantic can tell apart.
        data: what `to_json` wrote.

    Raises:
        pydantic.ValidationError: `data` is no JSON, or not that of a `kind`.
    """
    value: T = _adapter(cast("Any", kind)).validate_json(data)
    return value


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401 - a type form, which mypy has no hashable name for
    return TypeAdapter(kind)
