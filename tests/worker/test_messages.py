import json
import math

from hypothesis import given
from hypothesis import strategies as st

from capsbench.backend import Setting
from capsbench.measure.ceilings import Ceilings
from capsbench.measure.clock import Sample, Timing
from capsbench.measure.distribution import Distribution, RoutingIteration
from capsbench.measure.optable import LiveTensor, OpEvent, StepProfile
from capsbench.network.cost import LayerCost
from capsbench.record.schema import Metric, Parity, SplitFacts
from capsbench.worker import messages as m

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
COUNT = st.integers(0, 2**60)
FLOAT = st.floats(allow_nan=False)
OPTIONAL = st.none() | st.integers(0, 100)
METRIC = st.builds(
    Metric,
    value=FLOAT | COUNT,
    unit=TEXT,
    direction=st.sampled_from(["lower", "higher", "none"]),
    kind=st.sampled_from(["exact", "sampled"]),
    samples=st.lists(FLOAT, max_size=4).map(tuple),
    interval=st.none() | st.tuples(FLOAT, FLOAT),
    contended=COUNT,
)
PARITY = st.builds(
    Parity,
    oracle=TEXT,
    forward_max_relative_error=FLOAT,
    gradient_relative_error=FLOAT,
    forward_limit=FLOAT,
    gradient_limit=FLOAT,
    passed=st.booleans(),
)
PHASE = st.sampled_from(["forward", "backward", "optimizer"])
EVENT = st.builds(OpEvent, TEXT, TEXT, st.none() | TEXT, PHASE, OPTIONAL, COUNT, FLOAT, COUNT, COUNT)
TENSOR = st.builds(
    LiveTensor, st.none() | TEXT, st.none() | TEXT, st.none() | TEXT, st.none() | PHASE, OPTIONAL, COUNT, COUNT
)
PROFILE = st.builds(
    StepProfile,
    st.lists(EVENT, max_size=3).map(tuple),
    FLOAT,
    COUNT,
    st.none() | FLOAT,
    st.none() | COUNT,
    st.lists(TENSOR, max_size=3).map(tuple),
)
COST = st.builds(LayerCost, TEXT, TEXT, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT)
DISTRIBUTION = st.builds(
    Distribution,
    layer=TEXT,
    quantity=st.sampled_from(["activations", "poses", "votes"]),
    images=COUNT,
    count=COUNT,
    mean=FLOAT,
    deviation=FLOAT,
    least=FLOAT,
    greatest=FLOAT,
    quantiles=st.lists(FLOAT, max_size=7).map(tuple),
    sparse_share=FLOAT,
    hoyer=FLOAT,
    dead_share=st.none() | FLOAT,
)
ITERATION = st.builds(
    RoutingIteration,
    layer=TEXT,
    iteration=COUNT,
    coupling_entropy=FLOAT,
    agreement_gain=FLOAT,
    starved_share=FLOAT,
)
SAMPLE = st.builds(Sample, FLOAT, COUNT, st.none() | FLOAT, OPTIONAL, st.none() | st.booleans())
TIMING = st.builds(Timing, FLOAT, COUNT, st.lists(SAMPLE, max_size=3).map(tuple), FLOAT, FLOAT)
FACTS = st.builds(SplitFacts, count=COUNT, full_count=COUNT, sha256=TEXT)
MESSAGE = st.one_of(
    st.builds(m.Progress, stage=TEXT, done=COUNT, total=COUNT, detail=TEXT),
    st.builds(m.ProbePart, versions=st.dictionaries(TEXT, TEXT), devices=st.lists(TEXT).map(tuple)),
    st.builds(m.ParityPart, network=TEXT, parity=st.none() | PARITY, reason=TEXT),
    st.builds(m.MetricsPart, metrics=st.dictionaries(TEXT, METRIC, max_size=3)),
    st.builds(m.EquationsPart, layers=st.lists(COST, max_size=3).map(tuple)),
    st.builds(m.OpsPart, train_step=PROFILE, forward=PROFILE),
    st.builds(
        m.DistributionsPart,
        distributions=st.lists(DISTRIBUTION, max_size=2).map(tuple),
        routing=st.lists(ITERATION, max_size=2).map(tuple),
    ),
    st.builds(m.CeilingsPart, ceilings=st.none() | st.builds(Ceilings, FLOAT, FLOAT)),
    st.builds(m.RoundPart, forward=TIMING, train_step=TIMING, overhead_share=FLOAT, peak_rss_bytes=COUNT),
    st.builds(m.DataPart, data=st.dictionaries(TEXT, FACTS, max_size=2)),
    st.builds(m.NotesPart, notes=st.lists(TEXT).map(tuple)),
    st.builds(m.ArtifactsPart, files=st.lists(TEXT).map(tuple)),
    st.builds(m.Done, status=st.sampled_from(["ok", "oom", "crash", "bad_input"]), reason=TEXT),
)


@given(MESSAGE)
def test_messages_survive_the_pipe(message):
    """Every message is one line, and that line is the message."""
    line = m.encode(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert m.decode_message(line) == message


@given(st.binary(max_size=200))
def test_noise_is_no_message(line):
    """Whatever stands on the pipe, reading it raises nothing."""
    assert m.decode_message(line) is None


def test_other_json_is_no_message():
    """JSON of another shape is noise too."""
    for value in (1, [], {}, {"kind": "other"}, {"kind": "done", "status": "splendid"}, {"kind": "progress"}):
        assert m.decode_message(json.dumps(value).encode()) is None


def test_not_a_number_survives():
    """A parity that is not finite arrives as it was sent."""
    parity = Parity(
        oracle="numpy",
        forward_max_relative_error=math.nan,
        gradient_relative_error=math.inf,
        forward_limit=1e-5,
        gradient_limit=1e-4,
        passed=False,
    )
    read = m.decode_message(m.encode(m.ParityPart(network="linear", parity=parity)))
    assert math.isnan(read.parity.forward_max_relative_error)
    assert read.parity.gradient_relative_error == math.inf


def test_jobs_survive_the_pipe(make_case):
    """Every job, with the whole case in it, is read as it was written."""
    case, place = make_case(), m.Place(data_root="data", artifacts="there")
    sized = m.SizedNetwork(network=case.network, image=(28, 28, 1), classes=10)
    jobs = (
        m.ProbeJob(backend="fake"),
        m.DataJob(dataset=case.dataset, place=place),
        m.ParityJob(backend="fake", setting=Setting("fast"), networks=(sized,)),
        m.CheckJob(case=case, place=place),
        m.TimeJob(case=case, place=place),
        m.AccuracyJob(case=case, place=place),
        m.CeilingsJob(backend="fake", setting=Setting("fast", device="cuda:1", precision="float64", threads=3)),
    )
    for job in jobs:
        assert m.decode_job(m.encode(job)) == job
