"""The kernels that can run here."""

import pytest

from capsbench_fused import engine


@pytest.fixture(params=["fused", "chunked"])
def kernel(request):
    """Each kernel in turn; Numba's where it is installed."""
    if request.param == "fused":
        pytest.importorskip("numba")
    return engine.kernel(request.param)
