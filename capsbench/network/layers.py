"""The layers a network is made of, as data.

Every backend realizes these definitions; the NumPy backend is their executable meaning. Images and maps are
laid out [batch, height, width, channels], capsules [batch, height, width, capsule, 16] with the 4x4 pose in rows;
capsules that are vectors [batch, height, width, capsule, elements].
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
# How the length of a vector becomes one below 1, its direction kept: |s|^2 / (1 + |s|^2) (Sabour et al. 2017,
# equation 1), or 1 - exp(-|s|) (Mazzia et al. 2021).
Squash = Literal["rational", "exponential"]
STRICT = ConfigDict(extra="forbid")

# Added to a squared length before its root is taken, whose derivative would otherwise be infinite at zero.
LENGTH_EPSILON = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchNorm:
    """Normalises every channel by the batch's mean and (biased) variance.

    At evaluation the moving statistics stand in: `moving <- momentum * moving + (1 - momentum) * batch`. The
    activation is for a convolution that is normalised before it is activated. Above capsules of a network with
    self-routing, channels are the elements of their poses, each of every type of capsule; activations pass as they are.
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
    """A 2-D convolution (cross-correlation).

    Attributes:
        padding: `valid` adds nothing around the maps; `same` adds zeros so that a stride of s leaves 1/s of the side,
            rounded up, by TensorFlow's rule, which puts an odd one below and to the right; a number adds so many zeros
            on every side.
        initial_weights: what weights start with.
        initial_biases: likewise.
        biases: whether it has any; a normalisation above takes them back.
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
    biases: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPool:
    """The largest value of every `size` x `size` window; windows that stick out are dropped."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["max_pool"] = "max_pool"
    name: Name
    size: Size = 2
    stride: Size = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragePool:
    """The mean of `size` x `size` windows side by side (windows that stick out are dropped), or of `all` places."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["average_pool"] = "average_pool"
    name: Name
    size: Size | Literal["all"] = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """A basic block: relu(shortcut(x) + norm(conv(relu(norm(conv(x)))))) (He et al. 2016, figure 2).

    Both convolutions are 3x3 with one place of padding and no biases, the first one with the stride. The shortcut is
    the identity, or where the shape changes a 1x1 convolution with the stride and a normalisation (their option B).
    Weights are drawn from a normal distribution of variance 2 / inputs (He et al. 2015).
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["residual"] = "residual"
    name: Name
    channels: Size
    stride: Size = 1
    epsilon: Positive = 1e-3
    momentum: Rate = 0.99


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
class Normalisation:
    """Batch normalisation within a layer of capsules, type by type (Ribeiro et al. 2020, their code).

    All elements of a type's poses share a mean and a variance, over batch and places, and the logits of its activations
    have their own; `epsilon` and `momentum` are as for `BatchNorm`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    epsilon: Positive = 1e-3
    momentum: Rate = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimaryCapsules:
    """Poses by a linear convolution, activations by a sigmoid one (Hinton et al. 2018, section 4).

    Attributes:
        biases: whether the convolutions have any (the authors' code: none).
        activation_offset: added to the logits of the activations (the authors' code: -1).
        normalisation: of poses and logits, with a scale and a centre that are learned; None for none.
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
    normalisation: Normalisation | None = None
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


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorCapsules:
    """Capsules that are vectors: a linear convolution, squashed; a capsule's length is its activation.

    A `depthwise` convolution has one filter of its own for each channel below, of which there must be
    capsules * elements (Mazzia et al. 2021); otherwise it is an ordinary one (Sabour et al. 2017).
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["vector_capsules"] = "vector_capsules"
    name: Name
    capsules: Size
    elements: Size = 8
    kernel: Size
    stride: Size = 1
    depthwise: bool = False
    squash: Squash = "rational"
    initial_weights: Initial = Glorot()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassVectors:
    """One vector a class; every child at every place has a transform of its own for every class."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["class_vectors"] = "class_vectors"
    name: Name
    elements: Size = 16
    squash: Squash = "rational"
    transform_std: Positive = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class MapCapsules:
    """Capsules that the maps below hold already, as primary capsules that a batch normalisation goes before.

    The first capsules * elements channels are the poses, capsule by capsule, and the sigmoids of the others the
    activations (Hahn et al. 2019, in whose code two convolutions have a normalisation each).
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["map_capsules"] = "map_capsules"
    name: Name
    capsules: Size
    elements: Size = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfRoutedCapsules:
    """Capsules whose children, in the `kernel` x `kernel` patch below them, choose among them by themselves.

    Routing is that of `SelfRouting`. A child at a place of the patch has a transform [elements below, elements] and
    routing weights of its own for every parent, shared over positions; routing weights and biases start at zero.

    Attributes:
        padding: as of `Conv`; around the maps stand capsules whose poses and activations are zero.
        initial_transforms: what the transforms start with.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["self_routed_capsules"] = "self_routed_capsules"
    name: Name
    capsules: Size
    elements: Size = 16
    kernel: Size
    stride: Size = 1
    padding: Literal["valid", "same"] | Size = "valid"
    initial_transforms: Initial = Glorot()


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfRoutedClasses:
    """One capsule a class, without a pose, that the children of all places choose as in `SelfRoutedCapsules`.

    Every child at every place has routing weights of its own; activations sum to one over the classes.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["self_routed_classes"] = "self_routed_classes"
    name: Name


Layer = (
    BatchNorm
    | Conv
    | MaxPool
    | AveragePool
    | Residual
    | Dense
    | Dropout
    | PrimaryCapsules
    | ConvCapsules
    | ClassCapsules
    | VectorCapsules
    | ClassVectors
    | MapCapsules
    | SelfRoutedCapsules
    | SelfRoutedClasses
)
MATRIX_ROUTED = (ConvCapsules, ClassCapsules)
SELF_ROUTED = (SelfRoutedCapsules, SelfRoutedClasses)
ROUTED = (*MATRIX_ROUTED, ClassVectors, *SELF_ROUTED)
