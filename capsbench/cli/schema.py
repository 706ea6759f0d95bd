"""`capsbench schema`: JSON Schema of the files that people and programs exchange with capsbench."""

import json
import sys
from typing import Annotated

import typer

from capsbench.errors import unknown_name

EXAMPLE = "capsbench schema suite > suite.schema.json"
_KINDS = ("suite", "network", "record", "claims")


def schema(
    kind: Annotated[str, typer.Argument(metavar="suite|network|record|claims", help="What to describe.")],
) -> None:
    """Print a JSON Schema.

    Of a suite file, a network file, a line of records.jsonl, or the ledger of published claims.
    """
    from capsbench.network.network import Network
    from capsbench.network.text import json_schema
    from capsbench.record.claims import Ledger
    from capsbench.record.codec import record_schema
    from capsbench.suite.schema import Suite

    if kind not in _KINDS:
        raise unknown_name("schema", kind, _KINDS)
    kinds = {"suite": Suite, "network": Network, "claims": Ledger}
    found = record_schema() if kind == "record" else json_schema(kinds[kind])
    sys.stdout.write(f"{json.dumps(found, indent=2, ensure_ascii=False)}\n")
