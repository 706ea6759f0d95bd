"""What a case left behind as a TensorBoard event file, under the same tags for every backend.

`tensorboard --logdir results/runs/<run>` shows every case as a run of its own. Importing this imports tensorboard (and
no framework), which is an optional part of the installation. Its own file writer names files by time and host and
writes in a thread; here the records go into one file whose name and content depend on nothing but the case.
"""

import re
import struct
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.histogram_pb2 import HistogramProto
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.record_writer import RecordWriter

from capsbench.errors import BadInput
from capsbench.measure.histogram import Histogram, read_histograms
from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.history import EpochResult, read_history
from capsbench.report.ops import op_tables
from capsbench.report.table import Table
from capsbench.store.run import RunStore

EVENTS_FILE = "tensorboard/events.out.tfevents.capsbench"
# TensorBoard shows a histogram in some 30 bins: no need for the thousands that are stored.
_EVEN_BINS, _EQUAL_BINS = 128, 128
_TOP_OPS = 30
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+.!|~$-])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def write_events(store: RunStore, records: Sequence[Record]) -> tuple[Path, ...]:
    """Write the event file of every case that has anything to show, in place of the one written before.

    Args:
        store: of the run; figures are shown as far as they have been drawn, those of the run as a run of their own.
        records: of the cases.

    Returns:
        The files.

    Raises:
        BadInput: a history, a file of histograms or a figure is damaged.
        OSError: the disk is full, or the folder cannot be written.
    """
    began = _began(store)
    written: list[Path] = []
    for record in records:
        artifacts = store.artifacts(record.case.id)
        written += _write(artifacts / EVENTS_FILE, began, list(_events(record, artifacts, began)))
    comparing = [_event(summary, 0, began) for summary in _figures(store.folder)]
    return (*written, *_write(store.folder / "figures" / EVENTS_FILE, began, comparing))


def _events(record: Record, artifacts: Path, began: float) -> Iterator[Any]:
    """Everything about a case; what belongs to the end of training stands at its last epoch."""
    history = read_history(artifacts)
    last, ended = 0, began
    for epoch in history:
        ended += epoch.seconds + epoch.evaluation_seconds
        last = epoch.epoch
        for summary in _epoch_scalars(epoch):
            yield _event(summary, last, ended)
    for summary in (*_histograms(artifacts), *_ops(record), *_figures(artifacts)):
        yield _event(summary, last, ended)
    for state in record.routing:
        for name in ("coupling_entropy", "agreement_gain", "starved_share"):
            yield _event(_scalar(f"routing/{state.layer}/{name}", getattr(state, name)), state.iteration + 1, ended)


def _epoch_scalars(epoch: EpochResult) -> Iterator[Any]:
    yield _scalar("train/loss", epoch.train_loss)
    yield _scalar("train/learning_rate", epoch.learning_rate)
    yield _scalar("train/margin", epoch.margin)
    yield _scalar("test/accuracy", epoch.test_accuracy)
    if epoch.validation_accuracy is not None:
        yield _scalar("validation/accuracy", epoch.validation_accuracy)
    if epoch.familiar_accuracy is not None:
        yield _scalar("familiar/accuracy", epoch.familiar_accuracy)


def _scalar(tag: str, value: float) -> Any:  # noqa: ANN401 - protocol buffers have no types
    return Summary(value=[Summary.Value(tag=tag, simple_value=value)])


def _histograms(artifacts: Path) -> Iterator[Any]:
    path = artifacts / "histograms.npz"
    for (layer, quantity), histogram in (read_histograms(path) if path.exists() else {}).items():
        if len(histogram.counts):
            yield _histogram(f"{quantity}/{layer}", histogram)


def _histogram(tag: str, histogram: Histogram) -> Any:  # noqa: ANN401 - protocol buffers have no types
    """The stored bins over fewer ones, half of them evenly wide, half of them evenly full.

    TensorBoard's views want the former and its quantiles the latter.
    """
    low, high = float(histogram.low[0]), float(histogram.high[-1])
    if low == high:  # one value again and again
        low, high = low - max(0.5, abs(low) / 2), high + max(0.5, abs(high) / 2)
    ranks = np.searchsorted(
        np.cumsum(histogram.counts), np.arange(1, _EQUAL_BINS) * histogram.counts.sum() / _EQUAL_BINS
    )
    edges = np.unique(np.concatenate([np.linspace(low, high, _EVEN_BINS + 1), histogram.low[ranks]]))
    counts, middles = histogram.over(edges), (histogram.low + histogram.high) / 2
    content = HistogramProto(
        min=low,
        max=high,
        num=int(histogram.counts.sum()),
        sum=float(middles @ histogram.counts),
        sum_squares=float(middles**2 @ histogram.counts),
        bucket_limit=edges[1:].tolist(),
        bucket=counts.tolist(),
    )
    return Summary(value=[Summary.Value(tag=tag, histo=content)])


def _ops(record: Record) -> Iterator[Any]:
    """The op tables as text."""
    by_phase = op_tables([record], by="phase", top=_TOP_OPS)
    by_layer = op_tables([record], by="layer", top=_TOP_OPS)
    if by_phase or by_layer:
        yield _text("ops/train_step", "\n\n".join(map(_markdown, (*by_phase, *by_layer))))


def _text(tag: str, markdown: str) -> Any:  # noqa: ANN401 - protocol buffers have no types
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    tensor = TensorProto(dtype=DT_STRING, string_val=[markdown.encode()])
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])


def _markdown(table: Table) -> str:
    """The table as TensorBoard's Markdown renders it; every name is text, whatever it holds."""
    heads = [_escaped(" ".join(column.header.split("\n"))) for column in table.columns]
    rules = ["---" if column.align == "left" else "---:" for column in table.columns]
    rows = [[_escaped(cell.text) for cell in row] for row in table.rows]
    lines = [f"| {' | '.join(row)} |" for row in (heads, rules, *rows)]
    notes = [f"* {_escaped(note)}" for note in table.notes]
    above = f"**{_escaped(table.title)}** ({_escaped(', '.join(table.context))})"
    return "\n".join([above, "", *lines, "", *notes])


def _escaped(text: str) -> str:
    plain = "".join(_ENTITIES.get(character, character) for character in fmt.label(text))
    return _MARKDOWN.sub(r"\\\1", plain)


def _figures(folder: Path) -> Iterator[Any]:
    """The figures of a folder as they were drawn."""
    for path in sorted((folder / "figures").glob("*.png")):
        content = path.read_bytes()
        try:
            width, height = struct.unpack(">8x4x4xII", content[:24])
        except struct.error:
            raise BadInput("this is no PNG; draw the figures again", str(path)) from None
        image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=content)
        yield Summary(value=[Summary.Value(tag=f"figures/{path.stem}", image=image)])


def _event(summary: Any, step: int, wall_time: float) -> Any:  # noqa: ANN401 - protocol buffers have no types
    return Event(summary=summary, step=step, wall_time=wall_time)


def _began(store: RunStore) -> float:
    """When the run began, in seconds since 1970; 0 where it does not say. Epochs follow at their distances."""
    try:
        return datetime.fromisoformat(str(store.header().get("started"))).timestamp()
    except ValueError:
        return 0.0


def _write(path: Path, began: float, events: Sequence[Any]) -> tuple[Path, ...]:
    """Write the events, if any, whole or not at all; TensorBoard takes no notice of the temporary file."""
    if not events:
        return ()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            writer = RecordWriter(file)
            for event in (Event(wall_time=began, file_version="brain.Event:2"), *events):
                writer.write(event.SerializeToString(deterministic=True))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return (path,)
