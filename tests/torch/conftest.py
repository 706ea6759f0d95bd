"""The environment PyTorch is tested in."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")
