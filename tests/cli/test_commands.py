"""The commands, driven as a person drives them, on the fake backend and a small data set."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

import capsbench
from capsbench import plugins
from capsbench.cli import figures, main
from capsbench.cli.forecast import largest_batch
from capsbench.network import zoo
from capsbench.record.claims import packaged_path
from capsbench.record.codec import encode
from capsbench.runner import schedule
from capsbench.store.run import RunStore
from capsbench.store.runs import open_run

LINEAR = Path(__file__).parents[1] / "fake" / "linear.yaml"
SUITE = """\
name: tests
dataset: {name: mnist, train_limit: 40}
networks: [linear.yaml]
backends: ["fake:fast", "fake:oom"]
batch: [8]
seeds: [0, 1]
device: cpu
threads: 1
measure: [memory, time, ops, accuracy]
time: {rounds: 1, min_samples: 2, max_seconds: 1}
"""


def narrowed(measure):
    """The suite that measures only what is named."""
    return SUITE.replace("[memory, time, ops, accuracy]", f"[{measure}]")


def call(capsys, *arguments):
    """Run the command line: exit code, stdout, stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["capsbench", *map(str, arguments)])
        patch.setenv("COLUMNS", "120")
        code = main()
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a suite file."""
    path = tmp_path_factory.mktemp("suite")
    shutil.copy(LINEAR, path)
    (path / "suite.yaml").write_text(SUITE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(folder, mnist_root, capsbench_environment_once):
    """A whole run in a process of its own: how it ended, and its results folder."""
    command = [sys.executable, "-P", "-m", "capsbench", "run", "suite.yaml", "suite.yaml", "--data", mnist_root]
    done = subprocess.run(
        command, cwd=folder, env=capsbench_environment_once, capture_output=True, text=True, timeout=600, check=False
    )
    return done, folder / "results"


@pytest.fixture(scope="module")
def capsbench_environment_once():
    """As `capsbench_environment`, for fixtures that live longer than a test."""
    return {**os.environ, "COLUMNS": "120", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_a_run_prints_its_tables_and_its_folder_last(finished):
    """Accuracy, cost and ops on stdout, the folder in the last line; 2 because some cases ran out of memory."""
    done, results = finished
    assert done.returncode == 2, done.stderr
    for title in ("Accuracy", "Cost", "Most expensive ops: linear", "Notes"):
        assert any(line.startswith(title) for line in done.stdout.splitlines())
    store = open_run(results, "latest")
    assert Path(done.stdout.splitlines()[-1]) == Path("results/runs") / store.run_id
    assert "oom (" in done.stdout
    assert "trained on 40 of 60,000" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_run_records_each_case_once(finished):
    """Two seeds times two modes are four records, though the suite was named twice."""
    records = list(open_run(finished[1], "latest").records())
    outcomes = sorted((record.case.mode, record.case.seed, record.status) for record in records)
    assert outcomes == [("fast", 0, "ok"), ("fast", 1, "ok"), ("oom", 0, "oom"), ("oom", 1, "oom")]
    assert all(record.run == open_run(finished[1], "latest").run_id for record in records)


def test_a_run_ends_in_figures(finished):
    """Every case that ended well has its op bars, its learning curve and its events."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("tensorboard")
    store = open_run(finished[1], "latest")
    for record in store.records():
        if record.status == "ok":
            assert (store.artifacts(record.case.id) / "figures" / "ops.png").stat().st_size > 1000
            assert (store.artifacts(record.case.id) / "figures" / "learning.svg").stat().st_size > 1000
            assert list((store.artifacts(record.case.id) / "tensorboard").glob("events.out.tfevents.*"))


def test_a_run_without_the_libraries_says_what_figures_need(folder, mnist_root, tmp_path, capsys, monkeypatch):
    """Missing libraries cost the figures, not the run; --no-figures asks for none and hears nothing of it."""
    monkeypatch.setattr(figures, "find_spec", lambda _name: None)
    suite = folder / "ops.yaml"
    suite.write_text(narrowed("ops").replace("seeds: [0, 1]", "seeds: [0]"), encoding="utf-8")
    arguments = ("run", suite, "--data", mnist_root, "--results", tmp_path, "--only", "fake:fast")
    for flags, told in (((), True), (("--no-figures",), False)):
        code, out, err = call(capsys, *arguments, *flags)
        assert code == 0, err
        assert ("pip install 'capsbench[plots]'" in out) == told
        assert not (open_run(tmp_path, "latest").folder / "figures").exists()


def test_run_json_says_what_was_asked_and_where(finished):
    """The suite with everything it left to defaults, and the environment."""
    header = open_run(finished[1], "latest").header()
    assert header["suites"][0]["suite"]["precision"] == "float32"
    assert header["environment"]["packages"]["numpy"]
    assert header["environment"]["machine"]["memory_bytes"] > 0


def test_lines_on_disk_fit_the_published_schema(finished, capsys):
    """Every record of a real run is valid by `capsbench schema record`."""
    code, out, _ = call(capsys, "schema", "record")
    assert code == 0
    validator = jsonschema.Draft202012Validator(json.loads(out))
    code, out, _ = call(capsys, "export", "latest", "--format", "jsonl", "--results", finished[1])
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == len(list(open_run(finished[1], "latest").records()))
    for line in lines:
        validator.validate(json.loads(line))


def test_show_prints_what_the_run_printed(finished, capsys):
    """A stored run's tables are the same text as at its end."""
    done, results = finished
    code, out, _ = call(capsys, "show", "latest", "--results", results)
    assert code == 0
    assert out.splitlines()[:-1] == done.stdout.splitlines()[:-1]
    assert out.splitlines()[-1].endswith(done.stdout.splitlines()[-1])


def test_show_filters_cases_and_shows_phases_and_layers(finished, capsys):
    """--case takes a mode as well, --ops adds phases, --layers adds layers, --top sums the rest up."""
    results = ["--results", finished[1]]
    code, out, _ = call(capsys, "show", "latest", *results, "--case", "fake:fast", "--ops", "--layers", "--top", "1")
    assert code == 0
    assert "oom" not in out
    assert "Most expensive ops by phase: linear" in out
    assert "Layers: linear" in out
    assert "3 other ops" in out
    assert call(capsys, "show", "latest", *results, "--case", "nothing")[0] == 64


def test_show_skips_damaged_lines_and_says_so(finished, tmp_path, capsys):
    """A torn record costs its own case only, and is named."""
    copy = shutil.copytree(open_run(finished[1], "latest").folder, tmp_path / "run")
    lines = [encode(record) for record in RunStore(copy).records()]
    (copy / "run.sqlite").unlink()
    (copy / "records.jsonl").write_bytes(b"".join([*lines, b'{"schema":1,"run']))
    code, out, _ = call(capsys, "show", copy)
    assert code == 0
    assert "damaged lines of records.jsonl were skipped: 5" in out


def test_resume_runs_only_what_is_missing(finished, folder, mnist_root, tmp_path, capsys):
    """A run whose last record is gone runs that case again, and no other."""
    results = shutil.copytree(finished[1], tmp_path / "results")
    store = open_run(results, "latest")
    *kept, missing = store.records()
    (store.folder / "run.sqlite").unlink()
    (store.folder / "records.jsonl").write_bytes(b"".join(map(encode, kept)))
    code, out, err = call(
        capsys, "run", folder / "suite.yaml", "--data", mnist_root, "--results", results, "--resume", store.run_id[:-2]
    )
    assert code == 2
    assert [record.case.id for record in store.records()] == [*(record.case.id for record in kept), missing.case.id]
    assert "1 case\n" in err
    assert out.splitlines()[-1] == str(store.folder)


def test_dry_run_lists_cases_and_writes_nothing(folder, mnist_root, tmp_path, capsys):
    """Ids and forecasts, no results folder."""
    results = tmp_path / "results"
    arguments = ["--data", mnist_root, "--results", results, "--only", "fake:fast", "--dry-run"]
    code, out, _ = call(capsys, "run", folder / "suite.yaml", *arguments)
    assert code == 0
    assert [line.partition("-")[0] for line in out.splitlines()[:2]] == ["linear.mnist.fake"] * 2
    assert "Forecast, per train step" in out
    assert not results.exists()


def test_backend_on_the_command_line_replaces_the_suites(folder, mnist_root, tmp_path, capsys):
    """--backend, --rounds and --only shape the run; a run in which all is well exits with 0."""
    arguments = [
        "--data",
        mnist_root,
        "--results",
        tmp_path,
        "--backend",
        "fake:slow",
        "--only",
        "*.s1-*",
        "--rounds",
        "2",
    ]
    suite = folder / "times.yaml"
    suite.write_text(narrowed("time"), encoding="utf-8")
    code, _, err = call(capsys, "run", suite, *arguments)
    assert code == 0, err
    [record] = open_run(tmp_path, "latest").records()
    assert (record.case.mode, record.case.seed) == ("slow", 1)
    assert len(record.metrics["train_step_seconds"].samples) == 2


def test_data_sets_are_an_axis_and_a_backend_may_be_narrowed(folder, mnist_root, tmp_path, capsys):
    """Every data set has its cases, a narrowed backend only what it is asked for, also from the command line."""
    text = narrowed("memory, accuracy").replace(
        "{name: mnist, train_limit: 40}", "[{name: mnist, train_limit: 40}, {name: mnist, test_limit: 9}]"
    )
    text = text.replace('["fake:fast", "fake:oom"]', '["fake:fast", {use: "fake:slow", measure: [memory]}]')
    text = text.replace("seeds: [0, 1]", "seeds: [0]")
    suite = folder / "two.yaml"
    suite.write_text(text, encoding="utf-8")
    arguments = ["run", suite, "--data", mnist_root, "--results", tmp_path]
    code, out, err = call(capsys, *arguments)
    assert code == 0, out + err
    records = open_run(tmp_path, "latest").latest_records()
    found = [(each.case.mode, each.data["train"].count, each.data["test"].count) for each in records]
    assert sorted(found) == [("fast", 40, 20), ("fast", 48, 9), ("slow", 40, 20), ("slow", 48, 9)]
    for record in records:
        assert "peak_bytes" in record.metrics
        assert ("accuracy" in record.metrics) == (record.case.mode == "fast")
    code, out, _ = call(capsys, *arguments, "--backend", "fake:slow", "--dry-run")
    assert code == 0
    assert out.splitlines()[:2] == [each.case.id for each in records if each.case.mode == "slow"]


def test_mixed_precision_is_recorded_and_told(folder, mnist_root, tmp_path, capsys):
    """Precision, errors and a note in the record and on the screen; a backend that lacks it says so in its row."""
    suite = yaml.safe_load(SUITE) | {"precision": "mixed_bfloat16", "seeds": [0], "measure": ["parity"]}
    path = folder / "mixed.yaml"
    path.write_text(yaml.safe_dump(suite | {"backends": ["fake:fast", "numpy"]}), encoding="utf-8")
    code, out, _ = call(capsys, "run", path, "--data", mnist_root, "--results", tmp_path, "--no-figures")
    assert code == 2
    assert "mixed_bfloat16" in out
    assert "held to its limits in float32, in the same mode" in " ".join(out.split())
    records = {record.case.backend: record for record in open_run(tmp_path, "latest").records()}
    fake, numpy = records["fake"], records["numpy"]
    assert (fake.status, fake.case.precision) == ("ok", "mixed_bfloat16")
    assert fake.parity.passed
    assert fake.metrics["mixed_gradient_relative_error"].value > fake.parity.gradient_limit
    assert numpy.status == "unsupported"
    assert numpy.reason == "numpy does not compute in mixed_bfloat16, only in float32, float64"
    out = call(capsys, "forecast", path)[1]
    assert "least bytes are those of a network that is all in bfloat16" in " ".join(out.split())


def test_an_interrupted_run_names_its_folder(folder, mnist_root, tmp_path, capsys, monkeypatch):
    """Ctrl-C ends with 130, and says how to go on."""

    def interrupt(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(schedule, "run_cases", interrupt)
    arguments = ["--data", mnist_root, "--results", tmp_path]
    code, _, err = call(capsys, "run", folder / "suite.yaml", *arguments)
    assert code == 130
    assert f"--resume {open_run(tmp_path, 'latest').run_id}" in err


def test_forecast_says_what_fits(folder, capsys):
    """The largest batch is the last whose forecast peak fits, or the upper end of its range, which a note explains."""
    code, out, _ = call(capsys, "forecast", folder / "suite.yaml", "--memory", "1MB")
    assert code == 0
    weights, image = 4 * 2 * 784 * 10, 4 * 784
    row = next(line for line in out.splitlines() if "fake:fast" in line)
    assert row.split()[-1] == str((10**6 - weights) // image)
    assert "A range:" not in out
    suite = (folder / "suite.yaml").read_text(encoding="utf-8").replace("fake:fast", "fake:slow")
    (folder / "slow.yaml").write_text(suite, encoding="utf-8")
    out = call(capsys, "forecast", folder / "slow.yaml", "--memory", "1MB")[1]
    row = next(line for line in out.splitlines() if "fake:slow" in line)
    assert row.split()[-1] == str((2 * 10**6 // 3 - weights) // image)
    assert "–" in row
    assert "A range: convolutions take scratch memory" in " ".join(out.split())


@pytest.mark.parametrize("largest", [0, 1, 2, 3, 63, 64, 65, 1000])
def test_largest_batch_is_found_by_bisection(largest):
    """For a peak that grows with the batch, exactly the last fitting batch; few questions are asked."""
    asked = []

    def peak(batch):
        asked.append(batch)
        return 100 + 10 * batch

    assert largest_batch(peak, 100 + 10 * largest) == largest
    assert len(asked) < 2 * max(1, largest).bit_length() + 4
    assert largest_batch(lambda _batch: None, 10**9) is None
    assert largest_batch(lambda _batch: 1, 10**9) == 1 << 20


def test_networks_lists_the_zoo_and_one_network(capsys):
    """Every network has a row with the counts that papers quote; one alone shows layers that add up."""
    code, out, _ = call(capsys, "networks", "--dataset", "toys")
    assert code == 0
    rows = {line.split()[0] for line in out.splitlines() if line}
    assert set(zoo.names()) <= rows
    code, out, _ = call(capsys, "networks", "em-seed")
    assert code == 0
    assert "class_caps" in out
    assert "Capsnet Performance Analysis" in out
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("norm"))
    end = next(i for i, line in enumerate(lines) if line.startswith("total"))
    counts = [int(line[29:].split()[0].replace(",", "")) for line in lines[start : end - 1]]
    assert sum(counts) == 1_485_494
    assert "1,485,494" in lines[end]


def test_backends_lists_modes_devices_and_what_is_wrong(capsys, monkeypatch):
    """A backend's modes with what they are; a broken framework is said, not raised."""
    fake = plugins.discover()["fake"]
    monkeypatch.setattr(plugins, "discover", lambda: {"fake": fake})
    code, out, _ = call(capsys, "backends")
    assert code == 0
    assert "fake:slow" in out
    assert "devices cpu" in out
    monkeypatch.setenv("FAKE_BROKEN", "1")
    code, out, _ = call(capsys, "backends")
    assert code == 0
    assert "cannot be used: ImportError: libfake.so" in out


def test_parity_passes_what_is_right_and_fails_what_is_not(capsys):
    """The right mode is ok and exits with 0, a wrong one with 2; a network that a mode refuses is no failure."""
    code, out, err = call(capsys, "parity", LINEAR, "cnn-tiny", "--backend", "fake:fast")
    assert code == 0, err
    assert [line.split()[-1] for line in out.splitlines() if "fake:fast" in line][:2] == ["unsupported", "ok"]
    code, out, _ = call(capsys, "parity", LINEAR, "--backend", "fake:wrong-gradient", "--backend", "fake:fast")
    assert code == 2
    assert "gradient error" in out


def test_data_list_and_verify(mnist_root, tmp_path, capsys):
    """What is here is listed; a sound data set exits with 0, a broken one with 2 and its problems."""
    code, out, _ = call(capsys, "data", "list", "--data", mnist_root)
    assert code == 0
    assert next(line for line in out.splitlines() if line.startswith("mnist")).split()[-1] == "here"
    assert call(capsys, "data", "verify", "--data", mnist_root)[:2] == (0, "mnist: sound\n")
    shutil.copytree(mnist_root, tmp_path, dirs_exist_ok=True)
    (tmp_path / "mnist" / "train-labels-idx1-ubyte").unlink()
    code, out, _ = call(capsys, "data", "verify", "mnist", "--data", tmp_path)
    assert code == 2
    assert "mnist: 1 problem\n" in out
    assert "train-labels-idx1-ubyte" in out


def test_data_make_generates_into_the_cache(tmp_path, capsys, monkeypatch):
    """The toys of a limit are made once, with hashes that say which."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code, out, _ = call(capsys, "data", "make", "toys", "--limit", "6")
    assert code == 0
    assert out.startswith("toys train: 6 synthetic images, SHA-256 ")
    assert len(list(tmp_path.rglob("toys-*-6/smallnorb-*-training-*.mat"))) == 3
    assert call(capsys, "data", "verify", "toys")[:2] == (0, "toys: sound\n")
    next(tmp_path.rglob("*-training-cat.mat")).write_bytes(b"")
    code, out, _ = call(capsys, "data", "verify", "toys")
    assert code == 2
    assert "-training-cat.mat is empty" in out


def test_data_make_draws_a_contact_sheet(tmp_path, capsys, monkeypatch):
    """A contact sheet is drawn without making the data set, and the line about it says that the toys are synthetic."""
    monkeypatch.setattr("capsbench.dataset.contactsheet._INSTANCES", (3,))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    code, out, _ = call(capsys, "data", "make", "toys", "--sheet", tmp_path / "toys.png")
    assert code == 0
    assert "synthetic" in out
    assert [path.name for path in tmp_path.iterdir()] == ["toys.png"]


LEDGERS = [packaged_path()]
NETWORKS = [LINEAR, *sorted(Path(zoo.__file__).parent.glob("*.yaml"))]
SUITES = sorted((Path(__file__).parents[2] / "suites").glob("*.yaml"))


@pytest.mark.parametrize(("kind", "paths"), [("network", NETWORKS), ("suite", SUITES), ("claims", LEDGERS)])
def test_schemas_take_real_files(kind, paths, folder, capsys):
    """The zoo's networks, the suites and the ledger fit the printed schemas, and a wrong key does not."""
    code, out, _ = call(capsys, "schema", kind)
    assert code == 0
    schema = json.loads(out)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in [folder / "suite.yaml", *paths] if kind == "suite" else paths:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        validator.validate(data)
        assert not validator.is_valid({**data, "nosuch": 1})


def test_version(capsys):
    """--version is one line."""
    assert call(capsys, "--version")[:2] == (0, f"capsbench {capsbench.__version__}\n")
