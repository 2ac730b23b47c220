"""Priors p(z): layers with log_prob, sample and kl. A new prior is one class and one row of `PRIORS` below."""

import keras
from keras import ops

from keras_vae import gaussian


@keras.saving.register_keras_serializable(package="keras_vae")
class StandardNormal(keras.layers.Layer):
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

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})

    def build(self, input_shape):
        self.latent_dim = input_shape[-1]
        self.built = True

    def log_prob(self, z):
        """Log-density of `z`, float [..., d]. Returns [...], nats."""
        return gaussian.log_prob(x=z, mean=ops.zeros_like(z), log_var=ops.zeros_like(z))

    def kl(self, z_mean, z_log_var):
        """KL(q || p) of q = N(z_mean, diag(exp(z_log_var))), both float [..., d]. Returns [...], nats."""
        return gaussian.kl(z_mean=z_mean, z_log_var=z_log_var)

    def sample(self, num_samples, seed=None):
        """Draws float32 [num_samples, d]; `seed` is an int or a `keras.random.SeedGenerator`."""
        return keras.random.normal((num_samples, self.latent_dim), seed=seed)


PRIORS = {"standard_normal": StandardNormal}


def get(identifier):
    """Returns a prior by name, or the prior itself.

    Raises:
        ValueError: for an unknown name.
    """
    if isinstance(identifier, keras.layers.Layer):
        return identifier
    if identifier not in PRIORS:
        raise ValueError(f"Unknown prior. Expected one of: {', '.join(PRIORS)}. Received: prior={identifier!r}")
    return PRIORS[identifier]()
