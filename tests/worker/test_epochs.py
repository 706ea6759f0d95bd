"""What follows from the epochs: when training ends, and what it took to the target."""

import pytest

from capsbench.suite.schema import EarlyStop, TrainChoice
from capsbench.worker.epochs import Check, Epoch, has_stalled, metrics, notes, reached, why_ended


def epochs(accuracies, *, losses=None, validation=None, checks=()):
    """Epochs of 4 steps, 10 s of training and 2 s of evaluation."""
    losses = losses or [1.0] * len(accuracies)
    validation = validation or [None] * len(accuracies)
    return [
        Epoch(
            epoch=number,
            train_loss=loss,
            losses=(loss,) * 4,
            test_accuracy=accuracy,
            validation_accuracy=held_out,
            learning_rate=0.1,
            margin=0.0,
            seconds=10.0,
            evaluation_seconds=2.0,
            checks=checks if number == 2 else (),
        )
        for number, (accuracy, loss, held_out) in enumerate(zip(accuracies, losses, validation, strict=True), 1)
    ]


def ends_after(history, choice):
    """How many epochs are trained of those that would come."""
    return next(count for count in range(1, len(history) + 1) if why_ended(history[:count], choice))


@pytest.mark.parametrize(
    ("watched", "patience", "least_gain", "last"),
    [
        ([0.5, 0.6, 0.6, 0.6, 0.9], 2, 0.01, 4),  # two without a gain, and the last is never trained
        ([0.5, 0.6, 0.55, 0.7, 0.7, 0.65, 0.9], 2, 0.01, 6),  # a gain begins the count anew
        ([0.5, 0.505, 0.509, 0.511, 0.9], 2, 0.01, 3),  # small gains on the best epoch are none
        ([0.5, 0.506, 0.512, 0.518, 0.524, 0.524, 0.524], 2, 0.01, 7),  # though several together are one
        ([0.5, 0.5, 0.6], 1, 0.0, 2),  # the same again is no gain
    ],
)
def test_validation_accuracy_is_watched(watched, patience, least_gain, last):
    """Training ends with the epoch that was the last of `patience`, whatever the test split says."""
    rising = [0.1 * i for i in range(len(watched))]
    history = epochs(rising, validation=watched)
    rule = EarlyStop(patience=patience, least_gain=least_gain)
    assert [has_stalled(history[:count], rule) for count in range(1, last + 1)] == [False] * (last - 1) + [True]
    assert ends_after(history, TrainChoice(epochs=99, early_stop=rule)) == last


def test_the_train_loss_is_watched_where_nothing_is_held_out():
    """Lower is better there; the test accuracy plays no part."""
    history = epochs([0.9, 0.1, 0.2, 0.3, 0.4], losses=[3.0, 2.0, 1.5, 1.45, 1.44])
    choice = TrainChoice(epochs=9, early_stop=EarlyStop(patience=2, least_gain=0.1))
    assert ends_after(history, choice) == 5
    [note] = notes(history, choice)
    assert note == "training stopped early, after epoch 5 of 9: the train loss had not gained 0.1 in 2 epochs"


def test_nothing_is_said_of_a_training_that_ran_to_its_end():
    """All epochs trained is no early end, even where the last would have been the last anyway."""
    history = epochs([0.5] * 4)
    assert why_ended(history, TrainChoice(epochs=4, early_stop=EarlyStop(patience=1))) is None
    assert why_ended(history, TrainChoice(epochs=5)) is None
    assert why_ended([], TrainChoice(epochs=5, early_stop=EarlyStop(patience=1))) is None


def test_time_to_accuracy():
    """The first evaluation that reaches the target ends the count, that evaluation included."""
    history = epochs([0.5, 0.7, 0.9])
    assert reached(history, 0.95) is None
    choice = TrainChoice(epochs=3, target_accuracy=0.7)
    found = metrics(history, choice, batch=16)
    assert found["steps_to_target"].value == 8
    assert found["images_to_target"].value == 128
    assert found["seconds_to_target"].value == 24.0
    assert found["evaluation_seconds_to_target"].value == 4.0
    assert found["epochs"].value == 3
    assert list(notes(history, choice)) == []


def test_evaluations_in_an_epoch_count():
    """One in the middle of the second epoch comes before its end, with the seconds until then."""
    early = Check(step=3, test_accuracy=0.8, seconds=7.0, evaluation_seconds=1.5)
    history = epochs([0.5, 0.7, 0.9], checks=(early,))
    first = reached(history, 0.75)
    assert (first.steps, first.seconds, first.evaluation_seconds) == (7, 17.0, 3.5)


def test_a_missed_target_has_a_note_and_no_metric():
    """It is no zero and no end of the training."""
    history, choice = epochs([0.5, 0.7]), TrainChoice(epochs=2, target_accuracy=0.985)
    assert not [name for name in metrics(history, choice, batch=4) if "target" in name]
    assert list(notes(history, choice)) == ["the target of 98.5 % was not reached in 2 epochs"]


def test_a_stop_at_the_target_says_what_the_accuracy_is_worth():
    """The epoch that reached it is the last one."""
    history = epochs([0.5, 0.7, 0.9])
    choice = TrainChoice(epochs=9, target_accuracy=0.7, stop_at_target=True)
    assert ends_after(history, choice) == 2
    [note] = notes(history[:2], choice)
    assert note.startswith("training stopped early, after epoch 2 of 9: the test accuracy had reached 70 %")


def test_metrics_of_validation_only_where_images_were_held_out():
    """The last epoch's, like all accuracies."""
    held_out = metrics(epochs([0.5, 0.6], validation=[0.9, 0.8]), TrainChoice(epochs=2), batch=1)
    assert held_out["validation_accuracy"].value == 0.8
    assert held_out["accuracy"].value == 0.6
    assert "validation_accuracy" not in metrics(epochs([0.5]), TrainChoice(), batch=1)
