"""The 2018 study's claims: held against the right numbers, and never beyond what a run can say."""

from dataclasses import replace

import pytest
from sample_records import case, distribution, exact, record, run, schema_1
from sample_seed import MNIST, PROFILE, TOYS, on_device, profiled, seed_run, trained

from capsbench.record.schema import SplitFacts
from capsbench.report.finding import UNCHECKED
from capsbench.report.seed import is_seed_study, seed_findings, seed_table
from capsbench.report.tables import report

HOLDS, FAILS = "holds", "does not hold"
OPS = {"BatchMatMul": 297.25, "Mul": 513.12, "Sum": 21.48, "Sub": 163.70, "Conv2D": 14.56, "Tile": 326.25}


def verdicts(records):
    """Verdict by the first words of the claim."""
    return {finding.claim: finding.verdict for finding in seed_findings(records)}


def finding(records, words):
    """The one finding whose claim has these words."""
    [found] = [each for each in seed_findings(records) if words in each.claim]
    return found


def with_megabytes(op, megabytes):
    """A profile in which an op allocated exactly this."""
    events = tuple(
        replace(each, allocated_bytes=round(megabytes * 1e6)) if each.op == op else each for each in PROFILE.events
    )
    return profiled(forward_profile=replace(PROFILE, events=events))


@pytest.mark.parametrize("op", ["Mul", "Sum", "Sub", "Tile"])
@pytest.mark.parametrize(
    ("factor", "wanted"), [(1.0, HOLDS), (1.049, HOLDS), (0.951, HOLDS), (1.051, FAILS), (0.949, FAILS)]
)
def test_bytes_hold_within_five_percent(op, factor, wanted):
    """Ops that a CPU runs as the study's device did must come within 5 % of its bytes."""
    found = finding([with_megabytes(op, OPS[op] * factor)], f"bytes of {op}")
    assert (found.verdict, found.theirs) == (wanted, f"{OPS[op]:.2f} MB")


@pytest.mark.parametrize("op", ["BatchMatMul", "Conv2D"])
def test_what_only_a_gpu_allocates_is_not_held_against_a_cpu(op):
    """Pointer lists and workspace leave two ops incomparable on a CPU, whatever they allocate; on a GPU they count."""
    equal = with_megabytes(op, OPS[op])
    found = finding([equal], f"bytes of {op}")
    assert found.verdict == UNCHECKED
    assert "GPU" in found.why
    assert finding([on_device(equal, "cuda:0")], f"bytes of {op}").verdict == HOLDS


def test_a_fused_sub_is_named():
    """Where SquaredDifference counts as Sub, the reason says so."""
    assert "SquaredDifference counts as Sub" in finding(seed_run(), "bytes of Sub").why


@pytest.mark.parametrize(("seconds", "wanted"), [(0.9, HOLDS), (0.01, FAILS)])
def test_most_of_the_time_is_more_than_half(seconds, wanted):
    """The vote product must take more time than all other ops together."""
    events = tuple(replace(each, self_seconds=seconds) if each.op == "BatchMatMul" else each for each in PROFILE.events)
    found = finding([profiled(forward_profile=replace(PROFILE, events=events))], "BatchMatMul takes most")
    assert found.verdict == wanted


def per_layer(quantity, values):
    """A profile with one op a layer that spent this much."""
    spent = {"self_seconds": 0.0, "allocated_bytes": 0}
    events = tuple(
        replace(PROFILE.events[0], layer=layer, **{**spent, quantity: value}) for layer, value in values.items()
    )
    return [profiled(forward_profile=replace(PROFILE, events=events))]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"conv1": 1, "primary": 2, "conv_caps1": 9, "conv_caps2": 3}, HOLDS),
        ({"conv1": 1, "primary": 2, "conv_caps1": 3, "conv_caps2": 9}, FAILS),
        ({"conv1": 1, "primary": 2}, UNCHECKED),
    ],
)
def test_memory_must_peak_in_the_first_convolutional_capsules(values, wanted):
    """The layer that allocates most is conv_caps1, or the claim fails; without that layer nobody can tell."""
    assert finding(per_layer("allocated_bytes", values), "memory per layer").verdict == wanted


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"class_caps": 4.0, "conv1": 1.0, "conv_caps1": 2.0}, HOLDS),
        ({"class_caps": 2.0, "conv1": 1.0, "conv_caps1": 4.0}, FAILS),
        ({"conv1": 1.0}, UNCHECKED),
    ],
)
def test_time_must_grow_from_layer_to_layer(values, wanted):
    """In the network's order, not that of the events, no layer may take less time than the one before."""
    assert finding(per_layer("self_seconds", values), "time grows").verdict == wanted


@pytest.mark.parametrize(("second", "wanted"), [(0.5, HOLDS), (0.2, FAILS)])
def test_sparser_is_by_hoyer_on_the_oriented_data_set(second, wanted):
    """conv_caps2 must be sparser than conv_caps1; MNIST is not asked, and toys are said to be synthetic."""
    shapes = (distribution("conv_caps1", hoyer=0.3), distribution("conv_caps2", hoyer=second))
    found = finding([trained("mnist", MNIST, 0.9), trained("toys", shapes, 0.9)], "sparser")
    assert found.verdict == wanted
    assert "synthetic" in found.why
    assert verdicts([trained("mnist", MNIST, 0.9)])[found.claim] == UNCHECKED


def test_the_real_data_set_goes_before_its_stand_in():
    """Where smallNORB was run, toys are not asked."""
    flat = (distribution("conv_caps1", hoyer=0.9), distribution("conv_caps2", hoyer=0.1))
    found = finding([trained("toys", TOYS, 0.9), trained("smallnorb", flat, 0.85)], "sparser")
    assert (found.verdict, "synthetic" in found.why) == (FAILS, False)


@pytest.mark.parametrize(("deviation", "wanted"), [(0.2, HOLDS), (0.01, FAILS)])
def test_wider_is_by_the_deviation_of_the_poses(deviation, wanted):
    """Poses of conv_caps1 must spread more on the oriented data set; without either nobody can tell."""
    wide = (distribution("conv_caps1", "poses", deviation=deviation),)
    upright = trained("mnist", MNIST, 0.9)
    found = finding([upright, trained("toys", wide, 0.9)], "poses of conv_caps1")
    assert found.verdict == wanted
    assert verdicts([upright])[found.claim] == verdicts([trained("toys", wide, 0.9)])[found.claim] == UNCHECKED


FULL = {"train": SplitFacts(count=60_000, full_count=60_000, sha256="a")}


@pytest.mark.parametrize(
    ("accuracy", "data", "wanted"),
    [
        (0.986, FULL, HOLDS),
        (0.995, FULL, HOLDS),
        (0.979, FULL, HOLDS),
        (0.978, FULL, FAILS),
        (0.978, record().data, UNCHECKED),
        (0.98, record().data, HOLDS),
    ],
)
def test_accuracy_holds_within_the_studys_own_error(accuracy, data, wanted):
    """Two standard errors of its 1,000 test images are allowed; a part of the training images refutes nothing."""
    assert finding([trained("mnist", (), accuracy, data=data)], "accuracy on MNIST").verdict == wanted


def test_what_cannot_be_checked_says_why():
    """Fashion-MNIST never can; smallNORB not without its files, whatever the toys reach."""
    fashion = finding([trained("fashion-mnist", (), 0.9)], "Fashion-MNIST")
    assert (fashion.verdict, fashion.ours) == (UNCHECKED, "90.00 %")
    norb = finding(seed_run(), "smallNORB")
    assert (norb.verdict, norb.ours) == (UNCHECKED, "—")
    assert "toys are synthetic" in norb.why
    assert finding([trained("smallnorb", (), 0.84)], "smallNORB").verdict == HOLDS


def test_a_run_without_the_cases_claims_nothing():
    """With other networks, old records, or none, every claim is there, undecided, and says what is missing."""
    for records in ([], [schema_1(metrics={})], [record(case("cnn-seed"))]):
        found = seed_findings(records)
        assert {each.verdict for each in found} == {UNCHECKED}
        assert all(each.why and each.theirs for each in found)


def test_several_trained_cases_are_averaged():
    """Backends and seeds count alike."""
    two = [trained("mnist", (), 0.99), trained("mnist", (), 0.98)]
    assert finding(two, "accuracy on MNIST").ours == "98.50 %"


def test_every_claim_is_a_row_with_one_of_three_words():
    """The table holds each finding once, in words that a reader can count on."""
    table = seed_table(seed_run())
    assert len(table.rows) == len(seed_findings(seed_run())) == 14
    assert {row[-1].text for row in table.rows} <= {HOLDS, FAILS, UNCHECKED}


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ({"suites": [{"file": "a.yaml", "suite": {"name": "seed"}}]}, True),
        ({"suites": [{"suite": {"name": "mnist"}}, {"suite": {"name": "seed"}}]}, True),
        ({"suites": [{"suite": {"name": "seeds"}}]}, False),
        ({"suites": "seed"}, False),
        ({"suites": ["seed", None, {"suite": "seed"}]}, False),
        ({}, False),
    ],
)
def test_the_study_is_known_by_the_name_of_its_suite(header, wanted):
    """run.json decides; one of another make is no error."""
    assert is_seed_study(header) is wanted


def test_the_claims_are_the_last_table_of_the_studys_run_only():
    """Other runs do not print them."""
    assert report(seed_run(), seed_study=True).tables[-1].title == "The claims of the 2018 study"
    assert not any("claims" in table.title for table in report(run()).tables)


def test_an_accuracy_that_is_not_a_number_holds_nothing():
    """NaN does not pass for the published accuracy."""
    nan = record(metrics={"accuracy": exact(float("nan"), "1")}, data=FULL)
    assert finding([nan], "accuracy on MNIST").verdict == FAILS
