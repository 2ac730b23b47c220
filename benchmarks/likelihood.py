"""Trains the presets of published likelihoods on MNIST, scores them as published and writes benchmarks/likelihood.md.

    python benchmarks/likelihood.py [NAME ...] [--mnist-dir DIR] [--runs DIR] [--threads N]

Each preset is trained by `keras-vae train` and scored by `keras-vae evaluate` in processes of their own. What is there
already is not done again, and a run that was stopped is continued: the command can be stopped at any time. The full
set takes hours; the table is written from whatever is in the folder RUNS.
"""

import csv
import datetime
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import click

from keras_vae.config import InputError
from keras_vae.files import write_json
from keras_vae.runs import Run

TABLE = Path(__file__).with_suffix(".md")

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
}
# of these the total correlation is compared, which differs by little: with several seeds
SEEDS = [(name, seed, f"{name}-seed{seed}") for seed in (0, 1, 2) for name in ("beta", "beta-tc")]
FOLDERS = {name: [folder for preset, _, folder in SEEDS if preset == name] for name in ("beta", "beta-tc")}
STAGES |= {folder: [(folder, f"{name} --seed {seed}")] for name, seed, folder in SEEDS}
# name -> (published NLL and its source, what is to be reached)
PUBLISHED = {
    "burda-vae": ("86.76 (Burda et al. 2016, table 1)", "88.5"),
    "burda-iwae": ("84.78 (Burda et al. 2016, table 1)", "87.3"),
    "burda-dreg": ("84.32 with z 100 (README of github.com/nbip/IWAE)", "better than burda-iwae"),
    "burda-2layer": ("82.90 (Burda et al. 2016, table 1)", "better than burda-iwae"),
    "vampprior-standard": ("84.50 (Tomczak and Welling 2018)", ""),
    "vampprior": ("82.38 (Tomczak and Welling 2018)", "1 nat better than vampprior-standard"),
}


@click.command(help=__doc__)
@click.argument("names", nargs=-1)
@click.option("--mnist-dir", help="Folder with the four official MNIST files; see `keras-vae train --help`.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/likelihood"), show_default=True)
@click.option("--threads", default=os.cpu_count(), show_default=True, help="Threads of TensorFlow.")
@click.option(
    "--samples", default=5000, show_default=True, help="Importance samples for each of the 10,000 test images."
)
@click.option("--no-training", is_flag=True, help="Score and write what is there.")
def main(names, mnist_dir, runs, threads, samples, no_training):
    try:
        for name in itertools.chain.from_iterable(FOLDERS.get(asked, [asked]) for asked in names or STAGES):
            if name not in STAGES:
                raise InputError(f"Unknown name {name!r}. Expected one of: {', '.join([*STAGES, *FOLDERS])}.")
            before = None
            for folder, arguments in STAGES[name] if not no_training else ():
                train(arguments.split(), runs / folder, before, mnist_dir, threads)
                before = runs / folder
            if name in PUBLISHED and finished(runs / name):
                score(runs / name, samples, threads)
    except InputError as error:
        raise click.UsageError(str(error)) from None
    TABLE.write_text(table(runs))
    click.echo(TABLE.read_text())


def finished(path):
    """Whether a run is there and was trained to its end."""
    return (path / "minutes.json").exists() and not (path / "checkpoints").exists()


def score(path, samples, threads):
    """Scores a run on the 10,000 test images, unless it is."""
    if json.loads((path / "evaluation.json").read_text())["protocol"].get("nll_samples") == samples:
        return
    minutes = keras_vae(["evaluate", str(path), "--samples", str(samples)], threads)
    write_json(path / "scoring.json", minutes)


def train(arguments, path, start_from, mnist_dir, threads):
    """Trains one run, or goes on with it, and adds up the time that it took."""
    times = path / "minutes.json"
    if finished(path):
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
    command = [sys.executable, "-m", "keras_vae"]
    if subprocess.run([*command, *arguments], env=environment).returncode:
        raise InputError(f"This command failed: keras-vae {' '.join(arguments)}")
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return {"minutes": (time.monotonic() - started) / 60, "cpu_minutes": cpu / 60}


def table(runs):
    """What was reached, as Markdown, from the folder of the runs."""
    from keras_vae.installed import version

    lines = [
        "# Published likelihoods, repeated",
        "",
        "Written by `python benchmarks/likelihood.py`. Trained on the 60,000 training images of MNIST with a new",
        "binarisation in each epoch (dynamic), scored on the 10,000 test images, binarised once with seed 0. NLL in",
        "nats per image, by importance sampling, with its standard error over the images. CPU minutes are those of all",
        "cores together, for all stages, with evaluation and figures; half of them is what 2 cores take",
        "that have nothing else to do. The published schedules are 3,280 epochs (Burda et al.) and 2,000 (Tomczak and",
        "Welling).",
        "",
        f"{datetime.date.today()}, {os.cpu_count()} CPU cores ({platform.machine()}), TensorFlow "
        f"{version('tensorflow')}, Keras {version('keras')}, Python {platform.python_version()}. No GPU was used.",
        "",
        "| preset | published | to reach | NLL | samples | stages: epochs | CPU minutes | clock minutes | seed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in [name for name in PUBLISHED if finished(runs / name)]:
        card, config = (json.loads((runs / name / f"{file}.json").read_text()) for file in ("evaluation", "config"))
        results, stages = card["results"], [runs / folder for folder, _ in STAGES[name]]
        times = [json.loads((stage / "minutes.json").read_text()) for stage in stages]
        epochs = [f"{stage.name} {len(history(stage))}" for stage in stages]
        lines.append(
            f"| `{name}` | {PUBLISHED[name][0]} | {PUBLISHED[name][1]} "
            f"| {results['nll']:.2f} ± {results['nll_standard_error']:.2f} | {card['protocol']['nll_samples']:,} "
            f"| {', '.join(epochs)} | {sum(each['cpu_minutes'] for each in times):.0f} "
            f"| {sum(each['minutes'] for each in times):.0f} | {config['config']['training']['seed']} |"
        )
    lines += [
        "",
        "## The curves",
        "",
        "Test loss of the objective that the stage trains, after each eighth of its epochs.",
    ]
    lines += ["", "| run | test loss at epoch |", "| --- | --- |"]
    for folder in dict.fromkeys(folder for stages in STAGES.values() for folder, _ in stages):
        if finished(runs / folder):
            losses = history(runs / folder)
            shown = sorted({max(1, round(len(losses) * part / 8)) for part in range(1, 9)})
            lines.append(f"| {folder} | {', '.join(f'{epoch}: {losses[epoch - 1]:.2f}' for epoch in shown)} |")
    if all(finished(runs / folder) for _, _, folder in SEEDS):
        lines += ["", "## Total correlation", "", "Of q(z), by 4,000 draws against the posteriors of all test images."]
        lines += ["", "| preset | seed | reconstruction loss | total correlation, nats |", "| --- | --- | --- | --- |"]
        for name, seed, folder in SEEDS:
            reconstruction_loss, mean, error = total_correlation(Run.open(runs / folder))
            lines.append(f"| `{name}` | {seed} | {reconstruction_loss:.2f} | {mean:.2f} ± {error:.2f} |")
    return "\n".join(lines) + "\n"


def history(path):
    """Test loss after each epoch."""
    with open(path / "history.csv", newline="") as file:
        return [float(row["val_loss"]) for row in csv.DictReader(file)]


def total_correlation(run, draws=4000):
    """Reconstruction loss on the test split, E[log q(z) - sum_j log q(z_j)] in nats, and its standard error."""
    import numpy as np
    import scipy.special
    import scipy.stats

    from keras_vae import scoring

    model, (images, _) = run.load_model(), scoring.load_test_images(run.config, run.open_data())
    mean, log_var = (np.asarray(code) for code in model.encoder.predict(images, batch_size=500, verbose=0))
    std, rng = np.exp(0.5 * log_var), np.random.default_rng(0)
    chosen = rng.choice(len(mean), draws, replace=False)
    z = mean[chosen] + std[chosen] * rng.normal(size=(draws, mean.shape[1]))
    found = []
    for part in np.array_split(z, 200):
        by_dimension = scipy.stats.norm(mean, std).logpdf(part[:, None])  # draw, image, dimension
        joint = scipy.special.logsumexp(by_dimension.sum(-1), axis=1) - np.log(len(mean))
        marginals = scipy.special.logsumexp(by_dimension, axis=1) - np.log(len(mean))
        found.append(joint - marginals.sum(-1))
    found = np.concatenate(found)
    results = json.loads((run.path / "evaluation.json").read_text())["results"]
    return results["reconstruction_loss"], found.mean(), found.std() / np.sqrt(draws)


if __name__ == "__main__":
    main()
