"""Posteriors q(z|x): how z is drawn, and with which density.

An encoder returns the heads of a posterior; the reparameterization stands here and nowhere else. A new posterior is one
class and one row of `POSTERIORS` below.
"""

import abc
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_vae import gaussian, named
from keras_vae.noise import Noise

Tensor = Any


class Posterior(keras.layers.Layer, abc.ABC):
    """Base class; a layer, so that a posterior can have weights. Computes in float32.

    `heads` are the encoder's outputs, each [b, ...], in the order of `head_shapes`. The first has the shape of z.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    @abc.abstractmethod
    def head_shapes(self, latent_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """What an encoder must return: name of each head -> its shape, without the batch.

        Args:
            latent_shape: Shape of one z, (d,).
        """

    @abc.abstractmethod
    def sample(self, heads: Sequence[Tensor], num_samples: int, noise: Noise) -> tuple[Tensor, Tensor]:
        """Draws z, so that gradients flow back to the heads.

        Args:
            heads: The encoder's outputs.
            num_samples: Int, s.
            noise: A `keras_vae.noise.Noise`.

        Returns:
            Pair (z, log_q): float [s, b, d], and log q(z|x) of each draw, float [s, b], nats.
        """

    @abc.abstractmethod
    def log_prob(self, z: Tensor, heads: Sequence[Tensor]) -> Tensor:
        """log q(z|x), float [s, b], nats, of z [s, b, d]."""

    @abc.abstractmethod
    def mean(self, heads: Sequence[Tensor]) -> Tensor:
        """The code without noise, float [b, d]: what is decoded to a reconstruction."""

    def build(self, head_shapes: Sequence[tuple[Any, ...]]) -> None:
        """Builds the posterior for heads of these shapes, each (None, ...), as `head_shapes` says."""
        self.latent_shape = tuple(head_shapes[0][1:])
        self.built = True

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Nothing: a loaded posterior is built by its model, which has the encoder."""

    def in_float32(self, heads: Sequence[Tensor]) -> list[Tensor]:
        """The heads in the type that the posterior computes in."""
        return [ops.cast(head, self.compute_dtype) for head in heads]


@keras.saving.register_keras_serializable(package="keras_vae")
class DiagonalGaussian(Posterior):
    """q(z|x) = N(z_mean, diag(exp(z_log_var))): the latent dimensions are independent, given x.

    z = z_mean + exp(0.5 * z_log_var) * eps with eps ~ N(0, I).

    Example:

    >>> import numpy as np
    >>> from keras_vae import noise, posteriors
    >>> posterior = posteriors.get("diagonal_gaussian")
    >>> posterior.head_shapes((2,))
    {'z_mean': (2,), 'z_log_var': (2,)}
    >>> z, log_q = posterior.sample([np.zeros((4, 2)), np.zeros((4, 2))], 3, noise.get(1))
    >>> tuple(z.shape), tuple(log_q.shape)
    ((3, 4, 2), (3, 4))

    Reference:
        Kingma and Welling, Auto-Encoding Variational Bayes, 2014, section 2.4 and equation 10.
    """

    def head_shapes(self, latent_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        return {"z_mean": tuple(latent_shape), "z_log_var": tuple(latent_shape)}

    def parameters(self, heads: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(z_mean, z_log_var) as q(z|x) has them: in float32, the latter bounded."""
        z_mean, z_log_var = self.in_float32(heads)
        return z_mean, gaussian.bounded(z_log_var)

    def sample(self, heads: Sequence[Tensor], num_samples: int, noise: Noise) -> tuple[Tensor, Tensor]:
        z_mean, z_log_var = self.parameters(heads)
        eps = noise((num_samples, tf.shape(z_mean)[0], *z_mean.shape[1:]), "posterior")
        log_q = -0.5 * _sum_event(gaussian.LOG_2PI + z_log_var + ops.square(eps))
        return z_mean + ops.exp(0.5 * z_log_var) * eps, log_q

    def log_prob(self, z: Tensor, heads: Sequence[Tensor]) -> Tensor:
        z_mean, z_log_var = self.parameters(heads)
        return -0.5 * _sum_event(gaussian.LOG_2PI + z_log_var + ops.square(z - z_mean) * ops.exp(-z_log_var))

    def mean(self, heads: Sequence[Tensor]) -> Tensor:
        return self.in_float32(heads)[0]


@keras.saving.register_keras_serializable(package="keras_vae")
class FullCovariance(Posterior):
    """q(z|x) = N(z_mean, L L^T) with a triangular factor L: the latent dimensions may be correlated, given x.

    z = z_mean + L eps with eps ~ N(0, I). The head `z_factor` has the d (d + 1) / 2 entries of L, row by row from the
    top; on the diagonal L_ii = exp(0.5 * entry), so that zeros make q(z|x) = N(z_mean, I).

    Example:

    >>> from keras_vae import posteriors
    >>> posteriors.get("full_covariance").head_shapes((3,))
    {'z_mean': (3,), 'z_factor': (6,)}

    Reference:
        Kingma and Welling, An Introduction to Variational Autoencoders, 2019, section 2.5.1 and algorithm 2.
    """

    def head_shapes(self, latent_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        (latent_dim,) = latent_shape
        return {"z_mean": (latent_dim,), "z_factor": (latent_dim and latent_dim * (latent_dim + 1) // 2,)}

    def parameters(self, heads: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """(z_mean [b, d], L [b, d, d], log of the squared diagonal of L [b, d])."""
        z_mean, z_factor = self.in_float32(heads)
        latent_dim = z_mean.shape[-1]
        rows = np.arange(latent_dim)
        diagonal = rows * (rows + 3) // 2  # places of L_ii among the entries
        log_squares = gaussian.bounded(ops.take(z_factor, diagonal, axis=-1))
        below = np.tril_indices(latent_dim, -1)
        places = np.full((latent_dim, latent_dim), z_factor.shape[-1])  # a zero that is put behind the entries
        places[below] = below[0] * (below[0] + 1) // 2 + below[1]
        padded = ops.pad(z_factor, [[0, 0], [0, 1]])
        factor = ops.reshape(ops.take(padded, places.reshape(-1), axis=-1), (-1, latent_dim, latent_dim))
        return z_mean, factor + ops.exp(0.5 * log_squares)[..., None] * np.eye(latent_dim, dtype="float32"), log_squares

    def sample(self, heads: Sequence[Tensor], num_samples: int, noise: Noise) -> tuple[Tensor, Tensor]:
        z_mean, factor, log_squares = self.parameters(heads)
        eps = noise((num_samples, tf.shape(z_mean)[0], z_mean.shape[-1]), "posterior")
        z = z_mean + ops.einsum("bij,sbj->sbi", factor, eps)
        return z, -0.5 * ops.sum(gaussian.LOG_2PI + log_squares + ops.square(eps), axis=-1)

    def log_prob(self, z: Tensor, heads: Sequence[Tensor]) -> Tensor:
        z_mean, factor, log_squares = self.parameters(heads)
        eps = ops.solve_triangular(factor, ops.transpose(z - z_mean, (1, 2, 0)), lower=True)  # (b, d, s)
        constant = ops.sum(gaussian.LOG_2PI + log_squares, axis=-1)
        return -0.5 * (constant + ops.transpose(ops.sum(ops.square(eps), axis=1)))

    def mean(self, heads: Sequence[Tensor]) -> Tensor:
        return self.in_float32(heads)[0]


def _sum_event(values: Tensor) -> Tensor:
    """Sums [s, b, ...] to [s, b]."""
    return ops.sum(values, axis=tuple(range(2, len(values.shape))))


POSTERIORS = {"diagonal_gaussian": DiagonalGaussian, "full_covariance": FullCovariance}


def get(identifier: Any, **options: Any) -> Posterior:
    """Returns a posterior by name, made with `options`, or the posterior itself.

    Raises:
        InputError: for an unknown name.
    """
    if isinstance(identifier, Posterior):
        return identifier
    made: Posterior = named.make("posterior", identifier, POSTERIORS, options)
    return made
