"""The runs in a results folder: begin one, list them, find one by its id."""

import json
import secrets
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from capsbench.dataset.atomic import sync_folder, whole_file
from capsbench.errors import BadInput, unknown_name
from capsbench.measure.privacy import scrubbed
from capsbench.record.codec import strict
from capsbench.store.database import create_database, writing_to
from capsbench.store.run import DATABASE, RunStore, reason

LATEST: Final = "latest"
_RUN_TIME: Final = "%Y%m%dT%H%M%SZ"
_MOST_SET_BACK: Final = timedelta(days=1)


def create(results: Path, header: dict[str, Any]) -> RunStore:
    """Start a run: its folder appears at once, with run.json and an empty run.sqlite in it.

    Args:
        results: the folder above `runs`; made where it is missing.
        header: plain data for run.json; the run's id is added, and what names a person or a host taken out.

    Raises:
        BadInput: the folder cannot be made or written.
    """
    run_id = f"{_start(results):{_RUN_TIME}}-{secrets.token_hex(3)}"
    temporary = results / "runs" / f".{run_id}.tmp"
    told = {"run": run_id, **strict(scrubbed(header))}
    text = json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False)
    try:
        temporary.mkdir(parents=True)
        with whole_file(temporary / "run.json") as file:
            file.write(text.encode())
        create_database(temporary / DATABASE)
        with writing_to(temporary / DATABASE) as connection:
            connection.execute("INSERT INTO run VALUES (?, ?)", [run_id, text])
        folder = temporary.rename(results / "runs" / run_id)
        sync_folder(folder.parent)
        return RunStore(folder)
    except (OSError, sqlite3.Error) as error:
        raise BadInput(f"cannot write results there: {reason(error)}", str(results)) from None


def all_runs(results: Path) -> tuple[RunStore, ...]:
    """The stored runs, oldest first."""
    return tuple(RunStore(results / "runs" / name) for name in _run_ids(results))


def open_run(results: Path, run: str) -> RunStore:
    """Find a stored run.

    Args:
        results: the folder above `runs`.
        run: a folder, a run id, the beginning of one, or `latest`.

    Raises:
        BadInput: no run, or more than one, is meant.
    """
    runs = _run_ids(results)
    if run == LATEST and runs:
        return RunStore(results / "runs" / runs[-1])
    if run in runs:
        return RunStore(results / "runs" / run)
    if run and _is_run(Path(run)):
        return RunStore(Path(run).resolve())
    begun = [name for name in runs if run and name.startswith(run)]
    if len(begun) == 1:
        return RunStore(results / "runs" / begun[0])
    if begun:
        raise BadInput(f"run {run!r} could be any of {len(begun)}, among them {begun[0]} and {begun[-1]}")
    if not runs:
        raise BadInput(f"there is no run {run!r}, nor any other, in {results / 'runs'}")
    newest = unknown_name("run", run, [*runs[-5:], LATEST])
    raise BadInput(f"{newest} ({len(runs):,} in {results / 'runs'}, the newest are shown)")


def _is_run(folder: Path) -> bool:
    try:
        return (folder / "run.json").is_file()
    except (OSError, ValueError):  # a name that is too long, or holds NUL
        return False


def _start(results: Path) -> datetime:
    """When a run starts: now, or just after the newest run where the clock has been set back since.

    So the newest run stays the last one. A run more than a day ahead was misdated itself, and is not followed.
    """
    now = datetime.now(UTC)
    began = [each for each in map(_began, _run_ids(results)) if each is not None and each < now + _MOST_SET_BACK]
    return max(now, max(began) + timedelta(seconds=1)) if began and max(began) > now else now


def _began(run_id: str) -> datetime | None:
    """When a run began, by its id; None for a folder of another name."""
    try:
        return datetime.strptime(run_id.partition("-")[0], _RUN_TIME).replace(tzinfo=UTC)
    except ValueError:
        return None


def _run_ids(results: Path) -> list[str]:
    """The stored runs, oldest first; runs begun in the same second by when run.json was written.

    A run that claims to begin more than a day from now has a wrong date: it is placed by when run.json was written, or
    first where that lies ahead, too.
    """
    try:
        found = [path for path in (results / "runs").glob("*/run.json") if not path.parent.name.startswith(".")]
        times = {path: path.stat().st_mtime_ns for path in found}
    except (OSError, ValueError):
        return []
    latest = f"{datetime.now(UTC) + _MOST_SET_BACK:{_RUN_TIME}}"

    def order(path: Path) -> tuple[str, int]:
        begun, written = path.parent.name.partition("-")[0], times[path]
        if _began(begun) is None or begun <= latest:
            return begun, written
        by_file = f"{datetime.fromtimestamp(written / 1e9, UTC):{_RUN_TIME}}"
        return (by_file if by_file <= latest else ""), written

    return [path.parent.name for path in sorted(found, key=order)]
