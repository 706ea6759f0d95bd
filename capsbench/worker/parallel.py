"""Training on several devices against the same training on one: the same losses, step by step?

Both start from the same parameters and take the same global batches with the same dropout masks, learning rates and
margins. What differs is the order in which losses and gradients are added, so the losses part by rounding alone, and a
share, an average or a mask that is wrong shows within a few steps. In mixed precision the comparison is made in the
precision that parameters are kept in: in bfloat16 a product is rounded otherwise when it has fewer rows.
"""

import gc
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from capsbench.backend import Setting, Step
from capsbench.dataset.batches import Batch, training_batches
from capsbench.measure.environment import usable_cores
from capsbench.network.parameters import dropout_masks
from capsbench.record.schema import DataParallel
from capsbench.worker.messages import DataParallelPart, NotesPart
from capsbench.worker.prepare import Prepared, Send, Stopped

STEPS: Final = 20
LIMIT: Final = 1e-4
_LEAST_SHARE: Final = 1e-3

_Item = tuple[Batch, dict[str, NDArray[np.float32]], Step]


def compare_devices(prepared: Prepared, send: Send) -> None:
    """Send how far the losses on several devices lie from those on one.

    Raises:
        Stopped: as `parity_failed`, where that is farther than `LIMIT`.
        BadInput: the batch is larger than the training split.
    """
    setting = replace(prepared.case.setting, precision=prepared.case.setting.kept)
    found = _compared(prepared, setting)
    send(DataParallelPart(data_parallel=found))
    if not found.passed:
        raise Stopped("parity_failed", _describe_failure(prepared, found, setting))
    send(NotesPart(notes=(describe_devices(setting),)))


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


def _compared(prepared: Prepared, setting: Setting) -> DataParallel:
    many, alone = _losses(prepared, setting), _losses(prepared, replace(setting, devices=1))
    deviation = relative_deviation(many, alone)
    return DataParallel(
        devices=setting.devices,
        steps=len(alone),
        loss_max_relative_deviation=deviation,
        limit=LIMIT,
        passed=deviation <= LIMIT,
    )


def _describe_failure(prepared: Prepared, found: DataParallel, setting: Setting) -> str:
    """By how much it failed; and whether that is rounding, which float64 tells."""
    said = (
        f"differs from training on one device: losses of {found.steps} steps on {found.devices} devices are off by "
        f"{found.loss_max_relative_deviation:.2g} (limit {found.limit:.0e})"
    )
    if setting.precision == "float64":
        return said
    exact = _compared(prepared, replace(setting, precision="float64")).loss_max_relative_deviation
    return f"{said}, in float64 by {exact:.2g}"


def _losses(prepared: Prepared, setting: Setting) -> list[float]:
    """The losses of the first train steps of the case in a setting."""
    realization = prepared.backend.realize(prepared.bound, prepared.parameters, setting)
    losses = [
        float(realization.train_step(realization.place(batch.images, batch.labels, masks), step))
        for batch, masks, step in islice(_steps(prepared), STEPS)
    ]
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
