"""The layers a network is made of, as data.

Every backend realizes these definitions; the NumPy backend is their executable meaning. Images and maps are
laid out [batch, height, width, channels], capsules [batch, height, width, capsule, 16] with the 4x4 pose in rows.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from capsbench.network.initial import Filled, Finite, Glorot, Initial

Size = Annotated[int, Field(ge=1, le=65_536)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchNorm:
    """Normalises every channel by the batch's mean and (biased) variance.

    At evaluation the moving statistics stand in: `moving <- momentum * moving + (1 - momentum) * batch`. The
    activation is for a convolution that is normalised before it is activated.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["batch_norm"] = "batch_norm"
    name: Name
    center: bool = True
    scale: bool = True
    epsilon: Positive = 1e-3
    momentum: Rate = 0.99
    activation: Literal["relu", "linear"] = "linear"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv:
    """A 2-D convolution (cross-correlation) with biases.

    Attributes:
        padding: `valid` adds nothing around the maps; `same` adds zeros so that a stride of s leaves 1/s of the side,
            rounded up, by TensorFlow's rule, which puts an odd one below and to the right; a number adds so many zeros
            on every side.
        initial_weights: what weights start with.
        initial_biases: likewise.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["conv"] = "conv"
    name: Name
    channels: Size
    kernel: Size
    stride: Size = 1
    padding: Literal["valid", "same"] | Size = "valid"
    activation: Literal["relu", "linear"] = "relu"
    initial_weights: Initial = Glorot()
    initial_biases: Initial = Filled()


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPool:
    """The largest value of every `size` x `size` window; windows that stick out are dropped."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["max_pool"] = "max_pool"
    name: Name
    size: Size = 2
    stride: Size = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """A fully connected layer over the flattened input; `units: classes` makes one unit a class."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["dense"] = "dense"
    name: Name
    units: Size | Literal["classes"]
    activation: Literal["relu", "linear"] = "relu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropout:
    """Zeroes a share `rate` of the values in training and scales the others by 1 / (1 - rate).

    The core draws the masks, so that every backend drops the same values in the same step.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["dropout"] = "dropout"
    name: Name
    rate: Rate = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimaryCapsules:
    """Poses by a linear convolution, activations by a sigmoid one (Hinton et al. 2018, section 4).

    Attributes:
        biases: whether the convolutions have any (the authors' code: none).
        activation_offset: added to the logits of the activations (the authors' code: -1).
        initial_poses: what the weights of the poses start with.
        initial_activations: those of the activations.
        initial_biases: the biases of both.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["primary_capsules"] = "primary_capsules"
    name: Name
    capsules: Size
    kernel: Size = 1
    stride: Size = 1
    biases: bool = True
    activation_offset: Finite = 0.0
    initial_poses: Initial = Glorot()
    initial_activations: Initial = Glorot()
    initial_biases: Initial = Filled()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvCapsules:
    """Capsules whose children are the `kernel` x `kernel` patch below them; transforms shared over positions.

    Attributes:
        transform_std: standard deviation of the normal that transforms are drawn from.
        transform_truncated: whether that normal is TensorFlow's truncated one (see `initial.Normal`).
        initial_beta_u: what the cost offsets start with, before `EMRouting.beta_u_scale`.
        initial_beta_a: the activation offsets, likewise.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["conv_capsules"] = "conv_capsules"
    name: Name
    capsules: Size
    kernel: Size
    stride: Size = 1
    transform_std: Positive = 1.0
    transform_truncated: bool = False
    initial_beta_u: Initial = Filled()
    initial_beta_a: Initial = Filled()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCapsules:
    """One capsule a class; a child type's transforms are the same at every position.

    `joint` routes the children of all positions together (Hinton et al. 2018); `each` routes position by position
    and averages the resulting activations and poses, as the 2018 TensorFlow seed does. The rest is as for
    `ConvCapsules`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["class_capsules"] = "class_capsules"
    name: Name
    positions: Literal["joint", "each"] = "joint"
    transform_std: Positive = 1.0
    transform_truncated: bool = False
    initial_beta_u: Initial = Filled()
    initial_beta_a: Initial = Filled()


Layer = BatchNorm | Conv | MaxPool | Dense | Dropout | PrimaryCapsules | ConvCapsules | ClassCapsules
ROUTED = (ConvCapsules, ClassCapsules)
