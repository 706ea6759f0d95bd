"""A commit is like the side whose number is nearer, and git is given a line that no checkout can break."""

import shlex
import sys
from pathlib import Path

import pytest

import capsbench
from capsbench.record.compare import compare
from capsbench.record.pairs import Pair
from capsbench.track.bisection import Where, driver_outside, likeness, likeness_in_time, line, measures, worth_a_search
from capsbench.track.revisions import Repository, Revision

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from sample_records import case, event, exact, metrics, record, sampled

ROOT = Path(capsbench.__file__).parents[1]


def of(size, status="ok"):
    """A record with so many bytes."""
    return record(status=status, metrics=metrics() | {"allocated_bytes": exact(size, "B")})


@pytest.mark.parametrize(
    ("size", "like"),
    [(1_000, "base"), (1_400, "base"), (1_600, "head"), (2_000, "head"), (9_000, "head"), (10, "base")],
)
def test_what_repeats_is_like_the_nearer_side(size, like):
    """Small changes on the way, which are not what is searched for, do not count; likewise where less is worse."""
    assert likeness("allocated_bytes", Pair(of(1_000), of(2_000)), of(size)) == like
    assert likeness("allocated_bytes", Pair(of(2_000), of(1_000)), of(size)) == {"base": "head", "head": "base"}[like]


def test_what_cannot_be_measured_is_like_neither():
    """A failure, a number that is not there; but where a status is searched for, it is what counts."""
    kept = Pair(of(1_000), of(2_000))
    assert likeness("allocated_bytes", kept, of(1_000, "crash")) is None
    assert likeness("nosuch_bytes", kept, of(1_000)) is None
    broken = Pair(of(1_000), of(1_000, "oom"))
    found = [likeness("status", broken, of(1_000, status)) for status in ("ok", "oom", "crash")]
    assert found == ["base", "head", None]


def test_calls_are_counted_in_the_op_table():
    """One call more than BASE has, where HEAD has one more."""
    more = record(ops=(*record().ops, event("Copy", "aten::clone", "forward", 1, 0.0, 8)))
    assert likeness("op_calls", Pair(record(), more), more) == "head"
    assert measures("op_calls", ("memory", "ops")) == ("ops",)
    assert measures("status", ("memory", "ops")) == ("memory", "ops")


def test_times_are_compared_by_their_ratio_to_base():
    """Both machines and hours may differ: only what was measured in turns is compared."""

    def timed(seconds):
        return record(metrics={"train_step_seconds": sampled([seconds, seconds * 1.01, seconds * 0.99])})

    kept = Pair(timed(0.1), timed(0.12))
    for ratio, like in ((1.0, "base"), (1.08, "base"), (1.12, "head"), (1.3, "head")):
        assert likeness_in_time("train_step_seconds", kept, Pair(timed(0.5), timed(0.5 * ratio))) == like
    assert likeness_in_time("train_step_seconds", kept, Pair(timed(0.5), record(metrics={}))) is None


def test_the_line_names_what_repeats_best(tmp_path):
    """Bytes before times and peaks, one line a case; and it is a line that a shell reads as it was meant."""
    new = metrics(1.5) | {"allocated_bytes": exact(2_000_000_000, "B")}
    changes = worth_a_search(
        compare([Pair(record(), record(metrics=new)), Pair(record(case("em-yl")), record(case("em-yl")))])
    )
    assert [change.metric for change in changes] == ["allocated_bytes"]
    revisions = [Revision(name=name, commit=name * 40, subject="") for name in "ab"]
    where = Where(
        base_run="A", head_run="B", base=revisions[0], head=revisions[1], results=tmp_path / "my results", data=tmp_path
    )
    words = shlex.split(line(changes[0], where, tmp_path / "driver"))
    assert words[:9] == ["git", "bisect", "start", "b" * 10, "a" * 10, "&&", "git", "bisect", "run"]
    assert words[9:11] == ["env", f"PYTHONPATH={tmp_path / 'driver'}"]
    assert words[words.index("--results") + 1] == str(tmp_path / "my results")
    assert words[words.index("--metric") + 1] == "allocated_bytes"


def test_a_capsbench_that_a_checkout_would_change_is_copied(tmp_path):
    """Where it lies in the repository that is searched, and only there; the copy is whole."""
    assert driver_outside(Repository(root=tmp_path, project=Path()), tmp_path / "none") is None
    copy = driver_outside(Repository(root=ROOT, project=Path()), tmp_path / "driver")
    assert (copy / "capsbench" / "track" / "bisection.py").is_file()
    assert (copy / "capsbench" / "record" / "claims.yaml").is_file()
