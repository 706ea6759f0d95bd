"""How a network is trained: optimizer and learning-rate schedule, as data.

The core evaluates the schedules, so that every backend takes its steps with the same numbers.
"""

from dataclasses import dataclass
from math import ceil, cos, pi
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from capsbench.network.layers import STRICT, NotNegative, Positive, Rate

MOMENTS: Final = ("first_moment", "second_moment")


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

    @property
    def state(self) -> tuple[str, ...]:
        """Names of the tensors that it keeps for each parameter."""
        return MOMENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov, Hutter 2019, algorithm 2).

    parameter <- parameter - learning_rate * (weight_decay * parameter + Adam's step on the gradient alone). The decay
    is that of the parameter before the step, and the schedule's factor is in the learning rate, so it scales both.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Literal["adamw"] = "adamw"
    learning_rate: Positive = 1e-3
    beta1: Rate = 0.9
    beta2: Rate = 0.999
    epsilon: Positive = 1e-8
    weight_decay: NotNegative = 1e-2

    @property
    def state(self) -> tuple[str, ...]:
        """Names of the tensors that it keeps for each parameter."""
        return MOMENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class SGD:
    """v <- momentum * v + gradient; parameter <- parameter - learning_rate * v.

    With `nesterov`, parameter <- parameter - learning_rate * (gradient + momentum * v), v being the new one (Sutskever
    et al. 2013, in the form that takes the gradient where the parameters are). `weight_decay` * parameter is added to
    the gradient.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Literal["sgd"] = "sgd"
    learning_rate: Positive = 1e-2
    momentum: Rate = 0.0
    nesterov: bool = False
    weight_decay: NotNegative = 0.0

    @property
    def state(self) -> tuple[str, ...]:
        """Names of the tensors that it keeps for each parameter; none without momentum."""
        return ("velocity",) if self.momentum else ()


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


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDecay:
    """Multiplied by `rate` at each milestone, a share of the run: {rate: 0.1, milestones: [0.5, 0.75]}."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["steps"] = "steps"
    rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    milestones: Annotated[tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...], Field(min_length=1)] = (0.5, 0.75)

    def factor(self, step: int, total_steps: int) -> float:
        """What the learning rate is multiplied by in train step `step` of `total_steps`."""
        return float(self.rate ** sum(step >= share * total_steps for share in self.milestones))


Optimizer = Annotated[Adam | AdamW | SGD, Field(discriminator="name")]
Schedule = Annotated[Constant | ExponentialDecay | CosineDecay | StepDecay, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained, as it was published; a suite may override each field.

    Attributes:
        warm_up: the share of the run in which the learning rate grows linearly to what the schedule gives (Goyal et al.
            2017, section 2.2): with n steps of warm-up, step i (from 0) has (i + 1) / n of it.
        clip_norm: gradients whose norm, over all parameters together, is larger are scaled down to it (Pascanu, Mikolov
            and Bengio 2013, algorithm 1); 0 leaves them alone.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    optimizer: Optimizer = Adam()
    learning_rate_schedule: Schedule = Constant()
    warm_up: Rate = 0.0
    clip_norm: NotNegative = 0.0

    def learning_rate_at(self, step: int, total_steps: int) -> float:
        """Learning rate in train step `step` (from 0) of `total_steps`."""
        rising = ceil(self.warm_up * total_steps)
        risen = (step + 1) / rising if step < rising else 1.0
        return self.optimizer.learning_rate * self.learning_rate_schedule.factor(step, total_steps) * risen
