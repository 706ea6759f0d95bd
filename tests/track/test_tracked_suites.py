"""Tracked suites as asv sees them."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FAKE, write_mnist

from capsbench.errors import BadInput
from capsbench.store.run import RunStore
from capsbench.track.benchmarks import OPS, benchmarks
from capsbench.track.suites import asked, measure, plans

ROOT = Path(__file__).parent.parent.parent
SUITE = f"""
name: tiny
track: true
dataset: mnist
networks: ["{FAKE / "linear.yaml"}"]
backends: ["fake:fast", "fake:oom", "nosuch:mode"]
batch: [8]
device: cpu
threads: 1
measure: [parity, memory, time, ops, accuracy]
time: {{rounds: 2, min_samples: 2, max_seconds: 0.2}}
limits: {{seconds: 100}}
"""
FAST, OOM, NOSUCH = (f"linear.mnist.{backend}.b8.s0" for backend in ("fake-fast", "fake-oom", "nosuch-mode"))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a tracked suite and one that is not tracked; this process is in another folder, as asv's are."""
    for folder in ("suites", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "suites" / "tiny.yaml").write_text(SUITE, encoding="utf-8")
    (tmp_path / "suites" / "other.yaml").write_text(SUITE.replace("track: true", "").replace("tiny", "other"))
    (tmp_path / "asv.conf.json").write_text('{"results_dir": "results/asv"}', encoding="utf-8")
    monkeypatch.setenv("ASV_CONF_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def plan_of(project, *changes):
    """The plan of the suite with some texts replaced by others."""
    text = SUITE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (project / "suites" / "tiny.yaml").write_text(text, encoding="utf-8")
    [plan] = plans(project / "suites")
    return plan


def discovered(project, plan):
    """Write what asv writes once it has looked for benchmarks."""
    (project / "results" / "asv").mkdir(parents=True)
    benchmark = {"params": [[repr(case) for case in plan.cases]], "version": plan.version}
    known = {"tiny.track_failed": benchmark, "version": 2}
    (project / "results" / "asv" / "benchmarks.json").write_text(json.dumps(known), encoding="utf-8")


def test_a_tracked_suite_is_two_classes(project):
    """Only suites that say so are tracked; their cases are parameters, without hashes that would end a history."""
    classes = benchmarks(project / "suites")
    assert list(classes) == ["tiny", "tiny_ops"]
    assert classes["tiny"].params == ([FAST, OOM, NOSUCH],)
    assert classes["tiny_ops"].params == ([FAST, OOM, NOSUCH], list(OPS))
    assert classes["tiny"].track_peak_bytes.unit == "bytes"
    assert classes["tiny"].track_forward_seconds.unit == "seconds"


def test_the_version_is_that_of_the_work(project, tmp_path):
    """It changes with suite, network and protocol, and not with words about them."""
    version = plan_of(project).version
    assert plan_of(project, ("name: tiny", "name: tiny\ndescription: words")).version == version
    assert plan_of(project, ("rounds: 2", "rounds: 3")).version != version
    assert plan_of(project, ("dataset: mnist", "dataset: {name: mnist, train_limit: 20}")).version != version
    (tmp_path / "linear.yaml").write_text((FAKE / "linear.yaml").read_text().replace("0.1", "0.2"))
    other = plan_of(project, (str(FAKE / "linear.yaml"), str(tmp_path / "linear.yaml")))
    assert other.version != version
    assert other.cases == (FAST, OOM, NOSUCH)


def test_a_suite_runs_once_and_light_processes_read_it(project, capsys):
    """Cells come from one run; times have a sample a process, and what failed is NaN with the reason in one place."""
    write_mnist(project / "data")
    classes = benchmarks(project / "suites")
    cells = classes["tiny"].setup_cache(classes["tiny"]())
    tiny, ops = classes["tiny"](), classes["tiny_ops"]()
    seconds = tiny.track_train_step_seconds(cells, FAST)
    assert seconds["number"] == 1
    assert len(seconds["samples"]) == 2
    assert 0.0 <= tiny.track_error_rate(cells, FAST) < 0.9
    assert 0.0 < tiny.track_parity_error(cells, FAST) < 1e-3
    assert tiny.track_failed(cells, FAST) == 0.0

    assert math.isnan(tiny.track_train_step_seconds(cells, OOM))
    assert math.isnan(ops.track_self_seconds(cells, NOSUCH, "Mul"))
    assert "oom:" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"^linear\.mnist\.fake-oom\.b8\.s0: oom: .*\(run 2"):
        tiny.track_failed(cells, OOM)
    with pytest.raises(SystemExit, match="'nosuch'"):
        tiny.track_failed(cells, NOSUCH)
    [folder] = (project / "results" / "tracked" / "runs").iterdir()
    run = RunStore(folder)
    assert run.header()["suites"][0]["file"] == "tiny.yaml"
    [record] = [record for record in run.records() if record.status == "ok"]
    assert sum(ops.track_allocated_bytes(cells, FAST, op) for op in OPS) == record.step_profile_bytes
    seconds = [ops.track_self_seconds(cells, FAST, op)["samples"] for op in OPS]
    assert sum(sample for [sample] in seconds) == pytest.approx(record.step_profile_seconds)

    code = (
        "import sys; from pathlib import Path; from capsbench.track.benchmarks import benchmarks\n"
        f"classes = benchmarks(Path('nowhere')); assert list(classes) == ['tiny', 'tiny_ops']\n"
        f"assert classes['tiny'].params == ({[FAST, OOM, NOSUCH]!r},)\n"
        "sys.exit(bool({'numpy', 'pydantic', 'yaml'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_commit_answers_for_the_cases_that_asv_asks_for(project):
    """What another commit made benchmarks of is not taken for other work that this one would do in its place."""
    discovered(project, plan_of(project, ("batch: [8]", "batch: [9]"), (', "nosuch:mode"', "")))
    plan = asked(plan_of(project))
    assert plan.cases == ("linear.mnist.fake-fast.b9.s0", "linear.mnist.fake-oom.b9.s0")
    assert {cell["reason"] for cell in measure(plan).values()} == {"at this commit tiny.yaml has no such case"}


def test_other_work_under_the_same_name_is_not_compared(project):
    """A network that a commit changes is work of its own, whatever it is called."""
    discovered(project, plan_of(project))
    plan = asked(plan_of(project, ("dataset: mnist", "dataset: {name: mnist, train_limit: 20}")))
    assert all("is another" in cell["reason"] for cell in measure(plan).values())


def test_a_missing_data_set_is_the_reason_in_every_cell(project):
    """Nothing is raised into asv, which would show no table at all."""
    cells = measure(plan_of(project, (', "nosuch:mode"', "")))
    assert set(cells) == {FAST, OOM}
    assert all("data set mnist is not there" in cell["reason"] for cell in cells.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("batch: [8]", "batch: [8]\nbatches: 3"), "batches"),
        (("fake:fast", "fake:fastest"), "fastest"),
        ((str(FAKE / "linear.yaml"), "./nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_a_suite_that_cannot_be_read(project, monkeypatch, change, words):
    """Ends asv's look for benchmarks with a sentence, but not the run of another suite."""
    plan = plan_of(project, change)
    assert words in plan.problem
    assert "tiny" in benchmarks(project / "suites")
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "discover"])
    with pytest.raises(SystemExit, match=words):
        benchmarks(project / "suites")


def test_names_that_asv_would_take_for_one(project):
    """Two files whose names come to one identifier are refused; a name that asv would pass over is completed."""
    for name in ("a-b", "a_b", "3d"):
        (project / "suites" / f"{name}.yaml").write_text(SUITE, encoding="utf-8")
    found = {Path(plan.file).name: plan for plan in plans(project / "suites")}
    assert found["3d.yaml"].name == "suite_3d"
    assert "another file name" in found["a_b.yaml"].problem
    assert not found["a-b.yaml"].problem


def test_asv_finds_the_suites_of_this_repository():
    """`asv check` reads the configuration, loads the plug-ins and finds nothing wrong with the benchmarks."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "backends")))
    done = subprocess.run(
        [sys.executable, "-m", "asv", "check", "--python=same"],
        cwd=ROOT,
        env={**os.environ, "ASV_PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No problems found" in done.stdout


def test_the_tracked_suites_need_no_download():
    """Every commit can be measured offline, and its times can be told apart by asv's test."""
    tracked = list(plans(ROOT / "suites"))
    assert tracked
    for plan in tracked:
        assert not plan.problem
        assert all(".toys." in case for case in plan.cases)


def test_only_true_and_false(project):
    """The key takes a truth value, and the schema says so."""
    from capsbench.network.text import json_schema
    from capsbench.suite.schema import Suite, load_suite

    assert load_suite(project / "suites" / "tiny.yaml").track is True
    assert load_suite(project / "suites" / "other.yaml").track is False
    assert json_schema(Suite)["properties"]["track"]["type"] == "boolean"
    (project / "suites" / "other.yaml").write_text(SUITE.replace("track: true", "track: weekly"), encoding="utf-8")
    with pytest.raises(BadInput, match=r"other\.yaml:\d+:track"):
        load_suite(project / "suites" / "other.yaml")
