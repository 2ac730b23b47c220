"""Objectives: from the terms of one example to the number that is minimised.

A new objective is one class and one row of `OBJECTIVES` below.
"""

import abc
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_vae import gaussian, named
from keras_vae.config import InputError
from keras_vae.layers import Draws
from keras_vae.options import NonNegativeFloat, NonNegativeInt, PositiveInt
from keras_vae.posteriors import DiagonalGaussian

Tensor = Any


class Objective(keras.layers.Layer, abc.ABC):
    """Base class: the terms of each example, from draws of z and what the decoder says of them.

    A layer, so that an objective can have weights: they are trained with those of the model. `num_samples` is the
    number of draws of z for each example, and `term_names` are the names of the terms, the minimised one first.
    """

    num_samples = 1
    term_names: tuple[str, ...] = ("loss", "reconstruction_loss", "kl_loss")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    @abc.abstractmethod
    def terms(self, draws: Draws, decode: Callable[[Tensor], Tensor], step: Tensor | None = None) -> dict[str, Tensor]:
        """The terms of each example.

        Args:
            draws: The `keras_vae.layers.Draws`, s for each of b examples.
            decode: Callable, z [n, b, d] -> log p(x|z), float [n, b], nats.
            step: Int scalar tensor, the number of training steps done so far, or None for evaluation.

        Returns:
            Dict: name -> float [b], nats. The first is minimised.
        """


def _terms(loss: Tensor, log_likelihood: Tensor, draws: Draws) -> dict[str, Tensor]:
    """The usual terms, of the loss [b] and log p(x|z) of the draws [s, b]."""
    return {"loss": loss, "reconstruction_loss": -ops.mean(log_likelihood, axis=0), "kl_loss": draws.kl_loss}


@keras.saving.register_keras_serializable(package="keras_vae")
class ELBO(Objective):
    """loss = reconstruction_loss + beta * kl_loss.

    With `beta` 1 and without free bits the loss is the negative evidence lower bound; else it is not, and is never
    called so.

    Args:
        beta: Float, at least 0, the weight of the KL term.
        warmup_steps: Int. Over this many training steps the weight rises linearly from 0 to `beta`; evaluation
            always uses `beta`.
        cycle_steps: Int, at least `warmup_steps`: the weight starts again from 0 every so many steps; 0 for never.
        free_bits: Float, nats for each latent dimension: the KL of an image is not pushed below that. The paper takes
            the mean over a minibatch first. It acts on each dimension where the prior has a closed KL for each, and
            otherwise on each stochastic layer as a whole.

    Example:

    >>> import numpy as np, keras_vae
    >>> from keras_vae import networks, objectives
    >>> objective = objectives.ELBO(beta=4.0, warmup_steps=1000)
    >>> vae = keras_vae.VAE(*networks.build("linear", (8, 8, 1), 2), objective=objective)
    >>> terms = vae.loss_terms(np.zeros((3, 8, 8, 1), "float32"), training=False)
    >>> bool(np.allclose(terms["loss"], terms["reconstruction_loss"] + 4 * terms["kl_loss"]))
    True

    Reference:
        Kingma and Welling, Auto-Encoding Variational Bayes, 2014, equation 7; Higgins et al., beta-VAE, 2017,
        equation 4; the warm-up is that of Bowman et al., Generating Sentences from a Continuous Space, 2016, the
        cycles are those of Fu et al., Cyclical Annealing Schedule, 2019, and the free bits those of Kingma et al.,
        Improved Variational Inference with Inverse Autoregressive Flow, 2016, equation 15, for each image.
    """

    def __init__(
        self,
        beta: NonNegativeFloat = 1.0,
        warmup_steps: NonNegativeInt = 0,
        cycle_steps: NonNegativeInt = 0,
        free_bits: NonNegativeFloat = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        values = {"beta": beta, "warmup_steps": warmup_steps, "cycle_steps": cycle_steps, "free_bits": free_bits}
        for name, value in values.items():
            if not value >= 0:
                raise ValueError(f"Invalid value for argument `{name}`. Expected at least 0. Received: {name}={value}")
        if cycle_steps and not 1 <= warmup_steps <= cycle_steps:
            raise ValueError(
                "Argument `cycle_steps` needs `warmup_steps` from 1 to `cycle_steps`. "
                f"Received: cycle_steps={cycle_steps}, warmup_steps={warmup_steps}"
            )
        self.beta = beta
        self.warmup_steps = warmup_steps
        self.cycle_steps = cycle_steps
        self.free_bits = free_bits

    def kl_weight(self, step: Tensor | None = None) -> Tensor:
        """Weight of the KL term at a training step, or in evaluation for None."""
        if not self.warmup_steps or step is None:
            return self.beta
        if self.cycle_steps:
            step = step % self.cycle_steps
        return self.beta * ops.minimum(1.0, ops.cast(step, "float32") / self.warmup_steps)

    def terms(self, draws: Draws, decode: Callable[[Tensor], Tensor], step: Tensor | None = None) -> dict[str, Tensor]:
        groups = draws.kl_groups  # (b, g)
        if self.free_bits:
            groups = ops.maximum(groups, self.free_bits * ops.convert_to_tensor(draws.group_dims, "float32"))
        log_likelihood = decode(draws.z)
        return _terms(self.kl_weight(step) * ops.sum(groups, axis=-1) - log_likelihood[0], log_likelihood, draws)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "beta": self.beta,
            "warmup_steps": self.warmup_steps,
            "cycle_steps": self.cycle_steps,
            "free_bits": self.free_bits,
        }


@keras.saving.register_keras_serializable(package="keras_vae")
class MIWAE(Objective):
    """The mean of m importance-weighted bounds of k draws each.

    loss = -1/m sum_m log(1/k sum_k p(x|z) p(z) / q(z|x)).

    Args:
        m: Int, the number of bounds.
        k: Int, draws in each.

    Example:

    >>> import numpy as np, keras_vae
    >>> from keras_vae import networks, objectives
    >>> vae = keras_vae.VAE(*networks.build("linear", (8, 8, 1), 2), objective=objectives.MIWAE(m=2, k=5))
    >>> vae.loss_terms(np.zeros((3, 8, 8, 1), "float32"), training=False)["loss"].shape.as_list()
    [3]

    Reference:
        Rainforth et al., Tighter Variational Bounds are Not Necessarily Better, 2018, section 4.
    """

    def __init__(self, m: PositiveInt = 1, k: PositiveInt = 50, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, value in (("m", m), ("k", k)):
            if not (isinstance(value, int) and value >= 1):
                raise ValueError(
                    f"Invalid value for argument `{name}`. Expected an int of at least 1. Received: {name}={value!r}"
                )
        self.m = m
        self.k = k

    @property
    def num_samples(self) -> int:
        return self.m * self.k

    def terms(self, draws: Draws, decode: Callable[[Tensor], Tensor], step: Tensor | None = None) -> dict[str, Tensor]:
        log_likelihood = decode(draws.z)
        log_weights = log_likelihood + draws.log_prior - draws.log_posterior  # (s, b)
        return _terms(-ops.mean(self.bounds(log_weights), axis=0), log_likelihood, draws)

    def bounds(self, log_weights: Tensor) -> Tensor:
        """log(1/k sum exp) of each group of k draws: [s, b] -> [m, b], nats."""
        return gaussian.log_mean_exp(ops.reshape(log_weights, (self.m, self.k, -1)), axis=1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "m": self.m, "k": self.k}


@keras.saving.register_keras_serializable(package="keras_vae")
class IWAE(MIWAE):
    """The importance-weighted bound: loss = -log(1/k sum_k p(x|z) p(z) / q(z|x)), tighter than the ELBO for k over 1.

    Args:
        k: Int, draws for each image.

    Example:

    >>> from keras_vae import objectives
    >>> objectives.IWAE(k=5).num_samples
    5

    Reference:
        Burda et al., Importance Weighted Autoencoders, 2016, equation 8.
    """

    def __init__(self, k: PositiveInt = 50, **kwargs: Any) -> None:
        super().__init__(m=1, k=k, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {name: value for name, value in super().get_config().items() if name != "m"}


@keras.saving.register_keras_serializable(package="keras_vae")
class DReG(IWAE):
    """The bound of `IWAE` with the doubly reparameterized gradient for the encoder, of the same mean.

    The loss is that of `IWAE`, and so is the gradient of decoder and prior. On its way back through z to the encoder
    the gradient of each draw is multiplied by the draw's normalised weight once more, and log q(z|x) is held fixed as a
    function of the encoder.

    The prior decides whether its variance is lower. benchmarks/gradients.md has measurements: about a third of that of
    `IWAE` with a standard normal prior or a mixture. With a VampPrior, whose density the encoder makes too, it is 0.9
    to 1.2 times that of `IWAE` early in training and 0.4 times later. The gradient of log q(z|x) by z is computed from
    z in float32. For means of order 1 it is good to 1 % down to log-variances of -23.

    Args:
        k: Int, draws for each image.

    Example:

    >>> from keras_vae import objectives
    >>> objectives.DReG(k=5).k
    5

    Reference:
        Tucker et al., Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives, 2019, equation 8.
    """

    def terms(self, draws: Draws, decode: Callable[[Tensor], Tensor], step: Tensor | None = None) -> dict[str, Tensor]:
        weights: list[Tensor] = []  # normalised, [k, b]; filled in below, before the gradient of z needs them

        @tf.custom_gradient
        def weighted_gradient(z: Tensor) -> Tensor:
            def gradient(upstream: Tensor) -> Tensor:
                return upstream * ops.reshape(weights[0], (*ops.shape(weights[0]), *(1,) * (len(z.shape) - 2)))

            return tf.identity(z), gradient

        held = draws.held(weighted_gradient(draws.z))
        log_likelihood = decode(held.z)
        log_weights = log_likelihood + held.log_prior - held.log_posterior
        weights.append(ops.stop_gradient(ops.softmax(log_weights, axis=0)))
        return _terms(-self.bounds(log_weights)[0], log_likelihood, held)


@keras.saving.register_keras_serializable(package="keras_vae")
class BetaTC(Objective):
    """loss = reconstruction_loss + kl_loss + (beta - 1) * total correlation of q(z), for a diagonal Gaussian q(z|x).

    The KL is the sum of the mutual information of x and z, the total correlation of the aggregate posterior q(z), and
    the KL of its dimensions from the prior; of these the second is weighed by beta. q(z) is estimated from the batch,
    all replicas of it: log q(z) = log 1/b sum_j q(z|x_j). The minibatch weighting of the paper has the size of the data
    set in it as well, a constant without a gradient that is left out. The densities are computed from z in float32: for
    means of order 1 they are good to 0.1 nats for each dimension down to log-variances of -25.

    Args:
        beta: Float, at least 0, the weight of the total correlation.

    Example:

    >>> import numpy as np, keras_vae
    >>> from keras_vae import networks, objectives
    >>> vae = keras_vae.VAE(*networks.build("linear", (8, 8, 1), 2), objective=objectives.BetaTC(beta=6.0))
    >>> vae.loss_terms(np.zeros((3, 8, 8, 1), "float32"), training=False)["loss"].shape.as_list()
    [3]

    Reference:
        Chen et al., Isolating Sources of Disentanglement in VAEs, 2018, equations 2 and 4.
    """

    couples_examples = True  # q(z) is estimated from the batch

    def __init__(self, beta: NonNegativeFloat = 6.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not beta >= 0:
            raise ValueError(f"Invalid value for argument `beta`. Expected at least 0. Received: beta={beta}")
        self.beta = beta

    def total_correlation(self, draws: Draws) -> Tensor:
        """log q(z) - sum_j log q(z_j) of each draw, by the batch: float [s, b], nats."""
        if not isinstance(draws.posterior, DiagonalGaussian):
            raise InputError(
                "Objective beta_tc needs the posterior diagonal_gaussian, whose latent dimensions have densities of "
                f"their own. Received: {type(draws.posterior).__name__}"
            )
        z_mean, z_log_var = map(_of_all_replicas, draws.posterior.parameters(draws.heads))
        # log q(z_j|x) of each draw under each image: (s, b, images, d)
        by_dimension = gaussian.log_prob(
            x=draws.z[:, :, None, :, None], mean=z_mean[:, :, None], log_var=z_log_var[:, :, None]
        )
        log_images = ops.log(ops.cast(ops.shape(z_mean)[0], "float32"))
        joint = ops.logsumexp(ops.sum(by_dimension, axis=-1), axis=-1) - log_images
        marginals = ops.logsumexp(by_dimension, axis=-2) - log_images
        return joint - ops.sum(marginals, axis=-1)

    def terms(self, draws: Draws, decode: Callable[[Tensor], Tensor], step: Tensor | None = None) -> dict[str, Tensor]:
        log_likelihood = decode(draws.z)
        elbo = log_likelihood[0] - draws.kl_loss
        return _terms((self.beta - 1.0) * self.total_correlation(draws)[0] - elbo, log_likelihood, draws)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta": self.beta}


def _of_all_replicas(value: Tensor) -> Tensor:
    """`value` [b, ...] of this replica and of all others, joined along the first axis."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return value
    return replica.all_gather(value, axis=0)


OBJECTIVES = {"elbo": ELBO, "iwae": IWAE, "dreg": DReG, "miwae": MIWAE, "beta_tc": BetaTC}


def get(identifier: Any, **options: Any) -> Objective:
    """Returns an objective by name, made with `options`, or the objective itself.

    Example:

    >>> from keras_vae import objectives
    >>> objectives.get({"name": "iwae", "k": 5}).k
    5

    Raises:
        InputError: for an unknown name.
    """
    if isinstance(identifier, Objective):
        return identifier
    made: Objective = named.make("objective", identifier, OBJECTIVES, options)
    return made
