"""Keras callbacks: progress that people can read, and pictures during training. Usable in anybody's `fit`."""

import time
from pathlib import Path

import keras
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressReport(keras.callbacks.Callback):
    """A line for each epoch, and on a terminal a bar with the rate and the time left. For `fit(verbose=0)`.

    Args:
        images_per_epoch: Int, for the rate in images per second.
        console: A `rich.console.Console`, or None for the standard output.
    """

    def __init__(self, images_per_epoch, console=None):
        super().__init__()
        self.images_per_epoch = images_per_epoch
        self.console = console or Console(highlight=False, soft_wrap=True)

    def on_train_begin(self, logs=None):
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:3.0f} %"),
            TimeRemainingColumn(),
            TextColumn("left"),
            TextColumn("{task.fields[rate]:>8,.0f} images/s"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.epochs = self.params["epochs"]
        self.steps = self.params["steps"] or 0  # unknown in the first epoch of some data sets
        total = self.epochs * self.steps or None
        self.task = self.progress.add_task("", total=total, epoch=1, epochs=self.epochs, rate=0)
        self.progress.start()
        self.started = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self.first_epoch = getattr(self, "first_epoch", epoch)
        self.epoch_started = time.monotonic()
        self.progress.update(self.task, epoch=epoch + 1, completed=epoch * self.steps)

    def on_train_batch_end(self, batch, logs=None):
        self.trained = time.monotonic()  # what comes after the last batch is validation
        if self.console.is_terminal and self.steps:
            done = (batch + 1) / self.steps
            rate = done * self.images_per_epoch / (self.trained - self.epoch_started)
            self.progress.update(self.task, advance=1, rate=rate)

    def on_epoch_end(self, epoch, logs=None):
        now = time.monotonic()
        left = (now - self.started) / (epoch + 1 - self.first_epoch) * (self.epochs - epoch - 1)
        parts = [f"epoch {epoch + 1:>{len(str(self.epochs))}}/{self.epochs}"]
        for split, prefix in (("train", ""), ("test", "val_")):
            losses = " ".join(
                f"{name.removesuffix('_loss')} {logs[prefix + name]:.2f}"
                for name in ("loss", "reconstruction_loss", "kl_loss")
                if prefix + name in logs
            )
            parts.append(f"{split} {losses}" if losses else "")
        parts.append(f"{self.images_per_epoch / (self.trained - self.epoch_started):,.0f} images/s")
        parts.append(f"{duration(left)} left" if left else "")
        self.console.print("  ".join(part for part in parts if part))

    def on_train_end(self, logs=None):
        self.stop()

    def stop(self):
        """Takes the bar off the terminal, also after an error."""
        if hasattr(self, "progress"):
            self.progress.stop()


class ImageGrids(keras.callbacks.Callback):
    """Writes grids of images during training, as PNG files and for TensorBoard.

    Args:
        draw: Callable without arguments that returns images, float [n, h, w, c] in [0, 1]: those of `generate` with
            a fixed seed, or reconstructions of fixed images.
        directory: Folder of the PNG files, `step-<n>.png`.
        log_dir: Folder of the TensorBoard log, or None for none.
        every: Int, write every this many steps; 0 for every epoch.
    """

    def __init__(self, draw, directory, log_dir=None, every=0):
        super().__init__()
        self.draw = draw
        self.directory = Path(directory)
        self.log_dir = log_dir
        self.every = every
        self.step = 0

    def on_train_begin(self, logs=None):
        self.writer = tf.summary.create_file_writer(str(self.log_dir)) if self.log_dir else None

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.every and self.step % self.every == 0:
            self.write()

    def on_epoch_end(self, epoch, logs=None):
        if not self.every:
            self.write()

    def write(self):
        from keras_vae import plotting

        grid = plotting.image_grid(tf.convert_to_tensor(self.draw()).numpy())
        self.directory.mkdir(parents=True, exist_ok=True)
        plotting.save_png(grid, self.directory / f"step-{self.step:06d}.png")
        if self.writer is not None:
            with self.writer.as_default():
                tf.summary.image("images", grid[None, ..., None] if grid.ndim == 2 else grid[None], step=self.step)

    def on_train_end(self, logs=None):
        if self.writer is not None:
            self.writer.close()


class LatentStatistics(keras.callbacks.Callback):
    """Puts the number of active units and the KL of each latent dimension into the logs at the end of each epoch.

    The logs get `active_units`, and `kl_0`, `kl_1`, ..., in nats and averaged over the images: one for each latent
    dimension, or for each part that the prior takes its KL apart into. Put it before callbacks that read the logs, such
    as `CSVLogger`. The noise of the training is left as it is.

    Args:
        images: Float32 [n, ...], pixels in [0, 1]: the same at each epoch.
        labels: Int [n], for a model that takes them.
        log_dir: Folder of a TensorBoard log, or None for none.

    Example:

    >>> import keras_vae, numpy as np
    >>> from keras_vae.callbacks import LatentStatistics
    >>> vae = keras_vae.VAE.from_preset("mlp")
    >>> vae.compile()
    >>> images = np.zeros((8, 28, 28, 1), "float32")
    >>> history = vae.fit(images, verbose=0, callbacks=[LatentStatistics(images)])
    >>> "active_units" in history.history, "kl_19" in history.history
    (True, True)

    Reference:
        Burda et al., Importance Weighted Autoencoders, 2016, section 5.2.
    """

    def __init__(self, images, labels=None, log_dir=None):
        super().__init__()
        self.images = images
        self.labels = labels
        self.log_dir = log_dir

    def on_train_begin(self, logs=None):
        self.writer = tf.summary.create_file_writer(str(self.log_dir)) if self.log_dir else None

    def on_epoch_end(self, epoch, logs=None):
        from keras_vae import evaluation

        active, kl = evaluation.latent_statistics(self.model, self.images, self.labels)
        found = {"active_units": int(active.sum()), **{f"kl_{index}": float(value) for index, value in enumerate(kl)}}
        if logs is not None:
            logs.update(found)
        if self.writer is not None:
            with self.writer.as_default():
                for name, value in found.items():
                    tf.summary.scalar(name, value, step=epoch)

    def on_train_end(self, logs=None):
        if self.writer is not None:
            self.writer.close()


def duration(seconds):
    """Seconds in words.

    Example:

    >>> from keras_vae.callbacks import duration
    >>> duration(75)
    '1 min 15 s'
    """
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
