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

    For several devices an op at a time on each, and on the CPU logical devices, which have one pool of threads: those
    of all. All of it is fixed once TensorFlow has run an op, and then holds for one device as well.
    """
    tf.config.experimental.enable_tensor_float_32_execution(False)
    (cpu,) = tf.config.list_physical_devices("CPU")
    config, logical = tf.config.threading, tf.config.get_logical_device_configuration(cpu)
    if setting.devices == 1 and (logical or config.get_inter_op_parallelism_threads() > 1):
        return
    on_cpu = setting.device == "cpu" and setting.devices > 1
    threads = setting.threads * (setting.devices if on_cpu else 1)
    wanted = (
        (threads, config.get_intra_op_parallelism_threads),
        (setting.devices, config.get_inter_op_parallelism_threads),
    )
    if any(get() != count for count, get in wanted):
        config.set_intra_op_parallelism_threads(threads)
        config.set_inter_op_parallelism_threads(setting.devices)
    if on_cpu and len(logical or ()) < setting.devices:
        each = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [each] * setting.devices)


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
