"""Draws docs/images/estimators.png: why samples from the prior do not measure a likelihood, and those from q(z|x) do.

    python benchmarks/estimators.py RUN [--images N] [--samples K]

RUN is a finished run of `keras-vae train` with binary images, such as of the preset burda-vae.
"""

from pathlib import Path

import click
import numpy as np
from matplotlib.figure import Figure

from keras_vae import evaluation, scoring
from keras_vae.evaluation.marginal import BOUND_SIZES
from keras_vae.runs import Run

FIGURE = Path(__file__).parents[1] / "docs" / "images" / "estimators.png"
NAMES = {"importance": "samples from q(z|x)", "prior": "samples from the prior"}


@click.command(help=__doc__)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--images", default=100, show_default=True)
@click.option("--samples", default=5000, show_default=True)
def main(run, images, samples):
    run = Run.open(run)
    model, data = run.load_model(), run.open_data()
    pixels = scoring.load_test_images(run.config, data)[0][:images]
    curves = {}
    for estimator in evaluation.ESTIMATORS:
        estimates = evaluation.marginal_likelihood(model, pixels, samples, estimator, seed=scoring.SEED)
        curves[estimator] = -estimates["bound"].mean(axis=0)
        effective = estimates["effective_samples"]
        by_size = dict(zip(BOUND_SIZES, np.round(curves[estimator], 2).tolist(), strict=False))
        print(f"{estimator}: {by_size}, effective samples {effective.mean():.1f}, median {np.median(effective):.1f}")
    draw(curves, f"preset {run.config.preset}, {data.name} test, the first {len(pixels)} images")


def draw(curves, footnote):
    figure = Figure(figsize=(6.4, 3.8), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for estimator, curve in curves.items():
        axes.plot(BOUND_SIZES[: len(curve)], curve, marker="o", label=NAMES[estimator])
    axes.set(xscale="log", yscale="log", xlabel="samples per image, k", ylabel="estimate of -log p(x), nats per image")
    ticks = [tick for tick in (80, 100, 150, 200, 300, 400, 600) if tick < 1.1 * max(map(max, curves.values()))]
    axes.set_yticks(ticks, labels=list(map(str, ticks)))
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.supxlabel(footnote, fontsize=8, color="#6b6b6b")
    figure.savefig(FIGURE)


if __name__ == "__main__":
    main()
