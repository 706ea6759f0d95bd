"""Training and evaluation: what the network really reaches, epoch by epoch."""

import json
import math
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import SupportsFloat, TypeVar

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from capsbench.backend import Realization, Step
from capsbench.dataset.atomic import whole_file
from capsbench.dataset.batches import Batch, test_batches, training_batches
from capsbench.dataset.loading import Split
from capsbench.network.parameters import dropout_masks
from capsbench.network.text import plain
from capsbench.record.schema import Direction, Metric
from capsbench.worker.messages import ArtifactsPart, MetricsPart, Progress
from capsbench.worker.pace import Pace
from capsbench.worker.prepare import Prepared, Send, Stopped

STAGE = "accuracy"

T = TypeVar("T")
Masks = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One pass over the training images and the evaluation after it.

    Attributes:
        epoch: counted from 1.
        train_loss: mean of `losses`.
        losses: of every train step, before the step.
        test_accuracy: share of test images whose highest score is their class's.
        learning_rate: of the last step.
        margin: of the last step; 0 for a loss without one.
        seconds: wall time of the train steps and the preparation of their batches.
        evaluation_seconds: wall time of the evaluation.
    """

    epoch: int
    train_loss: float
    losses: tuple[float, ...]
    test_accuracy: float
    learning_rate: float
    margin: float
    seconds: float
    evaluation_seconds: float


@dataclass(slots=True)
class _Run:
    """A training under way."""

    prepared: Prepared
    realization: Realization
    train: Split
    test: Split
    send: Send
    steps_per_epoch: int
    losses: list[float] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)

    @property
    def total_steps(self) -> int:
        return self.prepared.case.train.epochs * self.steps_per_epoch


def train_case(prepared: Prepared, send: Send) -> Realization:
    """Train for the case's epochs, evaluate after each, send the metrics of the last.

    Nothing is picked: the accuracy is that of the last epoch, not of the best.

    Returns:
        The trained network.

    Raises:
        Stopped: as `diverged`, where the loss is no longer finite.
        BadInput: the batch is larger than the training split.
    """
    train, test = prepared.split("train"), prepared.split("test")
    per_epoch = len(train.labels) // prepared.case.batch
    run = _Run(prepared, prepared.realize(), train, test, send, per_epoch)
    history: list[Epoch] = []
    for number in range(prepared.case.train.epochs):
        history.append(_train_epoch(run, number))
        _write_history(prepared, history)
    _write_parameters(prepared, run.realization)
    if prepared.place.artifacts is not None:
        send(ArtifactsPart(files=("history.json", "parameters.safetensors")))
    send(MetricsPart(metrics=_metrics(history)))
    return run.realization


def _train_epoch(run: _Run, number: int) -> Epoch:
    start = time.perf_counter()
    first = len(run.losses)
    step = Step(0, 0.0, 0.0)
    pending: SupportsFloat | None = None
    for batch, masks, step in _ahead(_steps(run, number)):
        placed = run.realization.place(batch.images, batch.labels, masks)
        loss = run.realization.train_step(placed, step)
        if pending is not None:  # read one step late, so that the device never waits for us
            _take_loss(run, pending)
        pending = loss
        _tell(run, number, step)
    if pending is not None:
        _take_loss(run, pending)
    run.realization.synchronize()
    trained = time.perf_counter()
    accuracy = _evaluate(run)
    losses = tuple(run.losses[first:])
    return Epoch(
        epoch=number + 1,
        train_loss=math.fsum(losses) / len(losses),
        losses=losses,
        test_accuracy=accuracy,
        learning_rate=step.learning_rate,
        margin=step.margin,
        seconds=trained - start,
        evaluation_seconds=time.perf_counter() - trained,
    )


def _steps(run: _Run, number: int) -> Iterator[tuple[Batch, Masks, Step]]:
    """The batches of an epoch with their dropout masks, learning rates and margins."""
    case, bound = run.prepared.case, run.prepared.bound
    batches = training_batches(
        run.train, run.prepared.transform("train"), batch=case.batch, seed=case.seed, epoch=number
    )
    for step, batch in enumerate(batches, number * run.steps_per_epoch):
        rate = case.network.recipe.learning_rate_at(step, run.total_steps)
        margin = case.network.objective.margin_at(step, run.total_steps)
        yield batch, dropout_masks(bound, case.batch, case.seed, step), Step(step, rate, margin)


def _ahead(items: Iterable[T]) -> Iterator[T]:
    """Make the next item in a thread while this one is used."""
    iterator = iter(items)
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, iterator, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, iterator, None)
            yield item


def _take_loss(run: _Run, loss: SupportsFloat) -> None:
    value = float(loss)
    if not math.isfinite(value):
        number = len(run.losses)
        before = f" after {run.losses[-1]:.4g}" if run.losses else ""
        raise Stopped("diverged", f"the loss is {value} in train step {number} of {run.total_steps}{before}")
    run.losses.append(value)


def _evaluate(run: _Run) -> float:
    """Share of the test images whose highest score is their class's."""
    case = run.prepared.case
    right = 0
    for batch, real in test_batches(run.test, run.prepared.transform("test"), batch=case.batch):
        placed = run.realization.place(batch.images, batch.labels, {})
        scores = run.realization.forward(placed).scores[:real]
        right += int((scores.argmax(axis=1) == batch.labels[:real]).sum())
    return right / len(run.test.labels)


def _metrics(history: list[Epoch]) -> dict[str, Metric]:
    last = history[-1]
    seconds = tuple(epoch.seconds for epoch in history)
    return {
        "accuracy": _once(last.test_accuracy, "1", higher=True),
        "error_rate": _once(1.0 - last.test_accuracy, "1"),
        "train_loss": _once(last.train_loss, "1"),
        "epoch_seconds": Metric(
            value=float(np.median(seconds)),
            unit="s",
            direction="lower",
            kind="sampled",
            samples=seconds,
            interval=(min(seconds), max(seconds)),
        ),
    }


def _once(value: float, unit: str, *, higher: bool = False) -> Metric:
    direction: Direction = "higher" if higher else "lower"
    return Metric(value=value, unit=unit, direction=direction, kind="sampled", samples=(value,))


def _write_history(prepared: Prepared, history: list[Epoch]) -> None:
    if prepared.place.artifacts is not None:
        with whole_file(Path(prepared.place.artifacts) / "history.json") as file:
            file.write(json.dumps({"epochs": plain(history, defaults=True)}).encode())


def _write_parameters(prepared: Prepared, realization: Realization) -> None:
    if prepared.place.artifacts is not None:
        arrays = {name: np.ascontiguousarray(value) for name, value in realization.parameters().items()}
        with whole_file(Path(prepared.place.artifacts) / "parameters.safetensors") as file:
            file.write(safetensors.numpy.save(arrays))


def _tell(run: _Run, number: int, step: Step) -> None:
    if not run.pace.due():
        return
    loss = f", loss {run.losses[-1]:.4f}" if run.losses else ""
    epochs = run.prepared.case.train.epochs
    within = step.number % run.steps_per_epoch + 1
    detail = f"epoch {number + 1}/{epochs}, step {within}/{run.steps_per_epoch}{loss}"
    run.send(Progress(stage=STAGE, done=step.number + 1, total=run.total_steps, detail=detail))
