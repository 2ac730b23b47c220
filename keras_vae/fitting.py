"""Fitting a prior afterwards: to the latents of a trained model, into a run directory of its own."""

import numpy as np

from keras_vae import data, evaluation, priors
from keras_vae.config import InputError
from keras_vae.disk import stopped_by_the_disk
from keras_vae.models import VAE
from keras_vae.output import Console
from keras_vae.presets import command
from keras_vae.runs import Run, check_new, is_unfinished
from keras_vae.scoring import BATCH, SEED, load_test_images
from keras_vae.stopping import Lock, StopSignals
from keras_vae.training import complete, save_model


def fit_prior(run, run_dir, num_components=50, samples=500, count=1000, console=None):
    """Fits a mixture of Gaussians to draws from q(z|x) of the training images, and scores it against the prior before.

    Networks and likelihood stay as they are: the rate falls towards the KL between q(z|x) and the aggregate posterior.

    Args:
        run: The `Run` of a trained VAE.
        run_dir: Where to write the run with the new prior.
        num_components: Int, components of the mixture.
        samples: Int, importance samples for each image, for the gain in NLL.
        count: Int, on how many test images, from the first on.
        console: A `rich.console.Console` for the report, or None for the standard output.

    Returns:
        Pair: the new `Run`, and the gain in nats per example, the NLL before less the NLL after.

    Raises:
        InputError: if the model has no prior, or one for each class or layer.
        RunStopped: after a signal, or when the disk is full. The same call does it again.

    Reference:
        Hoffman and Johnson, ELBO surgery, 2016: what a prior can gain is the KL of the aggregate posterior from it.
    """
    console = console or Console()
    if run.config.model.model != "vae":
        raise InputError(f"A prior can be fitted to a model vae. {run.path} holds: {run.config.model.model}")
    asked = command(
        *("fit-prior", run.path, "--run-dir", run_dir),
        *("--components", num_components, "--samples", samples, "--images", count),
    )
    again = is_unfinished(run_dir) and Run.open(run_dir).facts.get("command") == asked  # it was killed
    if not again:
        check_new(run_dir)
    with StopSignals(f"Do it again with: {asked}"):
        model, images = run.load_model(), run.open_data()
        config, fitted = _fitted(run, model, images, num_components)
        new = Run.open(run_dir) if again else Run.create(run_dir, config, {**run.facts, "command": asked})
        with Lock(new.checkpoints), stopped_by_the_disk(new, lambda: asked):
            save_model(fitted, new)
            complete(new, fitted, images, console)
            gain = _gain(run, new, images, model, fitted, samples, count, console)
            new.finish()
    return new, gain


def _fitted(run, model, images, num_components):
    """Pair: the config, and the model whose prior was fitted."""
    config = run.config.replace(prior="gaussian_mixture", prior_components=num_components)
    z = _draws(model, images, config)
    prior = priors.GaussianMixture(num_components)
    fitted = VAE(  # which builds the prior
        model.encoder,
        model.decoder,
        model.likelihood,
        model.posterior,
        prior,
        model.objective,
        seed=config.training.seed,
    )
    prior.fit(z, seed=config.training.seed)
    return config, fitted


def _gain(run, new, images, model, fitted, samples, count, console):
    """What a fitted prior gains in nats per example, which is also printed."""
    pixels, _ = load_test_images(new.config, images)
    results = [
        evaluation.evaluate(each, pixels, nll_samples=samples, nll_images=count, seed=SEED) for each in (model, fitted)
    ]
    name = "nll" if "nll" in results[0] else "importance_weighted_loss"  # of grey pixels under a Bernoulli likelihood
    before, after = (each[name] for each in results)
    console.print(
        f"{name} of {min(count, len(pixels)):,} test examples by {samples} importance samples, nats per example: "
        f"{before:.2f} with {run.config.model.prior}, {after:.2f} with the fitted mixture of "
        f"{new.config.model.prior_components}: "
        f"a gain of {before - after:.2f}"
    )
    return before - after


def _draws(model, images, config):
    """One z of each training image, drawn from q(z|x): float32 [n, d]."""
    batches = data.batches(images.train, BATCH, binarization=config.data.binarization, seed=SEED)
    return np.concatenate([model.sampling.draw(model.encode(x)).z[0] for x in batches])
