"""A store in memory and a listener that remembers, for tests of the runner."""

# ruff: noqa: D102 - the methods do what the protocols say


class MemoryStore:
    """Keeps records in a list, artifacts in a folder."""

    run_id = "test-run"

    def __init__(self, folder, known=()):
        self.records = []
        self._folder, self._known = folder, set(known)

    def append(self, record):
        self.records.append(record)

    def artifacts(self, case_id):
        folder = self._folder / case_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def finished(self):
        return set(self._known)


class Recorder:
    """Remembers every event."""

    def __init__(self):
        self.total = None
        self.stages = []
        self.ended = []

    def started(self, total):
        self.total = total

    def case_stage(self, case, stage, done, total, detail):
        self.stages.append((case.mode, stage, done, total, detail))

    def finished(self, record):
        self.ended.append(record.case.id)

    def starts(self):
        """(mode, stage, done) of every worker that was started."""
        return [(mode, stage, done) for mode, stage, done, _, detail in self.stages if detail.startswith("starting ")]
