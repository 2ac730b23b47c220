"""Discretized logistic: the decoder emits locations, of pixels that are one of 256 levels."""

import math
from typing import Any

import keras
from keras import ops

from keras_vae import noise as noises
from keras_vae.likelihoods.base import OfUnitInterval, Tensor, checked_scale
from keras_vae.noise import Noise
from keras_vae.options import PositiveFloat


@keras.saving.register_keras_serializable(package="keras_vae")
class DiscretizedLogistic(OfUnitInterval):
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

    def __init__(self, scale: PositiveFloat = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = checked_scale(scale)
        self.log_scale = self.add_weight(
            name="log_scale", shape=(), initializer=keras.initializers.Constant(math.log(scale))
        )

    def log_prob_per_value(self, x: Tensor, location: Tensor) -> Tensor:
        level = ops.round(255.0 * x)
        steps_in_scale = ops.exp(-self.log_scale) / 255.0  # of 1 / 255
        lower = (level - 0.5 - 255.0 * location) * steps_in_scale
        upper = (level + 0.5 - 255.0 * location) * steps_in_scale
        # s(upper) - s(lower) = s(upper) s(-lower) (1 - exp(lower - upper)): nothing cancels in the tails
        below_upper = ops.where(level < 255.0, -ops.softplus(-upper), 0.0)
        above_lower = ops.where(level > 0.0, -ops.softplus(lower), 0.0)
        is_inside = ops.logical_and(level > 0.0, level < 255.0)
        return below_upper + above_lower + ops.where(is_inside, ops.log(-ops.expm1(-steps_in_scale)), 0.0)

    def params_of(self, mean: Tensor) -> Tensor:
        """The locations whose mean is `mean`, clipped to [0.001, 0.999], at the present scale."""
        mean = ops.clip(mean, 0.001, 0.999)
        scale = ops.exp(self.log_scale)
        return mean + scale * (ops.log(-ops.expm1(-mean / scale)) - ops.log(-ops.expm1((mean - 1) / scale)))

    def mean(self, location: Tensor) -> Tensor:
        """Mean of the distribution cut off at 0 and 1 before it is rounded to levels, float32 in [0, 1].

        The mean of the levels themselves would take 255 terms for each pixel; it is within 1 / 510 of this one.
        """
        scale = ops.exp(self.log_scale)
        # scale (softplus(location / scale) - softplus((location - 1) / scale)), without the part that cancels
        beyond = ops.softplus(-ops.abs(location) / scale) - ops.softplus(-ops.abs(location - 1) / scale)
        return ops.clip(ops.clip(location, 0.0, 1.0) + scale * beyond, 0.0, 1.0)

    def sample(self, location: Tensor, noise: Noise | int | None = None) -> Tensor:
        """Draws pixels k / 255, float32, shaped like `location`."""
        uniform = noises.get(noise).uniform(ops.shape(location), "x")
        drawn = location + ops.exp(self.log_scale) * (ops.log(uniform) - ops.log1p(-uniform))
        return ops.round(255.0 * ops.clip(drawn, 0.0, 1.0)) / 255.0

    def bits_per_dimension(self, nats: float, event_shape: tuple[int, ...]) -> float:
        """Nats of an example, such as its NLL -> bits for each of the numbers of an example of shape `event_shape`."""
        return float(nats) / (math.prod(event_shape) * math.log(2.0))

    def statistics(self) -> dict[str, float]:
        """The scale, as learned."""
        return {"scale": float(ops.exp(self.log_scale))}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale}
