"""Several devices against one: what passes, what is told from a mistake as rounding, what is refused."""

from dataclasses import replace

import capsbench_fake
import numpy as np
import pytest
from capsbench_fake import BACKEND, FakeRealization
from conftest import make_case

from capsbench.backend import Setting, unsupported
from capsbench.worker import parallel
from capsbench.worker.messages import CheckJob, DataParallelPart, NotesPart, Place
from capsbench.worker.parallel import describe_devices, relative_deviation
from capsbench.worker.stages import run


@pytest.fixture
def check(mnist_root):
    """A function that checks a case of the fake backend on three devices: how it ended, what was found, the notes."""

    def check(mode="fast", devices=3, **changes):
        case = make_case(mode, devices=devices, **{"measure": ("time",), **changes})
        sent = []
        done = run(CheckJob(case=case, place=Place(data_root=str(mnist_root))), sent.append)
        found = [part.data_parallel for part in sent if isinstance(part, DataParallelPart)]
        return done, found, [note for part in sent if isinstance(part, NotesPart) for note in part.notes]

    return check


class Chaotic(FakeRealization):
    """Adds to its loss what it computes otherwise than one device with images in order, tenfold in each step."""

    mistake = narrow_mistake = 0.0

    def place(self, images, labels, masks):  # noqa: D102 - see the contract
        reference = np.float32(images[:, 0, 0, 0] * np.arange(len(images))).sum()
        return (*super().place(images, labels, masks), reference)

    def train_step(self, placed, step):  # noqa: D102 - see the contract
        *placed, reference = placed
        loss, several = super().train_step(placed, step), self._setting.devices > 1
        wide = self._setting.kept == "float64"
        noise, mistake = (3e-17 if wide else 2e-7), self.mistake + (0.0 if wide else self.narrow_mistake)
        turned = several or reference != type(self).forwards.setdefault(step.number, reference)
        return loss * (1.0 + turned * (noise * 10.0**step.number + several * mistake))


def test_unequal_shards_count_by_their_size(check):
    """Eight images on three devices give the losses of one; a plain mean of the shards' does not, and is not timed."""
    done, [found], notes = check()
    assert (done.status, found.devices, found.steps, found.passed, found.drift) == ("ok", 3, 20, True, None)
    assert found.loss_max_relative_deviation < 1e-6
    assert any(note.startswith("data parallel: 3 replicas on the CPU with 1 thread each") for note in notes)
    done, [found], _ = check("unweighted")
    assert done.status == "parity_failed"
    assert not found.passed
    assert found.loss_max_relative_deviation > found.limit == 1e-4
    assert done.reason.startswith("differs from training on one device: losses of 20 steps on 3 devices are off by 0.")


def test_parity_is_that_of_several_devices(check):
    """What the oracle is compared with is the loss and gradient of all of them."""
    done, found, _ = check("unweighted", measure=("parity",))
    assert (done.status, found) == ("parity_failed", [])
    assert done.reason.startswith("differs from the numpy oracle")
    assert check("fast", measure=("parity",))[0].status == "ok"


def test_float32_must_agree_to_begin_with(check, monkeypatch):
    """Whatever float64 says: what is off at once is no rounding."""
    monkeypatch.setattr(Chaotic, "narrow_mistake", 1e-3)
    monkeypatch.setattr(Chaotic, "forwards", {}, raising=False)
    monkeypatch.setattr(capsbench_fake, "FakeRealization", Chaotic)
    done, [found], _ = check()
    assert (done.status, found.drift.float32_steps, found.drift.float64_steps) == ("parity_failed", 0, 9)
    assert found.drift.float64_deviation < 1e-7


@pytest.mark.parametrize("mistake", [0.0, 1e-5])
def test_rounding_is_told_from_a_mistake(check, monkeypatch, mistake):
    """Float64 decides, over the steps before one device, with its images in reverse, parts from itself."""
    monkeypatch.setattr(Chaotic, "mistake", mistake)
    monkeypatch.setattr(Chaotic, "forwards", {}, raising=False)
    monkeypatch.setattr(capsbench_fake, "FakeRealization", Chaotic)
    done, [found], notes = check()
    assert found.loss_max_relative_deviation > 1.0
    assert (found.drift.float32_steps, found.drift.float64_steps) == (3, 9)
    if mistake:
        assert done.status == "parity_failed"
        assert done.reason.endswith(", from step 3 on; in float64 by 1e-05 in 9 steps")
    else:
        assert done.status == "ok"
        assert found.drift.float64_deviation < 1e-7
        assert any("that is rounding, which this training multiplies" in note for note in notes)


def test_memory_and_ops_are_left_to_one_device(check):
    """They are not counted, which is said."""
    done, _, notes = check(measure=("memory", "ops", "time"))
    assert done.status == "ok"
    assert "memory and ops: counted in the case on one device, not on several" in notes


def test_who_cannot_says_so(check, monkeypatch):
    """A mode for one device, and a machine with too few of them, are refused in one sentence."""
    done, _, _ = check("slow")
    others = "fast, steady, unweighted, half-dead"
    assert (done.status, done.reason) == (
        "unsupported",
        f"fake:slow trains on one device only, not on 3; on several run {others}",
    )
    monkeypatch.setenv("FAKE_DEVICES", "cpu,cuda:0,cuda:1")
    done, _, _ = check(device="cuda")
    assert (done.status, done.reason) == (
        "unsupported",
        "fake has no device 'cuda:2' here, only cpu, cuda:0, cuda:1, and 3 from cuda on are asked for",
    )
    monkeypatch.delattr(type(BACKEND), "parallel_modes")
    assert unsupported(BACKEND, None, Setting("fast", devices=2)) == "fake:fast trains on one device only, not on 2"


def test_losses_near_nothing_have_a_floor():
    """A thousandth of the first loss; what is not finite is infinitely far."""
    assert relative_deviation([2.0, 1e-9], [2.0, 0.0]) == pytest.approx(1e-9 / 2e-3)
    assert relative_deviation([2.0, 1.1], [2.0, 1.0]) == pytest.approx(0.1)
    assert relative_deviation([0.0], [0.0]) == 0.0
    assert relative_deviation([2.0, float("nan")], [2.0, float("nan")]) == float("inf")


def test_where_replicas_run(monkeypatch):
    """GPUs are counted from the one named; threads that share processors are said."""
    setting = Setting("fast", device="cuda:1", devices=2)
    assert setting.replicas == ("cuda:1", "cuda:2")
    assert describe_devices(setting) == "data parallel: 2 replicas, on cuda:1, cuda:2"
    monkeypatch.setattr(parallel, "usable_cores", lambda: 4)
    crowded = describe_devices(replace(setting, device="cpu", threads=3))
    assert crowded.endswith("with 3 threads each, against one with 3 threads; 6 threads share the 4 processors here")
