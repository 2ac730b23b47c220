"""Are p(z) and q(z|x) densities? They are integrated, and their draws are held against them."""

import math

import numpy as np
import tensorflow as tf

from keras_vae import noise as noises
from keras_vae.evaluation.audit import formulas
from keras_vae.evaluation.audit.finding import SIGMAS, Finding, diagnosis
from keras_vae.evaluation.audit.subject import exact_prior, layers_of, log_prior, reported_log_prob

POINTS = 20_000  # drawn to integrate a density
DRAWS = 4_000  # of the distribution's own
WIDENING = 1.15  # standard deviations of the distribution of the points, beside those of the density
FEWEST = 200  # effective points that an integral needs
PRIOR = "p(z) integrates to 1, by importance sampling"
PRIOR_DRAWS = "draws of the prior follow p(z)"
POSTERIOR = "q(z|x) integrates to 1, and its draws follow it"


def check_prior(subject, rng):
    """Checks density and draws of the prior: two findings."""
    prior = subject.model.prior
    *layers, top = layers_of(prior)
    exact = exact_prior(top)
    drawn = [np.asarray(prior.sample(DRAWS, seed), "float64") for seed in (1, 2)]
    dims = top.latent_dim
    if exact is None:
        integral = integrate(lambda z: reported_log_prob(top, z), drawn[0][:, -dims:], rng)
        z = integral.resampled(rng)
    else:
        points = exact.widened(WIDENING).sample(POINTS, rng)
        integral = Integral(points, reported_log_prob(top, points) - exact.widened(WIDENING).log_prob(points))
        z = exact.sample(POINTS, rng)
    yield _by_integral(integral) if exact is None else _by_formula(subject, integral, exact.logits, z[:1000], rng)
    if integral.effective < FEWEST and exact is None:
        yield Finding(PRIOR_DRAWS, "warning", {}, "Not decided: the density of the prior could not be integrated.")
        return
    yield _draws(drawn, _with_lower_layers(layers, z, rng))


def _with_lower_layers(layers, z, rng):
    """Draws [n, d] of the layers below `z`, and z itself behind them."""
    for layer in reversed(layers):
        mean, log_var = (np.asarray(part, "float64") for part in layer.conditional(tf.constant(z, tf.float32)))
        z = np.concatenate([mean + np.exp(0.5 * log_var) * rng.normal(size=mean.shape), z], axis=-1)
    return z


def _by_formula(subject, integral, logits, z, rng):
    """log_prob of all layers against the formulas, at codes of images and at draws of the prior."""
    prior = subject.model.prior
    z = np.concatenate(
        [subject.z.reshape(-1, subject.z.shape[-1])[:1000], _with_lower_layers(layers_of(prior)[:-1], z, rng)]
    )
    reported, expected = reported_log_prob(prior, z), log_prior(prior, z)
    numbers = {"integral of p(z)": integral.total, "log_prob": float(reported.mean()), "exact": float(expected.mean())}
    if np.all(np.abs(reported - expected) <= 0.02 + 1e-3 * np.abs(expected)):
        return Finding(PRIOR, "ok", numbers)
    wrong = {
        "log(2 pi) is dropped": expected.mean() + 0.5 * z.shape[1] * formulas.LOG_2PI,
        "the weights of its components do not sum to 1": expected.mean() + formulas.logsumexp(logits),
    }
    advice = diagnosis("log_prob of the prior", reported.mean(), expected.mean(), wrong)
    return Finding(PRIOR, "error", numbers, advice)


def _by_integral(integral):
    numbers = {"integral of p(z)": integral.total, "effective points": integral.effective}
    if integral.effective < FEWEST:
        advice = "Not decided: log_prob and `sample` of the prior are too far apart to integrate the one by the other."
        return Finding(PRIOR, "warning", numbers, advice)
    if integral.is_one():
        return Finding(PRIOR, "ok", numbers)
    advice = (
        f"log_prob of the prior is no log-density: exp(log_prob) integrates to {integral.total:.4g}. A constant is "
        f"missing in it, or is too much: kl_loss and nll are off by {abs(math.log(integral.total)):.2f} nats."
    )
    return Finding(PRIOR, "error", numbers, advice)


def check_posterior(subject, rng):
    """For the first image: is log_prob of q(z|x) its density, that of its draws, and what comes with them?"""
    posterior = subject.model.posterior
    posterior = getattr(posterior, "lower", posterior)
    heads = [tf.constant(head[:1], tf.float32) for head in subject.heads]

    def log_prob(z):
        return np.asarray(posterior.log_prob(tf.constant(z[:, None], tf.float32), heads), "float64")[:, 0]

    drawn, log_q = [], []
    for seed in (1, 2):
        z, log_posterior = posterior.sample(heads, DRAWS, noises.get(seed))
        drawn.append(np.asarray(z, "float64")[:, 0])
        log_q.append(np.asarray(log_posterior, "float64")[:, 0])
    integral = integrate(log_prob, drawn[0], rng)
    gap = np.abs(log_prob(drawn[0]) - log_q[0]).max()
    numbers = {"integral of q(z|x)": integral.total, "effective points": integral.effective}
    if gap > 0.02 + 1e-3 * np.abs(log_q[0]).max():
        advice = (
            f"`sample` and log_prob of q(z|x) give two densities for one draw: they differ by up to {gap:.3g} nats."
        )
        return Finding(POSTERIOR, "error", numbers, advice)
    if integral.effective < FEWEST:
        return Finding(POSTERIOR, "warning", numbers, "Not decided: the density could not be integrated.")
    if not integral.is_one():
        advice = f"log_prob of q(z|x) is no log-density: exp(log_prob) integrates to {integral.total:.4g}."
        return Finding(POSTERIOR, "error", numbers, advice)
    wrong = different(drawn[0], integral.resampled(rng))
    if wrong:
        advice = f"`sample` of q(z|x) draws from another distribution than its log_prob says: {wrong}."
        return Finding(POSTERIOR, "error", numbers, advice)
    return Finding(POSTERIOR, "ok", numbers)


class Integral:
    """The integral of exp(log_prob), by points of a wider distribution.

    Args:
        points: Float [n, d].
        log_weights: Float [n], log_prob less the log-density of the distribution that the points are from.
    """

    def __init__(self, points, log_weights):
        self.points = points
        weights = np.exp(np.clip(log_weights, None, 300.0))
        self.total = max(float(weights.mean()), 1e-300)
        self.error = float(weights.std(ddof=1) / math.sqrt(len(weights)))
        self.weights = np.maximum(weights, 1e-300) / np.maximum(weights, 1e-300).sum()
        self.effective = 1 / float(np.square(self.weights).sum())

    def is_one(self):
        return abs(self.total - 1) <= 0.03 + SIGMAS * self.error

    def resampled(self, rng):
        """Draws [n, d] from the density, about as many as the points are worth."""
        return self.points[rng.choice(len(self.points), max(int(self.effective), 2), p=self.weights)]

    def moments(self):
        """Mean [d] and covariance [d, d] under the density."""
        mean = self.weights @ self.points
        centred = self.points - mean
        return mean, (self.weights[:, None] * centred).T @ centred


def integrate(log_prob, drawn, rng):
    """The `Integral` of a density, by points of a wider Gaussian that is fitted to it.

    Args:
        log_prob: Callable, z [n, d] -> log-density [n], nats.
        drawn: Float [m, d], draws that are said to follow it: where to begin.
        rng: A numpy generator.
    """
    dims = drawn.shape[1]
    best = _by_gaussian(log_prob, np.zeros(dims), np.eye(dims), rng)
    if np.all(np.isfinite(drawn)):
        covariance = np.atleast_2d(np.cov(drawn, rowvar=False))
        best = max(best, _by_gaussian(log_prob, drawn.mean(axis=0), covariance, rng), key=_effective)
    for _ in range(3):
        if best.effective > 0.3 * POINTS:
            break
        best = max(best, _by_gaussian(log_prob, *best.moments(), rng), key=_effective)
    return best


def _effective(integral):
    return integral.effective


def _by_gaussian(log_prob, mean, covariance, rng):
    spread = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    factor = (
        WIDENING
        * spread[:, None]
        * np.linalg.cholesky(covariance / np.outer(spread, spread) + 1e-6 * np.eye(len(mean)))
    )
    eps = rng.normal(size=(POINTS, len(mean)))
    points = mean + eps @ factor.T
    log_density = formulas.normal(eps) - np.log(np.diag(factor)).sum()
    return Integral(points, np.nan_to_num(log_prob(points), nan=-np.inf) - log_density)


def _draws(drawn, expected):
    """Do draws [n, d] by two seeds come from the distribution of the draws `expected` [m, d]?"""
    if np.array_equal(*drawn):
        advice = "Two seeds give the same draws: `sample` of the prior ignores its seed."
        return Finding(PRIOR_DRAWS, "error", {}, advice)
    drawn = drawn[0]
    numbers = {"variance of the draws": float(drawn.var(axis=0).mean()), "of p(z)": float(expected.var(axis=0).mean())}
    wrong = different(drawn, expected)
    if wrong is None:
        return Finding(PRIOR_DRAWS, "ok", numbers)
    advice = (
        f"`sample` of the prior draws from another distribution than its log_prob says: {wrong}. Generated images and "
        "prior_sampled_nll belong to that other distribution."
    )
    return Finding(PRIOR_DRAWS, "error", numbers, advice)


def different(drawn, expected):
    """How the moments of draws [n, d] differ from those of other draws [m, d], in words; None if they do not."""
    for word, powers in (("mean", (drawn, expected)), ("variance", _squares(drawn, expected))):
        means = [power.mean(axis=0) for power in powers]
        errors = [power.std(axis=0) / math.sqrt(len(power)) for power in powers]
        distance = np.abs(means[0] - means[1]) / np.maximum(np.hypot(*errors), 1e-12)
        worst = int(distance.argmax())
        if distance[worst] > SIGMAS:
            return f"dimension {worst} has the {word} {means[0][worst]:.4g} and not {means[1][worst]:.4g}"
    gap = np.abs(_correlation(drawn) - _correlation(expected))
    if gap.max() > 2 * SIGMAS * math.hypot(1 / math.sqrt(len(drawn)), 1 / math.sqrt(len(expected))):
        return "its dimensions are correlated otherwise"
    return None


def _squares(*draws):
    return [np.square(each - each.mean(axis=0)) for each in draws]


def _correlation(z):
    return np.atleast_2d(np.cov((z - z.mean(axis=0)) / np.maximum(z.std(axis=0), 1e-12), rowvar=False))
