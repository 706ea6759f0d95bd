"""What a run on Dask is made of, each part by itself and without Dask: placing, what travels, the desk, the inbox."""

import asyncio
import json
from dataclasses import replace

import pytest
from conftest import make_case
from dask_board import MemoryBoard
from hypothesis import given
from hypothesis import strategies as st
from waiting import PATIENCE_SECONDS

from capsbench import __version__
from capsbench.dataset.atomic import whole_file
from capsbench.measure.environment import describe_machine
from capsbench.record.codec import encode
from capsbench.record.store import create
from capsbench.runner.assemble import DataFacts, Draft, assemble
from capsbench.runner.dask import desk as desks
from capsbench.runner.dask import station
from capsbench.runner.dask.desk import Desk
from capsbench.runner.dask.inbox import Garbled, Inbox
from capsbench.runner.dask.parcel import Chunk, Ended, Over, Parcel, Stage, decode_news, decode_parcel
from capsbench.runner.dask.parcel import encode as news_text
from capsbench.runner.dask.placing import Errand, Station, hopeless, place, why_not
from capsbench.runner.launch import Abandoned
from capsbench.worker.checkpoint import CHECKPOINT
from capsbench.worker.messages import Done, Place

CASE = make_case()
STATIONS = st.lists(
    st.builds(
        Station,
        name=st.sampled_from("abcd"),
        address=st.just("tcp://there:1"),
        threads=st.integers(1, 4),
        gpus=st.sampled_from([0.0, 1.0]),
        idle=st.booleans(),
    ),
    unique_by=lambda station: station.name,
)
ERRANDS = st.lists(
    st.builds(
        Errand,
        cases=st.tuples(
            st.builds(make_case, threads=st.integers(1, 5), device=st.sampled_from(["cpu", "cuda", "cuda:1"]))
        ),
        lost=st.lists(st.tuples(st.sampled_from("abcd"), st.just("left")), max_size=2).map(tuple),
    ),
    max_size=5,
)


@given(ERRANDS, STATIONS)
def test_placing_keeps_its_rules(errands, stations):
    """No station takes two groups, nor one that does not fit, nor one back while another could ever take it."""
    placed = place(errands, stations, {})
    assert len({station.name for _, station in placed}) == len(placed)
    for errand, at in placed:
        assert at.idle
        assert at.threads >= errand.threads
        assert at.gpus >= errand.gpus
        fit = {each.name for each in stations if why_not(errand, each, {}) is None}
        lost_on = {name for name, _ in errand.lost}
        assert at.name not in lost_on or fit <= lost_on
    for errand in errands:
        assert (hopeless(errand, stations, {}) is None) == any(why_not(errand, each, {}) is None for each in stations)


def test_a_refusal_is_of_a_station_or_of_a_data_set_there():
    """A station without capsbench takes nothing; one without the data set takes the other data sets."""
    there = Station(name="a", address="tcp://there:1", threads=1)
    errand = Errand(cases=(CASE,))
    assert place([errand], [there], {("b", None): "is another"}) == [(errand, there)]
    for refusals in ({("a", None): "cannot run capsbench"}, {("a", CASE.dataset): "cannot use the data set"}):
        assert place([errand], [there], refusals) == []
        assert hopeless(errand, [there], refusals) == f"no worker takes the case: a {next(iter(refusals.values()))}"


def test_small_stations_are_used_first():
    """What one thread can do is not put where a GPU or many threads are, as long as there is another place."""
    big, small = (Station(name=name, address=name, threads=n, gpus=n > 1) for name, n in (("big", 8), ("small", 1)))
    errands = [Errand(cases=(CASE,)), Errand(cases=(replace(CASE, seed=1),))]
    assert [at.name for _, at in place(errands, [big, small], {})] == ["small", "big"]


def parcel(**changes):
    here = describe_machine()
    made = Parcel(token="t", run="run", cases=(CASE,), place=Place(), rounds=None, machine=here)  # noqa: S106 - no secret
    return replace(made, **changes)


def test_what_travels_comes_back_as_it_was():
    """Parcels and news are the same after the journey, whatever stands in them."""
    sent = parcel(data=DataFacts({}, ("ü\n\x00",), ("no",)), rounds=3)
    assert decode_parcel(news_text(sent)) == sent
    for news in (
        Stage(case="c", stage="check", done=1, total=2, detail="é"),
        Chunk(case="c", name="x", last=True),
        Ended(case="c"),
        Over(reason="why", data=True),
    ):
        assert decode_news(news_text(news)) == news


def stage(done):
    return Stage(case=CASE.id, stage="time", done=done, total=9, detail="")


def test_a_desk_forgets_only_what_has_come(tmp_path):
    """News are given again until the fetcher says that it has them; a stage that nobody saw makes room for the next."""
    desk = Desk(parcel(), tmp_path)
    for news in (stage(1), stage(2), Ended(case=CASE.id), stage(3)):
        desk.put(news, b"record" if isinstance(news, Ended) else b"")

    def kinds(seen):
        return [(number, type(decode_news(text)).__name__) for number, text, _ in asyncio.run(desk.fetch(seen))]

    everything = [(1, "Stage"), (2, "Ended"), (3, "Stage")]
    assert kinds(0) == everything
    assert kinds(0) == everything
    desk.put(stage(4))  # the one before was handed out, so it stands
    assert kinds(2) == [(3, "Stage"), (4, "Stage")]


def test_a_fetcher_is_woken_by_news(tmp_path, monkeypatch):
    """Who waits at a desk hears of news, even if nothing else would wake it."""
    monkeypatch.setattr(desks, "FETCH_SECONDS", None)

    async def fetch_while_something_comes(desk):
        asyncio.get_running_loop().call_soon(desk.put, Over())
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await desk.fetch(0)

    [(_, text, _)] = asyncio.run(fetch_while_something_comes(Desk(parcel(), tmp_path)))
    assert decode_news(text) == Over()


def test_nobody_waits_for_long(tmp_path, monkeypatch):
    """A desk at which nobody has asked for a minute, or that is full of what nobody fetches, ends its group."""
    desk = Desk(parcel(), tmp_path)
    assert not desk.abandoned()
    desk.put(Ended(case=CASE.id), b"0123456789")
    monkeypatch.setattr(desks, "LEASE_SECONDS", 0.2)
    monkeypatch.setattr(desks, "MOST_BYTES", 10)
    with pytest.raises(Abandoned):
        desk.put(Ended(case=CASE.id), b"x")
    assert desk.abandoned()
    with pytest.raises(Abandoned):
        desk.put(stage(1))


def test_a_station_takes_its_own_version_only(tmp_path):
    """What another capsbench sends is not looked at; a checkpoint lands in the case's folder."""
    text = news_text(parcel())
    assert station.open_desk("no parcel", "0.0") == f"has capsbench {__version__}, and the run is kept by 0.0"
    assert "does not understand" in station.open_desk("no parcel", __version__)
    assert station.open_desk(text, __version__) == ""
    for data in (b"one", b"two"):
        station.hand("t", CASE.id, data)
    folder = station._desks["t"].folder
    assert (folder / "artifacts" / CASE.id / CHECKPOINT).read_bytes() == b"onetwo"
    station.close_desk("t")
    assert not folder.exists()
    assert asyncio.run(station.fetch("t", 0)) is None


def test_a_training_s_checkpoint_travels_as_it_changes(tmp_path, monkeypatch):
    """While a case trains, each new checkpoint is sent once, in pieces; at its end all that it has written is there."""
    monkeypatch.setattr(station, "CHUNK_BYTES", 4)
    desk = Desk(parcel(), tmp_path / "station")
    reporter = station._Reporter(desk)
    folder = reporter.artifacts(CASE.id)

    def sent():
        delivered = [(decode_news(text), payload) for _, text, payload in asyncio.run(desk.fetch(sent.seen))]
        sent.seen += len(delivered)
        return [(news.name, payload, news.last) for news, payload in delivered if isinstance(news, Chunk)]

    sent.seen = 0
    reporter.case_stage(CASE, "accuracy", 0, 9, "")
    assert sent() == []
    for state in (b"epoch1", b"2"):
        with whole_file(folder / CHECKPOINT) as file:
            file.write(state)
        for _ in range(2):
            reporter.case_stage(CASE, "accuracy", 1, 9, "")
        pieces = sent()
        assert b"".join(payload for _, payload, _ in pieces) == state
        assert [last for *_, last in pieces] == [False] * (len(pieces) - 1) + [True]
    (folder / "empty.json").write_bytes(b"")
    (folder / ".hidden.tmp").write_bytes(b"unfinished")
    reporter.append(a_record("run"))
    assert sent() == [("empty.json", b"", True)]


@pytest.fixture
def inbox(tmp_path):
    """An inbox for one case, of a run in a folder."""
    there = Station(name="a", address="tcp://there:1", threads=1)
    return Inbox(Errand(cases=(CASE,)), there, create(tmp_path / "results", {}), MemoryBoard())


def a_record(run, case=CASE):
    end = Done(status="crash", reason="why")
    return assemble(Draft(case, DataFacts({}, ()), end=end), run, describe_machine())


NAMES = ["../x", "/etc/x", "a/b", "..", ".", "", ".hidden", "a\\b", "a\nb", "x" * 200, "nul\0"]


@pytest.mark.parametrize("name", NAMES)
def test_no_file_leaves_its_folder(inbox, tmp_path, name):
    """A station names files, not places."""
    with pytest.raises(Garbled, match="a file that it calls"):
        inbox.take(news_text(Chunk(case=CASE.id, name=name, last=True)), b"data")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["run.json"]


def test_what_comes_is_kept(inbox):
    """Files are put together and stand in the run before their record; a case has one record."""
    store = inbox._store
    for data, last in ((b"one", False), (b"two", True)):
        inbox.take(news_text(Chunk(case=CASE.id, name="trace.json", last=last)), data)
    assert (store.artifacts(CASE.id) / "trace.json").read_bytes() == b"onetwo"
    ended = news_text(Ended(case=CASE.id)), encode(a_record(store.run_id))
    inbox.take(*ended)
    assert list(store.records()) == [a_record(store.run_id)]
    assert inbox.left() == ()
    with pytest.raises(Garbled, match="not given"):
        inbox.take(*ended)


def test_a_station_speaks_of_its_cases_only(inbox):
    """Text that is no news, another case, another run, a record that is none: nothing of it is kept."""
    other = replace(CASE, id="other")
    line = encode(a_record(inbox._store.run_id))
    newer = json.dumps({**json.loads(line), "schema": 999}).encode()
    for text, payload in (
        ("{}", b""),
        ("nonsense", b""),
        (news_text(Ended(case="other")), encode(a_record(inbox._store.run_id, other))),
        (news_text(Ended(case=CASE.id)), encode(a_record(inbox._store.run_id, other))),
        (news_text(Ended(case=CASE.id)), encode(a_record("another-run"))),
        (news_text(Ended(case=CASE.id)), line[:-20]),
        (news_text(Ended(case=CASE.id)), newer),
    ):
        with pytest.raises(Garbled):
            inbox.take(text, payload)
    assert list(inbox._store.records()) == []
