"""Trains every case over one device and over two, each in a process of its own, and writes benchmarks/devices.md.

    python benchmarks/devices.py [NAME ...]

The cases are those of tests/cases.py, which the tests train in one process for all: here nothing can leak from one case
into the next. Two logical CPU devices, fixed noise, batches of which the last is uneven. About ten seconds for each.
"""

import datetime
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np

TABLE = Path(__file__).with_suffix(".md")
TESTS = TABLE.parents[1] / "tests"
WEIGHTS, OTHERS = 1e-6, 1e-5  # what is allowed: absolute, and relative for metrics and predictions


def trained(name, folder):
    """What one device, and what two come to: a pair of dicts of arrays."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent), "CUDA_VISIBLE_DEVICES": "-1"}
    files = {kind: Path(folder) / f"{name}-{kind}.npz" for kind in ("none", "mirrored")}
    processes = [
        subprocess.Popen(
            [sys.executable, str(TESTS / "training_on_devices.py"), kind, str(file), name],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for kind, file in files.items()
    ]
    for process in processes:
        _, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{name} ended with {process.returncode}:\n{errors[-3000:]}")
    return tuple(dict(np.load(file)) for file in files.values())


def compared(one, two):
    """Largest difference of a weight, of another number (relative to values above 1), and how far the weights moved."""
    weights = others = moved = 0.0
    for key in one:
        difference = np.abs(two[key] - one[key])
        if key.endswith("/moved"):
            moved = float(one[key])
        elif "/weight" in key:
            weights = max(weights, float(difference.max()))
        else:
            others = max(others, float((difference / np.maximum(np.abs(one[key]), 1)).max()))
    return weights, others, moved


def table(rows, count):
    """The rows that there are so far, as Markdown."""
    from keras_vae.installed import version

    lines = [
        "# One device and two",
        "",
        f"Written by `python benchmarks/devices.py` on {datetime.date.today()}: {os.cpu_count()} CPU cores "
        f"({platform.machine()}), TensorFlow {version('tensorflow')}, Keras {version('keras')}, "
        f"Python {platform.python_version()}. No GPU was used.",
        "",
        "Each case was trained on one CPU device and on two logical ones, each in a process of its own, with the same "
        "seed and fixed noise: three steps of SGD, the last batch uneven, then evaluated, then asked for predictions. "
        f"{len(rows)} of {count} cases are done.",
        "",
        f"| case | largest difference of a weight (< {WEIGHTS:.0e}) | of a metric or a prediction, relative "
        f"(< {OTHERS:.0e}) | the weights moved by | as expected |",
        "| --- | --- | --- | --- | --- |",
        *rows,
    ]
    return "\n".join(lines) + "\n"


@click.command(help=__doc__)
@click.argument("names", nargs=-1)
def main(names):
    sys.path.insert(0, str(TESTS))
    from cases import CASES

    names = names or [case.name for case in CASES]
    rows, wrong = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            weights, others, moved = compared(*trained(name, folder))
            same = weights < WEIGHTS and others < OTHERS and moved > 1e-4
            wrong += not same
            rows.append(f"| {name} | {weights:.1e} | {others:.1e} | {moved:.1e} | {'yes' if same else 'NO'} |")
            click.echo(rows[-1])
            TABLE.write_text(table(rows, len(names)))
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
