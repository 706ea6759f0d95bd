"""One routed layer as a kernel sees it: sizes, which child stands where, and the variant of routing.

A task is plain data that a line of JSON holds, because that is what an operator of a framework can carry along.
"""

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capsbench.network.layers import ConvCapsules
from capsbench.network.patches import patch_places
from capsbench.network.routing import EMRouting, Routing
from capsbench.network.shapes import POSE, BoundLayer, BoundNetwork, Capsules, coordinates

MOST_PARENTS_ON_GPU = 128


@dataclass(frozen=True, slots=True)
class Task:
    """A routed layer.

    Attributes:
        below: places of the layer below in an image, row by row.
        types: capsules at each of them.
        looks: [positions, places looked at], which places each position sees; its children are all capsules there.
        parents: at each position.
        shared: whether a capsule type has the same transforms wherever it stands.
        elements: of a vote, 16, or 18 with coordinates appended.
        coordinates: (row, column) of each place below; empty where votes receive none.
        coordinate_elements: which elements of a vote they are added to.
        temperatures: the inverse temperature of each routing iteration.
        cost_factor: what the cost of a parent is multiplied by.
        variance_floor: added to every variance.
        epsilon: added to the mass that is divided by.
        softmax: whether parents are activated by a softmax over them, or by a sigmoid each.
        by_mass: whether the activation before the last iteration is a softmax of the parents' mass.
        everywhere: whether a child shares itself out over its parents at all positions, or at each anew.
        starts_everywhere: whether it starts so.
    """

    below: int
    types: int
    looks: tuple[tuple[int, ...], ...]
    parents: int
    shared: bool
    elements: int
    coordinates: tuple[tuple[float, float], ...]
    coordinate_elements: tuple[int, int]
    temperatures: tuple[float, ...]
    cost_factor: float
    variance_floor: float
    epsilon: float
    softmax: bool
    by_mass: bool
    everywhere: bool
    starts_everywhere: bool

    @property
    def positions(self) -> int:
        """Places at which parents are routed."""
        return len(self.looks)

    @property
    def children(self) -> int:
        """That vote at one position."""
        return len(self.looks[0]) * self.types

    @property
    def transforms(self) -> int:
        """Children with transforms of their own."""
        return self.types if self.shared else self.children

    @property
    def iterations(self) -> int:
        """Routing iterations."""
        return len(self.temperatures)

    def text(self) -> str:
        """The task on one line."""
        return json.dumps(asdict(self), separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Arrays:
    """What a layer reads, or the gradients of it; contiguous, all of one precision.

    Attributes:
        poses: [images, below, types, 16].
        activations: [images, below, types].
        transforms: [transforms, parents, 4, 4].
        beta_u: [parents], summed over the elements of the pose.
        beta_a: [parents].
    """

    poses: NDArray[Any]
    activations: NDArray[Any]
    transforms: NDArray[Any]
    beta_u: NDArray[Any]
    beta_a: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Parents:
    """What a layer gives out, or the gradients of it.

    Attributes:
        poses: [images, positions, parents, elements].
        logits: [images, positions, parents].
    """

    poses: NDArray[Any]
    logits: NDArray[Any]


@lru_cache(maxsize=256)
def parse(text: str) -> Task:
    """The task of a line that `Task.text` wrote."""
    data = json.loads(text)
    for name in ("looks", "coordinates"):
        data[name] = tuple(tuple(row) for row in data[name])
    for name in ("coordinate_elements", "temperatures"):
        data[name] = tuple(data[name])
    return Task(**data)


def uncovered(routing: Routing | None) -> str | None:
    """Why a routing has no fused formulation; None where it has one."""
    if routing is None:
        return None
    if not isinstance(routing, EMRouting):
        return (
            f"the fused formulation is one of EM routing, not of {routing.kind}; eager, graph and tiled have that too"
        )
    if routing.densities == "shifted":
        return "the fused formulation has no shifted densities (routing.densities); eager, graph and tiled have"
    if routing.damping:
        return "the fused formulation has no damped means (routing.damping); eager, graph and tiled have"
    if routing.renormalise_input and routing.competition == "all_positions":
        return (
            "the fused formulation does not renormalise the input of a competition over all positions "
            "(routing.renormalise_input); eager, graph and tiled do"
        )
    return None


def uncovered_on_gpu(task: Task) -> str | None:
    """Why the kernels for GPUs cannot route a layer; None where they can."""
    if task.parents > MOST_PARENTS_ON_GPU:
        return (
            f"the kernels for GPUs take at most {MOST_PARENTS_ON_GPU} parents at a position, and a layer here has "
            f"{task.parents}; eager and tiled take any number"
        )
    return None


def task_of(bound: BoundNetwork, layer: BoundLayer) -> Task:
    """The task of a routed layer, with the input activations renormalised by the caller where the variant asks for it.

    Raises:
        ValueError: the variant has no fused formulation.
    """
    routing, shape, below = bound.network.routing, layer.routing, layer.input
    reason = uncovered(routing)
    if reason is not None or not isinstance(routing, EMRouting) or shape is None or not isinstance(below, Capsules):
        raise ValueError(reason or f"{layer.layer.name} does not route")
    spec, places = layer.layer, below.height * below.width
    routing = routing.of(spec)
    placed: list[tuple[float, float]] = []
    if isinstance(spec, ConvCapsules):
        looks = patch_places(below.height, below.width, spec.kernel, spec.stride)
    else:
        looks = np.arange(places).reshape(shape.positions, -1)
        placed = coordinates(bound, layer) if routing.coordinates != "none" else []
    return Task(
        below=places,
        types=below.capsules,
        looks=tuple(tuple(row) for row in looks.tolist()),
        parents=shape.parents,
        shared=not isinstance(spec, ConvCapsules),
        elements=shape.elements if placed else POSE,
        coordinates=tuple(placed),
        coordinate_elements=routing.coordinate_elements() or (POSE, POSE + 1),
        temperatures=tuple(routing.inverse_temperature.at(t) for t in range(routing.iterations)),
        cost_factor=routing.cost_factor(shape.children, shape.parents),
        variance_floor=routing.variance_floor,
        epsilon=routing.epsilon,
        softmax=routing.activation == "softmax",
        by_mass=routing.interim_activation == "softmax_of_mass",
        everywhere=routing.competition == "all_positions",
        starts_everywhere=routing.starts_everywhere(),
    )


@lru_cache(maxsize=256)
def look_table(task: Task) -> NDArray[np.int64]:
    """`task.looks` as an array [positions, places looked at]."""
    return np.array(task.looks, dtype=np.int64)


def first_shares(task: Task) -> NDArray[np.float64]:
    """The coupling that each child at [positions, places looked at] starts with, the same for all of its parents."""
    looks = look_table(task)
    if not task.starts_everywhere:
        return np.full(looks.shape, 1.0 / task.parents)
    counts = np.bincount(looks.ravel(), minlength=task.below)
    shares: NDArray[np.float64] = 1.0 / (task.parents * counts[looks])
    return shares
