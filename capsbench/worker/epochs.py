"""What training comes to, epoch by epoch, and what follows from it: when it ends, when it had reached its target."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from capsbench.record.measured import exact, once, sampled
from capsbench.record.schema import Metric
from capsbench.suite.schema import EarlyStop, TrainChoice


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """An evaluation in the middle of an epoch.

    Attributes:
        step: train steps of the epoch until then.
        test_accuracy: as in `Epoch`, as is the familiar accuracy.
        seconds: as in `Epoch`, of this epoch until then.
        evaluation_seconds: likewise; this evaluation is part of it.
    """

    step: int
    test_accuracy: float
    familiar_accuracy: float | None = None
    seconds: float
    evaluation_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One pass over the training images and the evaluation after it.

    Attributes:
        epoch: counted from 1.
        train_loss: mean of `losses`.
        losses: of every train step, before the step.
        test_accuracy: share of test images whose highest score is their class's.
        validation_accuracy: share of the held-out training images, likewise; None where none are held out.
        familiar_accuracy: share of the protocol's familiar images, likewise; None where it has none.
        learning_rate: of the last step.
        margin: of the last step; 0 for a loss without one.
        seconds: wall time of the train steps and the preparation of their batches. In the first epoch of a process that
            includes tracing and compiling; making the realization and writing checkpoints are in no epoch's time.
        evaluation_seconds: wall time of all evaluations of the epoch.
        checks: evaluations in its middle.
    """

    epoch: int
    train_loss: float
    losses: tuple[float, ...]
    test_accuracy: float
    validation_accuracy: float | None = None
    familiar_accuracy: float | None = None
    learning_rate: float
    margin: float
    seconds: float
    evaluation_seconds: float
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class Reached:
    """What it took to the end of the first evaluation that reached the target."""

    steps: int
    seconds: float
    evaluation_seconds: float


def has_stalled(history: Sequence[Epoch], rule: EarlyStop) -> bool:
    """Whether the last `patience` epochs all failed to gain `least_gain` on the best before them.

    What is watched is the validation accuracy, or the training loss where nothing is held out; never the test split,
    whose accuracy would no longer be that of images that had no part in the training.
    """
    best, since = float("-inf"), 0
    for epoch in history:
        watched = -epoch.train_loss if epoch.validation_accuracy is None else epoch.validation_accuracy
        if watched > best and watched - best >= rule.least_gain:
            best, since = watched, 0
        else:
            since += 1
    return since >= rule.patience


def reached(history: Sequence[Epoch], target: float) -> Reached | None:
    """The first evaluation whose test accuracy is at least `target`; None where there is none."""
    steps, seconds, evaluation_seconds = 0, 0.0, 0.0
    for epoch in history:
        for check in _evaluations(epoch):
            if check.test_accuracy >= target:
                return Reached(
                    steps + check.step, seconds + check.seconds, evaluation_seconds + check.evaluation_seconds
                )
        steps += len(epoch.losses)
        seconds += epoch.seconds
        evaluation_seconds += epoch.evaluation_seconds
    return None


def why_ended(history: Sequence[Epoch], choice: TrainChoice) -> str | None:
    """Why no epoch is trained after those of `history`, although the suite asks for more; None where one is."""
    if not history or len(history) >= choice.epochs:
        return None
    after = f"training stopped early, after epoch {len(history)} of {choice.epochs}"
    target = choice.target_accuracy
    if choice.stop_at_target and target is not None and reached(history, target) is not None:
        return f"{after}: the test accuracy had reached {_percent(target)}, so it is no estimate of what others reach"
    if choice.early_stop is not None and has_stalled(history, choice.early_stop):
        watched = "train loss" if history[-1].validation_accuracy is None else "validation accuracy"
        rule = choice.early_stop
        return f"{after}: the {watched} had not gained {rule.least_gain:g} in {rule.patience} epochs"
    return None


def metrics(history: Sequence[Epoch], choice: TrainChoice, batch: int) -> dict[str, Metric]:
    """The metrics of a training that has ended."""
    last = history[-1]
    seconds = tuple(epoch.seconds for epoch in history)
    found = [
        once("accuracy", last.test_accuracy),
        once("error_rate", 1.0 - last.test_accuracy),
        once("train_loss", last.train_loss),
        exact("epochs", len(history)),
        sampled("epoch_seconds", seconds, interval=(min(seconds), max(seconds))),
    ]
    if last.validation_accuracy is not None:
        found.append(once("validation_accuracy", last.validation_accuracy))
    if last.familiar_accuracy is not None:
        found.append(once("familiar_accuracy", last.familiar_accuracy))
    first = None if choice.target_accuracy is None else reached(history, choice.target_accuracy)
    if first is not None:
        found += [
            once("steps_to_target", first.steps),
            once("images_to_target", first.steps * batch),
            once("seconds_to_target", first.seconds + first.evaluation_seconds),
            once("evaluation_seconds_to_target", first.evaluation_seconds),
        ]
    return dict(found)


def notes(history: Sequence[Epoch], choice: TrainChoice) -> Iterator[str]:
    """What a reader of those metrics must know."""
    ended = why_ended(history, choice)
    if ended is not None:
        yield ended
    if choice.target_accuracy is not None and reached(history, choice.target_accuracy) is None:
        epochs = "1 epoch" if len(history) == 1 else f"{len(history)} epochs"
        yield f"the target of {_percent(choice.target_accuracy)} was not reached in {epochs}"


def _evaluations(epoch: Epoch) -> Iterator[Check]:
    """Every evaluation of an epoch on the test split, that at its end last."""
    yield from epoch.checks
    yield Check(
        step=len(epoch.losses),
        test_accuracy=epoch.test_accuracy,
        seconds=epoch.seconds,
        evaluation_seconds=epoch.evaluation_seconds,
    )


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
