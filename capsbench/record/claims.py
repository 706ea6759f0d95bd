"""The ledger of published numbers with their sources, `results/claims.yaml`: read strictly, found in any install.

`docs/claims.md` says what a number must have to enter it.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from capsbench.dataset.transform import Transform
from capsbench.network.layers import STRICT, Positive
from capsbench.network.text import parse, read_text

Metric = Literal[
    "accuracy", "error_rate", "parameters", "train_step_seconds", "epoch_seconds", "op_bytes", "op_seconds"
]
Unit = Literal["%", "1", "s", "ms", "MB"]
Kind = Literal["paper table", "paper text", "README", "code", "thread", "plot", "page"]

UNITS: Final[Mapping[Metric, Unit]] = {
    "accuracy": "%",
    "error_rate": "%",
    "parameters": "1",
    "train_step_seconds": "s",
    "epoch_seconds": "s",
    "op_bytes": "MB",
    "op_seconds": "ms",
}
TIMES: Final = ("train_step_seconds", "epoch_seconds", "op_seconds")

_NAME: Final = "claims.yaml"

_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,59}$")]
_Text = Annotated[str, Field(min_length=1)]
_Sentences = tuple[Annotated[str, Field(min_length=10)], ...]
_Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where numbers stand.

    Attributes:
        citation: authors, title, where and when; or the repository.
        url: of the paper, the repository's file or the thread.
        read_in: what was read to enter the numbers; begins with "quoted in" where that was not the source itself.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    citation: Annotated[str, Field(min_length=10)]
    url: Annotated[str, Field(pattern=r"^https://\S+$")]
    read_in: _Text

    @property
    def quoted(self) -> bool:
        """Whether somebody else was read, who quotes it."""
        return self.read_in.startswith("quoted in ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One published number. What is None or empty, the source does not tell.

    Attributes:
        network: what its authors call it.
        zoo: the network of the zoo that is meant to be it.
        variant: how the claim's network differs from that one; empty where nothing is known to.
        op: canonical name, for what is claimed of an op.
        value: in `unit`.
        resolution: one of its last digit, in the same unit; of what is read off a plot, how closely it can be read.
        deviation: standard deviation over `trials` trainings, in the same unit.
        dataset: by its common name (mnist, smallnorb, cifar-10).
        protocol: the data set of a suite that is tested the same way, or words for a way that capsbench lacks; empty
            for that of the data set's own name.
        tested_on: test images.
        trained_on: training images.
        epochs: how long it was trained.
        batch: training images a step.
        transform: how images were prepared, as a suite would say it.
        preparation: the same in words, where a suite cannot say it.
        device: what times were measured on.
        source: its name in the ledger.
        place: table, section, heading or comment.
        caveats: what must be known to read the number.
        comparable: whether any run could ever be held against it.
        reasons: why not.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    id: _Name
    network: _Text
    zoo: _Name | None = None
    variant: str = ""
    metric: Metric
    op: str | None = None
    value: Positive
    unit: Unit
    resolution: Positive
    deviation: Positive | None = None
    trials: _Count | None = None
    dataset: _Name
    protocol: str = ""
    tested_on: _Count | None = None
    trained_on: _Count | None = None
    routing_iterations: _Count | None = None
    epochs: _Count | None = None
    batch: _Count | None = None
    transform: Transform | None = None
    preparation: str = ""
    device: str = ""
    source: _Name
    place: _Text
    kind: Kind
    caveats: _Sentences = ()
    comparable: bool = True
    reasons: _Sentences = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: a unit that the metric does not have, a share above 100 %, a part of a parameter, a time
                without a device, an op without a name, reasons where there is nothing to give reasons for.
        """
        if self.unit != UNITS[self.metric]:
            raise ValueError(f"{self.metric} is told in {UNITS[self.metric]!r}, not in {self.unit!r}")
        if self.unit == "%" and self.value > 100:
            raise ValueError(f"{self.value:g} % is more than all images")
        if self.unit == "1" and not self.value.is_integer():
            raise ValueError(f"parameters are whole, {self.value:g} are not")
        if self.metric in TIMES and not self.device:
            raise ValueError("a time needs the device that it was measured on, or the words that none is named")
        if self.metric.startswith("op_") != bool(self.op):
            raise ValueError("the key op names the op of op_bytes and op_seconds, and is for nothing else")
        if self.trials is not None and self.deviation is None:
            raise ValueError("trials say what a deviation was taken over, but there is none")
        if self.comparable == bool(self.reasons):
            raise ValueError("reasons say why a claim is not comparable, and such a claim needs one")

    @property
    def slack(self) -> float:
        """How far the published number may lie from what was meant, in `unit`: its deviation, or half a last digit."""
        return max(self.deviation or 0.0, self.resolution / 2)

    @property
    def text(self) -> str:
        """The value with as many decimals as it was published with, without its unit."""
        told = len(f"{self.value:.10g}".partition(".")[2])
        return f"{self.value:,.{max(told, -math.floor(math.log10(self.resolution) + 1e-9))}f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The file: sources by name, and the claims that they make."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    sources: dict[_Name, Source]
    claims: tuple[Claim, ...]

    def __post_init__(self) -> None:
        """Refuse two claims under one id, and a claim or a source without the other.

        Raises:
            ValueError: names the first.
        """
        twice = [name for name, count in Counter(claim.id for claim in self.claims).items() if count > 1]
        if twice:
            raise ValueError(f"the claim {twice[0]!r} comes twice")
        named = {claim.source: claim.id for claim in self.claims}
        for source, claim in named.items():
            if source not in self.sources:
                raise ValueError(f"the claim {claim!r} is from {source!r}, which is none of the sources")
        unused = sorted(self.sources.keys() - named.keys())
        if unused:
            raise ValueError(f"no claim is from the source {unused[0]!r}")

    def source(self, claim: Claim) -> Source:
        """Where a claim stands."""
        return self.sources[claim.source]

    def claim(self, name: str) -> Claim:
        """The claim with an id.

        Raises:
            KeyError: there is none.
        """
        found = next((claim for claim in self.claims if claim.id == name), None)
        if found is None:
            raise KeyError(name)
        return found


def read_ledger(path: Path) -> Ledger:
    """The ledger in a file.

    Raises:
        BadInput: at file:line:key.
    """
    return parse(read_text(path), Ledger, str(path))


def ledger_path(results: Path) -> Path:
    """The ledger of a results folder where it has one, else capsbench's own."""
    own = results / _NAME
    return own if own.is_file() else packaged_path()


def packaged_path() -> Path:
    """Capsbench's own ledger: a wheel has it beside this module, a checkout under `results`, where it is kept."""
    beside = Path(__file__).with_name(_NAME)
    return beside if beside.is_file() else Path(__file__).parents[2] / "results" / _NAME


@cache
def packaged_ledger() -> Ledger:
    """Capsbench's own ledger, read once."""
    return read_ledger(packaged_path())
