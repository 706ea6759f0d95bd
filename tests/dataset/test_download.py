"""Fetching from mirrors that fail in every way a web server can; nothing here leaves this machine."""

import errno
import fcntl
import hashlib
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from io import BytesIO, FileIO
from types import SimpleNamespace

import pytest
import requests
from faulty_server import CONTENT, NAME, serving, wait_for_part
from urllib3.exceptions import ReadTimeoutError
from waiting import PATIENCE_SECONDS

from capsbench.dataset import download, mirror
from capsbench.dataset.download import Manner, fetch
from capsbench.dataset.mirror import BrokenOffError, Patience, UndeliveredError, receive
from capsbench.dataset.sources import Source, SourceFile
from capsbench.errors import BadInput

PATIENCE = Patience(
    connect_seconds=PATIENCE_SECONDS, silent_seconds=PATIENCE_SECONDS, slow_seconds=PATIENCE_SECONDS, tries=3
)


@pytest.fixture(scope="module")
def server():
    """A web server on this machine."""
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """What is on this machine is asked directly, whatever the environment says."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


def make_source(content=CONTENT, *names):
    """A data set of files with the same content; its listed mirror is nowhere."""
    sha256 = hashlib.sha256(content).hexdigest()
    files = tuple(SourceFile(name=name, bytes=len(content), sha256=sha256) for name in names or (NAME,))
    return Source(mirrors=("https://example.invalid/",), files=files)


@pytest.fixture
def bring(server, tmp_path):
    """Fetch from mirrors with these faults: what came, and what the server was asked."""

    def run(*faults, patience=PATIENCE, source=None, **manner):
        server.seen.clear()
        mirrors = [fault if "://" in fault else server.mirror(fault) for fault in faults]
        manner = Manner(mirrors=mirrors, patience=patience, **manner)
        return list(fetch("set", source or make_source(), tmp_path, manner)), list(server.seen)

    run.folder = tmp_path / "set"
    run.part = run.folder / f".{NAME}.part"
    return run


def closed_port():
    """The address of a port at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/gone/"


def check_here(bring):
    """The file is whole under its name, and nothing lies beside it."""
    assert (bring.folder / NAME).read_bytes() == CONTENT
    assert [path.name for path in bring.folder.iterdir()] == [NAME]


def test_a_file_is_fetched_once(bring):
    """A file comes under its name, says where from, and is not asked for again."""
    heard = []
    [fetched], seen = bring("sound", progress=lambda *now: heard.append(now))
    check_here(bring)
    assert fetched.mirror.endswith("/sound/")
    assert seen == [("sound", 0)]
    assert heard[-1] == (NAME, len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in heard] == sorted({done for _, done, _ in heard})
    [again], seen = bring("sound")
    assert (again.mirror, again.path, seen) == (None, fetched.path, [])


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("missing", "answers 404 Not Found"),
        ("page", "offers 26 bytes where the file has 307200"),
        ("wrong", "sends other bytes than the published ones"),
        ("endless", "sends more than the 307,200 bytes"),
        ("circular", "sends us on more than 5 times"),
        ("moved-away", "sends us on to http://example.invalid/images.gz, which is not https"),
        ("moved-to-file", "sends us on to file:///etc/hostname, which is not https"),
    ],
)
def test_the_next_mirror_is_asked(bring, fault, says):
    """A mirror that fails costs nothing but time; alone, it is named with its reason, and nothing is left behind."""
    with pytest.raises(BadInput, match=re.escape(says)) as error:
        bring(fault)
    assert f"/{fault}/" in str(error.value)
    assert "secret" not in str(error.value)
    assert f"put {NAME} into {bring.folder} by hand" in str(error.value)
    left = [path for path in bring.folder.iterdir() if path.stat().st_size]
    assert left == ([bring.part] if fault == "endless" else [])
    [fetched], _ = bring(fault, "sound")
    # Of an endless answer the first bytes are the file; now and then all of them came before it was cut off.
    assert (fetched.mirror is None and fault == "endless") or fetched.mirror.endswith("/sound/")
    check_here(bring)


def test_offline_every_mirror_is_named(bring):
    """Where nobody answers, the sentence has all addresses, and where to put which files by hand."""
    source = make_source(CONTENT, "a.gz", "b.gz")
    bring.folder.mkdir()
    (bring.folder / "b.gz").write_bytes(CONTENT)
    first, second = closed_port(), closed_port()
    with pytest.raises(BadInput) as error:
        bring(first, second, source=source)
    assert f"{first} cannot be reached, {second} cannot be reached" in str(error.value)
    assert f"put a.gz into {bring.folder} by hand" in str(error.value)
    assert [path.name for path in bring.folder.iterdir()] == ["b.gz"]


def test_a_dropped_connection_is_taken_up(bring):
    """What came is not asked for twice, as often as the mirror breaks off."""
    _, seen = bring("halves", patience=replace(PATIENCE, tries=30))
    check_here(bring)
    begins = [begin for _, begin in seen]
    assert begins[:2] == [0, len(CONTENT) // 2 + 1]
    assert begins == sorted(set(begins))


def test_a_partial_file_is_taken_up_next_time(bring):
    """After the last try the beginning stays under a hidden name, and the next call goes on with it."""
    with pytest.raises(BadInput, match=r"broke off after [0-9,]+ of 307,200 bytes"):
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


def test_a_server_without_ranges_is_not_asked_for_ever(bring):
    """One that always starts afresh and always breaks off gains nothing, and is given up."""
    with pytest.raises(BadInput, match="broke off after 153,600"):
        bring("rangeless-then-half", patience=replace(PATIENCE, tries=30))
    assert bring.part.stat().st_size == len(CONTENT) // 2


@pytest.mark.parametrize("there", [b"?" * 5000, b"?" * len(CONTENT), b"?" * (len(CONTENT) + 5)])
def test_a_spoilt_partial_file_costs_a_fresh_start(bring, there):
    """A beginning of wrong bytes, or of too many, is found out by the checksum and fetched again, from one mirror."""
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


class Pieces:
    """A session whose only answer comes in pieces, as (seconds, bytes) of the clock `now`, and then no more."""

    def __init__(self, pieces):
        self.now, self._pieces = 0.0, iter(pieces)

    def get(self, _url, **_options):
        """What requests answers."""
        answer = requests.Response()
        answer.status_code, answer.raw = 200, self
        answer.close = lambda: None
        return answer

    def read1(self, _count, **_options):
        """The next piece, as urllib3 gives it."""
        seconds, piece = next(self._pieces, (0.0, None))
        self.now += seconds
        if piece is None:
            raise ReadTimeoutError(None, "", "")
        return piece


@pytest.fixture
def receive_pieces(monkeypatch):
    """Receive a file of so many bytes that comes in pieces: what was written of it."""

    def run(pieces, total):
        session, part = Pieces(pieces), BytesIO()
        monkeypatch.setattr(mirror, "time", SimpleNamespace(monotonic=lambda: session.now))
        try:
            receive(session, "http://localhost/images.gz", part, total, lambda _done: None, Patience())
        finally:
            run.written = part.getvalue()
        return run.written

    return run


def test_a_stalled_mirror_is_left(receive_pieces):
    """One that falls silent has broken off; what it sent is kept."""
    with pytest.raises(BrokenOffError, match="sent nothing for 30 s"):
        receive_pieces([(0.0, b"abc")], 5)
    assert receive_pieces.written == b"abc"


def test_a_trickling_mirror_is_left(receive_pieces):
    """One that sends byte after byte, never silent and never done, is too slow; one that is merely gentle is not."""
    with pytest.raises(UndeliveredError, match="sent only 60 bytes in 60 s"):
        receive_pieces([(1.0, b"x")] * 1000, 1000)
    assert receive_pieces([*[(20.0, b"x" * 20_000)] * 9, (0.0, b"")], 180_000) == b"x" * 180_000


def test_a_mute_mirror_is_left(bring):
    """One that takes the connection and says nothing is named with that reason."""
    with pytest.raises(BadInput, match=r"/mute/ does not answer"):
        bring("mute", patience=Patience(silent_seconds=0.4))


def test_only_tls_is_left_once_it_was_there(monkeypatch):
    """A mirror behind TLS cannot send us on to plain HTTP, not even on this machine."""

    class Session:
        def get(self, url, **options):
            assert (url, options["allow_redirects"]) == ("https://example.org/images.gz", False)
            assert options.get("verify", True) is True
            answer = requests.Response()
            answer.status_code = 301
            answer.headers["Location"] = "http://localhost:9/images.gz"
            answer.close = lambda: None
            return answer

    with pytest.raises(UndeliveredError, match=r"sends us on to http://localhost:9/images\.gz, which is not https"):
        receive(Session(), "https://example.org/images.gz", BytesIO(), 3, lambda _done: None, PATIENCE)


def test_a_server_without_tls_is_not_trusted(bring, server):
    """What answers an https address without TLS is refused with that reason."""
    with pytest.raises(BadInput, match="has no TLS connection that can be trusted"):
        bring(server.mirror("sound").replace("http:", "https:"))


def test_an_encoding_is_not_undone(bring):
    """A server that calls the compressed file an encoding still delivers the compressed file."""
    bring("encoded")
    check_here(bring)


def test_a_redirect_is_followed(bring):
    """A mirror may send us on to another place on this machine."""
    _, seen = bring("moved")
    assert seen == [("moved", 0), ("sound", 0)]
    check_here(bring)


def test_another_file_in_its_place_is_not_touched(bring):
    """A file of that name with other bytes is the user's: it is named and stays, and so do files fetched before."""
    bring.folder.mkdir()
    (bring.folder / NAME).write_bytes(b"mine")
    with pytest.raises(BadInput, match="is there but is not the published file"):
        bring("sound", source=make_source(CONTENT, "before.gz", NAME))
    assert (bring.folder / NAME).read_bytes() == b"mine"
    assert (bring.folder / "before.gz").read_bytes() == CONTENT


def test_a_full_disk_is_said_and_the_beginning_kept(bring, monkeypatch):
    """No space left is one sentence; nothing stands under the final name, and the next call goes on."""
    room = 100_000

    class Full(FileIO):
        def write(self, data):
            left = room - self.tell()
            if left <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data[:left])

    monkeypatch.setattr(download, "FileIO", Full)
    with pytest.raises(BadInput, match=f"no space is left for {NAME} in"):
        bring("sound")
    assert not (bring.folder / NAME).exists()
    assert bring.part.read_bytes() == CONTENT[:room]
    monkeypatch.undo()
    assert bring("sound")[1] == [("sound", room)]
    check_here(bring)


@pytest.mark.parametrize("in_the_way", ["file", "directory", "link"])
def test_what_cannot_be_written_is_said(bring, tmp_path, in_the_way):
    """A file in the place of the folder, a folder in that of the file, or a planted link: one sentence."""
    if in_the_way == "file":
        bring.folder.write_bytes(b"")
    elif in_the_way == "directory":
        (bring.folder / NAME).mkdir(parents=True)
    else:
        bring.folder.mkdir()
        bring.part.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match=r"cannot write .*images\.gz: "):
        bring("sound")
    assert not (tmp_path / "elsewhere").exists()


PROCESS = """\
import sys
from pathlib import Path
from capsbench.dataset.download import Manner, fetch
from capsbench.dataset.sources import Source, SourceFile

root, mirror, name, size, sha256 = sys.argv[1:]
source = Source(mirrors=(mirror,), files=(SourceFile(name=name, bytes=int(size), sha256=sha256),))
manner = Manner(waiting=lambda name: print(f"waits for {name}", flush=True))
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
    assert second.stdout.readline() == f"waits for {NAME}\n"
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


def test_who_waits_goes_on_where_the_other_gave_up(bring):
    """A lock ends with its holder; what that left, or removed, is what the next one goes on from."""
    bring.folder.mkdir()
    for left in (CONTENT[:7000], None):
        bring.part.write_bytes(CONTENT[:7000])
        holder = os.open(bring.part, os.O_RDWR)
        fcntl.flock(holder, fcntl.LOCK_EX)

        def let_go(_name, holder=holder, left=left):
            if left is None:
                bring.part.unlink()
            os.close(holder)

        _, seen = bring("sound", waiting=let_go)
        assert seen == [("sound", 7000 if left else 0)]
        check_here(bring)
        (bring.folder / NAME).unlink()


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
