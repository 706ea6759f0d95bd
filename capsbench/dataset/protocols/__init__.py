"""The protocols that come with capsbench, one YAML file each, named after the file."""

from functools import cache
from importlib.resources import files

from capsbench.dataset.protocol import Protocol, check_protocol
from capsbench.errors import unknown_name
from capsbench.network.text import parse


@cache
def names() -> tuple[str, ...]:
    """The protocols, in alphabetical order."""
    listed = (item.name for item in files(__package__).iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in listed if name.endswith(".yaml")))


@cache
def load(name: str) -> Protocol:
    """A protocol by its name.

    Raises:
        BadInput: there is no such protocol.
    """
    if name not in names():
        raise unknown_name("data set", name, names())
    source = f"protocols/{name}.yaml"
    protocol = parse((files(__package__) / f"{name}.yaml").read_text(encoding="utf-8"), Protocol, source)
    check_protocol(protocol, source)
    return protocol
