"""Fetching from mirrors that fail in every way a web server can; nothing here leaves this machine."""

import gzip
import hashlib
import re
import resource
import shutil
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from faulty_server import CONTENT, NAME, serving, wait_for_part
from waiting import PATIENCE_SECONDS

from capsbench.dataset import catalog, download
from capsbench.dataset.download import Manner, fetch
from capsbench.dataset.sources import Source, SourceFile
from capsbench.errors import BadInput, Unavailable, Unwritten

PATIENCE = (PATIENCE_SECONDS, PATIENCE_SECONDS)
HASTE = (PATIENCE_SECONDS, 0.4)  # for mirrors that fall silent, who are waited for in vain


@pytest.fixture(scope="module")
def server():
    """A web server on this machine."""
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch, tmp_path):
    """This machine is asked directly, whatever the environment says, and has no data sets of its distribution."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(catalog, "SYSTEM_ROOT", tmp_path / "installed")


def make_source(*names, **changes):
    """A data set of files that are all published as `CONTENT`; its listed mirror is nowhere."""
    known = {"bytes": len(CONTENT), "sha256": sha256(CONTENT)} | changes
    files = tuple(SourceFile(name=name, **known) for name in names or (NAME,))
    return Source(mirrors=("https://example.invalid/",), files=files)


def sha256(content):
    """The hash of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def bring(server, tmp_path):
    """Fetch from mirrors with these faults: what came, and what the server was asked."""

    def run(*faults, source=None, timeout=PATIENCE, **manner):
        server.seen.clear()
        mirrors = [fault if "://" in fault else server.mirror(fault) for fault in faults]
        manner = Manner(mirrors=mirrors, timeout=timeout, **manner)
        return list(fetch("set", source or make_source(), tmp_path, manner)), list(server.seen)

    run.folder = tmp_path / "set"
    run.part = run.folder / f".{NAME}.part"
    return run


def closed_port():
    """The address of a port at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/gone/"


def files_in(folder):
    """The names of the files in a folder, without the lock."""
    return [path.name for path in folder.iterdir() if path.name != ".lock"]


def check_here(bring):
    """The file is whole under its name, and nothing lies beside it."""
    assert (bring.folder / NAME).read_bytes() == CONTENT
    assert files_in(bring.folder) == [NAME]


def test_a_file_is_fetched_once(bring):
    """A file comes under its name, says where from, and is not asked for again."""
    heard = []
    [fetched], seen = bring("sound", progress=lambda *now: heard.append(now))
    check_here(bring)
    assert fetched.mirror.endswith("/sound/")
    assert seen == [("sound", 0)]
    assert heard[-1] == (NAME, len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in heard] == sorted(done for _, done, _ in heard)
    [again], seen = bring("sound")
    assert (again.mirror, again.path, seen) == (None, fetched.path, [])


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("missing", "answers 404 Not Found"),
        ("page", "sends other bytes than the published ones"),
        ("wrong", "sends other bytes than the published ones"),
        ("endless", "sends more than twice the 307,200 bytes"),
        ("circular", "redirects without end"),
    ],
)
def test_the_next_mirror_is_asked(bring, fault, says):
    """A mirror that fails costs nothing but time; alone, it is named with its reason, and nothing is left behind."""
    with pytest.raises(Unavailable, match=re.escape(says)) as error:
        bring(fault)
    assert f"/{fault}/" in str(error.value)
    assert f"put {NAME} into {bring.folder} by hand" in str(error.value)
    assert files_in(bring.folder) == []
    [fetched], _ = bring(fault, "sound")
    assert fetched.mirror.endswith("/sound/")
    check_here(bring)


def test_offline_every_mirror_is_named(bring):
    """Where nobody answers, the sentence has all addresses without passwords, and which files to put where by hand."""
    source = make_source("a.gz", "b.gz")
    bring.folder.mkdir()
    (bring.folder / "b.gz").write_bytes(CONTENT)
    first, second = closed_port(), closed_port()
    with pytest.raises(Unavailable) as error:
        bring(first.replace("//", "//me:secret@"), second, source=source)
    assert f"{first} cannot be reached, {second} cannot be reached" in str(error.value)
    assert f"put a.gz into {bring.folder} by hand" in str(error.value)
    assert files_in(bring.folder) == ["b.gz"]


def test_a_dropped_connection_is_taken_up(bring, monkeypatch):
    """What came is not asked for twice, as often as the mirror breaks off."""
    monkeypatch.setattr(download, "_TRIES", 30)
    _, seen = bring("halves")
    check_here(bring)
    begins = [begin for _, begin in seen]
    assert begins == sorted(set(begins))
    assert 100_000 < begins[1] <= len(CONTENT) // 2


def test_a_partial_file_is_taken_up_next_time(bring, monkeypatch):
    """After the last try the beginning stays under a hidden name, and the next call goes on with it."""
    monkeypatch.setattr(download, "_TRIES", 2)
    with pytest.raises(Unavailable, match=r"broke off after [0-9,]+ of 307,200 bytes"):
        bring("halves")
    assert not (bring.folder / NAME).exists()
    there = bring.part.stat().st_size
    assert bring.part.read_bytes() == CONTENT[:there]
    _, seen = bring("missing", "sound")
    assert seen == [("missing", there), ("sound", there)]
    check_here(bring)


@pytest.mark.parametrize("fault", ["rangeless", "other-range", "no-such-range"])
def test_a_server_without_ranges_starts_afresh(bring, fault):
    """A server that ignores, misunderstands or refuses the range sends all, and all is written from the start."""
    bring.folder.mkdir()
    bring.part.write_bytes(CONTENT[:5000])
    _, seen = bring(fault)
    assert seen[0] == (fault, 5000)
    check_here(bring)


def test_a_server_without_ranges_is_not_asked_for_ever(bring, monkeypatch):
    """One that always starts afresh and always breaks off gains nothing, and is given up."""
    monkeypatch.setattr(download, "_TRIES", 30)
    with pytest.raises(Unavailable, match="broke off after 1"):
        bring("rangeless-then-half")
    assert bring.part.read_bytes() == CONTENT[: bring.part.stat().st_size]


@pytest.mark.parametrize("there", [b"?" * 5000, b"?" * len(CONTENT), b"?" * (len(CONTENT) + 5)])
def test_a_spoilt_partial_file_costs_a_fresh_start(bring, there):
    """A beginning of wrong bytes, or of too many, is found out by the hash and fetched again, from one mirror."""
    bring.folder.mkdir()
    bring.part.write_bytes(there)
    _, seen = bring("sound")
    assert seen[-1] == ("sound", 0)
    check_here(bring)


def test_a_whole_partial_file_needs_no_mirror(bring):
    """A process that ended between the last byte and the renaming leaves nothing to be sent."""
    bring.folder.mkdir()
    bring.part.write_bytes(CONTENT)
    [fetched], seen = bring("missing")
    assert (fetched.mirror, seen) == (None, [])
    check_here(bring)


def test_a_stalled_mirror_is_left(bring, server):
    """One that falls silent in the middle gives way to another, which goes on where it stopped."""
    server.go_on.clear()
    _, seen = bring("halting", "sound", timeout=HASTE)
    server.go_on.set()
    assert (seen[0], seen[-1][0]) == (("halting", 0), "sound")
    check_here(bring)


def test_a_mute_mirror_is_left(bring):
    """One that takes the connection and says nothing is named with that reason."""
    with pytest.raises(Unavailable, match=r"/mute/ does not answer"):
        bring("mute", timeout=HASTE)


def test_a_server_without_tls_is_not_trusted(bring, server):
    """What answers an https address without TLS is refused with that reason."""
    with pytest.raises(Unavailable, match="has no TLS connection that can be trusted"):
        bring(server.mirror("sound").replace("http:", "https:"))


@pytest.mark.parametrize("fault", ["encoded", "moved"])
def test_what_is_sent_otherwise_is_the_same_file(bring, fault):
    """A redirect is followed, and a server that calls the compressed file an encoding still delivers it compressed."""
    bring(fault)
    check_here(bring)


def test_another_packing_is_accepted(bring):
    """A mirror may send the published content packed otherwise; what it sends is kept as it is."""
    bring("sound", source=make_source(sha256=sha256(gzip.compress(CONTENT)), content_sha256=sha256(CONTENT)))
    check_here(bring)


def test_installed_data_sets_are_not_fetched(bring, tmp_path):
    """Where the system's folder has all files, nothing is fetched or written; where it lacks one, all are fetched."""
    installed = tmp_path / "installed" / "set"
    installed.mkdir(parents=True)
    (installed / "a.gz").write_bytes(CONTENT)
    source = make_source("a.gz", "b.gz")
    _, seen = bring("sound", source=source)
    assert len(seen) == 2
    shutil.rmtree(bring.folder)
    (installed / "b.gz").write_bytes(CONTENT)
    fetched, seen = bring("sound", source=source)
    assert ([each.path.parent for each in fetched], seen) == ([installed] * 2, [])
    assert not bring.folder.exists()


def test_another_file_in_its_place_is_not_touched(bring):
    """A file of that name with other bytes is the user's: it is named and stays, and so do files fetched before."""
    bring.folder.mkdir()
    (bring.folder / NAME).write_bytes(b"mine")
    with pytest.raises(BadInput, match="is there but is not the published file"):
        bring("sound", source=make_source("before.gz", NAME))
    assert (bring.folder / NAME).read_bytes() == b"mine"
    assert (bring.folder / "before.gz").read_bytes() == CONTENT


def test_too_little_space_is_said_beforehand(bring, monkeypatch):
    """Where the disk has no room for what is missing, no mirror is asked; what came before counts."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=len(CONTENT) - 1))
    with pytest.raises(Unwritten, match=r"set: 307,200 bytes are needed, 307,199 are free"):
        bring("sound")
    assert files_in(bring.folder) == []
    bring.part.write_bytes(CONTENT[:1])
    bring("sound")
    check_here(bring)


def test_a_full_disk_is_said_and_the_beginning_kept(bring):
    """A disk that takes no more is one sentence; nothing stands under the final name, and the next call goes on."""
    room = 100_000
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(Unwritten, match=r"cannot write to .*: File too large"):
            bring("sound")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (bring.folder / NAME).exists()
    assert bring.part.read_bytes() == CONTENT[:room]
    assert bring("sound")[1] == [("sound", room)]
    check_here(bring)


@pytest.mark.parametrize("in_the_way", ["file", "link"])
def test_what_cannot_be_written_is_said(bring, tmp_path, in_the_way):
    """A file in the place of the folder, or a planted link: one sentence."""
    if in_the_way == "file":
        bring.folder.write_bytes(b"")
    else:
        bring.folder.mkdir()
        bring.part.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unwritten, match=r"cannot write to .*set"):
        bring("sound")
    assert not (tmp_path / "elsewhere").exists()


PROCESS = """\
import sys
from pathlib import Path
from capsbench.dataset.download import Manner, fetch
from capsbench.dataset.sources import Source, SourceFile

root, mirror, name, size, sha256 = sys.argv[1:]
source = Source(mirrors=(mirror,), files=(SourceFile(name=name, bytes=int(size), sha256=sha256),))
manner = Manner(waiting=lambda: print("waits", flush=True))
print("was there" if [each.mirror for each in fetch("set", source, Path(root), manner)] == [None] else "fetched")
"""


@pytest.fixture
def start_process(server, tmp_path, capsbench_environment):
    """Start processes that fetch the file from a mirror that halts in its middle."""
    started = []
    [file] = make_source().files
    arguments = map(str, [tmp_path, server.mirror("halting"), file.name, file.bytes, file.sha256])
    command = [sys.executable, "-P", "-c", PROCESS, *arguments]
    server.seen.clear()
    server.go_on.clear()

    def start():
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=capsbench_environment))
        return started[-1]

    yield start
    server.go_on.set()
    for process in started:
        process.kill()
        process.communicate()


def test_two_processes_fetch_a_file_once(bring, server, start_process):
    """Of two processes one fetches; the other waits for it and finds the file whole."""
    first = start_process()
    wait_for_part(bring.part)
    second = start_process()
    assert second.stdout.readline() == "waits\n"
    assert not (bring.folder / NAME).exists()
    server.go_on.set()
    assert first.communicate(timeout=PATIENCE_SECONDS)[0] == "fetched\n"
    assert second.communicate(timeout=PATIENCE_SECONDS)[0] == "was there\n"
    assert server.seen == [("halting", 0)]
    check_here(bring)


def test_a_killed_process_holds_nobody_up(bring, start_process):
    """A process that is killed in the midst leaves a beginning and no lock."""
    process = start_process()
    wait_for_part(bring.part)
    process.kill()
    process.wait(PATIENCE_SECONDS)
    there = bring.part.stat().st_size
    assert 0 < there < len(CONTENT)
    assert bring("sound")[1] == [("sound", there)]
    check_here(bring)


def test_an_interrupt_leaves_the_beginning(bring):
    """Ctrl-C in the midst of a file is no failure of the mirror: it goes through, and what came stays."""

    def interrupt(_name, done, _total):
        if done > 50_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring("sound", "sound", progress=interrupt)
    there = bring.part.stat().st_size
    assert bring.part.read_bytes() == CONTENT[:there]
    assert bring("sound")[1] == [("sound", there)]
    check_here(bring)
