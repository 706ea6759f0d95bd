"""The gate that a realization must pass before it is timed: parity, or errors beyond its limits that are rounding.

Three parts, each in its own module: `worker.parity` on untrained parameters, `worker.perturbed` on perturbed ones and
whole batches, `worker.trainsteps` on real train steps. What is timed is realized anew from the same arguments, in a
process of its own: train steps leave no realization as it was, and not every backend can restore one.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from capsbench.backend import Backend, Floats, Realization, Setting, Step
from capsbench.dataset.batches import Batch
from capsbench.network.parameters import dropout_masks, momenta
from capsbench.network.shapes import BoundNetwork
from capsbench.record.schema import Parity, TrainSteps
from capsbench.worker import reference
from capsbench.worker.oracle import Order, nan_last, output_errors, realize_oracle
from capsbench.worker.parity import Batch as Compared
from capsbench.worker.parity import examine_untrained
from capsbench.worker.perturbation import LARGE_MARGIN
from capsbench.worker.perturbed import Draw, check_perturbed
from capsbench.worker.rounding import explain
from capsbench.worker.trainsteps import AFTERWARDS, Error, TrainingBatch, clipping_norm, compare_steps

Realize = Callable[[BoundNetwork, Mapping[str, NDArray[np.float32]]], Realization]
Images = NDArray[np.float32]
Labels = NDArray[np.int64]

BATCH: Final = 6
"""Images of a batch where no case says how many."""
RATES: Final = (1.0, 0.5, 0.75)
"""Learning rates of the train steps, over the optimizer's own: one that ignores what it is handed shows."""
LEAST_DECAY: Final = {"adam": 1e-3, "sgd": 1e-3, "adamw": 1e-2}
"""Weight decay, where there is any, is made at least so large: a smaller one would not show in a few steps."""


def judge(
    backend: Backend,
    bound: BoundNetwork,
    setting: Setting,
    *,
    parameters: Mapping[str, NDArray[np.float32]],
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    drawn: bool,
    seed: int,
    training: Batch | None = None,
) -> Parity:
    """Compare a realization with the oracle; `rounding` says so where it passes beyond its limits.

    Args:
        backend: to be checked.
        bound: the network.
        setting: of the backend, not in mixed precision.
        parameters: the network's untrained parameters.
        images: [n, h, w, c]; `parity.batch_size` says how many.
        labels: [n].
        drawn: whether the images are random pixels.
        seed: of dropout masks, directions of gradients, noise, random pixels.
        training: images and labels of two batches of the case; random pixels where there is none.

    Raises:
        BadInput: the oracle is not installed.
    """
    examine = partial(examine_untrained, backend, bound, labels=labels, seed=seed)
    first = examine(setting, parameters, images)

    def compare(setting: Setting, parameters: Mapping[str, NDArray[np.float32]], images: NDArray[np.float32]) -> Parity:
        return examine(setting, parameters, images).parity

    found = explain(first.parity, compare, setting, parameters=parameters, images=images, drawn=drawn, seed=seed)
    if not found.passed:
        return replace(found, failure=first.failure())
    del first
    return _judge_training(found, backend, _showing_decay(bound), setting, parameters, training, seed)


def _judge_training(
    found: Parity,
    backend: Backend,
    bound: BoundNetwork,
    setting: Setting,
    parameters: Mapping[str, NDArray[np.float32]],
    training: Batch | None,
    seed: int,
) -> Parity:
    """Parts two and three, on the realization that part two ended with."""
    batch = BATCH if training is None else len(training.labels) // 2
    perturbed, drawn, examined = check_perturbed(backend, bound, setting, parameters, batch=batch, seed=seed)
    found = replace(found, perturbed=perturbed)
    if not examined.parity.passed:
        return replace(found, passed=False, failure=f"perturbed parameters: {examined.failure()}")
    training = _random_batches(bound, batch, seed) if training is None else training
    realization = examined.realization
    double = partial(backend.realize, setting=replace(setting, precision="float64"))
    batches = _training_batches(bound, realization, double, drawn, training, examined.known, seed)
    if bound.network.recipe.clip_norm:
        gradients = [realization.loss_and_gradients(each.placed, each.step)[1] for each in batches]
        norms = [reference.global_norm(reference.wide(each)) for each in gradients]
        bound = _with_recipe(bound, clip_norm=clipping_norm(norms))
        realization = backend.realize(bound, drawn.parameters, setting)
        batches = _training_batches(bound, realization, double, drawn, training, None, seed)
    worst = compare_steps(realization, bound, batches, setting.precision)
    if worst.excess <= 1.0:
        after = _afterwards(realization, bound, drawn, batches[0].placed, AFTERWARDS[setting.precision])
        worst = max(worst, after, key=lambda error: error.excess)
    steps = TrainSteps(
        steps=len(batches), batch=batch, max_relative_error=worst.value, limit=worst.limit, worst=worst.what
    )
    found = replace(found, train_steps=steps)
    if worst.excess <= 1.0:
        return found
    said = f"train steps: {worst.what} is off by {worst.value:.2g} (limit {worst.limit:.0e})"
    return replace(found, passed=False, failure=said)


def _showing_decay(bound: BoundNetwork) -> BoundNetwork:
    """The network with a weight decay that shows in a few steps, where it has any."""
    spec = bound.network.recipe.optimizer
    if not spec.weight_decay:
        return bound
    return _with_recipe(bound, optimizer=replace(spec, weight_decay=max(spec.weight_decay, LEAST_DECAY[spec.name])))


def _with_recipe(bound: BoundNetwork, **changes: Any) -> BoundNetwork:  # noqa: ANN401 - fields of a recipe
    recipe = replace(bound.network.recipe, **changes)
    return replace(bound, network=replace(bound.network, recipe=recipe))


def _random_batches(bound: BoundNetwork, batch: int, seed: int) -> Batch:
    generator = np.random.Generator(np.random.PCG64([seed, 32]))
    shape = (2 * batch, bound.image.height, bound.image.width, bound.image.channels)
    return Batch(generator.random(shape, dtype=np.float32), np.arange(2 * batch, dtype=np.int64) % bound.classes)


def _training_batches(
    bound: BoundNetwork,
    realization: Realization,
    double: Realize,
    drawn: Draw,
    training: Batch,
    known: tuple[float, Mapping[str, Floats]] | None,
    seed: int,
) -> list[TrainingBatch]:
    """The batch of part two, a batch of the case, and one that repeats a few images of the case, at a large margin.

    A batch that repeats images can be held to the oracle. Where the statistics of their batch couple images, the second
    one does so too.
    """
    batch, coupled = len(training.labels) // 2, bool(momenta(bound))
    few = np.resize(np.arange(batch, 2 * batch), len(drawn.batch.labels))
    images, labels = training.images[few], training.labels[few]

    def of_case(number: int, images: Images, labels: Labels, margin: float, order: Order) -> Compared:
        return Compared(images, labels, dropout_masks(bound, len(labels), seed, number), margin, seed, order)

    margin = bound.network.objective.margin_at(0, 1)
    repeated = of_case(1, images, labels, margin, drawn.batch.order)
    whole = of_case(1, training.images[:batch], training.labels[:batch], margin, slice(None))
    last = of_case(2, images[::-1], labels[::-1], LARGE_MARGIN, drawn.batch.order)
    chosen = ((drawn.batch, True), (repeated if coupled else whole, coupled), (last, True))
    found = []
    for number, (each, repeats) in enumerate(chosen):
        step = Step(number, RATES[number] * bound.network.recipe.optimizer.learning_rate, each.margin)
        truth = partial(_truth, bound, each, step) if repeats else None
        in_float64 = partial(_in_float64, double, bound, each, step) if repeats else None
        known_here = None if number else known
        found.append(TrainingBatch(each.placed_in(realization), step, known_here, truth, in_float64))
    return found


def _truth(
    bound: BoundNetwork, batch: Compared, step: Step, parameters: reference.Arrays
) -> tuple[float, reference.Arrays]:
    """The oracle's loss and statistics of a batch, with some parameters."""
    oracle = realize_oracle(bound, parameters)
    placed = oracle.place(batch.images, batch.labels, batch.masks)
    statistics = oracle.batch_statistics(placed) if momenta(bound) else {}
    return oracle.loss(placed, step), reference.wide(statistics)


def _in_float64(
    realize: Realize, bound: BoundNetwork, batch: Compared, step: Step, parameters: reference.Arrays
) -> reference.Arrays:
    """Parameters and statistics after a train step in float64, from some parameters."""
    realization = realize(bound, {name: value.astype(np.float32) for name, value in parameters.items()})
    float(realization.train_step(batch.placed_in(realization), step))
    realization.synchronize()
    return reference.wide(realization.parameters())


def _afterwards(realization: Realization, bound: BoundNetwork, drawn: Draw, placed: object, limit: float) -> Error:
    """How far an evaluation lies from the oracle's, with the parameters that the realization says it has."""
    oracle, batch = realize_oracle(bound, realization.parameters()), drawn.batch
    right = oracle.forward(oracle.place(batch.images, batch.labels, batch.masks))
    errors = output_errors(realization.forward(placed), right, batch.order)
    farthest = max(errors, key=lambda name: nan_last(errors[name]))
    return Error(errors[farthest], limit, f"{farthest} after the last train step")
