"""YAML in, YAML out: frozen dataclasses from text that a person writes, with errors at file:line:key.

Only plain data is read (`yaml.SafeLoader`). Anchors and aliases are refused, because a few lines of them can stand for
gigabytes; so are keys that come twice, which YAML would silently let win.
"""

import json
import re
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import TypeAdapter, ValidationError

from capsbench.errors import BadInput
from capsbench.network.explain import explain

T = TypeVar("T")

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_EVENTS = 200_000


# Reads ten times as fast where PyYAML comes with it, as its wheels do.
_Reader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Reader):  # type: ignore[misc]
    """The safe loader, which also reads `1e-3` as a number, as YAML 1.2 does, and leaves dates as text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_text(path: Path) -> str:
    """The text of a YAML file.

    Raises:
        BadInput: the file is missing, unreadable, larger than 1 MiB or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadInput(f"cannot read it: {error.strerror or error}", str(path)) from None
    except ValueError:  # NUL in its name
        raise BadInput("cannot read it: no file has such a name", repr(str(path))) from None
    if len(data) > MAX_BYTES:
        raise BadInput("larger than 1 MiB, which no suite or network needs", str(path))
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadInput("not UTF-8 text; a YAML file is expected", str(path)) from None


def parse(text: str, kind: type[T], source: str) -> T:
    """Read `text` as one frozen dataclass of type `kind`.

    Args:
        text: YAML.
        kind: a dataclass whose annotations pydantic can validate.
        source: what errors call the text, usually its file name.

    Raises:
        BadInput: at `source:line:key`, naming what would be legal.
    """
    node = _compose(text, source)
    loader = _Loader("")
    try:
        data = loader.construct_document(node)
        encoded = json.dumps(data)
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadInput(f"not plain YAML data: {_one_line(error)}", source) from None
    try:
        value: T = _adapter(cast("Any", kind)).validate_json(encoded, strict=True)
    except ValidationError as error:
        raise explain(error, node, source, json_schema(kind)) from None
    return value


def of_plain(data: object, kind: type[T], source: str) -> T:
    """As `parse`, of plain data, without the time that YAML takes unless there is a mistake to be explained.

    Raises:
        BadInput: as there.
    """
    encoded = json.dumps(data)
    try:
        value: T = _adapter(cast("Any", kind)).validate_json(encoded, strict=True)
    except ValidationError:
        return parse(encoded, kind, source)
    return value


def dump(value: object) -> str:
    """The canonical YAML of a frozen dataclass: fields in order, defaults left out, `kind` first."""
    return yaml.safe_dump(plain(value), sort_keys=False, allow_unicode=True, width=110)


def plain(value: object, *, defaults: bool = False) -> Any:  # noqa: ANN401 - plain data of any shape
    """A frozen dataclass as dicts, lists and scalars, without the fields that hold their default (unless asked)."""
    if is_dataclass(value) and not isinstance(value, type):
        shown = [f for f in fields(value) if defaults or _is_tag(f) or getattr(value, f.name) != _default(f)]
        shown.sort(key=lambda f: not _is_tag(f))
        return {f.name: plain(getattr(value, f.name), defaults=defaults) for f in shown}
    if isinstance(value, list | tuple):
        return [plain(item, defaults=defaults) for item in value]
    if isinstance(value, dict):
        return {key: plain(item, defaults=defaults) for key, item in value.items()}
    return value


def json_schema(kind: type) -> dict[str, Any]:
    """The JSON Schema (2020-12) of what `parse` takes for `kind`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_schema(kind)}


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401 - a type form, which mypy has no hashable name for
    return TypeAdapter(kind)


@cache
def _schema(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    return _adapter(kind).json_schema()


def _is_tag(field: Field[Any]) -> bool:
    """A field that tells the members of a union apart must be written even where it holds its default."""
    return field.name == "kind" or (field.name == "name" and isinstance(field.default, str))


def _default(field: Field[Any]) -> object:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _compose(text: str, source: str) -> yaml.Node:
    _check_events(text, source)
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise _not_yaml(error, source) from None
    if not isinstance(node, yaml.MappingNode):
        raise BadInput("a mapping of keys to values is expected", f"{source}:1")
    _check_keys(node, source)
    return node


def _check_events(text: str, source: str) -> None:
    depth = 0
    try:
        for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
            where = source if event.start_mark is None else f"{source}:{event.start_mark.line + 1}"
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise BadInput("anchors and aliases are not allowed; write the value out", where)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise BadInput(f"nested deeper than {MAX_DEPTH} levels", where)
            if count > MAX_EVENTS:
                raise BadInput(f"more than {MAX_EVENTS:,} values", where)
    except yaml.YAMLError as error:
        raise _not_yaml(error, source) from None


def _not_yaml(error: yaml.YAMLError, source: str) -> BadInput:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or _one_line(error)
    return BadInput(f"not YAML: {problem}", source if mark is None else f"{source}:{mark.line + 1}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _check_keys(node: yaml.Node, source: str) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            where = f"{source}:{key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise BadInput("a key must be a plain word", where)
            if key.value in seen:
                raise BadInput("the key comes twice", f"{where}:{key.value}")
            seen.add(key.value)
            _check_keys(value, source)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item, source)
