"""What a likelihood promises."""

import abc
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_vae.config import InputError
from keras_vae.noise import Noise

Tensor = Any


class Likelihood(keras.layers.Layer, abc.ABC):
    """Base class; a layer, so that a likelihood can have weights of its own. Computes in float32.

    `support` names the values that have a likelihood, "binary", "8-bit", "unit" (all in [0, 1]) or "real"; `lowest` and
    `highest` bound those that `log_prob` takes, and `mean_range` those of the mean, or is None.
    """

    support = "real"
    lowest, highest = -math.inf, math.inf
    mean_range: tuple[float, float] | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.built = True

    def param_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
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
        x = ops.convert_to_tensor(x, "float32")
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

    def call(self, params: Tensor) -> Tensor:
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

    def within_range(self, x: Tensor, log_prob: Tensor) -> Tensor:
        """`log_prob` [..., b] where x [b, ...] is in range, minus infinity elsewhere."""
        return log_prob if math.isinf(self.lowest) else tf.where(self.supports(x), log_prob, -math.inf)

    def statistics(self) -> dict[str, float]:
        """What there is to report of the likelihood's own weights."""
        return {}


class OfUnitInterval(Likelihood):
    """Base of the likelihoods of values in [0, 1]."""

    support = "unit"
    lowest, highest = 0.0, 1.0
    mean_range = (0.0, 1.0)


def checked_scale(scale: float) -> float:
    """`scale`, if it is a float above 0."""
    if not (isinstance(scale, (int, float)) and 0 < scale < math.inf):
        raise ValueError(f"Invalid value for argument `scale`. Expected a float above 0. Received: scale={scale!r}")
    return scale
