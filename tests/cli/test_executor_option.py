"""What a person gets wrong about --executor and --cluster: one sentence, exit code 64, and no run begun."""

import importlib
import socket
import sys

import pytest
from conftest import make_case
from test_commands import LINEAR, SUITE, call

from capsbench.errors import BadInput, Unavailable
from capsbench.runner import schedule
from capsbench.runner.dask import clusters
from capsbench.store.runs import open_run

pytest.importorskip("distributed")

FACTORIES = """\
def broken():
    raise RuntimeError("no queue\\nfor you")

def leaves():
    raise SystemExit("sbatch: not found")

def number():
    return 3

class Idle:
    scheduler_address = "<Not Connected>"
    security = None
    def close(self):
        pass

thing = Idle()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a suite and a module of factories, which is the current one."""
    (tmp_path / "suite.yaml").write_text(SUITE, encoding="utf-8")
    (tmp_path / "linear.yaml").write_bytes(LINEAR.read_bytes())
    (tmp_path / "factories.py").write_text(FACTORIES, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("factories", None)
    importlib.invalidate_caches()


def refused(capsys, folder, mnist_root, *options):
    """What is said of the options."""
    code, out, err = call(capsys, "run", "suite.yaml", "--data", mnist_root, *options)
    assert (code, out) == (64, "")
    assert err.startswith("capsbench: ")
    assert err.count("\n") == 1
    assert not (folder / "results").exists()
    return err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--cluster", "local"], "--cluster: only --executor dask runs cases on a cluster"),
        (["--executor", "dusk"], "--executor"),
        (["--executor", "dask", "--cluster", "remote"], "'remote' is no cluster, legal are local, local:N, tcp://HOST"),
        (["--executor", "dask", "--cluster", "local:0"], "'local:0' is no cluster"),
        (["--executor", "dask", "--cluster", "local:many"], "'local:many' is no cluster"),
        (["--executor", "dask", "--cluster", "tcp://somewhere"], "'tcp://somewhere' is no cluster"),
        (["--executor", "dask", "--cluster", "http://a:1"], "'http://a:1' is no cluster"),
        (["--executor", "dask", "--cluster", "a b:c"], "'a b:c' is no cluster"),
        (
            ["--executor", "dask", "--cluster", "nosuch:make"],
            "nosuch:make: ModuleNotFoundError: No module named 'nosuch'",
        ),
    ],
)
def test_bad_options_are_one_sentence(capsys, folder, mnist_root, options, says):
    """It is said before a run's folder is made."""
    assert says in refused(capsys, folder, mnist_root, *options)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        (
            "factories:nosuch",
            "--cluster factories:nosuch: AttributeError: module 'factories' has no attribute 'nosuch'",
        ),
        ("factories:broken", "--cluster factories:broken: RuntimeError: no queue for you"),
        ("factories:leaves", "--cluster factories:leaves: SystemExit: sbatch: not found"),
        ("factories:number", "--cluster factories:number: 'int' is no Dask cluster"),
        ("factories:thing", "--cluster <Not Connected>: no Dask scheduler answers there within 0.5 seconds"),
        ("tcp://127.0.0.1:1", "--cluster tcp://127.0.0.1:1: no Dask scheduler answers there: Connection refused"),
        ("tcp://127.0.0.1:99999", "no Dask scheduler answers there: "),
        ("tls://nosuch.invalid:8786", "--cluster tls://nosuch.invalid:8786: no Dask scheduler answers there: "),
    ],
)
def test_a_cluster_that_is_none_is_named(folder, monkeypatch, where, says):
    """What a user's module or whoever listens at an address has wrong is said in one sentence."""
    monkeypatch.setattr(clusters, "CONNECT_SECONDS", 0.5)
    with pytest.raises(BadInput) as refused, clusters.open_cluster(where, [make_case()]):
        pass
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("scheme", "says"), [("tcp", "no Dask scheduler answers"), ("tls", "expects a `ssl_context`")])
def test_who_does_not_answer_is_not_waited_for(folder, monkeypatch, scheme, says):
    """A port at which something listens that is no scheduler is given up soon; TLS needs Dask's certificates."""
    monkeypatch.setattr(clusters, "CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        where = f"{scheme}://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(BadInput, match=says), clusters.open_cluster(where, [make_case()]):
            pass


def test_without_dask_it_is_said_what_to_install(capsys, folder, mnist_root, monkeypatch):
    """The extra is named."""
    monkeypatch.setattr(clusters, "find_spec", lambda _name: None)
    assert "pip install 'capsbench[dask]'" in refused(capsys, folder, mnist_root, "--executor", "dask")


def test_a_dask_that_does_not_import_is_one_sentence(capsys, folder, mnist_root, monkeypatch):
    """An installation that raises when it is imported is no bad input; nothing is begun."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "distributed"]:
        monkeypatch.delitem(sys.modules, name)
    (folder / "distributed.py").write_text("raise RuntimeError('built for\\nanother tornado')", encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    code, out, err = call(capsys, "run", "suite.yaml", "--data", mnist_root, "--executor", "dask")
    assert (code, out) == (69, "")
    assert err == ("capsbench: Dask is installed but cannot be imported: RuntimeError: built for another tornado\n")
    assert not (folder / "results").exists()


def test_a_cluster_that_goes_is_not_the_end(capsys, folder, mnist_root, monkeypatch):
    """The run ends with a code of its own, and says how to go on."""

    def lose(*_arguments, **_options):
        raise Unavailable("the Dask scheduler at tcp://there:1 has gone")

    monkeypatch.setattr(schedule, "run_cases", lose)
    code, out, err = call(capsys, "run", "suite.yaml", "--data", mnist_root)
    assert (code, out) == (69, "")
    run = open_run(folder / "results", "latest").run_id
    assert err.splitlines()[-1] == (
        "capsbench: the Dask scheduler at tcp://there:1 has gone; "
        f"what has ended is in results/runs/{run}, go on with --resume {run}"
    )
