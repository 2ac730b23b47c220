"""Are written results those of this model on these images? Some are computed again, on some of the images."""

import math

import numpy as np

from keras_vae import objectives
from keras_vae.evaluation import latents
from keras_vae.evaluation.audit import formulas
from keras_vae.evaluation.audit.finding import SIGMAS, Finding
from keras_vae.evaluation.scores import batched, has_likelihood, inputs_of, pixel_hash

NAMES = "the written results are called what they are"
LIKELIHOODS = ("nll", "conditional_nll", "importance_weighted_loss")
VALUES = "the written results are those of this model, computed again on some images"
BOUNDS = ("elbo", "conditional_elbo", "score")
SHOWN = (*BOUNDS, "loss", "reconstruction_loss", "kl_loss", "nll", "conditional_nll")


def check_form(model, results):
    """The finding that a result is no number, or None: a file may have been edited or damaged."""
    numbers = {*SHOWN, *LIKELIHOODS, *model.term_names, "mse", "active_units"}
    counts = {f"{name}_{what}": least for name in LIKELIHOODS for what, least in (("samples", 0), ("images", 1))}
    for name, value in results.items():
        is_wrong = name in numbers and not isinstance(value, int | float)
        is_wrong |= name in counts and not (isinstance(value, int) and value >= counts[name])
        if is_wrong:
            return Finding(VALUES, "error", {}, f"{name} is written down as {value!r:.40}. Evaluate again.")
    return None


def check_names(model, images, results):
    """Does what is called elbo or nll deserve it?"""
    numbers = {key: results[key] for key in SHOWN if key in results}
    if not has_likelihood(model, images) and any(name.endswith(("elbo", "nll")) for name in results):
        return Finding(NAMES, "error", numbers, "These pixels have no likelihood, so they have neither elbo nor nll.")
    for name in BOUNDS:
        total = results.get("reconstruction_loss", math.nan) + results.get("kl_loss", math.nan)
        if name in results and not abs(results[name] + total) <= 1e-3 * max(abs(total), 1e-3):
            advice = (
                f"{name} is not -(reconstruction_loss + kl_loss): a weighted loss is called an ELBO. Evaluate again."
            )
            return Finding(NAMES, "error", numbers, advice)
    return Finding(NAMES, "ok", numbers)


def check_values(subject, images, labels, card, num_images, seed):
    """Are loss, its parts, mse, nll and active units what some of the images say?"""
    model, results, protocol = subject.model, card["results"], card["protocol"]
    if protocol.get("pixels_sha256") not in (None, pixel_hash(images)):
        return Finding(VALUES, "error", {}, "They were scored on other pixels than these. Evaluate again.")
    rng = np.random.default_rng(seed)
    some = _Sample(subject, images, labels, len(images), num_images, rng)
    again = {"mse": (some.squares.mean(), some.error(some.squares), 0.0)}  # value, standard error, may be too high by
    for name, values in some.terms.items():
        if name != "loss" or not isinstance(model.objective, objectives.BetaTC):  # which depends on the batch
            again[name] = values.mean(), some.error(values, subject.noise), 0.0
    again |= _likelihoods(subject, images, labels, results, some, num_images, rng)
    numbers = {"images": some.count}
    for name, (value, error, too_high) in again.items():
        if name not in results:
            continue
        numbers |= {name: results[name], f"{name} again": float(value)}
        slack = SIGMAS * error + 2e-3 * max(abs(value), 1e-3)
        if not value - too_high - slack <= results[name] <= value + slack:
            return _wrong(name, results[name], f"{value:.4g}", numbers)
    variances = some.codes.var(axis=0)
    few, many = ((variances > share * latents.ACTIVE_UNIT_VARIANCE).sum() for share in (1.5, 0.6))
    if not few <= results.get("active_units", few) <= many:
        return _wrong("active_units", results["active_units"], f"{few} to {many}", numbers)
    return Finding(VALUES, "ok", numbers)


def _wrong(name, written, value, numbers):
    advice = f"{name} is written down as {written:.4g}, and is {value} here: it is of another model, or was changed."
    return Finding(VALUES, "error", numbers, f"{advice} Evaluate again.")


def _likelihoods(subject, images, labels, results, some, num_images, rng):
    """What the estimates of -log p(x) should be: name -> (value, standard error, by how much it may be too high).

    The ELBO of many images, less what more samples gain for the few images of the subject.
    """
    name = next((name for name in LIKELIHOODS if name in results), None)
    samples = int(results.get(f"{name}_samples", 0))
    if name is None or not samples:
        return {}
    scored = int(results.get(f"{name}_images", len(images)))
    if scored < len(images):
        some = _Sample(subject, images, labels, scored, num_images, rng)
    bound = some.terms["reconstruction_loss"] + some.terms["kl_loss"]

    def estimate(size):
        gain = (formulas.bounds(subject.log_weights, size).mean(axis=0) - subject.log_weights.mean(axis=0))[
            : subject.distinct
        ]
        error = math.hypot(some.error(bound, subject.noise), gain.std(ddof=1) / math.sqrt(len(gain)))
        return bound.mean() - gain.mean(), error

    most = len(subject.log_weights)
    value, error = estimate(min(samples, most))
    further = 0.0  # samples than there are here: no more than twice as much as they gained so far
    if samples > most:
        further = 2 * (estimate(max(most // 10, 1))[0] - value) * math.log10(samples / most)
    return {name: (value, error, max(further, 0.0))}


class _Sample:
    """Some of the first `among` images, with the terms of their loss, codes and squared errors."""

    def __init__(self, subject, images, labels, among, count, rng):
        self.among, self.count = among, min(among, count)
        index = np.sort(rng.choice(among, self.count, replace=False))
        inputs = inputs_of(subject.model, images[index], None if labels is None else np.asarray(labels)[index])
        model = subject.model

        def results_of(*x):
            return model.loss_terms(*x, training=False), model.code(*x), model.reconstruct(*x)

        terms, self.codes, reconstructed = batched(results_of, *inputs, batch_size=100)
        self.terms = {name: values.astype("float64") for name, values in terms.items()}
        self.squares = np.square(images[index].astype("float64") - reconstructed).reshape(self.count, -1).mean(axis=1)

    def error(self, values, noise=0.0):
        """Standard error of the mean of [count] values beside that of all images; `noise` is the variance of a draw."""
        if self.count < 2:
            return math.inf
        missing = 1 / self.count - 1 / self.among
        return math.sqrt(values.var(ddof=1) * missing + noise * (1 / self.count + 1 / self.among))
