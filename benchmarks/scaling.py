"""Measures images per second of training over 1, 2, ... devices of this machine.

    python benchmarks/scaling.py [--preset conv] [--batch 256] [--steps 200] [--cpus N]

Each number of devices is a process of its own. `--batch` is the batch of one replica: the global batch grows with the
devices. With --cpus N logical devices share the CPU, which shows that it works and not how fast it is.
Prints a table in Markdown.
"""

import json
import subprocess
import sys
import time

import click


def measure(devices, preset, batch, steps, cpus):
    """Images per second in this process on the first `devices` devices."""
    import tensorflow as tf

    if cpus:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * cpus)
    import keras
    import numpy as np

    from keras_vae.models import build_model
    from keras_vae.presets import get_preset

    available = tf.config.list_logical_devices("CPU" if cpus else "GPU")
    names = [device.name for device in available[:devices]]
    strategy = tf.distribute.MirroredStrategy(names) if devices > 1 else tf.distribute.OneDeviceStrategy(names[0])
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = build_model(get_preset(preset).config.model, (28, 28, 1), seed=0)
        model.compile(keras.optimizers.Adam())
    images = np.random.default_rng(0).uniform(size=(batch * devices, 28, 28, 1)).astype("float32")
    dataset = tf.data.Dataset.from_tensors(images).cache().repeat()
    model.fit(dataset, steps_per_epoch=10, verbose=0)  # traces
    began = time.perf_counter()
    model.fit(dataset, steps_per_epoch=steps, verbose=0)
    return steps * len(images) / (time.perf_counter() - began)


@click.command(help=__doc__)
@click.option("--preset", default="conv", show_default=True)
@click.option("--batch", default=256, show_default=True, help="Images in the batch of one replica.")
@click.option("--steps", default=200, show_default=True)
@click.option("--cpus", default=0, help="Use so many logical CPU devices in place of GPUs.")
@click.option("--only", hidden=True, type=int)
def main(preset, batch, steps, cpus, only):
    if only:
        click.echo(json.dumps(measure(only, preset, batch, steps, cpus)))
        return
    import tensorflow as tf

    found = cpus or len(tf.config.list_physical_devices("GPU"))
    if not found:
        raise click.ClickException("There is no GPU here. --cpus 2 tries it out on logical CPU devices.")
    click.echo("| devices | images a second | per device, of one alone |\n| --- | --- | --- |")
    alone = None
    for devices in range(1, found + 1):
        command = [sys.executable, __file__, "--only", str(devices), "--preset", preset, "--batch", str(batch)]
        command += ["--steps", str(steps), "--cpus", str(cpus)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rate = json.loads(done.stdout.splitlines()[-1])
        alone = alone or rate
        click.echo(f"| {devices} | {rate:,.0f} | {rate / devices / alone:.0%} |")


if __name__ == "__main__":
    main()
