"""At the peak: every byte once, votes and residents by name."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from reading import assert_adds_up
from sample_records import ALIVE, case, record, run, schema_1

from capsbench.measure.optable import LiveTensor
from capsbench.report.peak import peak_tables

tensors = st.lists(
    st.builds(
        LiveTensor,
        name=st.sampled_from([None, "votes", "parameters"]),
        op=st.sampled_from([None, "Mul", "Sum"]),
        layer=st.sampled_from([None, "conv1", "caps"]),
        phase=st.sampled_from([None, "forward", "backward"]),
        routing_iteration=st.sampled_from([None, 0, 1]),
        count=st.integers(1, 100),
        bytes=st.integers(0, 10**12),
    ),
    min_size=1,
    max_size=20,
).map(tuple)


@given(st.lists(tensors, min_size=1, max_size=3), st.integers(1, 5))
def test_what_is_alive_adds_up_to_the_peak(found, top):
    """Bytes, shares and blocks of all rows sum to the total, in every realization's columns, however rounded."""
    modes = ["eager", "compile", "fused"]
    records = [record(case(mode=mode), alive_at_peak=alive) for mode, alive in zip(modes, found, strict=False)]
    [table] = peak_tables(records, top=top)
    assert_adds_up(table)
    for i, alive in enumerate(found):
        total = table.rows[-1][3 + 3 * i : 6 + 3 * i]
        assert total[0].value == sum(tensor.bytes for tensor in alive)
        assert total[2].value == sum(tensor.count for tensor in alive)


def test_votes_and_residents_have_their_names():
    """The vote tensor is named with its layer, what was there before by what it is, others by their op."""
    [table] = peak_tables([record()])
    names = [tuple(cell.text for cell in row[:3]) for row in table.rows]
    assert names == [
        ("votes of conv_caps1", "conv_caps1", "forward"),
        ("Mul", "conv_caps2", "forward"),
        ("Sum", "conv_caps1", "forward"),
        ("optimizer state", "", "before the step"),
        ("parameters", "", "before the step"),
        ("batch", "", "before the step"),
        ("(unattributed)", "", ""),
        ("total", "", ""),
    ]
    assert table.rows[-2][3].value == 2_980_728


def test_tensors_alike_in_layer_and_op_are_one_row():
    """Iterations of one op in one layer are summed, and so are their blocks."""
    twice = (*ALIVE, replace(ALIVE[1], routing_iteration=1, bytes=5, count=4))
    [table] = peak_tables([record(alive_at_peak=twice)])
    assert [cell.value for cell in table.rows[1][3:]][::2] == [30_000_005, 7]


def test_the_memory_pass_is_the_witness():
    """Where the peak is the one that the memory pass counted, the table says so, and otherwise how far it is off."""
    same, more = peak_tables([record()])[0], peak_tables([record(alive_at_peak=ALIVE[:-1])])[0]
    assert "torch:eager: equal to the memory pass's peak." in same.notes
    assert "torch:eager: the memory pass, without the profiler, counted 156.8 kB more." in more.notes


def test_who_has_no_peak_has_no_table():
    """Old records and compiled modes without heap events are left out; evaluations have a peak of their own."""
    assert peak_tables([schema_1()]) == ()
    assert [each.group for each in peak_tables(run())[0].columns[3::3]] == ["torch:eager", "tensorflow:graph"]
    [table] = peak_tables([record()], which="forward")
    assert table.rows[-1][3].value == 92_160_000 + 5_941_976
