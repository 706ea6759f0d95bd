"""TensorFlow must find its environment before the first test module imports it."""

import os

from capsbench.backend import Setting
from capsbench_tensorflow.backend import BACKEND

os.environ.update(BACKEND.environment(Setting("graph")))
