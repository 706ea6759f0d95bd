"""Where TensorFlow computes and with what: device names, threads, and the device's ceilings."""

import tensorflow as tf

from capsbench.backend import Setting
from capsbench.measure.ceilings import COPIED_BYTES, SIDE, Ceilings, measure


def device_name(device: str) -> str:
    """TensorFlow's name of `cpu`, `cuda` or `cuda:N`."""
    if device == "cpu":
        return "/CPU:0"
    _, _, index = device.partition(":")
    return f"/GPU:{index or 0}"


def configure(setting: Setting) -> None:
    """Threads for one op, one op at a time so that op times add up, and no rounding to TensorFloat-32.

    Threads are fixed once TensorFlow has run an op.
    """
    config = tf.config.threading
    wanted = ((setting.threads, config.get_intra_op_parallelism_threads), (1, config.get_inter_op_parallelism_threads))
    if any(get() != count for count, get in wanted):
        config.set_intra_op_parallelism_threads(setting.threads)
        config.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_tensor_float_32_execution(False)


def measure_ceilings(setting: Setting) -> Ceilings:
    """The device's ceilings with `tf.matmul` and `DeepCopy`, in the setting's precision and threads."""
    configure(setting)
    dtype = tf.as_dtype(setting.kept)
    with tf.device(device_name(setting.device)):
        matrix = tf.ones((SIDE, SIDE), dtype)
        source = tf.ones(COPIED_BYTES // dtype.size, dtype)

        def product() -> None:
            tf.matmul(matrix, matrix)
            tf.test.experimental.sync_devices()

        def copy() -> None:
            tf.raw_ops.DeepCopy(x=source)
            tf.test.experimental.sync_devices()

        return measure(product, copy)
