"""Are the terms of the loss, the draws of z and the estimate of log p(x) what their names say?"""

import math

import numpy as np

from keras_vae import gaussian, objectives, priors
from keras_vae.evaluation import marginal
from keras_vae.evaluation.audit import formulas
from keras_vae.evaluation.audit.finding import Finding, diagnosis, same, standard_error
from keras_vae.evaluation.audit.subject import COPIES, draw, is_diagonal
from keras_vae.evaluation.scores import as_one, marginal_likelihood
from keras_vae.kl import CLOSED_FORMS

LOSS = "the loss is that of its objective"
SAMPLING = "z = z_mean + exp(0.5 * z_log_var) * eps, with eps of its own for each image"
KL = "kl_loss = KL(q(z|x) || p(z))"
RECONSTRUCTION = "reconstruction_loss = -E log p(x|z), summed over pixels"
ESTIMATE = "the estimate of log p(x) is log 1/k sum p(x|z) p(z) / q(z|x)"


def check_sampling(subject):
    """Does the layer draw z from q(z|x), with noise of its own for each draw, image and dimension?"""
    model, images, num_draws = subject.model, 40, 60
    heads = [np.repeat(head[:1], images, axis=0).astype("float32") for head in subject.heads]
    posterior = getattr(model.posterior, "lower", model.posterior)
    ladder = np.linspace(-6.0, 2.0, 9)
    if is_diagonal(posterior):
        heads = [np.full_like(heads[0], 3.0), np.zeros_like(heads[1])]
    z = np.asarray(model.lowest(model.sampling.draw(heads, num_draws).z), "float64")
    eps = (z - z.mean(axis=(0, 1))) / z.std(axis=(0, 1))
    for axis, word in enumerate(("draw", "image", "dimension")[: 3 if is_diagonal(posterior) else 2]):
        size = eps.shape[
            axis
        ]  # the variance of the mean over an axis is 1 / size for independent noise, 1 for the same
        if size > 1 and np.square(eps.mean(axis=axis)).mean() > 0.5 * (1 + 1 / size):
            advice = (
                f"The noise is the same for each {word}: z of different {word}s are not independent. Draw eps of the "
                "shape [draws, images, dimensions]."
            )
            return Finding(SAMPLING, "error", {}, advice)
    if not is_diagonal(posterior):
        return Finding(SAMPLING, "ok", {}, "")
    spreads = []
    for log_var in ladder:
        drawn = model.sampling.draw([heads[0], np.full_like(heads[1], log_var)], num_draws).z
        spreads.append(2 * np.log(np.asarray(model.lowest(drawn), "float64").std()))
    slope, offset = np.polyfit(ladder, spreads, 1)
    numbers = {"mean for z_mean 3": float(z.mean()), "slope of log Var z": float(slope), "offset": float(offset)}
    if abs(z.mean() - 3) < 8 / math.sqrt(z.size) and abs(slope - 1) < 0.05 and abs(offset) < 0.1:
        return Finding(SAMPLING, "ok", numbers)
    if abs(slope - 2) < 0.1:
        advice = "The noise is scaled by exp(z_log_var): the standard deviation is exp(0.5 * z_log_var)."
    else:
        advice = "The draws of the Sampling layer have another mean or variance than q(z|x): check its formula."
    return Finding(SAMPLING, "error", numbers, advice)


def _closed_kl(subject):
    """KL of each image in each dimension, [n, d], or None where it has no closed form here."""
    model = subject.model
    if not is_diagonal(model.posterior) or type(model.prior).log_prob is not priors.StandardNormal.log_prob:
        return None
    return formulas.kl_per_dimension(subject.heads[0], np.minimum(subject.heads[1], gaussian.MAX_LOG_VAR))


def check_kl(subject, terms):
    """Is kl_loss the KL, in closed form or by draws?"""
    by_draws = subject.log_q - subject.log_prior  # (s, n)
    reported, draws = terms["kl_loss"].mean(), len(terms["kl_loss"]) * subject.model.objective.num_samples
    noise = standard_error(by_draws, len(by_draws), draws)
    expected = by_draws.mean()
    numbers = {"kl_loss": float(reported), "by draws": float(expected)}
    closed = _closed_kl(subject)
    if closed is not None:
        expected, noise = closed.sum(axis=-1).mean(), 0.0
        numbers["in closed form"] = float(expected)
    if same(reported, expected, noise):
        return Finding(KL, "ok", numbers)
    dims = subject.heads[0].shape[1]
    weight = getattr(subject.model.objective, "beta", 1.0)
    wrong = {
        "its sign is turned": -expected,
        f"it is the mean over the {dims} latent dimensions, not the sum": expected / dims,
        "it is multiplied by beta: a weighted KL makes the sum no ELBO": expected * weight,
        "it is twice the KL: it is counted twice, or a factor 0.5 is missing": 2 * expected,
    }
    return Finding(KL, "error", numbers, diagnosis("kl_loss", reported, expected, wrong, noise))


def check_reconstruction(subject, terms, rng):
    """Is reconstruction_loss -log p(x|z) under draws from q(z|x), other ones for each image?"""
    reported, expected = terms["reconstruction_loss"], -subject.log_likelihood
    draws = len(reported) * subject.model.objective.num_samples
    noise = standard_error(expected, len(expected), draws)
    numbers = {"reconstruction_loss": float(reported.mean()), "again": float(expected.mean())}
    if not same(reported.mean(), expected.mean(), noise):
        pixels = math.prod(subject.images.shape[1:])
        wide, _ = draw(subject.model.posterior, subject.heads, 10, rng, wrong_scale=True)
        wrong = {
            "it is the mean over pixels, not the sum": expected.mean() / pixels,
            "log(2 pi) is dropped": expected.mean() - 0.5 * formulas.LOG_2PI * pixels,
            "its sign is turned": -expected.mean(),
            "z is drawn with the standard deviation exp(z_log_var), not exp(0.5 * z_log_var)": -(
                subject.log_likelihood_of(wide).mean()
            ),
        }
        advice = diagnosis("reconstruction_loss", reported.mean(), expected.mean(), wrong, noise)
        return Finding(RECONSTRUCTION, "error", numbers, advice)
    if _shared(reported[:, -COPIES:], expected[:, -COPIES:], subject.model.objective.num_samples):
        advice = "The same image, several times in a batch, has the same loss each time: all images get the same noise."
        return Finding(RECONSTRUCTION, "error", numbers, advice)
    return Finding(RECONSTRUCTION, "ok", numbers)


def _shared(reported, draws, averaged):
    """Whether values [r, c] of c copies of an image are one, where single draws [s, c] of them differ."""
    expected = np.var(draws, ddof=1) / averaged
    return expected > (1e-5 * abs(draws.mean())) ** 2 and np.var(reported, axis=1, ddof=1).mean() < 0.02 * expected


def check_loss(subject, terms):
    """Is the loss what the objective says?"""
    objective = subject.model.objective
    numbers = {name: float(values.mean()) for name, values in terms.items()}
    if isinstance(objective, objectives.ELBO):
        return _elbo(subject, terms, numbers)
    if isinstance(objective, objectives.MIWAE):
        return _importance_weighted(subject, terms, numbers)
    if isinstance(objective, objectives.BetaTC):
        return _beta_tc(subject, terms, numbers)
    advice = (
        f"Not checked: {type(objective).__name__} is not an objective of this package. Quote elbo and nll, not loss."
    )
    return Finding(LOSS, "warning", numbers, advice)


def _elbo(subject, terms, numbers):
    objective = subject.model.objective
    beta, free_bits, kl = objective.beta, objective.free_bits, terms["kl_loss"]
    rest = (terms["loss"] - terms["reconstruction_loss"]).mean()
    expected = beta * kl
    if free_bits:
        closed, floor = _closed_kl(subject), free_bits * subject.z.shape[-1]
        if closed is not None:
            expected = beta * np.maximum(closed, free_bits).sum(axis=-1)
        elif hasattr(subject.model.prior, "conditional"):  # in parts, which the terms do not tell: no less than this
            expected = np.maximum(beta * np.maximum(kl, floor), terms["loss"] - terms["reconstruction_loss"])
        elif (type(subject.model.posterior), type(subject.model.prior)) in CLOSED_FORMS:
            return Finding(LOSS, "warning", numbers, "Not checked: free bits of a KL whose parts have no formula here.")
        else:
            expected = beta * np.maximum(kl, floor)
    expected = expected.mean()
    numbers["reconstruction_loss + weighted kl_loss"] = float(terms["reconstruction_loss"].mean() + expected)
    if abs(rest - expected) > 1e-3 * max(abs(expected), 1e-3) + 1e-5 * abs(terms["loss"].mean()):
        weight = rest / kl.mean() if kl.mean() else math.nan
        advice = (
            f"The KL has the weight {weight:.3g} in the loss, and the objective says beta {beta:g}. A beta-weighted "
            "loss is no ELBO: give the objective that beta, or take the weight out."
        )
        return Finding(LOSS, "error", numbers, advice)
    if beta != 1 or free_bits:
        advice = (
            f"The loss has beta {beta:g} and {free_bits:g} free bits: do not call it an ELBO, and quote elbo and nll "
            "of `evaluate`."
        )
        return Finding(LOSS, "warning", numbers, advice)
    return Finding(LOSS, "ok", numbers)


def _importance_weighted(subject, terms, numbers):
    objective, log_weights = subject.model.objective, subject.log_weights
    reported, name = terms["loss"], type(objective).__name__
    bounds = -formulas.bounds(log_weights, objective.k)  # (groups, n)
    if len(bounds) < 2:
        advice = f"Not checked, for the sake of time: the value of {name} with k = {objective.k}."
        return Finding(LOSS, "warning", numbers, advice)
    noise = standard_error(bounds, len(bounds), len(reported) * objective.m)
    numbers["computed again"] = float(bounds.mean())
    if same(reported.mean(), bounds.mean(), noise):
        advice = f"The objective is {name}: quote elbo and nll of `evaluate`, never the loss."
        return Finding(LOSS, "warning", numbers, advice)
    wrong = {
        "the average is outside of the logarithm": -log_weights.mean(),
        "log k is forgotten": bounds.mean() - math.log(objective.k),
        "its sign is turned": -bounds.mean(),
    }
    return Finding(LOSS, "error", numbers, diagnosis("loss", reported.mean(), bounds.mean(), wrong, noise))


def _beta_tc(subject, terms, numbers):
    """Held against the formula is what the loss has beside its two terms: (beta - 1) times the total correlation."""
    weight, (mean, log_var) = subject.model.objective.beta - 1, subject.heads
    several = [formulas.total_correlation(z, mean, log_var).mean() for z in subject.z[:20]]
    reported = (terms["loss"] - terms["reconstruction_loss"] - terms["kl_loss"]).mean(axis=1)
    expected, spread = weight * np.mean(several), weight * np.std(several, ddof=1)
    numbers |= {"total correlation and its weight": float(reported.mean()), "computed again": float(expected)}
    if same(reported.mean(), expected, spread * math.sqrt(1 / len(several) + 1 / len(reported))):
        advice = "The objective is BetaTC, whose loss depends on the batch: quote elbo and nll of `evaluate`."
        return Finding(LOSS, "warning", numbers, advice)
    advice = diagnosis("loss - reconstruction_loss - kl_loss", reported.mean(), expected, {})
    return Finding(LOSS, "error", numbers, advice)


def check_estimate(subject, seed):
    """Is the estimate of log p(x) by k samples that of our own draws and formulas, for each of several k?"""
    log_weights = subject.log_weights
    sizes = marginal.bound_sizes(len(log_weights))
    estimates = marginal_likelihood(
        subject.model, as_one(subject.inputs), len(log_weights), seed=seed, batch_size=len(subject.images)
    )
    reported = estimates["bound"]  # (n, sizes)
    numbers, advice = {}, ""
    for index, size in enumerate(sizes):
        expected = formulas.bounds(log_weights, size).mean(axis=0)
        difference = reported[:, index] - expected
        noise = float(difference.std(ddof=1) / math.sqrt(len(difference)))
        numbers |= {f"{size} samples": float(reported[:, index].mean()), f"{size} again": float(expected.mean())}
        if not advice and not same(reported[:, index].mean(), expected.mean(), noise):
            wrong = {
                "log k is forgotten": expected.mean() + math.log(size) if size > 1 else math.nan,
                "the average is outside of the logarithm": log_weights.mean() if size > 1 else math.nan,
            }
            means = reported[:, index].mean(), expected.mean()
            advice = diagnosis(f"The estimate by {size} samples", *means, wrong, noise)
    spread = np.var(log_weights[:, -COPIES:], ddof=1) / len(log_weights)
    copies = reported[-COPIES:, 0]
    if not advice and spread > (1e-6 * abs(copies.mean())) ** 2 and np.var(copies, ddof=1) < 0.02 * spread:
        advice = "The same image, several times in a batch, has the same estimate each time: all get the same noise."
    return Finding(ESTIMATE, "error" if advice else "ok", numbers, advice)
