"""Measures what it costs that a run can be continued, and writes benchmarks/checkpoints.md.

    python benchmarks/checkpoints.py [--rounds 15] [--epochs 1] [--mnist-dir DIR]

Two comparisons, each alternating in one process: the default run (the preset mlp on MNIST) with a checkpoint every
epoch against the same without, and the resumable pipeline against tf.data's own shuffle. Takes about five minutes on 2
cores. What the machine does besides is in the numbers: hence medians, the quartiles of the ratio of the two runs of a
round, and the time of the processor beside that of the clock.
"""

import datetime
import os
import platform
import tempfile
import time
from pathlib import Path

import click
import keras
import numpy as np
import tensorflow as tf

from keras_vae import checkpoints, data
from keras_vae.data import open_dataset
from keras_vae.models import build_model
from keras_vae.presets import get_preset

TABLE = Path(__file__).with_suffix(".md")
SEED = 0
CONFIG = get_preset("mlp").config
BATCH = CONFIG.training.batch_size


class Timed(checkpoints.Checkpoint):
    """Writes down how long each save takes, or leaves it out."""

    def __init__(self, *arguments, saves, **options):
        super().__init__(*arguments, **options)
        self.saves = saves
        self.seconds = []

    def _save(self):
        began = time.perf_counter()
        if self.saves:
            super()._save()
        self.seconds.append(time.perf_counter() - began)


def epochs_with_and_without(images, epochs, rounds):
    """Seconds of an epoch with checkpoints and without [rounds, 2: clock, processor], and of each save."""
    keras.utils.set_random_seed(SEED)
    model = build_model(CONFIG.model, images.event_shape, seed=SEED)
    model.compile(keras.optimizers.Adam(CONFIG.training.learning_rate))
    model.optimizer.build(model.trainable_variables)
    steps = -(-len(images.train) // BATCH)
    validation = data.batches(images.test, 500)
    saving = []

    def seconds(saves):
        with tempfile.TemporaryDirectory(dir=".") as folder:  # on a disk, not where /tmp may be memory
            checkpoint = Timed(Path(folder) / "checkpoints", steps, history=Path(folder) / "h.csv", saves=saves)
            began = np.array([time.perf_counter(), time.process_time()])
            checkpoints.fit(
                model,
                lambda step: data.batches(images.train, BATCH, shuffle=True, seed=SEED, first_step=step),
                checkpoint,
                epochs=epochs,
                validation_data=validation,
            )
            took = np.array([time.perf_counter(), time.process_time()]) - began
        saving.extend(checkpoint.seconds if saves else [])
        return took / epochs

    seconds(True)  # traces
    saving.clear()
    return *alternate(seconds, rounds), saving


def images_a_second(images, rounds):
    """Of the resumable pipeline, and of the same one with tf.data's own shuffle [rounds]."""
    train = images.train
    ours = data.batches(train, BATCH, shuffle=True, seed=SEED)
    shuffled = tf.data.Dataset.from_tensor_slices(train.images).shuffle(len(train), seed=SEED).batch(BATCH)
    theirs = shuffled.map(
        lambda x: tf.cast(x, tf.float32) * (1 / 255), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    ).prefetch(tf.data.AUTOTUNE)

    def rate(resumable):
        began, seen = time.perf_counter(), 0
        for batch in ours if resumable else theirs:
            seen += len(batch)
        if seen != len(train):
            raise RuntimeError(f"Expected {len(train)} images in an epoch. Received: {seen}.")
        return seen / (time.perf_counter() - began)

    return alternate(rate, rounds)


def alternate(measure, rounds):
    """What `measure` says with True and with False, in turns; which comes first changes."""
    found = {True: [], False: []}
    for number in range(rounds):
        for which in (True, False) if number % 2 else (False, True):
            found[which].append(measure(which))
    return np.array(found[True]), np.array(found[False])


def ratio(first, second):
    """Median and quartiles of the ratio of the two of each round, as text."""
    low, middle, high = np.percentile(first / second, [25, 50, 75])
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


@click.command(help=__doc__)
@click.option("--rounds", default=15, show_default=True)
@click.option("--epochs", default=1, show_default=True, help="Epochs of a measurement.")
@click.option("--mnist-dir", help="Folder with the four official MNIST files; see `keras-vae train --help`.")
def main(rounds, epochs, mnist_dir):
    from keras_vae.installed import version

    images = open_dataset("mnist", mnist_dir=mnist_dir)
    ours, theirs = images_a_second(images, 2 * rounds)
    with_saves, without, saving = epochs_with_and_without(images, epochs, rounds)
    save, epoch = np.median(saving), np.median(without[:, 0])
    lines = [
        "# What it costs that a run can be continued",
        "",
        f"Written by `python benchmarks/checkpoints.py --rounds {rounds} --epochs {epochs}`, {datetime.date.today()}: "
        f"{len(os.sched_getaffinity(0))} CPU cores ({platform.machine()}), TensorFlow {version('tensorflow')}, "
        f"Keras {version('keras')}, Python {platform.python_version()}, seed {SEED}, "
        f"{tf.config.threading.get_intra_op_parallelism_threads() or 'as many threads as cores'}"
        " in an operation. No GPU was used, and the machine was not always free.",
        "",
        "A checkpoint every epoch: the preset `mlp` on MNIST, batches of 128, with validation. The target: under 2 %.",
        "",
        "| what | median |",
        "| --- | --- |",
        f"| an epoch with a checkpoint at its end | {np.median(with_saves[:, 0]):.2f} s |",
        f"| an epoch without | {epoch:.2f} s |",
        f"| with / without, in the same round (quartiles) | {ratio(with_saves[:, 0], without[:, 0])} |",
        f"| the same of the time of the processor | {ratio(with_saves[:, 1], without[:, 1])} |",
        f"| saving alone | {1e3 * save:.0f} ms ({1e3 * min(saving):.0f} to {1e3 * max(saving):.0f}) |",
        f"| saving alone, share of an epoch | {save / epoch:.1%} |",
        "",
        "The pipeline: 60,000 images in batches of 128, shuffled, made into float32, none trained on. The target: no "
        "slower.",
        "",
        "| what | median |",
        "| --- | --- |",
        f"| `keras_vae.data.batches(..., shuffle=True)` | {np.median(ours):,.0f} images a second |",
        f"| the same with `tf.data.Dataset.shuffle` over all images | {np.median(theirs):,.0f} images a second |",
        f"| the first / the second, in the same round (quartiles) | {ratio(ours, theirs)} |",
    ]
    TABLE.write_text("\n".join(lines) + "\n")
    click.echo(TABLE.read_text())


if __name__ == "__main__":
    main()
