"""How far a run is, on the console: a bar with the time left and a line on what runs now; plain lines in a log.

Where workers run cases at the same time, each has a line.
"""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from capsbench.record.schema import Record
from capsbench.suite.cases import Case

# How much of a case's work a stage is, roughly; only the estimate of the time left rests on it.
_WEIGHTS = {"check": 1.0, "time": 2.0, "accuracy": 5.0, "histograms": 0.5}
_SECONDS_BETWEEN_LINES = 30.0
_MOST_WORKERS_SHOWN = 16
_ONE_LINE = Column(no_wrap=True, overflow="ellipsis")
_COLOURS = {"ok": "green"}


class Estimate:
    """The share of the work that is done, and the time that the rest will take at the same pace."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.ended = 0
        self._shares: dict[str, float] = {}

    def advance(self, case: Case, stage: str, done: int, total: int) -> None:
        """A case is at `done` of `total` in a stage; a share never shrinks."""
        stages = [name for name in _WEIGHTS if name == "check" or name in case.measure]
        if stage not in stages:
            return
        before = sum(_WEIGHTS[name] for name in stages[: stages.index(stage)])
        within = _WEIGHTS[stage] * min(1.0, done / total if total else 0.0)
        share = (before + within) / sum(_WEIGHTS[name] for name in stages)
        self._shares[case.id] = max(share, self._shares.get(case.id, 0.0))

    def end(self, case_id: str) -> None:
        """A case has its record."""
        self._shares.pop(case_id, None)
        self.ended += 1

    def share(self) -> float:
        """Of all cases, from 0 to 1."""
        return min(1.0, (self.ended + sum(self._shares.values())) / self.total) if self.total else 1.0

    def seconds_left(self, elapsed_seconds: float) -> float | None:
        """At the pace so far; None before there is one."""
        share = self.share()
        return elapsed_seconds * (1.0 - share) / share if share > 0.0 else None


class ConsoleProgress:
    """A listener that shows a run on a console; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._estimate = Estimate(0)
        self._start = time.monotonic()
        self._last_line = 0.0
        self._live: Progress | None = None
        self._bars: tuple[TaskID, TaskID] | None = None
        self._workers: dict[str, TaskID] = {}
        self._waits = ""

    def started(self, total: int) -> None:
        """Show the bar."""
        self._estimate = Estimate(total)
        self._start = time.monotonic()
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.fields[count]}"),
                BarColumn(),
                TextColumn("{task.description}", table_column=_ONE_LINE),
            )
            self._live = Progress(*columns, console=self._console, transient=True)
            cases = self._live.add_task("", total=1.0, count=f"0/{total} cases")
            self._bars = cases, self._live.add_task("", total=1.0, count="")
            self._live.start()
        else:
            self._print("1 case" if total == 1 else f"{total} cases")

    def case_stage(self, case: Case, stage: str, done: int, total: int, detail: str) -> None:
        """Show what runs now."""
        self._estimate.advance(case, stage, done, total)
        if self._live is not None:
            self._refresh(f"{escape(case.id)}  {stage}: {escape(detail)}", done / total if total else 0.0)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._print(f"{case.id}  {stage}: {detail}  ({self._left()})")

    def waiting(self, what: str) -> None:
        """Say what a run waits for in which nothing runs now."""
        if self._live is not None:
            self._refresh(escape(what), 0.0)
        elif what != self._waits or time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._waits = what
            self._print(what)

    def worker_stage(self, worker: str, case: Case, stage: str, done: int, total: int, detail: str) -> None:
        """Show what a worker does, on a line of its own."""
        if self._live is None:
            self.case_stage(case, stage, done, total, f"{detail} on worker {worker}")
            return
        self._estimate.advance(case, stage, done, total)
        if worker not in self._workers and len(self._workers) < _MOST_WORKERS_SHOWN:
            self._workers[worker] = self._live.add_task("", total=1.0, count=f"worker {escape(worker)}")
        if worker in self._workers:
            what = f"{escape(case.id)}  {stage}: {escape(detail)}"
            self._live.update(self._workers[worker], completed=done / total if total else 0.0, description=what)
        self._refresh("", 0.0)

    def worker_free(self, worker: str) -> None:
        """Take a worker's line away."""
        task = self._workers.pop(worker, None)
        if self._live is not None and task is not None:
            self._live.remove_task(task)

    def finished(self, record: Record) -> None:
        """Say how a case ended, on a line that stays."""
        self._estimate.end(record.case.id)
        colour = _COLOURS.get(record.status, "red")
        reason = f"  {escape(record.reason)}" if record.reason else ""
        counted = f"{self._estimate.ended}/{self._estimate.total}"
        self._console.print(
            f"[{colour}]{record.status:>13}[/]  {escape(record.case.id)}{reason}  {counted}",
            soft_wrap=True,
            highlight=False,
        )
        if self._live is not None:
            self._refresh("", 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def _refresh(self, what: str, share: float) -> None:
        assert self._live is not None  # noqa: S101 - the callers have asked
        assert self._bars is not None  # noqa: S101 - likewise
        cases, now = self._bars
        count = f"{self._estimate.ended}/{self._estimate.total} cases"
        self._live.update(cases, completed=self._estimate.share(), count=count, description=self._left())
        self._live.update(now, completed=share, description=what)

    def _left(self) -> str:
        seconds = self._estimate.seconds_left(time.monotonic() - self._start)
        return "" if seconds is None else f"about {describe_seconds(seconds)} left"

    def _print(self, line: str) -> None:
        self._last_line = time.monotonic()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def describe_seconds(seconds: float) -> str:
    """A duration in the largest two of hours, minutes, seconds."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"
