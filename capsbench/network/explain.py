"""Says what a person wrote wrong in a YAML file: pydantic's finding, put at file:line:key, with what is legal."""

from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from capsbench.errors import BadInput, unknown_name

Schema = dict[str, Any]
Location = Sequence[int | str]


def explain(error: ValidationError, node: yaml.Node, source: str, schema: Schema) -> BadInput:
    """The first finding as one sentence; a key that is not known goes before one that is missing.

    Args:
        error: what validation found.
        node: the YAML document, for line numbers.
        source: the file's name.
        schema: JSON Schema of the type that was expected, for the legal keys.
    """
    found = error.errors(include_url=False)
    first = next((item for item in found if _is_unknown_key(item)), found[0])
    line, path = _locate(node, first["loc"])
    return _sentence(first, f"{source}:{line}:{path}" if path else f"{source}:{line}", schema)


def _is_unknown_key(item: ErrorDetails) -> bool:
    return item["type"] in {"unexpected_keyword_argument", "extra_forbidden"}


def _sentence(item: ErrorDetails, where: str, schema: Schema) -> BadInput:
    given, context = item["input"], item.get("ctx", {})
    if _is_unknown_key(item):
        legal = _legal_keys(item["loc"], schema)
        return unknown_name("key", str(item["loc"][-1]), legal, where)
    match item["type"]:
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return BadInput("this key is required but missing", where)
        case "union_tag_invalid":
            legal = str(context.get("expected_tags", "")).replace("'", "").split(", ")
            tag = str(context.get("discriminator", "kind")).strip("'")
            return unknown_name(tag, str(context.get("tag")), legal, where)
        case "union_tag_not_found":
            return BadInput(f"the key {context.get('discriminator', 'kind')} is required here", where)
        case "literal_error":
            return BadInput(f"{given!r} is not legal, legal are {context.get('expected')}", where)
        case "value_error":  # raised by the dataclass itself, as a whole sentence
            return BadInput(str(context.get("error")), where)
        case "dataclass_type":
            return BadInput(f"a mapping of keys to values is expected, not {_short(given)}", where)
    message = item["msg"][0].lower() + item["msg"][1:]
    return BadInput(f"{message}, not {_short(given)}", where)


def _legal_keys(location: Location, schema: Schema) -> list[str]:
    spot = _resolve(schema, schema)
    for part in location[:-1]:
        spot = _descend(spot, part, schema)
    return list(spot.get("properties", {}))


def _descend(spot: Schema, part: int | str, schema: Schema) -> Schema:
    """One step of a pydantic location: a list index, a key, or the tag that picks a member of a union."""
    options = [_resolve(option, schema) for option in spot.get("anyOf") or spot.get("oneOf", [])]
    if isinstance(part, int):
        listed = next((option for option in (spot, *options) if "items" in option), {})
        return _resolve(listed.get("items", {}), schema)
    for union in (spot, *options):
        tagged = union.get("discriminator", {}).get("mapping", {}).get(part)
        if tagged is not None:
            return _resolve({"$ref": tagged}, schema)
    if part in spot.get("properties", {}):
        return _resolve(spot["properties"][part], schema)
    return next((option for option in options if option.get("title") == part), spot)


def _resolve(spot: Schema, schema: Schema) -> Schema:
    """What a reference stands for; of something that may be left out, what it is where it is given."""
    if "$ref" in spot:
        found: Schema = schema["$defs"][spot["$ref"].rsplit("/", 1)[-1]]
        return found
    given = [option for option in spot.get("anyOf", []) if option != {"type": "null"}]
    return _resolve(given[0], schema) if len(given) == 1 else spot


def _short(given: object) -> str:
    text = repr(given)
    return text if len(text) <= 60 else text[:57] + "..."


def _locate(node: yaml.Node, location: Location) -> tuple[int, str]:
    """The line where `location` stands, and its path as a person writes it: layers[2].kernel."""
    line, path = node.start_mark.line + 1, ""
    for part in location:
        if isinstance(part, int) and isinstance(node, yaml.SequenceNode) and part < len(node.value):
            node = node.value[part]
            line, path = node.start_mark.line + 1, f"{path}[{part}]"
        elif isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == part), None)
            if pair is not None:
                node, line = pair[1], pair[0].start_mark.line + 1
            if pair is not None or part == location[-1]:
                path = f"{path}.{part}" if path else str(part)
    return line, path
