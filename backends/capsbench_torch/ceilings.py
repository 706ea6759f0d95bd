"""What a device can do at best, with PyTorch's own matrix product and copy."""

from collections.abc import Callable

import torch

from capsbench.backend import Setting
from capsbench.measure.ceilings import COPIED_BYTES, SIDE, Ceilings, measure


def measure_ceilings(setting: Setting) -> Ceilings:
    """Ceilings of the setting's device, precision and threads; the mode does not matter."""
    torch.set_num_threads(setting.threads)
    torch.backends.cuda.matmul.allow_tf32 = False  # as in training
    device = torch.device(setting.device)
    dtype = torch.float64 if setting.precision == "float64" else torch.float32
    left, right = torch.rand(2, SIDE, SIDE, dtype=dtype, device=device)
    product = torch.empty_like(left)
    source = torch.ones(COPIED_BYTES // dtype.itemsize, dtype=dtype, device=device)
    target = torch.empty_like(source)

    def finished(work: Callable[[], object]) -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return measure(
        lambda: finished(lambda: torch.mm(left, right, out=product)), lambda: finished(lambda: target.copy_(source))
    )
