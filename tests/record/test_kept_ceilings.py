"""Ceilings on disk: what was measured of a machine is read back, of no other, and never half."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsbench.errors import BadInput
from capsbench.measure.ceilings import Ceilings
from capsbench.measure.environment import Machine
from capsbench.record.ceilings import DeviceCeilings, ceilings_path, read_ceilings, write_ceilings

MACHINE = Machine(processor="Abacus µ", cores=2, memory_bytes=1 << 30, system="Linux 1", architecture="wood")
KNOWN = DeviceCeilings("cpu", 2, "float32", "torch", Ceilings(7e10, 1.4e10))

rates = st.floats(min_value=1e-300, allow_nan=False, allow_infinity=False)
ceilings = st.builds(
    DeviceCeilings,
    st.sampled_from(["cpu", "cuda:0", "cuda:1"]),
    st.integers(1, 64),
    st.sampled_from(["float32", "float64"]),
    st.text(max_size=9),
    st.builds(Ceilings, rates, rates),
)


@settings(max_examples=40)
@given(known=st.lists(ceilings, max_size=5))
def test_what_is_written_is_read_back(tmp_path, known):
    """To the bit and in order; of several measurements of one thing the last one stays."""
    write_ceilings(tmp_path, MACHINE, known)
    last = {(each.device, each.threads, each.precision, each.backend): each for each in known}
    assert read_ceilings(tmp_path, MACHINE) == tuple(last.values())


def test_every_machine_has_a_file_of_its_own(tmp_path):
    """Other hardware, or another system on it, knows nothing of what was measured here."""
    write_ceilings(tmp_path, MACHINE, [KNOWN])
    for other in (replace(MACHINE, cores=4), replace(MACHINE, system="Linux 2"), replace(MACHINE, processor="B")):
        assert read_ceilings(tmp_path, other) == ()
        assert ceilings_path(tmp_path, other) != ceilings_path(tmp_path, MACHINE)
    assert read_ceilings(tmp_path / "elsewhere", MACHINE) == ()


def test_a_file_appears_whole(tmp_path, monkeypatch):
    """A write that fails leaves what was there, and no other file."""
    write_ceilings(tmp_path, MACHINE, [KNOWN])

    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(BadInput, match="cannot write results there: No space left"):
            write_ceilings(tmp_path, MACHINE, [])
    assert read_ceilings(tmp_path, MACHINE) == (KNOWN,)
    assert list((tmp_path / "ceilings").iterdir()) == [ceilings_path(tmp_path, MACHINE)]


def change(**changes):
    """A function that changes what a file holds."""
    return lambda data: {**data, **changes}


def one(**changes):
    """A function that changes the one measurement of a file."""
    return lambda data: {**data, "ceilings": [{**data["ceilings"][0], **changes}]}


@pytest.mark.parametrize(
    "broken",
    [
        change(schema=2),
        change(machine={}),
        lambda data: {**data, "machine": {**data["machine"], "cores": 64}},
        change(ceilings=3),
        one(threads="many"),
        one(ceilings={"flops_per_second": 0.0, "bytes_per_second": 1.0}),
        one(ceilings={"flops_per_second": 1.0, "bytes_per_second": float("nan")}),
        one(ceilings={"flops_per_second": float("inf"), "bytes_per_second": 1.0}),
        one(ceilings=None),
    ],
)
def test_a_broken_file_is_named(tmp_path, broken):
    """What cannot be the ceilings of this machine is refused, with the file and how to come by a sound one."""
    write_ceilings(tmp_path, MACHINE, [KNOWN])
    path = ceilings_path(tmp_path, MACHINE)
    path.write_text(json.dumps(broken(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        read_ceilings(tmp_path, MACHINE)
    assert str(caught.value) == (
        f"{path}: this does not hold ceilings of this machine; `capsbench doctor --again` measures anew"
    )


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"null"])
def test_noise_is_no_ceilings(tmp_path, content):
    """A torn or foreign file is refused in the same words."""
    path = ceilings_path(tmp_path, MACHINE)
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(BadInput, match="does not hold ceilings"):
        read_ceilings(tmp_path, MACHINE)
    path.unlink()
    path.mkdir()
    with pytest.raises(BadInput, match="cannot read it: Is a directory"):
        read_ceilings(tmp_path, MACHINE)
