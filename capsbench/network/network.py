"""A network: layers in order, the routing between its capsules, an objective and a recipe."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, Field

from capsbench.errors import BadInput
from capsbench.network.layers import (
    MATRIX_ROUTED,
    ROUTED,
    SELF_ROUTED,
    STRICT,
    BatchNorm,
    ClassCapsules,
    ClassVectors,
    ConvCapsules,
    Dense,
    Layer,
    MapCapsules,
    PrimaryCapsules,
    SelfRoutedCapsules,
    SelfRoutedClasses,
    Size,
    VectorCapsules,
)
from capsbench.network.objective import CrossEntropy, Objective
from capsbench.network.routing import EMRouting, Routing, SelfAttentionRouting, SelfRouting, VBRouting
from capsbench.network.training import Recipe

NetworkName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9._-]{0,59}$")]

# What is not a layer but has a name beside theirs.
RESERVED = {
    "decoder": "the reconstruction decoder",
    "loss": "the loss",
    "optimizer": "the optimizer's step",
    "votes": "a layer's votes",
}


def _em_where_unsaid(routing: Any) -> Any:  # noqa: ANN401 - plain data of any shape
    """EM routing was the only kind there was, and its name could be left out."""
    return {"kind": "em", **routing} if isinstance(routing, dict) else routing


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The spec of a network, independent of framework, image size and class count.

    Attributes:
        layers: from the image upwards; the last one must yield one score a class.
        routing: of every capsule layer above the primary one; None for a network without capsules.
        classes: the class count the network is made for; None takes the data set's.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: NetworkName
    description: str = ""
    citation: str = ""
    classes: Size | None = None
    layers: Annotated[tuple[Annotated[Layer, Field(discriminator="kind")], ...], Field(min_length=1, max_length=100)]
    routing: Annotated[Annotated[Routing, Field(discriminator="kind")] | None, BeforeValidator(_em_where_unsaid)] = None
    objective: Objective
    recipe: Recipe = Recipe()


def check_structure(network: Network) -> None:
    """Refuse combinations that no image could pass through.

    Raises:
        BadInput: names that repeat, capsule layers out of place, routing missing or idle, coordinates or a
            decoder where there are no class capsules, a network that does not end in class scores.
    """
    names = [layer.name for layer in network.layers]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise BadInput(f"network {network.name}: layer names must differ, but {repeated[0]!r} comes twice")
    kept = next((name for name in names if name in RESERVED), None)
    if kept is not None:
        raise BadInput(
            f"network {network.name}: no layer may be called {kept!r}; profiles and parameters have that name for "
            f"{RESERVED[kept]}"
        )
    _check_end(network)
    _check_capsules(network)


def _check_end(network: Network) -> None:
    last = network.layers[-1]
    ends_in_classes = isinstance(last, ClassCapsules | ClassVectors | SelfRoutedClasses) or (
        isinstance(last, Dense) and last.units == "classes" and last.activation == "linear"
    )
    if not ends_in_classes:
        raise BadInput(
            f"network {network.name}: the last layer, {last.name!r}, must be class_capsules, class_vectors, "
            "self_routed_classes or a dense layer with units: classes and activation: linear"
        )
    if isinstance(last, Dense) and not isinstance(network.objective.loss, CrossEntropy):
        raise BadInput(
            f"network {network.name}: the {network.objective.loss.kind} loss needs class capsules; use cross_entropy"
        )
    if isinstance(last, Dense | SelfRoutedClasses) and network.objective.reconstruction is not None:
        raise BadInput(f"network {network.name}: a reconstruction needs the poses of class capsules")


def _check_capsules(network: Network) -> None:
    below: PrimaryCapsules | VectorCapsules | MapCapsules | None = None
    for layer in network.layers:
        if isinstance(layer, ROUTED):
            _check_below(network, layer, below)
        elif below is not None and not (isinstance(layer, BatchNorm) and isinstance(network.routing, SelfRouting)):
            raise BadInput(f"network {network.name}: layer {layer.name!r} ({layer.kind}) cannot stand above capsules")
        if isinstance(layer, PrimaryCapsules | VectorCapsules | MapCapsules):
            below = layer
    routed = [layer for layer in network.layers if isinstance(layer, ROUTED)]
    if routed and network.routing is None:
        raise BadInput(f"network {network.name}: layer {routed[0].name!r} needs a routing, but the network has none")
    if isinstance(network.routing, EMRouting) and network.routing.densities == "shifted":
        _check_shifted(network, network.routing)
    if network.routing is not None and not routed:
        raise BadInput(f"network {network.name}: it has a routing but no capsule layer that routes")
    classes = (ClassCapsules, ClassVectors, SelfRoutedClasses)
    last = next((layer for layer in network.layers[:-1] if isinstance(layer, classes)), None)
    if last is not None:
        raise BadInput(f"network {network.name}: {last.kind} must be the last layer")


def _check_below(
    network: Network,
    layer: ConvCapsules | ClassCapsules | ClassVectors | SelfRoutedCapsules | SelfRoutedClasses,
    below: PrimaryCapsules | VectorCapsules | MapCapsules | None,
) -> None:
    """Matrices are routed by EM or VB from primary_capsules, vectors by two others from vector_capsules, and so on."""
    needed: tuple[str, ...]
    legal: tuple[str, ...]
    if isinstance(layer, MATRIX_ROUTED):
        needed, legal = ("primary_capsules",), ("em", "vb")
    elif isinstance(layer, SELF_ROUTED):
        needed, legal = ("map_capsules", "primary_capsules"), ("self_routing",)
    else:
        needed, legal = ("vector_capsules",), ("agreement", "self_attention")
    routing = network.routing
    if below is None or below.kind not in needed:
        raise BadInput(f"network {network.name}: layer {layer.name!r} needs {' or '.join(needed)} below it")
    if routing is not None and routing.kind not in legal:
        raise BadInput(
            f"network {network.name}: layer {layer.name!r} ({layer.kind}) cannot be routed by {routing.kind}; "
            f"legal is {' or '.join(legal)}"
        )
    if isinstance(routing, VBRouting) and isinstance(layer, ClassCapsules) and layer.positions != "joint":
        raise BadInput(
            f"network {network.name}: layer {layer.name!r}: class capsules routed by vb need positions: joint, not each"
        )


def _check_shifted(network: Network, routing: EMRouting) -> None:
    if routing.competition == "all_positions":
        raise BadInput(
            f"network {network.name}: densities: shifted is defined for competition: position only; use densities: log"
        )


def routing_iterations(network: Network) -> int | None:
    """Routing iterations; None for a network that does not route, or whose routing does not iterate."""
    if network.routing is None or isinstance(network.routing, SelfAttentionRouting | SelfRouting):
        return None
    return network.routing.iterations


def with_routing_iterations(network: Network, iterations: int | None) -> Network:
    """The network with another number of routing iterations; None keeps its own.

    A network that has none (no routing, self-attention or self-routing) is returned as it is.
    """
    if iterations is None or network.routing is None or isinstance(network.routing, SelfAttentionRouting | SelfRouting):
        return network
    return replace(network, routing=replace(network.routing, iterations=iterations))
