"""What makes times noisy on this machine, as far as the system says, and what to do about each.

Everything is read from /proc and /sys below a folder that tests can name; a file that is not there says nothing.
"""

import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capsbench.measure.environment import usable_cores

_CORES: Final = "sys/devices/system/cpu"
_THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_BUSY_LOAD: Final = 0.5
_SWAPPED_KIB: Final = 64 * 1024  # what a system puts there by itself and leaves there
_STOLEN_SHARE: Final = 0.005
_GPU_SECONDS: Final = 10.0
_GPU_COMMAND: Final = ("nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader")


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One reason why times scatter.

    Attributes:
        name: in a word or two.
        found: what the system says.
        remedy: what to do, in one line.
    """

    name: str
    found: str
    remedy: str


def disturbances(
    root: Path = Path("/"),
    *,
    threads: int,
    cores: int | None = None,
    variables: Mapping[str, str] | None = None,
    gpu_users: Callable[[], str] | None = None,
) -> tuple[Disturbance, ...]:
    """Everything that speaks against quiet times; nothing where nothing does, or the system does not say.

    Args:
        root: what /proc and /sys stand in.
        threads: that a case will use.
        cores: that may be used; None asks the system.
        variables: the environment; None for that of this process.
        gpu_users: gives the ids of processes that compute on GPUs, one a line; None asks the driver.
    """
    cores = cores or usable_cores()
    looks = (_governor, _turbo, _load, _swap, _steal, _virtual, _siblings)
    found = [seen for look in looks if (seen := look(root)) is not None]
    found += _oversubscribed(root, threads, cores, os.environ if variables is None else variables)
    users = len((gpu_users or _gpu_users)().split())
    if users:
        told = "1 process computes" if users == 1 else f"{users} processes compute"
        found.append(Disturbance("GPU", f"{told} on a GPU already", "see nvidia-smi; wait for them, or end your own"))
    return tuple(found)


def _governor(root: Path) -> Disturbance | None:
    paths = sorted((root / _CORES).glob("cpu[0-9]*/cpufreq/scaling_governor"))
    kinds = Counter(filter(None, map(_read, paths)))
    others = {kind: count for kind, count in kinds.items() if kind != "performance"}
    if not others:
        return None
    told = ", ".join(f"{kind} on {count} of {len(paths)} cores" for kind, count in sorted(others.items()))
    return Disturbance("clock", f"the governor is {told}", "cpupower frequency-set --governor performance")


def _turbo(root: Path) -> Disturbance | None:
    switches = (("intel_pstate/no_turbo", "0", "1"), ("cpufreq/boost", "1", "0"))
    for file, on, off in switches:
        if _read(root / _CORES / file) == on:
            remedy = f"echo {off} > /{_CORES}/{file} (as root)"
            return Disturbance("turbo", "on: the clock falls as the processor warms and others wake", remedy)
    return None


def _load(root: Path) -> Disturbance | None:
    load = _number(_read(root / "proc/loadavg").partition(" ")[0])
    if load is None or load <= _BUSY_LOAD:
        return None
    return Disturbance("load", f"{load:.1f} over the last minute", "wait for other programs, or end them (see top)")


def _swap(root: Path) -> Disturbance | None:
    sizes = dict(re.findall(r"^(Swap\w+): +(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE))
    used = int(sizes.get("SwapTotal", 0)) - int(sizes.get("SwapFree", 0))
    if used <= _SWAPPED_KIB:
        return None
    return Disturbance("swap", f"{used / 1024:,.0f} MiB are in use", "free memory, then swapoff -a and swapon -a")


def _steal(root: Path) -> Disturbance | None:
    """Steal is the eighth number of the first line of stat, of all that stand before those of guests (proc_stat(5))."""
    line = _read(root / "proc/stat").partition("\n")[0].split()
    if len(line) < 9 or line[0] != "cpu" or not all(word.isdecimal() for word in line[1:]):
        return None
    ticks = [int(word) for word in line[1:9]]
    share = ticks[7] / max(1, sum(ticks))
    if share <= _STOLEN_SHARE:
        return None
    found = f"the host took {100 * share:.1f} % of the time since it started"
    return Disturbance("steal", found, "move to a host, or an instance, whose cores nobody shares")


def _virtual(root: Path) -> Disturbance | None:
    flags = re.search(r"^flags\s*:.*\bhypervisor\b", _read(root / "proc/cpuinfo"), re.MULTILINE)
    if not flags and not _read(root / "sys/hypervisor/type"):
        return None
    found = "a virtual machine: neighbours on its host cannot be seen"
    return Disturbance("host", found, "use more rounds, and compare only runs that took turns")


def _siblings(root: Path) -> Disturbance | None:
    if _read(root / _CORES / "smt/active") != "1":
        return None
    remedy = f"no more threads than real cores; or echo off > /{_CORES}/smt/control (as root)"
    return Disturbance("SMT", "two threads may share one core", remedy)


def _oversubscribed(root: Path, threads: int, cores: int, variables: Mapping[str, str]) -> Iterator[Disturbance]:
    quota = _quota(root)
    if quota is not None and quota < cores:
        remedy = "raise the container's limit (--cpus), or use no more threads than it allows"
        yield Disturbance("quota", f"the container may use {quota:.3g} of {cores} cores", remedy)
    there = min(float(cores), quota or float(cores))
    if threads > there:
        yield Disturbance("threads", f"{threads} on {there:.3g} cores", f"threads: {max(1, int(there))} in suites")
    for name in _THREADS:
        if variables.get(name, "").isdecimal() and int(variables[name]) > cores:
            remedy = f"unset {name}; in a run the suite's threads count"
            yield Disturbance("threads", f"{name} is {variables[name]} on {cores} cores", remedy)


def _quota(root: Path) -> float | None:
    """Cores that a control group may use: the least of it and those above it; None where nothing limits it."""
    limits = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if kinds and "cpu" not in kinds.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("" if not kinds else "cpu")
        here = base / path.lstrip("/")
        for folder in (here, *here.parents):
            limits.append(_limit(folder))
            if folder == base:
                break
    return min(filter(None, limits), default=None)


def _limit(folder: Path) -> float | None:
    """What one folder says: cpu.max of version 2, or cpu.cfs_quota_us over cpu.cfs_period_us of version 1."""
    words = _read(folder / "cpu.max").split()
    if len(words) != 2:
        words = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
    allowed, period = map(_number, words)
    return allowed / period if allowed and period and allowed > 0.0 and period > 0.0 else None


def _gpu_users() -> str:
    try:
        done = subprocess.run(_GPU_COMMAND, capture_output=True, text=True, timeout=_GPU_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _read(path: Path) -> str:
    """What a file says, without space around it; nothing where it is not there or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, ValueError):  # a control group's path may hold anything
        return ""
