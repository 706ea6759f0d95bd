"""`capsbench schema`: JSON Schema of the files that people and programs exchange with capsbench."""

import json
import sys
from typing import Annotated

import typer

from capsbench.errors import unknown_name

EXAMPLE = "capsbench schema suite > suite.schema.json"
_KINDS = ("suite", "network", "record")


def schema(kind: Annotated[str, typer.Argument(metavar="suite|network|record", help="What to describe.")]) -> None:
    """Print a JSON Schema.

    Of a suite file, a network file, or a line of records.jsonl.
    """
    from capsbench.network.network import Network
    from capsbench.network.text import json_schema
    from capsbench.record.store import record_schema
    from capsbench.suite.schema import Suite

    if kind not in _KINDS:
        raise unknown_name("schema", kind, _KINDS)
    found = record_schema() if kind == "record" else json_schema(Suite if kind == "suite" else Network)
    sys.stdout.write(f"{json.dumps(found, indent=2, ensure_ascii=False)}\n")
