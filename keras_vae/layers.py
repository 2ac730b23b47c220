"""Layers: draws of z with the KL term, corruptions of inputs, a convolution to images."""

import contextlib
import contextvars
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_vae import kl, named, posteriors, priors
from keras_vae import noise as noises
from keras_vae.noise import Noise, SeedNoise
from keras_vae.options import NonNegativeFloat, Probability
from keras_vae.posteriors import Posterior
from keras_vae.priors import Prior

Tensor = Any


class Draws:
    """s draws from q(z|x) of each example of a batch, and what an objective asks of them.

    Args:
        z: Float [s, b, d].
        log_posterior: Float [s, b], log q(z|x) of each draw, nats.
        heads: What the encoder returned, each [b, ...].
        posterior: The posterior layer q(z|x).
        prior: The prior layer p(z).
    """

    def __init__(
        self, z: Tensor, log_posterior: Tensor, heads: Sequence[Tensor], posterior: Posterior, prior: Prior
    ) -> None:
        self.z = z
        self.log_posterior = log_posterior
        self.heads = heads
        self.posterior = posterior
        self.prior = prior

    @cached_property
    def log_prior(self) -> Tensor:
        """log p(z) of each draw, float [s, b], nats."""
        return self.prior.log_prob(self.z)

    @cached_property
    def kl_groups(self) -> Tensor:
        """KL(q(z|x) || p(z)) in parts, float [b, g], nats. The parts have `group_dims` dimensions each."""
        return kl.groups(self.posterior, self.prior, self.heads, self.z, self.log_posterior)

    @property
    def group_dims(self) -> tuple[int, ...]:
        """Number of latent dimensions in each part of `kl_groups`, a tuple of ints."""
        return kl.group_dims(self.posterior, self.prior)

    @property
    def kl_loss(self) -> Tensor:
        """KL(q(z|x) || p(z)), float [b], nats."""
        return ops.sum(self.kl_groups, axis=-1)

    def held(self, z: Tensor) -> "Draws":
        """The same draws as `z`, with log q(z|x) a function of z alone: heads and weights of q(z|x) are held fixed.

        Its value is the one with which z was drawn. Computed from z it would lose digits where the variance is small.
        """
        fixed = [(weight, ops.stop_gradient(weight)) for weight in self.posterior.trainable_variables]
        with keras.StatelessScope(fixed):
            log_posterior = self.posterior.log_prob(z, [ops.stop_gradient(head) for head in self.heads])
        known = ops.stop_gradient(self.log_posterior)

        @tf.custom_gradient
        def as_drawn(_: Any) -> Tensor:
            return tf.identity(known), lambda upstream: upstream

        return Draws(z, as_drawn(log_posterior), self.heads, self.posterior, self.prior)


# "cpu" or "gpu", where it is not this machine that runs what is computed.
_device: contextvars.ContextVar[str | None] = contextvars.ContextVar("device", default=None)


@contextlib.contextmanager
def runs_on(device: str) -> Iterator[None]:
    """Within the block layers choose their form for `device`, "cpu" or "gpu", instead of for this machine."""
    token = _device.set(device)
    try:
        yield
    finally:
        _device.reset(token)


def default_device() -> str:
    """What this machine computes on: "gpu" where TensorFlow sees one, else "cpu"."""
    return "gpu" if tf.config.list_logical_devices("GPU") else "cpu"


@keras.saving.register_keras_serializable(package="keras_vae")
class Conv2DTranspose(keras.layers.Conv2DTranspose):
    """Keras's layer of this name, in a faster form where a decoder ends: the same arguments, weights and outputs.

    A transposed convolution of stride 1 to one or three channels leaves most of a CPU's vector units idle. Here the
    products of all taps of the kernel are one matrix product, a depthwise convolution with a constant kernel of zeros
    and ones moves each to its place, and they are summed: out[p] = sum over taps k of kernel[k] x[p - k + centre].
    Other layers, and all on a GPU, are computed as Keras does. docs/performance.md has the figures. A graph for
    another machine is made for the device there: `with runs_on("cpu")`.

    Example:

    >>> import numpy as np
    >>> from keras_vae.layers import Conv2DTranspose
    >>> Conv2DTranspose(1, 3, padding="same")(np.ones((2, 28, 28, 32), "float32")).shape
    TensorShape([2, 28, 28, 1])
    """

    compiles_on = ("GPU",)  # XLA is slow at convolutions on a CPU
    MAX_PRODUCTS = 32  # channels times taps, up to which this form is the faster one

    def call(self, inputs: Tensor) -> Tensor:
        if not self._has_faster_form():
            return super().call(inputs)
        rows, columns, filters, depth = self.kernel.shape
        height, width = ops.shape(inputs)[1:3]
        taps = ops.transpose(ops.reshape(self.kernel, (-1, depth)))  # [depth, rows * columns * filters]
        products = ops.reshape(ops.matmul(ops.reshape(inputs, (-1, depth)), taps), (-1, height, width, taps.shape[-1]))
        moved = ops.depthwise_conv(products, self._places(rows, columns, filters), padding="same")
        outputs = ops.sum(ops.reshape(moved, (-1, height, width, rows * columns, filters)), axis=-2)
        if self.use_bias:
            outputs += self.bias
        return self.activation(outputs)

    def _has_faster_form(self) -> bool:
        return (
            self.strides == (1, 1)
            and self.dilation_rate == (1, 1)
            and self.padding == "same"
            and self.data_format == "channels_last"
            and all(size % 2 for size in self.kernel_size)
            and self.filters * math.prod(self.kernel_size) <= self.MAX_PRODUCTS
            and (_device.get() or default_device()) == "cpu"
        )

    def _places(self, rows: int, columns: int, filters: int) -> Tensor:
        """The kernel [rows, columns, products, 1] that takes the product of each tap from the pixel of that tap."""
        places = np.einsum("ra,cb->rcab", np.eye(rows)[::-1], np.eye(columns)[::-1]).reshape(rows, columns, -1)
        return np.repeat(places, filters, axis=-1)[..., None].astype(self.compute_dtype)


class RandomLayer(keras.layers.Layer):
    """Base of the layers that draw: it owns the seed and gives every replica noise of its own."""

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def noise(self) -> SeedNoise:
        """Fresh `SeedNoise`: a function of the layer's seed, the number of calls so far, and the replica."""
        seed = tf.cast(tf.math.floormod(self.seed_generator.next(), tf.int32.max), "int32")
        replica = tf.distribute.get_replica_context()
        if replica is not None and replica.num_replicas_in_sync > 1:
            seed = tf.random.fold_in(seed, replica.replica_id_in_sync_group)
        return SeedNoise(seed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable(package="keras_vae")
class Sampling(RandomLayer):
    """Draws z from q(z|x) by the reparameterization trick and brings in the KL term.

    For the diagonal Gaussian z = z_mean + exp(0.5 * z_log_var) * eps with eps ~ N(0, I). kl_loss is
    KL(q(z|x) || p(z)). Computes in float32, unless another dtype is asked for, also under a mixed precision policy.

    Args:
        prior: Name of a prior or a prior layer: p(z).
        posterior: Name of a posterior or a posterior layer: q(z|x).
        seed: Int seed of the noise, or None for a random one.

    Call arguments:
        heads: The encoder's outputs, such as the pair (z_mean, z_log_var) of float tensors [b, d].

    Returns:
        Pair (z, kl_loss): float tensors [b, d] and [b], the latter in nats.

    Example:

    >>> import numpy as np
    >>> from keras_vae.layers import Sampling
    >>> z, kl_loss = Sampling(seed=1)((np.zeros((4, 2), "float32"), np.zeros((4, 2), "float32")))
    >>> tuple(z.shape), kl_loss.numpy().tolist()
    ((4, 2), [0.0, 0.0, 0.0, 0.0])

    Reference:
        Kingma and Welling, Auto-Encoding Variational Bayes, 2014, section 2.4 and equation 10.
    """

    def __init__(
        self,
        prior: Prior | str | dict[str, Any] = "standard_normal",
        posterior: Posterior | str | dict[str, Any] = "diagonal_gaussian",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, **{"dtype": "float32", **kwargs})
        self.prior = priors.get(prior)
        self.posterior = posteriors.get(posterior)

    def build(self, head_shapes: Sequence[tuple[Any, ...]]) -> None:
        self.posterior.build(head_shapes)
        self.prior.build((None, *self.posterior.latent_shape))
        self.built = True

    def call(self, heads: Sequence[Tensor]) -> Tensor:
        draws = self.draw(heads)
        return ops.cast(draws.z[0], self.compute_dtype), ops.cast(draws.kl_loss, self.compute_dtype)

    def draw(self, heads: Sequence[Tensor], num_samples: int = 1, noise: Noise | int | None = None) -> Draws:
        """Draws several z for each example.

        Args:
            heads: The encoder's outputs.
            num_samples: Int, s.
            noise: A `keras_vae.noise.Noise`, or an int seed, or None for the layer's own.

        Returns:
            `Draws` with z of shape [s, b, d].
        """
        noise = self.noise() if noise is None else noises.get(noise)
        z, log_posterior = self.posterior.sample(heads, num_samples, noise)
        return Draws(z, log_posterior, heads, self.posterior, self.prior)

    def compute_output_spec(self, heads: Sequence[Tensor]) -> tuple[Any, Any]:
        return (
            keras.KerasTensor(heads[0].shape, dtype=self.compute_dtype),
            keras.KerasTensor(heads[0].shape[:1], dtype=self.compute_dtype),
        )

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {**super().get_config(), "prior": serialize(self.prior), "posterior": serialize(self.posterior)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Sampling":
        made = {name: keras.saving.deserialize_keras_object(config[name]) for name in ("prior", "posterior")}
        return cls(**{**config, **made})


@keras.saving.register_keras_serializable(package="keras_vae")
class GaussianCorruption(RandomLayer):
    """Adds Gaussian noise. Always on: the caller decides when to corrupt.

    Args:
        rate: Float, at least 0, the standard deviation of the noise.
        seed: Int seed of the noise, or None for a random one.

    Call arguments:
        x: Float tensor [b, ...].

    Returns:
        Float tensor like `x`.

    Example:

    >>> import numpy as np
    >>> from keras_vae.layers import GaussianCorruption
    >>> noisy = GaussianCorruption(0.5, seed=1)(np.zeros((1, 28, 28, 1), "float32"))
    >>> round(float(noisy.numpy().std()), 1)
    0.5
    """

    def __init__(self, rate: NonNegativeFloat = 0.5, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed=seed, **kwargs)
        if not rate >= 0:
            raise ValueError(f"Invalid value for argument `rate`. Expected at least 0. Received: rate={rate}")
        self.rate = rate

    def call(self, x: Tensor) -> Tensor:
        eps = self.noise()(tf.shape(x), "corruption")
        return x + self.rate * ops.cast(eps, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate}


@keras.saving.register_keras_serializable(package="keras_vae")
class MaskingCorruption(RandomLayer):
    """Sets a random share of the values to 0. Always on: the caller decides when to corrupt.

    Args:
        rate: Float in [0, 1], the probability that a value is set to 0.
        seed: Int seed of the noise, or None for a random one.

    Call arguments:
        x: Float tensor [b, ...].

    Returns:
        Float tensor like `x`.

    Example:

    >>> import numpy as np
    >>> from keras_vae.layers import MaskingCorruption
    >>> masked = MaskingCorruption(1.0)(np.ones((1, 4), "float32"))
    >>> float(masked.numpy().sum())
    0.0

    Reference:
        Vincent et al., Stacked Denoising Autoencoders, 2010, section 3.3.
    """

    def __init__(self, rate: Probability = 0.5, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed=seed, **kwargs)
        if not 0 <= rate <= 1:
            raise ValueError(f"Invalid value for argument `rate`. Expected 0 to 1. Received: rate={rate}")
        self.rate = rate

    def call(self, x: Tensor) -> Tensor:
        uniform = self.noise().uniform(tf.shape(x), "corruption")
        return x * ops.cast(uniform >= self.rate, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate}


CORRUPTIONS = {"none": None, "gaussian": GaussianCorruption, "masking": MaskingCorruption}


def get_corruption(identifier: Any, **options: Any) -> keras.layers.Layer | None:
    """Returns a corruption layer by name, made with `options`; a layer as it is; None for None or "none".

    Raises:
        InputError: for an unknown name.
    """
    if identifier is None or isinstance(identifier, keras.layers.Layer):
        return identifier
    return named.make("corruption", identifier, CORRUPTIONS, options)
