"""`capsbench schema`: JSON Schema of the files that people and programs exchange with capsbench."""

import json
import sys
from typing import Annotated

import typer

from capsbench.errors import unknown_name
from capsbench.network.network import Network
from capsbench.network.text import json_schema
from capsbench.record.claims import Ledger
from capsbench.record.codec import record_schema
from capsbench.suite.schema import Suite

EXAMPLE = "capsbench schema suite > suite.schema.json"
_KINDS = ("suite", "network", "record", "claims")


def schema(
    kind: Annotated[str, typer.Argument(metavar="suite|network|record|claims", help="Kind of file to describe.")],
) -> None:
    """Print a JSON Schema of suites, networks, records or claims.

    KIND is suite (suite files), network (network files), record (lines of records.jsonl) or claims (the ledger of
    published claims).
    """
    if kind not in _KINDS:
        raise unknown_name("schema", kind, _KINDS)
    kinds = {"suite": Suite, "network": Network, "claims": Ledger}
    found = record_schema() if kind == "record" else json_schema(kinds[kind])
    sys.stdout.write(f"{json.dumps(found, indent=2, ensure_ascii=False)}\n")
