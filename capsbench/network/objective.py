"""What training minimises: a classification loss and, where wanted, a reconstruction of the image."""

from dataclasses import dataclass
from math import exp
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from capsbench.network.layers import STRICT, NotNegative, Positive, Size

Margin = Annotated[float, Field(ge=0.0, le=1.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearMargin:
    """Margin that rises from `start` to `end` over the first `ramp` share of the run's steps."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["linear"] = "linear"
    start: Margin = 0.2
    end: Margin = 0.9
    ramp: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0

    def at(self, step: int, total_steps: int) -> float:
        """Margin in train step `step` (from 0) of `total_steps`."""
        return self.start + (self.end - self.start) * min(1.0, step / max(1.0, self.ramp * total_steps))


@dataclass(frozen=True, slots=True, kw_only=True)
class SigmoidMargin:
    """m = 0.2 + 0.79 * sigmoid(min(10, step / 50000 - 4)), the authors' schedule (OpenReview HJWLfGWRb)."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["sigmoid"] = "sigmoid"
    start: Margin = 0.2
    rise: Margin = 0.79
    scale_steps: Positive = 50_000.0

    def at(self, step: int, total_steps: int) -> float:  # noqa: ARG002 - every schedule is asked the same way
        """Margin in train step `step` (from 0); the length of the run plays no part."""
        return self.start + self.rise / (1.0 + exp(-min(10.0, step / self.scale_steps - 4.0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadLoss:
    """Mean over the batch of sum_{i != t} max(0, m - (a_t - a_i))^2 (Hinton et al. 2018, equation 3)."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["spread"] = "spread"
    margin: Annotated[LinearMargin | SigmoidMargin, Field(discriminator="kind")] = SigmoidMargin()


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginLoss:
    """Mean over the batch of sum_k T_k max(0, m+ - a_k)^2 + lambda (1 - T_k) max(0, a_k - m-)^2.

    T_k is 1 for the true class and else 0, a_k its activation (Sabour et al. 2017, equation 4).

    Attributes:
        positive: m+, which the true class's activation should reach.
        negative: m-, which no other's should exceed.
        down_weight: lambda.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["margin"] = "margin"
    positive: Margin = 0.9
    negative: Margin = 0.1
    down_weight: NotNegative = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEntropy:
    """Mean over the batch of -log softmax(scores)[label]."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["cross_entropy"] = "cross_entropy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """A dense decoder (ReLU, sigmoid at the end) that rebuilds the input from the true class's pose.

    Its mean squared error over pixels and batch enters the loss times `weight_per_pixel` * pixels
    (Sabour et al. 2017, section 4.1, which sums over the pixels).
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    hidden: tuple[Size, ...] = (512, 1024)
    weight_per_pixel: NotNegative = 0.0005


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The loss of a network: `loss` plus, when given, `reconstruction`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    loss: Annotated[SpreadLoss | MarginLoss | CrossEntropy, Field(discriminator="kind")]
    reconstruction: Reconstruction | None = None

    def margin_at(self, step: int, total_steps: int) -> float:
        """Margin of the spread loss in train step `step`; 0 for a loss without a schedule."""
        return self.loss.margin.at(step, total_steps) if isinstance(self.loss, SpreadLoss) else 0.0
