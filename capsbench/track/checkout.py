"""What makes Python import a checkout that nobody installed: its folders, and its entry points as metadata.

Backends are found by the entry points of installed distributions. A folder `NAME.dist-info`, written from the
checkout's own pyproject.toml and first on the path, stands before one of the same name that is installed.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_SECONDS: Final = 120.0
_FIND: Final = (
    "import importlib.util, json, sys\n"
    "found = {name: importlib.util.find_spec(name) for name in sys.argv[1:]}\n"
    "print(json.dumps({name: spec and (spec.origin or [*spec.submodule_search_locations][0])"
    " for name, spec in found.items()}))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A revision's files, ready to be run.

    Attributes:
        folder: of the project.
        environment: of a process that is to import it.
        has_figures: whether its `run` can be told not to draw.
        takes_turns: whether its workers ask for turns.
        problem: why it cannot be run, in one sentence; None where nothing speaks against it.
    """

    folder: Path
    environment: Mapping[str, str]
    has_figures: bool = True
    takes_turns: bool = False
    problem: str | None = None


def prepare(folder: Path, metadata: Path) -> Checkout:
    """Make a checkout importable and see whether it can be run at all.

    Args:
        folder: of the project.
        metadata: a new folder outside of it, for what is written.
    """
    try:
        project = _read(folder)
        paths = [*_write_metadata(project, metadata), *_import_folders(project, folder)]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError, AttributeError) as error:
        return Checkout(folder=folder, environment={}, problem=f"its pyproject.toml cannot be read: {error}")
    inherited = filter(None, [os.environ.get("PYTHONPATH")])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, paths), *inherited])}
    problem = _elsewhere(_modules(project), folder, environment)
    if problem is not None:
        return Checkout(folder=folder, environment=environment, problem=problem)
    help_text, problem = _say(["-m", "capsbench", "run", "--help"], folder, environment)
    if problem is not None:
        return Checkout(folder=folder, environment=environment, problem=problem)
    _, knows_none = _say(["-c", "import capsbench.worker.turns"], folder, environment)
    return Checkout(
        folder=folder,
        environment=environment,
        has_figures="--no-figures" in help_text,
        takes_turns=knows_none is None,
    )


def last_line(text: str) -> str:
    """What a process said last, without the name that our own sentences begin with."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("capsbench: ") if lines else ""


def _read(folder: Path) -> dict[str, Any]:
    """The table `project` of pyproject.toml; an empty one where there is none."""
    path = folder / "pyproject.toml"
    project: dict[str, Any] = tomllib.loads(path.read_text("utf-8")).get("project", {}) if path.is_file() else {}
    return project


def _write_metadata(project: Mapping[str, Any], metadata: Path) -> Iterator[Path]:
    """Write what an installation would know of the project."""
    if "name" not in project:
        return
    name, version = project["name"], project.get("version", "0")
    folder = metadata / f"{re.sub(r'[-_.]+', '_', name).lower()}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    groups = project.get("entry-points", {})
    lines = [line for group, points in groups.items() for line in (f"[{group}]", *_lines(points), "")]
    (folder / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    yield metadata


def _lines(points: Mapping[str, str]) -> Iterator[str]:
    return (f"{name} = {value}" for name, value in points.items())


def _modules(project: Mapping[str, Any]) -> list[str]:
    """The packages that entry points and scripts lie in."""
    groups = [*project.get("entry-points", {}).values(), project.get("scripts", {})]
    values = [value for points in groups for value in points.values()]
    return list(dict.fromkeys(value.partition(":")[0].partition(".")[0].strip() for value in values))


def _import_folders(project: Mapping[str, Any], folder: Path) -> list[Path]:
    """The project's folder, `src`, and wherever else its entry points lie; what is not there is left out."""
    near = [folder, folder / "src", *sorted(path for path in folder.iterdir() if _may_hold_packages(path))]
    holding = (_holder(near, name) for name in _modules(project))
    usual = [path for path in near[:2] if path.is_dir()]
    return list(dict.fromkeys([*usual, *(path for path in holding if path is not None)]))


def _may_hold_packages(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _holder(folders: list[Path], name: str) -> Path | None:
    return next((path for path in folders if (path / name).is_dir() or (path / f"{name}.py").is_file()), None)


def _elsewhere(names: list[str], folder: Path, environment: Mapping[str, str]) -> str | None:
    """Why the checkout's own packages are not what Python would import; None where they are."""
    text, problem = _say(["-c", _FIND, *names], folder, environment)
    if problem is not None:
        return problem
    for name, origin in json.loads(text).items():
        if origin is None:
            return f"it has no package {name}, which its pyproject.toml names"
        if not Path(origin).resolve().is_relative_to(folder.resolve()):
            return f"Python would import {name} from {Path(origin).parent}, not from the revision"
    return None


def _say(arguments: list[str], folder: Path, environment: Mapping[str, str]) -> tuple[str, str | None]:
    """What Python prints, and what went wrong."""
    command = [sys.executable, "-P", *arguments]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return "", f"`{' '.join(arguments[:3])}` does not end"
    if done.returncode:
        return "", last_line(done.stderr) or f"`{' '.join(arguments[:3])}` ends with {done.returncode}"
    return done.stdout, None
