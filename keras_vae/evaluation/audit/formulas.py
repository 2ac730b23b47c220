"""The formulas, in numpy and float64: what the audit holds the numbers of a model against. No code of the models."""

import math

import numpy as np

LOG_2PI = math.log(2 * math.pi)


def logsumexp(values, axis=-1):
    """log sum exp(values) along an axis, without overflow."""
    highest = np.maximum(np.max(values, axis=axis, keepdims=True), np.finfo("float64").min)  # all may be -inf
    with np.errstate(divide="ignore"):
        return (np.log(np.exp(values - highest).sum(axis=axis, keepdims=True)) + highest).squeeze(axis)


def normal(x, mean=0.0, log_var=0.0):
    """log N(x; mean, diag(exp(log_var))), summed over the last axis, in nats."""
    return -0.5 * (LOG_2PI + log_var + (x - mean) ** 2 * np.exp(-np.asarray(log_var, "float64"))).sum(axis=-1)


def mixture(z, logits, means, log_vars):
    """log sum_k w_k N(z; means[k], diag(exp(log_vars[k]))) of z [n, d], w = softmax(logits): [n], in nats."""
    log_weights = logits - logsumexp(logits)
    rows = max(1, 4_000_000 // means.size)
    parts = [z[first : first + rows] for first in range(0, len(z), rows)]
    return np.concatenate([logsumexp(log_weights + normal(part[:, None], means, log_vars), axis=-1) for part in parts])


def triangular(entries, dims, highest):
    """The factor L [..., d, d] of entries [..., d (d + 1) / 2], row by row, and log L_ii^2 [..., d].

    L_ii = exp(0.5 * entry), and an entry on the diagonal counts as `highest` where it is above that.
    """
    rows, columns = np.tril_indices(dims)
    factor = np.zeros((*entries.shape[:-1], dims, dims))
    factor[..., rows, columns] = entries
    log_squares = np.minimum(np.diagonal(factor, axis1=-2, axis2=-1), highest)
    factor[..., np.arange(dims), np.arange(dims)] = np.exp(0.5 * log_squares)
    return factor, log_squares


def kl_per_dimension(mean, log_var):
    """KL(N(mean, exp(log_var)) || N(0, 1)) of each dimension, in nats."""
    return 0.5 * (np.exp(log_var) + mean**2 - 1 - log_var)


def log_mean_exp(values, axis):
    return logsumexp(values, axis=axis) - math.log(values.shape[axis])


def bounds(log_weights, size):
    """The bound of `size` samples, from log-weights [s, n]: means over disjoint groups of draws, [groups, n]."""
    groups = len(log_weights) // size
    return log_mean_exp(log_weights[: groups * size].reshape(groups, size, -1), axis=1)


def total_correlation(z, mean, log_var):
    """log q(z) - sum_j log q(z_j), q(z) = 1/n sum_i q(z|x_i) over a batch: [n], in nats. All arrays are [n, d]."""
    by_dimension = -0.5 * (LOG_2PI + log_var + (z[:, None] - mean) ** 2 * np.exp(-log_var))  # draw, image, dimension
    return log_mean_exp(by_dimension.sum(axis=-1), axis=1) - log_mean_exp(by_dimension, axis=1).sum(axis=-1)


def bernoulli(x, logits):
    """log p(x) of each pixel, in nats; of a grey pixel the cross-entropy with its sign turned."""
    return x * logits - np.logaddexp(0, logits)


def continuous_bernoulli(x, logits):
    """log density of each pixel, in nats."""
    size = np.maximum(np.abs(logits), 1e-4)
    # log((exp(l) - 1) / l) = max(l, 0) + log((1 - exp(-|l|)) / |l|)
    normalizer = np.maximum(logits, 0) + np.log(-np.expm1(-size)) - np.log(size)
    return x * logits - np.where(np.abs(logits) < 1e-4, 0.5 * logits, normalizer)


def gaussian(x, mean, scale):
    """log density of each pixel, in nats."""
    return -0.5 * ((x - mean) / scale) ** 2 - math.log(scale) - 0.5 * LOG_2PI


def discretized_logistic(x, location, scale):
    """log p of the level of each pixel, in nats: the mass of its interval, open outwards at 0 and 255."""
    level = np.round(255 * x)
    lower, upper = ((level + half - 255 * location) / (255 * scale) for half in (-0.5, 0.5))
    inner = -np.logaddexp(0, -upper) - np.logaddexp(0, lower) + math.log(-math.expm1(-1 / (255 * scale)))
    return np.where(level <= 0, -np.logaddexp(0, -upper), np.where(level >= 255, -np.logaddexp(0, lower), inner))


def continuous_bernoulli_mean(logits):
    size = np.maximum(np.abs(logits), 1e-3)
    far = np.where(logits < 0, 1 / size - 1 / np.expm1(size), 1 - 1 / size + 1 / np.expm1(size))
    return np.where(np.abs(logits) < 1e-3, 0.5 + logits / 12, far)


def discretized_logistic_mean(location, scale):
    """Mean of the levels, each weighed by its probability."""
    levels = np.arange(256) / 255
    return (levels * np.exp(discretized_logistic(levels, np.asarray(location)[..., None], scale))).sum(axis=-1)


def sigmoid(logits):
    return np.exp(-np.logaddexp(0, -logits))
