"""A network that differs from another in a few values, as ablations need it: values are named by dotted paths.

`routing.inverse_temperature.final` is a value of the network, `layers.conv_caps1.transform_std` one of the layer
conv_caps1.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from capsbench.errors import BadInput, unknown_name
from capsbench.network.network import Network, check_structure
from capsbench.network.text import parse, plain


def vary(network: Network, name: str, changes: Mapping[str, JsonValue]) -> Network:
    """A network with other values, checked like one that was read from a file.

    Args:
        network: that all other values are taken from.
        name: of the new one.
        changes: values by their dotted paths. A mapping replaces the whole of what stood there.

    Raises:
        BadInput: at a path that leads nowhere or to a value that cannot be; its `where` begins with the path.
    """
    data = {**plain(network, defaults=True), "name": name}
    for path, value in changes.items():
        _assign(data, path, value)
    try:
        varied = parse(json.dumps(data), Network, "")
    except BadInput as error:
        where = error.where or ""
        raise BadInput(str(error).removeprefix(f"{where}: "), where.rpartition(":")[2]) from None
    check_structure(varied)
    return varied


def _assign(data: dict[str, Any], path: str, value: JsonValue) -> None:
    *way, last = path.split(".")
    spot: Any = data
    for part in way:
        spot = _step(spot, part, path)
    _step(spot, last, path)
    spot[last] = value


def _step(spot: Any, part: str, path: str) -> Any:  # noqa: ANN401 - plain data of any shape
    """What stands under a key, or the layer of a name."""
    if isinstance(spot, list) and all(isinstance(item, dict) and "name" in item for item in spot):
        spot = {item["name"]: item for item in spot}
        kind = "layer"
    else:
        kind = "key"
    if not isinstance(spot, dict):
        raise BadInput(f"{part!r} leads nowhere, for {spot!r} holds no other values", path)
    if part not in spot:
        raise unknown_name(kind, part, spot, path)
    return spot[part]
