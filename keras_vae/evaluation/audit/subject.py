"""The model under audit: what its networks return, and what it says of that. The formulas are not its own."""

import numpy as np
import tensorflow as tf

from keras_vae import gaussian, likelihoods, posteriors, priors
from keras_vae import noise as noises
from keras_vae.evaluation.audit import formulas

ROWS = 2000  # images times draws that are decoded at a time
COPIES = 16  # of the first image, behind the others: their z must differ
EXACT_LIKELIHOODS = {
    likelihoods.Bernoulli: (formulas.bernoulli, formulas.sigmoid),
    likelihoods.ContinuousBernoulli: (formulas.continuous_bernoulli, formulas.continuous_bernoulli_mean),
    likelihoods.Gaussian: (formulas.gaussian, lambda mean, scale: mean),
    likelihoods.DiscretizedLogistic: (formulas.discretized_logistic, formulas.discretized_logistic_mean),
}


class Subject:
    """A model, and a batch of images on which it is looked at.

    Args:
        model: The model.
        images: Float32 [n, ...]; the first is repeated COPIES times behind them.
        labels: Int [n], or None.
        num_draws: Int, s: draws of z for each image.
        rng: A numpy generator.
    """

    def __init__(self, model, images, labels, num_draws, rng):
        index = np.concatenate([np.arange(len(images)), np.zeros(COPIES, int)])
        self.model = model
        self.distinct = len(images)
        self.images = images[index]
        self.labels = None if labels is None else np.asarray(labels)[index]
        self.inputs = [self.images] if labels is None else [self.images, self.labels]
        self.heads = [np.asarray(head, "float64") for head in model.encode(*self.inputs)]
        self.z, self.log_q = draw(model.posterior, self.heads, num_draws, rng)  # of all layers; nats
        self.log_prior = log_prior(model.prior, self.z)
        parts = np.array_split(self.z, -(-num_draws * len(index) // ROWS))
        self.log_likelihood = np.concatenate([self.log_likelihood_of(part) for part in parts])
        self.log_weights = self.log_likelihood + self.log_prior - self.log_q  # (s, n)
        # variance of a term of the model's loss over its draws
        self.noise = float(np.var(self.log_weights, axis=0, ddof=1).mean() / model.objective.num_samples)

    def params(self, z, labels=None):
        """The decoder's output for z [..., n, d]: float32 [..., n, ...]."""
        z = self.model.lowest(z)
        flat = tf.constant(z.reshape(-1, z.shape[-1]), tf.float32)
        if self.labels is not None:
            labels = self.labels if labels is None else labels
            repeated = np.resize(labels, (len(flat), *labels.shape[1:]))
            flat = [flat, tf.constant(repeated, self.model.condition.event_dtype)]
        outputs = np.asarray(self.model.decoder(flat, training=False), "float32")
        return outputs.reshape(*z.shape[:-1], *outputs.shape[1:])

    def log_likelihood_of(self, z):
        """log p(x|z) of z [s, n, d], [s, n]: by its formula where that is known, else what the likelihood says."""
        params = self.params(z)
        exact = exact_likelihood(self.model.likelihood)
        if exact is None:
            return np.asarray(self.model.likelihood.log_prob(self.images, params), "float64")
        per_pixel = exact[0](self.images.astype("float64"), params.astype("float64"))
        return per_pixel.reshape(*z.shape[:2], -1).sum(axis=-1)

    def terms(self, repeats):
        """Terms of the model's own loss: name -> float64 [r, n], from r draws of its noise."""
        runs = [self.model.loss_terms(*self.inputs, training=False) for _ in range(repeats)]
        return {name: np.stack([run[name] for run in runs]).astype("float64") for name in runs[0]}


def draw(posterior, heads, num_draws, rng, wrong_scale=False):
    """z [s, n, d] of q(z|x) and log q(z|x) [s, n]: by the formula, or what a posterior of one's own says.

    With `wrong_scale` a diagonal Gaussian is drawn with the standard deviation exp(z_log_var).
    """
    if hasattr(posterior, "upper"):
        z, log_q = draw(posterior.lower, heads, num_draws, rng, wrong_scale)
        above = [np.asarray(head, "float64") for head in posterior.upper_heads(tf.constant(z, tf.float32))]
        z_above, log_q_above = draw(posterior.upper, above, 1, rng, wrong_scale)
        z_above = z_above.reshape(*z.shape[:2], -1)
        return np.concatenate([z, z_above], axis=-1), log_q + log_q_above.reshape(log_q.shape)
    eps = rng.normal(size=(num_draws, *heads[0].shape))
    if is_diagonal(posterior):
        z_mean, z_log_var = heads[0], np.minimum(heads[1], gaussian.MAX_LOG_VAR)
        z = z_mean + np.exp((1.0 if wrong_scale else 0.5) * z_log_var) * eps
        return z, -0.5 * (formulas.LOG_2PI + z_log_var + eps**2).sum(axis=-1)
    if type(posterior).log_prob is posteriors.FullCovariance.log_prob:
        factor, log_squares = formulas.triangular(heads[1], heads[0].shape[-1], gaussian.MAX_LOG_VAR)
        z = heads[0] + np.einsum("bij,sbj->sbi", factor, eps)
        return z, -0.5 * (formulas.LOG_2PI + log_squares + eps**2).sum(axis=-1)
    noise = noises.get(int(rng.integers(2**31)))
    z, log_q = posterior.sample([tf.constant(head, tf.float32) for head in heads], num_draws, noise)
    return np.asarray(z, "float64"), np.asarray(log_q, "float64")


def is_diagonal(posterior):
    """Whether a posterior has the density of this package's diagonal Gaussian."""
    return type(posterior).log_prob is posteriors.DiagonalGaussian.log_prob


def log_prior(prior, z):
    """log p(z) of all layers, [s, n]: by its formula where that is known, else what the prior says."""
    total = 0.0
    for layer in layers_of(prior)[:-1]:
        here, z = layer.split(z)
        mean, log_var = (np.asarray(part, "float64") for part in layer.conditional(tf.constant(z, tf.float32)))
        total = total + formulas.normal(here, mean, log_var)
    prior = layers_of(prior)[-1]
    exact, flat = exact_prior(prior), z.reshape(-1, z.shape[-1])
    top = reported_log_prob(prior, flat) if exact is None else exact.log_prob(flat)
    return total + top.reshape(z.shape[:-1])


def layers_of(prior):
    """The priors of all layers, the lowest first: each but the last is a Gaussian given the layer above it."""
    layers = [prior]
    while hasattr(layers[-1], "conditional"):
        layers.append(layers[-1].upper)
    return layers


class ExactPrior:
    """A mixture of diagonal Gaussians by its formulas: float64 log-weights [K], means and log-variances [K, d]."""

    def __init__(self, logits, means, log_vars):
        self.logits, self.means, self.log_vars = (np.asarray(part, "float64") for part in (logits, means, log_vars))

    def log_prob(self, z):
        """log p(z) of z [n, d]: [n]."""
        return formulas.mixture(z, self.logits, self.means, self.log_vars)

    def sample(self, num_samples, rng):
        """Draws [n, d]."""
        chosen = rng.choice(len(self.logits), num_samples, p=np.exp(self.logits - formulas.logsumexp(self.logits)))
        eps = rng.normal(size=(num_samples, self.means.shape[1]))
        return self.means[chosen] + np.exp(0.5 * self.log_vars[chosen]) * eps

    def widened(self, factor):
        """The mixture with standard deviations that are `factor` times as large."""
        return ExactPrior(self.logits, self.means, self.log_vars + 2 * np.log(factor))


def exact_prior(prior):
    """The prior by its formulas, or None for one whose log_prob is not of this package."""
    if type(prior).log_prob is priors.StandardNormal.log_prob:
        zeros = np.zeros((1, prior.latent_dim))
        return ExactPrior(np.zeros(1), zeros, zeros)
    if type(prior).log_prob is priors.VampPrior.log_prob:
        prior = prior.frozen()  # a mixture, where q(z|x) is a diagonal Gaussian
    if type(prior).log_prob is priors.Mixture.log_prob:
        return ExactPrior(*prior.components())
    return None


def reported_log_prob(prior, z):
    """What a prior says of z [n, d]: float64 [n]."""
    return np.asarray(prior.log_prob(tf.constant(z, tf.float32)), "float64")


def exact_likelihood(likelihood):
    """Two formulas: log p of each pixel, of (x, params), and its mean, of params. None if they are not known."""
    known = [kind for kind in EXACT_LIKELIHOODS if isinstance(likelihood, kind)]
    if not known:
        return None
    log_prob, mean = EXACT_LIKELIHOODS[known[0]]
    if not hasattr(likelihood, "log_scale"):
        return log_prob, mean
    scale = float(np.exp(np.asarray(likelihood.log_scale, "float64")))
    return (lambda x, params: log_prob(x, params, scale)), (lambda params: mean(params, scale))
