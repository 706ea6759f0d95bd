"""What asv sees of a tracked suite: one class of benchmarks for its cases, one for their ops; all of them light.

asv starts a process for every number. The suite itself runs once a commit, in `setup_cache`, which leaves its cells in
the folder in which asv starts those processes, so that they read a number and import nothing. Names are the keys of
asv's history: none may change. asv takes less for better whatever it reads, so nothing here is better for being more.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from math import nan
from pathlib import Path
from types import ModuleType
from typing import Any, Final

Number = float | dict[str, object]
Cells = dict[str, dict[str, Any]]
"""Of each case: `reason` (empty where it is ok), `numbers` by metric (times as lists of samples), likewise `ops`."""

PROTOCOL: Final = 1
"""Counts the ways in which numbers are made here; another one is another benchmark."""
OPS: Final = ("BatchMatMul", "Mul", "Sum", "Sub", "Copy", "Conv2D", "other")
"""The ops that have rows of their own, and the rest; together they are the whole train step."""
_LEFT = Path("capsbench-cells.json")


@dataclass(frozen=True, slots=True)
class Plan:
    """A tracked suite as one commit reads it.

    Attributes:
        name: of its classes, a Python identifier.
        file: absolute path of the suite.
        cases: their labels, which say what a case is and are keys of asv's history.
        works: for each case, the hash of its network, data, protocol and sizes.
        seconds: that the suite may take.
        problem: why this commit cannot read the suite; empty where it can.
    """

    name: str
    file: str
    cases: tuple[str, ...] = ()
    works: tuple[str, ...] = ()
    seconds: float = 3600.0
    problem: str = ""

    @property
    def version(self) -> str:
        """What asv tells work apart by: it compares only what has the same."""
        return "-".join((str(PROTOCOL), *self.works))


class Cases:
    """The numbers of a suite's cases."""

    param_names = ("case",)

    def track_failed(self, cells: Cells, case: str) -> float:
        """0; the benchmark itself fails, with the reason, where the case failed."""
        if cells[case]["reason"]:
            raise SystemExit(f"{case}: {cells[case]['reason']}")
        return 0.0

    def track_train_step_seconds(self, cells: Cells, case: str) -> Number:
        """One sample a process."""
        return _number(cells, case, "train_step_seconds")

    def track_forward_seconds(self, cells: Cells, case: str) -> Number:
        """Likewise."""
        return _number(cells, case, "forward_seconds")

    def track_compile_seconds(self, cells: Cells, case: str) -> Number:
        """What the first pass and step took longer than the later ones."""
        return _number(cells, case, "compile_seconds")

    def track_peak_bytes(self, cells: Cells, case: str) -> Number:
        """The most that was alive at once in a train step."""
        return _number(cells, case, "peak_bytes")

    def track_allocated_bytes(self, cells: Cells, case: str) -> Number:
        """All that a train step asked for, freed or not."""
        return _number(cells, case, "allocated_bytes")

    def track_error_rate(self, cells: Cells, case: str) -> Number:
        """The share of the test images that are classed wrongly."""
        return _number(cells, case, "error_rate")

    def track_parity_error(self, cells: Cells, case: str) -> Number:
        """The larger of the relative errors of forward pass and gradient, against the float64 oracle."""
        return _number(cells, case, "parity_error")


class Ops:
    """Where the profiled train step goes, op by op."""

    param_names = ("case", "op")

    def track_allocated_bytes(self, cells: Cells, case: str, op: str) -> Number:
        """Of all calls of an op."""
        return _number(cells, case, "allocated_bytes", op)

    def track_self_seconds(self, cells: Cells, case: str, op: str) -> Number:
        """Likewise, nested ops excluded; one profiled step, so a single sample."""
        return _number(cells, case, "self_seconds", op)


for _kind in (Cases, Ops):
    for _name, _function in vars(_kind).items():
        if _name.startswith("track_"):
            _function.unit = next((unit for unit in ("seconds", "bytes") if _name.endswith(unit)), "share")


def benchmarks(folder: Path) -> dict[str, type]:
    """The classes of every suite in a folder that says `track: true`, by their names.

    Raises:
        SystemExit: with a sentence, where asv asks what there is and a suite cannot be read.
    """
    classes = {}
    for plan in _plans(folder):
        shared = {"version": plan.version, "setup_cache": _setup_cache(plan)}
        classes[plan.name] = type(plan.name, (Cases,), {**shared, "params": (list(plan.cases),)})
        name = f"{plan.name}_ops"
        classes[name] = type(name, (Ops,), {**shared, "params": (list(plan.cases), list(OPS))})
    return classes


def _plans(folder: Path) -> Iterator[Plan]:
    if _LEFT.is_file():
        yield Plan(**json.loads(_LEFT.read_text(encoding="utf-8")))
        return
    from capsbench.track.suites import plans  # noqa: PLC0415 - what only reads a number pays for no import

    for plan in plans(folder):
        # A suite that this commit cannot read fails alone, but for asv's first look, which finds another commit.
        if plan.problem and sys.argv[1:2] == ["discover"]:
            raise SystemExit(f"capsbench: {plan.problem}")
        yield plan


def _setup_cache(plan: Plan) -> Callable[[object], Cells]:
    def setup_cache(_self: object) -> Cells:
        from capsbench.track.suites import asked, measure  # noqa: PLC0415 - as above

        whole = asked(plan)
        cells = measure(whole)
        _LEFT.write_text(json.dumps(asdict(whole)), encoding="utf-8")
        return cells

    # asv keeps one cache for all that are written on the same line of the same module; every suite needs its own.
    setup_cache.__module__ = f"suites.{plan.name}"
    sys.modules.setdefault(setup_cache.__module__, ModuleType(setup_cache.__module__))
    setup_cache.timeout = plan.seconds  # type: ignore[attr-defined]
    return setup_cache


def _number(cells: Cells, case: str, metric: str, op: str | None = None) -> Number:
    """A number for asv: samples for its statistics, NaN for what is not there, which fails nothing else."""
    cell = cells[case]
    found = cell["numbers"].get(metric) if op is None else cell["ops"].get(op, {}).get(metric)
    if found is None:
        sys.stderr.write(f"{case}: {cell['reason'] or f'{metric} was not measured'}\n")
        return nan
    return {"samples": found, "number": 1} if isinstance(found, list) else float(found)
