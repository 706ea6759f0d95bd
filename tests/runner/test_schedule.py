import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from conftest import write_mnist
from recorder import MemoryStore, Recorder

from capsbench.dataset.transform import Transform
from capsbench.errors import BadInput
from capsbench.record.codec import decode, encode
from capsbench.runner.assemble import DataFacts, Draft
from capsbench.runner.group import turns
from capsbench.runner.schedule import run_cases
from capsbench.suite.schema import DatasetChoice, TimeChoice, TrainChoice
from capsbench.worker.messages import Done

BRIEF = TimeChoice(rounds=2, min_samples=1, max_seconds=0.05)


@pytest.fixture
def run(mnist_root, tmp_path):
    """A function that runs cases and returns (records, store, listener)."""

    def run(*cases, root=mnist_root, known=(), rounds=None):
        store, listener = MemoryStore(tmp_path / "artifacts", known), Recorder()
        run_cases(cases, data_root=root, cache=tmp_path, store=store, listener=listener, rounds=rounds)
        return tuple(store.records), store, listener

    return run


def test_a_case_from_end_to_end(run, make_case):
    """A case that works has every metric, its op table, its facts and its files."""
    case = make_case()
    (record,), store, listener = run(case)
    assert (record.status, record.reason, record.run) == ("ok", "", "test-run")
    assert record.case == case.key()
    assert record.parity.passed
    exact = {name for name, metric in record.metrics.items() if metric.kind == "exact"}
    assert {"parameters", "forward_flops", "train_step_flops", "peak_bytes", "allocated_bytes"} <= exact
    assert record.metrics["parameters"].value == 7850
    assert len(record.metrics["train_step_seconds"].samples) == 2
    assert record.metrics["accuracy"].value + record.metrics["error_rate"].value == 1.0
    assert sum(event.allocated_bytes for event in record.ops) + 32 == record.step_profile_bytes
    assert record.data["train"].count == 48
    assert "train: 48 of 60,000 images" in record.notes
    files = {path.name for path in store.artifacts(case.id).iterdir()}
    assert files == {
        "histograms.npz",
        "history.json",
        "ops.json",
        "parameters.safetensors",
        "timing.json",
        "trace.json",
    }
    assert record.forward_profile.events
    assert record.step_bare_seconds > 0
    assert sum(tensor.bytes for tensor in record.alive_at_peak) > 0
    assert [layer.layer for layer in record.equations][:1] == ["logits"]
    assert [(each.layer, each.quantity, each.images) for each in record.distributions] == [
        ("logits", "activations", 20)
    ]
    assert (listener.total, listener.ended) == (1, [case.id])
    assert decode(encode(record), "here") == record


def test_training_learns_and_is_written_down(run, make_case):
    """The history holds every step's loss, and the parameters that are left give the accuracy that is reported."""
    case = make_case(measure=("accuracy",), train=TrainChoice(epochs=6))
    (record,), store, _ = run(case)
    folder = store.artifacts(case.id)
    epochs = json.loads((folder / "history.json").read_text(encoding="utf-8"))["epochs"]
    assert [len(epoch["losses"]) for epoch in epochs] == [6] * 6
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]
    assert epochs[-1]["test_accuracy"] == record.metrics["accuracy"].value
    assert record.metrics["accuracy"].value > 0.5
    final = safetensors.numpy.load_file(folder / "parameters.safetensors")
    assert {name: array.shape for name, array in final.items()} == {"logits.weights": (784, 10), "logits.biases": (10,)}
    assert np.isfinite(final["logits.weights"]).all()
    assert "parity was not checked" in record.notes


def test_only_what_is_asked_for_is_done(run, make_case):
    """A realization that is narrowed to ops is neither timed nor trained; histograms alone need no training."""
    narrow, looked = run(make_case(measure=("ops",)), make_case("slow", measure=("histograms",)))[0]
    assert narrow.ops
    assert narrow.parity is None
    assert not {"train_step_seconds", "peak_bytes", "accuracy"} & set(narrow.metrics)
    assert (narrow.distributions, narrow.routing) == ((), ())
    assert looked.distributions
    assert looked.ops == ()
    assert "accuracy" not in looked.metrics


def test_runs_repeat(run, make_case):
    """Two runs of a case give the same losses and fingerprints; another seed gives other losses."""

    def losses(*cases):
        records, store, _ = run(*cases)
        for record in records:
            text = (store.artifacts(record.case.id) / "history.json").read_text(encoding="utf-8")
            yield [epoch["losses"] for epoch in json.loads(text)["epochs"]], record.fingerprint

    case = make_case(measure=("accuracy",))
    first, other = losses(case, make_case(measure=("accuracy",), seed=1, id="other"))
    [again] = losses(case)
    assert first == again
    assert first[0] != other[0]
    assert first[1].network == other[1].network
    assert first[1].protocol != other[1].protocol


FAILURES = {
    "oom": ("oom", "fake: cannot allocate 12 GiB"),
    "raise": ("crash", "RuntimeError: fake: no such kernel"),
    "crash": ("crash", "killed by signal 6 (SIGABRT)"),
    "killed": ("crash", "killed by signal 9 (SIGKILL; the system may have run out of memory)"),
    "exit": ("crash", "ended with exit code 3"),
    "nan": ("diverged", "the loss is nan in train step 3 of 12 after"),
    "wrong": ("parity_failed", "differs from the numpy oracle: forward error 0.001"),
    "unsupported": ("unsupported", "this mode cannot realize anything"),
}


def test_failures_are_rows_and_the_run_goes_on(run, make_case):
    """Every way to fail ends in a record with status and reason, and the cases after it run."""
    measure = ("parity", "memory", "accuracy")
    records, store, _ = run(*(make_case(mode, measure=measure) for mode in (*FAILURES, "fast")))
    ended = {record.case.mode: record for record in records}
    for mode, (status, reason) in FAILURES.items():
        assert ended[mode].status == status
        assert ended[mode].reason.startswith(reason)
        assert "\n" not in ended[mode].reason
    assert ended["fast"].status == "ok"
    assert "accuracy" in ended["fast"].metrics
    # What was measured before the failure stays.
    assert ended["oom"].metrics["parameters"].value > 0
    assert ended["nan"].metrics["peak_bytes"].value > 0
    assert ended["wrong"].parity.forward_max_relative_error == pytest.approx(1e-3, rel=0.01)
    assert "peak_bytes" not in ended["wrong"].metrics
    trace = (store.artifacts(ended["raise"].case.id) / "stderr.txt").read_text(encoding="utf-8")
    assert 'raise RuntimeError("fake: no such\\nkernel")' in trace
    aborted = (store.artifacts(ended["crash"].case.id) / "stderr.txt").read_text(encoding="utf-8")
    assert "Fatal Python error: Aborted" in aborted


def test_noise_on_stdout_is_no_message(run, make_case):
    """What a framework prints, even a line that looks like a message, leaves the record alone."""
    noisy, quiet = run(make_case("noisy", time=BRIEF), make_case("fast", measure=("accuracy",)), rounds=1)[0]
    assert noisy.status == "ok"
    assert noisy.metrics["accuracy"] == quiet.metrics["accuracy"]


def test_rounds_are_interleaved(run, make_case):
    """Comparable cases are timed in turns, A B C C B A, between their checks and their trainings."""
    measure = ("time", "accuracy")
    cases = [make_case(mode, measure=measure, time=BRIEF) for mode in ("fast", "slow", "compiled")]
    _, _, listener = run(*cases, rounds=2)
    assert listener.starts() == [
        *((mode, "check", 0) for mode in ("fast", "slow", "compiled")),
        *((mode, "time", 0) for mode in ("fast", "slow", "compiled")),
        *((mode, "time", 1) for mode in ("compiled", "slow", "fast")),
        *((mode, "accuracy", 0) for mode in ("fast", "slow", "compiled")),
    ]


def test_incomparable_cases_take_no_turns(run, make_case):
    """Cases of different batch sizes are finished one after the other."""
    small, large = (make_case(measure=("time",), time=BRIEF, batch=batch) for batch in (8, 16))
    _, _, listener = run(small, large, rounds=1)
    assert listener.ended == [small.id, large.id]
    assert [stage for _, stage, _ in listener.starts()] == ["check", "time"] * 2


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_turns_are_fair(make_case, rounds):
    """Every case has its turn in every round, and the order turns round each time."""
    drafts = [Draft(make_case(mode), DataFacts({}, ())) for mode in ("fast", "slow", "nan")]
    order = list(turns(drafts, rounds))
    for number in range(rounds):
        cases = [draft for turn, draft in order if turn == number]
        assert cases == (drafts if number % 2 == 0 else drafts[::-1])


def test_failed_cases_drop_out_of_the_turns(make_case):
    """A case that fails in a round has no turn in the next."""
    drafts = [Draft(make_case(mode), DataFacts({}, ())) for mode in ("fast", "slow")]
    order = []
    for number, draft in turns(drafts, 3):
        order.append((number, draft.case.mode))
        if draft.case.mode == "slow":
            draft.end = Done(status="crash")
    assert order == [(0, "fast"), (0, "slow"), (1, "fast"), (2, "fast")]


def test_finished_cases_are_skipped(run, make_case):
    """A case that the store knows does not run again; one that comes twice runs once."""
    known, fresh = make_case("fast", measure=("parity",)), make_case("slow", measure=("parity",))
    records, _, listener = run(known, fresh, fresh, known={known.id})
    assert [record.case.id for record in records] == [fresh.id]
    assert listener.total == 1


def test_missing_data_ends_the_run_before_it_begins(run, make_case, tmp_path):
    """A data set that is not there is bad input, not a failed case for every case that shares it."""
    with pytest.raises(BadInput, match=r"no folder .*mnist"):
        run(make_case(), root=tmp_path / "nowhere")


def test_bad_input_of_one_case_is_its_own(run, make_case):
    """A batch larger than the split is something this case cannot do; the next one can."""
    large, small = run(make_case(batch=64, measure=("accuracy",)), make_case(measure=("accuracy",)))[0]
    assert large.status == "unsupported"
    assert large.reason == "a batch of 64 is larger than the training split of 48 images"
    assert small.status == "ok"


def test_missing_device_is_said(run, make_case):
    """A device that is not there makes the case unsupported, and the ones that are there are named."""
    ((record),) = run(make_case(device="cuda:1"))[0]
    assert record.status == "unsupported"
    assert record.reason == "fake has no device 'cuda:1' here, only cpu"


def test_unknown_backend_is_a_record(run, make_case):
    """A case of a backend that is not installed is a record like the others."""
    missing, fine = run(make_case(backend="fale"), make_case(measure=("parity",)))[0]
    assert (missing.status, fine.status) == ("unsupported", "ok")
    assert "did you mean 'fake'" in missing.reason


def test_notes_say_what_the_data_hide(run, make_case, tmp_path):
    """Subset and overlap of the splits stand beside the numbers."""
    root = write_mnist(tmp_path / "data", overlap=3)
    choice = DatasetChoice(name="mnist", train_limit=30, identical_images=3, transform=Transform(resize=28))
    ((record),) = run(make_case(measure=("parity",), dataset=choice.use()), root=root)[0]
    assert record.notes == (
        "train: 30 of 60,000 images",
        "test: 20 of 10,000 images",
        "images are prepared otherwise than mnist says",
        "3 test images are identical to training images, and mnist allows 3",
    )
    assert record.data["train"].count == 30


def test_a_split_that_breaks_its_protocol_stops_the_case(run, make_case, tmp_path):
    """A case whose test images trained is a record with the reason and no number; no worker is started for it."""
    root = write_mnist(tmp_path / "data", overlap=3)
    records, _, listener = run(make_case(), make_case(id="other", batch=4), root=root)
    for record in records:
        assert (record.status, record.metrics) == ("unsupported", {})
        said = "3 test images are identical to training images, and mnist allows 0"
        assert record.reason == f"the split may not be used: {said}"
    assert listener.starts() == []


def test_familiar_images_are_evaluated_beside_the_test(run, make_case):
    """A protocol with a familiar part has its accuracy after each epoch, and what is said of its images."""
    use = DatasetChoice(name="toys-novel-azimuth", train_limit=16, test_limit=8).use()
    ((record),), store, _ = run(make_case(measure=("accuracy",), dataset=use))
    assert record.status == "ok"
    assert {name: facts.count for name, facts in record.data.items()} == {"train": 16, "test": 8, "familiar": 8}
    history = json.loads((store.artifacts(record.case.id) / "history.json").read_text(encoding="utf-8"))["epochs"]
    assert history[-1]["familiar_accuracy"] == record.metrics["familiar_accuracy"].value
    assert history[-1]["test_accuracy"] == record.metrics["accuracy"].value


def test_recipe_of_the_suite_wins(run, make_case):
    """The optimizer a suite names is the one that trains: ten times the rate, another loss."""
    own = make_case(measure=("accuracy",))
    optimizer = replace(own.network.recipe.optimizer, learning_rate=1e-6)
    slow = make_case(measure=("accuracy",), id="other", train=replace(own.train, optimizer=optimizer))
    (fast_record, slow_record), store, _ = run(own, slow)
    assert fast_record.metrics["train_loss"].value < slow_record.metrics["train_loss"].value
    text = (store.artifacts(slow.id) / "history.json").read_text(encoding="utf-8")
    assert json.loads(text)["epochs"][0]["learning_rate"] == 1e-6
