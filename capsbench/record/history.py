"""One metric over all stored runs, in the order of time: a row of numbers for each case, streamed from the disk."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from capsbench.errors import BadInput, unknown_name
from capsbench.metrics import Direction, depends_on_machine, metric_type
from capsbench.record.pairs import setting
from capsbench.record.schema import CaseKey
from capsbench.store.run import Glimpse, RunStore
from capsbench.store.runs import all_runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A run along the way.

    Attributes:
        run: its id.
        commit: full hash; None where there was no repository, or run.json does not say.
        dirty: whether files differed from that commit.
        machine: number of its machine, from 1 in the order in which they come.
        packages: versions by name.
    """

    run: str
    commit: str | None
    dirty: bool
    machine: int
    packages: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """A case over the runs.

    Attributes:
        case: as the newest run has it.
        points: numbers by the index of their run in `History.stops`, in the order of time; at least one, all finite.
        failures: how the case ended, by the index of the run, where it came to no number.
        machines: numbers of the machines that the points are from; one where the metric is a time.
    """

    case: CaseKey
    points: dict[int, float]
    failures: dict[int, str]
    machines: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A metric over the runs.

    Attributes:
        metric: its name.
        unit: as in a record.
        direction: whether lower or higher is better, or neither.
        exact: whether it repeats to the last digit in every record.
        stops: the runs that have it, oldest first.
        machines: what is known of each machine, the first being number 1.
        trends: a case each, in the order in which they first came.
        skipped: sentences on what could not be read.
    """

    metric: str
    unit: str
    direction: Direction
    exact: bool
    stops: tuple[Stop, ...]
    machines: tuple[dict[str, Any], ...]
    trends: tuple[Trend, ...]
    skipped: tuple[str, ...]


@dataclass(slots=True)
class _Series:
    """Records of one case id with one protocol, as they are read."""

    case: CaseKey
    points: dict[int, float] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)


class _Runs:
    """The runs as they are read: what they were made on, and what of them had to be skipped."""

    def __init__(self) -> None:
        self.stops: list[Stop] = []
        self.machines: dict[str, int] = {}
        self.skipped: list[str] = []

    def add(self, store: RunStore, header: dict[str, Any]) -> int:
        """The machine's number."""
        surroundings = _dict(header.get("environment"))
        commit, packages = _dict(surroundings.get("commit")), _dict(surroundings.get("packages"))
        known = json.dumps(_dict(surroundings.get("machine")), sort_keys=True)
        machine = self.machines.setdefault(known, len(self.machines) + 1)
        digest = commit.get("hash")
        self.stops.append(
            Stop(
                run=store.run_id,
                commit=digest if isinstance(digest, str) else None,
                dirty=commit.get("dirty") is True,
                machine=machine,
                packages={str(name): str(version) for name, version in packages.items()},
            )
        )
        return machine

    def ended(self, store: RunStore) -> None:
        """Note what a reading to the end has left out."""
        for lines, why in ((store.damaged_lines, "damaged"), (store.newer_lines, "of a newer capsbench")):
            if lines:
                shown = ", ".join(map(str, lines[:5])) + ", …" * (len(lines) > 5)
                self.skipped.append(f"{store.run_id}: lines of records.jsonl that are {why} were skipped: {shown}")


def read_history(results: Path, metric: str, glob: str | None = None) -> History:
    """Read a metric from every run.

    Of several records of a case in one run the last one counts. Cases are the same work as `compare` sees it; those
    of one run that do the same are told apart by their ids, times also by their machine, and what training came to
    also by its protocol.

    Args:
        results: the folder above `runs`.
        metric: its name, or `op_calls`.
        glob: only of cases like this, as `CaseKey.is_like` means it.

    Raises:
        BadInput: no run, no case like that, or no record that has such a metric.
    """
    runs, found, series = _Runs(), _Kind(), dict[tuple[Any, ...], dict[tuple[str, str], _Series]]()
    stores = _in_time(all_runs(results), runs)
    if not stores:
        raise BadInput(f"there is no run in {results / 'runs'}")
    seen = False
    for index, (store, header) in enumerate(stores):
        machine = runs.add(store, header)
        try:
            for glimpse in store.glimpses(metric):
                seen = True
                if glob is None or glimpse.case.is_like(glob):
                    found.see(glimpse)
                    key = (machine if depends_on_machine(metric) else None, *setting(glimpse.case, glimpse.fingerprint))
                    protocol = glimpse.fingerprint.protocol if metric_type(metric).is_outcome else ""
                    group = series.setdefault((*key, glimpse.case.seed), {})
                    _note(group.setdefault((glimpse.case.id, protocol), _Series(glimpse.case)), index, glimpse)
        except BadInput as error:
            runs.skipped.append(str(error))
        runs.ended(store)
    if not found.any:
        raise _nothing(results, metric, glob, seen=seen)
    trends = [trend for group in series.values() for trend in _trends(group, runs.stops)]
    return _history(metric, found, runs, trends)


@dataclass(slots=True)
class _Kind:
    """What the records say that the metric is."""

    any: bool = False
    exact: bool = True
    unit: str = ""
    direction: Direction = "none"

    def see(self, glimpse: Glimpse) -> None:
        """Take in one more record."""
        if (said := glimpse.metric) is not None:
            self.any, self.unit, self.direction = True, said.unit, said.direction
            self.exact = self.exact and said.kind == "exact"


def _note(series: _Series, index: int, glimpse: Glimpse) -> None:
    """Put a record in its place; the last one of a run counts."""
    series.case = glimpse.case
    series.points.pop(index, None)
    series.failures.pop(index, None)
    if glimpse.metric is not None and isfinite(glimpse.metric.value):
        series.points[index] = glimpse.metric.value
    elif glimpse.metric is not None or glimpse.status != "ok":
        series.failures[index] = glimpse.status if glimpse.status != "ok" else "not finite"


def _trends(group: dict[tuple[str, str], _Series], stops: Sequence[Stop]) -> Iterator[Trend]:
    """The rows of cases that do the same: one for each protocol, and for each id where runs hold several."""
    with_numbers = [(protocol, series) for (_, protocol), series in group.items() if series.points]
    for protocol in dict.fromkeys(protocol for protocol, _ in with_numbers):
        alike = [series for other, series in with_numbers if other == protocol]
        counted = sum(len(series.points) for series in alike)
        together = counted == len({index for series in alike for index in series.points})
        for chosen in [alike] if together else [[series] for series in alike]:
            ids = {series.case.id for series in chosen}
            alone = len(chosen) == len(with_numbers)
            failed = [series.failures for (id_, _), series in group.items() if alone or id_ in ids]
            yield _trend(chosen, failed, stops)


def _trend(chosen: Sequence[_Series], failed: Iterable[dict[int, str]], stops: Sequence[Stop]) -> Trend:
    points = dict(sorted((index, value) for series in chosen for index, value in series.points.items()))
    failures = {index: status for each in failed for index, status in each.items() if index not in points}
    newest = max(chosen, key=lambda series: max(series.points))
    machines = dict.fromkeys(stops[index].machine for index in points)
    return Trend(case=newest.case, points=points, failures=dict(sorted(failures.items())), machines=tuple(machines))


def _history(metric: str, found: _Kind, runs: _Runs, trends: Sequence[Trend]) -> History:
    """Leave out the runs and machines that have nothing to say, and number the rest anew."""
    kept = sorted({index for trend in trends for index in (*trend.points, *trend.failures)})
    place = {index: number for number, index in enumerate(kept)}
    used = sorted({runs.stops[index].machine for index in kept})
    machine = {old: number for number, old in enumerate(used, 1)}
    known = [_dict(json.loads(text)) for text in runs.machines]
    stops = [
        Stop(run=s.run, commit=s.commit, dirty=s.dirty, machine=machine[s.machine], packages=s.packages)
        for s in (runs.stops[index] for index in kept)
    ]
    return History(
        metric=metric,
        unit=found.unit,
        direction=found.direction,
        exact=found.exact,
        stops=tuple(stops),
        machines=tuple(known[old - 1] for old in used),
        trends=tuple(
            Trend(
                case=trend.case,
                points={place[index]: value for index, value in trend.points.items()},
                failures={place[index]: status for index, status in trend.failures.items()},
                machines=tuple(machine[old] for old in trend.machines),
            )
            for trend in trends
        ),
        skipped=tuple(runs.skipped),
    )


def _in_time(stores: Iterable[RunStore], runs: _Runs) -> list[tuple[RunStore, dict[str, Any]]]:
    """The runs with their headers, by when they began; a header that cannot be read costs only what it says."""
    found = []
    for store in stores:
        try:
            header = store.header()
        except BadInput as error:
            runs.skipped.append(f"{error}; its commit and machine are unknown")
            header = {}
        # The suites in it are large.
        found.append((store, {key: header.get(key) for key in ("started", "environment")}))
    # Both 2026-11-26T06:22:55+00:00 and the id 20261126T062255Z-0111a2, as digits.
    digits = [re.sub(r"\D", "", str(header.get("started") or store.run_id))[:14] for store, header in found]
    return [found[i] for i in sorted(range(len(found)), key=digits.__getitem__)]


def _nothing(results: Path, metric: str, glob: str | None, *, seen: bool) -> BadInput:
    """Why there is no history."""
    if not seen:
        return BadInput(f"no case of any run in {results / 'runs'} has ended yet")
    names = set[str]()
    for store in all_runs(results):
        with suppress(BadInput):  # one that cannot be read
            names |= store.metric_names()
    if metric not in names:
        return unknown_name("metric", metric, names, "--history")
    return BadInput(f"no case like {glob!r} has {metric} in any run", "--case")


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
