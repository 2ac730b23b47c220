"""Measures what each further model costs that is built and fitted in one process, and writes benchmarks/memory.md.

    python benchmarks/memory.py [--models N]

The same VAE, 784-128-20, as a model of this package and as one in plain Keras, step by step and compiled by XLA: each
in a process of its own. Resident memory is read after Python has collected its garbage. About five minutes.
"""

import gc
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
from tables import write_section

TABLE = Path(__file__).with_suffix(".md")
KINDS = ("plain Keras", "keras_vae")
FIRST = 3  # models before the first reading: what one process needs once


@click.command(help=__doc__)
@click.option("--models", default=25, show_default=True, help="Models in a process.")
@click.option("--worker", nargs=2, hidden=True)
def main(models, worker):
    if worker:
        kind, jit_compile = worker
        print(json.dumps(growth(kind, jit_compile == "True", models)))
        return
    lines = ["| training | plain Keras, MB a model | keras_vae, MB a model | ratio |", "| --- | --- | --- | --- |"]
    for name, jit_compile in (("step by step", False), ("compiled by XLA", True)):
        plain, ours = (measured(kind, jit_compile, models) for kind in KINDS)
        lines.append(f"| {name} | {plain:.1f} | {ours:.1f} | {ours / plain:.2f} |")
        click.echo(lines[-1])
    write_section(TABLE, ["## Models in one process", "", *lines], heading(models))


def measured(kind, jit_compile, models):
    """MB that a model costs, by a process of its own."""
    command = [sys.executable, __file__, "--models", str(models), "--worker", kind, str(jit_compile)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def growth(kind, jit_compile, models):
    images = np.random.default_rng(0).random((256, 28, 28, 1)).astype("float32")
    make = plain_keras() if kind == KINDS[0] else ours

    def one_more():
        model = make()
        model.compile("adam", jit_compile=jit_compile)
        model.fit(images, batch_size=64, verbose=0)

    for _ in range(FIRST):
        one_more()
    before = resident()
    for _ in range(models):
        one_more()
    return (resident() - before) / models


def resident():
    """MB of memory that this process has."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def ours():
    from keras_vae import VAE, networks

    return VAE(*networks.build("mlp", (28, 28, 1), 20, hidden=(128,)))


def plain_keras():
    """The class of such a model, as in the Keras example."""
    import keras
    import tensorflow as tf
    from keras import layers, ops

    class PlainVAE(keras.Model):
        def __init__(self):
            super().__init__()
            image, z = keras.Input((28, 28, 1)), keras.Input((20,))
            hidden = layers.Dense(128, activation="relu")(layers.Flatten()(image))
            self.encoder = keras.Model(image, [layers.Dense(20)(hidden), layers.Dense(20)(hidden)])
            logits = layers.Dense(784)(layers.Dense(128, activation="relu")(z))
            self.decoder = keras.Model(z, layers.Reshape((28, 28, 1))(logits))
            self.seeds = keras.random.SeedGenerator(0)
            self.trackers = [keras.metrics.Mean(name=name) for name in ("loss", "reconstruction_loss", "kl_loss")]

        def losses_of(self, x):
            z_mean, z_log_var = self.encoder(x)
            eps = keras.random.normal(ops.shape(z_mean), seed=self.seeds)
            logits = self.decoder(z_mean + ops.exp(0.5 * z_log_var) * eps)
            cross_entropy = ops.binary_crossentropy(x, logits, from_logits=True)
            reconstruction_loss = ops.mean(ops.sum(cross_entropy, axis=(1, 2, 3)))
            kl_loss = -0.5 * ops.mean(ops.sum(1 + z_log_var - z_mean**2 - ops.exp(z_log_var), axis=1))
            return reconstruction_loss + kl_loss, reconstruction_loss, kl_loss

        def train_step(self, x):
            with tf.GradientTape() as tape:
                losses = self.losses_of(x)
            gradients = tape.gradient(losses[0], self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            for tracker, loss in zip(self.trackers, losses, strict=True):
                tracker.update_state(loss)
            return {tracker.name: tracker.result() for tracker in self.trackers}

    return PlainVAE


def heading(models):
    from keras_vae.installed import version

    return [
        "# Memory of one model after another",
        "",
        f"Written by `python benchmarks/memory.py`: {models} models after the first {FIRST}, Python "
        f"{platform.python_version()},",
        f"tensorflow {version('tensorflow')}, keras {version('keras')}, {platform.machine()}.",
        "TensorFlow keeps the graphs of functions and the programs of XLA for as long as a process runs.",
        "",
    ]


if __name__ == "__main__":
    main()
