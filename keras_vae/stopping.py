"""How a run is stopped from outside, and that no two processes train the same one. Standard library only."""

import os
import signal
import threading
from pathlib import Path

from keras_vae.config import InputError, RunStopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)
OUTSIDE = "outside of training; nothing is lost"


class Stop(KeyboardInterrupt):
    """A signal asks to stop. Like Ctrl-C in any Python program it passes through every `except Exception`."""


class StopSignals:
    """While it is entered, Ctrl-C and SIGTERM end the work with `RunStopped`, at once or when the state is saved.

    A second signal leaves the process at once. Signals are left alone outside the main thread, where Python allows no
    handlers.

    Args:
        advice: What to do then, for the message: how to continue. A string, or a callable that returns one.

    Example:

    >>> import os, signal
    >>> from keras_vae.stopping import StopSignals
    >>> with StopSignals("Go on with: ...") as signals:
    ...     try:
    ...         os.kill(os.getpid(), signal.SIGTERM)
    ...     except Exception:
    ...         pass  # a stop is not caught by accident
    Traceback (most recent call last):
    keras_vae.config.RunStopped: Stopped by SIGTERM outside of training; nothing is lost. Go on with: ...
    """

    def __init__(self, advice):
        self.advice = advice if callable(advice) else lambda: advice
        self.place = OUTSIDE  # where a signal stops the work
        self.number = None
        self.waits = False

    def __enter__(self):
        self.previous = {}
        self.install()
        return self

    def install(self):
        """Takes the signals, again where a library took them in the meantime."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self.previous.setdefault(number, signal.signal(number, self._handle))

    def __exit__(self, kind, error, traceback):
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        # a library may have made another error of a stop; it is one all the same
        if isinstance(error, Stop) or (self.received() and error is not None and not isinstance(error, RunStopped)):
            raise self.stopped() from None

    def received(self):
        """Whether there was a signal."""
        return self.number is not None

    def check(self):
        """Stops here if there was a signal: code of others may have swallowed it."""
        if self.received():
            raise Stop

    def deferred(self):
        """A context in which a first signal waits: the caller asks `received` and saves, or it stops at the end."""
        return _Deferred(self)

    def stopped(self, where=None, number=None):
        """The `RunStopped` that says where the run stands and how it goes on."""
        number, where = number or self.number or signal.SIGTERM, where or self.place
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        return RunStopped(f"Stopped by {name} {where}. {self.advice()}", exit_code=128 + number)

    def _handle(self, number, frame):
        if self.number is not None:
            os._exit(128 + number)  # whatever is being written: a file is there whole or not at all
        self.number = number
        if not self.waits:
            raise Stop
        os.write(2, b"\nStopping: saving the state. Once more leaves at once.\n")  # print is not safe in a handler


class _Deferred:
    def __init__(self, signals):
        self.signals = signals

    def __enter__(self):
        self.signals.waits = True

    def __exit__(self, kind, error, traceback):
        self.signals.waits = False
        if kind is None:
            self.signals.check()


class Lock:
    """Holds a folder for this process until it ends, however it ends, or until a `with` block of it ends.

    Args:
        directory: The folder.

    Raises:
        InputError: if another process holds it.

    Example:

    >>> from keras_vae.stopping import Lock
    >>> Lock(".").release()
    """

    def __init__(self, directory):
        self.path = Path(directory) / "lock"
        self.file = open(self.path, "w")
        try:
            import fcntl

            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no such locks on this system
            pass
        except BlockingIOError:
            self.file.close()
            raise InputError(f"{Path(directory).parent} is being trained by another process.") from None
        except OSError:  # nor on this file system
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release()

    def release(self):
        """Lets the folder go."""
        self.file.close()
