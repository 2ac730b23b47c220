"""Imports TensorFlow for the command line without its chatter, part of which it writes past every setting."""

import logging
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from keras_vae import installed, xla_cache

SETTING = "TF_CPP_MIN_LOG_LEVEL"  # in TensorFlow 2.19 and before not for what XLA logs
FILTER = r"""
import re, sys
for line in sys.stdin.buffer:
    if not re.match(rb"[IWE]\d{4} \d\d:\d\d:\d+|WARNING: All log messages before absl", line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""


def import_tensorflow():
    """Imports TensorFlow and Keras, quietly unless the environment sets TF_CPP_MIN_LOG_LEVEL.

    Raises:
        installed.Unsupported: if they are missing, too old, or set to another backend.
    """
    xla_cache.use()
    if SETTING in os.environ:  # somebody asked
        installed.check()
        return _grow_memory()
    os.environ[SETTING] = "3"
    with _no_standard_error():
        installed.check()
        import tensorflow as tf
        from absl import logging as absl_logging

        gpus = tf.config.list_physical_devices("GPU")
        _grow_memory()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # retracing
    absl_logging.set_verbosity(absl_logging.ERROR)
    if installed.parsed(tf.__version__) < (2, 20) and os.name == "posix" and sys.stderr is sys.__stderr__:
        _filter_standard_error()
    if not gpus and _has_nvidia_driver():
        print(
            f"keras-vae: TensorFlow does not see the GPU of this machine; {SETTING}=0 lets it say why. Its CUDA "
            'libraries come with: pip install "keras-vae[gpu]"',
            file=sys.stderr,
        )


def _grow_memory():
    from keras_vae import distribution

    distribution.grow_memory()


@contextmanager
def _no_standard_error():
    """Throws away what is written to standard error, by C++ as well."""
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with open(os.devnull, "w") as devnull:
            os.dup2(devnull.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _filter_standard_error():
    """Takes lines of absl's log out of what C++ writes from now on.

    Another process does it, so that the last words of one that crashes are still printed. What Python writes does not
    go through it, and may be a terminal.
    """
    python = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    command = [sys.executable, "-I", "-S", "-c", FILTER]
    # a session of its own: Ctrl-C is not for it
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    os.dup2(process.stdin.fileno(), 2)
    process.stdin.close()
    process.returncode = 0  # it ends by itself, when this process and its children have: nobody waits for it
    sys.stderr = python


def _has_nvidia_driver():
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not hidden and Path("/proc/driver/nvidia/version").exists()
