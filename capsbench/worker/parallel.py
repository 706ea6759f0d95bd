"""Training on several devices against the same training on one: the same losses, step by step?

Both start from the same parameters and take the same global batches with the same dropout masks, learning rates and
margins. What differs is the order in which losses and gradients are added, so the losses part by rounding alone, and a
share, an average or a mask that is wrong shows within a few steps. In mixed precision the comparison is made in the
precision that parameters are kept in: in bfloat16 a product is rounded otherwise when it has fewer rows.

Some trainings multiply rounding from step to step, by ten and more in a deep EM network before it has learned anything,
or turn next to nothing into a whole step, as Adam does, whose first steps are as long for a small gradient as for a
large one. Where float32 agrees in the first steps, float64 then decides, over the steps before even that is carried
away: those in which one device agrees with itself, with the images of each batch in reverse (`record.schema.Drift`).
"""

import gc
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count, islice, takewhile
from typing import Final

import numpy as np
from numpy.typing import NDArray

from capsbench.backend import Setting, Step, unsupported
from capsbench.dataset.batches import Batch, training_batches
from capsbench.measure.environment import usable_cores
from capsbench.network.parameters import dropout_masks
from capsbench.record.schema import DataParallel, Drift
from capsbench.worker.messages import DataParallelPart, NotesPart
from capsbench.worker.prepare import Prepared, Send, Stopped

STEPS: Final = 20
LIMIT: Final = 1e-4
_LEAST_SHARE: Final = 1e-3
# What float64 must show of a training that rounding carries away: so many steps, in which it does so by so little.
_LEAST_STEPS: Final = 5
_LEAST_FLOAT32_STEPS: Final = 2
_STEADY: Final = 1e-8
_AGREED: Final = 1e-6

_Item = tuple[Batch, dict[str, NDArray[np.float32]], Step]


def compare_devices(prepared: Prepared, send: Send) -> None:
    """Send how far the losses on several devices lie from those on one.

    Raises:
        Stopped: as `parity_failed`, where that is farther than `LIMIT` and no rounding.
        BadInput: the batch is larger than the training split.
    """
    setting = replace(prepared.case.setting, precision=prepared.case.setting.kept)
    found = _compared(prepared, setting)
    send(DataParallelPart(data_parallel=found))
    if not found.passed:
        raise Stopped("parity_failed", describe_failure(found))
    send(NotesPart(notes=(describe_devices(setting),)))
    if found.drift is not None:
        send(NotesPart(notes=(describe_drift(found, found.drift),)))


def relative_deviation(losses: Sequence[float], truth: Sequence[float]) -> float:
    """Largest difference of two losses over the second, or over a thousandth of the first of those; NaN is infinite.

    The floor is for losses that training brings to nothing, where any rounding would be many times the rest.
    """
    floor = _LEAST_SHARE * abs(truth[0])
    errors = [abs(mine - right) / (max(abs(right), floor) or 1.0) for mine, right in zip(losses, truth, strict=True)]
    return max(error if math.isfinite(error) else math.inf for error in errors)


def describe_devices(setting: Setting) -> str:
    """What computes where, in words."""
    if setting.device != "cpu":
        return f"data parallel: {setting.devices} replicas, on {', '.join(setting.replicas)}"
    wanted, there = setting.devices * setting.threads, usable_cores()
    crowded = f"; {wanted} threads share the {there} processors here" if wanted > there else ""
    each = "1 thread" if setting.threads == 1 else f"{setting.threads} threads"
    return f"data parallel: {setting.devices} replicas on the CPU with {each} each, against one with {each}{crowded}"


def describe_failure(found: DataParallel) -> str:
    """By how much the losses differ, and what float64 says to that."""
    drift = found.drift
    exact = (
        ""
        if drift is None
        else f", from step {drift.float32_steps} on; in float64 by {drift.float64_deviation:.2g} in "
        f"{drift.float64_steps} steps"
    )
    return (
        f"differs from training on one device: losses of {found.steps} steps on {found.devices} devices are off by "
        f"{found.loss_max_relative_deviation:.2g} (limit {found.limit:.0e}){exact}"
    )


def describe_drift(found: DataParallel, drift: Drift) -> str:
    """What a reader must know of a deviation beyond the limit that is rounding."""
    return (
        f"data parallel: losses are off by {found.loss_max_relative_deviation:.1g} within {found.steps} steps; that is "
        f"rounding, which this training multiplies: they are within the limit for {drift.float32_steps} steps, and "
        f"float64 agrees to {drift.float64_deviation:.0e} over {drift.float64_steps} steps"
    )


def _compared(prepared: Prepared, setting: Setting) -> DataParallel:
    alone, many = _losses(prepared, replace(setting, devices=1)), _losses(prepared, setting)
    deviation = relative_deviation(many, alone)
    passed, drift = deviation <= LIMIT, None
    exact = replace(setting, precision="float64")
    if not passed and setting.precision == "float32" and not unsupported(prepared.backend, prepared.bound, exact):
        drift = _drift(prepared, exact, _steps_within(many, alone, LIMIT))
        enough = drift.float32_steps >= _LEAST_FLOAT32_STEPS and drift.float64_steps >= _LEAST_STEPS
        passed = enough and drift.float64_deviation <= _AGREED
    return DataParallel(
        devices=setting.devices,
        steps=len(alone),
        loss_max_relative_deviation=deviation,
        limit=LIMIT,
        passed=passed,
        drift=drift,
    )


def _drift(prepared: Prepared, setting: Setting, float32_steps: int) -> Drift:
    """What float64 says; `setting` is in it."""
    one = replace(setting, devices=1)
    alone = _losses(prepared, one)
    steps = _steps_within(_losses(prepared, one, reverse=True), alone, _STEADY)
    deviation = relative_deviation(_losses(prepared, setting)[:steps], alone[:steps]) if steps else math.inf
    return Drift(float32_steps=float32_steps, float64_steps=steps, float64_deviation=deviation)


def _steps_within(losses: Sequence[float], truth: Sequence[float], limit: float) -> int:
    """How many of the first losses do not deviate by more than `limit`."""
    within = (relative_deviation(losses[: at + 1], truth[: at + 1]) <= limit for at in range(len(truth)))
    return sum(takewhile(bool, within))


def _losses(prepared: Prepared, setting: Setting, *, reverse: bool = False) -> list[float]:
    """The losses of the first train steps of the case in a setting, with the images of each batch as they are."""
    realization = prepared.backend.realize(prepared.bound, prepared.parameters, setting)
    losses = []
    turn = -1 if reverse else 1
    for batch, masks, step in islice(_steps(prepared), STEPS):
        turned = {name: np.ascontiguousarray(mask[::turn]) for name, mask in masks.items()}
        images, labels = np.ascontiguousarray(batch.images[::turn]), np.ascontiguousarray(batch.labels[::turn])
        losses.append(float(realization.train_step(realization.place(images, labels, turned), step)))
    del realization
    gc.collect()  # two trainings need not fit into memory at once
    return losses


def _steps(prepared: Prepared) -> Iterator[_Item]:
    """The train steps of the case's training without end; its schedule is that of the case, or of `STEPS` if longer."""
    case, split = prepared.case, prepared.split("train")
    total = max(STEPS, case.train.epochs * (len(split.labels) // case.batch))
    number = count()
    for epoch in count():
        transform = prepared.transform("train")
        for batch in training_batches(split, transform, batch=case.batch, seed=case.seed, epoch=epoch):
            at = next(number)
            rate = case.network.recipe.learning_rate_at(at, total)
            margin = case.network.objective.margin_at(at, total)
            yield batch, dropout_masks(prepared.bound, case.batch, case.seed, at), Step(at, rate, margin)
