import pytest

from capsbench.backend import Setting
from capsbench.errors import BadInput
from capsbench.network import zoo
from capsbench.runner.launch import worker_environment
from capsbench.runner.parity import check_backend
from capsbench.runner.resolve import Probed, probe, resolve_device
from capsbench.worker.messages import SizedNetwork

WITH_GPU = Probed("fake", {}, ("cpu", "cuda:0", "cuda:1"), None)
WITHOUT = Probed("other", {}, ("cpu",), None)


def test_probes_say_what_is_there(monkeypatch):
    """Versions and devices come from the worker; an unknown backend has its problem said."""
    monkeypatch.setenv("FAKE_DEVICES", "cpu,cuda:0")
    found = probe(["fake", "fale"])
    assert found["fake"] == Probed("fake", {"fake": "1.0"}, ("cpu", "cuda:0"), None)
    assert "unknown backend 'fale'" in found["fale"].problem


def test_a_framework_that_does_not_import_is_reported(monkeypatch):
    """The reason why an import fails reaches the parent in one sentence."""
    monkeypatch.setenv("FAKE_BROKEN", "1")
    found = probe(["fake"])["fake"]
    assert found.problem == "ImportError: libfake.so: cannot open shared object file"
    with pytest.raises(BadInput, match="backend 'fake' cannot be used: ImportError: libfake"):
        resolve_device("auto", {"fake": found})


def test_auto_is_the_first_gpu():
    """`auto` takes each backend's first GPU, and the CPU where there is none."""
    probed = {"fake": WITH_GPU, "other": WITHOUT}
    assert resolve_device("auto", probed) == {"fake": "cuda:0", "other": "cpu"}
    assert resolve_device("cpu", probed) == {"fake": "cpu", "other": "cpu"}


def test_devices_that_are_not_there_are_refused():
    """A named device that a backend lacks is bad input, with the ones it has."""
    assert resolve_device("cuda", {"fake": WITH_GPU}) == {"fake": "cuda"}
    assert resolve_device("cuda:1", {"fake": WITH_GPU}) == {"fake": "cuda:1"}
    with pytest.raises(BadInput, match=r"fake has no device 'cuda:2' here, only cpu, cuda:0, cuda:1"):
        resolve_device("cuda:2", {"fake": WITH_GPU})
    with pytest.raises(BadInput, match=r"other has no device 'cuda' here, only cpu"):
        resolve_device("cuda", {"fake": WITH_GPU, "other": WITHOUT})


def test_environment_is_the_setting(monkeypatch):
    """Threads, allocator and the backend's own variables stand in the worker's environment."""
    from capsbench_fake import BACKEND

    heap = worker_environment(BACKEND, Setting("fast", threads=3), "heap")
    assert heap["OMP_NUM_THREADS"] == heap["FAKE_THREADS"] == "3"
    assert heap["MALLOC_MMAP_MAX_"] == "0"
    assert heap["PYTHONHASHSEED"] == "0"
    assert "MALLOC_MMAP_MAX_" not in worker_environment(BACKEND, Setting("fast"), "default")


def test_parity_of_many_networks():
    """One worker checks many networks; one that cannot be realized does not keep the next from being checked."""
    from conftest import FAKE

    linear = SizedNetwork(network=zoo.load(str(FAKE / "linear.yaml")), image=(28, 28, 1), classes=10)
    other = SizedNetwork(network=zoo.load("em-tiny"), image=(28, 28, 1), classes=10)
    heard = []
    parts = check_backend("fake", Setting("fast"), [linear, other, linear], heard.append)
    assert [part.network for part in parts] == ["linear", "em-tiny", "linear"]
    assert list(parts) == heard
    assert parts[0].parity.passed
    assert parts[1].parity is None
    assert parts[1].reason == "only softmax regression is realized"
    assert parts[2] == parts[0]


def test_parity_says_what_is_wrong():
    """A network that differs comes back with its errors and a sentence."""
    from conftest import FAKE

    linear = SizedNetwork(network=zoo.load(str(FAKE / "linear.yaml")), image=(8, 8, 1), classes=4)
    (part,) = check_backend("fake", Setting("wrong"), [linear])
    assert not part.parity.passed
    assert "forward error" in part.reason
