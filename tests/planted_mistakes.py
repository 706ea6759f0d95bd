"""Mistakes that a backend might make, planted into one that works; the gate before timing must refuse each.

A mistake is a network whose equations differ a little, a recipe that does, parameters that are read wrongly, a gradient
that is, or a realization that does something else than it is asked for (`planted_steps`). Some are made in float32
only: float64 then agrees with the oracle, and only arithmetic tells them from rounding.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from capsbench.network.shapes import bind


@dataclass(frozen=True)
class Mistake:
    """What is changed, by functions: fields of the routing, the recipe, dictionaries of arrays, a realization.

    Attributes:
        network: of `small_networks`, that it is made in.
        wrap: makes another realization of one.
    """

    network: str = "em"
    routing: Any = None
    recipe: Any = None
    parameters: Any = None
    gradients: Any = None
    wrap: Any = None
    in_float32_only: bool = False


def _times(name, factor):
    return lambda arrays: {**arrays, name: arrays[name] * np.asarray(factor, arrays[name].dtype)}


def _cut(bits):
    """Transforms with so many bits of mantissa, rounded."""

    def cut(array):
        scale = np.exp2(bits - np.floor(np.log2(np.maximum(np.abs(array), 1e-30))))
        return (np.round(array * scale) / scale).astype(array.dtype)

    return lambda arrays: {name: cut(a) if name.endswith("transforms") else a for name, a in arrays.items()}


def _entry(name, index, factor):
    def change(arrays):
        changed = arrays[name].copy()
        changed[index] *= factor
        return {**arrays, name: changed}

    return change


def _transposed(arrays):
    """The poses of one parent, through its transforms."""
    changed = arrays["conv_caps1.transforms"].copy()
    changed[:, 0] = changed[:, 0].swapaxes(-1, -2)
    return {**arrays, "conv_caps1.transforms": changed}


def _routing(**fields):
    return lambda routing: replace(routing, **fields)


def _heat(**fields):
    return lambda routing: replace(routing, inverse_temperature=replace(routing.inverse_temperature, **fields))


MISTAKES = {
    "variance floor + 1 %": Mistake(routing=_routing(variance_floor=5.05e-4)),
    "variance floor - 1 %": Mistake(routing=_routing(variance_floor=4.95e-4)),
    "no variance floor": Mistake(routing=_routing(variance_floor=0.0)),
    "lambda + 0.1 %": Mistake(routing=_heat(final=0.05005)),
    "lambda of the iteration before": Mistake(routing=_heat(decay=0.95**0.5)),
    "constant lambda": Mistake(routing=_heat(decay=0.0)),
    "one iteration less": Mistake(routing=_routing(iterations=1)),
    "one iteration more": Mistake(routing=_routing(iterations=3)),
    "softmax over parents": Mistake(routing=_routing(activation="softmax")),
    "interim activation of mass": Mistake(routing=_routing(interim_activation="softmax_of_mass")),
    "cost scaled by children": Mistake(routing=_routing(cost_scale=1.0)),
    "competition everywhere": Mistake(routing=_routing(competition="all_positions")),
    "damped means": Mistake(routing=_routing(damping=0.001)),
    "input activations cancelled": Mistake(routing=_routing(renormalise_input=True)),
    "beta_u scaled": Mistake(routing=_routing(beta_u_scale=1.01)),
    "beta_a scaled": Mistake(routing=_routing(beta_a_scale=1.01)),
    "no coordinates": Mistake(routing=_routing(coordinates="none")),
    "coordinates in the first row": Mistake(routing=_routing(coordinates="first_row")),
    "coordinates of cells' edges": Mistake(routing=_routing(coordinate_unit="grid_edge")),
    "coordinates of the image": Mistake(routing=_routing(coordinate_unit="image")),
    "one parent's poses transposed": Mistake(parameters=_transposed),
    "one transform's number doubled": Mistake(parameters=_entry("conv_caps1.transforms", (0, 0, 0, 0), 2.0)),
    "one filter 1 % off": Mistake(parameters=_entry("conv1.weights", (0, 0, 0, 0), 1.01)),
    "pose weights 0.1 % off": Mistake(parameters=_times("primary.pose_weights", 1.001)),
    "one gradient's number x 1.5": Mistake(gradients=_entry("conv_caps1.transforms", (0, 0, 0, 0), 1.5)),
    "one gradient of beta_u doubled": Mistake(gradients=_entry("class_caps.beta_u", 0, 2.0)),
    "a gradient's sign": Mistake(gradients=_times("conv1.biases", -1.0)),
    "a gradient 0.1 % off": Mistake(gradients=_times("primary.pose_weights", 1.001)),
    "a gradient missing": Mistake(gradients=_times("conv_caps1.beta_a", 0.0)),
    **{f"{bits} bits of mantissa": Mistake(parameters=_cut(bits), in_float32_only=True) for bits in (8, 10, 12, 14)},
    **{
        f"{bits} bits of mantissa where gradients are ill-conditioned": Mistake(
            "vb", parameters=_cut(bits), in_float32_only=True
        )
        for bits in (12, 14)
    },
    "lambda + 0.1 % in float32": Mistake(routing=_heat(final=0.05005), in_float32_only=True),
    "variance floor + 9 % in float32": Mistake(routing=_routing(variance_floor=5.45e-4), in_float32_only=True),
    "a gradient 1 % off in float32": Mistake(gradients=_times("conv1.weights", 1.01), in_float32_only=True),
    "a filter 1 % off in float32": Mistake(
        parameters=_entry("conv1.weights", (2, 2, 0, 0), 1.01), in_float32_only=True
    ),
}
"""By what they are, for the shape of em-tiny."""


class Mistaken:
    """A backend that makes a mistake."""

    def __init__(self, backend, mistake):
        self._backend, self._mistake, self.name, self.modes = backend, mistake, backend.name, backend.modes

    def realize(self, bound, parameters, setting):  # noqa: D102 - see the contract
        mistake = self._mistake
        if mistake.in_float32_only and setting.precision != "float32":
            return self._backend.realize(bound, parameters, setting)
        network, true = bound.network, bound
        if mistake.routing is not None:
            network = replace(network, routing=mistake.routing(network.routing))
        if mistake.recipe is not None:
            network = replace(network, recipe=mistake.recipe(network.recipe))
        if network is not bound.network:
            image = (bound.image.height, bound.image.width, bound.image.channels)
            bound = bind(network, image, bound.classes)
        if mistake.parameters is not None:
            parameters = mistake.parameters(parameters)
        realization = self._backend.realize(bound, parameters, setting)
        if mistake.gradients is not None:
            realization = _WrongGradients(realization, mistake.gradients)
        return realization if mistake.wrap is None else mistake.wrap(realization, true)


class _WrongGradients:
    def __init__(self, realization, change):
        self._realization, self._change = realization, change

    def __getattr__(self, name):
        return getattr(self._realization, name)

    def loss_and_gradients(self, placed, step):
        loss, gradients = self._realization.loss_and_gradients(placed, step)
        return loss, self._change(gradients)
