"""Where the two frameworks' tiled modes do not call an op equally often, each difference with its reason."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from capsbench.errors import BadInput
from capsbench.measure.optable import StepProfile
from capsbench.network.layers import STRICT
from capsbench.network.text import parse, read_text

LEDGER = Path(__file__).with_name("deviations.yaml")

Framework = Literal["torch", "tensorflow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """One framework calls an op more often than the other.

    Attributes:
        op: canonical name.
        more: the framework that has more calls.
        reason: why that is right all the same.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    op: Annotated[str, Field(min_length=1)]
    more: Framework
    reason: Annotated[str, Field(min_length=10)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ledger:
    """The file."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    deviations: tuple[Deviation, ...]


def read_deviations(path: Path = LEDGER) -> tuple[Deviation, ...]:
    """The ledger.

    Raises:
        BadInput: at file:line:key, also where an op comes twice in one direction.
    """
    ledger = parse(read_text(path), _Ledger, str(path)).deviations
    seen: set[tuple[str, Framework]] = set()
    for number, each in enumerate(ledger):
        if (each.op, each.more) in seen:
            raise BadInput(f"{each.op} with more calls in {each.more} comes twice", f"{path}:deviations[{number}]")
        seen.add((each.op, each.more))
    return ledger


def calls(profile: StepProfile) -> dict[str, int]:
    """Calls by canonical op; ops that only name what is done between calls have none and are left out."""
    counted: Counter[str] = Counter()
    for event in profile.events:
        counted[event.op] += event.calls
    return {op: count for op, count in counted.items() if count}


def differences(torch: Mapping[str, int], tensorflow: Mapping[str, int]) -> set[tuple[str, Framework]]:
    """Ops that are not called equally often, each with the framework that has more calls."""
    found: set[tuple[str, Framework]] = set()
    for op in torch.keys() | tensorflow.keys():
        ours, theirs = torch.get(op, 0), tensorflow.get(op, 0)
        if ours != theirs:
            found.add((op, "torch" if ours > theirs else "tensorflow"))
    return found
