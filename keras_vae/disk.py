"""What a file that cannot be written or read means for a run: it stops, and says how to go on."""

import errno
from contextlib import contextmanager

import tensorflow as tf

from keras_vae import checkpoints
from keras_vae.config import InputError, RunStopped

FULL = "No space left on device"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, a quota, a limit on the size of a file


@contextmanager
def stopped_by_the_disk(run, again):
    """A context in which a file that cannot be written or read raises `RunStopped` with the way to go on.

    Args:
        run: The `Run` that is being made.
        again: Callable that returns the command that goes on.
    """
    try:
        yield
    except (OSError, InputError, tf.errors.OpError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        saved = checkpoints.last(run.checkpoints)
        raise RunStopped(
            f"{reason}. {f'{saved.name} is the last that was saved. ' if saved else ''}"
            f"{'Make room and c' if _needs_room(error) else 'C'}ontinue with: {again()}"
        ) from None


def _reason(error):
    """What a file could not be written or read for, as a sentence; None for an error of another kind."""
    if isinstance(error, InputError):  # an export that found the disk full
        return str(error).rstrip(".") if isinstance(error.__cause__, (OSError, tf.errors.OpError)) else None
    if isinstance(error, tf.errors.OpError):
        return f"Cannot write a log: {error.message.splitlines()[0]}" if FULL in str(error) else None
    if error.errno is None:
        return None
    return f"{error.strerror}: {error.filename}" if error.filename else error.strerror


def _needs_room(error):
    cause = error.__cause__ if isinstance(error, InputError) else error
    return getattr(cause, "errno", None) in NO_ROOM or FULL in str(error)
