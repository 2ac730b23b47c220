"""The variational autoencoder with several stochastic layers."""

import keras
import tensorflow as tf
from keras import ops

from keras_vae import gaussian, priors
from keras_vae.config import InputError
from keras_vae.layers import Sampling
from keras_vae.models.base import check_network
from keras_vae.models.vae import VAE


@keras.saving.register_keras_serializable(package="keras_vae")
class LatentPrior(priors.Prior):
    """p(z1) = integral of p(z1|z2) p(z2): a prior that is a latent-variable model itself.

    Its density is not known. `log_prob` gives log p(z1|z2) p(z2) / q(z2|z1) of one draw z2, which makes the importance
    weights of the whole model exact; `kl` takes the KL of the layer above in closed form where there is one.

    Args:
        encoder: Model, z1 [b, d1] -> (z_mean, z_log_var) of q(z2|z1), each [b, d2].
        decoder: Model, z2 [b, d2] -> (mean, log_var) of p(z1|z2), each [b, d1].
        prior: Name of a prior or a prior layer: p(z2).
        seed: Int seed of the noise, or None for a random one.

    Example:

    >>> from keras_vae import networks
    >>> from keras_vae.models.hierarchical import LatentPrior
    >>> prior = LatentPrior(*networks.build_latent(4, 2, hidden=(8,)), seed=1)
    >>> prior.build((None, 4))
    >>> tuple(prior.sample(5, seed=1).shape)
    (5, 4)

    Reference:
        Burda et al., Importance Weighted Autoencoders, 2016, equations 1 and 2.
    """

    def __init__(self, encoder, decoder, prior="standard_normal", seed=None, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.decoder = decoder
        self.sampling = Sampling(prior, seed=seed)

    @property
    def prior(self):
        """The prior of the layer above, p(z2)."""
        return self.sampling.prior

    def build(self, input_shape):
        super().build(input_shape)
        heads = [(head, (None, None)) for head in ("z_mean", "z_log_var")]
        z_shape = check_network("encoders", self.encoder, input_shape, heads)
        check_network("decoders", self.decoder, z_shape, [(head, input_shape) for head in ("mean", "log_var")])
        self.prior.bind(self.encoder, input_shape)
        self.sampling.build((z_shape, z_shape))

    @property
    def group_dims(self):
        return (self.latent_dim, *self.prior.group_dims)

    @property
    def layer_dims(self):
        """Latent dimensions of the layers that have a layer above them, from this one up."""
        return (self.latent_dim, *(self.prior.layer_dims if isinstance(self.prior, LatentPrior) else ()))

    def log_prob(self, z, seed=None):
        draws, log_conditional, above = self._draw(z, seed)
        log_ratio = self.prior.log_prob(draws.z[0], above) - draws.log_posterior()[0]
        return ops.reshape(log_conditional + log_ratio, ops.shape(z)[:-1])

    def kl_groups(self, z_mean, z_log_var, z, seed=None):
        draws, log_conditional, above = self._draw(z, seed)
        log_posterior = gaussian.log_prob(x=z, mean=z_mean, log_var=z_log_var)  # (s, b)
        here = log_posterior - ops.reshape(log_conditional, ops.shape(log_posterior))
        groups = self.prior.kl_groups(draws.z_mean, draws.z_log_var, draws.z, above)  # (s * b, g)
        groups = ops.reshape(groups, (*z.shape[:1], -1, groups.shape[-1]))
        return ops.mean(ops.concatenate([here[..., None], groups], axis=-1), axis=0)

    def sample(self, num_samples, seed=None):
        if not isinstance(seed, keras.random.SeedGenerator):  # which gives two different seeds to two draws
            seed = keras.random.SeedGenerator(seed)
        mean, log_var = self.conditional(self.prior.sample(num_samples, seed=seed))
        return mean + ops.exp(0.5 * log_var) * keras.random.normal((num_samples, self.latent_dim), seed=seed)

    def conditional(self, z):
        """z2 [b, d2] -> (mean, log_var) of p(z1|z2), each float32 [b, d1]."""
        mean, log_var = self.decoder(z)
        return ops.cast(mean, "float32"), gaussian.bounded(ops.cast(log_var, "float32"))

    def _draw(self, z, seed):
        """One z2 for each z1 [..., d1]: (draws, log p(z1|z2) [n], what the layer above takes as its seed)."""
        z = ops.reshape(z, (-1, self.latent_dim))
        draws = self.sampling.draw(self.encoder(z), seed=seed)
        mean, log_var = self.conditional(draws.z[0])
        above = seed if seed is None or callable(seed) else tf.random.fold_in(seed, 1)
        return draws, gaussian.log_prob(x=z, mean=mean, log_var=log_var), above

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "encoder": serialize(self.encoder),
            "decoder": serialize(self.decoder),
            "prior": serialize(self.prior),
            "seed": self.sampling.seed,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})


@keras.saving.register_keras_serializable(package="keras_vae")
class HierarchicalVAE(VAE):
    """A variational autoencoder with two or more stochastic layers.

    p(x) = integral of p(x|z1) p(z1|z2) ... p(zL), with q(z1|x) q(z2|z1) ... q(zL|...). To all who use the model, z is
    z1, the layer next to the image, and the layers above it are its prior, a `LatentPrior`. With one layer this is
    a `VAE`.

    Args:
        encoders: List of models: image [b, ...] -> (z_mean, z_log_var) of z1, then z1 -> those of z2, and so on.
        decoders: List of models: z1 -> parameters of p(x|z1), then z2 -> (mean, log_var) of p(z1|z2), and so on.
        likelihood: Name of a likelihood or a likelihood layer: p(x|z1).
        prior: Name of a prior or a prior layer: that of the uppermost layer.
        objective: As for `VAE`.
        beta: As for `VAE`.
        seed: Int seed of the noise, or None for a random one.

    Example:

    >>> import numpy as np, keras_vae
    >>> from keras_vae import networks
    >>> lower = networks.build("mlp", (8, 8, 1), latent_dim=4, hidden=(16,))
    >>> upper = networks.build_latent(4, latent_dim=2, hidden=(8,))
    >>> vae = keras_vae.HierarchicalVAE([lower[0], upper[0]], [lower[1], upper[1]], objective="iwae")
    >>> vae.compile(optimizer="adam")
    >>> history = vae.fit(np.zeros((8, 8, 8, 1), "float32"), epochs=1, verbose=0)
    >>> tuple(vae.generate(4, seed=1).shape)
    (4, 8, 8, 1)

    Reference:
        Burda et al., Importance Weighted Autoencoders, 2016, section 5 and equations 1 and 2.
    """

    def __init__(
        self,
        encoders,
        decoders,
        likelihood="bernoulli",
        prior="standard_normal",
        objective="elbo",
        beta=1.0,
        seed=None,
        **kwargs,
    ):
        if len(encoders) != len(decoders) or not encoders:
            raise InputError(
                "Arguments `encoders` and `decoders` must be lists of one model for each stochastic layer. "
                f"Received: {len(encoders)} and {len(decoders)}"
            )
        for layer in range(len(encoders) - 1, 0, -1):  # a seed for each layer, as two must not draw the same noise
            layer_seed = None if seed is None else seed + layer
            prior = LatentPrior(encoders[layer], decoders[layer], prior, seed=layer_seed, name=f"layer_{layer + 1}")
        super().__init__(encoders[0], decoders[0], likelihood, prior, objective, beta, seed, **kwargs)

    def get_config(self):
        encoders, decoders, prior = [self.encoder], [self.decoder], self.prior
        while isinstance(prior, LatentPrior):
            encoders.append(prior.encoder)
            decoders.append(prior.decoder)
            prior = prior.prior
        config = {name: value for name, value in super().get_config().items() if name not in ("encoder", "decoder")}
        serialize = keras.saving.serialize_keras_object
        return {**config, "encoders": serialize(encoders), "decoders": serialize(decoders), "prior": serialize(prior)}
