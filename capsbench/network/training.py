"""How a network is trained: optimizer and learning-rate schedule, as data.

The core evaluates the schedules, so that every backend takes its steps with the same numbers.
"""

from dataclasses import dataclass
from math import cos, pi
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from capsbench.network.layers import STRICT, NotNegative, Positive, Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Adam:
    """Adam (Kingma, Ba 2015, algorithm 1); `weight_decay` * parameter is added to the gradient."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Literal["adam"] = "adam"
    learning_rate: Positive = 1e-3
    beta1: Rate = 0.9
    beta2: Rate = 0.999
    epsilon: Positive = 1e-8
    weight_decay: NotNegative = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SGD:
    """v <- momentum * v + gradient; parameter <- parameter - learning_rate * v."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Literal["sgd"] = "sgd"
    learning_rate: Positive = 1e-2
    momentum: Rate = 0.0
    weight_decay: NotNegative = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """The optimizer's learning rate throughout."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["constant"] = "constant"

    def factor(self, step: int, total_steps: int) -> float:  # noqa: ARG002 - every schedule is asked the same way
        """What the learning rate is multiplied by in train step `step`."""
        return 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentialDecay:
    """rate^(step / every_steps), without stairs."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["exponential"] = "exponential"
    rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.96
    every_steps: Positive = 20_000.0

    def factor(self, step: int, total_steps: int) -> float:  # noqa: ARG002 - every schedule is asked the same way
        """What the learning rate is multiplied by in train step `step`."""
        return float(self.rate ** (step / self.every_steps))


@dataclass(frozen=True, slots=True, kw_only=True)
class CosineDecay:
    """Half a cosine from 1 down to `floor` at the end of the run."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["cosine"] = "cosine"
    floor: Rate = 0.0

    def factor(self, step: int, total_steps: int) -> float:
        """What the learning rate is multiplied by in train step `step` of `total_steps`."""
        progress = min(1.0, step / max(1, total_steps))
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + cos(pi * progress))


Optimizer = Annotated[Adam | SGD, Field(discriminator="name")]
Schedule = Annotated[Constant | ExponentialDecay | CosineDecay, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The optimizer and learning-rate schedule a network is published with; a suite may override either."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    optimizer: Optimizer = Adam()
    learning_rate_schedule: Schedule = Constant()

    def learning_rate_at(self, step: int, total_steps: int) -> float:
        """Learning rate in train step `step` (from 0) of `total_steps`."""
        return self.optimizer.learning_rate * self.learning_rate_schedule.factor(step, total_steps)
