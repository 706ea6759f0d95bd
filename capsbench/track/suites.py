"""A tracked suite at the commit under test: what its cases are, and all of them run once, as plain numbers."""

import ast
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from capsbench import plugins
from capsbench.dataset import catalog
from capsbench.errors import BadInput
from capsbench.measure.environment import describe_environment
from capsbench.network.text import plain, read_text
from capsbench.record.schema import Record
from capsbench.runner.progress import ConsoleProgress
from capsbench.runner.resolve import probe, resolve_device
from capsbench.runner.schedule import run_cases
from capsbench.store.run import RunStore
from capsbench.store.runs import create
from capsbench.suite.cases import Case, expand
from capsbench.suite.schema import Suite, load_suite
from capsbench.track.benchmarks import OPS, Cells, Plan

_METRICS = (
    "train_step_seconds",
    "forward_seconds",
    "compile_seconds",
    "peak_bytes",
    "allocated_bytes",
    "error_rate",
)
_RESULTS = Path("results", "tracked")
_PROCESSES = 2  # of a case beside its timing rounds: its checks, and its training


def plans(folder: Path) -> Iterator[Plan]:
    """Every suite of a folder that says `track: true`, in the order of the files' names."""
    names: dict[str, Path] = {}
    for path in sorted(folder.resolve().glob("*.yaml")):
        if not _says_so(path):
            continue
        name = _identifier(path.stem)
        other = names.setdefault(name, path)
        clash = f"asv would know it as {name}, and {other.name} too; one of them needs another file name"
        try:
            yield Plan(name, str(path), problem=f"{path}: {clash}") if other != path else _plan(name, path)
        except BadInput as error:
            yield Plan(name, str(path), problem=str(error))


def asked(plan: Plan) -> Plan:
    """The plan that asv works by, made at the commit where it looked for benchmarks; else the plan itself.

    asv passes the number of a case in that plan, and takes its version for all commits.
    """
    folder = _root(plan)
    with suppress(OSError, ValueError, LookupError, SyntaxError):
        results = json.loads((folder / "asv.conf.json").read_text(encoding="utf-8"))["results_dir"]
        known = json.loads((folder / results / "benchmarks.json").read_text(encoding="utf-8"))
        benchmark = known[f"{plan.name}.track_failed"]
        cases = tuple(ast.literal_eval(case) for case in benchmark["params"][0])
        return replace(plan, cases=cases, works=tuple(benchmark["version"].split("-")[1:]))
    return plan


def measure(plan: Plan) -> Cells:
    """Run what a plan asks for; a case that cannot be run, or fails, has the reason in its cell."""
    try:
        found = _measure(plan)
    except Exception as error:  # noqa: BLE001 - whatever a commit breaks is the reason in its cells
        said = str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}"
        found = dict.fromkeys(plan.cases, _failed(" ".join(said.split())))
    return found


def _measure(plan: Plan) -> Cells:
    path = Path(plan.file)
    suite, own = load_suite(path), _plan(plan.name, path)
    devices, problems = _devices(suite)
    cases = dict(zip(own.cases, expand(suite, path, _modes(suite), devices), strict=True))
    works = dict(zip(own.cases, own.works, strict=True))
    cells: Cells = {}
    for label, work in zip(plan.cases, plan.works, strict=True):
        if label not in cases:
            cells[label] = _failed(f"at this commit {path.name} has no such case")
        elif works[label] != work:
            cells[label] = _failed("at this commit its network, data or protocol is another, so nothing is compared")
        elif cases[label].backend in problems:
            cells[label] = _failed(problems[cases[label].backend])
    chosen = {label: cases[label] for label in plan.cases if label not in cells}
    return cells | (_run(plan, suite, chosen) if chosen else {})


def _run(plan: Plan, suite: Suite, cases: Mapping[str, Case]) -> Cells:
    root = _root(plan)
    for name in {case.dataset.protocol.data for case in cases.values()}:
        missing = [path for path, here in catalog.locate(name, root / "data") if not here]
        if missing:
            raise BadInput(f"data set {name} is not there: no file {missing[0]} (or .gz)")
    store = create(root / _RESULTS, _header(plan, suite))
    with ConsoleProgress(Console(stderr=True)) as progress:
        run_cases(cases.values(), data_root=root / "data", cache=None, store=store, listener=progress)
    records = {record.case.id: record for record in store.records()}
    return {label: _cell(records[case.id], store) for label, case in cases.items()}


def _header(plan: Plan, suite: Suite) -> dict[str, Any]:
    """What run.json says; the commit is the one under test, which asv has checked out in its environment."""
    environment = os.environ.get("ASV_ENV_DIR")
    checkout = Path(environment, "project") if environment else _root(plan)
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "suites": [{"file": Path(plan.file).name, "suite": plain(suite, defaults=True)}],
        "environment": plain(describe_environment(checkout), defaults=True),
    }


def _cell(record: Record, store: RunStore) -> dict[str, Any]:
    numbers = {name: record.metrics[name] for name in _METRICS if name in record.metrics}
    cell: dict[str, Any] = {
        "reason": "",
        "numbers": {name: list(m.samples) if m.unit == "s" else m.value for name, m in numbers.items()},
        "ops": _ops(record),
    }
    if record.parity is not None:
        cell["numbers"]["parity_error"] = max(
            record.parity.forward_max_relative_error, record.parity.gradient_relative_error
        )
    if record.status != "ok":
        cell["reason"] = " ".join(f"{record.status}: {record.reason} (run {store.run_id})".split())
    return cell


def _ops(record: Record) -> dict[str, dict[str, Any]]:
    """What the named ops and the rest took; nothing where no step was profiled."""
    if not record.ops or record.step_profile_bytes is None or record.step_profile_seconds is None:
        return {}
    rows = {op: {"allocated_bytes": 0.0, "self_seconds": 0.0} for op in OPS}
    for event in record.ops:
        row = rows.get(event.op, rows["other"])
        row["allocated_bytes"] += event.allocated_bytes
        row["self_seconds"] += event.self_seconds
    for unit, whole in (("allocated_bytes", record.step_profile_bytes), ("self_seconds", record.step_profile_seconds)):
        rows["other"][unit] += max(0.0, whole - sum(row[unit] for row in rows.values()))
    return {op: {**row, "self_seconds": [row["self_seconds"]]} for op, row in rows.items()}


def _plan(name: str, path: Path) -> Plan:
    suite = load_suite(path)
    cases = expand(suite, path, _modes(suite))
    split = [case.id.rpartition("-") for case in cases]
    often = Counter(label for label, _, _ in split)
    labels = tuple(f"{label}-{work}" if often[label] > 1 else label for label, _, work in split)
    seconds = sum(case.limits.seconds * (case.time.rounds + _PROCESSES) for case in cases)
    return Plan(name, str(path), labels, tuple(work for _, _, work in split), seconds)


def _modes(suite: Suite) -> dict[str, tuple[str, ...]]:
    """The modes of every backend; of one that this commit cannot import, those that the suite names."""
    known = {name: tuple(found.backend.modes) for name, found in plugins.discover().items() if found.backend}
    named: dict[str, tuple[str, ...]] = {}
    for use in suite.uses():
        name, _, mode = use.partition(":")
        named[name] = (*named.get(name, ()), mode or "default")
    return named | known


def _devices(suite: Suite) -> tuple[dict[str, str], dict[str, str]]:
    """What the suite's device means for each backend, and why others cannot be used."""
    devices: dict[str, str] = {}
    problems: dict[str, str] = {}
    for name, found in probe(use.partition(":")[0] for use in suite.uses()).items():
        try:
            devices |= resolve_device(suite.device, {name: found})
        except BadInput as error:
            problems[name] = str(error)
    return devices, problems


def _failed(reason: str) -> dict[str, Any]:
    return {"reason": reason, "numbers": {}, "ops": {}}


def _says_so(path: Path) -> bool:
    """Whether a suite is tracked; whatever else it says may be wrong."""
    try:
        data = yaml.safe_load(read_text(path))
    except (BadInput, yaml.YAMLError):
        return False
    return isinstance(data, dict) and data.get("track") is True


def _identifier(text: str) -> str:
    """A name that Python takes, and asv: it passes over those that begin with an underscore."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII)
    return name if name[0].isalpha() else f"suite_{name}"


def _root(plan: Plan) -> Path:
    """The folder of asv.conf.json."""
    return Path(os.environ.get("ASV_CONF_DIR") or Path(plan.file).parent.parent)
