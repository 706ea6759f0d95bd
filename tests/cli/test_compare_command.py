"""`capsbench compare` on stored runs."""

import json
import sys
from pathlib import Path

import pytest

from capsbench.cli import main
from capsbench.measure.environment import Machine
from capsbench.network.text import plain
from capsbench.record.codec import encode
from capsbench.record.noise import keep_noise
from capsbench.report.export import plainjson
from capsbench.store.run import RunStore
from capsbench.store.runs import create

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from sample_records import case, exact, metrics, noise_recording, record, sampled

MACHINE = {"processor": "one", "cores": 2}
MACHINE_WITH_NOISE = Machine(processor="Abacus", cores=2, memory_bytes=1, system="Linux", architecture="wood")


@pytest.fixture
def runs(tmp_path):
    """Make a run of some records; its id."""

    def make(*records, machine=MACHINE, header=None, **packages):
        store = create(tmp_path, {"environment": {"machine": machine, "packages": packages}, **(header or {})})
        for each in records:
            store.append(each)
        return store.run_id

    return make


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """Run the command on those: exit code, stdout and stderr together."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["capsbench", "compare", *map(str, arguments), "--results", str(tmp_path)])
        monkeypatch.setenv("COLUMNS", "120")
        code = main()
        return code, "".join(capsys.readouterr())

    return run


def test_nothing_worse_is_fine(runs, call):
    """A run beside itself has nothing worse, and with --all every number is a row."""
    run = runs(record())
    assert call(run, run, "--fail-on", "worse")[0] == 0
    code, text = call(run, run, "--all")
    assert code == 0
    assert "allocated_bytes" in text
    assert "1 case in both runs" in text


def test_worse_is_exit_code_1_where_it_is_asked_for(runs, call):
    """One byte more is a row, and a failure only with --fail-on worse."""
    base, new = runs(record()), runs(record(metrics=metrics() | {"peak_bytes": exact(163_123_457, "B")}))
    code, text = call(base, new)
    assert code == 0
    assert "worse" in text
    assert call(base, new, "--fail-on", "worse")[0] == 1
    assert call(new, base, "--fail-on", "worse")[0] == 0


def test_sides_of_one_comparison_are_compared_round_by_round(runs, call):
    """A machine that becomes four times as slow hides a fifth from everybody but who looks within rounds."""
    drift = [1.0 + 0.3 * number for number in range(10)]
    times = [{"train_step_seconds": sampled([factor * each for each in drift])} for factor in (1.0, 1.2)]
    commits = {"started": "2026-11-26T08:00:00+00:00", "base": "a", "head": "b"}

    def verdict(**others):
        ids = []
        for number, side in enumerate(("base", "head")):
            told = {**commits, **(others if number else {})}
            header = {"started": told.pop("started"), "continuous": {"side": side, **told}}
            ids.append(runs(record(metrics=times[number]), header=header))
        [row] = [line for line in call(*ids)[1].splitlines() if "train_step_seconds" in line][:1]
        return next(word for word in ("worse", "undecided") if word in row)

    assert verdict() == "worse"
    assert verdict(started="2026-11-26T09:00:00+00:00") == "undecided"
    assert verdict(head="c") == "undecided"


def as_lines(folder):
    """Turn a run into one of an older capsbench, with a line of JSON a record."""
    (folder / "records.jsonl").write_bytes(b"".join(map(encode, RunStore(folder).records())))
    (folder / "run.sqlite").unlink()
    return folder / "records.jsonl"


def test_other_surroundings_are_said(runs, call, tmp_path):
    """Another machine, other versions and lines that could not be read stand below the table."""
    base = runs(record(), torch="2.12.0")
    new = runs(record(), machine={"processor": "two"}, torch="2.13.0", numba="0.68")
    lines = as_lines(tmp_path / "runs" / base)
    lines.write_bytes(lines.read_bytes() + b'{"schema": 3, "ru')
    code, text = call(base, new)
    assert code == 0
    assert "different machines" in text
    assert "numba none → 0.68, torch 2.12.0 → 2.13.0" in " ".join(text.split())
    assert "damaged lines of A's records.jsonl were skipped: 2" in " ".join(text.split())


def test_the_floor_of_the_runs_machine_is_used_and_said(runs, call, tmp_path):
    """A fifth more that is worse without a floor is not with one of a quarter; whose machine has none is said."""
    steps = [0.2 + 0.0001 * i for i in range(10)]
    base = runs(record(metrics={"train_step_seconds": sampled(steps)}), machine=plain(MACHINE_WITH_NOISE))
    slower = record(metrics={"train_step_seconds": sampled([1.2 * step for step in steps])})
    new = runs(slower, machine=plain(MACHINE_WITH_NOISE))
    code, text = call(base, new, "--fail-on", "worse")
    assert code == 1
    assert "noise floor: none is known" in text
    recording = noise_recording(0.1, 0.25)
    keep_noise(tmp_path, recording, MACHINE_WITH_NOISE)
    code, text = call(base, new, "--fail-on", "worse")
    told = " ".join(text.split())
    assert code == 0
    assert "noise floor of Abacus: 25.00 % of train_step_seconds with 10 processes a side" in told
    assert "Abacus is not the machine that you are on" in told
    _, text = call(base, runs(slower), "--all")
    told = " ".join(text.split())
    assert "noise floor: none is known of the machine that B was on" in told
    assert "different machines" in told


def test_what_cannot_be_compared_is_refused(runs, call, tmp_path):
    """Nothing in common, a run that is not there, records of a newer version, a margin of nothing: 64, one sentence."""
    one, other = runs(record()), runs(record(case("em-yl")))
    newer = runs(record())
    path = as_lines(tmp_path / "runs" / newer)
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "schema": 99}), encoding="utf-8")
    for arguments, says in [
        ((one, other), "have no case in common"),
        ((one, "nowhere"), "nowhere"),
        ((one, newer), "a newer capsbench wrote this"),
        ((one, one, "--margin", "0"), "margin"),
        ((one, one, "--case", "cnn-*"), "no case of"),
        ((one,), "missing argument 'B'"),
    ]:
        code, text = call(*arguments)
        assert code == 64
        assert says in text
        assert "Traceback" not in text


def test_the_exact_gate_is_deaf_to_times(runs, call):
    """Times that are surely worse pass --fail-on worse-exact, a byte, a call or a case that fails does not."""
    steps = [0.2 + 0.001 * i for i in range(10)]
    base = runs(record(metrics=metrics() | {"train_step_seconds": sampled(steps)}))
    slower = metrics() | {"train_step_seconds": sampled([1.5 * step for step in steps])}
    for new, codes in [
        (record(metrics=slower), (1, 0)),
        (record(metrics=slower | {"allocated_bytes": exact(1_650_300_334, "B")}), (1, 1)),
        (record(status="oom", metrics=slower), (1, 1)),
        (record(metrics=metrics() | {"parameters": exact(1, "1", "none")}), (0, 0)),
    ]:
        other = runs(new)
        assert tuple(call(base, other, "--fail-on", gate)[0] for gate in ("worse", "worse-exact")) == codes
    assert call(base, other, "--fail-on", "worse-times")[0] == 64


def test_other_formats_hold_the_verdicts_too(runs, call):
    """In Markdown and JSON there is a count of verdicts with all that is said, then the table; codes stay."""
    base, new = (
        runs(record()),
        runs(record(metrics=metrics() | {"peak_bytes": exact(163_123_457, "B")}), torch="2.13.0"),
    )
    code, text = call(base, new, "--format", "md", "--fail-on", "worse-exact")
    assert code == 1
    assert text.startswith("### Verdicts on B\n")
    assert "\n| worse | 0 | 1 | 0 | 0 | 0 | 0 |\n" in text
    assert "- other versions: torch none → 2.13.0\n" in text
    assert "### A and B\n" in text
    code, text = call(base, base, "--format", "json")
    assert code == 0
    counts, table = plainjson.read(text)
    assert counts.context == (f"A: {base}", f"B: {base}")
    assert {row[0].text: row[4].value for row in counts.rows} == {"undecided": 3, "same": 0}
    assert {row[-1].value for row in table.rows} == {"undecided"}
