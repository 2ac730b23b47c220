"""Measures how speed and memory change as the work grows, and writes benchmarks/growth.md.

    python benchmarks/growth.py [KIND ...] [--threads N]

Each row is a process of its own. Images are random: neither speed nor memory depends on them. About ten minutes.
"""

import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
from tables import write_section

TABLE = Path(__file__).with_suffix(".md")
# kind -> (title, name of the first column, its values)
KINDS = {
    "batch": ("Training the MLP 784-128-100, by batch size", "batch size", (16, 32, 64, 128, 256, 512, 1024)),
    "latent": ("Training the MLP 784-128-z at batch 128, by latent size", "latent dimensions", (2, 10, 50, 200, 800)),
    "draws": ("Training 784-200-200-50 as an IWAE at batch 20, by k", "k", (1, 5, 10, 50, 200)),
    "scoring": ("Importance sampling on 784-200-200-50, by k", "k", (100, 1000, 5000, 20_000, 100_000)),
    "size": ("Training conv 32-64 at batch 32, by image size", "height and width", (28, 56, 112, 224)),
    "stream": (
        "Training 12288-128-20 on a stream of generated 64x64 colour images",
        "GB of pixels",
        (0.5, 1, 2, 5, 10),
    ),
}
STEPS = 1024  # in an epoch of the MLPs


@click.command(help=__doc__)
@click.argument("kinds", nargs=-1)
@click.option("--threads", default=os.cpu_count(), show_default=True, help="Threads of TensorFlow.")
@click.option("--worker", nargs=2, hidden=True)
def main(kinds, threads, worker):
    if worker:
        kind, value = worker
        seconds, images = MEASURES[kind](json.loads(value))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(json.dumps({"rate": images / seconds, "memory": memory}))
        return
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise click.UsageError(f"Unknown kind {unknown.pop()!r}. Expected one of: {', '.join(KINDS)}.")
    for kind in kinds or KINDS:
        title, column, values = KINDS[kind]
        lines = [f"## {title}", "", f"| {column} | images/s | memory, MB |", "| --- | --- | --- |"]
        for value in values:
            row = measured(kind, value, threads)
            lines.append(f"| {value:,} | {row['rate']:,.{0 if row['rate'] >= 10 else 1}f} | {row['memory']:,.0f} |")
            click.echo(lines[-1])
        write_section(TABLE, lines, heading(threads))


def measured(kind, value, threads):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment |= {name: str(threads) for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")}
    command = [sys.executable, __file__, "--worker", kind, json.dumps(value)]
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


def heading(threads):
    from keras_vae.installed import version

    return [
        "# As the work grows",
        "",
        f"Written by `python benchmarks/growth.py`: {datetime.date.today()}, {platform.machine()},",
        f"{os.cpu_count()} cores, {threads} threads, Python {platform.python_version()}, "
        f"tensorflow {version('tensorflow')}, keras {version('keras')}.",
        "Adam, float32, compiled where `fit` does that for a training of more than 1,000 steps. Training is the median",
        "of three epochs after the first, and of the stream its only one. Memory is the largest that the process had.",
        "",
    ]


def trained(model, data, images, epochs=4, jit_compile=True):
    """(Median seconds of the epochs after the first, images in one)."""
    import keras

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.begun = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            seconds.append(time.perf_counter() - self.begun)

    seconds = []
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=jit_compile)
    model.fit(data, epochs=epochs, verbose=0, callbacks=[Clock()])
    return statistics.median(seconds[1:] or seconds), images


def mlp(batch_size=128, latent_dim=100, hidden=(128,), steps=STEPS, draws=1):
    from keras_vae import VAE, networks, objectives

    encoder, decoder = networks.build("mlp", (28, 28, 1), latent_dim, hidden=hidden)
    model = VAE(encoder, decoder, objective=objectives.IWAE(draws) if draws > 1 else "elbo")
    return trained(model, _batches(batch_size, steps, 28, 1), steps * batch_size)


def _batches(batch_size, steps, size, channels):
    from keras_vae.data import batches
    from keras_vae.data.images import Split

    count = min(steps * batch_size, 60_000)
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, channels), "uint8")
    data = batches(Split(images, None, "train"), batch_size, shuffle=True)
    return data.repeat().take(steps)


def scoring(num_samples):
    import keras

    from keras_vae import VAE, evaluation, networks

    keras.utils.set_random_seed(0)
    encoder, decoder = networks.build("mlp", (28, 28, 1), 50, hidden=(200, 200), activation="tanh")
    vae, images = VAE(encoder, decoder, seed=0), max(100, 1_000_000 // num_samples)
    x = np.random.default_rng(0).integers(0, 2, (images, 28, 28, 1)).astype("float32")
    evaluation.marginal_likelihood(vae, x, num_samples)
    start = time.perf_counter()
    evaluation.marginal_likelihood(vae, x, num_samples)
    return time.perf_counter() - start, images


def conv(size):
    from keras_vae import VAE, networks

    encoder, decoder = networks.build("conv", (size, size, 1), 20, hidden=(32, 64))
    steps = max(2, 40 * 28**2 // size**2)
    return trained(VAE(encoder, decoder), _batches(32, steps, size, 1), steps * 32, jit_compile="auto")


def stream(gigabytes):
    import tensorflow as tf

    from keras_vae import VAE, networks

    shape = (128, 64, 64, 3)
    steps = round(gigabytes * 1e9 / (4 * np.prod(shape)))
    data = tf.data.Dataset.range(steps).map(lambda step: tf.random.stateless_uniform(shape, [0, step])).prefetch(2)
    encoder, decoder = networks.build("mlp", shape[1:], 20, hidden=(128,))
    return trained(VAE(encoder, decoder), data, steps * shape[0], epochs=1)


MEASURES = {
    "batch": lambda value: mlp(batch_size=value),
    "latent": lambda value: mlp(latent_dim=value),
    "draws": lambda value: mlp(
        batch_size=20, latent_dim=50, hidden=(200, 200), draws=value, steps=max(64, STEPS // value)
    ),
    "scoring": scoring,
    "size": conv,
    "stream": stream,
}


if __name__ == "__main__":
    main()
