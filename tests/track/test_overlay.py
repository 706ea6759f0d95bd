"""asv's plug-ins: environments that link the frameworks of another one, and the table after a failure."""

import sysconfig
from types import SimpleNamespace

import pytest
from asv.commands import compare, continuous
from asv.config import Config
from asv.environment import EnvironmentUnavailable
from asv.util import ProcessError, UserError
from asv_runner.statistics import compute_stats

from capsbench.track import table
from capsbench.track.overlay import Overlay, linked_sites

WHERE = "import capsbench, framework; print(capsbench.__file__, framework.__file__)"


@pytest.fixture
def overlay(tmp_path, monkeypatch):
    """A function that makes an overlay in the way asv does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("capsbench.track.overlay.find_spec", lambda _name: True)

    def make(python=None):
        conf = Config()
        conf.env_dir, conf.repo = str(tmp_path / "env"), "."
        made = Overlay(conf, python or sysconfig.get_python_version(), {}, {})
        made.create()
        return made

    return make


def editable(folder, site):
    """A site-packages folder with a framework in it and capsbench installed in editable form, by path and by finder."""
    (folder / "capsbench").mkdir(parents=True)
    (folder / "capsbench" / "__init__.py").touch()
    site.mkdir(parents=True)
    (site / "framework.py").touch()
    (site / "torch").mkdir()
    (site / "_editable.pth").write_text(f"{folder}\nimport _finder\n")
    (site / "_finder.py").write_text(
        "import importlib.util, sys\n"
        "class Finder:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        file = {str(folder / 'capsbench' / '__init__.py')!r}\n"
        "        return importlib.util.spec_from_file_location(name, file) if name == 'capsbench' else None\n"
        "sys.meta_path.insert(0, Finder)\n"
    )
    return site


def test_its_own_capsbench_wins(overlay, tmp_path, monkeypatch):
    """Even over one that is installed in editable form in the linked environment, whose frameworks are there."""
    site = editable(tmp_path / "checkout", tmp_path / "site")
    monkeypatch.setenv("CAPSBENCH_SITE", str(site))
    made = overlay()
    own = made._link.parent / "capsbench"
    own.mkdir()
    (own / "__init__.py").touch()
    assert made.run(["-c", WHERE]).split() == [str(own / "__init__.py"), str(site / "framework.py")]


def test_a_virtual_environment_may_be_named(tmp_path, monkeypatch):
    """Its root does as well as its site-packages folder, and wins over the environment that runs asv."""
    version = f"python{sysconfig.get_python_version()}"
    site = editable(tmp_path / "checkout", tmp_path / "venv" / "lib" / version / "site-packages")
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    monkeypatch.setenv("CAPSBENCH_SITE", str(tmp_path / "venv"))
    assert linked_sites()[0] == site
    monkeypatch.delenv("CAPSBENCH_SITE")
    assert [str(path) for path in linked_sites()] == [sysconfig.get_path("purelib")]


def test_it_is_kept_until_the_link_changes(overlay, tmp_path, monkeypatch):
    """A second call finds it as it was; another linked environment makes another overlay."""
    first = overlay()
    (first._link.parent / "kept").touch()
    assert (overlay()._link.parent / "kept").is_file()
    monkeypatch.setenv("CAPSBENCH_SITE", str(editable(tmp_path / "checkout", tmp_path / "site")))
    assert not (overlay()._link.parent / "kept").exists()


def test_nowhere_to_link_to(overlay, tmp_path, monkeypatch):
    """A folder that is not there, and a Python that does not run asv, are refused in words."""
    with pytest.raises(EnvironmentUnavailable, match=r"3\.7"):
        overlay("3.7")
    monkeypatch.setenv("CAPSBENCH_SITE", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="nowhere"):
        overlay()


def test_no_framework_is_said(overlay, tmp_path, monkeypatch, capsys):
    """An overlay over nothing is made, as some cases need no framework, with a warning that names the way out."""
    monkeypatch.setattr("capsbench.track.overlay.linked_sites", lambda: (tmp_path,))
    monkeypatch.setattr("asv.console.log.warning", print)
    overlay()
    assert "CAPSBENCH_SITE" in capsys.readouterr().out


def test_nothing_to_build_with(overlay, monkeypatch):
    """What is missing, and the extra that has it, are named before pip would speak of back ends."""
    monkeypatch.setattr("capsbench.track.overlay.find_spec", lambda name: None if name == "hatchling" else True)
    with pytest.raises(UserError, match=r"no hatchling .*capsbench\[track\]"):
        overlay()


def test_why_a_commit_cannot_be_measured_is_said(overlay, tmp_path, capsys, monkeypatch):
    """The last line of a setup that failed goes to asv's log, which says no more than that; other runs are silent."""
    made, script = overlay(), tmp_path / "script.py"
    monkeypatch.setattr("asv.console.log.warning", print)  # from here on: what is linked may have no framework
    script.write_text("print('first'); raise SystemExit('no module named x')")
    kwargs = {"dots": False, "return_stderr": True, "redirect_stderr": True, "valid_return_codes": None}
    out, _, code = made.run([str(script), "setup_cache"], **kwargs)
    assert (out.split()[0], code) == ("first", 1)
    assert made.run([str(script), "run"], **kwargs)[2] == 1
    assert capsys.readouterr().out == "no module named x\n"
    with pytest.raises(ProcessError):
        made.run([str(script), "discover"], dots=False, display_error=False)


@pytest.mark.parametrize(("failed", "worse", "code"), [(2, True, 2), (2, False, 2), (None, True, True), (1, None, 1)])
def test_the_table_comes_after_a_failure(monkeypatch, failed, worse, code):
    """`continuous` compares though a benchmark failed, and ends with 2; where nothing ran, it does not compare."""
    tables = []

    def plain():
        result = continuous.Run.run()
        if result:
            return result
        tables.append(worse)
        return worse

    monkeypatch.setattr(continuous, "Run", SimpleNamespace(run=lambda: failed))
    monkeypatch.setattr(continuous.Continuous, "run", staticmethod(plain))
    monkeypatch.setattr(compare, "_is_result_better", None)
    table.setup()
    assert continuous.Continuous.run() == code
    assert tables == ([] if failed == 1 else [worse])


def test_a_single_time_decides_nothing(monkeypatch):
    """A ratio of two samples is no finding; one of exact numbers is, and samples go through asv's own test."""
    for where, name in ((continuous, "Run"), (continuous.Continuous, "run"), (compare, "_is_result_better")):
        monkeypatch.setattr(where, name, getattr(where, name))
    table.setup()
    better = compare._is_result_better
    exact = (None, None)

    def times(*samples):
        return compute_stats(samples, 1)[1], list(samples)

    assert better(1.0, 2.0, exact, exact, 1.1)
    assert not better(1.0, 2.0, times(1.0), times(2.0), 1.1)
    fast, slow = (times(*(middle + step / 100 for step in range(5))) for middle in (1.0, 2.0))
    assert better(1.0, 2.0, fast, slow, 1.1)
    assert not better(1.0, 1.05, fast, slow, 1.1)
