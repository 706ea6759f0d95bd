"""The event files, read back by a reader of our own: the record format is simple enough to check every byte of it."""

import math
import struct

import numpy as np
import pytest
import run_folder
from run_folder import LAYERS, ROUTED, key, record

pytest.importorskip("tensorboard")

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c

from capsbench.errors import BadInput
from capsbench.measure.histogram import Counter, read_histograms, write_histograms
from capsbench.report.tensorboard import EVENTS_FILE, write_events
from capsbench.store.runs import create

METRICS = ("coupling_entropy", "agreement_gain", "starved_share")
BEGAN = 1795400028.0  # 2026-11-23T02:13:48+00:00
# The smallest PNG there is: one pixel.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)


def read_events(path):
    """The events of a file, checksums checked."""
    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        body = content[12 : 12 + length]
        assert content[8:12] == masked(content[:8])
        assert content[12 + length : 16 + length] == masked(body)
        events.append(Event.FromString(body))
        content = content[16 + length :]
    return events


def masked(data):
    """The checksum as the format wants it: CRC-32C, turned by 15 bits, plus a constant."""
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def by_tag(events):
    """What the events say, tag by tag: (step, value) in the order written."""
    found = {}
    for event in events:
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value))
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run with a picture in one case's and in the run's own figures: its store and its event files."""
    store = run_folder.run(tmp_path_factory.mktemp("tensorboard"))
    for folder in (store.artifacts(key().id), store.folder):
        (folder / "figures").mkdir()
        (folder / "figures" / "ops.png").write_bytes(PIXEL)
    return store, write_events(store, store.latest_records())


def events_of(store, case):
    """The events of a case."""
    return read_events(store.artifacts(case.id) / EVENTS_FILE)


def test_every_case_with_something_to_show_is_a_run(written):
    """A file a case under a name that TensorBoard knows, one for the figures that compare, none for a failed case."""
    store, paths = written
    names = {path.parent.parent.name for path in paths}
    cases = {record.case.id for record in store.latest_records()}
    assert names == {"figures", *cases} - {key(batch=1000).id}
    assert all("tfevents" in path.name for path in paths)
    assert all(read_events(path)[0].file_version == "brain.Event:2" for path in paths)
    assert not list(store.folder.rglob("*.tmp"))


def test_backends_share_their_tags(written):
    """The same network has the same tags in every framework, the specified ones."""
    store, _ = written
    tags = set(by_tag(events_of(store, key(backend="tensorflow", mode="graph"))))
    assert tags == {
        *("train/loss", "train/learning_rate", "train/margin", "test/accuracy", "ops/train_step"),
        *(f"{quantity}/{layer}" for quantity in ("activations", "poses") for layer in LAYERS[1:]),
        *(f"votes/{layer}" for layer in ROUTED),
        *(f"routing/{layer}/{what}" for layer in ROUTED for what in METRICS),
    }
    assert set(by_tag(events_of(store, key()))) == tags | {"figures/ops"}


def test_scalars_follow_the_epochs(written):
    """Steps are epochs, values the history's, and times apart as training took."""
    store, _ = written
    events = events_of(store, key())
    tags = by_tag(events)
    assert [step for step, _ in tags["test/accuracy"]] == [1, 2, 3, 4, 5]
    assert [value.simple_value for _, value in tags["train/loss"]] == pytest.approx([0.3 / n for n in range(1, 6)])
    assert tags["train/learning_rate"][0][1].simple_value == pytest.approx(9e-4)
    assert tags["train/margin"][-1][1].simple_value == pytest.approx(0.7)
    times = [event.wall_time for event in events if by_tag([event]).keys() & {"test/accuracy"}]
    assert times[0] == BEGAN + 13.0
    assert np.diff(times).tolist() == [14.0, 15.0, 16.0, 17.0]


def test_routing_follows_the_iterations(written):
    """Steps are iterations from 1."""
    store, _ = written
    entropy = by_tag(events_of(store, key()))["routing/conv_caps1/coupling_entropy"]
    assert [step for step, _ in entropy] == [1, 2, 3]
    assert [value.simple_value for _, value in entropy] == pytest.approx([1.0, 0.8, 0.6])


def test_histograms_keep_count_range_and_quantiles(written):
    """Fewer bins than stored, but all values, the same ends, and the median to a hundredth of the range."""
    store, _ = written
    stored = read_histograms(store.artifacts(key().id) / "histograms.npz")
    tags = by_tag(events_of(store, key()))
    for (layer, quantity), histogram in stored.items():
        ((step, value),) = tags[f"{quantity}/{layer}"]
        shown = value.histo
        limits, counts = np.array(shown.bucket_limit), np.array(shown.bucket)
        assert step == 5
        assert (shown.min, shown.max) == (histogram.low[0], histogram.high[-1])
        assert limits[-1] == shown.max
        assert (np.diff(limits) > 0).all()
        assert len(counts) == len(limits) <= 256
        assert counts.sum() == pytest.approx(shown.num)
        assert shown.num == histogram.counts.sum()
        middle = np.interp(shown.num / 2, np.cumsum(counts), limits)
        assert middle == pytest.approx(histogram.quantile(0.5), abs=0.01 * (shown.max - shown.min))
        mean = float((histogram.low + histogram.high) @ histogram.counts) / 2 / shown.num
        assert shown.sum / shown.num == pytest.approx(mean)
        assert shown.sum_squares / shown.num >= mean**2


@pytest.mark.parametrize("value", [0.0, -2.5, 1e30])
def test_a_histogram_of_one_value_has_a_bin(tmp_path, value):
    """A dead layer is shown, not refused."""
    store = create(tmp_path, {})
    counter = Counter()
    counter.add(np.full((3, 5), value))
    write_histograms(store.artifacts(key().id) / "histograms.npz", {("caps", "activations"): counter.histogram()})
    write_events(store, [record(key())])
    ((_, shown),) = by_tag(events_of(store, key()))["activations/caps"]
    assert sum(shown.histo.bucket) == 15
    assert all(map(math.isfinite, shown.histo.bucket_limit))


def test_the_op_table_is_text_and_nothing_else(tmp_path):
    """Names of ops and notes cannot make links, markup or cells; rows have as many cells as there are columns."""
    store = create(tmp_path, {})
    evil = "<script>alert(1)</script>|[x](javascript:y)`*_\n# h"
    ops = run_folder.events()
    hostile = record(
        key(), ops=(*ops, type(ops[0])(evil, evil, evil, "forward", None, 1, 1.0, 10**9)), notes=(f"ops: {evil}",)
    )
    write_events(store, [hostile])
    ((_, value),) = by_tag(events_of(store, key()))["ops/train_step"]
    (text,) = (content.decode() for content in value.tensor.string_val)
    assert value.metadata.plugin_data.plugin_name == "text"
    assert "<" not in text
    assert "\\[x\\]\\(javascript:y\\)\\`\\*\\_" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.replace("\\|", "").count("|") for row in rows} <= {6, 7}
    assert any(row.startswith("| total ") or "| total |" in row for row in rows)
    assert "BatchMatMul" in text
    assert "unattributed" in text


def test_figures_are_shown_as_drawn(written):
    """The bytes of the PNG, with its size."""
    store, _ = written
    for events in (events_of(store, key()), read_events(store.folder / "figures" / EVENTS_FILE)):
        ((_, value),) = by_tag(events)["figures/ops"]
        assert value.image.encoded_image_string == PIXEL
        assert (value.image.width, value.image.height) == (1, 1)


def test_writing_twice_replaces(tmp_path):
    """One file a case, the same bytes each time."""
    store = create(tmp_path, {"started": "2026-11-23T02:13:48+00:00"})
    run_folder.write_history(store.artifacts(key().id))
    (first,) = write_events(store, [record(key())])
    content = first.read_bytes()
    (second,) = write_events(store, [record(key())])
    assert second == first
    assert second.read_bytes() == content
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def test_a_run_that_does_not_say_when_it_began(tmp_path):
    """Its epochs are as far apart, counted from 1970."""
    store = create(tmp_path, {})
    run_folder.write_history(store.artifacts(key().id), epochs=1)
    write_events(store, [record(key())])
    times = {event.wall_time for event in events_of(store, key())}
    assert times == {0.0, 13.0}


def test_a_damaged_figure_is_bad_input(tmp_path):
    """One sentence that names the file, and the event file of before stays."""
    store = create(tmp_path, {})
    (first,) = write_events(store, [record(key())])
    content = first.read_bytes()
    (store.artifacts(key().id) / "figures").mkdir()
    (store.artifacts(key().id) / "figures" / "ops.png").write_bytes(b"no")
    with pytest.raises(BadInput, match=r"ops\.png"):
        write_events(store, [record(key())])
    assert first.read_bytes() == content
