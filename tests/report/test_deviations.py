"""The ledger of deviations: sound, read strictly, and differences go the way that they say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsbench.errors import BadInput
from capsbench.measure.optable import OpEvent, StepProfile
from capsbench.report.deviations import calls, differences, read_deviations

counts = st.dictionaries(st.sampled_from("ABCD"), st.integers(1, 3))


@given(counts, counts)
def test_differences_name_the_framework_with_more_calls(torch, tensorflow):
    """Equal counts are no difference, an op that one side lacks is; turned round, each points the other way."""
    found = differences(torch, tensorflow)
    for op in "ABCD":
        ours, theirs = torch.get(op, 0), tensorflow.get(op, 0)
        assert ((op, "torch") in found) == (ours > theirs)
        assert ((op, "tensorflow") in found) == (ours < theirs)
    other = {"torch": "tensorflow", "tensorflow": "torch"}
    assert differences(tensorflow, torch) == {(op, other[more]) for op, more in found}
    assert differences(torch, torch) == set()


def test_calls_are_summed_over_layers_and_iterations():
    """Events of one op are one count, and what is never called has none."""
    events = [OpEvent("Mul", "mul", layer, "forward", i, 2, 0.1, 4) for layer in "ab" for i in (0, 1)]
    events.append(OpEvent("Dispatch", "executor", None, "forward", None, 0, 0.1, 0))
    assert calls(StepProfile(tuple(events), 1.0, 16)) == {"Mul": 8}


def test_the_ledger_is_sound():
    """It is read, sorted by op, and every reason is a sentence that names the framework with more or fewer calls."""
    ledger = read_deviations()
    assert [each.op for each in ledger] == sorted(each.op for each in ledger)
    for each in ledger:
        assert each.reason.endswith(".")
        assert "TensorFlow" in each.reason or "PyTorch" in each.reason


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (
            "[{op: Mul, more: torch, reason: because it does so}, {op: Mul, more: torch, reason: because it does so}]",
            "deviations[1]: Mul with more calls in torch comes twice",
        ),
        ("[{op: Mul, more: jax, reason: because it does so}]", "'jax' is not legal, legal are 'torch' or 'tensorflow'"),
        ("[{op: Mul, more: torch}]", "ledger.yaml:1:deviations[0].reason: this key is required but missing"),
        ("[{op: Mul, more: torch, reason: so}]", "at least 10 characters"),
        ("[{op: Mul, less: torch}]", "unknown key 'less', legal are more, op, reason"),
    ],
)
def test_a_bad_ledger_is_refused(tmp_path, entries, says):
    """At file, line and key, like everything that people write."""
    path = tmp_path / "ledger.yaml"
    path.write_text(f"deviations: {entries}", encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        read_deviations(path)
    assert says in str(caught.value)
