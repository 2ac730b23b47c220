"""Takes a training step apart and writes benchmarks/anatomy.md: what its parts cost, and each way of running it.

    python benchmarks/anatomy.py [--rounds N] [--threads N]

The figures behind docs/performance.md. Images are random: the time does not depend on them. About five minutes.
"""

import datetime
import os
import platform
import statistics
import time
from pathlib import Path

import click
import numpy as np

TABLE = Path(__file__).with_suffix(".md")
# preset, batch size, steps in one measurement
STEPS = [("mlp-128-100", 64, 64), ("mlp-128-100", 128, 64), ("burda-iwae", 20, 8), ("conv", 128, 2)]
NORMALS = (50, 20, 50)  # the draws of a step of burda-iwae


@click.command(help=__doc__)
@click.option("--rounds", default=7, show_default=True)
@click.option("--threads", default=os.cpu_count(), show_default=True, help="Threads of TensorFlow.")
def main(rounds, threads):
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    from keras_vae.installed import version

    lines = [
        "# A training step, taken apart",
        "",
        f"Written by `python benchmarks/anatomy.py`: {datetime.date.today()}, {platform.machine()},",
        f"{os.cpu_count()} cores, {threads} threads, Python {platform.python_version()}, "
        f"tensorflow {version('tensorflow')}, keras {version('keras')}.",
        f"Milliseconds a step, by the clock; medians of {rounds} rounds, in turn.",
        "",
        "| what | " + " | ".join(f"{preset}, batch {batch}" for preset, batch, _ in STEPS) + " |",
        "| --- |" + " --- |" * len(STEPS),
    ]
    columns = [parts_of_a_step(tf, *each, rounds) for each in STEPS]
    for what in columns[-1]:
        cells = [f"{column[what]:.2f}" if what in column else "" for column in columns]
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    lines += ["", f"{np.prod(NORMALS):,} normals, as one layer draws them:", "", "| how | ms |", "| --- | --- |"]
    lines += [f"| {how} | {value:.2f} |" for how, value in normals(tf, rounds).items()]
    lines += ["", "Seconds to begin another pass over 60,000 images, 300 ms after the one before ended:", ""]
    lines += ["| tf.data's autotuning | median | largest of 20 |", "| --- | --- | --- |"]
    for state in ("on", "off"):
        found = beginnings(tf, state == "on")
        lines.append(f"| {state} | {statistics.median(found):.3f} | {max(found):.3f} |")
    TABLE.write_text("\n".join(lines) + "\n")
    click.echo(TABLE.read_text())


def parts_of_a_step(tf, preset, batch, steps, rounds):
    """Dict: what -> milliseconds a step."""
    import keras

    import keras_vae
    from keras_vae import layers, noise

    x = tf.constant(np.random.default_rng(0).random((steps, batch, 28, 28, 1), "float32"))
    functions = {}

    def add(what, step, compiled, rng="philox", products=layers.Conv2DTranspose.MAX_PRODUCTS):
        model = keras_vae.VAE.from_preset(preset, seed=0)
        model.compile(keras.optimizers.Adam(1e-3))
        model.optimizer.build(model.trainable_variables)

        def run():
            def body(number, _):
                return number + 1, step(model, x[number])

            return tf.while_loop(lambda number, _: number < steps, body, (0, 0.0))

        function = tf.function(run, jit_compile=compiled)
        usual = noise.RNG, layers.Conv2DTranspose.MAX_PRODUCTS
        noise.RNG, layers.Conv2DTranspose.MAX_PRODUCTS = rng, products
        function()  # traces, with this source of noise and this form of the last layer
        noise.RNG, layers.Conv2DTranspose.MAX_PRODUCTS = usual
        functions[what] = function

    if preset == "conv":
        add("plain, with the last layer as Keras computes it", training_step, False, products=0)
    add("plain: TensorFlow's operations, one after another", training_step, False)
    add("compiled, noise as TensorFlow chooses it", training_step, True, rng="auto_select")
    add("compiled, noise by Philox, gradients looked at in each step", careful_step, True)
    add("compiled, as `fit` runs it", training_step, True)
    add("the same without the optimizer", without_optimizer, True)
    add("the forward pass of it", forward, True)
    return medians(functions, rounds, steps)


def training_step(model, x):
    return tf_sum(model.unguarded_step(x)["loss"])


def careful_step(model, x):
    import tensorflow as tf

    return tf.cast(model.guarded_step(x), "float32")


def without_optimizer(model, x):
    _, _, terms, gradients, _ = model._gradients_of(x)
    return tf_sum(terms["loss"]) + sum(tf_sum(gradient) for gradient in gradients)


def forward(model, x):
    return tf_sum(model.loss_terms(x, training=True)["loss"])


def tf_sum(value):
    import tensorflow as tf

    return tf.reduce_sum(value)


def normals(tf, rounds):
    """Dict: how -> milliseconds."""
    seed = tf.constant([1, 2])

    def function(algorithm, compiled):
        drawn = tf.function(
            lambda seed: tf.random.stateless_normal(NORMALS, seed=seed, alg=algorithm), jit_compile=compiled
        )
        return lambda: drawn(seed)

    functions = {
        "TensorFlow's operation": function("philox", False),
        "compiled, the algorithm left to TensorFlow": function("auto_select", True),
        "compiled, Philox": function("philox", True),
    }
    return medians(functions, 10 * rounds, 1)


def medians(functions, rounds, steps):
    """Runs functions in turn. Dict: name -> median milliseconds, of one of `steps`."""
    found = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if number:
                found[name].append((time.perf_counter() - start) / steps * 1e3)
    return {name: statistics.median(values) for name, values in found.items()}


def beginnings(tf, autotune):
    """Seconds that `iter` takes, of 20 passes."""
    from keras_vae.data import batches
    from keras_vae.data.images import Split

    options = tf.data.Options()
    options.autotune.enabled = autotune
    images = np.zeros((60_000, 28, 28, 1), "uint8")
    data = batches(Split(images, None, "train"), 128, shuffle=True).with_options(options)
    found, iterator = [], iter(data)
    for _ in range(20):
        for _ in iterator:
            pass
        time.sleep(0.3)
        start = time.perf_counter()
        iterator = iter(data)
        found.append(time.perf_counter() - start)
    return found


if __name__ == "__main__":
    main()
