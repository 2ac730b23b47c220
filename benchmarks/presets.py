"""Trains every preset on MNIST and writes what each reached beside what was expected to benchmarks/presets.md.

    python benchmarks/presets.py [NAME ...] [--mnist-dir DIR] [--runs DIR]

Those of the published likelihoods, which take longer, are in benchmarks/likelihood.py. Takes about an hour on 2 cores.
Each preset is trained by `keras-vae train` in a process of its own; a run that is there already is not trained again,
so the command can be stopped and continued.
"""

import datetime
import json
import math
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import click

from keras_vae.config import InputError
from keras_vae.files import write_json
from keras_vae.presets import PRESETS, get_preset
from keras_vae.runs import Run

TABLE = Path(__file__).with_suffix(".md")
README = TABLE.parents[1] / "README.md"
MEAN_IMAGE_MSE = 0.0674  # of the 10,000 test images against the mean training image


def checks(results, pca_mse):
    """What to see of each preset: name -> (text with what was reached, whether that is what was expected)."""

    def loss(name, limit):
        value = results[name]["loss"]
        return f"test loss {value:.2f} (at most {limit})", value <= limit

    def below_pca(name, note=""):
        value = results[name]["mse"]
        return f"MSE {value:.5f}, PCA with 32 components {pca_mse:.5f}{note}", value < 0.8 * pca_mse

    def gaussian():
        value = results["gaussian"]["mse"]
        return f"MSE {value:.4f}, mean image {MEAN_IMAGE_MSE}", value < MEAN_IMAGE_MSE / 2

    def gaussian_learned():
        own, other = results["gaussian-learned"], results["gaussian"]
        residual = math.sqrt(own["mse"])
        text = f"NLL {own['nll']:.1f}, gaussian {other['nll']:.1f}; scale {own['scale']:.4f}, residual {residual:.4f}"
        return text, own["nll"] < other["nll"] - 100 and abs(own["scale"] / residual - 1) < 0.25

    def beta():
        own, other = results["beta"], results["mlp"]
        text = (
            f"{own['active_units']} active units, mlp {other['active_units']}; "
            f"reconstruction loss {own['reconstruction_loss']:.1f}, mlp {other['reconstruction_loss']:.1f}"
        )
        fewer = own["active_units"] < other["active_units"]
        return text, fewer and own["reconstruction_loss"] > other["reconstruction_loss"]

    def conditional():
        value = results["conditional"]["loss"]
        return f"test loss given the label {value:.2f} (at most 100.5)", value <= 100.5

    def conv_threshold():
        value = results["conv-threshold"]["elbo"]
        return f"test ELBO {value:.2f} (at least -156)", value >= -156

    def pca():
        value = results["pca"]["mse"]
        text = f"MSE {value:.6f}, PCA with 32 components {pca_mse:.6f}: {100 * (value / pca_mse - 1):+.2f} %"
        return text, value <= 1.01 * pca_mse

    def sparse():
        own = results["sparse-autoencoder"]
        return below_pca("sparse-autoencoder", f"; {100 * own['zero_codes']:.0f} % of the code values are 0")

    def denoising():
        own = results["denoising-autoencoder"]
        ratio = own["corrupted_mse"] / own["restored_mse"]
        text = f"MSE of noisy images {own['corrupted_mse']:.4f}, denoised {own['restored_mse']:.4f}"
        return f"{text}: {ratio:.1f} times less", ratio > 3

    return {
        "mlp": lambda: loss("mlp", 104.7),
        "mlp-128-100": lambda: loss("mlp-128-100", 107),
        "gaussian": gaussian,
        "gaussian-learned": gaussian_learned,
        "beta": beta,
        "conditional": conditional,
        "conv": lambda: loss("conv", 153),
        "conv-threshold": conv_threshold,
        "pca": pca,
        "autoencoder": lambda: below_pca("autoencoder"),
        "deep-autoencoder": lambda: below_pca("deep-autoencoder"),
        "conv-autoencoder": lambda: below_pca("conv-autoencoder"),
        "sparse-autoencoder": sparse,
        "denoising-autoencoder": denoising,
    }


@click.command()
@click.argument("names", nargs=-1)
@click.option("--mnist-dir", help="Folder with the four official MNIST files; see `keras-vae train --help`.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/presets"), show_default=True)
def main(names, mnist_dir, runs):
    """Train presets (all by default) and write benchmarks/presets.md from those in the folder RUNS. Other rows stay."""
    try:
        for name in names or checks({}, None):
            get_preset(name)
            if not (runs / name / "minutes.json").exists():
                train(name, runs / name, mnist_dir)
        text = table(runs)
        TABLE.write_text(text)
        show_in_readme(text)
    except InputError as error:
        raise click.UsageError(str(error)) from None
    print(text)


def train(name, path, mnist_dir):
    """Trains one preset in a process of its own and writes down how long it took."""
    started = time.monotonic()
    command = [sys.executable, "-m", "keras_vae"]
    command += ["train", name, "--dataset", "mnist", "--run-dir", str(path)]
    command += ["--mnist-dir", mnist_dir] if mnist_dir else []
    if subprocess.run(command).returncode:
        raise InputError(f"Training {name} failed. Remove {path} before the next try.")
    write_json(path / "minutes.json", {"minutes": (time.monotonic() - started) / 60})


def table(runs):
    """The table of all finished runs, as Markdown. Presets without a run keep the row that they have."""
    from keras_vae.installed import version

    finished = {name: runs / name for name in PRESETS if (runs / name / "minutes.json").exists()}
    results = {name: json.loads((path / "evaluation.json").read_text())["results"] for name, path in finished.items()}
    minutes = {name: json.loads((path / "minutes.json").read_text())["minutes"] for name, path in finished.items()}
    pca_mse = pca_error(Run.open(next(iter(finished.values()))))
    seeds = sorted({Run.open(path).config.training.seed for path in finished.values()})
    lines = [
        "# The presets on MNIST",
        "",
        "Written by `python benchmarks/presets.py`. Each row is one run of `keras-vae train PRESET --dataset mnist`:",
        "trained on the 60,000 training images, scored on the 10,000 test images. Losses are nats per image, MSE per",
        "pixel. The minutes are those of the whole command: training, evaluation, figures and export; the machine was",
        "not always free for it.",
        "",
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, "
        f"tensorflow {version('tensorflow')}, keras {version('keras')}, seed {', '.join(map(str, seeds))}.",
        "",
        "| preset | system | reached | as expected | minutes | date |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    before = {line.split("`")[1]: line for line in TABLE.read_text().splitlines() if line.startswith("| `")}
    for name, check in checks(results, pca_mse).items():
        if name in finished and ({"beta": "mlp", "gaussian-learned": "gaussian"}.get(name, name) in finished):
            text, met = check()
            day = datetime.date.fromtimestamp((finished[name] / "minutes.json").stat().st_mtime)
            cells = (f"`{name}`", PRESETS[name].system, text, "yes" if met else "NO", f"{minutes[name]:.1f}", str(day))
            lines.append(f"| {' | '.join(cells)} |")
        elif name in before:
            lines.append(before[name])
    return "\n".join(lines) + "\n"


def show_in_readme(text):
    """Puts the table between the two markers of the README."""
    rows = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    before, after = README.read_text().split("<!-- presets -->")[0], README.read_text().split("<!-- /presets -->")[1]
    README.write_text(f"{before}<!-- presets -->\n{rows}\n<!-- /presets -->{after}")


def pca_error(run):
    """MSE per pixel of PCA with 32 components, fitted to the training images, on the test images; clipped to [0, 1]
    as the images of the models are."""
    from sklearn.decomposition import PCA

    from keras_vae import data

    images = run.open_data()
    train_pixels, test_pixels = (
        data.to_pixels(split.images).reshape(len(split), -1) for split in (images.train, images.test)
    )
    pca = PCA(32, svd_solver="covariance_eigh").fit(train_pixels)
    projected = pca.inverse_transform(pca.transform(test_pixels)).clip(0, 1)
    return float(((projected - test_pixels) ** 2).mean(dtype="float64"))


if __name__ == "__main__":
    main()
