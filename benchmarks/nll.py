"""Measures importance sampling on the 784-200-200-50 model beside matrix multiplication, and writes benchmarks/nll.md.

    python benchmarks/nll.py [--rounds N] [--threads N]

The two are measured in turn, so that what else the machine does hits both; medians are written, by the clock and by
the time of this process on all cores, which others disturb less. The model is not trained: the time does not depend on
that. Takes some minutes.
"""

import datetime
import os
import platform
import time
from pathlib import Path

import click
import numpy as np

TABLE = Path(__file__).with_suffix(".md")
IMAGES, SAMPLES = 10_000, 5_000
MATRIX = 2048
HIDDEN, LATENT, PIXELS = (200, 200), 50, 784
OPERATIONS = 2 * (LATENT * HIDDEN[0] + HIDDEN[0] * HIDDEN[1] + HIDDEN[1] * PIXELS)  # of one sample, in matrix products


@click.command(help=__doc__)
@click.option("--rounds", default=15, show_default=True, help="Batches of 20 images with 5,000 samples each.")
@click.option("--threads", default=os.cpu_count(), show_default=True, help="Threads of TensorFlow.")
def main(rounds, threads):
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    import keras_vae
    from keras_vae import evaluation, networks

    keras.utils.set_random_seed(0)
    encoder, decoder = networks.build("mlp", (28, 28, 1), LATENT, hidden=HIDDEN, activation="tanh")
    vae = keras_vae.VAE(encoder, decoder, seed=0)
    images = np.random.default_rng(0).integers(0, 2, (20 * (rounds + 1), 28, 28, 1)).astype("float32")
    rate = sgemm_rate(tf)
    measured = []
    started = None

    def on_batch(results):
        nonlocal started
        now = clocks()
        after = rate()
        if started is not None:
            measured.append([20 * SAMPLES * OPERATIONS / (now - started[0]) / 1e9, (started[1] + after) / 2])
        started = (clocks(), after)

    evaluation.marginal_likelihood(vae, images, SAMPLES, on_batch=on_batch)
    write(np.array(measured), threads)


def clocks():
    """Seconds by the clock and of this process."""
    return np.array([time.perf_counter(), time.process_time()])


def sgemm_rate(tf):
    """A callable that measures float32 matrix products, in GFLOP/s by both clocks."""
    matrix = tf.random.normal((MATRIX, MATRIX))
    multiply = tf.function(lambda: tf.linalg.matmul(matrix, matrix))
    multiply()

    def rate():
        started = clocks()
        for _ in range(8):
            product = multiply()
        product.numpy()
        return 8 * 2 * MATRIX**3 / (clocks() - started) / 1e9

    return rate


def write(measured, threads):
    """Writes the table from measured [rounds, (sampling, sgemm), (clock, process)], GFLOP/s."""
    from keras_vae.installed import version

    rates, shares = np.median(measured, axis=0), np.median(measured[:, 0] / measured[:, 1], axis=0)
    minutes = IMAGES * SAMPLES * OPERATIONS / rates[:, 0] / 6e10
    text = f"""# Importance sampling

Written by `python benchmarks/nll.py`: {SAMPLES:,} samples for each image on the model 784-200-200-50 (Bernoulli, tanh),
in turn with products of {MATRIX}x{MATRIX} float32 matrices. Medians of {len(measured)} rounds. The operations counted
are those of the decoder's matrix products alone, {OPERATIONS / 1e6:.3f} MFLOP a sample; noise, densities, softplus and
all else come on top of them. By processor time is by the time that the process had on all cores, which other processes
disturb less: the machine was not free.

{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, {threads} threads, Python
{platform.python_version()}, tensorflow {version("tensorflow")}.

| what | GFLOP/s | {IMAGES:,} images | GFLOP/s by processor time |
| --- | --- | --- | --- |
| importance sampling | {rates[0, 0]:.0f} | {minutes[0]:.1f} minutes | {rates[0, 1]:.0f} |
| matrix products alone | {rates[1, 0]:.0f} | {minutes[1]:.1f} minutes | {rates[1, 1]:.0f} |
| share | {100 * shares[0]:.0f} % | | {100 * shares[1]:.0f} % |
"""
    TABLE.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
