"""Priors p(z): what latents look like. A new prior is one class and one row of `PRIORS` below."""

import abc
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_vae import gaussian, installed, named
from keras_vae import noise as noises
from keras_vae.noise import Noise
from keras_vae.options import PositiveInt
from keras_vae.posteriors import DiagonalGaussian, Posterior

Tensor = Any


class Prior(keras.layers.Layer, abc.ABC):
    """Base class; a layer, so that a prior can have weights. Computes in float32.

    A subclass gives `log_prob` and `sample`. Where KL(q || p) has a closed form, `keras_vae.kl` knows it.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def bind(self, encoder: Any, event_shape: tuple[int, ...], posterior: Posterior) -> None:
        """Tells the prior what gives q(z|x), before it is built. Most priors do not ask."""

    def build(self, input_shape: tuple[Any, ...]) -> None:
        self.latent_dim = input_shape[-1]
        self.built = True

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Nothing: a loaded prior is built by its model, which has the encoder."""

    @abc.abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of `z`, float [..., d]: float [...], nats."""

    @abc.abstractmethod
    def sample(self, num_samples: int, noise: Noise | int | None = None) -> Tensor:
        """Draws z.

        Args:
            num_samples: Int, n.
            noise: A `keras_vae.noise.Noise`, or an int seed, or None for other draws at each call.

        Returns:
            Float32 [n, d].
        """

    def frozen(self) -> "Prior":
        """A prior with the same draws that needs no network for them: what is served. Itself, for most."""
        return self


@keras.saving.register_keras_serializable(package="keras_vae")
class StandardNormal(Prior):
    """p(z) = N(0, I).

    Example:

    >>> from keras_vae import priors
    >>> prior = priors.get("standard_normal")
    >>> prior.build((None, 2))
    >>> tuple(prior.sample(5, noise=1).shape)
    (5, 2)

    Reference:
        Kingma and Welling, Auto-Encoding Variational Bayes, 2014, section 3.
    """

    def log_prob(self, z: Tensor) -> Tensor:
        return gaussian.log_prob(x=z, mean=ops.zeros_like(z), log_var=ops.zeros_like(z))

    def sample(self, num_samples: int, noise: Noise | int | None = None) -> Tensor:
        return noises.get(noise)((1, num_samples, self.latent_dim), "prior")[0]


class Mixture(Prior):
    """Base class of mixtures of diagonal Gaussians: a subclass gives the `components`."""

    @abc.abstractmethod
    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        """The mixture: logits of the weights, float [K], means [K, d], log_vars [K, d]."""

    def log_prob(self, z: Tensor) -> Tensor:
        return gaussian.mixture_log_prob(z, *self.components())

    def sample(self, num_samples: int, noise: Noise | int | None = None) -> Tensor:
        noise = noises.get(noise)
        logits, means, log_vars = self.components()
        chosen = choose(ops.softmax(logits), num_samples, noise)
        eps = noise((1, num_samples, self.latent_dim), "prior")[0]
        return ops.take(means, chosen, axis=0) + ops.exp(0.5 * ops.take(log_vars, chosen, axis=0)) * eps


@keras.saving.register_keras_serializable(package="keras_vae")
class GaussianMixture(Mixture):
    """p(z) = sum_k w_k N(m_k, diag(s_k^2)), all of it learned.

    Starts as equal weights, means drawn from N(0, I) and unit variances; KL(q || p) is estimated from the draws of z.

    Args:
        num_components: Int, K, the number of components.

    Example:

    >>> from keras_vae import priors
    >>> prior = priors.get("gaussian_mixture", num_components=3)
    >>> prior.build((None, 2))
    >>> tuple(prior.sample(5, noise=1).shape)
    (5, 2)

    Reference:
        Tomczak and Welling, VAE with a VampPrior, 2018, section 2, the mixture that they compare with; Dilokthanakul
        et al., Deep Unsupervised Clustering with Gaussian Mixture VAEs, 2016.
    """

    def __init__(self, num_components: PositiveInt = 500, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_components = _at_least_one(num_components)

    def build(self, input_shape: tuple[Any, ...]) -> None:
        super().build(input_shape)
        shape = (self.num_components, self.latent_dim)
        self.logits = self.add_weight(name="logits", shape=shape[:1], initializer="zeros")
        self.means = self.add_weight(name="means", shape=shape, initializer=keras.initializers.RandomNormal(stddev=1.0))
        self.log_vars = self.add_weight(name="log_vars", shape=shape, initializer="zeros")

    def fit(self, z: Any, seed: int = 0) -> "GaussianMixture":
        """Fits the mixture to draws of z by expectation maximisation, with scikit-learn.

        Args:
            z: Float [n, d], for example draws from q(z|x) of training examples.
            seed: Int seed of the start.

        Returns:
            The prior itself.
        """
        installed.need("sklearn")
        from sklearn.mixture import GaussianMixture as ExpectationMaximisation

        fitted = ExpectationMaximisation(self.num_components, covariance_type="diag", random_state=seed, reg_covar=1e-4)
        fitted.fit(ops.convert_to_numpy(z))
        self.set_components(ops.log(fitted.weights_), fitted.means_, ops.log(fitted.covariances_))
        return self

    def set_components(self, logits: Any, means: Any, log_vars: Any) -> None:
        """Sets the mixture: float [K], [K, d] and [K, d]."""
        for weight, value in ((self.logits, logits), (self.means, means), (self.log_vars, log_vars)):
            weight.assign(value)

    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(map(ops.convert_to_tensor, (self.logits, self.means, self.log_vars)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_components": self.num_components}


@keras.saving.register_keras_serializable(package="keras_vae")
class VampPrior(Prior):
    """p(z) = 1/K sum_k q(z|u_k): the mixture of what the encoder makes of K learned pseudo-inputs u_k.

    The pseudo-inputs are shaped like the encoder's input and start as uniform noise, or where `start_at` puts them;
    nothing keeps them in [0, 1]. KL(q || p) is estimated from the draws of z.

    Args:
        num_components: Int, K, the number of pseudo-inputs.

    Example:

    >>> import numpy as np, keras_vae
    >>> from keras_vae import networks, priors
    >>> vae = keras_vae.VAE(*networks.build("linear", (8, 8, 1), 2), prior=priors.VampPrior(num_components=3))
    >>> tuple(vae.prior.pseudo_inputs.shape)
    (3, 8, 8, 1)

    Reference:
        Tomczak and Welling, VAE with a VampPrior, 2018, equation 9.
    """

    def __init__(self, num_components: PositiveInt = 500, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_components = _at_least_one(num_components)
        self._encode: Any = None
        self._posterior: Any = None

    def bind(self, encoder: Any, event_shape: tuple[int, ...], posterior: Posterior) -> None:
        self._pseudo_shape = tuple(event_shape)
        # encoder and posterior belong to the model, and in a function their weights are not counted as ours
        self._encode = lambda x: encoder(x, training=False)
        self._posterior = lambda: posterior

    def build(self, input_shape: tuple[Any, ...]) -> None:
        super().build(input_shape)
        if self._encode is None:
            raise ValueError(
                "A VampPrior needs the encoder of a model: give it to one, VAE(encoder, decoder, prior=...)."
            )
        self.pseudo_inputs = self.add_weight(
            name="pseudo_inputs",
            shape=(self.num_components, *self._pseudo_shape),
            initializer=keras.initializers.RandomUniform(0.0, 1.0),
        )

    def start_at(self, x: Any) -> None:
        """Sets the pseudo-inputs to `x`, float [K, ...]."""
        self.pseudo_inputs.assign(x)

    def heads(self) -> list[Tensor]:
        """What the encoder returns for the pseudo-inputs, each [K, ...]."""
        return list(self._encode(ops.convert_to_tensor(self.pseudo_inputs)))

    def log_prob(self, z: Tensor) -> Tensor:
        posterior, heads = self._posterior(), self.heads()
        if isinstance(posterior, DiagonalGaussian):  # in two matrix products
            return gaussian.mixture_log_prob(z, ops.zeros((self.num_components,)), *posterior.parameters(heads))
        each = ops.reshape(z, (-1, 1, self.latent_dim))
        log_q = posterior.log_prob(ops.repeat(each, self.num_components, axis=1), heads)  # (n, K)
        return ops.reshape(gaussian.log_mean_exp(log_q, axis=-1), ops.shape(z)[:-1])

    def sample(self, num_samples: int, noise: Noise | int | None = None) -> Tensor:
        noise = noises.get(noise)
        chosen = choose(ops.full((self.num_components,), 1.0 / self.num_components), num_samples, noise)
        heads = [ops.take(head, chosen, axis=0) for head in self.heads()]
        return self._posterior().sample(heads, 1, noise.within("prior"))[0][0]

    def frozen(self) -> Prior:
        posterior = self._posterior()
        if not isinstance(posterior, DiagonalGaussian):
            return self
        mixture = GaussianMixture(self.num_components)
        mixture.build((None, self.latent_dim))
        mixture.set_components(ops.zeros((self.num_components,)), *posterior.parameters(self.heads()))
        return mixture

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_components": self.num_components}


def choose(weights: Tensor, num_samples: int, noise: Noise) -> Tensor:
    """Draws components, int32 [num_samples], of weights that sum to 1, float [K]."""
    return tf.searchsorted(tf.cumsum(weights)[:-1], noise.uniform((1, num_samples), "component")[0], side="right")


def _at_least_one(num_components: int) -> int:
    if not (isinstance(num_components, int) and num_components >= 1):
        raise ValueError(
            "Invalid value for argument `num_components`. Expected an int of at least 1. "
            f"Received: num_components={num_components!r}"
        )
    return num_components


PRIORS = {"standard_normal": StandardNormal, "gaussian_mixture": GaussianMixture, "vampprior": VampPrior}


def get(identifier: Any, **options: Any) -> Prior:
    """Returns a prior by name, made with `options`, or the prior itself.

    Raises:
        InputError: for an unknown name.
    """
    if isinstance(identifier, Prior):
        return identifier
    made: Prior = named.make("prior", identifier, PRIORS, options)
    return made
