"""Part two of parity: the comparison again, where no value is special and on as many images as the case has in a batch.

Parameters are perturbed and activations lie on both sides of each hinge of the loss (`worker.perturbation`). The batch
repeats a few images, each as often as the others and in random order: its loss, its gradients and its statistics are
those of the few, which the oracle evaluates, and an image that is left out, or taken twice, is missed.

Images are random pixels. Where a ReLU lies within rounding of its kink its gradient jumps, which is an accident of one
draw: where the first one fails, the next two decide.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from capsbench.backend import Backend, Output, Setting
from capsbench.network.parameters import dropout_masks
from capsbench.network.shapes import BoundNetwork
from capsbench.record.schema import Parity, Perturbed
from capsbench.worker import digits
from capsbench.worker.digits import transform_error
from capsbench.worker.oracle import realize_oracle
from capsbench.worker.parity import LARGE_VOTE_ELEMENTS, Batch, Examined, compare, normalises_classes
from capsbench.worker.perturbation import MARGIN, perturb, perturb_statistics, round_badly, spread_classes
from capsbench.worker.rounding import explain

MOST_IMAGES: Final = 8
_DRAWS: Final = 3

Parameters = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Draw:
    """Perturbed parameters, and the batch that they are looked at on."""

    parameters: Parameters
    batch: Batch


def batch_sizes(bound: BoundNetwork, batch: int) -> tuple[int, int]:
    """How many different images there are, and how many images of the batch.

    Eight at the most, two at the least, and as many between them as keep the oracle's votes below a few millions. Their
    number divides the batch; where no number does, some images of the batch are left out.
    """
    votes = sum(layer.routing.votes for layer in bound.layers if layer.routing is not None)
    least = 4 if normalises_classes(bound) else 2
    most = min(MOST_IMAGES, max(least, 2 * LARGE_VOTE_ELEMENTS // max(1, votes)))
    if batch <= most:
        return max(least, batch), max(least, batch)
    different = next((count for count in range(most, least - 1, -1) if batch % count == 0), most)
    return different, batch - batch % different


def draw(bound: BoundNetwork, parameters: Parameters, batch: int, seed: int, number: int) -> Draw:
    """Perturb parameters and draw images; `number` tells one draw from another."""
    different, whole = batch_sizes(bound, batch)
    generator = np.random.Generator(np.random.PCG64([seed, 16 + number]))
    shape = (different, bound.image.height, bound.image.width, bound.image.channels)
    images = round_badly(generator.random(shape, dtype=np.float32))
    masks = dropout_masks(bound, different, seed, number)
    labels = np.arange(different, dtype=np.int64) % bound.classes

    def evaluate(given: Parameters) -> Output:
        oracle = realize_oracle(bound, given)
        return oracle.training_output(oracle.place(images, labels, masks))

    moved = {name: round_badly(value) for name, value in perturb(bound, parameters, seed + number).items()}
    oracle = realize_oracle(bound, moved)
    shifts, statistics = oracle.settle(oracle.place(images, labels, masks))
    for name, shift in shifts.items():
        moved[name] = (moved[name] + shift).astype(np.float32)
    moved |= perturb_statistics(statistics, seed + number)
    spread, labels = spread_classes(bound, moved, labels, evaluate)
    order = repeat(different, whole, generator)
    return Draw(spread, Batch(images, labels, masks, MARGIN, seed, order))


def repeat(different: int, whole: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Order [whole] in which each of some images stands equally often, but not in a part that might be taken for all.

    Such parts are the first 2, 4, 8, … images, either half, and every other image.
    """
    half = whole // 2
    for _ in range(1000):
        order = np.argsort(generator.random(whole), kind="stable") % different
        firsts = [order[: 2**power] for power in range(1, whole.bit_length()) if 2**power < whole]
        parts = [part for part in (*firsts, order[:half], order[half:], order[::2], order[1::2]) if len(part) < whole]
        if all(np.ptp(np.bincount(part, minlength=different)) > 0 for part in parts if len(part)):
            break
    return order


def check_perturbed(
    backend: Backend, bound: BoundNetwork, setting: Setting, parameters: Parameters, *, batch: int, seed: int
) -> tuple[Perturbed, Draw, Examined]:
    """Compare a realization with the oracle on perturbed parameters; the draw that decided, and what was found on it.

    Args:
        backend: to be checked.
        bound: the network.
        setting: of the backend.
        parameters: its untrained parameters.
        batch: images of a batch.
        seed: of noise, images, masks and directions.
    """
    failures = 0
    for number, each in enumerate(_examine(backend, bound, setting, parameters, batch, seed), 1):
        drawn, examined = each
        failures += not examined.parity.passed
        if failures == 2 or failures < number - failures:
            break
    found = Perturbed(
        images=len(drawn.batch.labels),
        batch=batch_sizes(bound, batch)[1],
        forward_max_relative_error=examined.parity.forward_max_relative_error,
        gradient_relative_error=examined.parity.gradient_relative_error,
        draws=number,
    )
    return found, drawn, examined


def _examine(
    backend: Backend, bound: BoundNetwork, setting: Setting, parameters: Parameters, batch: int, seed: int
) -> Iterator[tuple[Draw, Examined]]:
    for number in range(_DRAWS):
        drawn = draw(bound, parameters, batch, seed, number)
        examined = compare(backend, bound, setting, drawn.parameters, drawn.batch)

        def again(
            setting: Setting, parameters: Parameters, images: NDArray[np.float32], batch: Batch = drawn.batch
        ) -> Parity:
            few = replace(batch, images=images, order=slice(None))
            return compare(backend, bound, setting, parameters, few).parity

        parity = explain(
            examined.parity,
            again,
            setting,
            parameters=drawn.parameters,
            images=drawn.batch.images,
            drawn=True,
            seed=seed,
        )
        yield drawn, replace(examined, parity=_with_all_digits(parity, bound, drawn, examined))


def _with_all_digits(parity: Parity, bound: BoundNetwork, drawn: Draw, examined: Examined) -> Parity:
    """The parity, failed where transforms have lost digits."""
    batch, names = drawn.batch, [name for name in drawn.parameters if name.endswith(".transforms")]
    if not parity.passed or not names:
        return parity
    oracle = realize_oracle(bound, drawn.parameters)
    truth = oracle.place(batch.images, batch.labels, batch.masks)
    slope = oracle.output_derivative(truth, {name: drawn.parameters[name].astype(np.float64) for name in names})
    error = transform_error(examined.output, oracle.forward(truth), slope, batch.order)
    if error <= digits.LIMIT:
        return parity
    return replace(parity, passed=False, failure=f"transforms are off by {error:.2g} (limit {digits.LIMIT:.0e})")
