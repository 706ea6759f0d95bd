import getpass
import json
import os
import socket
import subprocess
from pathlib import Path

import numpy as np
import psutil
import pytest

from capsbench.measure.environment import describe_commit, describe_environment, installed_versions
from capsbench.network.text import plain


def git(folder, *arguments):
    identity = ("-c", "user.name=Nobody", "-c", "user.email=nobody@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "--quiet")
    (tmp_path / "file").write_text("one", encoding="ascii")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def test_names_no_person_and_no_host(repository):
    """Neither host, nor home, nor user, nor the folder can be found in what is recorded."""
    text = json.dumps(plain(describe_environment(repository), defaults=True))
    assert str(Path.home()) not in text
    assert str(repository) not in text
    words = text.replace('"', " ").split()
    assert getpass.getuser() not in words
    assert socket.gethostname() not in words


def test_says_what_the_machine_is(repository):
    """Memory, versions and commit are those that other sources give."""
    found = describe_environment(repository)
    assert found.machine.memory_bytes == psutil.virtual_memory().total
    assert found.machine.cores >= 1
    assert found.machine.processor
    assert found.packages["numpy"] == np.__version__
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True)
    assert found.commit is not None
    assert found.commit.hash == head.stdout.strip()


def test_knows_a_dirty_tree(repository):
    """A changed file makes the commit dirty, and only that."""
    assert describe_commit(repository).dirty is False
    (repository / "file").write_text("two", encoding="ascii")
    assert describe_commit(repository).dirty is True


def test_knows_a_dirty_tree_of_any_names(repository):
    """Also where a changed file's name is no UTF-8 and git prints it as it is."""
    git(repository, "config", "core.quotePath", "false")
    Path(os.fsdecode(os.fsencode(repository) + b"/\xff\xfe")).write_text("changed")
    assert describe_commit(repository).dirty


def test_no_repository_is_no_commit(tmp_path, monkeypatch):
    """Outside a repository, and before its first commit, there is no commit to name."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert describe_commit(tmp_path) is None
    git(tmp_path, "init", "--quiet")
    assert describe_commit(tmp_path) is None


def test_missing_packages_are_left_out():
    """What is not installed is not listed."""
    assert installed_versions(("numpy", "no-such-distribution")) == {"numpy": np.__version__}
