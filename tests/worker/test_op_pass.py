import json
from dataclasses import replace

import pytest
from capsbench_fake import FakeRealization
from conftest import make_case

from capsbench.measure.steptrace import HeapEvent
from capsbench.network import zoo
from capsbench.worker.messages import ArtifactsPart, CheckJob, Done, NotesPart, OpsPart, Place
from capsbench.worker.ops import _vote_bytes
from capsbench.worker.prepare import prepare
from capsbench.worker.stages import run

# What the fake backend takes in a step on 8 images of 28x28: scores twice, the rest of a kernel, a gradient, an update.
SCORES, REST, GRADIENT, UPDATE, PARAMETERS = 8 * 10 * 4, 32, 8 * 784, 64, 64


@pytest.fixture
def check(mnist_root, tmp_path):
    """A function that does the op pass of a case and returns its parts."""

    def check(mode="fast", artifacts=True):
        place = Place(data_root=str(mnist_root), artifacts=str(tmp_path) if artifacts else None)
        sent = []
        assert run(CheckJob(case=make_case(mode, measure=("ops",)), place=place), sent.append) == Done(status="ok")
        return sent

    return check


def parts_of(sent, kind):
    return [part for part in sent if isinstance(part, kind)]


def test_both_passes_are_sent(check):
    """A train step and an evaluation arrive, each adding up, with the time that they take without a profiler."""
    (part,) = parts_of(check(), OpsPart)
    assert part.train_step.allocated_bytes == 2 * SCORES + REST + GRADIENT + UPDATE
    assert part.forward.allocated_bytes == 2 * SCORES + REST
    assert part.train_step.peak_bytes == PARAMETERS + SCORES + REST + GRADIENT + UPDATE
    assert {event.phase for event in part.train_step.events} == {"forward", "backward", "optimizer"}
    assert {event.phase for event in part.forward.events} == {"forward"}
    for profile in (part.train_step, part.forward):
        assert profile.bare_seconds > 0.0
        assert profile.unattributed_bytes == REST
        assert sum(tensor.bytes for tensor in profile.alive_at_peak) == profile.peak_bytes


def test_tables_and_trace_are_written(check, tmp_path):
    """ops.json holds what was sent, trace.json a trace with every op of the train step, and both are announced."""
    sent = check()
    (part,) = parts_of(sent, OpsPart)
    assert [files.files for files in parts_of(sent, ArtifactsPart)] == [("ops.json", "trace.json")]
    tables = json.loads((tmp_path / "ops.json").read_text(encoding="utf-8"))
    for name, profile in (("train_step", part.train_step), ("forward", part.forward)):
        assert tables[name]["allocated_bytes"] == profile.allocated_bytes
        assert [event["native"] for event in tables[name]["events"]] == [event.native for event in profile.events]
    events = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    ran = sorted(event["name"] for event in events if event["ph"] == "X" and event.get("cat") != "group")
    for op in ("MatMul", "Softmax", "Sub"):
        assert op in " ".join(ran)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ops.json", "trace.json"]


def test_without_a_place_nothing_is_written(check, tmp_path):
    """A case that has nowhere to put files sends its parts all the same."""
    sent = check(artifacts=False)
    assert len(parts_of(sent, OpsPart)) == 1
    assert parts_of(sent, ArtifactsPart) == []
    assert list(tmp_path.iterdir()) == []


def test_compiled_modes_say_so(check):
    """Where kernels hold several ops, a note says it; where they do not, none does."""
    assert "compiled" in parts_of(check("compiled"), NotesPart)[0].notes[0]
    assert parts_of(check("fast"), NotesPart) == []


def test_bytes_that_do_not_repeat_are_told(check, monkeypatch):
    """A step that asks for other bytes each time is told, for what is said to be exact must be."""
    right, taken = FakeRealization.profile, iter(range(1, 100))

    def growing(self, placed, step):
        trace = right(self, placed, step)
        return replace(trace, heap=(*trace.heap, HeapEvent(2.9e-3, 9, next(taken), 0)))

    monkeypatch.setattr(FakeRealization, "profile", growing)
    assert "differ from one profiled step to the next" in parts_of(check(), NotesPart)[0].notes[0]


@pytest.mark.parametrize(("precision", "size"), [("float32", 4), ("float64", 8)])
def test_votes_are_as_large_as_the_shapes_say(mnist_root, precision, size):
    """The votes looked for are those of the whole batch, in the case's precision, in routed layers only."""
    case = make_case(precision=precision)
    prepared = prepare(case, Place(data_root=str(mnist_root)), lambda _message: None)
    assert _vote_bytes(prepared) == {}
    bound = replace(case, network=zoo.load("em-tiny")).bind()
    shapes = {layer.layer.name: layer.routing for layer in bound.layers if layer.routing}
    assert _vote_bytes(replace(prepared, bound=bound)) == {
        name: 8 * size * s.positions * s.children * s.parents * s.elements for name, s in shapes.items()
    }
