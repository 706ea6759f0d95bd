"""`capsbench figures`, driven as a person drives it, on a run made by hand."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

import run_folder
import sample_records

from capsbench.cli import figures, main
from capsbench.store.runs import create

drawing = pytest.mark.skipif(figures.missing_plots() is not None, reason="needs capsbench[plots]")


def call(capsys, *arguments):
    """Run the command line: exit code, stdout, stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["capsbench", "figures", *map(str, arguments)])
        code = main()
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def results(tmp_path):
    """A results folder with a run of a case that was trained and one that was not."""
    store = create(tmp_path / "results", {})
    store.append(run_folder.record())
    store.append(run_folder.failed(run_folder.key(network="other", mode="compile")))
    run_folder.write_history(store.artifacts(run_folder.key().id))
    return tmp_path / "results"


@drawing
def test_it_prints_every_file_and_how_to_look_at_them(results, capsys):
    """Figures in both formats, then event files, then the command that shows them; nothing on stderr."""
    code, out, err = call(capsys, "latest", "--results", results)
    assert (code, err) == (0, "")
    *paths, last = out.splitlines()
    assert {Path(path).suffix for path in paths} == {".png", ".svg", ".capsbench"}
    assert all(Path(path).is_file() for path in paths)
    assert last.startswith("tensorboard --logdir ")


@drawing
def test_formats_and_tensorboard_can_be_chosen(results, capsys):
    """One format, once though it was named twice, and no event file."""
    arguments = ("--results", results, "--format", "svg", "--format", "svg", "--no-tensorboard")
    code, out, _ = call(capsys, "latest", *arguments)
    assert code == 0
    assert {Path(line).name for line in out.splitlines()} == {"ops.svg", "layers.svg", "learning.svg", "routing.svg"}
    assert not list(results.rglob("*tfevents*"))


@drawing
@pytest.mark.parametrize("glob", ["em-seed.*", "em-seed", "torch:ea*"])
def test_cases_can_be_chosen(results, capsys, glob):
    """By id, network, or backend:mode."""
    code, out, _ = call(capsys, "latest", "--results", results, "--case", glob, "--format", "svg")
    assert code == 0
    assert "learning.svg" in out


@drawing
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--case", "x*"), "no case of 2"),
        (("--format", "pngs"), "--format: unknown format 'pngs', legal are png, svg; did you mean 'png'?"),
    ],
)
def test_what_is_not_there_is_refused(results, capsys, arguments, sentence):
    """One sentence and exit code 64; nothing is drawn."""
    code, out, err = call(capsys, "latest", "--results", results, *arguments)
    assert (code, out) == (64, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert not list(results.rglob("*.png"))


@drawing
def test_a_run_without_a_case_is_refused(tmp_path, capsys):
    """A run that has only begun has nothing to draw, which is said."""
    create(tmp_path, {})
    code, _, err = call(capsys, "latest", "--results", tmp_path)
    assert code == 64
    assert "no case" in err


@drawing
def test_a_folder_that_cannot_be_written_is_refused(results, capsys):
    """A file where the folder is to be: one sentence that names the run's folder, no traceback."""
    (folder,) = (results / "runs").iterdir()
    (folder / "artifacts" / run_folder.key().id / "figures").write_text("in the way", encoding="ascii")
    code, _, err = call(capsys, "latest", "--results", results)
    assert code == 64
    assert str(folder) in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("absent", "named"),
    [
        ({"matplotlib"}, "matplotlib, which is"),
        ({"matplotlib", "tensorboard"}, "matplotlib and tensorboard, which are"),
    ],
)
def test_without_the_libraries_it_says_what_to_install(results, capsys, monkeypatch, absent, named):
    """One sentence that names what is missing and the command that installs it."""
    monkeypatch.setattr(figures, "find_spec", lambda name: None if name in absent else object())
    code, out, err = call(capsys, "latest", "--results", results)
    assert (code, out) == (64, "")
    assert f"figures need {named} not installed; pip install 'capsbench[plots]'" in err


@drawing
def test_a_metric_over_all_runs_is_drawn(tmp_path, capsys):
    """Without a run, to history/ below the results; no event files."""
    for _ in range(2):
        create(tmp_path, {}).append(sample_records.record())
    code, out, err = call(capsys, "--history", "train_step_seconds", "--results", tmp_path, "--format", "svg")
    assert (code, err) == (0, "")
    assert out == f"{tmp_path}/history/train_step_seconds.em-seed.mnist.svg\n"
    assert [path.name for path in tmp_path.iterdir() if path.name != "runs"] == ["history"]


@drawing
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "missing argument 'RUN', or --history METRIC"),
        (("latest", "--history", "accuracy"), "not both"),
        (("--history", "acuracy"), "unknown metric 'acuracy'"),
    ],
)
def test_a_run_or_a_metric_is_asked_for(results, capsys, arguments, sentence):
    """Neither and both are refused, as is a metric that no record has."""
    code, out, err = call(capsys, *arguments, "--results", results)
    assert (code, out) == (64, "")
    assert sentence in err
