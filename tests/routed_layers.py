"""Routed layers as tasks, their inputs, and what the oracle makes of them: for the tests of all kernels."""

from dataclasses import dataclass, fields

import numpy as np
from hypothesis import strategies as st

from capsbench.network.patches import patch_places
from capsbench.network.routing import EMRouting, InverseTemperature
from capsbench_fused import memory
from capsbench_fused.task import Arrays, Parents, Task
from capsbench_numpy.routing import route, vote

_STEP = 1e-30


@dataclass(frozen=True)
class Layer:
    """A routed layer: convolutional capsules with this kernel and stride, or class capsules, `joint` or `each`."""

    routing: EMRouting = EMRouting()
    side: int = 3
    types: int = 2
    parents: int = 3
    kernel: int = 2
    stride: int = 1
    classes: str | None = None

    @property
    def looks(self):
        """[positions, places looked at]."""
        if self.classes is None:
            return patch_places(self.side, self.side, self.kernel, self.stride)
        return np.arange(self.side**2).reshape((1, -1) if self.classes == "joint" else (-1, 1))

    @property
    def coordinates(self):
        """(row, column) of each place, as class capsules see them."""
        return [((i // self.side + 0.5) / self.side, (i % self.side + 0.5) / self.side) for i in range(self.side**2)]

    @property
    def placed(self):
        """Whether votes receive coordinates."""
        return self.classes is not None and self.routing.coordinates != "none"

    def task(self):
        """The layer as kernels see it."""
        routing, looks = self.routing, self.looks
        return Task(
            below=self.side**2,
            types=self.types,
            looks=tuple(map(tuple, looks.tolist())),
            parents=self.parents,
            shared=self.classes is not None,
            elements=routing.class_pose_elements() if self.placed else 16,
            coordinates=tuple(self.coordinates) if self.placed else (),
            coordinate_elements=routing.coordinate_elements() or (16, 17),
            temperatures=tuple(routing.inverse_temperature.at(t) for t in range(routing.iterations)),
            cost_factor=routing.cost_factor(looks.shape[1] * self.types, self.parents),
            variance_floor=routing.variance_floor,
            epsilon=routing.epsilon,
            softmax=routing.activation == "softmax",
            by_mass=routing.interim_activation == "softmax_of_mass",
            everywhere=routing.competition == "all_positions",
            starts_everywhere=routing.starts_everywhere(),
        )


def draw_arrays(layer, *, images=2, seed=0, scale=1.0, dtype=np.float64):
    """Random inputs; poses of the given scale."""
    generator = np.random.default_rng(seed)
    count = layer.types * (1 if layer.classes else layer.looks.shape[1])
    return Arrays(
        poses=(scale * generator.normal(size=(images, layer.side**2, layer.types, 16))).astype(dtype),
        activations=generator.random((images, layer.side**2, layer.types)).astype(dtype),
        transforms=(0.5 * generator.normal(size=(count, layer.parents, 4, 4))).astype(dtype),
        beta_u=generator.normal(size=layer.parents).astype(dtype),
        beta_a=generator.normal(size=layer.parents).astype(dtype),
    )


def by_oracle(layer, arrays):
    """Poses and logits as the oracle routes them; arrays may be complex."""
    looks, types = layer.looks, layer.types
    poses = arrays.poses[:, looks].reshape(len(arrays.poses), len(looks), -1, 16)
    activations = arrays.activations[:, looks].reshape(len(arrays.poses), len(looks), -1)
    repeats = poses.shape[2] // len(arrays.transforms)
    votes = vote(poses, np.tile(arrays.transforms, (repeats, 1, 1, 1)))
    if layer.placed:
        places = np.repeat(np.array(layer.coordinates)[looks], types, axis=1)[None, :, :, None]
        elements = layer.routing.coordinate_elements()
        if elements is None:
            votes = np.concatenate([votes, np.broadcast_to(places, (*votes.shape[:4], 2))], -1)
        else:
            offset = np.zeros((*places.shape[:-1], 16))
            offset[..., elements] = places
            votes = votes + offset
    owner = (looks[..., None] * types + np.arange(types)).reshape(len(looks), -1)
    elements = votes.shape[-1]
    return route(votes, activations, arrays.beta_u / elements, arrays.beta_a, layer.routing, owner)


def slope_by_oracle(layer, arrays, directions, upstream):
    """Derivative of <upstream, outputs> along directions in the inputs, by the complex step, exact to rounding."""
    moved = Arrays(
        *(getattr(arrays, f.name) + 1j * _STEP * getattr(directions, f.name) for f in fields(Arrays))  # every input
    )
    routed = by_oracle(layer, moved)
    return float((routed.poses.imag * upstream.poses).sum() + (routed.logits.imag * upstream.logits).sum()) / _STEP


def by_kernel(kernel, layer, arrays, *, count=2, keep=True):
    """What a kernel gives out, and what it keeps."""
    task, images, dtype = layer.task(), len(arrays.poses), arrays.poses.dtype
    shape = (images, task.positions, task.parents)
    parents = Parents(np.full((*shape, task.elements), np.nan, dtype), np.full(shape, np.nan, dtype))
    saved = memory.allocate(kernel.saved_numbers(task, images) if keep else 0, dtype)
    kernel.forward(task, arrays, parents, saved if keep else None, count=count, allocate=memory.allocate)
    return parents, saved


def gradients_by_kernel(kernel, layer, arrays, saved, upstream, *, count=2):
    """Gradients of the inputs."""
    gradients = Arrays(*(np.full_like(getattr(arrays, f.name), np.nan) for f in fields(Arrays)))
    kernel.backward(layer.task(), arrays, saved, upstream, gradients, count=count, allocate=memory.allocate)
    return gradients


def draw_like(arrays, seed=1, signs=False):
    """Random arrays of the same shapes; of signs only, where asked for."""
    generator = np.random.default_rng(seed)
    made = [
        generator.choice([-1.0, 1.0], getattr(arrays, f.name).shape)
        if signs
        else generator.normal(size=getattr(arrays, f.name).shape)
        for f in fields(arrays)
    ]
    return type(arrays)(*(each.astype(getattr(arrays, fields(arrays)[0].name).dtype) for each in made))


def relative(got, expected):
    """Largest difference over largest magnitude."""
    return float(np.abs(got - expected).max() / max(float(np.abs(expected).max()), 1e-30))


@st.composite
def layers(draw):
    """Small layers with every field that kernels cover drawn."""
    classes = draw(st.sampled_from([None, None, "joint", "each"]))
    side = draw(st.integers(1, 4))
    routing = EMRouting(
        iterations=draw(st.integers(1, 4)),
        inverse_temperature=InverseTemperature(final=draw(st.sampled_from([0.01, 0.3])), decay=0.5),
        activation=draw(st.sampled_from(["sigmoid", "softmax"])),
        interim_activation=draw(st.sampled_from(["same", "softmax_of_mass"])),
        variance_floor=1e-3,
        cost_scale=draw(st.sampled_from([None, 10.0])),
        competition=draw(st.sampled_from(["position", "all_positions"])),
        first_assignments=draw(st.sampled_from(["competitors", "position"])),
        coordinates=draw(st.sampled_from(["none", "right_column", "first_row", "appended"])),
    )
    kernel = draw(st.integers(1, side))
    return Layer(
        routing=routing,
        side=side,
        types=draw(st.integers(1, 6)),
        parents=draw(st.sampled_from([1, 2, 3, 8, 9, 17])),
        kernel=kernel,
        stride=draw(st.integers(1, 2)),
        classes=classes,
    )
