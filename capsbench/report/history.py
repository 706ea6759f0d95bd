"""What training left behind of each epoch, as `history.json` of a case holds it."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from capsbench.errors import BadInput
from capsbench.record.schema import Record

HISTORY = "history.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What an evaluation in the middle of an epoch came to.

    Attributes:
        step: train steps of the epoch until then.
        test_accuracy: as in `EpochResult`.
        familiar_accuracy: likewise.
    """

    step: int
    test_accuracy: float
    familiar_accuracy: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochResult:
    """What an epoch came to.

    Attributes:
        epoch: counted from 1.
        train_loss: mean over the train steps.
        test_accuracy: share of the test images that were classified right after it.
        validation_accuracy: of the held-out training images, likewise; None where none were held out.
        familiar_accuracy: of the protocol's familiar images, likewise; None where it has none.
        learning_rate: of the last step.
        margin: of the last step; 0 for a loss without one.
        seconds: wall time of the train steps.
        evaluation_seconds: wall time of the evaluations.
        losses: of the train steps.
        checks: evaluations in its middle.
    """

    epoch: int
    train_loss: float
    test_accuracy: float
    learning_rate: float
    margin: float
    seconds: float
    evaluation_seconds: float
    validation_accuracy: float | None = None
    familiar_accuracy: float | None = None
    losses: tuple[float, ...] = ()
    checks: tuple[CheckResult, ...] = ()


@dataclass(frozen=True, slots=True)
class _History:
    epochs: tuple[EpochResult, ...]


def read_history(artifacts: Path) -> tuple[EpochResult, ...]:
    """The epochs of a case, as far as it came; empty where it was not trained.

    Args:
        artifacts: the case's folder.

    Raises:
        BadInput: the file is there and damaged.
    """
    path = artifacts / HISTORY
    try:
        return _adapter().validate_json(path.read_bytes()).epochs
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not as training writes it"
        raise BadInput(f"cannot read the epochs of a training: {reason}", str(path)) from None


def read_histories(records: Sequence[Record], artifacts: Callable[[str], Path]) -> dict[str, tuple[EpochResult, ...]]:
    """The epochs of the cases that were evaluated on familiar images, by case id; damaged ones are left out."""
    found = {}
    for record in (each for each in records if "familiar_accuracy" in each.metrics):
        with suppress(BadInput):
            found[record.case.id] = read_history(artifacts(record.case.id))
    return found


@cache
def _adapter() -> TypeAdapter[_History]:
    return TypeAdapter(_History)
