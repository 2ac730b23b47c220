"""Trains the presets of published likelihoods on MNIST, scores them as published and writes benchmarks/likelihood.md.

    python benchmarks/likelihood.py [NAME ...] [--mnist-dir DIR] [--runs DIR] [--threads N]

Each preset is trained by `keras-vae train` and scored by `keras-vae evaluate` in processes of their own. What is there
already is not done again, and a run that was stopped is continued: the command can be stopped at any time. The full
set takes hours; the table is written from whatever is in the folder RUNS.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import click

import keras_vae_cli  # noqa: F401  no TensorFlow in this process until it is needed
from keras_vae.config import InputError
from keras_vae.presets import get_preset
from keras_vae.runs import write_json

NAMES = ("burda-vae", "burda-iwae", "burda-dreg", "burda-2layer", "beta-tc")


@click.command(help=__doc__)
@click.argument("names", nargs=-1)
@click.option("--mnist-dir", help="Folder with the four official MNIST files; see `keras-vae train --help`.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/likelihood"), show_default=True)
@click.option("--threads", default=os.cpu_count(), show_default=True, help="Threads of TensorFlow.")
def main(names, mnist_dir, runs, threads):
    try:
        for name in names or NAMES:
            get_preset(name)
            train(name, runs / name, mnist_dir, threads)
    except InputError as error:
        raise click.UsageError(str(error)) from None


def train(name, path, mnist_dir, threads):
    """Trains one preset, or goes on with it, and adds up the time that it took."""
    if (path / "minutes.json").exists() and not (path / "checkpoints").exists():
        return
    command = ["train", name, "--dataset", "mnist", "--run-dir", str(path)]
    command += ["--mnist-dir", mnist_dir] if mnist_dir else []
    minutes = keras_vae(command, threads)
    write_json(path / "minutes.json", minutes | {"threads": threads})


def keras_vae(arguments, threads):
    """Runs a command of `keras-vae`. Returns its minutes by the clock and of all cores together."""
    environment = {**os.environ}
    environment |= {name: str(threads) for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")}
    started, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", "import sys, keras_vae_cli; sys.exit(keras_vae_cli.main(sys.argv[1:]))"]
    if subprocess.run([*command, *arguments], env=environment).returncode:
        raise InputError(f"This command failed: keras-vae {' '.join(arguments)}")
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return {"minutes": (time.monotonic() - started) / 60, "cpu_minutes": cpu / 60}


if __name__ == "__main__":
    main()
