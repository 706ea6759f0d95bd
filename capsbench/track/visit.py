"""One visit to a revision: its own capsbench runs one case, in a process of its own, and leaves a record."""

import os
import selectors
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capsbench.errors import EXIT_BAD_INPUT, BadInput
from capsbench.network.hashing import content_hash
from capsbench.record.schema import Fingerprint, Record, Status
from capsbench.store.runs import LATEST, open_run
from capsbench.suite.schema import Measure
from capsbench.track.cells import Cell, text_for
from capsbench.track.checkout import Checkout, last_line
from capsbench.track.revisions import Repository, Revision
from capsbench.worker.turns import VARIABLE

_SECONDS_TO_END: Final = 20.0
_LINES: Final = 40
_SECONDS_BETWEEN_LOOKS: Final = 0.5
_CHUNK_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A revision that is measured: what it is called, what it is, and where its files lie."""

    name: str
    revision: Revision
    root: Path
    checkout: Checkout


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What visits to either side share.

    Attributes:
        repository: the user's.
        data: folder of the data sets.
        scratch: a temporary folder.
    """

    repository: Repository
    data: Path
    scratch: Path


@dataclass(frozen=True, slots=True)
class Turns:
    """How a visit takes turns: see `runner.turns.Work`."""

    descriptor: int
    given_up: Callable[[], bool]


def visit(
    side: Side,
    cell: Cell,
    measure: Sequence[Measure],
    around: Surroundings,
    tell: Callable[[str], object] = lambda _line: None,
    keep: Callable[[str], Path] | None = None,
    turns: Turns | None = None,
) -> Record:
    """Have a revision run a case once, with one timing round; what goes wrong is the record's status and reason.

    Args:
        side: the revision.
        cell: the case.
        measure: what is measured of it now.
        around: see there.
        tell: hears every line that the run says of itself.
        keep: the folder for a case's larger files, by the case's id; None forgets them.
        turns: with another visit that is made at the same time; the revision must know of turns.
    """
    if side.checkout.problem is not None:
        return absent(cell, "crash", side.checkout.problem)
    folder = around.scratch / f"visit-{side.name}"
    folder.mkdir()
    try:
        suite = folder / cell.path.name
        suite.write_text(text_for(cell, measure, around.repository, side.root), encoding="utf-8")
        code, said = _run(_command(side, suite, folder, around.data), side, tell, turns)
        return _record(cell, folder, code, said.replace(str(suite), cell.path.name), keep)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def absent(cell: Cell, status: Status, reason: str) -> Record:
    """The record of a case that left none."""
    digest = content_hash(cell.case.network)
    fingerprint = Fingerprint(network=digest, protocol="", environment="")
    return Record(run="", case=cell.case.key(), status=status, reason=reason, fingerprint=fingerprint)


def _command(side: Side, suite: Path, results: Path, data: Path) -> list[str]:
    command = [sys.executable, "-P", "-m", "capsbench", "run", str(suite), "--rounds", "1"]
    command += ["--data", str(data), "--results", str(results)]
    return [*command, "--no-figures"] if side.checkout.has_figures else command


def _record(cell: Cell, folder: Path, code: int, said: str, keep: Callable[[str], Path] | None) -> Record:
    try:
        store = open_run(folder, LATEST)
        record = next(iter(store.latest_records()), None)
    except BadInput as error:
        if (folder / "runs").is_dir() and any((folder / "runs").glob("*/run.json")):
            return absent(cell, "crash", str(error))
        record = None
    if record is None:
        status: Status = "unsupported" if code == EXIT_BAD_INPUT else "crash"
        return absent(cell, status, said or f"its capsbench ended with {code} and left no record")
    if keep is not None:
        shutil.copytree(store.artifacts(record.case.id), keep(record.case.id), dirs_exist_ok=True)
    return record


def _run(command: list[str], side: Side, tell: Callable[[str], object], turns: Turns | None) -> tuple[int, str]:
    """Run to the end, in a session of its own; the exit code and what was said last.

    However this ends, the process does too. It is asked first, so that it takes its workers with it.
    """
    lines: deque[str] = deque(maxlen=_LINES)
    environment: Mapping[str, str] = side.checkout.environment
    descriptors: tuple[int, ...] = ()
    if turns is not None:
        environment = {**environment, VARIABLE: str(turns.descriptor)}
        descriptors = (turns.descriptor,)
    with subprocess.Popen(
        command,
        cwd=side.checkout.folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        pass_fds=descriptors,
    ) as process:
        try:
            for line in _lines(process, turns):
                lines.append(line)
                tell(line.strip())
            code = process.wait()
        finally:
            _end(process)
    return code, last_line("".join(lines))


def _lines(process: subprocess.Popen[bytes], turns: Turns | None) -> Iterator[str]:
    """What a process says, line by line, until it ends or nobody waits for it any more."""
    assert process.stderr is not None  # noqa: S101 - it is a pipe
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        while turns is None or not turns.given_up():
            if selector.select(_SECONDS_BETWEEN_LOOKS):
                said = os.read(process.stderr.fileno(), _CHUNK_BYTES)
                *lines, rest = (rest + said).split(b"\n")
                yield from (line.decode(errors="replace") + "\n" for line in lines)
                if not said:
                    break
    if rest:
        yield rest.decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)
            return
        os.killpg(process.pid, signal.SIGKILL)
