"""Is p(x|z) what it says? By its formula where that is known, and else by summing over all values of a pixel."""

import math

import numpy as np
import tensorflow as tf

from keras_vae import likelihoods
from keras_vae.evaluation.audit import formulas
from keras_vae.evaluation.audit.finding import SIGMAS, Finding, diagnosis
from keras_vae.evaluation.audit.subject import exact_likelihood

DENSITY = "log p(x|z) is a log-probability, summed over pixels"
MEAN = "decode gives the mean of p(x|z), whose draws vary around it"
PIXELS = "the pixels have a likelihood under p(x|z)"


def check_likelihood(subject, rng):
    """Checks log p(x|z), and the mean and the draws of p(x|z): two findings."""
    exact = exact_likelihood(subject.model.likelihood)
    yield _total_probability(subject, rng) if exact is None else _by_formula(subject, exact, rng)
    yield _mean(subject, exact, rng)


def _by_formula(subject, exact, rng):
    """Against the formula, on made-up pixels and parameters, half of which are extreme."""
    likelihood, shape = subject.model.likelihood, (64, *subject.images.shape[1:])
    levels = {"binary": 1, "8-bit": 255}.get(likelihood.support)
    x = rng.uniform(size=shape) if levels is None else rng.integers(0, levels + 1, shape) / levels
    if _takes_logits(likelihood):
        usual, extreme = rng.normal(size=shape), 60.0 * rng.choice([-1, 1], shape)
    else:
        usual, extreme = rng.uniform(size=shape), rng.choice([-0.5, 1.5], shape)
    is_extreme = np.arange(64) >= 32
    params = np.where(is_extreme.reshape(64, *[1] * (len(shape) - 1)), extreme, usual)
    x, params = x.astype("float32"), params.astype("float32")
    per_pixel = exact[0](x.astype("float64"), params.astype("float64")).reshape(64, -1)
    expected, reported = per_pixel.sum(axis=1), np.asarray(likelihood.log_prob(x, params), "float64")
    numbers = {"log_prob": float(reported.mean()), "exact": float(expected.mean())}
    right = np.isclose(reported, expected, rtol=1e-3, atol=1e-2)
    if np.all(right):
        return Finding(DENSITY, "ok", numbers)
    if np.all(right[~is_extreme]):
        advice = "It is wrong at extreme parameters alone: the log of clipped probabilities. Compute it from logits."
        return Finding(DENSITY, "error", numbers, advice)
    pixels = per_pixel.shape[1]
    wrong = {"it is the mean over pixels, not the sum": expected / pixels}
    if isinstance(likelihood, likelihoods.Gaussian):
        log_scale = float(np.asarray(likelihood.log_scale))
        wrong["log(2 pi) is dropped"] = expected + 0.5 * formulas.LOG_2PI * pixels
        wrong["log(scale) is dropped"] = expected + log_scale * pixels
        wrong["it is minus the squared error"] = -np.square(x - params).reshape(64, -1).sum(axis=1)
    if isinstance(likelihood, likelihoods.ContinuousBernoulli):
        bernoulli = formulas.bernoulli(x, params.astype("float64")).reshape(64, -1)
        wrong["its normalising constant is missing"] = bernoulli.sum(axis=1)
    wrong = {reason: values[~is_extreme].mean() for reason, values in wrong.items()}
    means = (values[~is_extreme].mean() for values in (reported, expected))
    return Finding(DENSITY, "error", numbers, diagnosis("log_prob", *means, wrong))


def _total_probability(subject, rng):
    """Do the probabilities of all values of one pixel sum to 1, and is log p of two equal pixels twice that of one?"""
    likelihood = subject.model.likelihood
    one_value = (1,) * (subject.images.ndim - 1)
    params = rng.normal(size=(5, *likelihood.param_shape(one_value))).astype("float32")
    x, widths = _values(likelihood, params)
    log_prob = _log_prob(likelihood, x, params, len(one_value))
    two = _log_prob(likelihood, x, params, len(one_value), pixels=2)
    total = (np.exp(log_prob) * widths).sum(axis=1)
    numbers = {
        "total probability": float(total.mean()),
        "log p of two pixels / of one": float(np.median(two / log_prob)),
    }
    if not np.allclose(total, 1, atol=1e-2):
        advice = "Its probabilities do not sum to 1: a constant is missing. Its log_prob is no log-probability."
        return Finding(DENSITY, "error", numbers, advice)
    if not np.allclose(two, 2 * log_prob, rtol=1e-3, atol=1e-3):
        return Finding(DENSITY, "error", numbers, "It is the mean over pixels, not the sum.")
    return Finding(DENSITY, "ok", numbers)


def _values(likelihood, params):
    """Values of a pixel [v], and the width that each stands for: 1 where values are counted."""
    if likelihood.support in ("binary", "8-bit"):
        count = 2 if likelihood.support == "binary" else 256
        return np.linspace(0, 1, count, dtype="float32"), np.ones(count)
    if math.isfinite(likelihood.lowest) and math.isfinite(likelihood.highest):
        values = np.linspace(likelihood.lowest, likelihood.highest, 4001)
        return values.astype("float32"), np.gradient(values) * np.where(np.arange(4001) % 4000, 1.0, 0.5)
    drawn = np.asarray(likelihood.sample(np.repeat(params[:1], 2000, axis=0), 0), "float64")
    centre, spread = np.median(drawn), max(float(np.percentile(drawn, 84) - np.percentile(drawn, 16)), 1e-3)
    reach = 40 * spread + 5 * float(np.abs(params).max())
    values = np.linspace(centre - reach, centre + reach, 40_001).astype("float32")
    return values, np.gradient(values.astype("float64"))


def _log_prob(likelihood, x, params, event_rank, pixels=1):
    """log p of an image of 1 or 2 equal pixels, for each of the parameters and values: [p, v]."""
    images = np.repeat(x.reshape(-1, *[1] * event_rank), pixels, axis=1)
    repeated = np.repeat(params[:, None], pixels, axis=2)
    each = np.broadcast_to(repeated, (len(params), len(x), *repeated.shape[2:]))
    return np.asarray(likelihood.log_prob(images, each), "float64").reshape(len(params), len(x))


def _mean(subject, exact, rng):
    """Is decode(z) the mean of p(x|z), and do draws of p(x|z) have that mean?"""
    z, labels = subject.model.lowest(subject.z[0][:8]), None if subject.labels is None else subject.labels[:8]
    params = subject.params(z, labels)
    given = [] if labels is None else [labels]
    decoded = np.asarray(subject.model.decode(tf.constant(z, tf.float32), *given), "float64")
    likelihood = subject.model.likelihood
    expected = np.asarray(likelihood.mean(params), "float64") if exact is None else exact[1](params.astype("float64"))
    numbers = {"decode": float(decoded.mean()), "mean of p(x|z)": float(expected.mean())}
    if np.abs(decoded - expected).max() > 0.005:  # the mean of levels is a rounded one
        advice = "decode(z) is not the mean of p(x|z) of what the decoder returns. Is a sigmoid applied twice?"
        return Finding(MEAN, "error", numbers, advice)
    drawn = np.asarray(likelihood.sample(np.repeat(params[:1], 500, axis=0), int(rng.integers(2**31))), "float64")
    numbers["draws"] = float(drawn.mean())
    error = drawn.reshape(500, -1).mean(axis=1).std(ddof=1) / math.sqrt(500)
    if abs(drawn.mean() - expected[0].mean()) > SIGMAS * error + 0.005:
        return Finding(
            MEAN, "error", numbers, "`sample` of the likelihood draws pixels of another mean than p(x|z) has."
        )
    if np.all(drawn[0] == drawn[1]) and np.ptp(drawn) > 0 and np.any(np.abs(drawn[0] - expected[0]) > 0.01):
        return Finding(MEAN, "error", numbers, "`sample` of the likelihood gives two images the same noise.")
    return Finding(MEAN, "ok", numbers)


def _takes_logits(likelihood):
    return isinstance(likelihood, (likelihoods.Bernoulli, likelihoods.ContinuousBernoulli))


def check_pixels(likelihood, images):
    """Have these pixels a likelihood?"""
    low, high = float(images.min()), float(images.max())
    grey = float(np.mean((images != 0) & (images != 1)))
    numbers = {"lowest": low, "highest": high, "share of grey pixels": grey}
    if not (math.isfinite(low) and math.isfinite(high)):
        return Finding(PIXELS, "error", numbers, "Some pixels are NaN or infinite.")
    lowest, highest = likelihood.lowest, likelihood.highest
    if low < lowest or high > highest:
        advice = (
            f"Pixels are from {low:g} to {high:g} and not in [{lowest:g}, {highest:g}]. Divide 8-bit images by 255."
        )
        return Finding(PIXELS, "error", numbers, advice)
    if likelihood.support == "binary" and grey:
        advice = (
            "A Bernoulli likelihood has none for grey pixels: the loss is a cross-entropy and no bound on log p(x). "
            "Binarise the images (--binarization), or use continuous_bernoulli or gaussian."
        )
        return Finding(PIXELS, "warning", numbers, advice)
    if likelihood.support == "8-bit" and not np.allclose(255 * images, np.round(255 * images), atol=1e-3):
        advice = "Some pixels are none of the 256 levels k / 255, and are taken for the nearest one."
        return Finding(PIXELS, "warning", numbers, advice)
    return Finding(PIXELS, "ok", numbers)
