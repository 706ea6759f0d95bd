"""Both sides as ordinary runs under `results/runs`, so that `show` and `compare` work on them afterwards."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from capsbench.dataset.atomic import whole_file
from capsbench.errors import BadInput
from capsbench.measure.environment import describe_environment
from capsbench.measure.privacy import tilde
from capsbench.network.text import parse, plain
from capsbench.record.ceilings import read_ceilings
from capsbench.record.noise import for_header, kept_noise
from capsbench.record.schema import Record
from capsbench.store.run import RunStore
from capsbench.store.runs import create
from capsbench.suite.schema import Suite
from capsbench.track.cells import Cell
from capsbench.track.interleave import SideName
from capsbench.track.revisions import Repository, Revision

_CELL: Final = "cell.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A side's run, and where the user's repository lies."""

    store: RunStore
    repository: Repository

    def append(self, record: Record, cell: Cell) -> None:
        """Keep a record, and what was asked of the revision; of several of one case the last one counts."""
        self.store.append(replace(record, run=self.store.run_id))
        inside = self.repository.relative(cell.path)
        asked = {"suite": plain(cell.suite), "path": tilde(str(cell.path.resolve()) if inside is None else str(inside))}
        with whole_file(self.store.artifacts(record.case.id) / _CELL) as file:
            file.write(json.dumps(asked, indent=1).encode())


def keep_runs(
    results: Path,
    repository: Repository,
    revisions: Mapping[SideName, Revision],
    suites: Sequence[tuple[Path, Suite]],
) -> dict[SideName, Kept]:
    """Begin a run for each side.

    Raises:
        BadInput: the folder cannot be written.
    """
    environment = describe_environment(repository.root)
    commits = {side: revision.commit for side, revision in revisions.items()}
    shared = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "suites": [{"file": path.name, "suite": plain(suite, defaults=True)} for path, suite in suites],
        "ceilings": plain(read_ceilings(results, environment.machine), defaults=True),
        "noise": for_header(kept_noise(results, environment.machine)),
    }
    kept = {}
    for side, commit in commits.items():
        own = {**plain(environment, defaults=True), "commit": {"hash": commit, "dirty": False}}
        store = create(results, {**shared, "environment": own, "continuous": {"side": side, **commits}})
        kept[side] = Kept(store=store, repository=repository)
    return kept


def commits_of(store: RunStore) -> dict[str, str]:
    """The commits, by `base` and `head`, that a run is one side of.

    Raises:
        BadInput: it is none.
    """
    found = store.header().get("continuous")
    if not isinstance(found, dict):
        raise BadInput(f"{store.run_id} is no side of `capsbench continuous`")
    return {side: str(found[side]) for side in ("base", "head")}


def read_cell(store: RunStore, record: Record, repository: Repository) -> tuple[Path, Suite]:
    """What was asked of the revisions: a suite of one case, and where its file was.

    Raises:
        BadInput: it is not there any more.
    """
    path = store.artifacts(record.case.id) / _CELL
    try:
        asked = json.loads(path.read_bytes())
        return repository.root / Path(asked["path"]).expanduser(), parse(json.dumps(asked["suite"]), Suite, str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"cannot read what was run: {error}", str(path)) from None
