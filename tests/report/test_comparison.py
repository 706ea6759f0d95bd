"""The table of two runs."""

from printing import approved, printed_tables
from sample_records import EVENTS, case, exact, metrics, record, sampled

from capsbench.record.compare import compare
from capsbench.record.pairs import pair_cases
from capsbench.report.comparison import apart, comparison_tables, summary

STEPS = [0.2 + 0.001 * i for i in range(10)]


def two_runs():
    """Slower and smaller in one case, out of memory in another, better by a hair in a third, and cases alone."""
    base = [
        record(metrics=metrics() | {"train_step_seconds": sampled(STEPS)}, ops=EVENTS),
        record(case("cnn-seed", iterations=None)),
        record(case("em-68k")),
        record(case("em-yl")),
    ]
    slower = sampled([1.2 * step for step in STEPS])
    new = [
        record(
            metrics=metrics(accuracy=0.98) | {"train_step_seconds": slower, "peak_bytes": exact(99, "B")}, ops=EVENTS
        ),
        record(case("cnn-seed", iterations=None), status="oom"),
        record(case("em-68k"), metrics=metrics() | {"parameters": exact(1, "1", "none")}),
        record(case("em-<script>\x1b[31m")),
    ]
    return pair_cases(base, new)


def test_the_table_and_what_is_said_below_it():
    """Golden: only what changed or is undecided, exact ratios, intervals, words, and which cases stand alone."""
    pairing = two_runs()
    changes = compare(pairing.pairs)
    text = printed_tables(comparison_tables(changes, everything=False, margin=0.05))
    text += "\n".join([*summary(changes, pairing), *apart(pairing)])
    assert approved("comparison", text) == text


def test_what_is_the_same_is_shown_where_it_is_asked_for():
    """With everything the table has a row for every number compared; without changes there is none."""
    [pair, *_] = pair_cases([record()], [record()]).pairs
    changes = [change for change in compare([pair]) if change.verdict == "same"]
    assert comparison_tables(changes, everything=False, margin=0.05) == ()
    [table] = comparison_tables(changes, everything=True, margin=0.05)
    assert len(table.rows) == len(changes) > 3
