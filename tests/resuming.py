# ruff: noqa: D102 - the method of a test double has the meaning of what it stands for
"""Trainings that are cut short in the middle of an epoch and taken up again, in this process."""

import json
from dataclasses import replace

import numpy as np
import safetensors.numpy

from capsbench.worker.messages import NotesPart, Place
from capsbench.worker.prepare import prepare
from capsbench.worker.training import train_case


class Killed(Exception):  # noqa: N818 - it stands for a signal
    """What ends a training here where a signal would in a worker."""


class Mortal:
    """A backend whose realization ends in a train step."""

    def __init__(self, backend, at):
        self._backend, self._at = backend, at

    def realize(self, *arguments):
        realization = self._backend.realize(*arguments)
        step = realization.train_step

        def train_step(placed, scalars):
            if scalars.number == self._at:
                raise Killed
            return step(placed, scalars)

        realization.train_step = train_step
        return realization


def train(case, root, folder, *, backend=None, dies_at=None):
    """Train a case; what it said in notes."""
    prepared = prepare(case, Place(data_root=str(root), artifacts=str(folder)), lambda _message: None)
    prepared = prepared if backend is None else replace(prepared, backend=backend)
    if dies_at is not None:
        prepared = replace(prepared, backend=Mortal(prepared.backend, dies_at))
    sent = []
    try:
        train_case(prepared, sent.append)
    except Killed:
        assert dies_at is not None
    return [note for part in sent if isinstance(part, NotesPart) for note in part.notes]


def outcome(folder):
    """The parameters, and of each epoch all that does not depend on the clock."""
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))["epochs"]
    timeless = [{key: value for key, value in epoch.items() if "seconds" not in key} for epoch in history]
    for epoch in timeless:
        epoch["checks"] = [(check["step"], check["test_accuracy"]) for check in epoch["checks"]]
    return safetensors.numpy.load_file(folder / "parameters.safetensors"), timeless


def assert_same(folder, other):
    """Equal parameters, losses and accuracies, bit for bit."""
    (parameters, history), (others, other_history) = outcome(folder), outcome(other)
    assert history == other_history
    assert parameters.keys() == others.keys()
    for name, value in parameters.items():
        np.testing.assert_array_equal(value, others[name], err_msg=name)
