"""What a run's images are, and whether they may be used as their protocol says."""

from capsbench.dataset import protocols
from capsbench.dataset.guard import examine
from capsbench.dataset.loading import Split, describe_count, split_sha256
from capsbench.record.schema import SplitFacts
from capsbench.worker.messages import DataJob, DataPart, NotesPart, Progress
from capsbench.worker.pace import Pace
from capsbench.worker.prepare import Send, load_images


def describe_data(job: DataJob, send: Send) -> None:
    """Load every part once, hash it, and look for what the protocol forbids.

    Raises:
        BadInput: files are missing or broken.
    """
    use, pace = job.dataset, Pace()

    def progress(done: int, total: int) -> None:
        if pace.due():
            send(Progress(stage="data", done=done, total=total, detail=f"making {use.protocol.data}"))

    splits = {part: load_images(use, job.place, part, progress) for part in use.protocol.parts()}
    facts: dict[str, SplitFacts] = {part: _facts(split) for part, split in splits.items()}
    found = examine(use.protocol, splits)
    send(DataPart(data=facts, violations=found.violations))
    notes = [
        f"{part}: {describe_count(split)} images"
        for part, split in splits.items()
        if len(split.labels) != split.full_count
    ]
    published = protocols.load(use.name)
    if use.protocol.transform != published.transform:
        notes.append(f"images are prepared otherwise than {use.name} says")
    send(NotesPart(notes=(*notes, *found.remarks)))


def _facts(split: Split) -> SplitFacts:
    return SplitFacts(count=len(split.labels), full_count=split.full_count, sha256=split_sha256(split))
