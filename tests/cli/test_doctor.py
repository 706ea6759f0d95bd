"""`capsbench doctor`: ceilings are measured once, kept, and said; what is broken is a line with its reason."""

import json
import sys
from pathlib import Path

import pytest

from capsbench import plugins
from capsbench.cli import doctor, main
from capsbench.measure.ceilings import Ceilings
from capsbench.measure.environment import describe_machine
from capsbench.record.ceilings import DeviceCeilings, ceilings_path, read_ceilings, write_ceilings
from capsbench.runner import ceilings as runner
from capsbench.store.runs import open_run

FAKE = Ceilings(2e11, 1e10)


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run the doctor in an empty folder where only the fake backend is installed: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    fake = plugins.discover()["fake"]
    monkeypatch.setattr(plugins, "discover", lambda: {"fake": fake})

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["capsbench", *map(str, arguments)])
        code = main()
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def asked(monkeypatch):
    """What was measured, in order; the backend's answer is taken as it comes."""
    points = []
    measure = runner.measure_ceilings

    def remember(*point):
        points.append(point)
        return measure(*point)

    monkeypatch.setattr(doctor, "measure_ceilings", remember)
    return points


def row(out, name):
    """The words of a table's row."""
    return next(line.split() for line in out.splitlines() if line.startswith(name))


def test_ceilings_are_measured_once_and_said(call, asked, tmp_path):
    """The first call measures and keeps, the second only says, in the same words."""
    code, out, err = call("doctor")
    assert code == 0, err
    assert row(out, "fake  ")[:2] == ["fake", "fake"]
    assert "200  10.0  measured" in out
    assert row(out, "ceiling")[:4] == ["ceiling", "—", "200", "10.0"]
    assert str(describe_machine().cores) in row(out, "cores")
    assert asked == [("fake", "cpu", 2, "float32")]
    assert read_ceilings(tmp_path / "results", describe_machine()) == (
        DeviceCeilings("cpu", 2, "float32", "fake", FAKE),
    )
    assert call("doctor")[1].split("Ceilings")[1] == out.split("Ceilings")[1]
    assert len(asked) == 1


def test_every_device_threads_and_precision_is_its_own(call, asked, monkeypatch, tmp_path):
    """All devices without --device, one with it; `cuda` is the first; what is known of others stays."""
    monkeypatch.setenv("FAKE_DEVICES", "cpu,cuda:0,cuda:1")
    assert call("doctor")[0] == 0
    assert call("doctor", "--device", "cuda", "--precision", "float64", "--threads", "3")[0] == 0
    assert call("doctor", "--device", "cpu", "--threads", "3")[0] == 0
    points = [("cpu", 2, "float32"), ("cuda:0", 2, "float32"), ("cuda:1", 2, "float32")]
    points += [("cuda:0", 3, "float64"), ("cpu", 3, "float32")]
    assert asked == [("fake", *point) for point in points]
    known = read_ceilings(tmp_path / "results", describe_machine())
    assert [(each.device, each.threads, each.precision) for each in known] == points


def test_again_measures_anew_what_it_is_asked_for(call, asked, tmp_path):
    """--again replaces what was known of these devices, threads and precision, and leaves the rest."""
    old, other = (
        DeviceCeilings("cpu", 2, "float32", "fake", Ceilings(1.0, 1.0)),
        DeviceCeilings("cpu", 4, "float32", "fake", FAKE),
    )
    write_ceilings(tmp_path / "results", describe_machine(), [old, other])
    code, out, _ = call("doctor", "--again")
    assert code == 0
    assert row(out, "ceiling")[2] == "200"
    assert set(read_ceilings(tmp_path / "results", describe_machine())) == {
        DeviceCeilings("cpu", 2, "float32", "fake", FAKE),
        other,
    }
    assert len(asked) == 1


def test_the_best_of_each_is_the_ceiling(call, asked, tmp_path):
    """Whichever backend came nearest to what the device can do, for each kind of arithmetic and for memory apart."""
    known = DeviceCeilings("cpu", 2, "float32", "gone", Ceilings(1e11, 3e10, 4e11))
    write_ceilings(tmp_path / "results", describe_machine(), [known])
    out = call("doctor")[1]
    assert row(out, "gone")[1:4] == ["400", "100", "30.0"]
    assert row(out, "ceiling")[1:4] == ["400", "200", "30.0"]


def test_what_is_broken_is_a_line_with_its_reason(call, asked, monkeypatch, tmp_path):
    """A framework that does not import is named with the reason, a measurement that fails too; both are no failure."""
    monkeypatch.setenv("FAKE_BROKEN", "1")
    code, out, _ = call("doctor")
    assert code == 0
    assert "cannot be used: ImportError: libfake.so" in out
    assert asked == []
    monkeypatch.delenv("FAKE_BROKEN")
    monkeypatch.setattr(doctor, "measure_ceilings", lambda *_point: runner.Found(None, "RuntimeError: no such kernel"))
    code, out, _ = call("doctor")
    assert code == 0
    assert "—     —  RuntimeError: no such kernel" in out
    assert "the best of each" not in out
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--device", "gpu"], "--device: 'gpu' is no device, legal are auto, cpu, cuda, cuda:N"),
        (["--device", "cuda"], "--device: no backend has the device 'cuda' here, only cpu"),
        (["--threads", "0"], "--threads"),
        (["--precision", "float3"], "--precision: unknown precision 'float3', legal are float32, float64; did you"),
        (["--precision", "mixed_bfloat16"], "unknown precision 'mixed_bfloat16', legal are float32, float64"),
    ],
)
def test_bad_input_is_one_sentence(call, asked, arguments, says):
    """What cannot be measured is refused before anything is."""
    code, out, err = call("doctor", *arguments)
    assert (code, out, asked) == (64, "", [])
    assert says in err
    assert err.count("\n") == 1


def test_a_broken_file_is_refused_until_it_is_measured_again(call, asked, tmp_path):
    """The sentence names the file and --again, which puts it right."""
    path = ceilings_path(tmp_path / "results", describe_machine())
    path.parent.mkdir(parents=True)
    path.write_text("{", encoding="ascii")
    code, _, err = call("doctor")
    assert code == 64
    assert f"{path.relative_to(tmp_path)}: this does not hold ceilings" in err
    assert "capsbench doctor --again" in err
    assert call("doctor", "--again")[0] == 0
    assert call("doctor")[0] == 0
    assert len(asked) == 1


def test_a_run_says_what_was_known_when_it_began(call, tmp_path, mnist_root):
    """run.json holds the machine's ceilings; a broken file of them is refused before anything runs."""
    linear = Path(__file__).parents[1] / "fake" / "linear.yaml"
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        f"name: t\ndataset: mnist\nnetworks: [{linear}]\nbackends: ['fake:fast']\nbatch: [8]\nmeasure: [memory]\n"
    )
    arguments = ["run", suite, "--data", mnist_root]
    assert call(*arguments)[0] == 0
    assert open_run(tmp_path / "results", "latest").header()["ceilings"] == []
    assert call("doctor")[0] == 0
    assert call(*arguments)[0] == 0
    runs = sorted((tmp_path / "results" / "runs").glob("*/run.json"), key=lambda path: path.stat().st_mtime_ns)
    assert json.loads(runs[-1].read_bytes())["ceilings"] == [
        {
            "device": "cpu",
            "threads": 2,
            "precision": "float32",
            "backend": "fake",
            "ceilings": {"flops_per_second": 2e11, "bytes_per_second": 1e10, "fma_flops_per_second": None},
        }
    ]
    ceilings_path(tmp_path / "results", describe_machine()).write_text("{", encoding="ascii")
    code, _, err = call(*arguments)
    assert code == 64
    assert "does not hold ceilings" in err
    assert len(list((tmp_path / "results" / "runs").iterdir())) == 2
