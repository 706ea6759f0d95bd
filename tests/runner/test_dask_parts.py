"""Parts of a run on Dask, without a cluster: placement, the task's JSON, what a worker announces and what is kept."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from conftest import make_case
from dask_board import MemoryBoard
from hypothesis import given
from hypothesis import strategies as st

from capsbench import __version__
from capsbench.dataset.atomic import whole_file
from capsbench.measure.environment import describe_machine
from capsbench.network.serialize import from_json, to_json
from capsbench.runner.assemble import DataFacts, Draft, assemble
from capsbench.runner.dask import attempt as attempts
from capsbench.runner.dask import group_task
from capsbench.runner.dask.group_task import RECORD, GroupTask, check_worker, read_files, timing_turn
from capsbench.runner.dask.placement import DaskWorker, PendingGroup, place, reason_against, unplaceable_reason
from capsbench.runner.launch import Abandoned
from capsbench.store.runs import create
from capsbench.worker.checkpoint import CHECKPOINT
from capsbench.worker.messages import Done, Place

CASE = make_case()
WORKERS = st.lists(
    st.builds(
        DaskWorker,
        name=st.sampled_from("abcd"),
        address=st.just("tcp://there:1"),
        threads=st.integers(1, 4),
        gpus=st.sampled_from([0.0, 1.0]),
        is_idle=st.booleans(),
    ),
    unique_by=lambda worker: worker.name,
)
GROUPS = st.lists(
    st.builds(
        PendingGroup,
        cases=st.tuples(
            st.builds(make_case, threads=st.integers(1, 5), device=st.sampled_from(["cpu", "cuda", "cuda:1"]))
        ),
        losses=st.lists(st.tuples(st.sampled_from("abcd"), st.just("left")), max_size=2).map(tuple),
    ),
    max_size=5,
)


@given(GROUPS, WORKERS)
def test_placement_keeps_its_rules(groups, workers):
    """No worker takes two groups, nor one that does not fit, nor one back while another could ever take it."""
    placed = place(groups, workers, {})
    assert len({worker.name for _, worker in placed}) == len(placed)
    for group, at in placed:
        assert at.is_idle
        assert at.threads >= group.threads
        assert at.gpus >= group.gpus
        fit = {each.name for each in workers if reason_against(group, each, {}) is None}
        lost_on = {name for name, _ in group.losses}
        assert at.name not in lost_on or fit <= lost_on
    for group in groups:
        fits = [reason_against(group, each, {}) is None for each in workers]
        assert (unplaceable_reason(group, workers, {}) is None) == any(fits)


def test_a_refusal_is_of_a_worker_or_of_a_data_set_there():
    """A worker without capsbench takes nothing; one without the data set takes the other data sets."""
    there = DaskWorker(name="a", address="tcp://there:1", threads=1)
    group = PendingGroup(cases=(CASE,))
    assert place([group], [there], {("tcp://other:1", None): "is another"}) == [(group, there)]
    for refusals in (
        {("tcp://there:1", None): "cannot run capsbench"},
        {("tcp://there:1", CASE.dataset): "cannot use the data set"},
    ):
        assert place([group], [there], refusals) == []
        reason = f"no worker takes the case: a {next(iter(refusals.values()))}"
        assert unplaceable_reason(group, [there], refusals) == reason


def test_small_workers_are_used_first():
    """What one thread can do is not put where a GPU or many threads are, as long as there is another place."""
    big, small = (DaskWorker(name=name, address=name, threads=n, gpus=n > 1) for name, n in (("big", 8), ("small", 1)))
    groups = [PendingGroup(cases=(CASE,)), PendingGroup(cases=(replace(CASE, seed=1),))]
    assert [at.name for _, at in place(groups, [big, small], {})] == ["small", "big"]


def task(**changes):
    made = GroupTask(run="run", cases=(CASE,), place=Place(), rounds=None, machine=describe_machine())
    return replace(made, **changes)


def a_record(run, case=CASE):
    end = Done(status="crash", reason="why")
    return assemble(Draft(case, DataFacts(), end=end), run, describe_machine())


def test_a_task_survives_the_journey():
    """The worker reads the task that was sent, whatever text stands in it."""
    sent = task(data=DataFacts({}, ("ü\n\x00", "lone \ud800"), ("no",)), rounds=3)
    read = from_json(GroupTask, to_json(sent))
    assert read == replace(sent, data=replace(sent.data, notes=("ü\n\x00", "lone ?")))


def test_a_worker_runs_its_own_version_only():
    """A worker with another capsbench refuses and names both versions."""
    assert check_worker(__version__) == ""
    assert check_worker("0.0") == f"has capsbench {__version__}, and the run is kept by 0.0"


@pytest.fixture
def dask_worker(tmp_path):
    """As much of a Dask worker as a task looks at; its events are kept."""
    state = SimpleNamespace(tasks={"key": SimpleNamespace(state="executing")})
    events = []
    return SimpleNamespace(
        local_directory=str(tmp_path),
        state=state,
        status=SimpleNamespace(name="running"),
        events=events,
        log_event=lambda topic, event: events.append({**event, "topic": topic}),
    )


def test_files_are_announced_as_they_change(dask_worker):
    """While a case trains, each new checkpoint is announced once; at its end so is all that it has written since."""
    reporter = group_task._Reporter(dask_worker, "key", task())
    folder = reporter.artifacts(CASE.id)

    def announced():
        found = [event["files"] for event in dask_worker.events if event["kind"] in ("files", "record")]
        dask_worker.events.clear()
        return found

    reporter.case_stage(CASE, "accuracy", 0, 9, "")
    assert announced() == []
    for epoch in (1, 2):
        with whole_file(folder / CHECKPOINT) as file:
            file.write(b"epoch %d" % epoch)
        for _ in range(2):
            reporter.case_stage(CASE, "accuracy", epoch, 9, "")
        assert announced() == [[CHECKPOINT]]
    (folder / "empty.json").write_bytes(b"")
    (folder / ".hidden.tmp").write_bytes(b"unfinished")
    record = a_record("run")
    reporter.append(record)
    assert announced() == [["empty.json"]]
    files = read_files("key", CASE.id, ["empty.json", "gone", RECORD], dask_worker=dask_worker)
    assert files == {"empty.json": b"", RECORD: to_json(record)}


@pytest.fixture
def attempt(tmp_path, monkeypatch):
    """An attempt at one case, and the files that its worker hands over."""
    files = {}
    monkeypatch.setattr(attempts, "call", lambda _client, addresses, *_arguments: {addresses[0]: dict(files)})
    there = DaskWorker(name="a", address="tcp://there:1", threads=1)
    store = create(tmp_path / "results", {})
    return attempts.Attempt(None, PendingGroup(cases=(CASE,)), there, store, MemoryBoard()), store, files


def announce(attempt, kind, case=CASE):
    return attempt.handle({"task": attempt.key, "kind": kind, "case": case.id, "files": []})


def test_files_and_record_of_a_case_are_kept(attempt):
    """Files stay in their case's folder, whatever they are called; a case has one record."""
    attempt, store, files = attempt
    files.update({"trace.json": b"trace", "../escaped": b"x", RECORD: to_json(a_record(store.run_id))})
    for _ in range(2):
        announce(attempt, "record")
    assert list(store.records()) == [a_record(store.run_id)]
    assert {path.name for path in store.artifacts(CASE.id).iterdir()} == {"trace.json", "escaped"}
    assert announce(attempt, "finished")


def test_a_record_is_that_of_its_case(attempt):
    """What is no record, or one of another run or case, is not kept, nor is an end without a record believed."""
    attempt, store, files = attempt
    others = a_record("another-run"), a_record(store.run_id, replace(CASE, id="other"))
    for text in (b"{}", b"nonsense", to_json(a_record(store.run_id))[:-20], *map(to_json, others)):
        files[RECORD] = text
        with pytest.raises(attempts.LostError):
            announce(attempt, "record")
    announce(attempt, "record", replace(CASE, id="other"))
    with pytest.raises(attempts.LostError, match="without a record"):
        announce(attempt, "finished")
    assert list(store.records()) == []


@pytest.mark.parametrize(
    ("task_state", "status"), [(None, "running"), ("cancelled", "running"), ("executing", "closing")]
)
def test_a_task_without_a_client_or_scheduler_is_not_wanted(dask_worker, task_state, status):
    """Dask forgets or cancels a task that its client has released, and closes a worker that lost its scheduler."""
    reporter = group_task._Reporter(dask_worker, "key", task())
    assert reporter.is_wanted()
    dask_worker.state.tasks = {} if task_state is None else {"key": SimpleNamespace(state=task_state)}
    dask_worker.status.name = status
    assert not reporter.is_wanted()


def test_one_worker_of_a_machine_times_at_once(tmp_path, monkeypatch):
    """A second worker waits for its turn to time while its task is wanted; none waits where there can be no lock."""
    monkeypatch.setattr(group_task, "gettempdir", lambda: str(tmp_path))
    with timing_turn(lambda: True), pytest.raises(Abandoned), timing_turn(lambda: False):
        pass
    monkeypatch.setattr(group_task, "gettempdir", lambda: str(tmp_path / "nowhere"))
    with timing_turn(lambda: False), timing_turn(lambda: False):
        pass
