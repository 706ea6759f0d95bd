"""A suite file as data: every list is an axis, and a case is one point of their product."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from capsbench.backend import Precision
from capsbench.dataset.transform import Transform
from capsbench.errors import BadInput
from capsbench.network.layers import STRICT, Positive
from capsbench.network.text import parse, read_text
from capsbench.network.training import Optimizer, Schedule

Count = Annotated[int, Field(ge=1, le=10_000_000)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$")]
Measure = Literal["parity", "memory", "time", "ops", "accuracy"]
MEASURES: tuple[Measure, ...] = ("parity", "memory", "time", "ops", "accuracy")
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetChoice:
    """A data set, how much of each split is used (None: all that is there), and how images are prepared."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Label
    train_limit: Count | None = None
    test_limit: Count | None = None
    transform: Transform = Transform()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainChoice:
    """How long a case trains; optimizer and schedule override the network's own recipe."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    epochs: Count = 1
    optimizer: Optimizer | None = None
    learning_rate_schedule: Schedule | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeChoice:
    """How times are sampled: `rounds` fresh processes a case, each until `min_samples` or `max_seconds`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    rounds: Annotated[int, Field(ge=1, le=1_000)] = 3
    min_samples: Annotated[int, Field(ge=1, le=100_000)] = 10
    max_seconds: Positive = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitChoice:
    """What one worker process may use before it is stopped: wall seconds and resident bytes (`12GiB`)."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    seconds: Positive = 3600.0
    memory: str | Count | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A suite file.

    Attributes:
        networks: names in the zoo, or paths of YAML files relative to the suite file.
        backends: `name:mode`, or `name` for its first mode.
        routing_iterations: override the networks' own; empty keeps it.
        device: `auto` takes the first GPU where the backend has one, else the CPU.
        allocator: `heap` keeps the C library from returning memory to the system between steps
            (MALLOC_MMAP_MAX_=0), `default` leaves it alone; the same for every backend.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Label
    description: str = ""
    dataset: Label | DatasetChoice
    networks: Annotated[tuple[str, ...], Field(min_length=1)]
    backends: Annotated[tuple[str, ...], Field(min_length=1)]
    batch: Annotated[tuple[Count, ...], Field(min_length=1)]
    routing_iterations: tuple[Annotated[int, Field(ge=1, le=100)], ...] = ()
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, le=2**31 - 1)], ...], Field(min_length=1)] = (0,)
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda|cuda:[0-9]{1,2})$")] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] = 2
    precision: Precision = "float32"
    allocator: Literal["heap", "default"] = "heap"
    measure: Annotated[tuple[Measure, ...], Field(min_length=1)] = MEASURES
    train: TrainChoice = TrainChoice()
    time: TimeChoice = TimeChoice()
    limits: LimitChoice = LimitChoice()

    def dataset_choice(self) -> DatasetChoice:
        """The data set with everything it leaves to defaults."""
        return self.dataset if isinstance(self.dataset, DatasetChoice) else DatasetChoice(name=self.dataset)


def load_suite(path: Path) -> Suite:
    """Read a suite file.

    Raises:
        BadInput: at file:line:key.
    """
    suite = parse(read_text(path), Suite, str(path))
    for key in ("networks", "backends", "batch", "routing_iterations", "seeds", "measure"):
        values = getattr(suite, key)
        if len(set(values)) != len(values):
            raise BadInput(
                f"a value comes twice in {list(values)}; every value makes cases of its own", f"{path}:{key}"
            )
    if suite.limits.memory is not None:
        memory_bytes(suite.limits.memory, f"{path}:limits.memory")
    return suite


def memory_bytes(text: str | int, where: str | None = None) -> int:
    """Bytes that a person wrote: 4096, 800MB, 12GiB.

    Raises:
        BadInput: not a number with a unit.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", str(text))
    if match is None or match[2].upper() not in _UNITS or float(match[1]) <= 0:
        raise BadInput(f"{text!r} is no amount of memory; write it like 800MB or 12GiB", where)
    return int(float(match[1]) * _UNITS[match[2].upper()])
