"""Trainings in PyTorch that are taken up again are those that were left alone, to the bit."""

from dataclasses import replace

import pytest
from resuming import assert_same, train

pytest.importorskip("torch")

from capsbench.network import zoo
from capsbench.network.layers import BatchNorm
from capsbench.network.network import with_routing_iterations
from capsbench.network.training import SGD, AdamW
from capsbench.suite.schema import TrainChoice

pytestmark = pytest.mark.torch


def normalised(name):
    """A network of the zoo that also has moving statistics; it routes once."""
    network = with_routing_iterations(zoo.load(name), 1)
    return replace(network, layers=(BatchNorm(name="norm"), *network.layers))


@pytest.mark.parametrize(
    ("network", "choice"),
    [
        ("em-tiny", TrainChoice(epochs=2, optimizer=AdamW(learning_rate=1e-2), clip_norm=1.0)),
        ("cnn-tiny", TrainChoice(epochs=2)),
        ("cnn-tiny", TrainChoice(epochs=2, optimizer=SGD(momentum=0.9, nesterov=True))),
    ],
    ids=["em-tiny", "cnn-tiny", "nesterov"],
)
def test_resumed_trainings_are_bit_equal(make_case, mnist_root, tmp_path, network, choice):
    """Parameters, moving statistics, losses and accuracies, killed in the second of two epochs."""
    case = make_case("eager", backend="torch", network=normalised(network), train=choice, threads=2)
    assert train(case, mnist_root, tmp_path / "whole") == []
    train(case, mnist_root, tmp_path / "killed", dies_at=8)
    [note] = train(case, mnist_root, tmp_path / "killed")
    assert note.startswith("training resumed after epoch 1:")
    assert_same(tmp_path / "whole", tmp_path / "killed")
