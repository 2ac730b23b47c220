"""Measures the variance of the gradient under `dreg` and `iwae` with each prior; writes benchmarks/gradients.md.

    python benchmarks/gradients.py [--mnist-dir DIR] [--draws R] [--images N]

For each prior an mlp of 200 units and 20 latent dimensions is trained on dynamically binarised MNIST. Early and later
in training the gradient of its encoder for one batch is drawn many times under both objectives. Takes some ten minutes.
"""

import datetime
import itertools
import platform
from pathlib import Path

import click
import keras
import numpy as np
import tensorflow as tf

import keras_vae
from keras_vae import data, networks, objectives, priors
from keras_vae.installed import version

TABLE = Path(__file__).with_suffix(".md")
BLOCKS = 10  # of draws, for the standard error
COMPONENTS = 100
STEPS = (200, 3000)  # of training, after which the gradients are drawn
PRIORS = {
    "standard_normal": priors.StandardNormal,
    "gaussian_mixture": lambda: priors.GaussianMixture(COMPONENTS),
    "vampprior": lambda: priors.VampPrior(COMPONENTS),
}


@click.command(help=__doc__)
@click.option("--mnist-dir", help="Folder with the four official MNIST files; see `keras-vae train --help`.")
@click.option("--draws", default=200, show_default=True, help="Draws of each gradient.")
@click.option("--images", default=20, show_default=True, help="Images of the batch whose gradient is drawn.")
def main(mnist_dir, draws, images):
    split = data.open_dataset("mnist", mnist_dir=mnist_dir).train
    rows = []
    for name, make in PRIORS.items():
        batch = next(iter(data.batches(split, images, binarization="dynamic", seed=1)))
        for step, model in trained(make(), split):
            for k in (5, 50):
                iwae, dreg = (moments(model, kind(k), batch, draws) for kind in (objectives.IWAE, objectives.DReG))
                rows.append((name, step, k, *ratio(iwae, dreg), distance(iwae, dreg)))
                print(rows[-1], flush=True)
    TABLE.write_text(table(rows, draws, images))


def trained(prior, split):
    """A model with that prior, trained on its ELBO: yields pairs (step, model), the same model at each of STEPS."""
    keras.utils.set_random_seed(0)
    encoder, decoder = networks.build("mlp", (28, 28, 1), 20, hidden=(200,))
    model = keras_vae.VAE(encoder, decoder, prior=prior, seed=0)
    if isinstance(prior, priors.VampPrior):
        prior.start_at(data.to_pixels(split.images[:COMPONENTS]))
    model.compile("adam")
    for first, last in itertools.pairwise((0, *STEPS)):
        batches = data.batches(split, 100, shuffle=True, binarization="dynamic", first_step=first)
        model.fit(batches, steps_per_epoch=last - first, verbose=0)
        yield last, model


def moments(model, objective, batch, draws):
    """Mean and summed variance of the encoder's gradient, for each of BLOCKS blocks of draws: [blocks, n], [blocks]."""
    weights = model.encoder.trainable_variables

    @tf.function
    def gradient():
        with tf.GradientTape() as tape:
            drawn = model.sampling.draw(model.encoder(batch, training=True), objective.num_samples)
            loss = tf.reduce_mean(
                objective.terms(drawn, lambda z: model.log_likelihood(batch, z, training=True))["loss"]
            )
        return tf.concat([tf.reshape(part, [-1]) for part in tape.gradient(loss, weights)], axis=0)

    means, variances = [], []
    for _ in range(BLOCKS):
        block = np.stack([gradient().numpy() for _ in range(draws // BLOCKS)]).astype("float64")
        means.append(block.mean(axis=0))
        variances.append(block.var(axis=0, ddof=1).sum())
    return np.array(means), np.array(variances)


def ratio(iwae, dreg):
    """Variance under dreg over that under iwae, and the standard error of the ratio, from the blocks."""
    numerator, denominator = dreg[1], iwae[1]
    value = numerator.mean() / denominator.mean()
    residual = numerator - value * denominator
    return value, residual.std(ddof=1) / np.sqrt(BLOCKS) / denominator.mean()


def distance(iwae, dreg):
    """Squared distance of the two mean gradients over what noise alone makes of it: 1 where the means are equal."""
    difference = iwae[0].mean(axis=0) - dreg[0].mean(axis=0)
    noise = sum(each[0].var(axis=0, ddof=1).sum() / BLOCKS for each in (iwae, dreg))
    return np.square(difference).sum() / noise


def table(rows, draws, images):
    lines = [
        "# The variance of two gradients",
        "",
        "Written by `python benchmarks/gradients.py`. `dreg` and `iwae` have the same loss, and gradients of the same",
        "mean for the encoder. The table has the variance of the encoder's gradient, summed over its weights, under",
        f"`dreg` as a share of that under `iwae`: {draws} draws of each for one batch of {images} training images,",
        "with the same weights. These are those after so many steps of the ELBO: mlp 784-200-20, dynamic binarisation,",
        f"batches of 100, {COMPONENTS} components. The last column is the squared distance of the two mean gradients",
        "over what noise alone makes of it: about 1 if the means are equal.",
        "",
        f"{datetime.date.today()}, {platform.machine()}, tensorflow {version('tensorflow')}, keras {version('keras')}, "
        "seed 0.",
        "",
        "| prior | steps | k | variance of dreg / iwae | standard error | distance of the means / noise |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| `{prior}` | {step:,} | {k} | {value:.2f} | {error:.2f} | {apart:.2f} |"
            for prior, step, k, value, error, apart in rows
        ),
        "",
        "The encoder makes the density of a VampPrior as well. `dreg` does not change the gradient that goes that way.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
