# ruff: noqa: D102 - the methods of a test double have the meaning of what they stand for
"""Checkpoints: what is taken up again, and what is left alone, with a reason."""

import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from conftest import make_case
from hypothesis import given, settings
from hypothesis import strategies as st
from resuming import assert_same, outcome, train

from capsbench.suite.schema import DatasetChoice, EarlyStop, TrainChoice
from capsbench.worker.messages import Place
from capsbench.worker.prepare import Stopped, prepare
from capsbench.worker.training import train_case

STEPS = 6  # of an epoch of 48 images in batches of 8


class Momentum:
    """The fake backend with a velocity, which it hands out and takes back."""

    def __init__(self, backend, spoiled_at=None):
        self._backend, self._spoiled_at = backend, spoiled_at

    def realize(self, *arguments):
        realization = self._backend.realize(*arguments)
        velocity = {name: np.zeros_like(value) for name, value in realization.parameters().items()}

        def train_step(placed, step):
            loss, gradients = realization.loss_and_gradients(placed, step)
            for name, gradient in gradients.items():
                velocity[name] = np.float32(0.9) * velocity[name] + gradient
                moved = realization._parameters[name] - np.float32(step.learning_rate) * velocity[name]
                realization._parameters[name] = moved * (np.inf if step.number == self._spoiled_at else 1)
            return loss

        def restore(parameters, state):
            realization._parameters = {name: value.copy() for name, value in parameters.items()}
            velocity.update({name.removeprefix("velocity/"): value.copy() for name, value in state.items()})

        realization.train_step, realization.restore = train_step, restore
        realization.optimizer_state = lambda: {f"velocity/{name}": value for name, value in velocity.items()}
        return realization


@pytest.fixture
def go(mnist_root, tmp_path):
    """A function that trains a case of the momentum backend in a folder and returns (notes, folder)."""

    def go(folder="a", *, dies_at=None, spoiled_at=None, case=None, **changes):
        from capsbench import plugins

        case = case or make_case(**{"train": TrainChoice(epochs=4), **changes})
        backend = Momentum(plugins.load("fake"), spoiled_at)
        return train(case, mnist_root, tmp_path / folder, backend=backend, dies_at=dies_at), tmp_path / folder

    return go


@pytest.mark.parametrize("dies_at", [0, 5, STEPS, STEPS + 3, 3 * STEPS + 5])
def test_a_killed_training_ends_as_if_it_had_not_been(go, dies_at):
    """Whichever step is its last, the parameters and the history are those of a training that was left alone."""
    _, whole = go("whole")
    go(dies_at=dies_at)
    notes, resumed = go()
    assert_same(whole, resumed)
    done = dies_at // STEPS
    told = [note for note in notes if note.startswith("training resumed after epoch ")]
    assert [note.split(":")[0] for note in told] == ([f"training resumed after epoch {done}"] if done else [])


def test_twice_killed(go):
    """Every resumption is told, and nothing of an epoch is trained twice."""
    _, whole = go("whole")
    go(dies_at=STEPS + 1)
    go(dies_at=3 * STEPS + 1)
    notes, resumed = go()
    assert_same(whole, resumed)
    assert notes[0].startswith("training resumed after epoch 1, 3: its times are of 3 processes")
    epochs = json.loads((resumed / "history.json").read_text(encoding="utf-8"))["epochs"]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3, 4]


def test_a_training_that_had_ended_is_not_trained_again(go):
    """Its last checkpoint is its end; an early stop, too, is decided by what the checkpoint knows."""
    choice = TrainChoice(epochs=9, validation=0.2, early_stop=EarlyStop(patience=2, least_gain=0.9))
    notes, folder = go(train=choice)
    before = outcome(folder)
    assert len(before[1]) == 3
    (folder / "parameters.safetensors").unlink()
    again, _ = go(train=choice, dies_at=12)
    after = outcome(folder)
    assert before[1] == after[1]
    np.testing.assert_array_equal(before[0]["logits.weights"], after[0]["logits.weights"])
    assert notes[-1] == again[-1]
    assert notes[0] == again[0] == "10 of the 48 training images were held out for validation"


def test_what_a_checkpoint_holds(go):
    """Parameters by their names, the optimizer's tensors under its own, and how far the training is."""
    _, folder = go(dies_at=2 * STEPS)
    path = folder / "checkpoint.safetensors"
    assert set(safetensors.numpy.load_file(path)) == {
        "logits.weights",
        "logits.biases",
        "optimizer/sgd/velocity/logits.weights",
        "optimizer/sgd/velocity/logits.biases",
    }
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    assert (metadata["epoch"], metadata["step"], metadata["case"]) == ("2", "12", make_case().id)
    assert len(json.loads(metadata["history"])) == 2


FOREIGN = {
    "seed": ({"seed": 1}, "is that of a case with other settings"),
    "batch": ({"batch": 12}, "is that of a case with other settings"),
    "learning": ({"train": TrainChoice(epochs=5)}, "is that of a case with other settings"),
    "data": ({"dataset": DatasetChoice(name="mnist", train_limit=40).use()}, "is that of a case with other settings"),
    "id": ({"id": "other"}, "is that of another case"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_foreign_checkpoints_are_left_alone(go, what):
    """A state of a case that differs in anything is no state of this one."""
    changes, reason = FOREIGN[what]
    case = make_case(**{"train": TrainChoice(epochs=4), "id": "same", **changes})
    _, whole = go("whole", case=case)
    go(id="same", dies_at=2 * STEPS)
    notes, folder = go(case=case)
    assert notes == [f"checkpoint.safetensors {reason}; training began at the first epoch"]
    assert_same(whole, folder)


def test_other_images_are_told(go, mnist_root, tmp_path):
    """The same case on files that have changed begins again."""
    from conftest import write_mnist

    from capsbench import plugins

    go(dies_at=2 * STEPS)
    root = write_mnist(tmp_path / "data", overlap=1)
    case = make_case(train=TrainChoice(epochs=4))
    [note] = train(case, root, tmp_path / "a", backend=Momentum(plugins.load("fake")))
    assert note == "checkpoint.safetensors is of a training on other images; training began at the first epoch"


@pytest.fixture(scope="module")
def checkpoint(mnist_root, tmp_path_factory):
    """The bytes of a checkpoint after two epochs, and a function that trains on from other bytes."""
    from capsbench import plugins

    folder, case = tmp_path_factory.mktemp("torn"), make_case(train=TrainChoice(epochs=3))
    backend = Momentum(plugins.load("fake"))
    train(case, mnist_root, folder, backend=backend, dies_at=2 * STEPS)
    path = folder / "checkpoint.safetensors"

    def go_on(content):
        path.write_bytes(content)
        return train(case, mnist_root, folder, backend=backend, dies_at=3 * STEPS - 1)

    return path.read_bytes(), go_on


@settings(max_examples=15)
@given(st.data())
def test_torn_checkpoints_are_left_alone(checkpoint, data):
    """Cut short anywhere, or with any byte changed, a file is ignored with a note, and never an error."""
    whole, go_on = checkpoint
    where = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[where] ^= data.draw(st.integers(1, 255))
    torn = data.draw(st.sampled_from([whole[:where], bytes(changed)]))
    notes = go_on(torn)
    [note] = notes
    assert note.startswith("checkpoint.safetensors ")
    assert note.endswith("; training began at the first epoch")


def test_the_last_good_state_stays(go):
    """Parameters that are not finite end the case before evaluation; checkpoint and history are those before."""
    with pytest.raises(Stopped, match=r"logits\.(weights|biases) is no longer finite after epoch 3") as stopped:
        go(spoiled_at=3 * STEPS - 1)
    assert stopped.value.status == "diverged"
    assert str(stopped.value).endswith("; checkpoint.safetensors holds the state after epoch 2")
    _, folder = go("good", dies_at=2 * STEPS)
    kept = safetensors.numpy.load_file(folder.parent / "a" / "checkpoint.safetensors")
    for name, value in safetensors.numpy.load_file(folder / "checkpoint.safetensors").items():
        np.testing.assert_array_equal(kept[name], value)
    epochs = json.loads((folder.parent / "a" / "history.json").read_text(encoding="utf-8"))["epochs"]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]


def test_a_divergence_in_the_first_epoch_leaves_nothing_behind(go):
    """Not even the history of a training that another state had begun."""
    go(dies_at=2 * STEPS)
    with pytest.raises(Stopped) as stopped:
        go(spoiled_at=STEPS - 1, seed=1)
    assert "holds the state" not in str(stopped.value)
    with pytest.raises(FileNotFoundError):
        outcome(go("a", dies_at=0, seed=1)[1])


def test_backends_without_the_two_methods_train_as_before(mnist_root, tmp_path):
    """No checkpoint, and a note that says so."""
    notes = train(make_case(), mnist_root, tmp_path)
    assert notes == ["fake does not hand out its optimizer's state, so no checkpoint was kept"]
    assert not (tmp_path / "checkpoint.safetensors").exists()
    assert len(outcome(tmp_path)[1]) == 2


def test_without_a_folder_nothing_is_written(mnist_root):
    """A training whose files go nowhere has no checkpoint, and no note about it."""
    prepared = prepare(make_case(), Place(data_root=str(mnist_root)), lambda _message: None)
    sent = []
    train_case(replace(prepared, backend=Momentum(prepared.backend)), sent.append)
    assert [type(part).__name__ for part in sent if type(part).__name__ != "Progress"] == ["MetricsPart"]


def test_evaluations_within_an_epoch(go):
    """They take nothing from the training, and their seconds are no train seconds."""
    target = TrainChoice(epochs=4, target_accuracy=0.99)
    _, plain = go("whole", train=target)
    _, often = go(train=replace(target, evaluate_every=2))
    (parameters, _), (others, history) = outcome(plain), outcome(often)
    for name, value in parameters.items():
        np.testing.assert_array_equal(value, others[name])
    assert [[step for step, _ in epoch["checks"]] for epoch in history] == [[2, 4]] * 4
    epochs = json.loads((often / "history.json").read_text(encoding="utf-8"))["epochs"]
    for epoch in epochs:
        first, second = epoch["checks"]
        assert 0 < first["seconds"] < second["seconds"] < epoch["seconds"]
        assert 0 < first["evaluation_seconds"] < second["evaluation_seconds"] < epoch["evaluation_seconds"]
