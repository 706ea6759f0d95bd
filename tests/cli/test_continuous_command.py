"""`capsbench continuous` and `bisect` on real repositories, with a backend of the repository's own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from capsbench.cli import main
from capsbench.store.runs import open_run

sys.path.insert(0, str(Path(__file__).parents[1] / "track"))
from repositories import BACKEND, plugin_repository

LINEAR = (Path(__file__).parents[1] / "fake" / "linear.yaml").read_text(encoding="utf-8")
MORE = {"src__capsbench_mine_py": BACKEND.replace("EXTRA = 0", "EXTRA = 4096")}


@pytest.fixture
def made(tmp_path, monkeypatch, mnist_root):
    """A project with its data, in which commands are run; results lie outside of it."""
    repository = plugin_repository(tmp_path / "project", LINEAR)
    monkeypatch.chdir(repository.folder)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return repository


@pytest.fixture
def call(made, monkeypatch, capsys, mnist_root, tmp_path):
    """Run the command: exit code, stdout, stderr. Nothing may be left of it, and nothing touched."""

    def run(*arguments, command="continuous"):
        before = made.state()
        folders = ["--data", mnist_root] if command == "continuous" and "--data" not in arguments else []
        whole = ["capsbench", command, *arguments, *folders, "--results", tmp_path / "results"]
        monkeypatch.setattr(sys, "argv", [str(argument) for argument in whole])
        code = main()
        assert made.state() == before
        assert list(tmp_path.glob("capsbench-*")) == []
        return code, *capsys.readouterr()

    return run


def test_extra_bytes_are_found_named_and_their_commit_too(made, call, tmp_path, capsbench_environment):
    """One run of each commit finds them, says in which op of which layer and iteration; git's search finds the commit.

    Both runs are kept: `compare` says the same of them.
    """
    base = made.git("rev-parse", "HEAD")
    culprit = made.commit("Copy the votes once more", **MORE)
    head = made.commit("More notes", notes_txt="two")
    made.git("checkout", "--quiet", "-b", "elsewhere", base)
    code, out, _ = call(base, "main", "--no-times", "--fail-on", "worse")
    assert code == 1
    text = " ".join(out.split())
    assert "allocated_bytes: Copy in logits, forward, routing iteration 1: 64 B → 4.16 kB, 1 call as before" in text
    runs = re.findall(r"^[AB]: (\S+)", out, re.MULTILINE)
    commits = [open_run(tmp_path / "results", run).header()["environment"]["commit"]["hash"] for run in runs]
    assert commits == [base, head]
    code, again, _ = call(*runs, command="compare")
    assert code == 0
    assert "Copy in logits" in " ".join(again.split())
    search = next(line for line in out.splitlines() if line.startswith("git bisect start"))
    done = subprocess.run(
        ["bash", "-c", search],
        cwd=made.folder,
        env={**os.environ, **capsbench_environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert f"{culprit} is the first bad commit" in done.stdout


def test_a_commit_that_does_not_import_is_a_row(made, call):
    """Its cases say why, and the exit code is 2: code that Python cannot read, a package that is not there."""
    base = made.commit("Halfway", src__capsbench_mine_py="this is no Python\n")
    made.git("rm", "--quiet", "-r", "src")
    made.commit("Gone")
    code, out, _ = call(base, "--no-times", "--fail-on", "worse")
    assert code == 2
    text = " ".join(out.split())
    assert "A, linear.mnist.mine-fast.b8.s0" in text
    assert "unsupported, quick.yaml:backends: backend 'mine' cannot be used: importing capsbench_mine" in text
    assert "failed: SyntaxError" in text
    assert "crash, it has no package capsbench_mine, which its pyproject.toml names" in text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit(143)])
def test_what_is_interrupted_leaves_no_worktree(made, call, monkeypatch, error, tmp_path):
    """Ctrl-C is 130 and a sentence; whatever ends it, no worktree and no empty run are left."""

    def interrupted(*arguments):
        assert len(made.git("worktree", "list").splitlines()) == 3
        raise error

    monkeypatch.setattr("capsbench.track.continuous.visit", interrupted)
    if error is KeyboardInterrupt:
        code, out, err = call("HEAD", "HEAD")
        assert (code, out) == (130, "")
        assert "interrupted; nothing had ended" in err
    else:
        with pytest.raises(SystemExit):
            call("HEAD", "HEAD")
    assert len(made.git("worktree", "list").splitlines()) == 1
    assert list((tmp_path / "results" / "runs").iterdir()) == []


def test_bad_input_is_a_sentence_and_64(made, call, tmp_path, monkeypatch):
    """Unknown revisions and suites, changes that nobody would measure, no repository, no suite, no data."""
    (made.folder / "suites" / "networks" / "linear.yaml").write_text(LINEAR + "# changed\n", encoding="utf-8")
    for arguments, says in [
        (["nosuch"], "'nosuch' is no revision here"),
        (["HEAD", "v9"], "'v9' is no revision here"),
        (["HEAD"], "suites/networks/linear.yaml differ from the last commit"),
        (["HEAD", "HEAD", "--suite", "nosuch.yaml"], "nosuch.yaml: cannot read it"),
        (["HEAD", "HEAD", "--only", "nothing*"], "--only: no case matches 'nothing*'"),
        (["HEAD", "HEAD", "--device", "gpu"], "--device: 'gpu' is no device"),
        (["HEAD", "HEAD", "--data", "nowhere"], "data set mnist is not there"),
        ([], "missing argument 'BASE'"),
    ]:
        code, out, err = call(*arguments)
        assert (code, out) == (64, "")
        assert err.count("\n") == 1
        assert says in err
    made.git("rm", "--quiet", "--cached", "suites/quick.yaml")
    (made.folder / "suites" / "quick.yaml").unlink()
    monkeypatch.chdir(tmp_path)
    assert "in no git repository" in call("HEAD")[2]
    assert not (tmp_path / "results").exists()


def test_a_search_that_makes_no_sense_is_ended(made, call):
    """Git would take 64 for a bad commit; 255 ends its search, with a sentence."""
    code, _, err = call("nosuch", "latest", "--case", "*", "--metric", "peak_bytes", command="bisect")
    assert code == 255
    assert err.startswith("capsbench: there is no run 'nosuch'")
