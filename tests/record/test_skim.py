"""Lines read where they are asked say what a full reading says."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_store import SCHEMA_1, SCHEMA_2, SCHEMA_3, record, records

from capsbench.measure.optable import OpEvent
from capsbench.record import skim
from capsbench.record.codec import decode, encode
from capsbench.record.schema import SCHEMA, Metric

EVENT = OpEvent('M"calls":9', "mul", None, "forward", None, 7, 0.1, 1)
NUMBER = Metric(value=3, unit="B", direction="lower", kind="exact")


@settings(max_examples=40)
@given(records(), st.data())
def test_any_line_says_the_same(found, data):
    """Case, status, fingerprint, metric, names: as in the whole record, or else nothing, so that it is parsed."""
    line = encode(found)
    whole = decode(line, "here")
    name = data.draw(st.sampled_from([*found.metrics, "peak_bytes", skim.OP_CALLS]))
    seen = skim.glimpse(line, name)
    assert seen is None or repr(seen) == repr(skim.of_record(whole, name))
    assert skim.outcome(line) in {None, (whole.case.id, whole.status)}
    assert set(skim.metric_names(line)) - {skim.OP_CALLS} <= set(whole.metrics)


@pytest.mark.parametrize("path", [SCHEMA_1, SCHEMA_2, SCHEMA_3], ids=["schema 1", "schema 2", "schema 3"])
def test_old_lines_need_no_parsing(path):
    """Lines of earlier versions are read at once as well."""
    for line in path.read_bytes().splitlines(keepends=True):
        whole = decode(line, "here")
        for name in ("train_step_seconds", "parameters", skim.OP_CALLS, "nothing"):
            assert skim.glimpse(line, name) == skim.of_record(whole, name)
        assert set(skim.metric_names(line)) - {skim.OP_CALLS} == set(whole.metrics)
        assert (skim.OP_CALLS in skim.metric_names(line)) == bool(whole.ops)


@pytest.mark.parametrize("name", ["peak_bytes", 'a"b', "ä", "x,y", "ops", "metrics"])
def test_texts_cannot_pass_for_keys(name):
    """A reason, an op or a unit that looks like a metric is none; the metric is found beside them."""
    trap = f'}},"metrics":{{"{name}":{{"value":1}}}},"ops":[{{"calls":5'
    odd = Metric(value=1, unit=trap, direction="none", kind="exact")
    found = record(reason=trap, metrics={trap: odd, name: NUMBER}, ops=(EVENT, EVENT), notes=(trap,))
    line = encode(found)
    seen = skim.glimpse(line, name) or skim.of_record(decode(line, "here"), name)
    assert seen.metric == NUMBER
    assert skim.glimpse(encode(replace(found, metrics={})), name).metric is None
    assert skim.glimpse(encode(replace(found, metrics={})), skim.OP_CALLS).metric.value == 14


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line[:-3],
        lambda line: line.replace(b'"batch":8', b'"batch":[]'),
        lambda line: line.replace(b'"value":3', b'"value":3x'),
        lambda line: line.replace(b'"unit":"B"', b'"unit":[1]'),
        lambda line: line.replace(b'{"schema":%d' % SCHEMA, b'{"schema":%d' % (SCHEMA + 1)),
        lambda line: b" " + line,
    ],
)
def test_what_is_not_as_capsbench_writes_it_is_left_to_the_parser(spoil):
    """A torn end, a case or number that is none, a newer schema, another make: nothing is said of such a line."""
    line = encode(record(metrics={"peak_bytes": NUMBER}))
    assert skim.glimpse(line, "peak_bytes").metric == NUMBER
    assert skim.glimpse(spoil(line), "peak_bytes") is None
