# ruff: noqa: D102, ARG002 - the methods of a test double have the arguments of what they stand for
from dataclasses import replace
from math import isnan

import numpy as np
import pytest
from conftest import make_case
from hypothesis import given
from hypothesis import strategies as st

from capsbench.backend import Probe
from capsbench.dataset.batches import training_batches
from capsbench.dataset.transform import Transform
from capsbench.network import zoo
from capsbench.network.parameters import dropout_masks
from capsbench.network.training import Adam, CosineDecay
from capsbench.suite.schema import DatasetChoice, TimeChoice, TrainChoice
from capsbench.worker.messages import MetricsPart, Place, Progress, RoundPart
from capsbench.worker.prepare import Stopped, has_device, prepare
from capsbench.worker.timing import time_round
from capsbench.worker.training import _ahead, train_case


class Spy:
    """A backend that remembers what it is handed, computes nothing and reports `losses`."""

    name = "fake"

    def __init__(self, losses=()):
        self.losses = dict(enumerate(losses))
        self.placed, self.steps, self.evaluated = [], [], 0

    def realize(self, bound, parameters, setting):
        self.bound, self.values = bound, parameters
        return self

    def place(self, images, labels, masks):
        self.placed.append((images, labels, dict(masks)))
        return images, labels

    def forward(self, placed):
        from capsbench.backend import Output

        self.evaluated += len(placed[0])
        return Output(np.eye(10)[(placed[1] + 1) % 10 * (np.arange(len(placed[1])) % 2)], np.zeros((1, 10)), None)

    def train_step(self, placed, step):
        self.steps.append(step)
        return np.float32(self.losses.get(step.number, 1.0))

    def synchronize(self):
        pass

    def parameters(self):
        return self.values


@pytest.fixture
def train(mnist_root):
    """A function that trains a case with a spy and returns (spy, messages, prepared case)."""

    def run(spy, **changes):
        prepared = prepare(make_case(**changes), Place(data_root=str(mnist_root)), lambda _message: None)
        sent = []
        train_case(replace(prepared, backend=spy), sent.append)
        return spy, sent, prepared

    return run


def test_schedules_belong_to_the_core(train):
    """Every step is handed the learning rate that its number and the length of the whole run give."""
    choice = TrainChoice(epochs=3, optimizer=Adam(learning_rate=0.5), learning_rate_schedule=CosineDecay())
    spy, _, _ = train(Spy(), train=choice)
    assert [step.number for step in spy.steps] == list(range(18))
    assert [step.learning_rate for step in spy.steps] == [0.5 * CosineDecay().factor(i, 18) for i in range(18)]
    # The backend reads the optimizer from the network it is given.
    assert spy.bound.network.recipe.optimizer == Adam(learning_rate=0.5)


def test_batches_are_those_of_the_data_set(train):
    """A backend sees the batches of the data set in their order, each epoch in another."""
    spy, _, prepared = train(Spy(), train=TrainChoice(epochs=2), seed=3)
    seen = [labels for images, labels, _ in spy.placed]
    split = prepared.split("train")
    for epoch in (0, 1):
        wanted = list(training_batches(split, Transform(), batch=8, seed=3, epoch=epoch))
        start = epoch * (6 + 3)  # six batches of training, three of evaluation
        for batch, labels in zip(wanted, seen[start : start + 6], strict=True):
            np.testing.assert_array_equal(batch.labels, labels)
    assert not np.array_equal(np.concatenate(seen[:6]), np.concatenate(seen[9:15]))


def test_dropout_masks_are_drawn_by_step(mnist_root):
    """Each train step has the masks of its number; evaluation has none."""
    prepared = prepare(make_case(), Place(data_root=str(mnist_root)), lambda _message: None)
    case = replace(prepared.case, network=zoo.load("cnn-tiny"), train=TrainChoice(epochs=1))
    spy = Spy()
    bound = case.bind()
    train_case(replace(prepared, case=case, bound=bound, backend=spy), lambda _message: None)
    for number, (_, _, masks) in enumerate(spy.placed[:6]):
        wanted = dropout_masks(bound, 8, case.seed, number)
        assert masks.keys() == wanted.keys() == {"dropout1"}
        np.testing.assert_array_equal(masks["dropout1"], wanted["dropout1"])
    assert all(masks == {} for _, _, masks in spy.placed[6:])


def test_filled_up_images_do_not_count(train):
    """Accuracy is over the 20 test images, whatever the last batch is filled up with."""
    spy, sent, prepared = train(Spy(), train=TrainChoice(epochs=1))
    assert spy.evaluated == 24
    labels = prepared.split("test").labels
    chosen = np.concatenate([(batch + 1) % 10 * (np.arange(len(batch)) % 2) for batch in np.split(labels, [8, 16])])
    (metrics,) = [part.metrics for part in sent if isinstance(part, MetricsPart)]
    assert metrics["accuracy"].value == (chosen == labels).mean()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", [0, 4, 11])
def test_divergence_names_its_step(train, where, bad):
    """A loss that is not finite ends the case, in the first step or the last, and the step is named."""
    losses = [2.5] * where + [bad]
    with pytest.raises(Stopped, match=f"in train step {where} of 12") as stopped:
        train(Spy(losses), train=TrainChoice(epochs=2))
    assert stopped.value.status == "diverged"
    assert str(bad) in str(stopped.value) or isnan(bad)


def test_the_last_epoch_counts(train):
    """The loss reported is the last epoch's mean, not the best one's."""
    _, sent, _ = train(Spy([0.1] * 6 + [0.5, 0.7] * 3), train=TrainChoice(epochs=2))
    (metrics,) = [part.metrics for part in sent if isinstance(part, MetricsPart)]
    assert metrics["train_loss"].value == pytest.approx(0.6)
    assert len(metrics["epoch_seconds"].samples) == 2


def test_timing_leaves_the_parameters_alone(mnist_root):
    """All steps of a timing round have learning rate 0 and one batch, placed once."""
    case = make_case(time=TimeChoice(rounds=1, min_samples=3, max_seconds=0.2))
    prepared = prepare(case, Place(data_root=str(mnist_root)), lambda _message: None)
    spy, sent = Spy(), []
    time_round(replace(prepared, backend=spy), sent.append)
    assert {step.learning_rate for step in spy.steps} == {0.0}
    assert len(spy.placed) == 1
    (part,) = [message for message in sent if not isinstance(message, Progress)]
    assert isinstance(part, RoundPart)
    taken = part.train_step
    assert len(spy.steps) == 1 + taken.warmup_calls + sum(sample.calls for sample in taken.samples)


def test_a_small_split_fills_the_batch(mnist_root):
    """A timing batch larger than the split begins again from its first image."""
    case = make_case(batch=20, dataset=DatasetChoice(name="mnist", train_limit=12).use())
    prepared = prepare(case, Place(data_root=str(mnist_root)), lambda _message: None)
    images, labels = prepared.training_batch(Spy())
    assert images.shape == (20, 28, 28, 1)
    np.testing.assert_array_equal(labels[12:], labels[:8])


@given(st.lists(st.integers(), max_size=30))
def test_prefetching_changes_nothing(items):
    """What is made ahead comes in order and complete."""
    assert list(_ahead(items)) == items


def test_prefetching_passes_errors_on():
    """An error while an item is made comes out where the item would have."""

    def broken():
        yield 1
        raise ValueError("no more")

    ahead = _ahead(broken())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="no more"):
        next(ahead)


def test_cuda_is_the_first_gpu():
    """`cuda` and `cuda:0` are one device, whichever the backend reports."""
    assert has_device(Probe({}, ("cpu", "cuda:0")), "cuda")
    assert has_device(Probe({}, ("cpu", "cuda")), "cuda:0")
    assert not has_device(Probe({}, ("cpu", "cuda:0")), "cuda:1")
    assert not has_device(Probe({}, ("cpu",)), "cuda")
