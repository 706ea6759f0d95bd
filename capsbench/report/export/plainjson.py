"""Tables as JSON, with the exact value and the unit of every cell beside its text."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache, lru_cache
from itertools import starmap
from typing import Final

from pydantic import TypeAdapter, ValidationError

from capsbench.errors import BadInput
from capsbench.network.text import plain
from capsbench.report.table import Table, Value

_ENCODER: Final = json.JSONEncoder(indent=1, ensure_ascii=False, allow_nan=False)
_NO_ROWS, _ROWS = '"rows": []', '"rows": ['
_quoted = json.encoder.encode_basestring


def pieces(table: Table) -> Iterator[str]:
    """A table as `json.dumps(table, indent=1)` has it.

    A value that is not finite is null, and its text says what it is.
    """
    text = _ENCODER.encode(plain(replace(table, rows=()), defaults=True)).replace("\n", "\n  ")
    before, after = text.split(_NO_ROWS, 1) if table.rows else (text, "")
    yield before
    for number, row in enumerate(table.rows):
        yield f"{',' if number else _ROWS}\n    [{','.join(starmap(_cell, row))}\n    ]"
    yield f"\n   ]{after}" if table.rows else after


def together(tables: Iterable[Iterable[str]]) -> Iterator[str]:
    """One object with the key `tables`."""
    yield '{\n "tables": ['
    number = 0
    for number, table in enumerate(tables, 1):
        yield ("," if number > 1 else "") + "\n  "
        yield from table
    yield ("\n " if number else "") + "]\n}\n"


def write(tables: Iterable[Table]) -> str:
    """The whole text."""
    return "".join(together(map(pieces, tables)))


@lru_cache(maxsize=65536, typed=True)  # 1 and 1.0 are written as what they are
def _cell(text: str, value: Value, unit: str) -> str:
    exact = _value(value)
    return f'\n     {{\n      "text": {_quoted(text)},\n      "value": {exact},\n      "unit": {_quoted(unit)}\n     }}'


def _value(value: Value) -> str:
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else "null"
    return repr(value) if type(value) is int else json.dumps(value, ensure_ascii=False)


def read(text: str) -> tuple[Table, ...]:
    """The tables that `write` wrote.

    Raises:
        BadInput: it wrote no such text.
    """
    try:
        found = _adapter().validate_python(json.loads(text)["tables"])
        return tuple(replace(table, rows=tuple(map(tuple, table.rows))) for table in found)
    except (ValueError, KeyError, TypeError, ValidationError, RecursionError):
        raise BadInput("this is no JSON of capsbench: an object with the key tables is expected") from None


@cache
def _adapter() -> TypeAdapter[tuple[Table, ...]]:
    return TypeAdapter(tuple[Table, ...])
