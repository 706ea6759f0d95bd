"""`capsbench data fetch`, as a person drives it, from mirrors on this machine."""

import hashlib
import re
import signal
import subprocess
import sys

import pytest
from faulty_server import CONTENT, NAME, serving, wait_for_part
from waiting import PATIENCE_SECONDS

from capsbench.cli import fetch, main
from capsbench.dataset import sources
from capsbench.dataset.sources import Source, SourceFile

SHA256 = hashlib.sha256(CONTENT).hexdigest()
PROCESS = """\
import sys
from capsbench.cli import main
from capsbench.dataset import sources
from capsbench.dataset.sources import Source, SourceFile

mirror, name, size, sha256 = sys.argv[1:]
file = SourceFile(name=name, bytes=int(size), sha256=sha256)
sources.read_sources = lambda: {"one": Source(mirrors=(mirror,), files=(file,))}
sys.argv = ["capsbench", "data", "fetch", "one"]
sys.exit(main())
"""


@pytest.fixture(scope="module")
def server():
    """A web server on this machine."""
    with serving() as server:
        yield server


def make_source(mirror, *names):
    """A data set of files with the same content."""
    files = tuple(SourceFile(name=name, bytes=len(CONTENT), sha256=SHA256) for name in names)
    return Source(mirrors=(mirror,), files=files)


@pytest.fixture
def call(monkeypatch, capsys, tmp_path, server):
    """Run the command in an empty folder, with three data sets of which one has no file: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    known = {
        "one": make_source(server.mirror("sound"), NAME),
        "gone": make_source(server.mirror("missing"), "a.gz", "b.gz"),
        "two": make_source(server.mirror("sound"), "a.gz", "b.gz"),
    }
    monkeypatch.setattr(fetch, "read_sources", lambda: known)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["capsbench", "data", "fetch", *map(str, arguments)])
        code = main()
        return code, *capsys.readouterr()

    return run


def test_fetched_files_and_their_folder_are_named(call, tmp_path, server):
    """Every file has a line that says where it came from, and the folder comes last; the second time, all was there."""
    code, out, err = call("two", "--data", tmp_path / "sets")
    assert code == 0, err
    where = f"307.2 kB, from {server.mirror('sound')}, SHA-256 right"
    folder = tmp_path / "sets" / "two"
    assert out.splitlines() == [
        f"two: a.gz, {where}",
        f"two: b.gz, {where}",
        f"two: all 2 files are in {folder}",
    ]
    assert "two: fetching a.gz, 307,200 bytes" in err
    assert "\x1b" not in out + err
    assert {path.name for path in folder.iterdir()} == {"a.gz", "b.gz", ".lock"}
    code, out, err = call("two", "two", "--data", tmp_path / "sets")
    assert (code, err) == (0, "")
    assert out.count("was there") == 2


def test_a_terminal_shows_a_bar_and_the_same_lines(call, monkeypatch):
    """The bar says which file of how many, on standard error alone; standard output reads as in a pipe."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, out, err = call("two")
    assert code == 0
    assert "two, file 2 of 2" in err
    assert "307.2/307.2 kB" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err)
    assert [line.partition(",")[0] for line in out.splitlines()] == ["two: a.gz", "two: b.gz", out.splitlines()[-1]]
    assert "\x1b" not in out


def test_one_data_set_that_fails_does_not_keep_others_away(call):
    """What can be fetched is fetched; the sentence says what could not be, and the exit code is 69."""
    code, out, err = call("gone", "one")
    assert code == 69
    assert out.splitlines()[-1] == "one: all 1 files are in data/one"
    assert err.splitlines()[-1].startswith("capsbench: cannot fetch a.gz of gone: http://127.0.0.1:")
    assert err.endswith("put a.gz, b.gz into data/gone by hand\n")


def test_a_mirror_of_ones_own(call, server):
    """--from takes the place of the listed mirrors, for one data set."""
    code, out, _ = call("gone", "--from", server.mirror("sound").rstrip("/"))
    assert code == 0
    assert out.count(server.mirror("sound")) == 2
    for arguments, says in (
        (("one", "two", "--from", server.mirror("sound")), "--from: a mirror holds the files of one data set"),
        (("one", "--from", "http://example.org/"), "--from: 'http://example.org/' is no mirror"),
    ):
        code, out, err = call(*arguments)
        assert (code, out) == (64, "")
        assert says in err


def test_a_plain_file_that_would_be_read_first_is_named(call, tmp_path):
    """Who fetches a compressed file beside a plain one hears which of them counts."""
    (tmp_path / "data" / "one").mkdir(parents=True)
    (tmp_path / "data" / "one" / "images").write_bytes(b"mine")
    assert "SHA-256 right; images lies beside it and is read first\n" in call("one")[1]


def test_another_file_in_the_way_is_bad_input(call, tmp_path):
    """What the user must put right ends with 64, also where a mirror failed as well."""
    (tmp_path / "data" / "one").mkdir(parents=True)
    (tmp_path / "data" / "one" / NAME).write_bytes(b"mine")
    code, _, err = call("one", "gone")
    assert code == 64
    assert f"data/one/{NAME} is there but is not the published file" in err
    assert "cannot fetch a.gz of gone" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name the data sets to fetch, legal are fashion-mnist, kmnist, mnist, smallnorb"),
        (["minst"], "unknown published data set 'minst', legal are fashion-mnist, kmnist, mnist, smallnorb"),
        (["minst"], "did you mean 'mnist'?"),
        (["../mnist"], "unknown published data set '../mnist'"),
        (["toys"], "unknown published data set 'toys'"),
    ],
)
def test_legal_names_are_listed(monkeypatch, capsys, tmp_path, arguments, says):
    """Without a name, or with one that is not published, there is one sentence with the legal ones, and no folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["capsbench", "data", "fetch", *arguments])
    assert main() == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("capsbench: ")
    assert err.count("\n") == 1
    assert says in err
    assert not list(tmp_path.iterdir())


def test_help_names_what_can_be_fetched(monkeypatch, capsys):
    """The names in the help are those of the list, and there is an example."""
    monkeypatch.setattr(sys, "argv", ["capsbench", "data", "fetch", "--help"])
    assert main() == 0
    out = capsys.readouterr().out
    [names] = re.findall(r"Data sets: ([a-z, -]+)\.", " ".join(out.split()))
    assert names.split(", ") == sorted(sources.read_sources())
    assert "Example: capsbench data fetch " in out


@pytest.mark.usefixtures("default_signals")
def test_an_interrupt_ends_with_130_and_can_be_taken_up(server, tmp_path, capsbench_environment):
    """Ctrl-C leaves the beginning, says so and ends with 130; the same command goes on from there."""
    arguments = [server.mirror("halting"), NAME, str(len(CONTENT)), SHA256]
    command = [sys.executable, "-P", "-c", PROCESS, *arguments]
    environment = {**capsbench_environment, "NO_PROXY": "127.0.0.1"}
    server.seen.clear()
    server.go_on.clear()
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    part = tmp_path / "data" / "one" / f".{NAME}.part"
    wait_for_part(part)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, err
    assert "the same command goes on from there" in err
    assert "Traceback" not in err
    there = part.stat().st_size
    server.go_on.set()
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True, timeout=PATIENCE_SECONDS)
    assert server.seen == [("halting", 0), ("halting", there)]
    assert (part.parent / NAME).read_bytes() == CONTENT
    assert not part.exists()
