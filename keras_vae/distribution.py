"""Which devices a run takes: one, all of this machine, or those of several machines. On tf.distribute alone."""

import os

import tensorflow as tf

from keras_vae import workers
from keras_vae.config import InputError

GROWTH = "TF_FORCE_GPU_ALLOW_GROWTH"


def choose(name):
    """The strategy of that name. For several machines call it before any other use of TensorFlow.

    Args:
        name: `none`; `mirrored`, all GPUs of this machine, or its logical CPU devices where there are none;
            `multiworker`, the machines that the environment variable TF_CONFIG names; or `auto`, whichever fits.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        InputError: for several machines without a TF_CONFIG that names them.

    Example:

    >>> from keras_vae import distribution
    >>> distribution.choose("none").num_replicas_in_sync
    1
    """
    grow_memory()
    if cluster(name):
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        return tf.distribute.MirroredStrategy([device.name for device in gpus or tf.config.list_logical_devices("CPU")])
    return tf.distribute.get_strategy()


def grow_memory():
    """Lets TensorFlow take memory of GPUs as it needs it, instead of nearly all at once: others may use them as well.

    TF_FORCE_GPU_ALLOW_GROWTH=false in the environment turns it off. Without effect once TensorFlow uses a GPU.
    """
    if GROWTH in os.environ:  # which TensorFlow reads
        return
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # it is in use
            return


def cluster(name):
    """The `workers.Cluster` that a strategy of that name spans, or None for that of one process.

    Raises:
        InputError: as `choose`.
    """
    found = workers.read_cluster() if name in ("auto", "multiworker") else None
    if name == "multiworker" and not found:
        raise InputError(
            "The strategy multiworker needs the environment variable TF_CONFIG, with the addresses of all workers and "
            "the index of this one. See docs/multi-machine.md."
        )
    return found if name == "multiworker" or (found and len(found.names) > 1) else None


def is_multiworker(strategy):
    """Whether the strategy spans several processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy):
    """Whether this process is the one that writes."""
    if not is_multiworker(strategy):
        return True
    resolver = strategy.cluster_resolver
    has_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == "chief" or (not has_chief and (resolver.task_type, resolver.task_id) == ("worker", 0))


def describe(strategy, batch_size, precision):
    """One line on what a run runs on.

    Args:
        strategy: A `tf.distribute.Strategy`.
        batch_size: Int, the images in a global batch.
        precision: Name of the precision policy.

    Example:

    >>> from keras_vae import distribution
    >>> distribution.describe(distribution.choose("none"), 128, "float32").partition(",")[2]
    ' 1 replica, 128 images a batch, precision float32'
    """
    replicas = strategy.num_replicas_in_sync
    if tf.distribute.has_strategy() or strategy is not tf.distribute.get_strategy():
        devices = [tf.DeviceSpec.from_string(device) for device in strategy.extended.worker_devices]
        names = ", ".join(f"{device.device_type}:{device.device_index}" for device in devices)
    else:  # the default strategy leaves the choice to TensorFlow
        names = f"{'GPU' if tf.config.list_logical_devices('GPU') else 'CPU'}:0"
    if is_multiworker(strategy):
        names = f"{len(workers.read_cluster().names)} workers, this one on {names}"
    share = "" if replicas == 1 else f" ({-(-batch_size // replicas)} a replica)"
    plural = "" if replicas == 1 else "s"
    return f"{names}, {replicas} replica{plural}, {batch_size} images a batch{share}, precision {precision}"
