"""Likelihoods p(x|z): what a decoder output means.

A decoder emits parameters of the shape `param_shape(event_shape)`; the likelihood turns them into a true
log-probability, a mean and samples. x has any event shape: images, vectors, sequences. A new likelihood is one class
and one row of `LIKELIHOODS` below.
"""

import abc
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_vae import named
from keras_vae import noise as noises
from keras_vae.config import InputError
from keras_vae.gaussian import LOG_2PI
from keras_vae.noise import Noise
from keras_vae.options import PositiveFloat

Tensor = Any


class Likelihood(keras.layers.Layer, abc.ABC):
    """Base class; a layer, so that a likelihood can have weights of its own. Computes in float32.

    `support` names the values that have a likelihood, "binary", "8-bit", "unit" (all in [0, 1]) or "real"; `lowest` and
    `highest` bound those that `log_prob` takes, and `mean_range` those of the mean, or is None.
    """

    support = "real"
    lowest, highest = -math.inf, math.inf
    mean_range: tuple[float, float] | None = None

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.built = True

    def param_shape(self, event_shape: tuple) -> tuple:
        """Shape of the parameters of one example, from the shape of one example."""
        return tuple(event_shape)

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        """Log-probability of examples; minus infinity for values out of range.

        Args:
            x: Float tensor [b, ...].
            params: Float tensor [..., b, ...]: the decoder's output, with any number of leading sample axes.

        Returns:
            Tensor [..., b], nats, summed over the event dimensions.
        """
        event_axes = tuple(range(1 - len(x.shape), 0))
        return self.within_range(x, ops.sum(self.log_prob_per_value(x, params), axis=event_axes))

    def log_prob_per_value(self, x: Tensor, params: Tensor) -> Tensor:
        """log p of each value of x, nats, not yet summed: of a likelihood that does not give `log_prob` itself."""
        raise NotImplementedError(f"{type(self).__name__} must give log_prob_per_value or log_prob.")

    @abc.abstractmethod
    def mean(self, params: Tensor) -> Tensor:
        """Mean of p(x|z), float32, of the shape of x."""

    @abc.abstractmethod
    def sample(self, params: Tensor, noise: Noise | int | None = None) -> Tensor:
        """Draws x. `noise` is a `keras_vae.noise.Noise`, or an int seed, or None for other draws at each call."""

    def params_of(self, mean: Tensor) -> Tensor:
        """The parameters whose mean is `mean`, for `start_at_mean`; where it is too near to an end, one that is not."""
        raise InputError(f"A likelihood {type(self).__name__} cannot start at a mean: it has no `params_of`.")

    def call(self, params):
        return self.mean(params)

    def supports(self, x: Tensor) -> Tensor:
        """Whether `log_prob` can be asked of each example: bool [b], in a graph as well."""
        axes = tuple(range(1, len(x.shape)))
        if math.isinf(self.lowest):
            return tf.reduce_all(tf.math.is_finite(tf.cast(x, "float32")), axis=axes)
        x = tf.cast(x, "float32")
        return tf.reduce_all((x >= self.lowest) & (x <= self.highest), axis=axes)  # NaN fails both comparisons

    def check(self, x: Any) -> None:
        """Raises InputError for values that have no probability, whatever the parameters."""
        x = np.asarray(x)
        low, high = (x.min(), x.max()) if x.size else (0, 0)
        if not (self.lowest <= low and high <= self.highest and np.isfinite(low) and np.isfinite(high)):
            raise InputError(
                f"{self.expected()} Received values from {low} to {high} (dtype {x.dtype}).{self.advice()}"
            )

    def expected(self) -> str:
        """What values are expected, for errors."""
        values = "finite" if math.isinf(self.lowest) else f"in [{self.lowest:g}, {self.highest:g}]"
        return f"Values must be {values}, without NaN, for a likelihood {type(self).__name__}."

    def advice(self) -> str:
        return " Divide 8-bit images by 255." if self.highest == 1 else ""

    def is_likelihood_of(self, x: Any) -> bool:
        """Whether p(x|z) is a probability of these values, and no mere score: a Bernoulli has none of grey pixels."""
        x = np.asarray(x)
        if self.support == "binary":
            return bool(np.all((x == 0) | (x == 1)))
        if self.support == "8-bit":
            return bool(np.allclose(255 * x, np.round(255 * x), atol=1e-3) and np.all((x >= 0) & (x <= 1)))
        return bool(np.all(self.supports(tf.convert_to_tensor(x))))

    def nearest(self, x: Tensor) -> Tensor:
        """x with values out of range brought to the nearest that is in range."""
        return x if math.isinf(self.lowest) else ops.clip(x, self.lowest, self.highest)

    def within_range(self, x, log_prob):
        """`log_prob` [..., b] where x [b, ...] is in range, minus infinity elsewhere."""
        return log_prob if math.isinf(self.lowest) else tf.where(self.supports(x), log_prob, -math.inf)

    def statistics(self) -> dict[str, float]:
        """What there is to report of the likelihood's own weights."""
        return {}


class _OfUnitInterval(Likelihood):
    """Base of the likelihoods of values in [0, 1]."""

    support = "unit"
    lowest, highest = 0.0, 1.0
    mean_range = (0.0, 1.0)


@keras.saving.register_keras_serializable(package="keras_vae")
class Bernoulli(_OfUnitInterval):
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

    def log_prob(self, x, params):
        # as in the base class, at half the time
        logits = ops.convert_to_tensor(params, "float32")
        x = ops.convert_to_tensor(x, "float32")
        pixels = math.prod(x.shape[1:])
        logits = ops.reshape(logits, (*ops.shape(logits)[: 1 - len(x.shape)], pixels))  # (..., b, pixels)
        log_prob = ops.sum(ops.reshape(x, (-1, pixels)) * logits, axis=-1) - _sum_softplus(logits)
        return self.within_range(x, log_prob)

    def log_prob_per_value(self, x, logits):
        # x log s(l) + (1 - x) log(1 - s(l)) = x l - softplus(l), finite for every finite l
        return x * logits - ops.softplus(logits)

    def params_of(self, mean):
        """The logits whose mean is `mean`, clipped to [0.001, 0.999]."""
        mean = ops.clip(mean, 0.001, 0.999)
        return ops.log(mean) - ops.log1p(-mean)

    def mean(self, logits):
        """Probability of a 1, float32 in [0, 1], shaped like `logits`."""
        return ops.sigmoid(logits)

    def sample(self, logits, noise=None):
        """Draws pixels in {0, 1}, float32, shaped like `logits`."""
        uniform = noises.get(noise).uniform(ops.shape(logits), "x")
        return ops.cast(uniform < ops.sigmoid(logits), "float32")


@keras.saving.register_keras_serializable(package="keras_vae")
class ContinuousBernoulli(_OfUnitInterval):
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

    def log_prob_per_value(self, x, logits):
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

    def params_of(self, mean):
        """The logits whose mean is `mean`, clipped to [0.001, 0.999]. Found by bisection: there is no closed form."""
        mean = ops.clip(mean, 0.001, 0.999)
        low, high = ops.full_like(mean, -1000.0), ops.full_like(mean, 1000.0)
        for _ in range(32):
            middle = 0.5 * (low + high)
            is_low = self.mean(middle) < mean
            low, high = ops.where(is_low, middle, low), ops.where(is_low, high, middle)
        return 0.5 * (low + high)

    def mean(self, logits):
        """Mean of a pixel, 1 / (1 - exp(-l)) - 1 / l, float32 in (0, 1), shaped like `logits`."""
        size = ops.abs(logits)
        small = ops.clip(logits, -1.0, 1.0)
        square = ops.square(small)
        series = 0.5 + small * (1 / 12 - square * (1 / 720 - square * (1 / 30240 - square / 1209600)))
        far = ops.maximum(size, 1.0)
        from_edge = 1 / far - ops.exp(-far) / (1 - ops.exp(-far))  # the mean's distance from the nearer of 0 and 1
        return ops.where(size < 1.0, series, ops.where(logits < 0.0, from_edge, 1 - from_edge))

    def sample(self, logits, noise=None):
        """Draws pixels in [0, 1], float32, shaped like `logits`, by the inverse of the distribution function."""
        uniform = noises.get(noise).uniform(ops.shape(logits), "x")
        size = ops.maximum(ops.abs(logits), 1e-6)  # below that it is uniform, to float32
        from_edge = ops.log1p(uniform * ops.expm1(-size)) / -size
        return ops.where(logits < 0.0, from_edge, 1 - from_edge)


@keras.saving.register_keras_serializable(package="keras_vae")
class Gaussian(Likelihood):
    """Values are N(f(z), scale^2), with one scale for all of them; the decoder emits the means. Any finite real values.

    Args:
        scale: Float above 0, the standard deviation of a value.
        learn_scale: Bool, whether the standard deviation is learned, starting from `scale`.

    Example:

    >>> import numpy as np
    >>> from keras_vae import likelihoods
    >>> gaussian = likelihoods.get("gaussian", scale=1.0)
    >>> print(f"{gaussian.log_prob(np.ones((1, 4), 'float32'), np.ones((1, 4), 'float32')).numpy()[0]:.4f}")
    -3.6758

    Reference:
        Doersch, Tutorial on Variational Autoencoders, 2016, section 2; with the constants that the tutorial drops.
    """

    def __init__(self, scale: PositiveFloat = 1.0, learn_scale: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.scale = _checked_scale(scale)
        self.learn_scale = learn_scale
        self.log_scale = self.add_weight(
            name="log_scale",
            shape=(),
            initializer=keras.initializers.Constant(math.log(scale)),
            trainable=learn_scale,
        )

    def log_prob_per_value(self, x, mean):
        log_scale = ops.convert_to_tensor(self.log_scale)
        return -0.5 * ops.square((x - mean) * ops.exp(-log_scale)) - log_scale - 0.5 * LOG_2PI

    def params_of(self, mean):
        """The mean itself."""
        return mean

    def mean(self, mean):
        """The mean itself, float32."""
        return mean

    def sample(self, mean, noise=None):
        """Draws values around `mean`, float32."""
        return mean + ops.exp(self.log_scale) * noises.get(noise)(ops.shape(mean), "x")

    def statistics(self):
        """The standard deviation of a value, learned or not."""
        return {"scale": float(ops.exp(self.log_scale))}

    def get_config(self):
        return {**super().get_config(), "scale": self.scale, "learn_scale": self.learn_scale}


@keras.saving.register_keras_serializable(package="keras_vae")
class DiscretizedLogistic(_OfUnitInterval):
    """Pixels are one of the 256 levels k / 255; the decoder emits the location of a logistic distribution.

    The probability of a level is that of the interval of width 1 / 255 around it, and the intervals of 0 and 255 are
    open towards the outside. One scale, a learned weight, serves all pixels. Other pixels in [0, 1] count as the
    nearest level.

    Args:
        scale: Float above 0, the scale of the logistic distribution at the start; it is learned.

    Example:

    >>> import numpy as np
    >>> from keras_vae import likelihoods
    >>> logistic = likelihoods.get("discretized_logistic", scale=0.1)
    >>> log_prob = logistic.log_prob(np.ones((1, 4), "float32"), np.ones((1, 4), "float32"))
    >>> print(f"{log_prob.numpy()[0]:.4f}, {logistic.bits_per_dimension(-log_prob[0], (4,)):.4f} bits per dimension")
    -2.7336, 0.9859 bits per dimension

    Reference:
        Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow, 2016, section 4 and its code,
        with the open intervals of Salimans et al., PixelCNN++, 2017, equation 2.
    """

    support = "8-bit"

    def __init__(self, scale: PositiveFloat = 0.1, **kwargs):
        super().__init__(**kwargs)
        self.scale = _checked_scale(scale)
        self.log_scale = self.add_weight(
            name="log_scale", shape=(), initializer=keras.initializers.Constant(math.log(scale))
        )

    def log_prob_per_value(self, x, location):
        level = ops.round(255.0 * x)
        steps_in_scale = ops.exp(-self.log_scale) / 255.0  # of 1 / 255
        lower = (level - 0.5 - 255.0 * location) * steps_in_scale
        upper = (level + 0.5 - 255.0 * location) * steps_in_scale
        # s(upper) - s(lower) = s(upper) s(-lower) (1 - exp(lower - upper)): nothing cancels in the tails
        below_upper = ops.where(level < 255.0, -ops.softplus(-upper), 0.0)
        above_lower = ops.where(level > 0.0, -ops.softplus(lower), 0.0)
        is_inside = ops.logical_and(level > 0.0, level < 255.0)
        return below_upper + above_lower + ops.where(is_inside, ops.log(-ops.expm1(-steps_in_scale)), 0.0)

    def params_of(self, mean):
        """The locations whose mean is `mean`, clipped to [0.001, 0.999], at the present scale."""
        mean = ops.clip(mean, 0.001, 0.999)
        scale = ops.exp(self.log_scale)
        return mean + scale * (ops.log(-ops.expm1(-mean / scale)) - ops.log(-ops.expm1((mean - 1) / scale)))

    def mean(self, location):
        """Mean of the distribution cut off at 0 and 1 before it is rounded to levels, float32 in [0, 1].

        The mean of the levels themselves would take 255 terms for each pixel; it is within 1 / 510 of this one.
        """
        scale = ops.exp(self.log_scale)
        # scale (softplus(location / scale) - softplus((location - 1) / scale)), without the part that cancels
        beyond = ops.softplus(-ops.abs(location) / scale) - ops.softplus(-ops.abs(location - 1) / scale)
        return ops.clip(ops.clip(location, 0.0, 1.0) + scale * beyond, 0.0, 1.0)

    def sample(self, location, noise=None):
        """Draws pixels k / 255, float32, shaped like `location`."""
        uniform = noises.get(noise).uniform(ops.shape(location), "x")
        drawn = location + ops.exp(self.log_scale) * (ops.log(uniform) - ops.log1p(-uniform))
        return ops.round(255.0 * ops.clip(drawn, 0.0, 1.0)) / 255.0

    def bits_per_dimension(self, nats, event_shape):
        """Nats of an example, such as its NLL -> bits for each of the numbers of an example of shape `event_shape`."""
        return float(nats) / (math.prod(event_shape) * math.log(2.0))

    def statistics(self):
        """The scale, as learned."""
        return {"scale": float(ops.exp(self.log_scale))}

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


def _checked_scale(scale):
    if not (isinstance(scale, (int, float)) and 0 < scale < math.inf):
        raise ValueError(f"Invalid value for argument `scale`. Expected a float above 0. Received: scale={scale!r}")
    return scale


@tf.custom_gradient
def _sum_softplus(logits):
    """Sum of softplus over the last axis: sum relu(l) + log prod(1 + exp(-|l|)).

    Each factor is at most 2, so that a product of 16 cannot overflow, and one log does for 16 pixels.
    """
    factors = 1.0 + tf.exp(-tf.abs(logits))
    group = math.gcd(logits.shape[-1], 16)
    shape = tf.concat([tf.shape(logits)[:-1], [logits.shape[-1] // group, group]], axis=0)
    products = tf.reduce_prod(tf.reshape(factors, shape), axis=-1)

    def gradient(upstream):
        return upstream[..., None] * tf.sigmoid(logits)

    return tf.reduce_sum(tf.nn.relu(logits), axis=-1) + tf.reduce_sum(tf.math.log(products), axis=-1), gradient


LIKELIHOODS = {
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "gaussian": Gaussian,
    "discretized_logistic": DiscretizedLogistic,
}


def get(identifier: Any, **options: Any) -> Likelihood:
    """Returns a likelihood by name, made with `options`, or the likelihood itself.

    Raises:
        InputError: for an unknown name.
    """
    if isinstance(identifier, Likelihood):
        return identifier
    return named.make("likelihood", identifier, LIKELIHOODS, options)
