"""Gaussian: the decoder emits means."""

import math
from typing import Any

import keras
from keras import ops

from keras_vae import noise as noises
from keras_vae.gaussian import LOG_2PI
from keras_vae.likelihoods.base import Likelihood, Tensor, checked_scale
from keras_vae.noise import Noise
from keras_vae.options import PositiveFloat


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

    def __init__(self, scale: PositiveFloat = 1.0, learn_scale: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = checked_scale(scale)
        self.learn_scale = learn_scale
        self.log_scale = self.add_weight(
            name="log_scale",
            shape=(),
            initializer=keras.initializers.Constant(math.log(scale)),
            trainable=learn_scale,
        )

    def log_prob_per_value(self, x: Tensor, mean: Tensor) -> Tensor:
        log_scale = ops.convert_to_tensor(self.log_scale)
        return -0.5 * ops.square((x - mean) * ops.exp(-log_scale)) - log_scale - 0.5 * LOG_2PI

    def params_of(self, mean: Tensor) -> Tensor:
        """The mean itself."""
        return mean

    def mean(self, mean: Tensor) -> Tensor:
        """The mean itself, float32."""
        return mean

    def sample(self, mean: Tensor, noise: Noise | int | None = None) -> Tensor:
        """Draws values around `mean`, float32."""
        return mean + ops.exp(self.log_scale) * noises.get(noise)(ops.shape(mean), "x")

    def statistics(self) -> dict[str, float]:
        """The standard deviation of a value, learned or not."""
        return {"scale": float(ops.exp(self.log_scale))}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale, "learn_scale": self.learn_scale}
