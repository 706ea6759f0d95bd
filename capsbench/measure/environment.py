"""What a number was measured on: processor, memory, system, versions, commit; nothing that names a person or a host."""

import os
import platform
import subprocess
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from math import log2
from pathlib import Path

import psutil

PACKAGES = ("capsbench", "numpy", "torch", "tensorflow", "tensorflow-cpu", "numba", "triton", "keras")
_GIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The hardware and the system on it.

    Attributes:
        processor: the model's name as the system gives it.
        cores: that this process may use.
        memory_bytes: physical memory.
        system: kernel name and release.
        architecture: instruction set, such as x86_64.
    """

    processor: str
    cores: int
    memory_bytes: int
    system: str
    architecture: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The state of a git repository: full hash of the commit, and whether the files differ from it."""

    hash: str
    dirty: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Everything around a run that may move its numbers; `packages` are installed versions by distribution."""

    machine: Machine
    python: str
    packages: dict[str, str]
    commit: Commit | None


def describe_environment(folder: Path | None = None) -> Environment:
    """Describe this machine, the installed packages and the repository that `folder` (default: here) lies in."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return Environment(
        machine=describe_machine(), python=python, packages=installed_versions(), commit=describe_commit(folder)
    )


def without_identity(environment: Environment) -> Environment:
    """What of an environment a comparison needs, and no more: docs/privacy.md says why that."""
    return replace(environment, machine=machine_class(environment.machine), commit=None)


def machine_class(machine: Machine) -> Machine:
    """The kind of machine: its processor's model and cores, memory as the nearest power of two, system without release.

    Memory to the byte and a kernel's release tell one machine from others of its kind, and move no number of ours.
    """
    memory_bytes = 2 ** round(log2(max(1, machine.memory_bytes)))
    return replace(machine, memory_bytes=memory_bytes, system=machine.system.partition(" ")[0])


def told_as(machine: Machine, other: Machine) -> Machine:
    """A machine as precisely as another is told: only its kind where that one's is."""
    return machine_class(machine) if other == machine_class(other) else machine


def describe_machine() -> Machine:
    """Describe the hardware and the system on it."""
    return Machine(
        processor=_processor(),
        cores=usable_cores(),
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
    )


def usable_cores() -> int:
    """Cores that this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def installed_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Versions of those of the distributions that are installed, read from their metadata."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe_commit(folder: Path | None = None) -> Commit | None:
    """The commit checked out where `folder` lies; None outside a repository, before its first commit, without git."""
    head = _git(folder, "rev-parse", "HEAD")
    status = _git(folder, "status", "--porcelain")
    if head is None or status is None:
        return None
    return Commit(hash=head, dirty=bool(status))


def _git(folder: Path | None, *arguments: str) -> str | None:
    # Optional locks off: looking must not write into the repository.
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=_GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in {"model name", "Model", "cpu model"}:
            return " ".join(value.split())
    return platform.processor() or platform.machine()
