"""The noise floor of a machine, kept beside the runs: one file a machine, `results/noise/<hash>.json`."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError

from capsbench.dataset.atomic import whole_file
from capsbench.errors import BadInput
from capsbench.measure.environment import Machine, describe_machine
from capsbench.metrics import METRICS
from capsbench.network.hashing import content_hash
from capsbench.network.text import plain
from capsbench.record.schema import CaseKey
from capsbench.stats.noise import Floor, floor_of, floors

SCHEMA: Final = 2
"""Since processes run in pairs, the two of each at the same time; in 1 they ran one after the other."""
USUAL_PROCESSES: Final = 10
"""A side, that `Noise.floor` speaks of; or as many as were recorded."""
_USUAL_TIMES: Final = tuple(each.name for each in METRICS.values() if each.is_noise_floor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process of an experiment in which all do the same.

    Attributes:
        side: which side it stood for.
        started_seconds: when it began, since the first one did.
        load: of the machine when it began, as the system averages it over a minute; None where it does not say.
        contended: how many of its samples others disturbed.
        medians: its times by metric.
    """

    side: Literal["A", "B"]
    started_seconds: float
    load: float | None
    contended: int
    medians: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One experiment and what follows from it.

    Attributes:
        backend: that was timed, as are the next four.
        mode: see backend.
        device: see backend.
        threads: see backend.
        allocator: see backend.
        work: what each process did, in words.
        measured: UTC time of its end.
        versions: of the backend and what it stands on.
        floors: by metric and processes a side.
        processes: pair after pair, the two of each having run at the same time; run.json goes without them.
    """

    backend: str
    mode: str
    device: str
    threads: int
    allocator: str
    work: str
    measured: str
    versions: dict[str, str]
    floors: tuple[Floor, ...]
    processes: tuple[Process, ...] = ()

    @property
    def setting(self) -> tuple[str, str, str, int, str]:
        """What one machine has one recording of."""
        return self.backend, self.mode, self.device, self.threads, self.allocator


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What is known of a machine's noise: one recording a setting, at least one."""

    machine: Machine
    recordings: tuple[Recording, ...]

    @property
    def floor(self) -> float:
        """By what share train steps and forward passes of equal code differ, taking turns, with ten processes a side.

        The largest of what was recorded; with fewer processes where fewer were recorded.
        """
        known = (
            floor_of(each.floors, metric, USUAL_PROCESSES, interleaved=True)
            for each in self.recordings
            for metric in _USUAL_TIMES
        )
        return max(found for found in known if found is not None)

    def floor_of(self, case: CaseKey, metric: str, processes: int, *, interleaved: bool) -> float:
        """By what share a time of equal code differs with so many processes a side; 0 where nothing is known.

        What was recorded of the same realization counts, else of others on such a device, the largest of it.

        Args:
            case: whose time it is; a CPU tells nothing of a GPU.
            metric: its name; of one that was not recorded nothing is known.
            processes: a side.
            interleaved: whether both sides took turns, or ran one after the other.
        """
        alike = [each for each in self.recordings if _kind(each.device) == _kind(case.device)]
        own = [each for each in alike if (each.backend, each.mode) == (case.backend, case.mode)]
        known = (floor_of(each.floors, metric, processes, interleaved=interleaved) for each in own or alike)
        return max((found for found in known if found is not None), default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """What a file of noise holds."""

    schema: int
    machine: Machine
    recordings: tuple[Recording, ...]


def noise_path(results: Path, machine: Machine) -> Path:
    """Where the noise of a machine is kept; `results` is the folder above `runs`."""
    return results / "noise" / f"{content_hash(machine)}.json"


def kept_noise(results: Path, machine: Machine | None = None) -> Noise | None:
    """What is known of a machine's noise, by default of this one's; None where nobody has recorded it.

    Raises:
        BadInput: the file cannot be read, or does not hold the noise of this machine.
    """
    machine = machine or describe_machine()
    path = noise_path(results, machine)
    try:
        kept = _adapter().validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BadInput(f"cannot read it: {error.strerror or error}", str(path)) from None
    except ValidationError:
        kept = None
    if kept is None or (kept.schema, kept.machine) != (SCHEMA, machine) or not _are_sound(kept.recordings):
        raise BadInput(
            "this does not hold the noise of this machine; remove it, and `capsbench doctor --noise` records anew",
            str(path),
        )
    return Noise(machine=machine, recordings=kept.recordings)


def keep_noise(results: Path, recording: Recording, machine: Machine | None = None) -> Noise:
    """Keep a recording of a machine, by default of this one, in place of the last one of its setting.

    Returns:
        All that is known now.

    Raises:
        BadInput: what is there is broken, or the file cannot be written.
    """
    machine = machine or describe_machine()
    known = kept_noise(results, machine)
    others = [each for each in (known.recordings if known else ()) if each.setting != recording.setting]
    noise = Noise(machine=machine, recordings=(*others, recording))
    kept = _File(schema=SCHEMA, machine=machine, recordings=noise.recordings)
    try:
        with whole_file(noise_path(results, machine)) as file:
            file.write(json.dumps(plain(kept, defaults=True), indent=1, ensure_ascii=False).encode())
    except OSError as error:
        raise BadInput(f"cannot write results there: {error.strerror or error}", str(results)) from None
    return noise


def floors_of(processes: Sequence[Process]) -> tuple[Floor, ...]:
    """Floors of every metric that all processes have.

    Raises:
        ValueError: they are no whole blocks, or a median is not positive.
    """
    names = [name for name in processes[0].medians if all(each.medians.get(name, 0.0) > 0.0 for each in processes)]
    return floors({name: [each.medians[name] for each in processes] for name in names})


def for_header(noise: Noise | None) -> dict[str, object] | None:
    """What run.json says of the noise: everything but the single processes."""
    if noise is None:
        return None
    brief = tuple(replace(each, processes=()) for each in noise.recordings)
    return {"schema": SCHEMA, **plain(replace(noise, recordings=brief), defaults=True)}


def from_header(header: Mapping[str, object]) -> Noise | None:
    """What run.json says of the noise; None where it says nothing, or nothing that can be understood."""
    try:
        kept = _adapter().validate_python(header.get("noise"))
    except ValidationError:
        return None
    if kept.schema != SCHEMA or not _are_sound(kept.recordings):
        return None
    return Noise(machine=kept.machine, recordings=kept.recordings)


def _are_sound(recordings: Sequence[Recording]) -> bool:
    return bool(recordings) and all(_is_sound(each) for each in recordings)


def _is_sound(recording: Recording) -> bool:
    usual = [each for each in recording.floors if each.metric in _USUAL_TIMES and each.processes <= USUAL_PROCESSES]
    shares = (share for each in recording.floors for share in (each.interleaved, each.apart))
    return bool(usual) and all(math.isfinite(share) and share >= 0.0 for share in shares)


def _kind(device: str) -> str:
    return device.partition(":")[0]


@cache
def _adapter() -> TypeAdapter[_File]:
    return TypeAdapter(_File)
