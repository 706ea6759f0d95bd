"""Tables as JSON, with the exact value and the unit of every cell beside its text."""

import json
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from capsbench.errors import BadInput
from capsbench.network.text import plain
from capsbench.report.table import Table


def write(tables: Sequence[Table]) -> str:
    """One object with the key `tables`; a value that is not finite is null, and its text says what it is."""
    told = [_strict(plain(each, defaults=True)) for each in tables]
    return json.dumps({"tables": told}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read(text: str) -> tuple[Table, ...]:
    """The tables that `write` wrote.

    Raises:
        BadInput: it wrote no such text.
    """
    try:
        return _adapter().validate_python(json.loads(text)["tables"])
    except (ValueError, KeyError, TypeError, ValidationError, RecursionError):
        raise BadInput("this is no JSON of capsbench: an object with the key tables is expected") from None


def _strict(value: object) -> Any:  # noqa: ANN401 - plain data of any shape
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@cache
def _adapter() -> TypeAdapter[tuple[Table, ...]]:
    return TypeAdapter(tuple[Table, ...])
