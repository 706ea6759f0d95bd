"""Whatever a person gets wrong on the command line: one sentence on stderr, exit code 64, no traceback."""

import subprocess
import sys

import pytest
from typer.main import get_command

from capsbench import cli
from capsbench.cli import data, main
from capsbench.suite.schema import MEASURES

SUITE = """\
name: tests
dataset: {dataset}
networks: [{network}]
backends: [{backend}]
batch: [{batch}]
"""


def write_suite(folder, *, dataset="mnist", network="cnn-tiny", backend="fake:fast", batch="8", extra=""):
    """A suite file; what is given goes in as it is."""
    path = folder / "suite.yaml"
    text = SUITE.format(dataset=dataset, network=network, backend=backend, batch=batch)
    path.write_text(text + extra, encoding="utf-8")
    return path


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run the command line in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["capsbench", *map(str, arguments)])
        code = main()
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "missing command"),
        (
            ["rnu"],
            "unknown command 'rnu', legal are backends, bisect, compare, continuous, data, doctor, export, figures, ",
        ),
        (["rnu"], "did you mean 'run'?"),
        (["data"], "missing command"),
        (["data", "lst"], "did you mean 'list'?"),
        (["run"], "; see capsbench run --help"),
        (["run", "--bakend", "x"], "--backend"),
        (["run", "suite.yaml", "--rounds", "0"], "--rounds"),
        (["run", "suite.yaml", "--rounds", "many"], "--rounds"),
        (["run", "suite.yaml", "--resume"], "--resume"),
        (["run", "nosuch.yaml"], "nosuch.yaml: cannot read it"),
        (["run", "."], "cannot read it"),
        (["run", "suite.yaml", "--backend", "tourch:eager"], "--backend: unknown backend 'tourch'"),
        (["run", "suite.yaml", "--backend", "fake:fsat"], "did you mean 'fast'?"),
        (["run", "suite.yaml", "--device", "gpu"], "--device: 'gpu' is no device, legal are auto, cpu, cuda, cuda:N"),
        (["run", "suite.yaml", "--device", "cuda:7"], "fake has no device 'cuda:7' here, only cpu"),
        (["run", "suite.yaml", "--only", "nothing*"], "--only: no case matches 'nothing*'"),
        (["run", "suite.yaml"], "data set mnist is not there: no file data/mnist/train-images"),
        (["run", "suite.yaml", "--data", "elsewhere"], "put its files into elsewhere/mnist"),
        (["show"], "missing argument 'RUN'"),
        (["show", "latest"], "there is no run 'latest', nor any other, in results/runs"),
        (["show", "latest", "--top", "0"], "--top"),
        (["show", "a\nb\x1b[31m"], "'a\\nb\\x1b[31m'"),
        (["parity", "nosuch"], "unknown network 'nosuch'"),
        (["parity", "--backend", "nosuch"], "unknown backend 'nosuch'"),
        (["parity", "--device", "auto"], "--device: name the device"),
        (["forecast", "suite.yaml", "--memory", "lots"], "--memory: 'lots' is no amount of memory"),
        (["forecast", "suite.yaml", "suite.yaml"], "unexpected extra argument"),
        (["networks", "em-papr"], "did you mean 'em-paper'?"),
        (["networks", "--dataset", "minst"], "did you mean 'mnist'?"),
        (["networks", "--batch", "-1"], "--batch"),
        (["data", "make", "mnist"], "unknown generated data set 'mnist', legal are toys"),
        (["data", "make", "toys", "--sheet", "toys.jpg"], "cannot write toys.jpg: the contact sheet is a PNG"),
        (["data", "make", "toys", "--limit", "99999"], "cannot be limited to 99,999"),
        (["data", "verify", "minst"], "did you mean 'mnist'?"),
        (["schema", "sweet"], "unknown schema 'sweet'"),
    ],
)
def test_bad_input_is_one_sentence_and_64(call, tmp_path, arguments, says):
    """The sentence says what is wrong, and nothing else is printed."""
    write_suite(tmp_path)
    code, out, err = call(*arguments)
    assert code == 64
    assert out == ""
    assert err.startswith("capsbench: ")
    assert err.count("\n") == 1
    assert says in err


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dataset": "[mnist, minst]"}, "suite.yaml:dataset: unknown data set 'minst'"),
        ({"backend": "{use: tourch}"}, "suite.yaml:backends: unknown backend 'tourch'"),
        ({"network": "em-papr"}, "suite.yaml:networks: unknown network 'em-papr'"),
        ({"backend": "tourch"}, "suite.yaml:backends: unknown backend 'tourch'"),
        ({"backend": "fake:eager"}, "suite.yaml:backends: unknown mode of fake 'eager'"),
        ({"batch": "0"}, "suite.yaml:5:batch"),
        ({"batch": "[8"}, "not YAML"),
        ({"extra": "sedes: [1]\n"}, "suite.yaml:6:sedes: unknown key 'sedes'"),
        ({"extra": "limits: {memory: lots}\n"}, "suite.yaml:limits.memory: 'lots' is no amount of memory"),
        ({"extra": "measure: [acuracy]\n"}, MEASURES[-1]),
    ],
)
@pytest.mark.parametrize("command", [["run"], ["run", "--dry-run"], ["forecast"]])
def test_a_bad_suite_is_refused_at_file_line_key(call, tmp_path, command, changes, says):
    """What a suite file has wrong is said with its place, before anything runs or is written."""
    code, out, err = call(*command, write_suite(tmp_path, **changes))
    assert (code, out) == (64, "")
    assert says in err
    assert not (tmp_path / "results").exists()


def test_results_that_cannot_be_written_are_bad_input(call, tmp_path, mnist_root):
    """A file in the place of the results folder is named before a case runs."""
    (tmp_path / "results").write_text("a file")
    code, _, err = call("run", write_suite(tmp_path), "--data", mnist_root)
    assert code == 64
    assert "results: cannot write results there" in err


def test_a_broken_data_set_leaves_no_run_behind(call, tmp_path, mnist_root):
    """Where loading the data fails, there is a sentence and no empty run."""
    broken = tmp_path / "data" / "mnist"
    broken.mkdir(parents=True)
    for path in (mnist_root / "mnist").iterdir():
        (broken / path.name).write_bytes(path.read_bytes()[:-5])
    code, _, err = call("run", write_suite(tmp_path))
    assert code == 64
    assert "capsbench: " in err
    assert list((tmp_path / "results" / "runs").iterdir()) == []


@pytest.mark.parametrize("arguments", [["nosuch"], ["run", "nosuch.yaml"], ["show", "--nosuch"]])
def test_processes_exit_with_64_and_no_traceback(arguments, tmp_path, capsbench_environment):
    """What holds for `main` holds for `python -m capsbench`."""
    command = [sys.executable, "-P", "-m", "capsbench", *arguments]
    done = subprocess.run(
        command, cwd=tmp_path, env=capsbench_environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 64
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("capsbench: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["data", "--help"],
        ["--version"],
    ],
)
def test_help_imports_nothing_heavy(arguments, tmp_path, capsbench_environment):
    """The list of commands comes without anything that takes long to import, and without importing a command."""
    code = (
        "import sys\nfrom capsbench.cli import main\n"
        f"sys.argv = ['capsbench', *{arguments!r}]\n"
        "assert main() == 0\n"
        "heavy = {'torch', 'numpy', 'rich', 'yaml', 'capsbench.cli.run'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env=capsbench_environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["run", "--help"], ["doctor", "--help"], ["data", "verify", "--help"]])
def test_help_of_a_command_imports_no_optional_library(arguments, tmp_path, capsbench_environment):
    """A command's help comes without a framework, plots, Dask or SciPy."""
    heavy = {"torch", "tensorflow", "matplotlib", "dask", "distributed", "scipy"}
    code = (
        "import sys\nfrom capsbench.cli import main\n"
        f"sys.argv = ['capsbench', *{arguments!r}]\nassert main() == 0\n"
        f"assert not {heavy!r} & set(sys.modules)\n"
    )
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=capsbench_environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


COMMANDS = ["run", "show", "continuous", "bisect", "parity", "forecast", "networks", "backends", "doctor", "schema"]


@pytest.mark.parametrize(
    "command",
    [[], *([name] for name in COMMANDS), ["data"], *(["data", n] for n in ("list", "fetch", "make", "verify"))],
)
def test_every_help_has_an_example(call, command):
    """`--help` of each command shows how it is used."""
    code, out, _ = call(*command, "--help")
    assert code == 0
    assert "Example: capsbench " in out


def test_the_list_of_commands_says_what_each_command_says():
    """Its lines are the first lines of the commands' own help."""
    for group in (cli.app, data.app):
        commands = get_command(group)
        for section in commands.sections.values():
            for name, about in section.items():
                assert commands.get_command(None, name).help.splitlines()[0] == about.help
