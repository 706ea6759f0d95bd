"""The walk: a network bound to an image size and a class count, with the shape of every layer."""

from dataclasses import dataclass
from itertools import pairwise

from capsbench.errors import BadInput
from capsbench.network.layers import (
    AveragePool,
    BatchNorm,
    ClassCapsules,
    ClassVectors,
    Conv,
    ConvCapsules,
    Dense,
    Dropout,
    Layer,
    MapCapsules,
    MaxPool,
    PrimaryCapsules,
    Residual,
    SelfRoutedCapsules,
    SelfRoutedClasses,
    VectorCapsules,
)
from capsbench.network.network import Network, check_structure
from capsbench.network.patches import margins
from capsbench.network.routing import MatrixRouting

POSE = 16


@dataclass(frozen=True, slots=True)
class Features:
    """Maps [height, width, channels] of one image; a vector is 1 x 1 x units."""

    height: int
    width: int
    channels: int

    @property
    def values(self) -> int:
        """Numbers an image has here."""
        return self.height * self.width * self.channels

    def __str__(self) -> str:
        return f"{self.height}×{self.width}×{self.channels}"


@dataclass(frozen=True, slots=True)
class Capsules:
    """Capsules [height, width, capsules] of one image, each a pose and an activation, or a vector with its length."""

    height: int
    width: int
    capsules: int
    pose_elements: int = POSE
    vectors: bool = False

    @property
    def values(self) -> int:
        """Numbers an image has here: poses and activations, or vectors alone, from which their lengths follow."""
        return self.height * self.width * self.capsules * (self.pose_elements + (not self.vectors))

    @property
    def pose_values(self) -> int:
        """Numbers that the poses alone have."""
        return self.height * self.width * self.capsules * self.pose_elements

    def __str__(self) -> str:
        return f"{self.height}×{self.width}×{self.capsules} capsules"


Shape = Features | Capsules


@dataclass(frozen=True, slots=True)
class RoutingShape:
    """The sizes of one routed layer, for one image.

    Attributes:
        positions: places at which parents are routed (height * width, or 1).
        children: children that vote at one place.
        child_types: children with transforms of their own (children, or fewer where positions share).
        parents: parents at one place.
        elements: elements of a vote (16, or 18 with coordinates appended; of a vector, as many as its layer says; 0 for
            parents without poses).
        multiplications: of casting one vote: 64 for a product of 4x4 matrices.
    """

    positions: int
    children: int
    child_types: int
    parents: int
    elements: int
    multiplications: int = 64

    @property
    def votes(self) -> int:
        """Vote elements of one image."""
        return self.positions * self.children * self.parents * self.elements


@dataclass(frozen=True, slots=True)
class BoundLayer:
    """A layer with the shapes it takes in and gives out, and its receptive field.

    `centre` is the pixel coordinate of the field of position 0 and `step` the pixels from one position to the next
    (rows and columns alike).
    """

    layer: Layer
    input: Shape
    output: Shape
    centre: float
    step: float
    routing: RoutingShape | None = None


@dataclass(frozen=True, slots=True)
class BoundNetwork:
    """A network with image shape and class count: all that a backend needs to realize it."""

    network: Network
    image: Features
    classes: int
    layers: tuple[BoundLayer, ...]


def bind(network: Network, image: tuple[int, int, int], classes: int) -> BoundNetwork:
    """Walk the network for images [height, width, channels] and `classes` classes.

    Raises:
        BadInput: a structure that makes no sense, a kernel larger than its input, a class count that is not the
            network's own.
    """
    check_structure(network)
    if network.classes is not None and network.classes != classes:
        raise BadInput(f"network {network.name} is made for {network.classes} classes, but the data set has {classes}")
    features = Features(*image)
    bound: list[BoundLayer] = []
    shape: Shape = features
    centre, step = 0.0, 1.0
    for layer in network.layers:
        output, routing = _output(network, layer, shape, classes)
        centre, step = _receptive_field(layer, shape, centre, step)
        bound.append(BoundLayer(layer, shape, output, centre, step, routing))
        shape = output
    return BoundNetwork(network, features, classes, tuple(bound))


def _output(network: Network, layer: Layer, shape: Shape, classes: int) -> tuple[Shape, RoutingShape | None]:
    match layer:
        case BatchNorm() | Dropout():
            return shape, None
        case Conv():
            return Features(*_padded_grid(network, layer, shape), layer.channels), None
        case MaxPool():
            grid = _grid(network, layer.name, shape, layer.size, layer.stride)
            return Features(*grid, _channels(shape)), None
        case AveragePool():
            size = layer.size
            grid = (1, 1) if size == "all" else _grid(network, layer.name, shape, size, size)
            return Features(*grid, _channels(shape)), None
        case Residual():
            rows, columns = ((side - 1) // layer.stride + 1 for side in (shape.height, shape.width))
            return Features(rows, columns, layer.channels), None
        case Dense():
            return Features(1, 1, classes if layer.units == "classes" else layer.units), None
        case _:
            return _capsules(network, layer, shape, classes)


def _capsules(network: Network, layer: Layer, shape: Shape, classes: int) -> tuple[Capsules, RoutingShape | None]:
    match layer:
        case PrimaryCapsules():
            return Capsules(*_grid(network, layer.name, shape, layer.kernel, layer.stride), layer.capsules), None
        case ConvCapsules() | ClassCapsules():
            return _routed(network, layer, shape, classes)
        case VectorCapsules():
            return _vectors(network, layer, shape), None
        case ClassVectors():
            return _routed_vectors(layer, shape, classes)
        case MapCapsules():
            return _of_maps(network, layer, shape), None
        case SelfRoutedCapsules() | SelfRoutedClasses():
            return _self_routed(network, layer, shape, classes)
    raise AssertionError(layer)


def _vectors(network: Network, layer: VectorCapsules, shape: Shape) -> Capsules:
    wanted, given = layer.capsules * layer.elements, _channels(shape)
    if layer.depthwise and wanted != given:
        raise BadInput(
            f"network {network.name}: layer {layer.name!r}: depthwise capsules need as many channels below as they "
            f"have elements together, {layer.capsules} × {layer.elements} = {wanted}, but there are {given}"
        )
    grid = _grid(network, layer.name, shape, layer.kernel, layer.stride)
    return Capsules(*grid, layer.capsules, layer.elements, vectors=True)


def _routed_vectors(layer: ClassVectors, shape: Shape, classes: int) -> tuple[Capsules, RoutingShape]:
    assert isinstance(shape, Capsules)  # noqa: S101 - check_structure has seen to it
    children = shape.height * shape.width * shape.capsules
    multiplications = shape.pose_elements * layer.elements
    routing = RoutingShape(1, children, children, classes, layer.elements, multiplications)
    return Capsules(1, 1, classes, layer.elements, vectors=True), routing


def _routed(
    network: Network, layer: ConvCapsules | ClassCapsules, shape: Shape, classes: int
) -> tuple[Capsules, RoutingShape]:
    assert isinstance(shape, Capsules)  # noqa: S101 - check_structure has seen to it
    assert isinstance(network.routing, MatrixRouting)  # noqa: S101 - likewise
    below = shape.capsules
    if isinstance(layer, ConvCapsules):
        height, width = _grid(network, layer.name, shape, layer.kernel, layer.stride)
        children = layer.kernel**2 * below
        routing = RoutingShape(height * width, children, children, layer.capsules, POSE)
        return Capsules(height, width, layer.capsules), routing
    elements = network.routing.class_pose_elements()
    places = shape.height * shape.width
    output = Capsules(1, 1, classes, elements)
    if layer.positions == "joint":
        return output, RoutingShape(1, places * below, below, classes, elements)
    return output, RoutingShape(places, below, below, classes, elements)


def _of_maps(network: Network, layer: MapCapsules, shape: Shape) -> Capsules:
    wanted, given = layer.capsules * (layer.elements + 1), _channels(shape)
    if wanted != given:
        raise BadInput(
            f"network {network.name}: layer {layer.name!r} needs a channel below for every element of a pose and every "
            f"activation, {layer.capsules} × ({layer.elements} + 1) = {wanted}, but there are {given}"
        )
    return Capsules(shape.height, shape.width, layer.capsules, layer.elements)


def _self_routed(
    network: Network, layer: SelfRoutedCapsules | SelfRoutedClasses, shape: Shape, classes: int
) -> tuple[Capsules, RoutingShape]:
    assert isinstance(shape, Capsules)  # noqa: S101 - check_structure has seen to it
    if isinstance(layer, SelfRoutedClasses):
        children = shape.height * shape.width * shape.capsules
        return Capsules(1, 1, classes, 0), RoutingShape(1, children, children, classes, 0, 0)
    height, width = _padded_grid(network, layer, shape)
    children, product = layer.kernel**2 * shape.capsules, shape.pose_elements * layer.elements
    routing = RoutingShape(height * width, children, children, layer.capsules, layer.elements, product)
    return Capsules(height, width, layer.capsules, layer.elements), routing


def _padded_grid(network: Network, layer: Conv | SelfRoutedCapsules, shape: Shape) -> tuple[int, int]:
    edges = [margins(layer.padding, side, layer.kernel, layer.stride) for side in (shape.height, shape.width)]
    if edges[0] != edges[1]:
        raise BadInput(
            f"network {network.name}: layer {layer.name!r}: same padding with stride {layer.stride} would pad rows and "
            f"columns of {shape.height}×{shape.width} differently; legal are valid and a number of zeros"
        )
    whole = Features(shape.height + sum(edges[0]), shape.width + sum(edges[1]), 1)
    return _grid(network, layer.name, whole, layer.kernel, layer.stride)


def _grid(network: Network, name: str, shape: Shape, window: int, stride: int) -> tuple[int, int]:
    if window > min(shape.height, shape.width):
        raise BadInput(
            f"network {network.name}: layer {name!r} has a {window}×{window} kernel, larger than its input of "
            f"{shape.height}×{shape.width}; legal are 1 to {min(shape.height, shape.width)}"
        )
    return (shape.height - window) // stride + 1, (shape.width - window) // stride + 1


def _channels(shape: Shape) -> int:
    assert isinstance(shape, Features)  # noqa: S101 - check_structure lets only routed layers stand above capsules
    return shape.channels


def _receptive_field(layer: Layer, shape: Shape, centre: float, step: float) -> tuple[float, float]:
    match layer:
        case BatchNorm() | Dropout() | MapCapsules():
            return centre, step
        case Conv() | SelfRoutedCapsules():
            before, _ = margins(layer.padding, shape.height, layer.kernel, layer.stride)
            return centre + step * ((layer.kernel - 1) / 2 - before), step * layer.stride
        case PrimaryCapsules() | ConvCapsules() | VectorCapsules():
            return centre + step * (layer.kernel - 1) / 2, step * layer.stride
        case Residual():
            return centre, step * layer.stride
        case AveragePool() if layer.size != "all":
            return centre + step * (layer.size - 1) / 2, step * layer.size
        case MaxPool():
            return centre + step * (layer.size - 1) / 2, step * layer.stride
        case Dense() | AveragePool() | ClassCapsules() | ClassVectors() | SelfRoutedClasses():
            return centre + step * (shape.height - 1) / 2, step * shape.height


def coordinates(bound: BoundNetwork, layer: BoundLayer) -> list[tuple[float, float]]:
    """The (row, column) that class capsules add to the votes of each place below, rows first.

    Their unit is the routing's `coordinate_unit`.
    """
    below, routing = layer.input, bound.network.routing
    unit = routing.coordinate_unit if isinstance(routing, MatrixRouting) else "grid"
    source = next(lower for lower, upper in pairwise(bound.layers) if upper is layer)

    def along(count: int, side: int) -> list[float]:
        centres = (source.centre + source.step * i for i in range(count))
        match unit:
            case "image":
                return [centre / side for centre in centres]
            case "centred_pixels":
                return [(centre - side / 2) / 100 for centre in centres]
            case "grid_tenths":
                return [(i + 1) / (10 * count) for i in range(count)]
            case _:
                return [(i + 0.5 * (unit == "grid")) / count for i in range(count)]

    rows, columns = along(below.height, bound.image.height), along(below.width, bound.image.width)
    return [(row, column) for row in rows for column in columns]
