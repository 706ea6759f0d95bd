"""How many numbers the compiled kernels put side by side into one SIMD value.

That decides how arrays are padded, so the memory forecast needs it as well; this module therefore imports no compiler.
"""

import os
from functools import cache
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_WIDE, _NARROW = 16, 8


def lanes() -> int:
    """Return 16 where the compiler may use AVX-512 registers, which hold so many float32, and 8 elsewhere.

    Narrower processors take 8 as several registers. `CAPSBENCH_FUSED_LANES` (8 or 16) overrides what was found; the
    compiler's own NUMBA_CPU_FEATURES and NUMBA_CPU_NAME are respected.
    """
    wanted = os.environ.get("CAPSBENCH_FUSED_LANES", "")
    if wanted in {str(_WIDE), str(_NARROW)}:
        return int(wanted)
    features = os.environ.get("NUMBA_CPU_FEATURES")
    if features is not None:
        return _WIDE if "+avx512f" in features else _NARROW
    if os.environ.get("NUMBA_CPU_NAME"):
        return _NARROW
    return _WIDE if _processor_has("avx512f") else _NARROW


@cache
def _processor_has(feature: str) -> bool:
    """Whether Linux lists a feature of the processor; False on other systems."""
    try:
        with _CPU_INFO.open(encoding="utf-8") as lines:
            flags = next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return False
    return feature in flags.split()
