import subprocess
import sys

import pytest

from capsbench import plugins
from capsbench.errors import BadInput

UNINSTALLED = """
from capsbench_fake import FakeBackend
class Broken(FakeBackend):
    name = "broken"
    distributions = ("no-such", "nor-this")
BACKEND = Broken()
"""


def register(folder, name, points, monkeypatch):
    """Install a distribution that registers entry points."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="ascii")
    (info / "entry_points.txt").write_text("[capsbench.backends]\n" + "\n".join(points), encoding="ascii")
    monkeypatch.syspath_prepend(str(folder))


def test_finds_what_is_registered():
    """The fake backend, which only stands on the path, is found like any other."""
    found = plugins.discover()["fake"]
    assert found.problem is None
    assert found.backend is plugins.load("fake")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (None, "importing broken_backend:BACKEND failed: ModuleNotFoundError: No module named 'broken_backend'"),
        ("1 / 0", "importing broken_backend:BACKEND failed: ZeroDivisionError"),
        ("", "importing broken_backend:BACKEND failed: AttributeError"),
        ("BACKEND = 3", "broken_backend:BACKEND is no backend, it lacks name, distributions"),
        ("from capsbench_fake import BACKEND", "broken_backend:BACKEND calls itself 'fake'"),
        (
            UNINSTALLED,
            "no-such or nor-this is not installed",
        ),
    ],
    ids=["missing", "raises", "empty", "number", "other-name", "no-framework"],
)
def test_broken_backends_are_reported(tmp_path, monkeypatch, source, problem):
    """A backend that cannot be used is listed with the reason, and refused with it."""
    register(tmp_path, "broken", ["broken = broken_backend:BACKEND"], monkeypatch)
    monkeypatch.delitem(sys.modules, "broken_backend", raising=False)
    if source is not None:
        (tmp_path / "broken_backend.py").write_text(source, encoding="ascii")
    found = plugins.discover()["broken"].problem
    monkeypatch.delitem(sys.modules, "broken_backend", raising=False)
    assert found is not None
    assert problem in found
    with pytest.raises(BadInput, match=r"backend 'broken' cannot be used: "):
        plugins.load("broken")


def test_two_of_a_name_are_refused(tmp_path, monkeypatch):
    """Two distributions that register one name are both named, and neither is used."""
    register(tmp_path, "impostor", ["fake = somewhere:ELSE"], monkeypatch)
    found = plugins.discover()["fake"]
    assert found.backend is None
    assert "capsbench-fake and impostor" in found.problem


def test_unknown_backends_are_refused():
    """A name that nobody registered is answered with the nearest one."""
    with pytest.raises(BadInput, match=r"unknown backend 'fale'.*did you mean 'fake'"):
        plugins.load("fale")


def test_core_imports_no_framework(capsbench_environment):
    """Worker, runner and discovery leave frameworks alone."""
    code = (
        "import sys, capsbench.worker.stages, capsbench.worker.__main__, capsbench.runner.schedule,"
        "capsbench.runner.resolve, capsbench.runner.progress, capsbench.runner.parity, capsbench.plugins;"
        "capsbench.plugins.discover();"
        "print(sorted({'torch', 'tensorflow', 'keras', 'jax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=capsbench_environment, capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
