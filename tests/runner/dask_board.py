"""A listener for runs on Dask that remembers, and does something when a case comes to a stage."""

# ruff: noqa: D102, ARG002 - the methods do what the protocols say


class MemoryBoard:
    """Remembers what ended and what was waited for; `on` has functions of (worker, case) by (case id, stage)."""

    def __init__(self, on=()):
        self.total = None
        self.ended = []
        self.waits = []
        self.workers = {}
        self._on = dict(on)

    def started(self, total):
        self.total = total

    def case_stage(self, case, stage, done, total, detail):
        pass

    def worker_stage(self, worker, case, stage, done, total, detail):
        self.workers.setdefault(case.id, set()).add(worker)
        if (case.id, stage) in self._on:
            self._on[case.id, stage](worker, case)

    def worker_free(self, worker):
        pass

    def waiting(self, what):
        self.waits.append(what)

    def finished(self, record):
        self.ended.append(record.case.id)
