"""Likelihoods p(x|z): what a decoder output means.

A decoder emits `params_per_channel` numbers for each channel of each pixel; the likelihood turns them into a true
log-probability, a mean image and samples. A new likelihood is one class and one row of `LIKELIHOODS` below.
"""

import math

import keras
from keras import ops

from keras_vae.gaussian import LOG_2PI


class Likelihood(keras.layers.Layer):
    """Base class; a layer, so that a likelihood can have weights of its own. Computes in float32."""

    params_per_channel = 1
    support = "real"  # the pixel values that have a likelihood: "binary" or "real"

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.built = True

    def log_prob(self, x, params):
        """Log-probability of images.

        Args:
            x: Float tensor [b, ...], pixels in [0, 1].
            params: Float tensor [..., b, ...]: the decoder's output, with any number of leading sample axes.

        Returns:
            Tensor [..., b], nats, summed over pixels and channels.
        """
        per_pixel = self.log_prob_per_pixel(x, params)
        event_axes = tuple(range(1 - len(x.shape), 0))
        return ops.sum(per_pixel, axis=event_axes)

    def call(self, params):
        return self.mean(params)

    def statistics(self):
        """What there is to report of the likelihood's own weights: a dict of floats."""
        return {}


@keras.saving.register_keras_serializable(package="keras_vae")
class Bernoulli(Likelihood):
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

    def log_prob_per_pixel(self, x, logits):
        # x log s(l) + (1 - x) log(1 - s(l)) = x l - softplus(l), finite for every finite l
        return x * logits - ops.softplus(logits)

    def params_of(self, mean):
        """The logits whose mean is `mean`, clipped to [0.001, 0.999]."""
        mean = ops.clip(mean, 0.001, 0.999)
        return ops.log(mean) - ops.log1p(-mean)

    def mean(self, logits):
        """Probability of a 1, float32 in [0, 1], shaped like `logits`."""
        return ops.sigmoid(logits)

    def sample(self, logits, seed=None):
        """Draws pixels in {0, 1}, float32, shaped like `logits`."""
        uniform = keras.random.uniform(ops.shape(logits), seed=seed)
        return ops.cast(uniform < ops.sigmoid(logits), "float32")


@keras.saving.register_keras_serializable(package="keras_vae")
class Gaussian(Likelihood):
    """Pixels are N(f(z), scale^2), with one scale for all pixels; the decoder emits the means.

    Args:
        scale: Float above 0, the standard deviation in units of pixels in [0, 1].
        learn_scale: Bool, whether the scale is a weight that starts at `scale`.

    Example:

    >>> import numpy as np
    >>> from keras_vae import likelihoods
    >>> gaussian = likelihoods.get("gaussian", scale=1.0)
    >>> print(f"{gaussian.log_prob(np.ones((1, 4), 'float32'), np.ones((1, 4), 'float32')).numpy()[0]:.4f}")
    -3.6758

    Reference:
        Doersch, Tutorial on Variational Autoencoders, 2016, section 2; with the constants that the tutorial drops.
    """

    def __init__(self, scale=1.0, learn_scale=False, **kwargs):
        super().__init__(**kwargs)
        if not (isinstance(scale, (int, float)) and 0 < scale < math.inf):
            raise ValueError(f"Invalid value for argument `scale`. Expected a float above 0. Received: scale={scale!r}")
        self.scale = scale
        self.learn_scale = learn_scale
        self.log_scale = self.add_weight(
            name="log_scale",
            shape=(),
            initializer=keras.initializers.Constant(math.log(scale)),
            trainable=learn_scale,
        )

    def log_prob_per_pixel(self, x, mean):
        log_scale = ops.convert_to_tensor(self.log_scale)
        return -0.5 * ops.square((x - mean) * ops.exp(-log_scale)) - log_scale - 0.5 * LOG_2PI

    def params_of(self, mean):
        """The mean itself."""
        return mean

    def mean(self, mean):
        """The mean itself, float32; it may leave [0, 1]."""
        return mean

    def sample(self, mean, seed=None):
        """Draws pixels around `mean`, float32; they may leave [0, 1]."""
        return mean + ops.exp(self.log_scale) * keras.random.normal(ops.shape(mean), seed=seed)

    def statistics(self):
        """The standard deviation of a pixel, learned or not."""
        return {"scale": float(ops.exp(self.log_scale))}

    def get_config(self):
        return {**super().get_config(), "scale": self.scale, "learn_scale": self.learn_scale}


LIKELIHOODS = {"bernoulli": Bernoulli, "gaussian": Gaussian}


def get(identifier, **options):
    """Returns a likelihood by name, made with `options`, or the likelihood itself.

    Raises:
        ValueError: for an unknown name.
    """
    if isinstance(identifier, Likelihood):
        return identifier
    if identifier not in LIKELIHOODS:
        raise ValueError(
            f"Unknown likelihood. Expected one of: {', '.join(LIKELIHOODS)}. Received: likelihood={identifier!r}"
        )
    return LIKELIHOODS[identifier](**options)
