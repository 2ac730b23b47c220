"""The variational autoencoder with several stochastic layers."""

import keras
from keras import ops

from keras_vae import gaussian, kl, posteriors, priors
from keras_vae import noise as noises
from keras_vae.config import InputError
from keras_vae.models.base import check_network
from keras_vae.models.vae import VAE


@keras.saving.register_keras_serializable(package="keras_vae")
class LayeredPosterior(posteriors.Posterior):
    """q(z1|x) q(z2|z1): two stochastic layers, of which the upper may be layered itself.

    z holds all layers, the lowest first: [s, b, d1 + d2]. The heads are those of q(z1|x).

    Args:
        lower: Posterior layer, q(z1|x).
        encoder: Model, z1 [b, d1] -> the heads of q(z2|z1), such as z_mean and z_log_var, each [b, d2].
        upper: Posterior layer, q(z2|z1).

    Reference:
        Burda et al., Importance Weighted Autoencoders, 2016, equation 2.
    """

    def __init__(self, lower, encoder, upper, **kwargs):
        super().__init__(**kwargs)
        self.lower = lower
        self.encoder = encoder
        self.upper = upper

    def head_shapes(self, latent_shape):
        return self.lower.head_shapes(latent_shape)

    def build(self, head_shapes):
        self.lower.build(head_shapes)
        below = self.lower.latent_shape
        heads = [(head, (None, None)) for head in self.upper.head_shapes((None,))]
        z_shape = check_network("encoders", self.encoder, (None, *below), heads)
        self.upper.build([(None, *shape) for shape in self.upper.head_shapes(z_shape[1:]).values()])
        super().build([(None, below[0] + self.upper.latent_shape[0])])

    def split(self, z):
        """z [..., d1 + d2] -> (z1 [..., d1], z2 [..., d2])."""
        (below,) = self.lower.latent_shape
        return z[..., :below], z[..., below:]

    def upper_heads(self, z):
        """z1 [s, b, d1] -> the heads of q(z2|z1), each [s * b, ...]."""
        return self.encoder(ops.reshape(z, (-1, z.shape[-1])))

    def sample(self, heads, num_samples, noise):
        z, log_q = self.lower.sample(heads, num_samples, noise)
        z_above, log_q_above = self.upper_sample(z, noise)
        return ops.concatenate([z, z_above], axis=-1), log_q + log_q_above

    def upper_sample(self, z, noise):
        """One z2 for each z1 [s, b, d1]: (z2 [s, b, d2], log q(z2|z1) [s, b])."""
        flat, log_q = self.upper.sample(self.upper_heads(z), 1, _Flat(noise.within("upper"), ops.shape(z)[:2]))
        return ops.reshape(flat, (*ops.shape(z)[:2], flat.shape[-1])), ops.reshape(log_q, ops.shape(z)[:2])

    def log_prob(self, z, heads):
        z, z_above = self.split(z)
        flat = ops.reshape(z_above, (1, -1, z_above.shape[-1]))
        log_q_above = self.upper.log_prob(flat, self.upper_heads(z))
        return self.lower.log_prob(z, heads) + ops.reshape(log_q_above, ops.shape(z)[:2])

    def mean(self, heads):
        """The mean of q(z1|x), float [b, d1]: the layer that is decoded."""
        return self.lower.mean(heads)

    def get_config(self):
        return {**super().get_config(), **_serialized(lower=self.lower, encoder=self.encoder, upper=self.upper)}

    @classmethod
    def from_config(cls, config):
        return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})


class _Flat(noises.Noise):
    """The noise of s samples for each of b rows, for a layer that takes them as one sample for each of s * b rows."""

    def __init__(self, noise, leading):
        self.noise = noise
        self.leading = tuple(leading)

    def __call__(self, shape, stream):
        return ops.reshape(self.noise((*self.leading, *shape[2:]), stream), shape)

    def uniform(self, shape, stream):
        return ops.reshape(self.noise.uniform((*self.leading, *shape[2:]), stream), shape)


@keras.saving.register_keras_serializable(package="keras_vae")
class LayeredPrior(priors.Prior):
    """p(z1|z2) p(z2): a Gaussian layer under another prior, which may be layered itself. z as in `LayeredPosterior`.

    Args:
        decoder: Model, z2 [b, d2] -> (mean, log_var) of p(z1|z2), each [b, d1].
        upper: Prior layer, p(z2).

    Reference:
        Burda et al., Importance Weighted Autoencoders, 2016, equation 1.
    """

    def __init__(self, decoder, upper, **kwargs):
        super().__init__(**kwargs)
        self.decoder = decoder
        self.upper = upper

    def bind(self, encoder, event_shape, posterior):
        # the pseudo-inputs of a VampPrior on top are those of the layer below
        self.dims = posterior.lower.latent_shape[0], posterior.upper.latent_shape[0]
        self.upper.bind(posterior.encoder, posterior.lower.latent_shape, posterior.upper)

    def build(self, input_shape):
        super().build(input_shape)
        below, above = self.dims
        self.upper.build((None, above))
        # the decoder takes the layer above alone, which may be the lowest of several
        taken = self.upper.dims[0] if isinstance(self.upper, LayeredPrior) else above
        self.taken = taken
        check_network("decoders", self.decoder, (None, taken), [(name, (None, below)) for name in ("mean", "log_var")])

    def conditional(self, z):
        """z2 [..., d2] -> (mean, log_var) of p(z1|z2), each float32 [..., d1]."""
        flat = ops.reshape(z[..., : self.taken], (-1, self.taken))
        mean, log_var = (
            ops.reshape(ops.cast(head, "float32"), (*ops.shape(z)[:-1], -1)) for head in self.decoder(flat)
        )
        return mean, gaussian.bounded(log_var)

    def split(self, z):
        """z [..., d1 + d2] -> (z1 [..., d1], z2 [..., d2])."""
        return z[..., : self.dims[0]], z[..., self.dims[0] :]

    def log_conditional(self, z):
        """log p(z1|z2) of z [..., d1 + d2]: float [...], nats."""
        z, z_above = self.split(z)
        mean, log_var = self.conditional(z_above)
        return gaussian.log_prob(x=z, mean=mean, log_var=log_var)

    def log_prob(self, z):
        return self.log_conditional(z) + self.upper.log_prob(self.split(z)[1])

    def sample(self, num_samples, noise=None):
        noise = noises.get(noise)
        z_above = self.upper.sample(num_samples, noise.within("upper"))
        mean, log_var = self.conditional(z_above)
        eps = noise((1, num_samples, self.dims[0]), "prior")[0]
        return ops.concatenate([mean + ops.exp(0.5 * log_var) * eps, z_above], axis=-1)

    def frozen(self):
        prior = LayeredPrior(self.decoder, self.upper.frozen())
        prior.dims, prior.taken, prior.latent_dim, prior.built = self.dims, self.taken, self.latent_dim, True
        return prior

    def get_config(self):
        return {**super().get_config(), **_serialized(decoder=self.decoder, upper=self.upper)}

    @classmethod
    def from_config(cls, config):
        return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})


def _serialized(**parts):
    return {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}


@kl.closed_form(LayeredPosterior, LayeredPrior, dims=lambda q, p: (p.dims[0], *kl.group_dims(q.upper, p.upper)))
def _layer_by_layer(posterior, prior, heads, z, log_q):
    """The lowest layer by its draws; the layer above by the same rule again, or in closed form where it has one."""
    below, above = posterior.split(z)
    log_q_below = posterior.lower.log_prob(below, heads)
    flat, heads_above = ops.reshape(above, (1, -1, above.shape[-1])), posterior.upper_heads(below)
    log_q_above = ops.reshape(log_q - log_q_below, (1, -1))
    groups = kl.groups(posterior.upper, prior.upper, heads_above, flat, log_q_above)  # (s * b, g)
    groups = ops.reshape(groups, (*ops.shape(z)[:2], groups.shape[-1]))
    here = log_q_below - prior.log_conditional(z)
    return ops.mean(ops.concatenate([here[..., None], groups], axis=-1), axis=0)


@keras.saving.register_keras_serializable(package="keras_vae")
class HierarchicalVAE(VAE):
    """A variational autoencoder with two or more stochastic layers.

    p(x) = integral of p(x|z1) p(z1|z2) ... p(zL), with q(z1|x) q(z2|z1) ... q(zL|...). For encode and decode z is
    z1, the layer next to the image; posterior and prior draw all layers as one vector, the lowest first. With one
    layer this is a `VAE`.

    Args:
        encoders: List of models: image [b, ...] -> the heads of q(z1|x), then z1 -> those of z2, and so on.
        decoders: List of models: z1 -> parameters of p(x|z1), then z2 -> (mean, log_var) of p(z1|z2), and so on.
        likelihood: Name of a likelihood or a likelihood layer: p(x|z1).
        posterior: Name of a posterior or a posterior layer: that of each layer.
        prior: Name of a prior or a prior layer: that of the uppermost layer.
        objective: As for `VAE`.
        beta: As for `VAE`.
        seed: Int seed of the noise, or None for a random one.
        condition: As for `VAE`: that of the lowest encoder and decoder.

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
        posterior="diagonal_gaussian",
        prior="standard_normal",
        objective="elbo",
        beta=1.0,
        seed=None,
        condition=None,
        **kwargs,
    ):
        if len(encoders) != len(decoders) or not encoders:
            raise InputError(
                "Arguments `encoders` and `decoders` must be lists of one model for each stochastic layer. "
                f"Received: {len(encoders)} and {len(decoders)}"
            )
        lower = posteriors.get(posterior)
        posterior, prior = _like(lower) if len(encoders) > 1 else lower, priors.get(prior)
        for layer in range(len(encoders) - 1, 0, -1):
            below = lower if layer == 1 else _like(lower)
            posterior = LayeredPosterior(below, encoders[layer], posterior)
            prior = LayeredPrior(decoders[layer], prior, name=f"layer_{layer + 1}")
        lowest = encoders[0], decoders[0], likelihood
        super().__init__(*lowest, posterior, prior, objective, beta, seed, condition, **kwargs)

    def lowest(self, z):
        return z[..., : self.latent_dim]

    def get_config(self):
        encoders, decoders, posterior, prior = [self.encoder], [self.decoder], self.posterior, self.prior
        while isinstance(prior, LayeredPrior):
            encoders.append(posterior.encoder)
            decoders.append(prior.decoder)
            posterior, prior = posterior.upper, prior.upper
        lowest = self.posterior.lower if isinstance(self.posterior, LayeredPosterior) else self.posterior
        config = super().get_config()
        del config["encoder"], config["decoder"]
        return {**config, **_serialized(encoders=encoders, decoders=decoders, posterior=lowest, prior=prior)}


def _like(posterior):
    """Another posterior of the same class and options."""
    config = {name: value for name, value in posterior.get_config().items() if name != "name"}
    return type(posterior).from_config(config)
