"""The networks that come with capsbench, one YAML file each, named after the file."""

from functools import cache
from importlib.resources import files
from pathlib import Path

from capsbench.errors import BadInput, unknown_name
from capsbench.network.network import Network, check_structure
from capsbench.network.text import parse, read_text


def names() -> tuple[str, ...]:
    """The networks of the zoo, in alphabetical order."""
    return tuple(sorted(item.name.removesuffix(".yaml") for item in _folder() if item.name.endswith(".yaml")))


@cache
def load(name: str) -> Network:
    """A network by its name in the zoo, or by the path of a YAML file (anything with a suffix or a slash).

    Raises:
        BadInput: no such network, or a file that is not one.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or "/" in name:
        text, source = read_text(path), name
    elif name in names():
        text, source = (files(__package__) / f"{name}.yaml").read_text(encoding="utf-8"), f"zoo/{name}.yaml"
    else:
        raise unknown_name("network", name, names())
    network = parse(text, Network, source)
    try:
        check_structure(network)
    except BadInput as error:
        raise BadInput(str(error), source) from None
    return network


def _folder() -> list[Path]:
    return [Path(str(item)) for item in files(__package__).iterdir()]
