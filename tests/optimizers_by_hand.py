"""Softmax regression trained in float64 NumPy, its optimizers written out from their papers."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from capsbench.network import zoo
from capsbench.network.parameters import draw_parameters
from capsbench.network.shapes import bind
from capsbench.network.training import SGD, Adam, AdamW, CosineDecay, Recipe

STEPS = 20
IMAGE, CLASSES, BATCH = (5, 4, 1), 3, 6
RECIPES = {
    "adam": Recipe(optimizer=Adam(learning_rate=0.02)),
    "adam, decay": Recipe(optimizer=Adam(learning_rate=0.02, beta1=0.8, weight_decay=0.05)),
    "adamw": Recipe(optimizer=AdamW(learning_rate=0.02, epsilon=1e-3, weight_decay=0.3), warm_up=0.2),
    "adamw, no decay": Recipe(optimizer=AdamW(learning_rate=0.02, weight_decay=0.0)),
    "sgd": Recipe(optimizer=SGD(learning_rate=0.3, weight_decay=0.05)),
    "momentum": Recipe(optimizer=SGD(learning_rate=0.1, momentum=0.8)),
    "nesterov": Recipe(optimizer=SGD(learning_rate=0.1, momentum=0.8, nesterov=True, weight_decay=0.05)),
    "nesterov without momentum": Recipe(optimizer=SGD(learning_rate=0.1, nesterov=True)),
    "clipped": Recipe(optimizer=SGD(learning_rate=0.3, momentum=0.5), clip_norm=0.4),
    "clipped adamw": Recipe(optimizer=AdamW(), clip_norm=0.1, learning_rate_schedule=CosineDecay()),
}


def bound_for(name):
    """The network with a recipe of `RECIPES`, at its size."""
    linear = zoo.load(str(Path(__file__).parent / "fake" / "linear.yaml"))
    return bind(replace(linear, recipe=RECIPES[name]), IMAGE, CLASSES)


def start(bound):
    """Parameters to begin with, none of them zero, and a batch for each step."""
    generator = np.random.default_rng(5)
    drawn = draw_parameters(bound, 0)
    parameters = {name: generator.normal(0.0, 0.3, value.shape).astype(np.float32) for name, value in drawn.items()}
    images = generator.random((STEPS, BATCH, *IMAGE), dtype=np.float32)
    return parameters, images, generator.integers(0, CLASSES, (STEPS, BATCH))


def train_by_hand(bound):
    """Parameters after all steps, and the norms of the gradients before they were clipped."""
    recipe = bound.network.recipe
    parameters, images, labels = start(bound)
    values = {name: value.astype(np.float64) for name, value in parameters.items()}
    follow = {name: _follower(recipe.optimizer, value.shape) for name, value in values.items()}
    norms = []
    for step in range(STEPS):
        gradients = _gradients(values, images[step].reshape(BATCH, -1).astype(np.float64), labels[step])
        norms.append(np.sqrt(sum((gradient**2).sum() for gradient in gradients.values())))
        if recipe.clip_norm and norms[-1] > recipe.clip_norm:
            gradients = {name: gradient * recipe.clip_norm / norms[-1] for name, gradient in gradients.items()}
        rate = recipe.learning_rate_at(step, STEPS)
        values = {name: follow[name](value, gradients[name], rate) for name, value in values.items()}
    return values, norms


def _gradients(values, flat, labels):
    scores = flat @ values["logits.weights"] + values["logits.biases"]
    activations = np.exp(scores - scores.max(1, keepdims=True))
    wrong = (activations / activations.sum(1, keepdims=True) - np.eye(CLASSES)[labels]) / len(labels)
    return {"logits.weights": flat.T @ wrong, "logits.biases": wrong.sum(0)}


def _follower(spec, shape):
    """A function (value, gradient, learning rate) -> value that remembers what its optimizer remembers."""
    return _sgd(spec, shape) if isinstance(spec, SGD) else _adam(spec, shape)


def _adam(spec, shape):
    m, v, t = np.zeros(shape), np.zeros(shape), 0

    def follow(value, gradient, rate):
        nonlocal m, v, t
        coupled = 0.0 if isinstance(spec, AdamW) else spec.weight_decay
        decoupled = spec.weight_decay if isinstance(spec, AdamW) else 0.0
        gradient, t = gradient + coupled * value, t + 1
        m = spec.beta1 * m + (1 - spec.beta1) * gradient
        v = spec.beta2 * v + (1 - spec.beta2) * gradient**2
        step = m / (1 - spec.beta1**t) / (np.sqrt(v / (1 - spec.beta2**t)) + spec.epsilon)
        return value - rate * (step + decoupled * value)

    return follow


def _sgd(spec, shape):
    velocity = np.zeros(shape)

    def follow(value, gradient, rate):
        nonlocal velocity
        gradient = gradient + spec.weight_decay * value
        velocity = spec.momentum * velocity + gradient
        return value - rate * (gradient + spec.momentum * velocity if spec.nesterov else velocity)

    return follow


def train(backend, bound, setting):
    """Parameters after the same steps by a backend."""
    parameters, images, labels = start(bound)
    realization = backend.realize(bound, parameters, setting)
    take_steps(realization, bound, images, labels, range(STEPS))
    return realization.parameters()


def take_steps(realization, bound, images, labels, numbers):
    """Train steps of some numbers."""
    from capsbench.backend import Step

    for number in numbers:
        rate = bound.network.recipe.learning_rate_at(number, STEPS)
        realization.train_step(realization.place(images[number], labels[number], {}), Step(number, rate, 0.0))
    realization.synchronize()


def interrupted(backend, bound, setting, after):
    """Parameters where another realization takes over after some steps, and what was handed over."""
    parameters, images, labels = start(bound)
    first, second = (backend.realize(bound, parameters, setting) for _ in range(2))
    take_steps(first, bound, images, labels, range(after))
    take_steps(second, bound, images, labels, range(3))  # what it did before is forgotten
    state = first.optimizer_state()
    second.restore(first.parameters(), state)
    take_steps(first, bound, images, labels, range(after, STEPS))  # nothing of it is shared
    take_steps(second, bound, images, labels, range(after, STEPS))
    return second.parameters(), state
