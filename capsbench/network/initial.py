"""How a tensor of parameters starts, as data: what published networks draw it from."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

_STRICT = ConfigDict(extra="forbid")
Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Glorot:
    """Uniform within +-sqrt(6 / (fan in + fan out)) (Glorot, Bengio 2010, equation 16); a vector has a fan out of 1."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    kind: Literal["glorot"] = "glorot"


@dataclass(frozen=True, slots=True, kw_only=True)
class FanIn:
    """Uniform within +-1 / sqrt(fan in): what PyTorch's convolutions start with, their biases included."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    kind: Literal["fan_in"] = "fan_in"


@dataclass(frozen=True, slots=True, kw_only=True)
class He:
    """Normal with mean 0 and variance 2 / fan in, for what a ReLU follows (He et al. 2015, equation 10)."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    kind: Literal["he"] = "he"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeUniform:
    """Uniform within +-sqrt(6 / fan in), of the same variance as `He`: PyTorch's `kaiming_uniform_`."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    kind: Literal["he_uniform"] = "he_uniform"


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    """Uniform within +-`limit`."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    kind: Literal["uniform"] = "uniform"
    limit: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Normal:
    """Normal with mean and standard deviation `std`.

    `truncated` draws again what lies more than two deviations from the mean, as TensorFlow's truncated normal does;
    the deviation of what is kept is 0.88 `std`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    kind: Literal["normal"] = "normal"
    std: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    mean: Finite = 0.0
    truncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """One value throughout."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    kind: Literal["filled"] = "filled"
    value: Finite = 0.0


Initial = Annotated[Glorot | FanIn | He | HeUniform | Uniform | Normal | Filled, Field(discriminator="kind")]
