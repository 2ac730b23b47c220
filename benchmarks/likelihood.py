"""Trains the presets of published likelihoods on MNIST, scores them as published and writes benchmarks/likelihood.md.

    python benchmarks/likelihood.py [NAME ...] [--mnist-dir DIR] [--runs DIR] [--threads N]

Each preset is trained by `keras-vae train` and scored by `keras-vae evaluate` in processes of their own. What is there
already is not done again, and a run that was stopped is continued: the command can be stopped at any time. The full
set takes hours; the table is written from whatever is in the folder RUNS.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import click

import keras_vae_cli  # noqa: F401  no TensorFlow in this process until it is needed
from keras_vae.config import InputError
from keras_vae.runs import write_json

_LAST = "--epochs 20 --learning-rate 5e-4"
# name -> runs: (folder, what is given to `keras-vae train`); each starts with the weights of the one before it.
# An IWAE is trained with k = 1 first, as a VAE, at a twelfth of the cost of an epoch, and with k = 50 at the end.
STAGES = {
    "burda-vae": [("burda-vae", "burda-vae")],
    "burda-iwae": [("burda-vae", "burda-vae"), ("burda-iwae", f"burda-iwae {_LAST}")],
    "burda-dreg": [("burda-vae", "burda-vae"), ("burda-dreg", f"burda-dreg {_LAST}")],
    "burda-2layer": [
        ("burda-2layer-k1", "burda-2layer --objective elbo --epochs 200 --batch-size 100"),
        ("burda-2layer", f"burda-2layer {_LAST}"),
    ],
    "vampprior-standard": [("vampprior-standard", "vampprior-standard --epochs 20")],
    "vampprior": [("vampprior", "vampprior --epochs 20")],
    "beta-tc": [("beta-tc", "beta-tc")],
}


@click.command(help=__doc__)
@click.argument("names", nargs=-1)
@click.option("--mnist-dir", help="Folder with the four official MNIST files; see `keras-vae train --help`.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/likelihood"), show_default=True)
@click.option("--threads", default=os.cpu_count(), show_default=True, help="Threads of TensorFlow.")
def main(names, mnist_dir, runs, threads):
    try:
        for name in names or STAGES:
            if name not in STAGES:
                raise InputError(f"Unknown name {name!r}. Expected one of: {', '.join(STAGES)}.")
            before = None
            for folder, arguments in STAGES[name]:
                train(arguments.split(), runs / folder, before, mnist_dir, threads)
                before = runs / folder
    except InputError as error:
        raise click.UsageError(str(error)) from None


def train(arguments, path, start_from, mnist_dir, threads):
    """Trains one run, or goes on with it, and adds up the time that it took."""
    times = path / "minutes.json"
    if times.exists() and not (path / "checkpoints").exists():
        return
    command = ["train", *arguments, "--dataset", "mnist", "--run-dir", str(path)]
    command += ["--mnist-dir", mnist_dir] if mnist_dir else []
    command += ["--start-from", str(start_from)] if start_from else []
    before = json.loads(times.read_text()) if times.exists() else {}
    minutes = keras_vae(command, threads)
    write_json(times, {name: value + before.get(name, 0) for name, value in minutes.items()} | {"threads": threads})


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
