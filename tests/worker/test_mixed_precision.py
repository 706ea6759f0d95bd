"""A case in mixed precision: its formulation is held to float32's limits, its own errors are measured."""

from dataclasses import replace

import pytest
from capsbench_fake import BACKEND
from conftest import make_case

from capsbench.backend import Setting, unsupported
from capsbench.dataset.loading import Split
from capsbench.worker.checkpoint import identity
from capsbench.worker.messages import CheckJob, Done, EquationsPart, MetricsPart, NotesPart, ParityPart, Place
from capsbench.worker.parity import FORWARD_LIMITS, GRADIENT_LIMITS
from capsbench.worker.prepare import prepare
from capsbench.worker.stages import run

ERRORS = ("mixed_forward_relative_error", "mixed_gradient_relative_error")


@pytest.fixture
def check(mnist_root):
    """A function that checks the parity of a case of the fake backend: how it ended, and its parts."""

    def check(mode="fast", precision="mixed_bfloat16"):
        case = make_case(mode, measure=("parity",), precision=precision)
        sent = []
        return run(CheckJob(case=case, place=Place(data_root=str(mnist_root))), sent.append), sent

    return check


def metrics_of(sent):
    return {name: metric for part in sent if isinstance(part, MetricsPart) for name, metric in part.metrics.items()}


def test_the_formulation_is_held_to_the_limits_of_float32(check):
    """What the record calls parity is that of the same mode in float32, to the last digit."""
    _, sent = check()
    _, whole = check(precision="float32")
    [mixed], [full] = ([part.parity for part in each if isinstance(part, ParityPart)] for each in (sent, whole))
    assert mixed == full
    assert (mixed.forward_limit, mixed.gradient_limit) == (FORWARD_LIMITS["float32"], GRADIENT_LIMITS["float32"])


def test_errors_of_the_mixed_network_are_metrics(check):
    """They are about as large as bfloat16 is coarse, told apart in a note, and there in mixed precision only."""
    done, sent = check()
    assert done == Done(status="ok")
    metrics = metrics_of(sent)
    for name in ERRORS:
        assert 2.0**-12 < metrics[name].value < 2.0**-4
        assert (metrics[name].unit, metrics[name].direction, metrics[name].kind) == ("1", "lower", "exact")
    [note] = [note for part in sent if isinstance(part, NotesPart) for note in part.notes]
    assert note.startswith(
        "parity: held to its limits in float32, in the same mode; in mixed_bfloat16 it is off by 0.0"
    )
    assert note.endswith("which is measured and not judged")
    assert not set(ERRORS) & metrics_of(check(precision="float32")[1]).keys()


@pytest.mark.parametrize("mode", ["wrong", "wrong-gradient"])
def test_rounding_hides_no_mistake(check, mode):
    """A thousandth off is less than bfloat16 rounds, and is found out all the same."""
    done, sent = check(mode)
    assert done.status == "parity_failed"
    assert "differs from the numpy oracle" in done.reason
    assert not set(ERRORS) & metrics_of(sent).keys()


def test_a_mixed_network_that_is_not_finite_fails(check):
    """Right in float32 and NaN in mixed precision is a failure, and no metric is NaN."""
    done, sent = check("narrow-nan")
    assert done.status == "parity_failed"
    assert done.reason.startswith("is not finite in mixed_bfloat16, though right in float32: forward error nan")
    assert not set(ERRORS) & metrics_of(sent).keys()
    assert check("narrow-nan", "float32")[0] == Done(status="ok")


def test_least_bytes_are_no_more_than_all_in_bfloat16(check):
    """A bound that holds whatever is kept in which width: half of float32's."""
    mixed, full = (check(precision=precision)[1] for precision in ("mixed_bfloat16", "float32"))
    for name in ("forward_least_bytes", "train_step_least_bytes"):
        assert 2 * metrics_of(mixed)[name].value == metrics_of(full)[name].value
    layers = [[part.layers for part in sent if isinstance(part, EquationsPart)] for sent in (mixed, full)]
    assert 2 * layers[0][0][0].forward_least_bytes == layers[1][0][0].forward_least_bytes
    assert metrics_of(mixed)["forward_flops"] == metrics_of(full)["forward_flops"]


class Stranger:
    """A backend that was written before there was mixed precision."""

    name = "stranger"

    def unsupported(self, bound, setting):
        """It has no objection."""


def test_a_backend_that_does_not_know_it_is_not_asked():
    """Nothing that was computed in float32 goes by the name of mixed precision."""
    bound = make_case().bind()
    assert unsupported(Stranger(), bound, Setting("any")) is None
    assert unsupported(Stranger(), bound, Setting("any", precision="float64")) is None
    reason = "stranger does not compute in mixed_bfloat16, only in float32, float64"
    assert unsupported(Stranger(), bound, Setting("any", precision="mixed_bfloat16")) == reason
    assert unsupported(BACKEND, bound, Setting("fast", precision="mixed_bfloat16")) is None


def test_checkpoints_are_of_one_precision(mnist_root):
    """A training in mixed precision does not go on from one in float32, nor the other way round."""
    place = Place(data_root=str(mnist_root))
    prepared = prepare(make_case(), place, lambda _message: None)
    train, test = (prepared.split(part) for part in ("train", "test"))
    assert isinstance(train, Split)
    other = replace(prepared, case=replace(prepared.case, precision="mixed_bfloat16"))
    assert identity(prepared, train, test)["fingerprint"] != identity(other, train, test)["fingerprint"]
