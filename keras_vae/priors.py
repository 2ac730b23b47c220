"""Priors p(z): layers with log_prob, sample and kl. A new prior is one class and one row of `PRIORS` below."""

import keras
from keras import ops

from keras_vae import gaussian, named


class Prior(keras.layers.Layer):
    """Base class; a layer, so that a prior can have weights. Computes in float32.

    A subclass gives `log_prob` and `sample`; where KL(q || p) has a closed form it overrides `kl_groups`.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})

    def bind(self, encoder, input_shape):
        """Tells the prior which network gives q(z|x), before it is built. Most priors do not ask."""

    def build(self, input_shape):
        self.latent_dim = input_shape[-1]
        self.built = True

    def build_from_config(self, config):
        """Nothing: a loaded prior is built by its model, which has the encoder."""

    def log_prob(self, z, seed=None):
        """Log-density of `z`, float [..., d].

        Args:
            z: Float [..., d].
            seed: For a prior that has to draw: int32 [2], or a callable that takes a shape and gives standard normals,
                or None for its own next seed. The others ignore it.

        Returns:
            Float [...], nats.
        """
        raise NotImplementedError(f"{type(self).__name__} must give its log-density.")

    def sample(self, num_samples, seed=None):
        """Draws float32 [num_samples, d]; `seed` is an int or a `keras.random.SeedGenerator`."""
        raise NotImplementedError(f"{type(self).__name__} must give its samples.")

    def kl(self, z_mean, z_log_var, z, seed=None):
        """KL(q || p) of q = N(z_mean, diag(exp(z_log_var))), in closed form or estimated from draws.

        Args:
            z_mean, z_log_var: Float [b, d].
            z: Float [s, b, d], draws from q, for a prior without a closed form.
            seed: As for `log_prob`.

        Returns:
            Float [b], nats; an estimate may be negative.
        """
        return ops.sum(self.kl_groups(z_mean, z_log_var, z, seed), axis=-1)

    def kl_groups(self, z_mean, z_log_var, z, seed=None):
        """The parts that the KL is the sum of: float [b, g], nats. Arguments like `kl`."""
        log_ratio = gaussian.log_prob(x=z, mean=z_mean, log_var=z_log_var) - self.log_prob(z, seed)  # (s, b)
        return ops.mean(log_ratio, axis=0)[:, None]

    @property
    def group_dims(self):
        """Number of latent dimensions in each part of `kl_groups`: a tuple of ints."""
        return (self.latent_dim,)


@keras.saving.register_keras_serializable(package="keras_vae")
class StandardNormal(Prior):
    """p(z) = N(0, I).

    Example:

    >>> from keras_vae import priors
    >>> prior = priors.get("standard_normal")
    >>> prior.build((None, 2))
    >>> tuple(prior.sample(5, seed=1).shape)
    (5, 2)

    Reference:
        Kingma and Welling, Auto-Encoding Variational Bayes, 2014, section 3.
    """

    def log_prob(self, z, seed=None):
        return gaussian.log_prob(x=z, mean=ops.zeros_like(z), log_var=ops.zeros_like(z))

    def kl_groups(self, z_mean, z_log_var, z=None, seed=None):
        return gaussian.kl_per_dimension(z_mean=z_mean, z_log_var=z_log_var)

    @property
    def group_dims(self):
        return (1,) * self.latent_dim

    def sample(self, num_samples, seed=None):
        return keras.random.normal((num_samples, self.latent_dim), seed=seed)


class Mixture(Prior):
    """Base class of mixtures of diagonal Gaussians: a subclass gives the `components`."""

    def components(self):
        """The mixture: logits of the weights, float [K], means [K, d], log_vars [K, d]."""
        raise NotImplementedError(f"{type(self).__name__} must give its components.")

    def log_prob(self, z, seed=None):
        return gaussian.mixture_log_prob(z, *self.components())

    def sample(self, num_samples, seed=None):
        logits, means, log_vars = self.components()
        if not isinstance(seed, keras.random.SeedGenerator):  # which gives two different seeds to two draws
            seed = keras.random.SeedGenerator(seed)
        chosen = keras.random.categorical(logits[None], num_samples, seed=seed)[0]
        eps = keras.random.normal((num_samples, self.latent_dim), seed=seed)
        return ops.take(means, chosen, axis=0) + ops.exp(0.5 * ops.take(log_vars, chosen, axis=0)) * eps


@keras.saving.register_keras_serializable(package="keras_vae")
class GaussianMixture(Mixture):
    """p(z) = sum_k w_k N(m_k, diag(s_k^2)), all of it learned.

    Starts as equal weights, means drawn from N(0, I) and unit variances; KL(q || p) is estimated from the draws of z.

    Args:
        num_components: Int, K.

    Example:

    >>> from keras_vae import priors
    >>> prior = priors.get("gaussian_mixture", num_components=3)
    >>> prior.build((None, 2))
    >>> tuple(prior.sample(5, seed=1).shape)
    (5, 2)

    Reference:
        Tomczak and Welling, VAE with a VampPrior, 2018, section 2, the mixture that they compare with; Dilokthanakul
        et al., Deep Unsupervised Clustering with Gaussian Mixture VAEs, 2016.
    """

    def __init__(self, num_components=10, **kwargs):
        super().__init__(**kwargs)
        self.num_components = _at_least_one(num_components)

    def build(self, input_shape):
        super().build(input_shape)
        shape = (self.num_components, self.latent_dim)
        self.logits = self.add_weight(name="logits", shape=shape[:1], initializer="zeros")
        self.means = self.add_weight(name="means", shape=shape, initializer=keras.initializers.RandomNormal(stddev=1.0))
        self.log_vars = self.add_weight(name="log_vars", shape=shape, initializer="zeros")

    def fit(self, z, seed=0):
        """Fits the mixture to draws of z by expectation maximisation, with scikit-learn.

        Args:
            z: Float [n, d], for example draws from q(z|x) of training images.
            seed: Int seed of the start.

        Returns:
            The prior itself.
        """
        from sklearn.mixture import GaussianMixture as ExpectationMaximisation

        fitted = ExpectationMaximisation(self.num_components, covariance_type="diag", random_state=seed, reg_covar=1e-4)
        fitted.fit(ops.convert_to_numpy(z))
        self.logits.assign(ops.log(fitted.weights_))
        self.means.assign(fitted.means_)
        self.log_vars.assign(ops.log(fitted.covariances_))
        return self

    def components(self):
        return tuple(map(ops.convert_to_tensor, (self.logits, self.means, self.log_vars)))

    def get_config(self):
        return {**super().get_config(), "num_components": self.num_components}


@keras.saving.register_keras_serializable(package="keras_vae")
class VampPrior(Mixture):
    """p(z) = 1/K sum_k q(z|u_k): the mixture of what the encoder makes of K learned pseudo-inputs u_k.

    The pseudo-inputs are shaped like the encoder's input and start as uniform noise, or where `start_at` puts them;
    nothing keeps them in [0, 1]. KL(q || p) is estimated from the draws of z.

    Args:
        num_components: Int, K.

    Example:

    >>> import numpy as np, keras_vae
    >>> from keras_vae import networks, priors
    >>> vae = keras_vae.VAE(*networks.build("linear", (8, 8, 1), 2), prior=priors.VampPrior(num_components=3))
    >>> tuple(vae.prior.pseudo_inputs.shape)
    (3, 8, 8, 1)

    Reference:
        Tomczak and Welling, VAE with a VampPrior, 2018, equation 9.
    """

    def __init__(self, num_components=500, **kwargs):
        super().__init__(**kwargs)
        self.num_components = _at_least_one(num_components)
        self._encode = None

    def bind(self, encoder, input_shape):
        self._pseudo_shape = tuple(input_shape[1:])
        self._encode = lambda images: encoder(images, training=False)  # the encoder belongs to the model, not to us

    def build(self, input_shape):
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

    def start_at(self, images):
        """Sets the pseudo-inputs to `images`, float [K, ...]."""
        self.pseudo_inputs.assign(images)

    def components(self):
        means, log_vars = self._encode(ops.convert_to_tensor(self.pseudo_inputs))
        means, log_vars = ops.cast(means, "float32"), ops.cast(log_vars, "float32")
        return ops.zeros((self.num_components,)), means, gaussian.bounded(log_vars)

    def get_config(self):
        return {**super().get_config(), "num_components": self.num_components}


def _at_least_one(num_components):
    if not (isinstance(num_components, int) and num_components >= 1):
        raise ValueError(
            "Invalid value for argument `num_components`. Expected an int of at least 1. "
            f"Received: num_components={num_components!r}"
        )
    return num_components


PRIORS = {"standard_normal": StandardNormal, "gaussian_mixture": GaussianMixture, "vampprior": VampPrior}


def get(identifier, **options):
    """Returns a prior by name, made with `options`, or the prior itself.

    Raises:
        InputError: for an unknown name.
    """
    if isinstance(identifier, keras.layers.Layer):
        return identifier
    return named.make("prior", identifier, PRIORS, options)
