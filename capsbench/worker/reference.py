"""The train step as it is defined, in float64 NumPy: clipping, weight decay, Adam, AdamW, SGD, moving statistics.

Names are those of `capsbench.backend.Realization.optimizer_state`, and every array is float64.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from capsbench.backend import Floats
from capsbench.network.training import SGD, Adam, AdamW, Recipe

Arrays = Mapping[str, NDArray[np.float64]]
Optimizer = Adam | AdamW | SGD
STEP_COUNT = "step_count"


def wide(arrays: Mapping[str, Floats]) -> dict[str, NDArray[np.float64]]:
    """The arrays in float64."""
    return {name: np.asarray(value, np.float64) for name, value in arrays.items()}


def global_norm(gradients: Arrays) -> float:
    """Norm of all gradients together."""
    return float(np.sqrt(sum(float(np.vdot(gradient, gradient)) for gradient in gradients.values())))


def prepare_gradients(recipe: Recipe, parameters: Arrays, gradients: Arrays) -> Arrays:
    """Clip gradients to the recipe's norm, then add its coupled weight decay."""
    norm = global_norm(gradients)
    factor = recipe.clip_norm / norm if recipe.clip_norm and norm > recipe.clip_norm else 1.0
    decay = 0.0 if isinstance(recipe.optimizer, AdamW) else recipe.optimizer.weight_decay
    return {name: factor * gradient + decay * parameters[name] for name, gradient in gradients.items()}


def empty_state(spec: Optimizer, parameters: Arrays) -> dict[str, NDArray[np.float64]]:
    """What an optimizer of these parameters remembers before its first step."""
    state = {f"{tensor}/{name}": np.zeros_like(value) for tensor in spec.state for name, value in parameters.items()}
    return state if isinstance(spec, SGD) else {**state, STEP_COUNT: np.zeros(())}


def next_state(spec: Optimizer, state: Arrays, gradients: Arrays) -> dict[str, NDArray[np.float64]]:
    """What the optimizer remembers after a step with prepared gradients."""
    if isinstance(spec, SGD):
        names = gradients if spec.momentum else ()
        return {f"velocity/{name}": spec.momentum * state[f"velocity/{name}"] + gradients[name] for name in names}
    after: dict[str, NDArray[np.float64]] = {STEP_COUNT: np.asarray(state[STEP_COUNT] + 1.0)}
    for name, gradient in gradients.items():
        first, second = f"first_moment/{name}", f"second_moment/{name}"
        after[first] = spec.beta1 * state[first] + (1.0 - spec.beta1) * gradient
        after[second] = spec.beta2 * state[second] + (1.0 - spec.beta2) * np.square(gradient)
    return after


def updates(
    spec: Optimizer, parameters: Arrays, gradients: Arrays, state: Arrays, rate: float
) -> dict[str, NDArray[np.float64]]:
    """What a step adds to each parameter, given prepared gradients and what the optimizer remembers after the step."""
    if isinstance(spec, SGD):
        return {name: -rate * _direction(spec, gradient, state, name) for name, gradient in gradients.items()}
    count, decay = float(state[STEP_COUNT]), spec.weight_decay if isinstance(spec, AdamW) else 0.0
    found = {}
    for name in gradients:
        mean = state[f"first_moment/{name}"] / (1.0 - spec.beta1**count)
        square = np.maximum(state[f"second_moment/{name}"], 0.0) / (1.0 - spec.beta2**count)
        found[name] = -rate * (mean / (np.sqrt(square) + spec.epsilon) + decay * parameters[name])
    return found


def _direction(spec: SGD, gradient: NDArray[np.float64], state: Arrays, name: str) -> NDArray[np.float64]:
    if not spec.momentum:
        return gradient
    velocity = state[f"velocity/{name}"]
    return gradient + spec.momentum * velocity if spec.nesterov else velocity


def next_statistics(statistics: Arrays, batch: Arrays, momenta: Mapping[str, float]) -> dict[str, NDArray[np.float64]]:
    """Moving statistics after a step.

    Args:
        statistics: before it, by `layer.tensor`.
        batch: mean and variance of the batch, by the same names.
        momenta: what they keep of themselves, by layer.
    """
    kept = {name: momenta[name.partition(".")[0]] for name in batch}
    return {name: kept[name] * statistics[name] + (1.0 - kept[name]) * value for name, value in batch.items()}
