"""asv's door to the suites: each that says `track: true` becomes benchmarks, made by the capsbench that asv installed.

That capsbench is the one of the commit under test, while this file and the suites are those of the working tree.
"""

from pathlib import Path

try:
    from capsbench.track.benchmarks import benchmarks as _benchmarks

    globals().update(_benchmarks(Path(__file__).parent))
except Exception as _error:  # noqa: BLE001 - whatever a commit breaks is said in one line
    raise SystemExit(f"this commit's capsbench cannot be tracked: {type(_error).__name__}: {_error}") from None
