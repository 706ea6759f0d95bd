"""Two corrections to how asv 0.6 compares two commits.

A plug-in: `asv.conf.json` names this module. Where a benchmark failed, `asv continuous` keeps all results and ends with
exit code 2 before it has printed any: one case that lacks memory would hide the rest. Here its table comes first. Of
times with a single sample each, asv goes by the ratio alone, as if they were exact: here they decide nothing.
"""

from types import SimpleNamespace
from typing import Any

from asv.commands import compare, continuous

EXIT_FAILED = 2


def setup() -> None:
    """Called by asv when it loads the plug-in."""
    _print_after_failures()
    _ask_for_samples()


def _print_after_failures() -> None:
    print_table, run_both = continuous.Continuous.run, continuous.Run.run
    codes: list[int] = []

    def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - asv's
        code = run_both(*args, **kwargs)
        if code != EXIT_FAILED:
            return code
        codes.append(code)
        return None

    def print_anyway(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - asv's
        worse = print_table(*args, **kwargs)
        return codes.pop() if codes else worse

    continuous.Run = SimpleNamespace(run=run)
    continuous.Continuous.run = staticmethod(print_anyway)


def _ask_for_samples() -> None:
    is_better = compare._is_result_better  # noqa: SLF001 - there is no other way in

    def is_clearly_better(a: float, b: float, a_seen: Any, b_seen: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        # What is seen is (statistics, samples). An exact number has no statistics.
        if any(seen and seen[0] and seen[0].get("repeat") == 1 for seen in (a_seen, b_seen)):
            return False
        return is_better(a, b, a_seen, b_seen, *args, **kwargs)

    compare._is_result_better = is_clearly_better  # noqa: SLF001 - as above
