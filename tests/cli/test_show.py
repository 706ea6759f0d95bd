"""`capsbench show` on stored runs: each flag prints its tables, and what makes no sense is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from capsbench.cli import main
from capsbench.measure.ceilings import Ceilings
from capsbench.measure.environment import describe_machine
from capsbench.network.text import plain
from capsbench.record.ceilings import DeviceCeilings, write_ceilings
from capsbench.store.runs import create

CEILINGS = DeviceCeilings("cpu", 2, "float32", "torch", Ceilings(1.05e11, 1.2e10))
HEADER = {"suites": [{"file": "a.yaml", "suite": {"name": "mnist"}}]}
MACHINE = {"environment": {"machine": plain(describe_machine(), defaults=True)}}
TITLES = {
    "--ops": ("Most expensive ops by phase: em-seed",),
    "--layers": ("Layers: em-seed", "Layers against their equations: em-seed"),
    "--iterations": ("Routing iterations: em-seed", "Routing: em-seed"),
    "--peak": ("Alive at the peak: em-seed",),
    "--histograms": ("Activations and poses: em-seed",),
}


@pytest.fixture(scope="module", name="samples")
def samples_fixture():
    """The records that the tests of the tables are made with."""
    folder = str(Path(__file__).parents[1] / "report")
    sys.path.insert(0, folder)
    try:
        import sample_records
        import sample_seed
    finally:
        sys.path.remove(folder)
    return sample_records, sample_seed


def stored(results, records, header):
    """A run on disk."""
    store = create(results, header)
    for record in records:
        store.append(record)
    return store


@pytest.fixture(name="results")
def results_fixture(samples, tmp_path):
    """A results folder with one run that has everything in it."""
    stored(tmp_path, samples[0].run(), {**HEADER, **MACHINE})
    return tmp_path


def show(capsys, results, *arguments):
    """Run `show latest`: exit code, stdout, stderr."""
    return run_show(capsys, results, "latest", *arguments)


def run_show(capsys, results, *arguments):
    """Run `show`: exit code, stdout, stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["capsbench", "show", "--results", str(results), *map(str, arguments)])
        patch.setenv("COLUMNS", "120")
        code = main()
    out, err = capsys.readouterr()
    return code, out, err


def titles(out):
    """The lines that are titles of sections."""
    known = {title for section in TITLES.values() for title in section} | {"Most expensive ops: em-seed"}
    return [line for line in out.splitlines() if line in known]


@pytest.mark.parametrize("flag", TITLES)
def test_each_flag_adds_its_tables(flag, results, capsys):
    """After the report come the tables of the flag, and no others."""
    code, out, err = show(capsys, results, flag)
    assert code == 0, err
    assert tuple(titles(out)) == ("Most expensive ops: em-seed", *TITLES[flag])


def test_flags_come_together(results, capsys):
    """All at once print all, in one order."""
    code, out, _ = show(capsys, results, *reversed(TITLES))
    assert code == 0
    assert titles(out)[1:] == [title for section in TITLES.values() for title in section]


def test_a_phase_alone_means_its_ops(results, capsys):
    """--phase without a table shows that phase's ops, with --layers that phase of the layers."""
    _, out, _ = show(capsys, results, "--phase", "backward")
    assert titles(out) == ["Most expensive ops: em-seed"] * 2
    assert "backward phase · one train step" in out
    _, out, _ = show(capsys, results, "--phase", "backward", "--layers")
    assert titles(out)[1] == "Layers: em-seed"
    assert "(other phases)" in out


def test_forward_means_the_evaluation(results, capsys):
    """--forward alone shows the evaluation's ops; with other flags it is the step that they look at."""
    _, out, _ = show(capsys, results, "--forward")
    assert titles(out) == ["Most expensive ops: em-seed"] * 2
    assert "one evaluation" in out
    _, out, _ = show(capsys, results, "--forward", "--peak")
    assert titles(out)[1:] == ["Alive at the peak: em-seed"]
    assert out.count("one evaluation") == 2  # of two networks


def test_an_evaluation_has_no_backward_phase(results, capsys):
    """What cannot be shown is refused, with what could be."""
    code, _, err = show(capsys, results, "--forward", "--phase", "backward")
    assert code == 64
    assert "legal is forward" in err


@pytest.mark.parametrize(("flag", "word"), [("--sort", "size"), ("--phase", "middle"), ("--top", "0")])
def test_unknown_words_are_refused(flag, word, results, capsys):
    """Only the words that the help lists are taken."""
    code, _, err = show(capsys, results, flag, word)
    assert code == 64
    assert flag in err


def test_sort_orders_every_op_table(results, capsys):
    """The report's op tables too are in the order asked for."""
    _, out, _ = show(capsys, results, "--ops", "--sort", "time")
    assert out.count("ordered by an op's time.") == 4
    assert "ordered by the larger of" not in out


def test_ceilings_are_those_kept_for_the_runs_machine(results, capsys):
    """Without ceilings the layers say what measures them; once measured they have shares and bounds."""
    _, out, _ = show(capsys, results, "--layers")
    assert "`capsbench doctor` measures them" in out
    write_ceilings(results, describe_machine(), [CEILINGS])
    _, out, _ = show(capsys, results, "--layers")
    assert "105 GFLOP/s" in out
    assert "bound by" in out


def test_ceilings_of_the_run_go_before_those_measured_since(samples, tmp_path, capsys):
    """What was known when the run began is what its layers are held against."""
    stored(tmp_path, samples[0].run(), {**HEADER, **MACHINE, "ceilings": [plain(CEILINGS, defaults=True)]})
    other = DeviceCeilings("cpu", 2, "float32", "torch", Ceilings(9.9e11, 9e10))
    write_ceilings(tmp_path, describe_machine(), [other])
    _, out, _ = show(capsys, tmp_path, "--layers")
    assert "105 GFLOP/s" in out
    assert "990 GFLOP/s" not in out


@pytest.mark.parametrize("header", [{}, {"ceilings": "none"}, {"environment": None}, {"environment": {"machine": {}}}])
def test_a_header_of_another_make_costs_the_ceilings_only(samples, header, tmp_path, capsys):
    """Layers are shown without shares where run.json does not say what it should."""
    stored(tmp_path, samples[0].run(), header)
    code, out, err = show(capsys, tmp_path, "--layers")
    assert code == 0, err
    assert "Layers against their equations: em-seed" in out


def test_the_studys_suite_prints_its_claims(samples, tmp_path, capsys):
    """A run whose suites include `seed` ends in the claims; others do not."""
    records = samples[1].seed_run()
    stored(tmp_path / "other", records, HEADER)
    assert "The claims of the 2018 study" not in show(capsys, tmp_path / "other")[1]
    stored(tmp_path / "seed", records, {"suites": [{"file": "seed.yaml", "suite": {"name": "seed"}}]})
    _, out, _ = show(capsys, tmp_path / "seed")
    assert "The claims of the 2018 study" in out
    assert "cannot be checked here" in out


def test_old_records_are_shown_without_what_they_lack(samples, tmp_path, capsys):
    """A run of an earlier capsbench has ops, layers and iterations, and nothing else."""
    stored(tmp_path, [samples[0].schema_1()], HEADER)
    code, out, err = show(capsys, tmp_path, *TITLES)
    assert code == 0, err
    assert titles(out)[1:] == ["Most expensive ops by phase: em-seed", "Layers: em-seed", "Routing iterations: em-seed"]


def test_nothing_profiled_prints_no_table(samples, tmp_path, capsys):
    """Flags on a run without profiles are no error."""
    stored(tmp_path, [samples[0].failed(samples[0].case(), "oom", "why")], HEADER)
    code, out, _ = show(capsys, tmp_path, *TITLES, "--forward")
    assert code == 0
    assert titles(out) == []


def test_published_numbers_stand_beside_the_measured_ones(results, capsys):
    """Without a flag those that concern the run's networks, with --claims also where they stand and their caveats."""
    _, out, _ = show(capsys, results)
    assert "Measured beside published" in out
    assert "upstream-mnist, accuracy" in out
    assert "Published claims" not in out
    _, out, _ = show(capsys, results, "--claims")
    assert "Published claims" in out
    assert "https://github.com/www0wwwjs1/Matrix-Capsules-EM-Tensorflow" in out.replace("\n", "")
    assert "em-2018-smallnorb" not in out


def test_the_ledger_of_the_results_folder_goes_first(results, capsys):
    """Where there is one, capsbench's own is not asked; where it is broken, the file and line are told."""
    own = results / "claims.yaml"
    own.write_text("sources: {}\nclaims: []\n", encoding="utf-8")
    code, out, err = show(capsys, results)
    assert code == 0, err
    assert "Measured beside published" not in out
    own.write_text("sources: {}\nclaims: [{}]\n", encoding="utf-8")
    code, _, err = show(capsys, results)
    assert code == 64
    assert f"{own}:2:claims[0]" in err


def test_a_metric_over_all_runs(results, samples, capsys):
    """--history needs no run; --case picks cases, --top runs; the characters are those that the console has."""
    stored(
        results, samples[0].run(), {**HEADER, "environment": {"commit": {"hash": "0123456789abcdef", "dirty": True}}}
    )
    out = run_show(capsys, results, "--history", "train_step_seconds", "--case", "em-seed", "--top", "1")[1]
    assert "History: train_step_seconds" in out
    assert "cnn-seed" not in out
    assert "01234567-dirty" in out
    assert "1 earlier run is not shown" in out
    assert "machine 2 (1 run): not known" in out
    done = subprocess.run(
        [sys.executable, "-m", "capsbench", "show", "--history", "parameters", "--results", str(results)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "|==    |" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "missing argument 'RUN'; see capsbench show --help"),
        (("--history", "train_step_second"), "did you mean 'train_step_seconds'?"),
        (("--history", "accuracy", "--case", "vb"), "--case: no case like 'vb' has accuracy in any run"),
        (("--history", "accuracy", "--ops"), "goes with --case, --top and --results only"),
        (("latest", "--history", "accuracy"), "it looks at all runs"),
    ],
)
def test_a_history_of_nothing_is_refused(arguments, says, results, capsys):
    """One sentence and 64."""
    code, out, err = run_show(capsys, results, *arguments)
    assert (code, out) == (64, "")
    assert says in err
    assert err.count("\n") == 1


def test_a_long_run_shows_some_rows(samples, tmp_path, capsys):
    """As many as are asked for, with how many more there are; all of them with all; other words are refused."""
    made, _ = samples
    stored(tmp_path, [made.record(made.case(seed=seed)) for seed in range(45)], HEADER)
    assert "… 5 more rows; --case GLOB chooses" in show(capsys, tmp_path)[1]
    assert "… 43 more rows" in show(capsys, tmp_path, "--rows", "2")[1]
    assert "more rows" not in show(capsys, tmp_path, "--rows", "all")[1]
    for wrong in ("0", "-1", "some", "1e3"):
        code, _, error = show(capsys, tmp_path, "--rows", wrong)
        assert code == 64
        assert "--rows" in error
