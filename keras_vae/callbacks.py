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


def duration(seconds):
    """Seconds in words.

    Example:

    >>> from keras_vae.callbacks import duration
    >>> duration(75)
    '1 min 15 s'
    """
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
