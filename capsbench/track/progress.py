"""How far a comparison of revisions is: which visit it is at, what is said there, and the time left."""

import time
from collections import defaultdict
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from capsbench.record.schema import Record
from capsbench.runner.progress import describe_seconds
from capsbench.track.interleave import Purpose, SideName, Turn

_ONE_LINE: Final = Column(no_wrap=True, overflow="ellipsis")
_SECONDS_BETWEEN_LINES: Final = 30.0
_STAGES: Final[dict[Purpose, str]] = {"first": "first round", "times": "round", "again": "fresh round"}


class VisitProgress:
    """A bar on a terminal, lines in a log; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.fields[count]}"),
            BarColumn(),
            TextColumn("{task.description}", table_column=_ONE_LINE),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=1.0, count="")
        self._planned: dict[Purpose, int] = {}
        self._seconds: defaultdict[Purpose, list[float]] = defaultdict(list)
        self._since = self._last_line = 0.0
        self._name = ""
        self._names: dict[SideName, str] = {}

    def plan(self, purpose: Purpose, visits: int, sentence: str) -> None:
        """So many visits will be made for a purpose; the sentence stays on the screen."""
        self._planned[purpose] = visits
        self._since = time.monotonic()
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def begins(self, turn: Turn, revision: str) -> None:
        """A visit begins."""
        count = f" {turn.number + 1} of {turn.rounds}" if turn.purpose != "first" else ""
        self._name = f"{_STAGES[turn.purpose]}{count}, {turn.side} {revision}, {turn.cell.label}"
        self._names[turn.side] = self._name
        self._show("")

    def said(self, line: str) -> None:
        """The visit says something of itself."""
        self._show(line)

    def ended(self, turn: Turn, record: Record) -> None:
        """A visit has left its record; a failure is said on a line that stays."""
        now = time.monotonic()
        self._seconds[turn.purpose].append(now - self._since)  # of two at the same time the second took none
        self._since = now
        if record.status != "ok":
            told = f"{record.status}  {self._names[turn.side]}  {record.reason}"
            self._console.print(f"[red]{escape(told)}[/]", highlight=False, soft_wrap=True)
        self._show("")

    def seconds_left(self) -> float | None:
        """What the visits that are planned will take, were they all like those that were made; None before any was."""
        left = 0.0
        for purpose, planned in self._planned.items():
            seconds = self._seconds[purpose]
            like = seconds or [each for known in self._seconds.values() for each in known]
            if not like:
                return None
            left += max(0, planned - len(seconds)) * sum(like) / len(like)
        return left

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def _show(self, line: str) -> None:
        done, planned = sum(map(len, self._seconds.values())), sum(self._planned.values())
        left = self.seconds_left()
        told = "" if left is None else f"about {describe_seconds(left)} left  "
        said = line.partition("  ")[2]  # a run's own lines begin with the case
        self._bar.update(
            self._task,
            completed=done / planned if planned else 0.0,
            count=f"{done}/{planned} visits",
            description=escape(f"{told}{self._name}  {said}"),
        )
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._console.print(f"{told}{self._name}  {said}".rstrip(), markup=False, highlight=False, soft_wrap=True)
