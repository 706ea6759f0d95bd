"""A network that differs from another in a few values, as ablations need it: values are named by dotted paths.

`routing.inverse_temperature.final` is a value of the network, `layers.conv_caps1.transform_std` one of the layer
conv_caps1.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from capsbench.errors import BadInput, unknown_name
from capsbench.network.network import Network, check_structure
from capsbench.network.text import of_plain, plain


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
        varied = of_plain(data, Network, "")
    except BadInput as error:
        where = error.where or ""
        raise BadInput(str(error).removeprefix(f"{where}: "), where.rpartition(":")[2]) from None
    check_structure(varied)
    return varied


def _assign(data: dict[str, Any], path: str, value: JsonValue) -> None:
    *way, last = path.split(".")
    spot: Any = data
    for part in way:
        spot = spot[_key(spot, part, path)]
    spot[_key(spot, last, path)] = value


def _key(spot: Any, part: str, path: str) -> str | int:  # noqa: ANN401 - plain data of any shape
    """What `part` means in a mapping, or where the layer of that name stands in a list of them."""
    if isinstance(spot, list) and all(isinstance(item, dict) and "name" in item for item in spot):
        places = {item["name"]: place for place, item in enumerate(spot)}
        if part not in places:
            raise unknown_name("layer", part, places, path)
        return places[part]
    if not isinstance(spot, dict):
        raise BadInput(f"{part!r} leads nowhere, for {spot!r} holds no other values", path)
    if part not in spot:
        raise unknown_name("key", part, spot, path)
    return part
