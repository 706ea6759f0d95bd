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

from capsbench.backend import Floats, Realization, Step
from capsbench.dataset.atomic import whole_file
from capsbench.dataset.batches import Batch, test_batches, training_batches
from capsbench.dataset.holdout import hold_out
from capsbench.dataset.loading import Split
from capsbench.dataset.transform import Transform
from capsbench.network.parameters import dropout_masks
from capsbench.network.text import plain
from capsbench.worker.checkpoint import (
    CHECKPOINT,
    Checkpoint,
    Identity,
    UnfitCheckpoint,
    describe_resumed,
    identity,
    read_checkpoint,
    write_checkpoint,
)
from capsbench.worker.epochs import Check, Epoch, metrics, notes, why_ended
from capsbench.worker.messages import ArtifactsPart, MetricsPart, NotesPart, Progress
from capsbench.worker.pace import Pace
from capsbench.worker.prepare import Prepared, Send, Stopped

STAGE = "accuracy"
HISTORY, PARAMETERS = "history.json", "parameters.safetensors"

T = TypeVar("T")
Masks = dict[str, NDArray[np.float32]]


@dataclass(slots=True)
class _Run:
    """A training under way.

    Attributes:
        train: the images of the train steps.
        evaluated: the splits that are evaluated after each epoch, by name.
        of: what a checkpoint belongs to; None where none is kept.
        history: the epochs that have ended.
        losses: of all train steps.
        resumed: epochs after which the training was taken up again.
        saved: the epoch of the last checkpoint.
    """

    prepared: Prepared
    realization: Realization
    train: Split
    evaluated: dict[str, tuple[Split, Transform]]
    send: Send
    steps_per_epoch: int
    of: Identity | None = None
    history: list[Epoch] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    resumed: tuple[int, ...] = ()
    saved: int = 0
    pace: Pace = field(default_factory=Pace)

    @property
    def total_steps(self) -> int:
        return self.prepared.case.train.epochs * self.steps_per_epoch

    @property
    def folder(self) -> Path | None:
        artifacts = self.prepared.place.artifacts
        return None if artifacts is None else Path(artifacts)


def train_case(prepared: Prepared, send: Send) -> Realization:
    """Train for the case's epochs, evaluate after each, send the metrics of the last.

    Nothing is picked: the accuracy is that of the last epoch, not of the best. Where a checkpoint of the case lies in
    its folder, training goes on from there.

    Returns:
        The trained network.

    Raises:
        Stopped: as `diverged`, where the loss or a parameter is no longer finite.
        BadInput: the batch is larger than the training split.
    """
    run = _begin(prepared, send)
    choice = prepared.case.train
    while len(run.history) < choice.epochs and why_ended(run.history, choice) is None:
        try:
            run.history.append(_train_epoch(run, len(run.history)))
        except Stopped as end:
            kept = f"; {CHECKPOINT} holds the state after epoch {run.saved}" if run.saved else ""
            raise Stopped(end.status, f"{end}{kept}") from None
        _write_history(run)
        _save(run)
    _write_parameters(run)
    if run.folder is not None:
        send(ArtifactsPart(files=(HISTORY, PARAMETERS, *([CHECKPOINT] if run.saved else []))))
    send(MetricsPart(metrics=metrics(run.history, choice, prepared.case.batch)))
    if said := tuple(notes(run.history, choice)):
        send(NotesPart(notes=said))
    return run.realization


def _begin(prepared: Prepared, send: Send) -> _Run:
    """The training before its first epoch, or after the last that a checkpoint holds."""
    train, parts = prepared.split("train"), prepared.case.dataset.protocol.parts()
    evaluated: dict[str, tuple[Split, Transform]] = {
        part: (prepared.split(part), prepared.transform(part)) for part in parts if part != "train"
    }
    of = identity(prepared, train, evaluated["test"][0])
    share = prepared.case.train.validation
    if share:
        views = 2 if prepared.case.dataset.protocol.eyes == "each" else 1
        train, held_out = hold_out(train, share, together=views)
        evaluated["validation"] = held_out, prepared.transform("train")
        held, whole = len(held_out.labels), len(train.labels) + len(held_out.labels)
        send(NotesPart(notes=(f"{held:,} of the {whole:,} training images were held out for validation",)))
    run = _Run(prepared, prepared.realize(), train, evaluated, send, len(train.labels) // prepared.case.batch)
    if run.folder is not None and _can_resume(run):
        run.of = of
        _take_up(run, run.folder / CHECKPOINT, of)
    if run.folder is not None and not run.history:
        (run.folder / HISTORY).unlink(missing_ok=True)  # of a training that did not come to its first checkpoint
    return run


def _can_resume(run: _Run) -> bool:
    if all(hasattr(run.realization, method) for method in ("optimizer_state", "restore")):
        return True
    backend = run.prepared.case.backend
    run.send(NotesPart(notes=(f"{backend} does not hand out its optimizer's state, so no checkpoint was kept",)))
    return False


def _take_up(run: _Run, path: Path, of: Identity) -> None:
    """Go on from a checkpoint, where there is one that fits."""
    realization, name = run.realization, run.prepared.case.recipe.optimizer.name
    try:
        found = read_checkpoint(path, of, name, realization.parameters(), realization.optimizer_state())
        if found is not None:
            _check_length(run, found)
    except UnfitCheckpoint as reason:
        run.send(NotesPart(notes=(f"{CHECKPOINT} {reason}; training began at the first epoch",)))
        return
    if found is None:
        return
    realization.restore(found.parameters, found.optimizer_state)
    run.history = list(found.history)
    run.losses = [loss for epoch in found.history for loss in epoch.losses]
    run.saved = len(run.history)
    run.resumed = (*found.resumed, run.saved)
    run.send(NotesPart(notes=(describe_resumed(run.resumed),)))
    _write_history(run)


def _check_length(run: _Run, found: Checkpoint) -> None:
    lengths = [len(epoch.losses) for epoch in found.history]
    if not lengths or len(lengths) > run.prepared.case.train.epochs or set(lengths) != {run.steps_per_epoch}:
        raise UnfitCheckpoint("is damaged: its history is not that of its case")


def _train_epoch(run: _Run, number: int) -> Epoch:
    start = time.perf_counter()
    first = len(run.losses)
    step = Step(0, 0.0, 0.0)
    pending: SupportsFloat | None = None
    checks: list[Check] = []
    for batch, masks, step in _ahead(_steps(run, number)):
        placed = run.realization.place(batch.images, batch.labels, masks)
        loss = run.realization.train_step(placed, step)
        if pending is not None:  # read one step late, so that the device never waits for us
            _take_loss(run, pending)
        pending = loss
        _tell(run, number, step)
        if _is_check_due(run, step):
            checks.append(_check(run, step, start, checks))
    if pending is not None:
        _take_loss(run, pending)
    run.realization.synchronize()
    trained = time.perf_counter()
    _check_finite(run.realization.parameters(), number)
    evaluating = time.perf_counter()
    accuracies = {name: _accuracy(run, name) for name in run.evaluated}
    evaluated = checks[-1].evaluation_seconds if checks else 0.0
    losses = tuple(run.losses[first:])
    return Epoch(
        epoch=number + 1,
        train_loss=math.fsum(losses) / len(losses),
        losses=losses,
        test_accuracy=accuracies["test"],
        validation_accuracy=accuracies.get("validation"),
        familiar_accuracy=accuracies.get("familiar"),
        learning_rate=step.learning_rate,
        margin=step.margin,
        seconds=trained - start - evaluated,
        evaluation_seconds=evaluated + time.perf_counter() - evaluating,
        checks=tuple(checks),
    )


def _is_check_due(run: _Run, step: Step) -> bool:
    """Whether the network is evaluated between this step and the next of the epoch."""
    every = run.prepared.case.train.evaluate_every
    taken = step.number % run.steps_per_epoch + 1
    return every is not None and taken % every == 0 and taken < run.steps_per_epoch


def _check(run: _Run, step: Step, start: float, before: list[Check]) -> Check:
    run.realization.synchronize()
    began = time.perf_counter()
    accuracies = {name: _accuracy(run, name) for name in run.evaluated if name != "validation"}
    evaluated = before[-1].evaluation_seconds if before else 0.0
    return Check(
        step=step.number % run.steps_per_epoch + 1,
        test_accuracy=accuracies["test"],
        familiar_accuracy=accuracies.get("familiar"),
        seconds=began - start - evaluated,
        evaluation_seconds=evaluated + time.perf_counter() - began,
    )


def _check_finite(parameters: dict[str, Floats], number: int) -> None:
    for name, value in parameters.items():
        if not np.isfinite(value).all():
            raise Stopped("diverged", f"{name} is no longer finite after epoch {number + 1}, though the loss was")


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


def _accuracy(run: _Run, evaluated: str) -> float:
    """Share of the images of an evaluated split whose highest score is their class's."""
    split, transform = run.evaluated[evaluated]
    right = 0
    for batch, real in test_batches(split, transform, batch=run.prepared.case.batch):
        placed = run.realization.place(batch.images, batch.labels, {})
        scores = run.realization.forward(placed).scores[:real]
        right += int((scores.argmax(axis=1) == batch.labels[:real]).sum())
    return right / len(split.labels)


def _write_history(run: _Run) -> None:
    if run.folder is not None:
        with whole_file(run.folder / HISTORY) as file:
            file.write(json.dumps({"epochs": plain(run.history, defaults=True)}).encode())


def _save(run: _Run) -> None:
    """Keep a checkpoint; it never replaces a good one by one that is not finite, which does not come this far."""
    if run.folder is None or run.of is None:
        return
    realization, history = run.realization, tuple(run.history)
    state = Checkpoint(realization.parameters(), realization.optimizer_state(), history, run.resumed)
    write_checkpoint(run.folder / CHECKPOINT, run.of, run.prepared.case.recipe.optimizer.name, state)
    run.saved = len(history)


def _write_parameters(run: _Run) -> None:
    if run.folder is not None:
        arrays = {name: np.ascontiguousarray(value) for name, value in run.realization.parameters().items()}
        with whole_file(run.folder / PARAMETERS) as file:
            file.write(safetensors.numpy.save(arrays))


def _tell(run: _Run, number: int, step: Step) -> None:
    if not run.pace.due():
        return
    loss = f", loss {run.losses[-1]:.4f}" if run.losses else ""
    epochs = run.prepared.case.train.epochs
    within = step.number % run.steps_per_epoch + 1
    detail = f"epoch {number + 1}/{epochs}, step {within}/{run.steps_per_epoch}{loss}"
    run.send(Progress(stage=STAGE, done=step.number + 1, total=run.total_steps, detail=detail))
