"""Keras callbacks: progress that people can read, and pictures during training. Usable in anybody's `fit`."""

import math
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from keras_vae import files, installed
from keras_vae.event_shapes import kind_of
from keras_vae.output import Console


class ProgressReport(keras.callbacks.Callback):
    """A line for each epoch, and on a terminal a bar with the rate and the time left. For `fit(verbose=0)`.

    Args:
        images_per_epoch: Int, for the rate in images per second.
        console: A `rich.console.Console`, or None for the standard output.
    """

    every = 0  # can wait for its next call

    def __init__(self, images_per_epoch, console=None):
        super().__init__()
        self.images_per_epoch = images_per_epoch
        self.console = console or Console()

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
        self.before = epoch * self.steps
        self.progress.update(self.task, epoch=epoch + 1, completed=self.before)

    def on_train_batch_end(self, batch, logs=None):
        self.trained = time.monotonic()  # what comes after the last batch is validation
        if self.console.is_terminal and self.steps:
            rate = (batch + 1) / self.steps * self.images_per_epoch / (self.trained - self.epoch_started)
            self.progress.update(self.task, completed=self.before + batch + 1, rate=rate)

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
    """Writes pictures of examples during training, grids or panels of curves, as PNG files and for TensorBoard.

    Args:
        draw: Callable without arguments that returns examples, float [n, ...]: those of `generate` with a fixed seed,
            or reconstructions of fixed examples.
        directory: Folder of the PNG files, `step-<n>.png`.
        log_dir: Folder of the TensorBoard log, or None for none.
        every: Int, write every this many steps; 0 for every epoch.
        value_range: Pair, the lowest and the highest value of the data: what is black and what is white in an image.
    """

    def __init__(self, draw, directory, log_dir=None, every=0, value_range=(0.0, 1.0)):
        super().__init__()
        self.draw = draw
        self.value_range = value_range
        self.directory = Path(directory)
        self.log_dir = log_dir
        self.every = every
        self.step = 0

    def on_train_begin(self, logs=None):
        self.writer = tf.summary.create_file_writer(str(self.log_dir)) if self.log_dir else None

    def on_train_batch_begin(self, batch, logs=None):
        self.first = batch

    def on_train_batch_end(self, batch, logs=None):
        batch = min(batch, (self.params.get("steps") or math.inf) - 1)  # Keras counts a whole execution at the end
        before, self.step = self.step, self.step + batch + 1 - self.first
        if self.every and before // self.every != self.step // self.every:
            self.write()

    def on_epoch_end(self, epoch, logs=None):
        if not self.every:
            self.write()

    def write(self):
        from keras_vae import figures, plotting

        grid = figures.picture(self.draw(), self.value_range)
        files.make_folder(self.directory)
        plotting.save_png(grid, self.directory / f"step-{self.step:06d}.png")
        if self.writer is not None:
            with self.writer.as_default():
                tf.summary.image("images", grid[None, ..., None] if grid.ndim == 2 else grid[None], step=self.step)

    def on_train_end(self, logs=None):
        if self.writer is not None:
            self.writer.close()


class LatentStatistics(keras.callbacks.Callback):
    """Puts the number of active units, the KL of each latent dimension and beta into the logs at the end of each epoch.

    The logs get `active_units`, and `kl_0`, `kl_1`, ..., in nats and averaged over the images: one for each latent
    dimension, or for each part that the prior takes its KL apart into; and, of an `ELBO`, `beta`, the weight of the KL
    that the warm-up has come to. Put it before the callbacks that read the logs, such as `TensorBoard` and `CSVLogger`.
    The noise of the training is left as it is.

    Args:
        images: Float32 [n, ...], pixels in [0, 1]: the same at each epoch. A thousand are enough.
        labels: Int [n], for a model that takes them.

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

    def __init__(self, images, labels=None):
        super().__init__()
        self.images = images
        self.labels = labels

    def on_epoch_end(self, epoch, logs=None):
        from keras_vae import evaluation
        from keras_vae.objectives import ELBO

        active, kl = evaluation.latent_statistics(self.model, self.images, self.labels)
        logs["active_units"] = int(active.sum())
        logs.update({f"kl_{index}": float(value) for index, value in enumerate(kl)})
        if isinstance(self.model.objective, ELBO):
            logs["beta"] = float(self.model.objective.kl_weight(self.model.step))


class LatentBoard(keras.callbacks.Callback):
    """What TensorBoard shows of a model beside its losses.

    By epoch: reconstructions, for two latent dimensions the decoded plane, and images per second. Once: the
    hyper-parameters, and at the end the codes of the images, with labels, for the embedding projector.

    Args:
        log_dir: Folder of the TensorBoard log.
        images: Float32 [n, ...], test examples.
        labels: Int [n], or None.
        images_per_epoch: Int, for the rate in images per second, or None for no rate.
        hyper_parameters: Dict of numbers, strings and bools, or None.
        value_range: Pair, the lowest and the highest value of the data: what is black and what is white in an image.

    Example:

    >>> import tempfile, keras_vae, numpy as np
    >>> from keras_vae.callbacks import LatentBoard
    >>> vae = keras_vae.VAE.from_preset("mlp", event_shape=(8, 8, 1))
    >>> vae.compile(optimizer="adam")
    >>> images = np.zeros((8, 8, 8, 1), "float32")
    >>> board = LatentBoard(tempfile.mkdtemp(), images, hyper_parameters={"beta": 1.0})
    >>> history = vae.fit(images, epochs=1, verbose=0, callbacks=[board])
    """

    def __init__(
        self,
        log_dir,
        images,
        labels=None,
        images_per_epoch=None,
        hyper_parameters=None,
        value_range=(0.0, 1.0),
    ):
        super().__init__()
        installed.need("tensorboard")
        self.value_range = value_range
        self.log_dir = Path(log_dir)
        self.images = images
        self.labels = labels
        self.images_per_epoch = images_per_epoch
        self.hyper_parameters = hyper_parameters

    def on_train_begin(self, logs=None):
        self.writer = tf.summary.create_file_writer(str(self.log_dir))
        if self.hyper_parameters:
            from tensorboard.plugins.hparams import api

            with self.writer.as_default():
                api.hparams(self.hyper_parameters)

    def on_epoch_begin(self, epoch, logs=None):
        self.started, self.trained = time.monotonic(), None

    def on_test_begin(self, logs=None):
        self.trained = time.monotonic()  # what follows within the epoch is validation

    def on_epoch_end(self, epoch, logs=None):
        from keras_vae import plotting
        from keras_vae.figures import decode_plane, picture, pictures

        seconds = (self.trained or time.monotonic()) - self.started
        shown = self.images[:32]
        reconstructed = np.asarray(self.model.reconstruct(shown, *self._given(32)))
        grids = {"reconstructions": picture(shown, self.value_range, over=reconstructed)}
        if self.model.latent_dim == 2 and self._are_images:
            first = self._given(1)  # of a conditional model: the plane of one class

            def decode(z):
                decoded = self.model.decode(z, *(np.repeat(one, len(z)) for one in first))
                return pictures(decoded, self.value_range)

            plane = decode_plane(decode, side=15)[0][::-1]  # z[1] grows upward
            grids["manifold"] = plotting.image_grid(plane.reshape(-1, *plane.shape[2:]), columns=15, gap=0)
        with self.writer.as_default(step=epoch):
            for name, grid in grids.items():
                tf.summary.image(name, grid.reshape(1, *grid.shape[:2], -1))
            if self.images_per_epoch:
                tf.summary.scalar("images_per_second", self.images_per_epoch / seconds)

    def on_train_end(self, logs=None):
        from tensorboard.plugins import projector

        from keras_vae import plotting
        from keras_vae.figures import pictures

        self.writer.close()
        codes = np.asarray(self.model.code(self.images, *self._given(None)))
        with files.writing(self.log_dir / "codes.tsv") as file:
            np.savetxt(file, codes, fmt="%.5g", delimiter="\t")
        config = projector.ProjectorConfig()
        embedding = config.embeddings.add(tensor_name="codes", tensor_path="codes.tsv")
        if self._are_images:
            shown, columns = pictures(self.images, self.value_range), math.ceil(math.sqrt(len(self.images)))
            plotting.save_png(plotting.image_grid(shown, columns, gap=0), self.log_dir / "images.png")
            embedding.sprite.image_path = "images.png"
            embedding.sprite.single_image_dim.extend([shown.shape[2], shown.shape[1]])  # width, height
        if self.labels is not None:
            with files.writing(self.log_dir / "labels.tsv") as file:
                np.savetxt(file, self.labels, fmt="%s")
            embedding.metadata_path = "labels.tsv"
        files.write_bytes(self.log_dir / "projector_config.pbtxt", str(config).encode())

    @property
    def _are_images(self):
        return kind_of(self.images.shape[1:]) == "image"

    def _given(self, count):
        """What a model takes beside its first images: their labels, or nothing."""
        return [self.labels[:count]] if self.model.takes_labels else []


def duration(seconds):
    """Seconds in words.

    Example:

    >>> from keras_vae.callbacks import duration
    >>> duration(75)
    '1 min 15 s'
    """
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
