"""Which commit moved a number: the line that has git look for it, and what a commit on the way is like."""

import shlex
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

import capsbench
from capsbench.metrics import metric_type
from capsbench.record.changes import Change
from capsbench.record.claims import packaged_path
from capsbench.record.compare import numbers
from capsbench.record.pairs import Pair
from capsbench.record.schema import Record
from capsbench.stats.shift import shift
from capsbench.suite.schema import Measure
from capsbench.track.revisions import Repository, Revision

STATUS: Final = "status"
Likeness = Literal["base", "head"]
_ORDER: Final = ("status", "exact", "bytes", "time", "rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """What the line must name: the runs' ids, the folders of results and data, and the commits."""

    base_run: str
    head_run: str
    base: Revision
    head: Revision
    results: Path
    data: Path


def worth_a_search(changes: Iterable[Change]) -> list[Change]:
    """Of each case with something worse the one change that a search would rest on: what repeats best."""
    worse = [change for change in changes if change.verdict == "worse" and change.kind in _ORDER]
    worse.sort(key=lambda change: (_ORDER.index(change.kind), change.metric == "peak_bytes"))
    best: dict[str, Change] = {}
    for change in worse:
        best.setdefault(change.pair.new.case.id, change)
    return list(best.values())


def line(change: Change, where: Where, driver: Path | None) -> str:
    """What a person types to have git find the commit.

    Args:
        change: what is worse.
        where: see there.
        driver: the folder with a capsbench that no checkout changes; None where the installed one is such.
    """
    program = [sys.executable, "-P", "-m", "capsbench", "bisect"]
    if driver is not None:
        program = ["env", f"PYTHONPATH={driver}", *program]
    options = ["--case", change.pair.new.case.id, "--metric", change.metric]
    folders = ["--results", str(where.results.resolve()), "--data", str(where.data.resolve())]
    step = shlex.join([*program, where.base_run, where.head_run, *options, *folders])
    return f"git bisect start {where.head.short} {where.base.short} && git bisect run {step}"


def driver_outside(repository: Repository, folder: Path) -> Path | None:
    """A copy of this capsbench, where the one that runs lies in the repository, whose files a search changes.

    Args:
        repository: that is searched.
        folder: of the copy; made new.

    Returns:
        What is to be first on the path; None where no copy is needed.
    """
    package = Path(capsbench.__file__).resolve().parent
    if not package.is_relative_to(repository.root):
        return None
    copy = folder / package.name
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    ledger = packaged_path()  # a checkout keeps it elsewhere, a wheel beside the module that reads it
    if ledger.is_file():
        shutil.copyfile(ledger, copy / "record" / ledger.name)
    return folder.resolve()


def measures(metric: str, whole: tuple[Measure, ...]) -> tuple[Measure, ...]:
    """What must be measured to know a number."""
    found = metric_type(metric).measure
    return (cast("Measure", found),) if found else whole


def likeness(metric: str, kept: Pair, found: Record) -> Likeness | None:
    """Which side a commit is like in what repeats: the one whose number is nearer; None where it has no number.

    Args:
        metric: its name, or `status`.
        kept: the case at BASE and at HEAD.
        found: the same case at the commit.
    """
    if metric == STATUS:
        known: dict[str, Likeness] = {kept.base.status: "base", kept.new.status: "head"}
        return known.get(found.status)
    values = [numbers(record).get(metric) for record in (kept.base, kept.new, found)]
    base, head, here = (None if metric_ is None else float(metric_.value) for metric_ in values)
    if base is None or head is None or here is None or found.status != "ok":
        return None
    return _nearer(here, base, head)


def likeness_in_time(metric: str, kept: Pair, seen: Pair) -> Likeness | None:
    """Which side a commit is like in a time, by its ratio to BASE where both were just measured in turns.

    Args:
        metric: its name.
        kept: the case at BASE and at HEAD.
        seen: the case at BASE and at the commit.
    """
    ratios = []
    for pair in (kept, seen):
        sides = [record.metrics.get(metric) for record in (pair.base, pair.new)]
        found = shift(*(side.samples if side is not None else () for side in sides), paired=True)
        if found is None or seen.new.status != "ok":
            return None
        ratios.append(found.ratio)
    return _nearer(ratios[1], 1.0, ratios[0])


def _nearer(here: float, base: float, head: float) -> Likeness:
    return "head" if abs(here - head) < abs(here - base) else "base"
