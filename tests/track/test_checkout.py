"""A checkout that nobody installed is what Python imports, with its own entry points, or the reason is said."""

import subprocess
import sys

from capsbench.track.checkout import prepare

PROJECT = '[project]\nname = "capsbench-fake"\nversion = "7"\n[project.entry-points."capsbench.backends"]\n'
ASK = (
    "from importlib.metadata import entry_points, version\n"
    "points = [p.value for p in entry_points(group='capsbench.backends') if p.name in ('fake', 'other')]\n"
    "print(version('capsbench-fake'), *points, __import__('other').HERE)"
)


def test_a_checkout_wins_over_what_is_installed(tmp_path):
    """Entry points, version and packages are the checkout's; those of the installed distribution are not seen."""
    project = tmp_path / "project"
    (project / "backends" / "other").mkdir(parents=True)
    (project / "backends" / "other" / "__init__.py").write_text("HERE = 'checkout'\n")
    (project / "pyproject.toml").write_text(f'{PROJECT}other = "other:BACKEND"\n')
    made = prepare(project, tmp_path / "meta")
    assert made.problem is None
    assert made.has_figures
    done = subprocess.run(
        [sys.executable, "-P", "-c", ASK], env=made.environment, capture_output=True, text=True, timeout=600, check=True
    )
    assert done.stdout.split() == ["7", "other:BACKEND", "checkout"]


def test_a_capsbench_that_does_not_import_is_said(tmp_path):
    """The last line of its traceback is the reason."""
    (tmp_path / "capsbench").mkdir()
    (tmp_path / "capsbench" / "__init__.py").write_text("raise RuntimeError('halfway through a change')\n")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "capsbench"\n[project.scripts]\ncapsbench = "capsbench.cli:main"\n'
    )
    assert prepare(tmp_path, tmp_path / "meta").problem == "RuntimeError: halfway through a change"


def test_what_would_be_imported_from_elsewhere_is_said(tmp_path):
    """A package that a checkout names and does not hold is none of its code."""
    (tmp_path / "pyproject.toml").write_text(f'{PROJECT}fake = "capsbench_fake:BACKEND"\n')
    assert "Python would import capsbench_fake from" in prepare(tmp_path, tmp_path / "meta").problem
    (tmp_path / "pyproject.toml").write_text(f'{PROJECT}fake = "nowhere_at_all:BACKEND"\n')
    assert prepare(tmp_path, tmp_path / "meta2").problem.startswith("it has no package nowhere_at_all")
    (tmp_path / "pyproject.toml").write_text("[project\n")
    assert "pyproject.toml cannot be read" in prepare(tmp_path, tmp_path / "meta3").problem


def test_a_folder_without_a_project_is_as_it_is(tmp_path):
    """Suites and networks alone need no metadata: capsbench is the one that is installed."""
    made = prepare(tmp_path, tmp_path / "meta")
    assert made.problem is None
    assert not (tmp_path / "meta").exists()
