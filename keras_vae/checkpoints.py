"""Checkpoints: the whole state of a run in one file, so that a run that was killed goes on as if nothing had happened.

A checkpoint holds the weights, the optimizer's slots, the states of the seed generators, the metrics of the epoch so
far, the history, the state of the callbacks and the global step. Data and noise are functions of these.

checkpoints/step-0000001200.checkpoint    an .npz followed by its SHA-256; the last two are kept
"""

import csv
import hashlib
import io
import json
import time
import warnings
from pathlib import Path

import keras
import numpy as np

from keras_vae import files
from keras_vae.config import InputError
from keras_vae.model_state import set_metrics, set_state, state_of

KEEP = 2
DIGEST = hashlib.sha256
# What callbacks of Keras and of this package remember from one epoch to the next.
CALLBACK_FIELDS = (
    "best", "wait", "cooldown_counter", "stopped_epoch", "best_epoch", "epochs_since_last_save", "step",
)  # fmt: skip


class DamagedCheckpoint(ValueError):
    """A file that is not a whole checkpoint."""


def save(directory, meta, arrays):
    """Writes a checkpoint and removes all others but the one before it.

    Args:
        directory: Folder of the checkpoints; made if it is not there.
        meta: Dict for JSON with the global `step`, which names the file.
        arrays: Dict: name -> numpy array.

    Raises:
        OSError: if it cannot be written. The checkpoints before it are still there.
    """
    directory = Path(directory)
    content = io.BytesIO()
    np.savez(content, meta=np.array(json.dumps(meta)), **arrays)
    content = content.getbuffer()
    path = directory / f"step-{meta['step']:010d}.checkpoint"
    try:
        files.make_folder(directory)
        files.write_bytes(path, content, DIGEST(content).digest())
    except OSError as error:
        raise OSError(error.errno, f"Cannot save the checkpoint: {error.strerror}", str(path)) from None
    before = [old for old in _files(directory) if old.name < path.name]
    for old in {*_files(directory)} - {path, *before[: KEEP - 1]}:  # one of a later step is damaged: it was passed over
        old.unlink()


def load_newest(directory):
    """Reads the newest checkpoint that is whole. Warns of each newer one that is not.

    Returns:
        Pair (meta, arrays), or None if there is no checkpoint.

    Raises:
        DamagedCheckpoint: if there are some, and none of them is whole.
        OSError: if one cannot be read.

    Example:

    >>> import numpy as np
    >>> from keras_vae import checkpoints
    >>> checkpoints.save("run/checkpoints", {"step": 3}, {"weight": np.ones(2)})
    >>> meta, arrays = checkpoints.load_newest("run/checkpoints")
    >>> meta["step"], arrays["weight"].tolist()
    (3, [1.0, 1.0])
    """
    damaged = []
    for path in _files(directory):
        try:
            found = read(path)
        except DamagedCheckpoint:
            damaged.append(path)
            continue
        for other in damaged:
            warnings.warn(f"The checkpoint {other} is damaged, and passed over for the one before it.", stacklevel=2)
        return found
    if damaged:
        raise DamagedCheckpoint(f"Every checkpoint in {directory} is damaged: {', '.join(p.name for p in damaged)}.")
    return None


def read(path):
    """Reads one checkpoint: (meta, arrays).

    Raises:
        DamagedCheckpoint: if it is not exactly what was written.
        OSError: if it cannot be read.
    """
    content = memoryview(files.read_bytes(path))
    size = DIGEST().digest_size
    if len(content) <= size or DIGEST(content[:-size]).digest() != content[-size:]:
        raise DamagedCheckpoint(f"The checkpoint {path} is damaged.")
    with np.load(io.BytesIO(content[:-size]), allow_pickle=False) as file:
        arrays = dict(file)
    return json.loads(str(arrays.pop("meta"))), arrays


def last(directory):
    """Path of the newest checkpoint, whole or not, or None."""
    return next(iter(_files(directory)), None)


def _files(directory):
    """Checkpoints, the newest first."""
    return sorted(Path(directory).glob("step-*.checkpoint"), reverse=True)


# -- during training -----------------------------------------------------------------------------------------------


class Checkpoint(keras.callbacks.Callback):
    """Saves the state of a run at the end of each epoch, and writes its history. The last callback of the list.

    Args:
        directory: Folder of the checkpoints.
        steps_per_epoch: Int.
        every: Int, save also after every this many steps; 0 for not.
        minutes: Float, save also after this many minutes; 0 for not.
        history: Path of the CSV file with a row for each epoch, or None.
        callbacks: The callbacks whose state is part of the state of the run.
        stop: Callable that returns whether to save and stop.
        chief: Bool, whether this process is the one that writes.
    """

    def __init__(
        self,
        directory,
        steps_per_epoch,
        *,
        every=0,
        minutes=0.0,
        history=None,
        callbacks=(),
        stop=lambda: False,
        chief=True,
    ):
        super().__init__()
        self.directory = Path(directory)
        self.steps_per_epoch = steps_per_epoch
        self.every = every
        self.minutes = minutes
        self.history = history and Path(history)
        self.callbacks = list(callbacks)
        self.stop = stop
        self.chief = chief
        self.step = 0  # steps done
        self.rows = []  # the logs of each epoch
        self.stopped = False  # whether a callback ended the training early
        self.saved = None  # the state to put back when the first epoch begins
        self.saved_at = time.monotonic()

    def restore(self, model):
        """Gives a built and compiled model the newest state, and remembers the rest for the first epoch.

        Returns:
            Int: the number of steps that were done; 0 without a checkpoint.
        """
        saved = load_newest(self.directory)
        if saved is not None:
            meta, arrays = saved
            if meta["steps_per_epoch"] != self.steps_per_epoch:
                raise InputError(
                    f"The run was started with {meta['steps_per_epoch']} steps in an epoch, and continuing it would "
                    f"have {self.steps_per_epoch}: the data changed."
                )
            set_state(model, arrays)
            self.step, self.rows, self.saved = meta["step"], meta["rows"], saved
            self.stopped = meta["stop_training"]
            self._write_history()
        return self.step

    def on_epoch_begin(self, epoch, logs=None):
        if self.saved is not None:
            self._restore_the_rest(*self.saved)
            self.saved = None

    def on_train_batch_end(self, batch, logs=None):
        before, self.step = self.step, self.step - self.step % self.steps_per_epoch + batch + 1
        if self.step % self.steps_per_epoch == 0:
            return  # the epoch is at its end only after its validation
        if self.model.steps_pending:
            return  # the weights are those of a later step
        minutes = (time.monotonic() - self.saved_at) / 60
        due = self.every and before // self.every != self.step // self.every
        due = due or (self.minutes and minutes >= self.minutes)
        stop = self.stop()
        if due or stop:
            self._save()
        if stop:
            raise InterruptedRun(self.step)

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append({"epoch": epoch, **{name: float(value) for name, value in (logs or {}).items()}})
        self._write_history()
        self._save()
        if self.stop():
            raise InterruptedRun(self.step)

    def _save(self):
        arrays = state_of(self.model)
        states = []
        for number, callback in enumerate(self.callbacks):
            fields = {name: getattr(callback, name) for name in CALLBACK_FIELDS if hasattr(callback, name)}
            states.append({name: _plain(value) for name, value in fields.items()})
            for index, weight in enumerate(getattr(callback, "best_weights", None) or ()):
                arrays[f"best-{number}-{index}"] = np.asarray(weight)
        if self.chief:
            meta = {
                "step": self.step,
                "steps_per_epoch": self.steps_per_epoch,
                "stop_training": bool(self.model.stop_training),
                "rows": self.rows,
                "callbacks": states,
            }
            save(self.directory, meta, arrays)
        self.saved_at = time.monotonic()

    def _restore_the_rest(self, meta, arrays):
        if self.step % self.steps_per_epoch:  # else those of an epoch that is over
            set_metrics(self.model, arrays)
        for number, (callback, state) in enumerate(zip(self.callbacks, meta["callbacks"], strict=True)):
            for name, value in state.items():
                setattr(callback, name, value)
            names = [name for name in arrays if name.startswith(f"best-{number}-")]
            best = sorted(names, key=lambda name: int(name.rpartition("-")[2]))
            if best:
                callback.best_weights = [arrays[name] for name in best]
        if self.model.history is not None:
            self.model.history.epoch = [row["epoch"] for row in self.rows]
            names = [name for name in (self.rows[0] if self.rows else ()) if name != "epoch"]
            self.model.history.history = {name: [row[name] for row in self.rows] for name in names}

    def _write_history(self):
        if self.history is None or not self.chief or not self.rows:
            return
        text = io.StringIO()
        names = sorted(name for name in self.rows[0] if name != "epoch")
        writer = csv.DictWriter(text, ["epoch", *names], restval="NA")
        writer.writeheader()
        writer.writerows(self.rows)
        files.write_bytes(self.history, text.getvalue().encode())


class InterruptedRun(Exception):
    """The state was saved after `step`, and training ends here because it was asked to."""

    def __init__(self, step):
        super().__init__(step)
        self.step = step


class _Callbacks(keras.callbacks.CallbackList):
    """The callbacks of one training that Keras sees as several calls of `fit`, one of them in the midst of an epoch."""

    offset = 0  # steps of the epoch that were done before this call of fit
    begun = False
    last_logs = None

    def on_train_begin(self, logs=None):
        if not self.begun:
            self.begun = True
            super().on_train_begin(logs)

    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch + self.offset, logs)

    def on_train_batch_end(self, batch, logs=None):
        last = self.params["steps"] - 1  # Keras counts a full execution even where less was left
        super().on_train_batch_end(min(batch + self.offset, last), logs)

    def on_train_end(self, logs=None):
        self.last_logs = logs

    def finish(self):
        super().on_train_end(self.last_logs)


def fit(model, stream, checkpoint, *, epochs, validation_data=None, callbacks=()):
    """Trains from where `checkpoint` stands to the end of the last epoch, as one `fit` from the start would have.

    Args:
        model: A built and compiled model, restored by `checkpoint.restore`.
        stream: Callable: global step -> endless dataset of the batches from there on; see `data.batches`.
        checkpoint: A `Checkpoint`.
        epochs: Int, the epochs of the whole run.
        validation_data: As for `fit`.
        callbacks: The other callbacks.

    Raises:
        InterruptedRun: if the checkpoint was asked to stop.
    """
    steps = checkpoint.steps_per_epoch
    epoch, done = divmod(checkpoint.step, steps)
    together = _Callbacks([*callbacks, checkpoint], add_history=True, model=model, epochs=epochs, steps=steps)
    parts = [(epoch, epoch + 1, steps - done), (epoch + 1, epochs, steps)] if done else [(epoch, epochs, steps)]
    model.stop_training = checkpoint.stopped
    for first, last, length in parts:
        if first >= last or model.stop_training:
            continue
        together.offset = steps - length
        model.fit(
            stream(checkpoint.step),
            initial_epoch=first,
            epochs=last,
            steps_per_epoch=length,
            validation_data=validation_data,
            callbacks=together,
            verbose=0,
        )
    if not together.begun:  # all was done before
        together.on_train_begin()
        checkpoint.on_epoch_begin(epoch)
    together.finish()


def _plain(value):
    return value if value is None or isinstance(value, (str, bool)) else float(value) if _is_real(value) else int(value)


def _is_real(value):
    return isinstance(value, (float, np.floating)) or np.asarray(value).dtype.kind == "f"
