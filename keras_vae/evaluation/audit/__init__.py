"""The audit of a model: are its numbers what their names say, and is it in good health?

Networks are asked for their outputs. What follows from these is computed a second time in numpy, by the formulas of
`formulas.py`, and held against what prior, likelihood, objective and estimator of the model say. A prior or a
likelihood of your own has no formula there: its density is integrated instead.
"""

import time

import numpy as np
import tensorflow as tf

from keras_vae.config import InputError
from keras_vae.evaluation.audit import densities, likelihood, networks, terms, written
from keras_vae.evaluation.audit.finding import Finding
from keras_vae.evaluation.audit.subject import COPIES, Subject
from keras_vae.evaluation.scores import fixed_noise, inputs_of

__all__ = ["Finding", "audit"]

IMAGES = 64  # on which terms and estimates are computed again
DRAWS = 100  # of z for each
HEALTH_IMAGES = 200  # on which the latents are looked at
WRITTEN_IMAGES = 2000  # on which written results are computed again
LOSS_DRAWS = 8  # of z for each image in the model's own losses, at least


def audit(model, images, *, labels=None, card=None, seed=0, seconds=10.0, progress=None):
    """Checks a VAE against the formulas, and looks for what commonly goes wrong in training one.

    The terms of the loss, the loss, and the estimate of log p(x) are computed again on 64 of the images, with 100 draws
    of z for each, and on fewer where the networks are slow. docs/evaluation.md lists what is checked and which faults
    are found.

    Args:
        model: A VAE of this package, or a model with the same methods.
        images: Float32 [n, ...], pixels in [0, 1], as the model was trained.
        labels: Int [n], classes of the images, for a model that takes them.
        card: The content of the evaluation.json of these images, to be checked as well, or None.
        seed: Int seed of the noise.
        seconds: Float, about how long it may take. Checks that are not begun by then are left out, with a warning.
        progress: Callable, called with the name of each check before it is made, or None.

    Returns:
        List of `Finding`.

    Raises:
        InputError: for a model without q(z|x).

    Example:

    >>> import keras_vae, numpy as np
    >>> vae = keras_vae.VAE.from_preset("mlp", seed=0)
    >>> images = np.random.default_rng(0).integers(0, 2, (20, 28, 28, 1)).astype("float32")
    >>> {finding.name for finding in vae.audit(images) if finding.status == "error"}
    set()
    """
    if not hasattr(model, "prior"):
        raise InputError(f"An audit is about q(z|x) and p(z), and {type(model).__name__} has none. Use a VAE.")
    started = time.monotonic()
    images = np.asarray(images, "float32")
    labels = None if labels is None or getattr(model, "condition", None) is None else np.asarray(labels)
    pixels = likelihood.check_pixels(model.likelihood, images)
    if pixels.status == "error":  # what follows would be about other images
        return [pixels]
    findings = [pixels]
    if card is not None:
        card = {**card, "results": {name: value for name, value in card["results"].items() if value is not None}}
        if wrong := written.check_form(model, card["results"]):
            findings, card = [pixels, wrong], None
    with fixed_noise(model, seed):
        for name, check in _checks(model, images, labels, card, seed, seconds):
            if time.monotonic() - started > seconds:
                advice = f"Not checked: {seconds:g} seconds were over. Give it more seconds."
                findings.append(Finding(name, "warning", {}, advice))
                continue
            if progress is not None:
                progress(name)
            found = check()
            findings += [found] if isinstance(found, Finding) else list(found)
    return findings


def _checks(model, images, labels, card, seed, seconds):
    """Pairs (name, callable that gives a finding or several)."""
    rng = np.random.default_rng(seed)
    among = _scored_images(card, len(images))
    num_images, num_draws, repeats, num_written = _sizes(model, images, labels, seconds)
    index = np.sort(rng.choice(among, min(num_images, among), replace=False))
    chosen = None if labels is None else labels[index]
    subject = Subject(model, images[index], chosen, num_draws, rng)
    reported = subject.terms(repeats)
    yield terms.LOSS, lambda: terms.check_loss(subject, reported)
    yield networks.COLLAPSE, lambda: networks.check_health(_codes(model, images, labels), reported)
    yield terms.SAMPLING, lambda: terms.check_sampling(subject)
    yield densities.POSTERIOR, lambda: densities.check_posterior(subject, rng)
    yield densities.PRIOR, lambda: densities.check_prior(subject, rng)
    yield terms.KL, lambda: terms.check_kl(subject, reported)
    yield likelihood.DENSITY, lambda: likelihood.check_likelihood(subject, rng)
    yield networks.HEADS, lambda: networks.check_heads(subject, rng)
    yield networks.DECODER, lambda: networks.check_decoder(subject, rng)
    yield terms.RECONSTRUCTION, lambda: terms.check_reconstruction(subject, reported, rng)
    yield terms.ESTIMATE, lambda: terms.check_estimate(subject, seed)
    if card is not None:
        yield written.NAMES, lambda: written.check_names(model, images, card["results"])
        yield written.VALUES, lambda: written.check_values(subject, images, labels, card, num_written, seed)


def _scored_images(card, count):
    """How many of the images, from the first on, the likelihood was estimated on."""
    results = {} if card is None else card["results"]
    return min([results.get(f"{name}_images", count) for name in written.LIKELIHOODS] + [count])


def _codes(model, images, labels):
    inputs = inputs_of(model, images[:HEALTH_IMAGES], None if labels is None else labels[:HEALTH_IMAGES])
    return np.asarray(model.code(*inputs))


def _sizes(model, images, labels, seconds):
    """Images, draws of z for each, losses for each, images for written results: as many as there is time for."""
    per_loss = model.objective.num_samples
    num_draws = min(max(DRAWS, 2 * getattr(model.objective, "k", 1)), 400)
    repeats = max(2, LOSS_DRAWS // per_loss)
    rows = 0.4 * seconds / _seconds_of_a_row(model, labels)
    of_an_image = 2 * num_draws + repeats * per_loss
    num_images = int(np.clip(rows / of_an_image - COPIES, 8, IMAGES))
    return num_images, num_draws, repeats, int(np.clip(0.5 * rows / per_loss, 50, WRITTEN_IMAGES))


def _seconds_of_a_row(model, labels, rows=200):
    """How long it takes to decode one z."""
    z = tf.random.stateless_normal((rows, model.latent_dim), [0, 0])
    inputs = z
    if labels is not None:
        given = np.resize(labels, (rows, *np.shape(labels)[1:]))
        inputs = [z, tf.constant(given, model.condition.event_dtype)]
    model.decoder(inputs, training=False)
    started = time.monotonic()
    model.decoder(inputs, training=False)
    return (time.monotonic() - started) / rows
