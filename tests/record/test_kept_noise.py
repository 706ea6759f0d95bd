"""The noise floor on disk: what was recorded of a machine is read back, of no other, and never half."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from capsbench.errors import BadInput
from capsbench.measure.environment import Machine, describe_machine
from capsbench.record.noise import (
    Noise,
    Process,
    Recording,
    floors_of,
    for_header,
    from_header,
    keep_noise,
    kept_noise,
    noise_path,
)
from capsbench.stats.noise import Floor

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from sample_records import case

MACHINE = Machine(processor="Abacus µ", cores=2, memory_bytes=1 << 30, system="Linux 1", architecture="wood")
TIMES = [0.100, 0.104, 0.098, 0.101, 0.103, 0.099, 0.102, 0.097]


def recorded(times=TIMES, **changes):
    """A recording of two blocks."""
    processes = tuple(
        Process(
            side=side,
            started_seconds=2.5 * number,
            load=0.25,
            contended=number,
            medians={"train_step_seconds": seconds, "forward_seconds": seconds / 3, "compile_seconds": 0.0},
        )
        for number, (side, seconds) in enumerate(zip("ABBAABBA", times, strict=True))
    )
    recording = Recording(
        backend="torch",
        mode="eager",
        device="cpu",
        threads=2,
        allocator="heap",
        work="em-tiny on toys, batch 50",
        measured="2026-11-26T10:00:00+00:00",
        versions={"torch": "2.13.0"},
        floors=floors_of(processes),
        processes=processes,
    )
    return replace(recording, **changes)


def test_what_is_kept_is_read_back(tmp_path):
    """To the bit; every setting has its last recording, and another machine knows nothing."""
    assert kept_noise(tmp_path, MACHINE) is None
    first, other = recorded(), recorded(backend="tensorflow", mode="graph")
    keep_noise(tmp_path, first, MACHINE)
    keep_noise(tmp_path, other, MACHINE)
    again = recorded(TIMES[::-1])
    assert keep_noise(tmp_path, again, MACHINE) == kept_noise(tmp_path, MACHINE)
    assert kept_noise(tmp_path, MACHINE).recordings == (other, again)
    assert kept_noise(tmp_path, replace(MACHINE, cores=4)) is None


def test_this_machine_is_the_one_that_is_meant(tmp_path):
    """Without one that is named."""
    keep_noise(tmp_path, recorded())
    assert kept_noise(tmp_path).machine == describe_machine()
    assert noise_path(tmp_path, describe_machine()).is_file()


def test_floors_follow_from_the_processes(tmp_path):
    """What stands in the file can be worked out again from the medians beside it; a time of nothing has no floor."""
    keep_noise(tmp_path, recorded(), MACHINE)
    [back] = kept_noise(tmp_path, MACHINE).recordings
    assert floors_of(back.processes) == back.floors
    assert {each.metric for each in back.floors} == {"train_step_seconds", "forward_seconds"}


def test_what_pairs_have_in_common_is_no_noise(tmp_path):
    """Pair after pair the machine is another, within a pair it is the same: floors in turns are those of pairs."""
    moments = [0.1, 0.1, 0.2, 0.2, 0.13, 0.13, 0.17, 0.17]
    noise = keep_noise(
        tmp_path, recorded([first * second for first, second in zip(moments, TIMES, strict=True)]), MACHINE
    )
    floors = {each.processes: each for each in noise.recordings[0].floors if each.metric == "train_step_seconds"}
    assert floors[1].interleaved == pytest.approx(0.102 / 0.097 - 1.0)
    assert floors[1].apart > 0.3


def test_the_floor_is_the_largest_for_ten_a_side():
    """Of train step and forward pass over all recordings; what was compiled plays no part."""

    def floors(train, forward, compiling):
        names = ("train_step_seconds", "forward_seconds", "compile_seconds")
        shares = zip(names, (train, forward, compiling), strict=True)
        return tuple(
            Floor(metric=name, processes=count, interleaved=share / count, apart=2 * share / count)
            for name, share in shares
            for count in (5, 10, 20)
        )

    noise = keep_noise_of(recorded(floors=floors(0.4, 0.3, 9.0)), recorded(threads=1, floors=floors(0.2, 0.6, 9.0)))
    assert noise.floor == pytest.approx(0.06)


def keep_noise_of(*recordings):
    """Noise of these, in memory."""
    return Noise(machine=MACHINE, recordings=recordings)


def test_a_case_is_held_to_its_own_realization():
    """Its backend's and mode's floor, else the largest of such a device; of a GPU a CPU says none."""

    def flat(share, **changes):
        floor = Floor(metric="train_step_seconds", processes=3, interleaved=share, apart=2 * share)
        return recorded(floors=(floor,), **changes)

    noise = keep_noise_of(flat(0.1), flat(0.2, backend="tensorflow", mode="graph"))

    def floor(metric="train_step_seconds", processes=3, interleaved=True, **changes):
        return noise.floor_of(replace(case(), **changes), metric, processes, interleaved=interleaved)

    assert floor(backend="torch", mode="eager") == 0.1
    assert floor(backend="torch", mode="eager", interleaved=False) == 0.2
    assert floor(backend="torch", mode="compile") == 0.2
    assert floor(device="cuda:0") == 0.0
    assert floor("compile_seconds") == 0.0
    assert floor(processes=2) == 0.0


def test_run_json_says_it_without_the_processes(tmp_path):
    """The floors come back from a header as they went; nothing, nonsense and what is no longer meant has none."""
    noise = keep_noise(tmp_path, recorded(), MACHINE)
    header = json.loads(json.dumps({"noise": for_header(noise)}))
    assert header["noise"]["recordings"][0]["processes"] == []
    assert from_header(header).recordings == (recorded(processes=()),)
    assert from_header(header).floor == noise.floor
    assert for_header(None) is None
    for nothing in ({}, {"noise": None}, {"noise": 3}, {"noise": {**header["noise"], "schema": 99}}):
        assert from_header(nothing) is None
    assert header["noise"]["schema"] == 2
    before_pairs = {"noise": {**header["noise"], "schema": 1}}
    assert from_header(before_pairs) is None


def test_a_file_appears_whole(tmp_path, monkeypatch):
    """A write that fails leaves what was there, and no other file."""
    noise = keep_noise(tmp_path, recorded(), MACHINE)

    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(BadInput, match="cannot write results there: No space left"):
            keep_noise(tmp_path, recorded(TIMES[::-1]), MACHINE)
    assert kept_noise(tmp_path, MACHINE) == noise
    assert list((tmp_path / "noise").iterdir()) == [noise_path(tmp_path, MACHINE)]


@pytest.mark.parametrize(
    "broken",
    [
        lambda data: {**data, "schema": 1},  # whose processes ran one after the other
        lambda data: {**data, "schema": 3},
        lambda data: {**data, "machine": {**data["machine"], "cores": 64}},
        lambda data: {**data, "recordings": []},
        lambda data: {**data, "recordings": [{**data["recordings"][0], "floors": []}]},
        lambda data: {**data, "recordings": [{**data["recordings"][0], "processes": [{"side": "C"}]}]},
        lambda data: {
            **data,
            "recordings": [
                {
                    **data["recordings"][0],
                    "floors": [{**data["recordings"][0]["floors"][0], "interleaved": -0.1}],
                }
            ],
        },
        lambda _data: [],
    ],
)
def test_a_broken_file_is_named(tmp_path, broken):
    """What cannot be the noise of this machine is refused in a sentence, with the file and what to do."""
    keep_noise(tmp_path, recorded(), MACHINE)
    path = noise_path(tmp_path, MACHINE)
    path.write_text(json.dumps(broken(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        kept_noise(tmp_path, MACHINE)
    assert str(caught.value) == (
        f"{path}: this does not hold the noise of this machine; remove it, and `capsbench doctor --noise` records anew"
    )


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"null"])
def test_a_torn_file_is_no_noise(tmp_path, content):
    """Refused in the same words; a folder in its place is said to be one."""
    path = noise_path(tmp_path, MACHINE)
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(BadInput, match="does not hold the noise"):
        kept_noise(tmp_path, MACHINE)
    path.unlink()
    path.mkdir()
    with pytest.raises(BadInput, match="cannot read it: Is a directory"):
        kept_noise(tmp_path, MACHINE)
