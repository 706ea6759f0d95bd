"""Revisions are found by their names, and checked out into worktrees that never outlive their use."""

import sys
from pathlib import Path

import pytest

from capsbench.errors import BadInput
from capsbench.track.revisions import commits_between, find_repository, resolve, uncommitted, worktrees

sys.path.insert(0, str(Path(__file__).parent))
from repositories import Repository


@pytest.fixture
def made(tmp_path):
    """A repository with two commits, of which the second changes a file."""
    repository = Repository(tmp_path / "repository")
    repository.commit("One", a_py="a = 1\n", part__pyproject_toml="[project]\n")
    repository.commit("Two", a_py="a = 2\n")
    return repository


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt, SystemExit])
def test_worktrees_are_gone_afterwards(made, error):
    """However the block ends, both commits were there and nothing of them is left, in git neither."""
    repository, before = find_repository(made.folder), made.state()
    revisions = {name: resolve(repository, commit) for name, commit in (("base", "HEAD~1"), ("head", "HEAD"))}
    folders = {}
    try:
        with worktrees(repository, revisions) as folders:
            assert [(folders[name] / "a.py").read_text() for name in ("base", "head")] == ["a = 1\n", "a = 2\n"]
            assert len(made.git("worktree", "list").splitlines()) == 3
            (folders["base"] / "a.py").write_text("dirt, which must not keep it from being removed")
            if error is not None:
                raise error
    except (RuntimeError, KeyboardInterrupt, SystemExit):
        assert error is not None
    assert made.state() == before
    assert not folders["base"].parent.exists()


def test_hooks_are_not_run(made):
    """A repository's own hooks are for those who work in it."""
    hook = made.folder / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho ran > ran\n")
    hook.chmod(0o755)
    repository = find_repository(made.folder)
    with worktrees(repository, {"head": resolve(repository, "HEAD")}) as folders:
        assert not (folders["head"] / "ran").exists()


def test_a_project_may_lie_below_the_root(made):
    """The nearest pyproject.toml at or above a folder says where the project is."""
    assert find_repository(made.folder).project == Path()
    assert find_repository(made.folder / "part").project == Path("part")


def test_uncommitted_changes_are_files_that_git_knows(made):
    """Files that git was never told of do not count, nor do those that are measured as they are."""
    repository = find_repository(made.folder)
    (made.folder / "new.py").write_text("")
    assert uncommitted(repository) == ()
    (made.folder / "a.py").write_text("a = 3\n")
    assert uncommitted(repository) == ("a.py",)
    assert uncommitted(repository, [made.folder / "a.py"]) == ()


def test_what_is_no_revision_or_repository_is_said(made, tmp_path, monkeypatch):
    """One sentence each: unknown, an option in disguise, outside of git, without git, before the first commit."""
    repository = find_repository(made.folder)
    for name in ("nosuch", "--all", "HEAD~9", ""):
        with pytest.raises(BadInput, match="is no revision here"):
            resolve(repository, name)
    with pytest.raises(BadInput, match="in no git repository"):
        find_repository(tmp_path)
    assert commits_between(repository, resolve(repository, "HEAD~1"), resolve(repository, "main")) == 1
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="git is not installed"):
        find_repository(made.folder)
