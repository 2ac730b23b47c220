"""Bernoulli and continuous Bernoulli: the decoder emits logits."""

import math
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_vae import noise as noises
from keras_vae.likelihoods.base import OfUnitInterval, Tensor
from keras_vae.noise import Noise


@keras.saving.register_keras_serializable(package="keras_vae")
class Bernoulli(OfUnitInterval):
    """Pixels are 0 or 1; the decoder emits logits.

    For grey pixels in [0, 1] the same formula is a cross-entropy: a usable loss, but no likelihood.

    Example:

    >>> import numpy as np
    >>> from keras_vae import likelihoods
    >>> bernoulli = likelihoods.get("bernoulli")
    >>> print(f"{bernoulli.log_prob(np.ones((1, 4), 'float32'), np.zeros((1, 4), 'float32')).numpy()[0]:.4f}")
    -2.7726

    Reference:
        Kingma and Welling, Auto-Encoding Variational Bayes, 2014, appendix C.1, in logits instead of probabilities.
    """

    support = "binary"

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        # as in the base class, at half the time
        logits = ops.convert_to_tensor(params, "float32")
        x = ops.convert_to_tensor(x, "float32")
        pixels = math.prod(x.shape[1:])
        logits = ops.reshape(logits, (*ops.shape(logits)[: 1 - len(x.shape)], pixels))  # (..., b, pixels)
        log_prob = ops.sum(ops.reshape(x, (-1, pixels)) * logits, axis=-1) - _sum_softplus(logits)
        return self.within_range(x, log_prob)

    def log_prob_per_value(self, x: Tensor, logits: Tensor) -> Tensor:
        # x log s(l) + (1 - x) log(1 - s(l)) = x l - softplus(l), finite for every finite l
        return x * logits - ops.softplus(logits)

    def params_of(self, mean: Tensor) -> Tensor:
        """The logits whose mean is `mean`, clipped to [0.001, 0.999]."""
        mean = ops.clip(mean, 0.001, 0.999)
        return ops.log(mean) - ops.log1p(-mean)

    def mean(self, logits: Tensor) -> Tensor:
        """Probability of a 1, float32 in [0, 1], shaped like `logits`."""
        return ops.sigmoid(logits)

    def sample(self, logits: Tensor, noise: Noise | int | None = None) -> Tensor:
        """Draws pixels in {0, 1}, float32, shaped like `logits`."""
        uniform = noises.get(noise).uniform(ops.shape(logits), "x")
        return ops.cast(uniform < ops.sigmoid(logits), "float32")


@keras.saving.register_keras_serializable(package="keras_vae")
class ContinuousBernoulli(OfUnitInterval):
    """Pixels are real numbers in [0, 1]; the decoder emits logits, as for the Bernoulli.

    The density is p(x) = exp(x l - A(l)), A(l) = log((exp(l) - 1) / l), where the logit l is that of the paper's
    lambda: the Bernoulli's formula with the constant that makes it integrate to 1 over grey pixels. A density may be
    above 1, so that good models of grey images have a negative reconstruction_loss.

    Example:

    >>> import numpy as np
    >>> from keras_vae import likelihoods
    >>> continuous_bernoulli = likelihoods.get("continuous_bernoulli")
    >>> log_prob = continuous_bernoulli.log_prob(np.ones((1, 4), "float32"), np.full((1, 4), 2.0, "float32"))
    >>> print(f"{log_prob.numpy()[0]:.4f}")
    3.3542

    Reference:
        Loaiza-Ganem and Cunningham, The continuous Bernoulli: fixing a pervasive error in variational autoencoders,
        2019, section 3, in logits.
    """

    def log_prob_per_value(self, x: Tensor, logits: Tensor) -> Tensor:
        size = ops.abs(logits)
        # 0.5 l + log(sinh(l / 2) / (l / 2)), whose Taylor series is exact to float32 below 1. The other form, for the
        # rest, subtracts 1 / l from 1 / l in its gradient; a where needs both branches to be finite.
        near = ops.square(ops.minimum(size, 1.0)) / 4
        series = near * (1 / 6 - near * (1 / 180 - near * (1 / 2835 - near / 37800)))
        far = ops.maximum(size, 1.0)
        log_normalizer = ops.where(
            size < 1.0, 0.5 * logits + series, ops.relu(logits) + ops.log(-ops.expm1(-far)) - ops.log(far)
        )
        return x * logits - log_normalizer

    def params_of(self, mean: Tensor) -> Tensor:
        """The logits whose mean is `mean`, clipped to [0.001, 0.999]. Found by bisection: there is no closed form."""
        mean = ops.clip(mean, 0.001, 0.999)
        low, high = ops.full_like(mean, -1000.0), ops.full_like(mean, 1000.0)
        for _ in range(32):
            middle = 0.5 * (low + high)
            is_low = self.mean(middle) < mean
            low, high = ops.where(is_low, middle, low), ops.where(is_low, high, middle)
        return 0.5 * (low + high)

    def mean(self, logits: Tensor) -> Tensor:
        """Mean of a pixel, 1 / (1 - exp(-l)) - 1 / l, float32 in (0, 1), shaped like `logits`."""
        size = ops.abs(logits)
        small = ops.clip(logits, -1.0, 1.0)
        square = ops.square(small)
        series = 0.5 + small * (1 / 12 - square * (1 / 720 - square * (1 / 30240 - square / 1209600)))
        far = ops.maximum(size, 1.0)
        from_edge = 1 / far - ops.exp(-far) / (1 - ops.exp(-far))  # the mean's distance from the nearer of 0 and 1
        return ops.where(size < 1.0, series, ops.where(logits < 0.0, from_edge, 1 - from_edge))

    def sample(self, logits: Tensor, noise: Noise | int | None = None) -> Tensor:
        """Draws pixels in [0, 1], float32, shaped like `logits`, by the inverse of the distribution function."""
        uniform = noises.get(noise).uniform(ops.shape(logits), "x")
        size = ops.maximum(ops.abs(logits), 1e-6)  # below that it is uniform, to float32
        from_edge = ops.log1p(uniform * ops.expm1(-size)) / -size
        return ops.where(logits < 0.0, from_edge, 1 - from_edge)


@tf.custom_gradient
def _sum_softplus(logits: Tensor) -> Any:
    """Sum of softplus over the last axis: sum relu(l) + log prod(1 + exp(-|l|)).

    Each factor is at most 2, so that a product of 16 cannot overflow, and one log does for 16 pixels.
    """
    factors = 1.0 + tf.exp(-tf.abs(logits))
    group = math.gcd(logits.shape[-1], 16)
    shape = tf.concat([tf.shape(logits)[:-1], [logits.shape[-1] // group, group]], axis=0)
    products = tf.reduce_prod(tf.reshape(factors, shape), axis=-1)

    def gradient(upstream: Tensor) -> Tensor:
        return upstream[..., None] * tf.sigmoid(logits)

    return tf.reduce_sum(tf.nn.relu(logits), axis=-1) + tf.reduce_sum(tf.math.log(products), axis=-1), gradient
