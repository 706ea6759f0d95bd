"""Mistakes that show only in train steps, in whole batches, or where parameters are not as they were drawn.

They are made of the contract of a realization alone, so that any backend that can restore its state makes them.
"""

# ruff: noqa: D102 - see the contract

from dataclasses import replace

import numpy as np
from planted_mistakes import Mistake

from capsbench.backend import Step
from capsbench.network.training import SGD, Adam


class Wrapped:
    """A realization that does as another does, but for what a subclass does."""

    def __init__(self, realization, bound):
        self._inner, self._bound = realization, bound

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def keep(self, change):
        """Take the parameters and the optimizer's state over, changed by a function of both dictionaries."""
        self._inner.restore(*change(self.parameters(), self.optimizer_state()))


def _step(change, times=1):
    """Steps that are other ones; `change` is a function of the step and the recipe."""

    class Other(Wrapped):
        def train_step(self, placed, step):
            recipe = self._bound.network.recipe
            losses = [self._inner.train_step(placed, change(step, recipe)) for _ in range(times)]
            return losses[0]

    return Other


def _rate(change):
    return _step(lambda step, recipe: replace(step, learning_rate=change(step.learning_rate, recipe)))


def _frozen(is_kept, state=False):
    """Steps after which some parameters are again as they were: all of them by name, or entries by a function."""

    class Frozen(Wrapped):
        def train_step(self, placed, step):
            before, remembered = self.parameters(), self.optimizer_state()
            loss = float(self._inner.train_step(placed, step))

            def kept(parameters, now):
                old = {name: before[name] if is_kept(name) else value for name, value in parameters.items()}
                stale = {
                    name: remembered[name] if state and is_kept(name.partition("/")[2]) else value
                    for name, value in now.items()
                }
                return old, stale

            self.keep(kept)
            return loss

    return Frozen


def _after(change):
    """Steps after which parameters and state are changed once more; a function of both, before and after."""

    class Changed(Wrapped):
        def train_step(self, placed, step):
            before = self.parameters(), self.optimizer_state()
            loss = float(self._inner.train_step(placed, step))
            self.keep(lambda *after: change(*before, *after))
            return loss

    return Changed


def _one_class_frozen(before, _, after, state):
    changed = after["class_caps.transforms"].copy()
    changed[:, 3] = before["class_caps.transforms"][:, 3]
    return {**after, "class_caps.transforms": changed}, state


def _one_number_frozen(before, _, after, state):
    changed = after["conv1.weights"].copy()
    changed[0, 0, 0, 0] = before["conv1.weights"][0, 0, 0, 0]
    return {**after, "conv1.weights": changed}, state


def _statistics(change):
    """Moving statistics after a step: a function of name, before and after."""

    def changed(before, _, after, state):
        return {
            name: change(name, before[name], value) if "moving" in name else value for name, value in after.items()
        }, state

    return _after(changed)


def _inverted(_, before, after):
    """Momentum 0.9 taken for 0.1."""
    return before + (after - before) / 0.1 * 0.9


def _evaluating(change):
    """Evaluations with other parameters."""

    class Other(Wrapped):
        def forward(self, placed):
            parameters, state = self.parameters(), self.optimizer_state()
            self._inner.restore(change(parameters), state)
            output = self._inner.forward(placed)
            self._inner.restore(parameters, state)
            return output

    return Other


def _moving(change):
    return _evaluating(
        lambda parameters: {
            name: change(name, value) if "moving" in name else value for name, value in parameters.items()
        }
    )


def _placing(change, *, steps=True, gradients=False, forward=False, least=0):
    """Batches of more than `least` images that are other ones, for some of the methods.

    `change` is a function of images, labels and masks.
    """

    class Other(Wrapped):
        def place(self, images, labels, masks):
            placed = self._inner.place(images, labels, masks)
            return placed, placed if len(labels) <= least else self._inner.place(*change(images, labels, masks))

        def forward(self, placed):
            return self._inner.forward(placed[forward])

        def loss_and_gradients(self, placed, step):
            return self._inner.loss_and_gradients(placed[gradients], step)

        def train_step(self, placed, step):
            return self._inner.train_step(placed[steps], step)

    return Other


def _half(images, labels, masks):
    half = len(labels) // 2
    return images[:half], labels[:half], {name: mask[:half] for name, mask in masks.items()}


def _every_other(images, labels, masks):
    others = {name: np.ascontiguousarray(mask[::2]) for name, mask in masks.items()}
    return np.ascontiguousarray(images[::2]), np.ascontiguousarray(labels[::2]), others


def _without_last(images, labels, masks):
    return images[:-1], labels[:-1], {name: mask[:-1] for name, mask in masks.items()}


def _first_only(images, labels, masks):
    return np.repeat(images[:1], len(images), 0), labels, masks


def _without_dropout(images, labels, masks):
    return images, labels, {name: np.ones_like(mask) for name, mask in masks.items()}


def _masks_of_the_first(images, labels, masks):
    return images, labels, {name: np.repeat(mask[:1], len(mask), 0) for name, mask in masks.items()}


def _to_bfloat16(images, labels, masks):
    return (images.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32), labels, masks


def _labels_shuffled(images, labels, masks):
    return images, np.ascontiguousarray(labels[::-1]), masks


class Idle(Wrapped):
    """Steps that do nothing but tell the loss."""

    def train_step(self, placed, step):
        return self._inner.loss_and_gradients(placed, step)[0]


class Lazy(Wrapped):
    """Every other step does nothing."""

    count = 0

    def train_step(self, placed, step):
        self.count += 1
        return (self._inner if self.count % 2 else Idle(self._inner, None)).train_step(placed, step)


class Stale(Wrapped):
    """The loss that is told is that of the step before."""

    last = None

    def train_step(self, placed, step):
        loss = float(self._inner.train_step(placed, step))
        self.last, told = loss, loss if self.last is None else self.last
        return told


class Untrue(Wrapped):
    """Parameters that are told are not those that are used."""

    told = None

    def train_step(self, placed, step):
        before, state = self._inner.parameters(), self._inner.optimizer_state()
        loss = float(self._inner.train_step(placed, step))
        self.told = self._inner.parameters(), self._inner.optimizer_state()
        self._inner.restore(before, state)
        return loss

    def parameters(self):
        return self.told[0] if self.told else self._inner.parameters()

    def optimizer_state(self):
        return self.told[1] if self.told else self._inner.optimizer_state()


class Accumulating(Wrapped):
    """Gradients that are never set to zero: each step sees the sum of its own and those before."""

    total = None

    def train_step(self, placed, step):
        recipe = self._bound.network.recipe
        loss, gradients = self._inner.loss_and_gradients(placed, step)
        if self.total is None:
            self.total = gradients
            return self._inner.train_step(placed, step)
        self.total = {name: self.total[name] + gradient for name, gradient in gradients.items()}
        return _adam_by_hand(self, recipe.optimizer, self.total, step, loss)


def _adam_by_hand(realization, spec, gradients, step, loss):
    """Adam's step with other gradients than those of the batch."""
    parameters, state = realization.parameters(), realization.optimizer_state()
    count = float(state["step_count"]) + 1.0
    state["step_count"] = np.array(count)
    for name, gradient in gradients.items():
        first, second = f"first_moment/{name}", f"second_moment/{name}"
        kind = gradient.dtype
        state[first] = (spec.beta1 * state[first] + (1 - spec.beta1) * gradient).astype(kind)
        state[second] = (spec.beta2 * state[second] + (1 - spec.beta2) * gradient**2).astype(kind)
        mean, square = state[first] / (1 - spec.beta1**count), state[second] / (1 - spec.beta2**count)
        moved = parameters[name] - step.learning_rate * mean / (np.sqrt(square) + spec.epsilon)
        parameters[name] = moved.astype(kind)
    realization.restore(parameters, state)
    return loss


class ZeroGradients(Wrapped):
    """The optimizer steps on gradients of zero."""

    def train_step(self, placed, step):
        loss, gradients = self._inner.loss_and_gradients(placed, step)
        zeros = {name: np.zeros_like(gradient) for name, gradient in gradients.items()}
        return _adam_by_hand(self, self._bound.network.recipe.optimizer, zeros, step, loss)


def _optimizer(**fields):
    return lambda recipe: replace(recipe, optimizer=replace(recipe.optimizer, **fields))


def _without(recipe, name):
    return replace(recipe, **{name: 0.0})


def _biases(change):
    return Mistake(
        "cnn", parameters=lambda arrays: {n: change(a) if n.endswith("biases") else a for n, a in arrays.items()}
    )


def _named(end, change):
    return lambda arrays: {name: change(a) if name.endswith(end) else a for name, a in arrays.items()}


TRAINING_MISTAKES = {
    "learning rate doubled": Mistake(wrap=_rate(lambda rate, _: 2.0 * rate)),
    "learning rate halved": Mistake("cnn", wrap=_rate(lambda rate, _: 0.5 * rate)),
    "learning rate of the recipe": Mistake(wrap=_rate(lambda _, recipe: recipe.optimizer.learning_rate)),
    "learning rate 1 % off": Mistake("norm", wrap=_rate(lambda rate, _: 1.01 * rate)),
    "SGD for Adam": Mistake(recipe=lambda recipe: replace(recipe, optimizer=SGD(learning_rate=1e-3))),
    "momentum for Adam": Mistake("cnn", recipe=lambda r: replace(r, optimizer=SGD(learning_rate=1e-3, momentum=0.9))),
    "Adam for SGD": Mistake("norm", recipe=lambda r: replace(r, optimizer=Adam(learning_rate=1e-3))),
    "Adam's epsilon 1e-3": Mistake(recipe=_optimizer(epsilon=1e-3)),
    "Adam's epsilon 1e-6": Mistake("cnn", recipe=_optimizer(epsilon=1e-6)),
    "Adam's beta2 0.9": Mistake(recipe=_optimizer(beta2=0.9)),
    "Adam's beta2 0.99": Mistake("cnn", recipe=_optimizer(beta2=0.99)),
    "Adam's beta1 0.8": Mistake(recipe=_optimizer(beta1=0.8)),
    "weight decay twice": Mistake("decay", recipe=lambda r: _optimizer(weight_decay=2 * r.optimizer.weight_decay)(r)),
    "no weight decay": Mistake("decay", recipe=_optimizer(weight_decay=0.0)),
    "decoupled decay twice": Mistake(
        "decoupled", recipe=lambda r: _optimizer(weight_decay=2 * r.optimizer.weight_decay)(r)
    ),
    "decay coupled": Mistake(
        "decoupled",
        recipe=lambda r: replace(r, optimizer=Adam(learning_rate=0.01, weight_decay=r.optimizer.weight_decay)),
    ),
    "decay of SGD twice": Mistake("norm", recipe=lambda r: _optimizer(weight_decay=2 * r.optimizer.weight_decay)(r)),
    "never clipped": Mistake("clipped", recipe=lambda recipe: _without(recipe, "clip_norm")),
    "clipped to twice the norm": Mistake("clipped", recipe=lambda r: replace(r, clip_norm=2.0 * r.clip_norm)),
    "clipped always": Mistake("clipped", recipe=lambda recipe: replace(recipe, clip_norm=1e-3 * recipe.clip_norm)),
    "no momentum": Mistake("norm", recipe=_optimizer(momentum=0.0)),
    "Nesterov's momentum": Mistake("norm", recipe=_optimizer(nesterov=True)),
    "momentum 0.8": Mistake("norm", recipe=_optimizer(momentum=0.8)),
    "gradients accumulated": Mistake(wrap=Accumulating),
    "zero gradients": Mistake(wrap=ZeroGradients),
    "a step that does nothing": Mistake(wrap=Idle),
    "every other step does nothing": Mistake("cnn", wrap=Lazy),
    "each step twice": Mistake("cnn", wrap=_step(lambda step, _: step, times=2)),
    "the loss of the step before": Mistake("cnn", wrap=Stale),
    "parameters told but not used": Mistake("cnn", wrap=Untrue),
    "margin 0.5 in train steps": Mistake(wrap=_step(lambda step, _: replace(step, margin=0.5))),
    "margin of 0.5 at most": Mistake(
        wrap=_step(lambda step, _: Step(step.number, step.learning_rate, min(0.5, step.margin)))
    ),
    "conv1 frozen": Mistake(wrap=_frozen(lambda name: name.startswith("conv1"))),
    "conv1 frozen, its moments too": Mistake("cnn", wrap=_frozen(lambda name: name.startswith("conv1"), state=True)),
    "biases frozen": Mistake("cnn", wrap=_frozen(lambda name: name.endswith("biases"))),
    "beta_u frozen": Mistake(wrap=_frozen(lambda name: name.endswith("beta_u"))),
    "one class's transforms frozen": Mistake(wrap=_after(_one_class_frozen)),
    "one number frozen": Mistake("cnn", wrap=_after(_one_number_frozen)),
    "half of each batch": Mistake(wrap=_placing(_half)),
    "every other image": Mistake("cnn", wrap=_placing(_every_other)),
    "the last image left out": Mistake(wrap=_placing(_without_last)),
    "half of each batch, gradients too": Mistake(wrap=_placing(_half, gradients=True, least=4)),
    "every other image, gradients too": Mistake("cnn", wrap=_placing(_every_other, gradients=True, least=4)),
    "half of each batch under a norm": Mistake("norm", wrap=_placing(_half, gradients=True, least=4)),
    "the last image left out, gradients too": Mistake("cnn", wrap=_placing(_without_last, gradients=True, least=4)),
    "labels in reverse": Mistake("cnn", wrap=_placing(_labels_shuffled)),
    "dropout off": Mistake("cnn", wrap=_placing(_without_dropout)),
    "one mask for all": Mistake("cnn", wrap=_placing(_masks_of_the_first)),
    "images in bfloat16 in train steps": Mistake(wrap=_placing(_to_bfloat16)),
    "above four images, bfloat16 at evaluation": Mistake(
        wrap=_placing(_to_bfloat16, steps=False, forward=True, least=4)
    ),
    "above four images, bfloat16 in training": Mistake("cnn", wrap=_placing(_to_bfloat16, gradients=True, least=4)),
    "above four images, all scored as the first": Mistake(
        "cnn", wrap=_placing(_first_only, steps=False, forward=True, least=4)
    ),
    "statistics never moved": Mistake("norm", wrap=_statistics(lambda _, before, __: before)),
    "statistics' momentum inverted": Mistake("norm", wrap=_statistics(_inverted)),
    "moving variance x 1.3": Mistake(
        "norm", wrap=_statistics(lambda name, _, after: after * np.float32(1.3) if "variance" in name else after)
    ),
    "moving means never moved": Mistake(
        "norm", wrap=_statistics(lambda name, before, after: before if "mean" in name else after)
    ),
    "evaluation forgets the mean": Mistake("norm", wrap=_moving(lambda name, v: v * ("variance" in name))),
    "evaluation squares the variance": Mistake("norm", wrap=_moving(lambda name, v: v**2 if "variance" in name else v)),
    "evaluation forgets the variance": Mistake("norm", wrap=_moving(lambda name, v: v**0 if "variance" in name else v)),
    "biases ignored": _biases(np.zeros_like),
    "biases doubled": _biases(lambda array: 2 * array),
    "biases beyond 0.01 doubled": _biases(lambda array: np.where(np.abs(array) > 0.01, 2 * array, array)),
    "norm's scale ignored": Mistake("norm", parameters=_named("norm1.scale", np.ones_like)),
    "norm's centre ignored": Mistake("norm", parameters=_named("norm1.center", np.zeros_like)),
    "priors ignored": Mistake("attention", parameters=_named("priors", np.zeros_like)),
    "priors x 6": Mistake("attention", parameters=_named("priors", lambda array: 6 * array)),
    "beta_a clamped": Mistake(parameters=_named("beta_a", lambda array: array.clip(-0.01, 0.01))),
    "beta_u clamped": Mistake(parameters=_named("beta_u", lambda array: array.clip(-0.01, 0.01))),
    "beta_u + beta_u squared": Mistake(parameters=_named("beta_u", lambda array: array + array**2)),
    "beta_a x 1.001": Mistake(parameters=_named("beta_a", lambda array: array * np.float32(1.001))),
    "routing biases ignored": Mistake("self_routing", parameters=_named("routing_biases", np.zeros_like)),
    "routing weights ignored": Mistake("self_routing", parameters=_named("routing_weights", np.zeros_like)),
    "decoder's biases ignored": Mistake("agreement", parameters=_named("dense0.biases", np.zeros_like)),
}
"""By what they are; none of them shows on untrained parameters."""
