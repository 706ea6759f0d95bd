"""Tiny git repositories, made by git itself."""

import os
import subprocess

BACKEND = '''\
"""The fake backend, with more bytes in a routing iteration where EXTRA says so."""

from dataclasses import replace

import capsbench_fake

from capsbench.backend import MemoryUse
from capsbench.measure.steptrace import HeapEvent, Span

EXTRA = 0


class Backend(capsbench_fake.FakeBackend):
    name = "mine"

    def realize(self, bound, parameters, setting):
        return Realization(bound, parameters, setting)


class Realization(capsbench_fake.FakeRealization):
    def memory(self, placed, step):
        used = super().memory(placed, step)
        return MemoryUse(used.peak_bytes, used.allocated_bytes + EXTRA)

    def profile(self, placed, step):
        trace = super().profile(placed, step)
        copy = Span(
            op="Copy", native="mine.copy", layer="logits", phase="forward", routing_iteration=1,
            start_seconds=2.5e-3, seconds=1e-4, self_seconds=1e-4,
        )
        number = len(trace.spans)
        heap = (*trace.heap, HeapEvent(2.5e-3, 9, 64 + EXTRA, number))
        return replace(trace, spans=(*trace.spans, copy), heap=heap)


BACKEND = Backend()
'''
PROJECT = """\
[project]
name = "capsbench-mine"
version = "2.0"

[project.entry-points."capsbench.backends"]
mine = "capsbench_mine:BACKEND"
"""
SUITE = """\
name: watched
dataset: mnist
networks: [networks/linear.yaml]
backends: ["mine:fast"]
batch: [8]
device: cpu
threads: 1
allocator: default
measure: [memory, ops, time]
time: {min_samples: 1, max_seconds: 0.1}
"""


class Repository:
    """A folder under git."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch", "main")

    def git(self, *arguments):
        """What git prints."""
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        command = ["git", *identity, *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=600, check=True
        )
        return done.stdout.strip()

    def commit(self, message, **files):
        """Commit files, given by their paths with / written as __ and the last dot as _; the hash."""
        for name, text in files.items():
            stem, _, suffix = name.replace("__", "/").rpartition("_")
            path = self.folder / f"{stem}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def state(self):
        """Everything that must not change: files as git sees them, the commit, the branch, the worktrees."""
        return self.git("status", "--porcelain=v2", "--branch", "--ignored"), self.git("worktree", "list")


def plugin_repository(folder, linear):
    """A project with a backend `mine`, a suite and a network of its own, in its first commit."""
    made = Repository(folder)
    files = {
        "pyproject_toml": PROJECT,
        "src__capsbench_mine_py": BACKEND,
        "suites__quick_yaml": SUITE,
        "suites__networks__linear_yaml": linear,
    }
    made.commit("Begin", **files)
    return made
