"""Which cases of a test are left to `make test-all`."""

import pytest


def in_short(cases, stays):
    """Parameters of a test, tuples or single ones; others hold in short what those hold that `stays` refuses."""
    tuples = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*each, marks=() if stays(*each) else pytest.mark.exhaustive) for each in tuples]
